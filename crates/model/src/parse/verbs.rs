//! What each verb takes.

mod http;
mod process;

use std::sync::Arc;

use kapell_expr::{Object, Type};

use crate::language;
use crate::spec::{Verb, Wait};
use crate::yaml::{Entry, Node};

use super::Context;
use super::containers;
use super::fields::Fields;
use super::scope::{Scope, object};
use super::signals::signal_type;
use super::step::{Around, Did, instant};
use super::template::Secrets;

/// Reads the verb of a step. `item` is what it sees.
pub(crate) fn read(
    cx: &mut Context<'_>,
    verb: &Entry,
    step: &Fields<'_>,
    item: &Scope<'_>,
    around: &Around<'_>,
) -> Option<Did> {
    let node = &verb.value;
    let plain = |verb: Verb, output: Type| Did {
        verb,
        output,
        inner: None,
    };
    Some(match &*verb.key {
        "shell" => plain(process::shell(cx, node, item)?, Type::Any),
        "exec" => plain(process::exec(cx, node, item)?, Type::Any),
        "python" => plain(process::python(cx, node)?, Type::Any),
        "http" => plain(
            Verb::Http(Box::new(http::read(cx, node, item)?)),
            http::output(),
        ),
        "workflow" => {
            let verb = workflow(cx, node)?;
            let waits = matches!(verb, Verb::Workflow { wait: true, .. });
            let output = Object {
                open: waits,
                ..object("the child's output", [("run_id", Type::String)])
            };
            plain(verb, Type::Object(Arc::new(output)))
        }
        "wait" => plain(Verb::Wait(wait(cx, node, item)?), Type::Any),
        "await" => plain(
            Verb::Await(Box::new(cx.awaited(node, item)?)),
            signal_type(),
        ),
        "approval" => {
            let (approval, output) = cx.approval(node, item)?;
            plain(Verb::Approval(Box::new(approval)), output)
        }
        "set" => {
            let (values, output) = containers::outputs(cx, node, "`set`", item);
            plain(Verb::Set { values }, output)
        }
        "noop" => {
            if !node.is_null() && node.map().is_none_or(|entries| !entries.is_empty()) {
                cx.error_hint(
                    "wrong-form",
                    node.span,
                    "`noop` takes nothing",
                    "write `noop:`",
                );
            }
            plain(Verb::Noop, Type::Any)
        }
        "fail" => plain(fail(cx, node, item)?, Type::Any),
        "steps" => containers::group(cx, node, step, item, around),
        "switch" => containers::switch(cx, node, item, around),
        "loop" => containers::cycle(cx, node, item, around)?,
        _ => return None,
    })
}

fn workflow(cx: &mut Context<'_>, node: &Node) -> Option<Verb> {
    let fixed = "which workflow runs is fixed; use a `switch` to choose one";
    if node.scalar().is_some() {
        let text = cx.literal(node, "workflow", fixed)?;
        let (name, version) = match text.split_once('@') {
            None => (&*text, None),
            Some((name, version)) => {
                if let Some(version) = version.parse::<u32>().ok().filter(|version| *version > 0) {
                    (name, Some(version))
                } else {
                    cx.error_hint(
                        "wrong-type",
                        node.span,
                        format!("`{version}` is not a version"),
                        "versions are whole numbers: `name@3`",
                    );
                    return None;
                }
            }
        };
        return cx
            .plain_name(name, node.span, "workflow")
            .then(|| Verb::Workflow {
                name: name.into(),
                version,
                wait: true,
            });
    }
    let fields = cx.fields(node, &language::WORKFLOW_CALL)?;
    let version = fields
        .get("version")
        .and_then(|node| cx.count(node, "version", (1, u32::MAX)));
    let wait = fields
        .get("wait")
        .and_then(|node| cx.bool(node, "wait"))
        .unwrap_or(true);
    let node = fields.get("name")?;
    let name = cx.literal(node, "name", fixed)?;
    cx.plain_name(&name, node.span, "workflow")
        .then_some(Verb::Workflow {
            name,
            version,
            wait,
        })
}

fn wait(cx: &mut Context<'_>, node: &Node, item: &Scope<'_>) -> Option<Wait> {
    if node.scalar().is_some() {
        return cx.dynamic_duration(node, "wait", item).map(Wait::For);
    }
    let fields = cx.fields(node, &language::WAIT)?;
    match (fields.get("for"), fields.get("until")) {
        (Some(node), None) => cx.dynamic_duration(node, "for", item).map(Wait::For),
        (None, Some(node)) => instant(cx, node, "until", item).map(Wait::Until),
        _ => {
            cx.error_hint(
                "one-of",
                fields.span,
                "`wait` takes exactly one of `for` and `until`",
                "`wait: 5m` is short for `wait: { for: 5m }`",
            );
            None
        }
    }
}

fn fail(cx: &mut Context<'_>, node: &Node, item: &Scope<'_>) -> Option<Verb> {
    let message = if node.scalar().is_some() {
        cx.text(node, "fail", item, Secrets::Refused)
    } else {
        let fields = cx.fields(node, &language::FAIL)?;
        fields
            .get("message")
            .and_then(|node| cx.text(node, "message", item, Secrets::Refused))
    };
    message.map(|message| Verb::Fail { message })
}
