//! What a step says about its attempts, on top of what the workflow says for all.

use std::borrow::Cow;
use std::sync::Arc;

use indexmap::IndexMap;
use jiff::SignedDuration;
use kapell_expr::{Template, Type};

use super::Context;
use super::fields::Fields;
use super::scope::{Scope, error_type};
use super::settings::Clock;
use super::step::{Around, Class, Defaults};
use super::template::Secrets;
use crate::limits;
use crate::spec::{Artifacts, Dyn, Named, Resources, Retry, Timeouts};
use crate::yaml::{Entry, Kind, Node, Span};

/// What a step says about its attempts, with what it takes from around it.
pub(crate) struct Attempts {
    pub(crate) env: Named<Option<Template>>,
    pub(crate) artifacts: Artifacts,
    pub(crate) retry: Retry,
    pub(crate) timeout: Timeouts,
    pub(crate) queue: Arc<str>,
    pub(crate) resources: Resources,
}

impl Attempts {
    pub(crate) fn read(
        cx: &mut Context<'_>,
        fields: &Fields<'_>,
        class: Class,
        item: &Scope<'_>,
        around: &Around<'_>,
    ) -> Self {
        let makes = class == Class::Attempts;
        let defaults = if makes {
            around.defaults
        } else {
            Defaults::default()
        };
        let failed = item.with([
            ("error".to_owned(), error_type()),
            ("attempt".to_owned(), Type::Int),
        ]);
        let retry = overlaid(fields.get("retry"), defaults.retry);
        let resources = overlaid(fields.get("resources"), defaults.resources);
        let clock = if makes { Clock::Attempt } else { Clock::Total };
        let mut timeout = fields
            .get("timeout")
            .or(defaults.timeout)
            .map(|node| cx.timeouts(node, item, clock))
            .unwrap_or_default();
        if around.finally && timeout.attempt.is_none() && timeout.total.is_none() {
            let bound = SignedDuration::try_from(limits::FINALLY_TIMEOUT)
                .ok()
                .map(Dyn::Fixed);
            match clock {
                Clock::Attempt => timeout.attempt = bound,
                Clock::Total => timeout.total = bound,
            }
        }
        let layers = if makes {
            [around.env, defaults.env, fields.get("env")]
        } else {
            [None; 3]
        };
        Self {
            env: env(cx, &layers, item),
            artifacts: fields
                .get("artifacts")
                .filter(|_| makes)
                .map(|node| cx.artifacts(node, item))
                .unwrap_or_default(),
            retry: retry.map_or_else(Retry::unsaid, |node| cx.retry(&node, item, &failed)),
            timeout,
            queue: fields
                .get("queue")
                .or(defaults.queue)
                .and_then(|node| queue(cx, node))
                .unwrap_or_else(|| "default".into()),
            resources: resources
                .map(|node| cx.resources(&node, &failed))
                .unwrap_or_default(),
        }
    }
}

pub(crate) fn queue(cx: &mut Context<'_>, node: &Node) -> Option<Arc<str>> {
    let name = cx.literal(
        node,
        "queue",
        "queues are fixed; use a `switch` to choose one",
    )?;
    cx.plain_name(&name, node.span, "queue").then_some(name)
}

/// A map with what it lacks taken from the default, maps inside it likewise.
fn overlaid<'n>(own: Option<&'n Node>, default: Option<&'n Node>) -> Option<Cow<'n, Node>> {
    match (own, default) {
        (None, default) => default.map(Cow::Borrowed),
        (Some(own), None) => Some(Cow::Borrowed(own)),
        (Some(own), Some(default)) => Some(Cow::Owned(overlay(own, default))),
    }
}

fn overlay(own: &Node, default: &Node) -> Node {
    let (Kind::Map(entries), Kind::Map(others)) = (&own.kind, &default.kind) else {
        return own.clone();
    };
    let mut merged: Vec<Entry> = entries
        .iter()
        .map(|entry| {
            let other = others.iter().find(|other| other.key == entry.key);
            let value = other.map_or_else(
                || entry.value.clone(),
                |other| overlay(&entry.value, &other.value),
            );
            Entry {
                value,
                ..entry.clone()
            }
        })
        .collect();
    merged.extend(
        others
            .iter()
            .filter(|other| entries.iter().all(|entry| entry.key != other.key))
            .cloned(),
    );
    Node {
        span: own.span,
        kind: Kind::Map(merged),
    }
}

/// The environment: later layers win, null unsets.
fn env(
    cx: &mut Context<'_>,
    layers: &[Option<&Node>],
    scope: &Scope<'_>,
) -> Named<Option<Template>> {
    let mut merged: IndexMap<&str, &Entry> = IndexMap::new();
    for layer in layers.iter().flatten() {
        for entry in cx.entries(layer, "`env`") {
            check_variable(cx, &entry.key, entry.key_span);
            merged.insert(&entry.key, entry);
        }
    }
    if merged.len() > limits::ENV_VARIABLES {
        let span = merged
            .values()
            .next_back()
            .map_or(Span::default(), |entry| entry.key_span);
        let message = format!(
            "a step has at most {} environment variables",
            limits::ENV_VARIABLES
        );
        cx.error_hint(
            "limit",
            span,
            message,
            "pass many values as a file, through `with`",
        );
        return Vec::new();
    }
    let mut env = Vec::with_capacity(merged.len());
    for entry in merged.into_values() {
        if entry.value.is_null() {
            env.push((entry.key.clone(), None));
        } else if let Some(text) = cx.text(&entry.value, &entry.key, scope, Secrets::Allowed) {
            env.push((entry.key.clone(), Some(text)));
        }
    }
    env
}

fn check_variable(cx: &mut Context<'_>, name: &str, span: Span) {
    if !super::names::is_identifier(name) {
        cx.error("bad-name", span, format!("`{name}` cannot name an environment variable: letters, digits and `_`, not starting with a digit"));
    } else if name.starts_with("KAPELL_") {
        cx.error_hint(
            "reserved-name",
            span,
            format!("`{name}` is set by the worker"),
            "choose a name that does not start with `KAPELL_`",
        );
    }
}
