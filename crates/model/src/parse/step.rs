//! One step: its verb, then what any step may carry.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use kapell_expr::{Template, Type};

use crate::language::{self, STEP};
use crate::spec::{OnFailure, Outputs, RunIf, Step, Verb};
use crate::yaml::{Entry, Node};

use super::Context;
use super::attempts::Attempts;
use super::fields::Fields;
use super::foreach;
use super::graph;
use super::scope::{GraphView, Scope, error_type, step_type};
use super::template::Secrets;
use super::useless;
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
        useless::refuse(cx, &fields, &verb.key, class);
    }
    let foreach = fields
        .get("foreach")
        .and_then(|node| foreach::variables(cx, node, whole));
    let item = foreach
        .as_ref()
        .map_or_else(|| whole.clone(), |foreach| foreach.scope(whole));
    let outside = foreach
        .as_ref()
        .map_or_else(|| whole.clone(), |foreach| foreach.outside(whole));
    let whole = &outside;
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
    let ended = if foreach.is_some() {
        Type::List(Arc::new(output.clone()))
    } else {
        output.clone()
    };
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
        emit: fields
            .get("emit")
            .map(|node| cx.emits(node, whole, ended))
            .unwrap_or_default(),
        breakpoint: fields
            .get("breakpoint")
            .and_then(|node| cx.breakpoint(node, whole)),
        off_peak: fields.get("off_peak").and_then(|node| cx.off_peak(node)),
        fairness: fields
            .get("fairness")
            .and_then(|node| cx.fairness(node, &item)),
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
            .filter(|key| key.verb && !key.is_later())
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
            .is_some_and(|key| !key.is_later() && fields.get(key.name).is_some())
    })
}

fn class_of(verb: &str) -> Class {
    match verb {
        "steps" | "switch" | "loop" => Class::Container,
        "workflow" => Class::Child,
        "wait" | "await" | "approval" | "set" => Class::Engine,
        _ => Class::Attempts,
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
    let (template, of) = cx.typed_text(node, what, scope, Secrets::Refused)?;
    let fine = matches!(of, Type::Timestamp | Type::Date | Type::String | Type::Any);
    if !fine {
        cx.error(
            "wrong-type",
            node.span,
            format!("`{what}` is a timestamp or a date, and this expression gives {of}"),
        );
        return None;
    }
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
