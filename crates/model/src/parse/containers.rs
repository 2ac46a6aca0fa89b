//! Verbs with inner graphs, and foreach.

use std::sync::Arc;

use kapell_expr::{Object, Template, Type};

use crate::language;
use crate::limits;
use crate::spec::{Branch, Loop, Named, Verb};
use crate::yaml::{Entry, Kind, Node};

use super::Context;
use super::fields::Fields;
use super::graph;
use super::scope::{Scope, object, object_type};
use super::step::{Around, Did};
use super::template::Secrets;

/// Named values and the type of the map they make.
pub(crate) fn outputs(
    cx: &mut Context<'_>,
    node: &Node,
    what: &str,
    scope: &Scope<'_>,
) -> (Named<Template>, Type) {
    let mut values = Vec::new();
    let mut types = Vec::new();
    for entry in cx.entries(node, what) {
        let named = if what == "`set`" { "value" } else { "output" };
        let fine = cx.expression_name(&entry.key, entry.key_span, named);
        let (template, of) = match cx.value(&entry.value, scope, Secrets::Refused) {
            Some((template, of)) => (Some(template), of),
            None => (None, Type::Any),
        };
        types.push((entry.key.to_string(), of));
        values.extend(
            template
                .filter(|_| fine)
                .map(|template| (entry.key.clone(), template)),
        );
    }
    (values, object_type("the output", types))
}

/// `steps`: a group.
pub(crate) fn group(
    cx: &mut Context<'_>,
    node: &Node,
    step: &Fields<'_>,
    item: &Scope<'_>,
    around: &Around<'_>,
) -> Did {
    let (graph, view) = graph::read(cx, node, item, around);
    let (outputs, output) = if let Some(node) = step.get("outputs") {
        outputs(cx, node, "`outputs` of a group", &item.all(&view))
    } else {
        let types = view
            .ids
            .iter()
            .enumerate()
            .map(|(place, id)| (id.to_string(), view.output(place)));
        (Vec::new(), object_type("the output", types))
    };
    Did {
        verb: Verb::Steps { graph, outputs },
        output,
        inner: step.get("foreach").is_none().then_some(view),
    }
}

/// `switch`: the first branch that holds.
pub(crate) fn switch(
    cx: &mut Context<'_>,
    node: &Node,
    item: &Scope<'_>,
    around: &Around<'_>,
) -> Did {
    let items = cx.items(node, "`switch`");
    if items.is_empty() && matches!(node.kind, Kind::List(_)) {
        cx.error("wrong-form", node.span, "`switch` has no branches");
    }
    let mut branches = Vec::with_capacity(items.len());
    for (place, branch) in items.iter().enumerate() {
        branches.extend(read_branch(
            cx,
            branch,
            place + 1 == items.len(),
            item,
            around,
        ));
    }
    let output = Object {
        open: true,
        ..object("the branch's output", [("branch", Type::Any)])
    };
    Did {
        verb: Verb::Switch { branches },
        output: Type::Object(Arc::new(output)),
        inner: None,
    }
}

fn read_branch(
    cx: &mut Context<'_>,
    node: &Node,
    last: bool,
    item: &Scope<'_>,
    around: &Around<'_>,
) -> Option<Branch> {
    let fields = cx.fields(node, &language::BRANCH)?;
    let when = fields
        .get("when")
        .and_then(|node| cx.condition(node, "when", item));
    match (fields.entry("when"), fields.entry("else")) {
        (Some(_), None) => {}
        (None, Some(otherwise)) => {
            if cx.bool(&otherwise.value, "else") == Some(false) {
                cx.error_hint(
                    "wrong-type",
                    otherwise.value.span,
                    "`else` is `true`",
                    "use `when` for a condition",
                );
            }
            if !last {
                cx.error_hint(
                    "else-not-last",
                    otherwise.key_span,
                    "branches behind `else` are never taken",
                    "move it to the end",
                );
            }
        }
        (Some(_), Some(otherwise)) => {
            cx.error_hint(
                "one-of",
                otherwise.key_span,
                "a branch has `when` or `else`, not both",
                "remove one of them",
            );
        }
        (None, None) => {
            cx.error_hint(
                "one-of",
                fields.span,
                "a branch needs `when`",
                "or `else: true` on the last one",
            );
        }
    }
    let graph = graph::read(cx, fields.get("steps")?, item, around).0;
    Some(Branch { when, graph })
}

/// `loop`: a bounded cycle.
pub(crate) fn cycle(
    cx: &mut Context<'_>,
    node: &Node,
    item: &Scope<'_>,
    around: &Around<'_>,
) -> Option<Did> {
    let fields = cx.fields(node, &language::LOOP)?;
    let next_entries = fields
        .get("next")
        .map_or(&[][..], |node| cx.entries(node, "`next`"));
    let (vars, types) = loop_vars(cx, &fields, item, next_entries);
    let vars_type = object_type("vars", types.clone());
    let inside = item.with([
        ("vars".to_owned(), vars_type),
        ("iteration".to_owned(), Type::Int),
    ]);
    let (graph, view) = match fields.get("steps") {
        Some(node) => graph::read(cx, node, &inside, around),
        None => return None,
    };
    let after = inside.all(&view);
    let mut next = Vec::with_capacity(next_entries.len());
    for entry in next_entries {
        if !vars.iter().any(|(name, _)| *name == entry.key) {
            unknown_var(cx, entry, &vars);
        }
        next.extend(
            cx.value(&entry.value, &after, Secrets::Refused)
                .map(|(template, _)| (entry.key.clone(), template)),
        );
    }
    if let (Some(_), Some(until)) = (fields.get("while"), fields.entry("until")) {
        cx.error_hint(
            "one-of",
            until.key_span,
            "a loop has `while` or `until`, not both",
            "join them: `while: \"${{ … && !(…) }}\"`",
        );
    }
    let most = (1, limits::LOOP_ITERATIONS);
    endless(cx, &fields);
    let ends = [("fail", false), ("succeed", true)];
    let read = Loop {
        while_: fields
            .get("while")
            .and_then(|node| cx.condition(node, "while", &inside)),
        until: fields
            .get("until")
            .and_then(|node| cx.condition(node, "until", &after)),
        next,
        max_iterations: fields
            .get("max_iterations")
            .and_then(|node| cx.count(node, "max_iterations", most))
            .unwrap_or(limits::LOOP_ITERATIONS_DEFAULT),
        on_max_succeed: fields
            .get("on_max")
            .and_then(|node| cx.choice(node, "on_max", &ends))
            .unwrap_or(false),
        delay: fields
            .get("delay")
            .and_then(|node| cx.dynamic_duration(node, "delay", &inside)),
        vars,
        graph,
    };
    let mut output = types;
    output.push(("iterations".to_owned(), Type::Int));
    Some(Did {
        verb: Verb::Loop(Box::new(read)),
        output: object_type("the loop's output", output),
        inner: Some(view),
    })
}

/// Warns of a loop that can only end by failing.
fn endless(cx: &mut Context<'_>, fields: &Fields<'_>) {
    let succeeds = fields
        .get("on_max")
        .and_then(Node::scalar)
        .is_some_and(|scalar| &*scalar.text == "succeed");
    if fields.entry("while").is_none() && fields.entry("until").is_none() && !succeeds {
        cx.warn(
            "endless-loop",
            fields.span,
            "this loop ends only by failing at `max_iterations`",
            "say when it is done: `until: \"${{ … }}\"`, or `on_max: succeed`",
        );
    }
}

/// First values and types. A var that `next` sets may become anything: its type is not known before
/// the inner steps are read.
fn loop_vars(
    cx: &mut Context<'_>,
    fields: &Fields<'_>,
    outside: &Scope<'_>,
    next: &[Entry],
) -> (Named<Template>, Vec<(String, Type)>) {
    let mut vars = Vec::new();
    let mut types = Vec::new();
    for entry in fields
        .get("vars")
        .map_or(&[][..], |node| cx.entries(node, "`vars`"))
    {
        let mut fine = cx.expression_name(&entry.key, entry.key_span, "loop variable");
        if &*entry.key == "iterations" {
            cx.error(
                "reserved-name",
                entry.key_span,
                "`iterations` is added to the output of every loop",
            );
            fine = false;
        }
        let value = cx.value(&entry.value, outside, Secrets::Refused);
        let stays = next.iter().all(|other| other.key != entry.key);
        let of = value.as_ref().map_or(Type::Any, |(_, of)| of.clone());
        types.push((entry.key.to_string(), if stays { of } else { Type::Any }));
        vars.extend(
            value
                .filter(|_| fine)
                .map(|(template, _)| (entry.key.clone(), template)),
        );
    }
    (vars, types)
}

fn unknown_var(cx: &mut Context<'_>, entry: &Entry, vars: &Named<Template>) {
    let near = cx.nearest(&entry.key, vars.iter().map(|(name, _)| &**name));
    let hint = near.map_or_else(
        || format!("give it a first value: `vars: {{ {}: … }}`", entry.key),
        |near| format!("did you mean `{near}`?"),
    );
    cx.error_hint(
        "unknown-name",
        entry.key_span,
        format!("`next` sets `{}`, which is not in `vars`", entry.key),
        hint,
    );
}
