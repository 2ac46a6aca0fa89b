//! One step: its verb, then what any step may carry.

use std::borrow::Cow;
use std::sync::Arc;

use indexmap::IndexMap;
use jiff::civil::{Date, DateTime};
use jiff::{SignedDuration, Timestamp};
use kapell_expr::{Template, Type};

use crate::language::{self, STEP};
use crate::limits;
use crate::spec::{
    Artifacts, Dyn, Named, OnFailure, Outputs, Resources, Retry, RunIf, Step, Timeouts, Verb,
};
use crate::yaml::{Entry, Kind, Node, Span};

use super::Context;
use super::containers;
use super::fields::Fields;
use super::graph;
use super::scope::{GraphView, Scope, error_type, step_type};
use super::settings::Clock;
use super::template::Secrets;
use super::verbs;

/// What a step takes from around it.
#[derive(Clone, Copy)]
pub(crate) struct Around<'n> {
    /// `env` of the workflow.
    pub(crate) env: Option<&'n Node>,
    /// `defaults` by key.
    pub(crate) defaults: Defaults<'n>,
    /// In `finally`, where a step without a timeout gets one.
    pub(crate) finally: bool,
}

/// `defaults`, as written.
#[derive(Clone, Copy, Default)]
pub(crate) struct Defaults<'n> {
    pub(crate) retry: Option<&'n Node>,
    pub(crate) timeout: Option<&'n Node>,
    pub(crate) queue: Option<&'n Node>,
    pub(crate) env: Option<&'n Node>,
    pub(crate) resources: Option<&'n Node>,
}

/// What kind of work a verb is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Attempts on a worker.
    Attempts,
    /// Inner steps.
    Container,
    /// A run of another workflow.
    Child,
    /// Done by the engine.
    Engine,
}

/// A verb as read.
pub(crate) struct Did {
    pub(crate) verb: Verb,
    /// The type of one output.
    pub(crate) output: Type,
    /// The inner graph that a handler sees.
    pub(crate) inner: Option<GraphView>,
}

/// Reads a step. `whole` is what it sees; the type is that of `steps.<id>`.
pub(crate) fn read(
    cx: &mut Context<'_>,
    entry: &Entry,
    whole: &Scope<'_>,
    around: &Around<'_>,
) -> Option<(Step, Type)> {
    let id = &entry.key;
    let fields = cx.fields(&entry.value, &STEP)?;
    let verb = the_verb(cx, &fields, entry);
    let class = verb.map_or(Class::Attempts, |verb| class_of(&verb.key));
    if let Some(verb) = verb {
        refuse_useless(cx, &fields, &verb.key, class);
    }
    let foreach = fields
        .get("foreach")
        .and_then(|node| containers::variables(cx, node, whole));
    let item = foreach
        .as_ref()
        .map_or_else(|| whole.clone(), |foreach| foreach.scope(whole));
    let did = verb.and_then(|verb| verbs::read(cx, verb, &fields, &item, around));
    let did = did.unwrap_or(Did {
        verb: Verb::Noop,
        output: Type::Any,
        inner: None,
    });

    let outputs = match (class, fields.get("outputs")) {
        (Class::Container, _) | (_, None) => Outputs::default(),
        (_, Some(node)) => cx.outputs(node),
    };
    let output = outputs.ty.clone().unwrap_or(did.output);
    let of = step_type(id, output.clone(), foreach.is_some());
    let foreach = foreach.map(|foreach| foreach.finish(cx, whole, &item, output));
    let attempts = Attempts::read(cx, &fields, class, &item, around);
    let step = Step {
        id: id.clone(),
        description: cx.prose(fields.get("description"), "description"),
        needs: Vec::new(),
        run_if: run_if(cx, &fields),
        condition: fields
            .get("if")
            .and_then(|node| cx.condition(node, "if", whole)),
        foreach,
        with: with(cx, &fields, verb, &item),
        env: attempts.env,
        outputs,
        artifacts: attempts.artifacts,
        retry: attempts.retry,
        timeout: attempts.timeout,
        queue: attempts.queue,
        resources: attempts.resources,
        priority: fields
            .get("priority")
            .and_then(|node| cx.dynamic_int(node, "priority", whole, (0, 100))),
        not_before: fields
            .get("not_before")
            .and_then(|node| instant(cx, node, "not_before", whole)),
        locks: fields
            .get("locks")
            .map(|node| cx.locks(node, &item))
            .unwrap_or_default(),
        on_failure: fields
            .get("on_failure")
            .map(|node| on_failure(cx, node, whole, did.inner.as_ref(), around))
            .unwrap_or_default(),
        idempotent: fields
            .get("idempotent")
            .and_then(|node| cx.bool(node, "idempotent"))
            .unwrap_or(true),
        once: fields
            .get("once")
            .and_then(|node| cx.bool(node, "once"))
            .unwrap_or(false),
        labels: fields
            .get("labels")
            .map(|node| cx.labels(node, whole))
            .unwrap_or_default(),
        verb: did.verb,
    };
    Some((step, of))
}

/// The one key that says what the step does. One that is not of this version was reported.
fn the_verb<'n>(cx: &mut Context<'_>, fields: &Fields<'n>, entry: &Entry) -> Option<&'n Entry> {
    let mut verbs = fields.verbs();
    let first = verbs.next();
    if first.is_none() {
        let names: Vec<&str> = STEP
            .keys
            .iter()
            .filter(|key| key.verb && !key.later)
            .map(|key| key.name)
            .collect();
        // A misspelt verb is already reported with its suggestion.
        let misspelt = fields.others().next().is_some();
        if !misspelt {
            cx.error_hint(
                "no-verb",
                entry.key_span,
                format!("`{}` does nothing: a step has one verb", entry.key),
                format!("add one of {}", names.join(", ")),
            );
        }
    }
    if let (Some(first), Some(second)) = (first, verbs.next()) {
        cx.error_hint(
            "two-verbs",
            second.key_span,
            format!(
                "`{}` has two verbs, `{}` and `{}`",
                entry.key, first.key, second.key
            ),
            "make two steps of it, the second with `needs` of the first",
        );
    }
    // One that is of a later version, or empty, was reported with the keys.
    first.filter(|verb| {
        STEP.key(&verb.key)
            .is_some_and(|key| !key.later && fields.get(key.name).is_some())
    })
}

fn class_of(verb: &str) -> Class {
    match verb {
        "steps" | "switch" | "loop" => Class::Container,
        "workflow" => Class::Child,
        "wait" | "set" => Class::Engine,
        _ => Class::Attempts,
    }
}

/// Keys that mean nothing on a verb of this class.
fn refuse_useless(cx: &mut Context<'_>, fields: &Fields<'_>, verb: &str, class: Class) {
    if class != Class::Attempts {
        if let Some(entry) = fields.entry("locks") {
            cx.error_hint(
                "locks-not-here",
                entry.key_span,
                format!("`{verb}` makes no attempts, and a lock is held for an attempt"),
                "put the lock on the steps inside, or limit starts with `strategy`",
            );
        }
        for key in [
            "env",
            "artifacts",
            "queue",
            "resources",
            "once",
            "idempotent",
        ] {
            if let Some(entry) = fields.entry(key) {
                let hint = match class {
                    Class::Container => "put it on the steps inside, or into `defaults`",
                    Class::Child => "it belongs into the other workflow",
                    Class::Attempts | Class::Engine => "remove it",
                };
                cx.warn(
                    "no-effect",
                    entry.key_span,
                    format!("`{key}` does nothing on a `{verb}` step"),
                    hint,
                );
            }
        }
    }
    if let Some(entry) = fields
        .entry("with")
        .filter(|_| !matches!(verb, "shell" | "exec" | "python" | "workflow"))
    {
        cx.warn(
            "no-effect",
            entry.key_span,
            format!("`with` does nothing on a `{verb}` step"),
            "write the values where they are used",
        );
    }
    if let Some(entry) = fields.entry("retry").filter(|_| class == Class::Engine) {
        cx.warn(
            "no-effect",
            entry.key_span,
            format!("`retry` does nothing on a `{verb}` step"),
            "remove it",
        );
    }
    if let Some(entry) = fields
        .entry("outputs")
        .filter(|_| matches!(verb, "loop" | "switch"))
    {
        let is = if verb == "loop" {
            "the last vars and `iterations`"
        } else {
            "the taken branch's"
        };
        cx.error_hint(
            "outputs-not-here",
            entry.key_span,
            format!("the output of a `{verb}` is {is}"),
            "to shape it, add a `set` step behind",
        );
    }
    let file = fields
        .get("outputs")
        .and_then(Node::map)
        .and_then(|entries| entries.iter().find(|entry| &*entry.key == "file"));
    if let Some(entry) = file.filter(|_| !matches!(verb, "shell" | "exec" | "steps")) {
        cx.error_hint(
            "outputs-not-here",
            entry.key_span,
            format!("a `{verb}` step writes no output file"),
            "`outputs.file` is for `shell` and `exec`",
        );
    }
}

fn run_if(cx: &mut Context<'_>, fields: &Fields<'_>) -> RunIf {
    let choices = [
        ("all_succeeded", RunIf::AllSucceeded),
        ("all_done", RunIf::AllDone),
        ("any_succeeded", RunIf::AnySucceeded),
        ("any_failed", RunIf::AnyFailed),
        ("none_failed", RunIf::NoneFailed),
    ];
    let Some(node) = fields.get("run_if") else {
        return RunIf::default();
    };
    if fields.get("needs").is_none() {
        cx.warn(
            "no-effect",
            node.span,
            "`run_if` does nothing on a step without `needs`",
            "name the steps that it is about in `needs`",
        );
    }
    match cx.literal(node, "run_if", "use `if` for a condition on values") {
        Some(_) => cx.choice(node, "run_if", &choices).unwrap_or_default(),
        None => RunIf::default(),
    }
}

fn with(
    cx: &mut Context<'_>,
    fields: &Fields<'_>,
    verb: Option<&Entry>,
    item: &Scope<'_>,
) -> Option<Template> {
    let node = fields.get("with")?;
    let on_worker = verb.is_some_and(|verb| matches!(&*verb.key, "shell" | "exec" | "python"));
    cx.values_map(
        node,
        "`with`",
        item,
        if on_worker {
            Secrets::Allowed
        } else {
            Secrets::Refused
        },
    )
}

/// A timestamp, a date, or text of one.
pub(crate) fn instant(
    cx: &mut Context<'_>,
    node: &Node,
    what: &str,
    scope: &Scope<'_>,
) -> Option<Template> {
    let template = cx.text(node, what, scope, Secrets::Refused)?;
    if let Some(text) = super::literal_text(&template) {
        let fine = text.parse::<Timestamp>().is_ok()
            || text.parse::<Date>().is_ok()
            || text.parse::<DateTime>().is_ok();
        if !fine {
            cx.error_hint(
                "wrong-type",
                node.span,
                format!("`{what}` is a time, not `{text}`"),
                "write `2026-01-31T12:00:00Z`, `2026-01-31`, or an expression",
            );
            return None;
        }
    }
    Some(template)
}

/// What a step says about its attempts, with what it takes from around it.
struct Attempts {
    env: Named<Option<Template>>,
    artifacts: Artifacts,
    retry: Retry,
    timeout: Timeouts,
    queue: Arc<str>,
    resources: Resources,
}

impl Attempts {
    fn read(
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

fn on_failure(
    cx: &mut Context<'_>,
    node: &Node,
    whole: &Scope<'_>,
    inner: Option<&GraphView>,
    around: &Around<'_>,
) -> OnFailure {
    if node.scalar().is_some() {
        let continues = cx.choice(node, "on_failure", &[("continue", ())]);
        return if continues.is_some() {
            OnFailure::Continue
        } else {
            OnFailure::Policy
        };
    }
    let Some(fields) = cx.fields(node, &language::HANDLER) else {
        return OnFailure::Policy;
    };
    let then = [("fail", false), ("continue", true)];
    let then_continue = fields
        .get("then")
        .and_then(|node| cx.choice(node, "then", &then))
        .unwrap_or(false);
    let failed = whole.with([("error".to_owned(), error_type())]);
    let seen = match inner {
        Some(inner) => failed.all(inner),
        None => failed.clone(),
    };
    match fields.get("steps") {
        Some(node) => OnFailure::Handle {
            graph: graph::read(cx, node, &seen, around).0,
            then_continue,
        },
        None => OnFailure::Policy,
    }
}
