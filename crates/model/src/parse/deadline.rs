//! When a run should have ended.

use jiff::SignedDuration;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use kapell_expr::{Program, Template, Type};

use crate::spec::Dyn;
use crate::yaml::Node;

use super::Context;
use super::read::expression_start;
use super::scope::Scope;

impl Context<'_> {
    /// `deadline`: a duration after the due time, a time of day, `within` of a moment of the run, or one
    /// expression for the duration or the instant.
    pub(crate) fn deadline(&mut self, node: &Node, new: &Scope<'_>) -> Option<Dyn<SignedDuration>> {
        let text = self.scalar(node, "deadline")?.text.trim().to_owned();
        if expression_start(&text).is_some() {
            let types = [Type::Duration, Type::Timestamp, Type::String];
            return self.dynamic(node, "deadline", new, &types, |_, _| None);
        }
        if let Some(rest) = text.strip_prefix("within ") {
            return self.within(node, rest.trim());
        }
        if text.contains(':') {
            return self.time_of_each_day(node, &text);
        }
        if kapell_expr::parse_duration(&text).is_err() {
            self.error_hint(
                "wrong-type",
                node.span,
                format!("`deadline` is a duration or a time of day, not `{text}`"),
                "write `2h` after the due time, `within 2h of queued`, or `07:00 Europe/Berlin`",
            );
            return None;
        }
        let span = self.duration(node, "deadline")?;
        self.not_at_once(node, span, &text).map(Dyn::Fixed)
    }

    /// What is over as it begins is no deadline.
    fn not_at_once(
        &mut self,
        node: &Node,
        span: SignedDuration,
        text: &str,
    ) -> Option<SignedDuration> {
        if !span.is_zero() {
            return Some(span);
        }
        self.error_hint(
            "out-of-range",
            node.span,
            format!("`deadline` is after some time, not `{text}`: every run would miss it"),
            "write how long a run may take: `2h`, or leave `deadline` out",
        );
        None
    }

    /// `2h of queued`.
    fn within(&mut self, node: &Node, rest: &str) -> Option<Dyn<SignedDuration>> {
        let (span, since) = match rest.split_once(" of ") {
            Some((span, since)) => (span.trim(), since.trim()),
            None => (rest, "scheduled"),
        };
        let fine = kapell_expr::parse_duration(span).ok().filter(|span| {
            !span.is_negative() && span.as_secs() <= crate::limits::DURATION_SECONDS
        });
        let Some(duration) = fine else {
            self.error_hint(
                "wrong-type",
                node.span,
                format!("`deadline` is `within` a duration, not `{span}`"),
                "write a number with its unit: `within 2h of queued`",
            );
            return None;
        };
        let duration = self.not_at_once(node, duration, span)?;
        match since {
            "scheduled" => Some(Dyn::Fixed(duration)),
            "queued" => {
                let micros = duration.as_micros();
                program(&format!(
                    "run.created_at + duration('{}ms')",
                    micros / 1_000
                ))
            }
            _ => {
                let near = self.nearest(since, ["scheduled", "queued"]);
                let hint = near.map_or_else(
                    || {
                        "it is `scheduled` (the due time) or `queued` (when the run was made)"
                            .to_owned()
                    },
                    |near| format!("did you mean `{near}`?"),
                );
                let message = format!("`deadline` cannot be within something of `{since}`");
                self.error_hint("unknown-word", node.span, message, hint);
                None
            }
        }
    }

    /// `07:00 Europe/Berlin`: the first one after the due time.
    fn time_of_each_day(&mut self, node: &Node, text: &str) -> Option<Dyn<SignedDuration>> {
        let (time, zone) = match text.split_once(char::is_whitespace) {
            Some((time, zone)) => (time, Some(zone.trim())),
            None => (text, None),
        };
        let digits = time
            .bytes()
            .all(|byte| byte == b':' || byte.is_ascii_digit());
        if !digits || time.parse::<Time>().is_err() {
            self.error_hint(
                "wrong-type",
                node.span,
                format!("`deadline` is a time of day, not `{time}`"),
                "write hours and minutes, and a time zone if it is not the run's: `07:00 Europe/Berlin`",
            );
            return None;
        }
        if let Some(zone) = zone
            && TimeZone::get(zone).is_err()
        {
            self.no_zone(node, zone);
            return None;
        }
        let zone = zone.map_or_else(|| "run.timezone".to_owned(), |zone| format!("'{zone}'"));
        let day = format!("date(run.scheduled_at, {zone})");
        let at = format!("{day}.at('{time}', {zone})");
        program(&format!(
            "run.scheduled_at < {at} ? {at} : ({day} + days(1)).at('{time}', {zone})"
        ))
    }
}

/// An expression of this module's own making.
fn program(text: &str) -> Option<Dyn<SignedDuration>> {
    let parsed: Result<Template, _> = Template::parse(&format!("${{{{ {text} }}}}"));
    let program: Option<Program> = match parsed {
        Ok(Template::Expr(program)) => Some(program),
        Ok(_) | Err(_) => None,
    };
    debug_assert!(program.is_some(), "{text}");
    program.map(Dyn::Expr)
}
