//! Whether what alerts and the dashboard ask for is there: every metric that they name, with the labels that
//! they choose by, and every page that they send people to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::objects::list;

/// Labels that Prometheus or a rule adds.
const ADDED: [&str; 6] = ["instance", "job", "le", "namespace", "pod", "alertname"];

/// What a server counts: labels by the name of the metric, those of the parts of histograms too.
pub(super) struct Known(BTreeMap<String, Vec<String>>);

impl Known {
    /// As docs/reference/metrics.md says, which is written from the code.
    pub(super) fn read(page: &str) -> Self {
        let mut known = BTreeMap::new();
        for line in page.lines() {
            let cells: Vec<&str> = line.split(" | ").collect();
            let [name, kind, labels, _] = cells[..] else {
                continue;
            };
            let Some(name) = name
                .strip_prefix("| `")
                .and_then(|name| name.strip_suffix('`'))
            else {
                continue;
            };
            let labels = labels
                .split(", ")
                .map(|label| label.trim_matches('`').trim());
            let labels: Vec<String> = labels.map(str::to_owned).collect();
            if kind == "histogram" {
                for part in ["bucket", "sum", "count"] {
                    known.insert(format!("{name}_{part}"), labels.clone());
                }
            } else {
                known.insert(name.to_owned(), labels);
            }
        }
        Self(known)
    }

    /// All names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The metrics that an expression names, and what is wrong with that.
    pub(super) fn used(&self, expression: &str) -> (BTreeSet<String>, Vec<String>) {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let mut used = BTreeSet::new();
        let mut problems = Vec::new();
        let mut rest = expression;
        while let Some(start) = rest.find(is_part) {
            let from = &rest[start..];
            let end = from.find(|c| !is_part(c)).unwrap_or(from.len());
            let (word, after) = from.split_at(end);
            rest = after;
            if !word.starts_with("kapell_") && !word.starts_with("process_") {
                continue;
            }
            let Some(labels) = self.0.get(word) else {
                // A text in an expression, such as the name of a worker.
                if !word.ends_with('_') {
                    problems.push(format!("no server has a metric {word}"));
                }
                continue;
            };
            used.insert(word.to_owned());
            let chosen = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let Some((chosen, after)) = chosen else {
                continue;
            };
            rest = after;
            // What stands between quotes may hold commas.
            for (at, part) in chosen.split('"').enumerate() {
                let label = part.trim_start_matches(',').split(['=', '!']).next();
                let label = label.unwrap_or_default().trim();
                let fits = ADDED.contains(&label) || labels.iter().any(|known| known == label);
                if at % 2 == 0 && !label.is_empty() && !fits {
                    problems.push(format!("{word} has no label {label}"));
                }
            }
        }
        if used.is_empty() {
            problems.push(format!("it asks for nothing: {expression}"));
        }
        (used, problems)
    }
}

/// Problems of rules: `groups` as in a file of Prometheus.
pub(super) fn of_rules(root: &Path, rules: &Value, known: &Known) -> Vec<String> {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    let groups = list(&rules["groups"]).iter();
    for rule in groups.flat_map(|group| list(&group["rules"])) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if let Some(name) = rule["record"].as_str() {
            seen.insert(name.to_owned());
            problems.extend(known.used(&text(&rule["expr"])).1);
            continue;
        }
        let name = text(&rule["alert"]);
        let mut problem = |what: String| problems.push(format!("alert {name}: {what}"));
        if !seen.insert(name.clone()) {
            problem("is there twice".to_owned());
        }
        if !["critical", "warning", "info"].contains(&text(&rule["labels"]["severity"]).as_str()) {
            problem("has no severity".to_owned());
        }
        for needed in ["summary", "description"] {
            if text(&rule["annotations"][needed]).is_empty() {
                problem(format!("has no {needed}"));
            }
        }
        let page = text(&rule["annotations"]["docs"]);
        if page.is_empty() || !root.join(&page).is_file() {
            problem(format!("there is no page `{page}`"));
        }
        for found in known.used(&text(&rule["expr"])).1 {
            problem(found);
        }
    }
    if seen.is_empty() {
        problems.push("there are no rules".to_owned());
    }
    problems
}

/// The panels of a dashboard that ask for something.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let all = list(&dashboard["panels"]).iter();
    all.filter(|panel| panel["type"] != "row")
}

/// Every expression of a dashboard, with the title of its panel.
pub(super) fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in panels(dashboard) {
        for target in list(&panel["targets"]) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            found.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    found
}

/// An expression as Prometheus gets it: something for each variable of Grafana.
pub(super) fn filled(expression: &str) -> String {
    let values = [
        ("$__rate_interval", "5m"),
        ("$__range", "6h"),
        ("$workflow", ".*"),
        ("$queue", ".*"),
        ("$job", ".*"),
    ];
    values
        .iter()
        .fold(expression.to_owned(), |text, (name, value)| {
            text.replace(name, value)
        })
}

/// Problems of a dashboard.
pub(super) fn of_dashboard(dashboard: &Value, known: &Known) -> Vec<String> {
    let mut problems = Vec::new();
    let mut used = BTreeSet::new();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    if dashboard["uid"].as_str().is_none_or(str::is_empty) {
        problems.push("the dashboard has no uid".to_owned());
    }
    for panel in list(&dashboard["panels"]) {
        let title = panel["title"].as_str().unwrap_or_default();
        if !ids.insert(panel["id"].to_string()) {
            problems.push(format!("panel {title}: its id is taken"));
        }
        let number = |key: &str| panel["gridPos"][key].as_u64().unwrap_or(1_000);
        for y in number("y")..number("y") + number("h") {
            for x in number("x")..number("x") + number("w") {
                if x >= 24 || !taken.insert((x, y)) {
                    problems.push(format!("panel {title}: something is at {x}, {y} already"));
                }
            }
        }
    }
    for panel in panels(dashboard) {
        let title = panel["title"].as_str().unwrap_or_default();
        let unit = if panel["type"] == "heatmap" {
            &panel["options"]["yAxis"]["unit"]
        } else {
            &panel["fieldConfig"]["defaults"]["unit"]
        };
        for (what, value) in [
            ("title", &panel["title"]),
            ("description", &panel["description"]),
            ("unit", unit),
        ] {
            if value.as_str().is_none_or(str::is_empty) {
                problems.push(format!("panel {title}: no {what}"));
            }
        }
    }
    for (title, expression) in expressions(dashboard) {
        let (named, found) = known.used(&filled(&expression));
        used.extend(named);
        problems.extend(found.iter().map(|found| format!("panel {title}: {found}")));
        if filled(&expression).contains('$') {
            problems.push(format!(
                "panel {title}: an unknown variable in {expression}"
            ));
        }
    }
    for variable in list(&dashboard["templating"]["list"]) {
        if let Some(asked) = variable["query"]["query"].as_str() {
            let asked = asked.trim_start_matches("label_values(");
            let (metric, label) = asked.split_once(", ").unwrap_or_default();
            let label = label.trim_end_matches(')');
            let (_, found) = known.used(&format!("{metric}{{{label}=\"\"}}"));
            problems.extend(found);
        }
    }
    // What nobody sees might as well not be counted.
    for name in known.names() {
        let part = ["_sum", "_count", "_bucket"];
        let base = part.iter().find_map(|part| name.strip_suffix(part));
        let seen = base.map_or_else(
            || used.contains(name),
            |base| used.iter().any(|used| used.starts_with(base)),
        );
        if !seen {
            problems.push(format!("the dashboard does not show {name}"));
        }
    }
    problems
}
