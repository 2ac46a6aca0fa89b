//! Most expressions are one name with fields, or one literal. They need no grammar.

use std::sync::Arc;

use super::is_reserved;
use crate::Value;
use crate::ast::{Kind, Name, Node, Path, Span};

/// The compiled form of a source so simple that there is nothing to parse; `None` leaves it, right
/// or wrong, to CEL's parser.
pub(super) fn parse(source: &str) -> Option<Node> {
    let start = source.len() - source.trim_start().len();
    let text = source.trim();
    let span = Span::new(start, start + text.len());
    if let Some(value) = literal(text) {
        return Some(Node {
            span,
            kind: Kind::Literal(value),
        });
    }
    chain(text, start)
}

fn literal(text: &str) -> Option<Value> {
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        "null" => return Some(Value::Null),
        _ => {}
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Value::Int);
    }
    quoted(text).map(Value::string)
}

/// The content of a text literal without escapes.
fn quoted(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inner = text.get(1..)?.strip_suffix(quote)?;
    let plain = !inner.contains(['\\', '\n', '\r', '\'', '"']);
    plain.then_some(inner)
}

fn chain(text: &str, start: usize) -> Option<Node> {
    let (first, mut rest) = ident(text)?;
    if is_reserved(first) {
        return None;
    }
    let mut at = start + first.len();
    let mut path = Path {
        names: vec![Arc::from(first)],
        spans: vec![Span::new(start, at)],
    };
    let mut node: Option<Node> = None;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let (field, after) = ident(after)?;
            let span = Span::new(at + 1, at + 1 + field.len());
            at += 1 + field.len();
            rest = after;
            match node.take() {
                None => {
                    path.names.push(Arc::from(field));
                    path.spans.push(span);
                }
                Some(operand) => {
                    node = Some(Node {
                        span: Span::new(start, at),
                        kind: Kind::Select {
                            operand: Box::new(operand),
                            field: Name {
                                text: Arc::from(field),
                                span,
                            },
                        },
                    });
                }
            }
        } else {
            let close = rest.strip_prefix('[')?.find(']')? + 1;
            let inner = &rest[1..close];
            let digits = !inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_digit());
            let index = digits
                .then(|| inner.parse().ok().map(Value::Int))
                .flatten()?;
            let index = Node {
                span: Span::new(at + 1, at + close),
                kind: Kind::Literal(index),
            };
            at += close + 1;
            rest = &rest[close + 1..];
            let operand = node.take().unwrap_or_else(|| take(&mut path, start));
            node = Some(Node {
                span: Span::new(start, at),
                kind: Kind::Index {
                    operand: Box::new(operand),
                    index: Box::new(index),
                },
            });
        }
    }
    Some(node.unwrap_or_else(|| take(&mut path, start)))
}

fn take(path: &mut Path, start: usize) -> Node {
    let path = Path {
        names: std::mem::take(&mut path.names),
        spans: std::mem::take(&mut path.spans),
    };
    let end = path.spans.last().map_or(start, |span| span.end as usize);
    Node {
        span: Span::new(start, end),
        kind: Kind::Path(path),
    }
}

/// The identifier that `text` starts with, and what follows it.
fn ident(text: &str) -> Option<(&str, &str)> {
    let length = text
        .bytes()
        .position(|byte| !byte.is_ascii_alphanumeric() && byte != b'_')
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(length);
    let starts = name
        .bytes()
        .next()
        .is_some_and(|byte| !byte.is_ascii_digit());
    let keyword = matches!(name, "in" | "true" | "false" | "null");
    (starts && !keyword).then_some((name, rest))
}
