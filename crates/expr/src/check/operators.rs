//! Operand types.

use super::Checker;
use crate::Type;
use crate::ast::{BinaryOp, Node, Span};

impl Checker<'_> {
    pub(super) fn negate(&mut self, operand: &Node) -> Type {
        let found = self.node(operand);
        if !matches!(found, Type::Int | Type::Float | Type::Duration | Type::Any) {
            self.problem(
                operand.span,
                format!("`-` needs a number, this is {found}"),
                None,
            );
            return Type::Any;
        }
        found
    }

    pub(super) fn binary(&mut self, op: BinaryOp, sides: &[Node; 2], span: Span) -> Type {
        let left = self.node(&sides[0]);
        let right = self.node(&sides[1]);
        let result = match op {
            BinaryOp::Add => add(&left, &right),
            BinaryOp::Sub => subtract(&left, &right),
            BinaryOp::Mul | BinaryOp::Div => numbers(&left, &right),
            BinaryOp::Rem => remainder(&left, &right),
            BinaryOp::Eq | BinaryOp::Ne => comparable(&left, &right).then_some(Type::Bool),
            BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge => {
                (left.has_order() && right.has_order() && comparable(&left, &right))
                    .then_some(Type::Bool)
            }
            BinaryOp::In => return self.membership(&left, &right, &sides[1]),
        };
        result.unwrap_or_else(|| {
            let message = format!("`{}` does not work on {left} and {right}", op.symbol());
            self.problem(span, message, hint(op, &left, &right));
            if matches!(
                op,
                BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Rem
            ) {
                Type::Any
            } else {
                Type::Bool
            }
        })
    }

    fn membership(&mut self, item: &Type, container: &Type, node: &Node) -> Type {
        let fits = match container {
            Type::List(of) => comparable(item, of),
            Type::Map(_) | Type::Object(_) => matches!(item, Type::String | Type::Any),
            Type::Any => true,
            _ => false,
        };
        if !fits {
            self.problem(
                node.span,
                format!("`in` cannot find {item} in {container}"),
                None,
            );
        }
        Type::Bool
    }
}

fn hint(op: BinaryOp, left: &Type, right: &Type) -> Option<String> {
    let text = match (op, left, right) {
        (BinaryOp::Add, Type::String, _) | (BinaryOp::Add, _, Type::String) => {
            "convert it: `string(…)`"
        }
        (BinaryOp::Add | BinaryOp::Sub, Type::Date, Type::Int) => "write `days(…)`",
        (_, Type::String, Type::Date) | (_, Type::Date, Type::String) => {
            "convert the text: `date(…)`"
        }
        (_, Type::String, Type::Timestamp) | (_, Type::Timestamp, Type::String) => {
            "convert the text: `timestamp(…)`"
        }
        (_, Type::String, Type::Duration) | (_, Type::Duration, Type::String) => {
            "convert the text: `duration(…)`"
        }
        (_, Type::String, Type::Int | Type::Float) | (_, Type::Int | Type::Float, Type::String) => {
            "convert one: `int(…)`, `float(…)` or `string(…)`"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// Whether two values could be equal or ordered.
fn comparable(left: &Type, right: &Type) -> bool {
    match (left, right) {
        (Type::Any | Type::Null, _)
        | (_, Type::Any | Type::Null)
        | (Type::Int | Type::Float, Type::Int | Type::Float)
        | (Type::Map(_) | Type::Object(_), Type::Map(_) | Type::Object(_)) => true,
        (Type::List(a), Type::List(b)) => comparable(a, b),
        (a, b) => a == b,
    }
}

fn numbers(left: &Type, right: &Type) -> Option<Type> {
    match (left, right) {
        (Type::Int, Type::Int) => Some(Type::Int),
        // A value of type float may be an integer, and integers stay integers.
        (Type::Int | Type::Float, Type::Int | Type::Float) => Some(Type::Float),
        (Type::Any, Type::Int | Type::Float | Type::Any) | (Type::Int | Type::Float, Type::Any) => {
            Some(Type::Any)
        }
        _ => None,
    }
}

fn remainder(left: &Type, right: &Type) -> Option<Type> {
    let whole = |side: &Type| matches!(side, Type::Int | Type::Any);
    (whole(left) && whole(right)).then_some(Type::Int)
}

fn add(left: &Type, right: &Type) -> Option<Type> {
    match (left, right) {
        (Type::String, Type::String | Type::Any) | (Type::Any, Type::String) => Some(Type::String),
        (Type::Bytes, Type::Bytes | Type::Any) | (Type::Any, Type::Bytes) => Some(Type::Bytes),
        (Type::List(_), Type::List(_)) => Some(left.join(right)),
        (Type::List(_), Type::Any) | (Type::Any, Type::List(_)) => {
            Some(Type::List(Type::Any.into()))
        }
        (Type::Timestamp, Type::Duration | Type::Any)
        | (Type::Duration | Type::Any, Type::Timestamp) => Some(Type::Timestamp),
        (Type::Date, Type::Duration | Type::Any) | (Type::Duration | Type::Any, Type::Date) => {
            Some(Type::Date)
        }
        (Type::Duration, Type::Duration) => Some(Type::Duration),
        (Type::Duration, Type::Any) | (Type::Any, Type::Duration) => Some(Type::Any),
        _ => numbers(left, right),
    }
}

fn subtract(left: &Type, right: &Type) -> Option<Type> {
    match (left, right) {
        (Type::Timestamp, Type::Timestamp) | (Type::Duration, Type::Duration | Type::Any) => {
            Some(Type::Duration)
        }
        (Type::Timestamp, Type::Duration) => Some(Type::Timestamp),
        (Type::Date, Type::Date) => Some(Type::Int),
        (Type::Date, Type::Duration) => Some(Type::Date),
        (Type::Timestamp | Type::Date, Type::Any)
        | (Type::Any, Type::Timestamp | Type::Date | Type::Duration) => Some(Type::Any),
        _ => numbers(left, right),
    }
}
