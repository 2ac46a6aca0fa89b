//! Signals, and what tells people or spreads load.

use std::sync::Arc;

use jiff::civil::Time;
use kapell_expr::Type;

use crate::language;
use crate::limits;
use crate::spec::{Await, Breakpoint, Emit, EmitWhen, Fairness, Notify, NotifyOn, OffPeak};
use crate::yaml::{Kind, Node};

use super::Context;
use super::read::expression_start;
use super::scope::{Scope, error_type, object_type};
use super::step::instant;
use super::template::Secrets;
use super::workflow::timezone;

/// What `signal` is.
pub(crate) fn signal_type() -> Type {
    object_type(
        "signal",
        [
            ("id", Type::String),
            ("name", Type::String),
            ("key", Type::Any),
            ("payload", Type::Any),
            ("sent_at", Type::Timestamp),
        ],
    )
}

impl Context<'_> {
    /// `await`.
    pub(crate) fn awaited(&mut self, node: &Node, item: &Scope<'_>) -> Option<Await> {
        if node.scalar().is_some() && !node.is_null() {
            self.error_hint(
                "wrong-form",
                node.span,
                "`await` is a map that says which signal",
                "write `await: { signal: name }`; for a time or a duration use `wait`",
            );
            return None;
        }
        let fields = self.fields(node, &language::AWAIT)?;
        let matched = item.with([("signal".to_owned(), signal_type())]);
        let matches = fields
            .get("match")
            .and_then(|node| self.condition(node, "match", &matched));
        let since = fields
            .get("since")
            .and_then(|node| instant(self, node, "since", item));
        let timeout = fields
            .get("timeout")
            .and_then(|node| self.step_timeout(node, "timeout", item));
        Some(Await {
            signal: self.signal_name(fields.get("signal")?)?,
            matches,
            since,
            timeout,
        })
    }

    fn signal_name(&mut self, node: &Node) -> Option<Arc<str>> {
        let name = self.literal(
            node,
            "signal",
            "names of signals are fixed; tell them apart by `key` or by their payload",
        )?;
        self.plain_name(&name, node.span, "signal").then_some(name)
    }

    /// `emit`: one or a list.
    pub(crate) fn emits(&mut self, node: &Node, whole: &Scope<'_>, output: Type) -> Vec<Emit> {
        let items = match &node.kind {
            Kind::List(items) => items,
            Kind::Scalar(_) | Kind::Map(_) | Kind::Broken => std::slice::from_ref(node),
        };
        if items.len() > limits::EMITS {
            let message = format!("a step sends at most {} signals", limits::EMITS);
            self.error_hint(
                "limit",
                node.span,
                message,
                "put more into the payload of one",
            );
            return Vec::new();
        }
        let ended = whole.with([("output".to_owned(), output)]);
        items
            .iter()
            .filter_map(|item| self.emit(item, &ended))
            .collect()
    }

    fn emit(&mut self, node: &Node, ended: &Scope<'_>) -> Option<Emit> {
        let fields = self.fields(node, &language::EMIT)?;
        let whens = [
            ("succeeded", EmitWhen::Succeeded),
            ("failed", EmitWhen::Failed),
            ("done", EmitWhen::Done),
        ];
        let when = fields
            .get("when")
            .and_then(|node| self.choice(node, "when", &whens))
            .unwrap_or_default();
        let scope = match when {
            EmitWhen::Succeeded => ended.clone(),
            EmitWhen::Failed => ended.with([("error".to_owned(), error_type())]),
            EmitWhen::Done => ended.with([("error".to_owned(), Type::Any)]),
        };
        let payload = fields
            .get("payload")
            .and_then(|node| self.value(node, &scope, Secrets::Refused))
            .map(|(payload, _)| payload);
        let key = fields
            .get("key")
            .and_then(|node| self.text(node, "key", &scope, Secrets::Refused));
        let id = fields
            .get("id")
            .and_then(|node| self.text(node, "id", &scope, Secrets::Refused));
        let node = fields.get("signal")?;
        let signal = self.signal_name(node)?;
        if signal.starts_with("workflow.") {
            self.error_hint(
                "reserved-name",
                node.span,
                format!("`{signal}` cannot be sent by a step"),
                "names that start with `workflow.` tell how runs end, and are sent by themselves",
            );
            return None;
        }
        Some(Emit {
            signal,
            payload,
            key,
            id,
            when,
        })
    }

    /// `notify`: one or a list.
    pub(crate) fn notify(&mut self, node: &Node) -> Vec<Notify> {
        let items = match &node.kind {
            Kind::List(items) => items,
            Kind::Scalar(_) | Kind::Map(_) | Kind::Broken => std::slice::from_ref(node),
        };
        items
            .iter()
            .filter_map(|item| self.notify_one(item))
            .collect()
    }

    fn notify_one(&mut self, node: &Node) -> Option<Notify> {
        let fields = self.fields(node, &language::NOTIFY)?;
        let words = [
            ("started", NotifyOn::Started),
            ("succeeded", NotifyOn::Succeeded),
            ("failed", NotifyOn::Failed),
            ("timed_out", NotifyOn::TimedOut),
            ("cancelled", NotifyOn::Cancelled),
            ("discarded", NotifyOn::Discarded),
            ("deadline", NotifyOn::Deadline),
            ("recovered", NotifyOn::Recovered),
            ("approval", NotifyOn::Approval),
        ];
        let on = fields.get("on").map_or_else(
            || vec![NotifyOn::Failed, NotifyOn::TimedOut, NotifyOn::Deadline],
            |node| {
                let items = self.one_or_many(node, "`on`");
                items
                    .iter()
                    .filter_map(|item| self.choice(item, "on", &words))
                    .collect()
            },
        );
        let mut to = Vec::new();
        for item in self.one_or_many(fields.get("to")?, "`to`") {
            let fixed = "who is told is fixed; a channel of the server's settings may decide more";
            if let Some(name) = self.literal(item, "to", fixed)
                && self.receiver(&name, item)
            {
                to.push((name, item.span));
            }
        }
        let to = self.without_repeats(to, "to");
        Some(Notify {
            to: to.into_iter().map(|(name, _)| name).collect(),
            on,
        })
    }

    /// Checks an e-mail address, an address of the web, or the name of a channel.
    fn receiver(&mut self, name: &str, node: &Node) -> bool {
        let blank = name.contains(char::is_whitespace);
        if name.contains("://") {
            let fine = name.starts_with("https://") && !blank;
            if !fine {
                self.error("bad-url", node.span, "`to` starts with `https://`");
            }
            return fine;
        }
        if let Some((user, host)) = name.split_once('@') {
            let fine = !user.is_empty() && !host.is_empty() && !host.contains('@') && !blank;
            if fine {
                self.warn(
                    "not-yet",
                    node.span,
                    "this version sends no e-mail",
                    "name a channel, or give an `https://` address",
                );
            } else {
                self.error(
                    "bad-name",
                    node.span,
                    format!("`{name}` is not an e-mail address"),
                );
            }
            return fine;
        }
        self.plain_name(name, node.span, "channel")
    }

    /// `breakpoint`: a word or a condition.
    pub(crate) fn breakpoint(&mut self, node: &Node, whole: &Scope<'_>) -> Option<Breakpoint> {
        type Made = fn() -> Breakpoint;
        let scalar = self.scalar(node, "breakpoint")?;
        if expression_start(&scalar.text).is_some() {
            return self
                .condition(node, "breakpoint", whole)
                .map(Breakpoint::When);
        }
        let words: [(&str, Made); 3] = [
            ("before", || Breakpoint::Before),
            ("after", || Breakpoint::After),
            ("on_failure", || Breakpoint::OnFailure),
        ];
        self.choice(node, "breakpoint", &words).map(|made| made())
    }

    /// `off_peak`: hours of each day.
    pub(crate) fn off_peak(&mut self, node: &Node) -> Option<OffPeak> {
        let fields = self.fields(node, &language::OFF_PEAK)?;
        let zone = fields.get("timezone").map(|node| timezone(self, node));
        let from = fields
            .get("from")
            .and_then(|node| self.time_of_day(node, "from"));
        let to = fields
            .get("to")
            .and_then(|node| self.time_of_day(node, "to"));
        let (from, to) = (from?, to?);
        if from == to {
            self.error_hint(
                "out-of-range",
                fields.span,
                "`from` and `to` are the same time of day",
                "for all day leave `off_peak` out",
            );
            return None;
        }
        Some(OffPeak {
            from,
            to,
            timezone: zone.flatten(),
        })
    }

    fn time_of_day(&mut self, node: &Node, what: &str) -> Option<Time> {
        let text = self.literal(node, what, "the hours are fixed")?;
        let parsed = text.parse().ok().filter(|_| {
            text.contains(':') && text.bytes().all(|b| b == b':' || b.is_ascii_digit())
        });
        if parsed.is_none() {
            self.error_hint(
                "wrong-type",
                node.span,
                format!("`{what}` is a time of day, not `{text}`"),
                "write hours and minutes: `\"22:00\"`",
            );
        }
        parsed
    }

    /// `fairness`: a key, or a key and its weight.
    pub(crate) fn fairness(&mut self, node: &Node, item: &Scope<'_>) -> Option<Fairness> {
        if node.scalar().is_some() {
            let key = self.text(node, "fairness", item, Secrets::Refused)?;
            return Some(Fairness { key, weight: 1 });
        }
        let fields = self.fields(node, &language::FAIRNESS)?;
        let weight = fields
            .get("weight")
            .map_or(Some(1), |node| self.count(node, "weight", (1, 1_000)));
        let key = fields
            .get("key")
            .and_then(|node| self.text(node, "key", item, Secrets::Refused));
        Some(Fairness {
            key: key?,
            weight: weight?,
        })
    }
}
