//! Names and fields.

use super::Checker;
use crate::ast::{Kind, Node, Path, Span};
use crate::{Object, Type, Value};

/// The name most like `wanted`, if one is like it.
pub(crate) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = (wanted.chars().count() / 3).max(1);
    names
        .map(|name| {
            (
                strsim::damerau_levenshtein(&wanted.to_lowercase(), &name.to_lowercase()),
                name,
            )
        })
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, name)| name)
}

/// Most names a hint lists.
const MAX_LISTED: usize = 8;

impl Checker<'_> {
    pub(super) fn path(&mut self, path: &Path) -> Type {
        let scope = self.scope;
        let mut found = self.member(scope, &path.names[0], path.spans[0], true);
        for (name, span) in path.names.iter().zip(&path.spans).skip(1) {
            found = self.field(&found, name, *span);
        }
        found
    }

    /// The type of the field `name` of a value of type `of`.
    pub(super) fn field(&mut self, of: &Type, name: &str, span: Span) -> Type {
        match of {
            Type::Object(object) => self.member(object, name, span, false),
            Type::Map(item) => (**item).clone(),
            Type::Any => Type::Any,
            other => {
                self.problem(span, format!("{other} has no field `{name}`"), None);
                Type::Any
            }
        }
    }

    fn member(&mut self, object: &Object, name: &str, span: Span, root: bool) -> Type {
        if let Some(found) = object.fields.get(name) {
            return found.clone();
        }
        if let Some(hint) = object.hidden.get(name) {
            let message = if root || object.name.is_empty() {
                format!("`{name}` cannot be used here")
            } else {
                format!("`{}.{name}` cannot be used here", object.name)
            };
            self.problem(span, message, Some(hint.clone()));
            return Type::Any;
        }
        if object.open {
            return Type::Any;
        }
        let message = if root {
            format!("unknown name `{name}`")
        } else if object.name.is_empty() {
            format!("there is no field `{name}`")
        } else {
            format!("`{name}` is not in {}", quoted(&object.name))
        };
        let names = object.fields.keys().chain(object.hidden.keys());
        let hint = nearest(name, names.map(String::as_str))
            .map(|near| format!("did you mean `{near}`?"))
            .or_else(|| listed(object));
        self.problem(span, message, hint);
        Type::Any
    }

    pub(super) fn index(&mut self, operand: &Node, index: &Node) -> Type {
        let of = self.node(operand);
        let place = self.node(index);
        match &of {
            Type::List(item) => {
                if !matches!(place, Type::Int | Type::Float | Type::Any) {
                    self.problem(
                        index.span,
                        format!("a list index is an int, this is {place}"),
                        None,
                    );
                }
                (**item).clone()
            }
            Type::Map(_) | Type::Object(_) => {
                if !matches!(place, Type::String | Type::Any) {
                    self.problem(
                        index.span,
                        format!("a map key is text, this is {place}"),
                        None,
                    );
                    return Type::Any;
                }
                match (&index.kind, &of) {
                    (Kind::Literal(Value::String(name)), _) => self.field(&of, name, index.span),
                    (_, Type::Map(item)) => (**item).clone(),
                    _ => Type::Any,
                }
            }
            Type::Any => Type::Any,
            other => {
                self.problem(
                    operand.span,
                    format!("`[…]` needs a list or a map, this is {other}"),
                    None,
                );
                Type::Any
            }
        }
    }
}

/// Names that are paths get backticks; descriptions do not.
fn quoted(name: &str) -> String {
    if name.contains(' ') {
        name.to_owned()
    } else {
        format!("`{name}`")
    }
}

fn listed(object: &Object) -> Option<String> {
    if object.fields.is_empty() || object.fields.len() > MAX_LISTED {
        return None;
    }
    let names: Vec<String> = object
        .fields
        .keys()
        .map(|name| format!("`{name}`"))
        .collect();
    Some(format!("there is {}", names.join(", ")))
}
