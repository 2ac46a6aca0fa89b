//! The text format of Prometheus, 0.0.4.

use std::fmt::Write;

use kapell_node::metrics::Histogram;

use super::FAMILIES;

/// A page that is being written: families one after another, each with its samples.
#[derive(Default)]
pub(super) struct Text {
    page: String,
    family: &'static str,
}

impl Text {
    /// Begins a family, which must be one of [`FAMILIES`].
    pub(super) fn family(&mut self, name: &str) {
        let known = FAMILIES.iter().find(|(known, ..)| *known == name);
        let Some((name, kind, _, help)) = known else {
            debug_assert!(false, "{name} is no family");
            return;
        };
        self.family = name;
        let kind = format!("{kind:?}").to_lowercase();
        let _ = writeln!(self.page, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A sample of the family.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.line("", labels, value);
    }

    /// A family with one sample and no labels.
    pub(super) fn plain(&mut self, name: &str, value: f64) {
        self.family(name);
        self.sample(&[], value);
    }

    /// A histogram of microseconds, in seconds.
    pub(super) fn seconds(&mut self, labels: &[(&str, &str)], histogram: &Histogram) {
        self.histogram(labels, histogram, 1e6);
    }

    /// A histogram of numbers.
    pub(super) fn numbers(&mut self, labels: &[(&str, &str)], histogram: &Histogram) {
        self.histogram(labels, histogram, 1.0);
    }

    fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram, unit: f64) {
        let (classes, all, sum) = histogram.read();
        let mut class = |end: &str, values: u64| {
            let labels = [labels, &[("le", end)]].concat();
            self.line("_bucket", &labels, super::count(values));
        };
        for (end, values) in classes {
            class(&(super::count(end) / unit).to_string(), values);
        }
        class("+Inf", all);
        self.line("_sum", labels, super::count(sum) / unit);
        self.line("_count", labels, super::count(all));
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        self.page.push_str(self.family);
        self.page.push_str(suffix);
        for (place, (name, text)) in labels.iter().enumerate() {
            let before = if place == 0 { '{' } else { ',' };
            let text = text
                .replace('\\', r"\\")
                .replace('"', "\\\"")
                .replace('\n', r"\n");
            let _ = write!(self.page, "{before}{name}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.page.push('}');
        }
        let _ = writeln!(self.page, " {value}");
    }

    /// The page.
    pub(super) fn finish(self) -> String {
        self.page
    }
}
