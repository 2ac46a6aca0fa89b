//! A file of values: what `--params-file` names.

use kapell_expr::{Map, Value};

use super::Context;
use super::read::{Plain, plain};
use crate::Diagnostic;
use crate::yaml::{self, Kind, Node, Span, Style};

/// The entries of a file that is one map, YAML 1.2 or JSON. A scalar of the map itself stays as it
/// is written, to be read by the type that its name has; further inside `true`, `false`, `null` and
/// numbers are what they are in YAML. Linear in the size of the file.
///
/// # Errors
/// Every problem of the file. Codes: `yaml`, `empty-file`, `wrong-form`, `wrong-type` and those of
/// the text itself.
pub fn values(text: &str) -> Result<Map, Vec<Diagnostic>> {
    let mut cx = Context::new(text);
    let (root, problems) = yaml::read(text);
    let mut map = Map::new();
    for problem in problems {
        if problem.code == "empty-file" {
            // It says what a workflow begins with.
            not_a_map(&mut cx, problem.span, "and this one is empty");
        } else {
            let hint = problem.hint.unwrap_or_default();
            cx.error_hint(problem.code, problem.span, problem.message, hint);
        }
    }
    match root.as_ref().map(|root| (&root.kind, root)) {
        Some((Kind::Map(entries), _)) => {
            for entry in entries {
                let value = match entry.value.scalar() {
                    Some(scalar) if !entry.value.is_null() => Value::string(&*scalar.text),
                    _ => value(&mut cx, &entry.value),
                };
                map.insert(entry.key.clone(), value);
            }
        }
        Some((Kind::Scalar(_) | Kind::List(_), root)) => {
            not_a_map(&mut cx, root.span, &format!("not {}", root.what()));
        }
        Some((Kind::Broken, _)) | None => {}
    }
    let parsed = cx.finish(None);
    if parsed.diagnostics.is_empty() {
        Ok(map)
    } else {
        Err(parsed.diagnostics)
    }
}

fn not_a_map(cx: &mut Context<'_>, span: Span, but: &str) {
    cx.error_hint(
        "wrong-form",
        span,
        format!("a file of parameters is a map of names and values, {but}"),
        "as in `rows: 100`, a line for each parameter",
    );
}

fn value(cx: &mut Context<'_>, node: &Node) -> Value {
    match &node.kind {
        Kind::Scalar(scalar) if scalar.style != Style::Plain => Value::string(&*scalar.text),
        Kind::Scalar(scalar) => match plain(&scalar.text) {
            Plain::Value(value) => value,
            Plain::Refused(why) => {
                let hint = "put text in quotes";
                cx.error_hint("wrong-type", node.span, why, hint);
                Value::Null
            }
        },
        Kind::List(items) => Value::list(items.iter().map(|item| value(cx, item)).collect()),
        Kind::Map(entries) => {
            let mut map = Map::new();
            for entry in entries {
                map.insert(entry.key.clone(), value(cx, &entry.value));
            }
            Value::Map(map.into())
        }
        // Said already.
        Kind::Broken => Value::Null,
    }
}
