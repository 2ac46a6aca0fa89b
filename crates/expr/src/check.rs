//! The type check: every name and every operation, before anything runs.

mod calls;
mod names;
mod operators;

pub(crate) use names::nearest;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::{Kind, Macro, MacroKind, Node, Span};
use crate::{Object, Problem, Type, TypeScope, Value};

pub(crate) fn check(root: &Node, scope: &TypeScope) -> (Type, Vec<Problem>) {
    let mut checker = Checker {
        scope,
        locals: Vec::new(),
        problems: Vec::new(),
    };
    let found = checker.node(root);
    (found, checker.problems)
}

struct Checker<'a> {
    scope: &'a TypeScope,
    /// Types of the variables of enclosing macros.
    locals: Vec<Type>,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn problem(&mut self, span: Span, message: impl Into<String>, hint: Option<String>) {
        self.problems.push(Problem {
            span: span.range(),
            message: message.into(),
            hint,
        });
    }

    fn node(&mut self, node: &Node) -> Type {
        match &node.kind {
            Kind::Literal(value) => Type::of(value),
            Kind::Path(path) => self.path(path),
            Kind::HasPath(path) => {
                self.path(path);
                Type::Bool
            }
            Kind::Local { slot, .. } => self.locals.get(*slot).cloned().unwrap_or(Type::Any),
            Kind::Select { operand, field } => {
                let of = self.node(operand);
                self.field(&of, &field.text, field.span)
            }
            Kind::Has { operand, .. } => {
                // The field of a computed map may be missing: that is what is asked.
                let of = self.node(operand);
                if !matches!(of, Type::Map(_) | Type::Object(_) | Type::Any) {
                    self.problem(
                        operand.span,
                        format!("`has` needs a map, this is {of}"),
                        None,
                    );
                }
                Type::Bool
            }
            Kind::Index { operand, index } => self.index(operand, index),
            Kind::Not(operand) => {
                self.condition(operand, "`!`");
                Type::Bool
            }
            Kind::Negate(operand) => self.negate(operand),
            Kind::And(sides) => self.logic(sides, "`&&`"),
            Kind::Or(sides) => self.logic(sides, "`||`"),
            Kind::Cond(parts) => {
                self.condition(&parts[0], "`?`");
                let yes = self.node(&parts[1]);
                yes.join(&self.node(&parts[2]))
            }
            Kind::Binary(op, sides) => self.binary(*op, sides, node.span),
            Kind::List(items) => {
                let types: Vec<Type> = items.iter().map(|item| self.node(item)).collect();
                Type::List(Arc::new(Type::join_all(&types)))
            }
            Kind::Map(entries) => self.map_literal(entries),
            Kind::Macro(call) => self.macro_call(call),
            Kind::Coalesce(args) => {
                let types: Vec<Type> = args.iter().map(|arg| self.node(arg)).collect();
                // Null is what falls through, unless it is last.
                let last = types.len().saturating_sub(1);
                let kept: Vec<Type> = types
                    .into_iter()
                    .enumerate()
                    .filter(|(place, found)| *place == last || *found != Type::Null)
                    .map(|(_, found)| found)
                    .collect();
                Type::join_all(&kept)
            }
            Kind::Call(call) => self.call(call),
        }
    }

    fn logic(&mut self, sides: &[Node; 2], what: &str) -> Type {
        self.condition(&sides[0], what);
        self.condition(&sides[1], what);
        Type::Bool
    }

    fn condition(&mut self, node: &Node, what: &str) {
        let found = self.node(node);
        if !matches!(found, Type::Bool | Type::Any) {
            self.problem(
                node.span,
                format!("{what} needs a bool, this is {found}"),
                None,
            );
        }
    }

    fn map_literal(&mut self, entries: &[(Node, Node)]) -> Type {
        let mut fields = BTreeMap::new();
        let mut open = false;
        for (key, value) in entries {
            let found = self.node(value);
            if let Kind::Literal(Value::String(name)) = &key.kind {
                if fields.insert(name.to_string(), found).is_some() {
                    self.problem(
                        key.span,
                        format!("the map has the key `{name}` twice"),
                        None,
                    );
                }
                continue;
            }
            let name = self.node(key);
            if !matches!(name, Type::String | Type::Any) {
                self.problem(key.span, format!("a map key is text, not {name}"), None);
            }
            open = true;
        }
        if open {
            // A computed key may be any of the names.
            return Type::Map(Arc::new(Type::Any));
        }
        Type::Object(Arc::new(Object {
            name: "the map".to_owned(),
            fields,
            hidden: BTreeMap::new(),
            open,
        }))
    }

    fn macro_call(&mut self, call: &Macro) -> Type {
        let list = self.node(&call.list);
        let name = call.kind.name();
        let item = match &list {
            Type::List(item) => (**item).clone(),
            Type::Map(_) | Type::Object(_) => Type::String,
            Type::Any => Type::Any,
            other => {
                let message = format!("`{name}` needs a list or a map, this is {other}");
                self.problem(call.list.span, message, None);
                Type::Any
            }
        };
        self.locals.truncate(call.slot);
        self.locals.push(item.clone());
        if let Some(condition) = &call.condition {
            self.condition(condition, "the condition of `map`");
        }
        let result = match call.kind {
            MacroKind::All | MacroKind::Exists | MacroKind::ExistsOne => {
                self.condition(&call.body, &format!("`{name}`"));
                Type::Bool
            }
            MacroKind::Filter => {
                self.condition(&call.body, "`filter`");
                Type::List(Arc::new(item))
            }
            MacroKind::Map => Type::List(Arc::new(self.node(&call.body))),
            MacroKind::MinBy | MacroKind::MaxBy | MacroKind::SortBy => {
                let key = self.node(&call.body);
                if !key.has_order() {
                    self.problem(
                        call.body.span,
                        format!("`{name}` cannot order values of type {key}"),
                        None,
                    );
                }
                if call.kind == MacroKind::SortBy {
                    Type::List(Arc::new(item))
                } else {
                    item
                }
            }
        };
        self.locals.truncate(call.slot);
        result
    }
}

#[cfg(test)]
mod tests;
