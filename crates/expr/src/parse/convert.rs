//! From CEL's syntax tree to the compiled form: names resolved to paths and variables, macros and
//! functions looked up, every part given its place in the source.

mod calls;

use std::sync::Arc;

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr, LiteralValue, SourceInfo};

use super::{MAX_DEPTH, Parsed, limits};
use crate::ast::{Kind, Name, Node, Path, Span};
use crate::{Problem, Value};

/// Words that CEL keeps for itself: no name of a scope, no variable.
pub(crate) fn is_reserved(word: &str) -> bool {
    matches!(
        word,
        "as" | "break"
            | "const"
            | "continue"
            | "else"
            | "false"
            | "for"
            | "function"
            | "if"
            | "import"
            | "in"
            | "let"
            | "loop"
            | "namespace"
            | "null"
            | "package"
            | "return"
            | "true"
            | "var"
            | "void"
            | "while"
    )
}

pub(super) fn convert(
    source: &str,
    info: &SourceInfo,
    expr: IdedExpr,
) -> Result<Parsed, Vec<Problem>> {
    let mut converter = Converter {
        source,
        info,
        locals: Vec::new(),
        problems: Vec::new(),
    };
    let root = converter.node(expr);
    if converter.problems.is_empty() {
        finish(root)
    } else {
        Err(converter.problems)
    }
}

/// Measures the compiled form and collects its references.
pub(super) fn finish(root: Node) -> Result<Parsed, Vec<Problem>> {
    let depth = depth(&root);
    if depth > MAX_DEPTH {
        return Err(limits::too_deep(root.span.range()));
    }
    let mut references = Vec::new();
    let mut roots = Vec::new();
    collect(&root, &mut references, &mut roots);
    references.sort();
    references.dedup();
    Ok(Parsed {
        root,
        depth,
        references,
        roots,
    })
}

fn depth(node: &Node) -> usize {
    let mut deepest = 0;
    node.for_each_child(&mut |child| deepest = deepest.max(depth(child)));
    deepest + 1
}

fn collect(node: &Node, references: &mut Vec<Vec<Arc<str>>>, roots: &mut Vec<(Arc<str>, Span)>) {
    if let Kind::Path(path) | Kind::HasPath(path) = &node.kind {
        references.push(path.names.clone());
        roots.push((path.names[0].clone(), path.spans[0]));
    }
    node.for_each_child(&mut |child| collect(child, references, roots));
}

struct Converter<'a> {
    source: &'a str,
    info: &'a SourceInfo,
    /// Variables of the enclosing macros, outermost first.
    locals: Vec<Arc<str>>,
    problems: Vec<Problem>,
}

impl Converter<'_> {
    /// The token that CEL's parser attached to a node: an operator, a bracket, a name, a literal.
    fn token(&self, id: u64) -> Span {
        let Some((start, stop)) = self.info.offset_for(id) else {
            return Span::new(0, self.source.len());
        };
        // Offsets are bytes, and no token but a comment ends in more than one.
        Span::new(start as usize, (stop as usize + 1).min(self.source.len()))
    }

    fn problem(&mut self, span: Span, message: impl Into<String>, hint: Option<&str>) {
        self.problems.push(Problem {
            span: span.range(),
            message: message.into(),
            hint: hint.map(str::to_owned),
        });
    }

    /// `span` up to and including the next `close` after it.
    fn closed(&self, span: Span, close: char) -> Span {
        let end = span.end as usize;
        match self.source.get(end..).and_then(|rest| rest.find(close)) {
            Some(length) => Span::new(span.start as usize, end + length + 1),
            None => span,
        }
    }

    fn node(&mut self, expr: IdedExpr) -> Node {
        let token = self.token(expr.id);
        match expr.expr {
            Expr::Literal(literal) => self.literal(token, &literal),
            Expr::Ident(name) => self.ident(token, &name),
            Expr::Select(select) => {
                let field = self.field_name(token, &select.field);
                let operand = self.node(*select.operand);
                Self::select(operand, field)
            }
            Expr::List(list) => {
                let items: Box<[Node]> = list
                    .elements
                    .into_iter()
                    .map(|item| self.node(item))
                    .collect();
                let span = items.iter().fold(token, |span, item| span.to(item.span));
                Node {
                    span: self.closed(span, ']'),
                    kind: Kind::List(items),
                }
            }
            Expr::Map(map) => {
                let mut entries = Vec::with_capacity(map.entries.len());
                let mut span = token;
                for entry in map.entries {
                    if let EntryExpr::MapEntry(entry) = entry.expr {
                        let key = self.node(entry.key);
                        let value = self.node(entry.value);
                        if let Kind::Literal(literal) = &key.kind
                            && literal.as_str().is_none()
                        {
                            let message = format!("a map key is text, not {}", literal.type_name());
                            self.problem(key.span, message, Some("put it in quotes"));
                        }
                        span = span.to(value.span);
                        entries.push((key, value));
                    }
                }
                Node {
                    span: self.closed(span, '}'),
                    kind: Kind::Map(entries.into()),
                }
            }
            Expr::Call(call) => self.call(token, call),
            Expr::Struct(message) => {
                let text = format!("`{}{{…}}` is not part of the language", message.type_name);
                self.problem(token, text, Some("write a map: `{'field': value}`"));
                null(token)
            }
            Expr::Comprehension(_) | Expr::Unspecified => {
                self.problem(token, "this is not an expression", None);
                null(token)
            }
        }
    }

    fn literal(&mut self, span: Span, literal: &LiteralValue) -> Node {
        let value = match literal {
            LiteralValue::Boolean(truth) => Value::Bool(*truth.inner()),
            LiteralValue::Int(number) => Value::Int(*number.inner()),
            LiteralValue::Double(number) => Value::Float(*number.inner()),
            LiteralValue::Null => Value::Null,
            LiteralValue::String(text) => Value::string(text.inner()),
            LiteralValue::Bytes(bytes) => Value::Bytes(bytes.inner().into()),
            LiteralValue::UInt(_) => {
                self.problem(
                    span,
                    "unsigned integers are not part of the language",
                    Some("write the number without `u`"),
                );
                Value::Null
            }
        };
        Node {
            span,
            kind: Kind::Literal(value),
        }
    }

    fn ident(&mut self, span: Span, name: &str) -> Node {
        if let Some(name) = name.strip_prefix('.') {
            return path(Arc::from(name), span);
        }
        match self.locals.iter().rposition(|local| **local == *name) {
            Some(slot) => Node {
                span,
                kind: Kind::Local {
                    slot,
                    name: self.locals[slot].clone(),
                },
            },
            None => path(Arc::from(name), span),
        }
    }

    /// The name after the `.` at `dot`.
    fn field_name(&self, dot: Span, field: &str) -> Name {
        let after = dot.end as usize;
        let rest = self.source.get(after..).unwrap_or_default();
        let start = after + rest.len() - rest.trim_start().len();
        Name {
            text: Arc::from(field),
            span: Span::new(start, start + field.len()),
        }
    }

    fn select(operand: Node, field: Name) -> Node {
        let span = operand.span.to(field.span);
        match operand.kind {
            Kind::Path(mut path) => {
                path.names.push(field.text);
                path.spans.push(field.span);
                Node {
                    span,
                    kind: Kind::Path(path),
                }
            }
            kind => {
                let operand = Box::new(Node {
                    span: operand.span,
                    kind,
                });
                Node {
                    span,
                    kind: Kind::Select { operand, field },
                }
            }
        }
    }
}

fn path(name: Arc<str>, span: Span) -> Node {
    Node {
        span,
        kind: Kind::Path(Path {
            names: vec![name],
            spans: vec![span],
        }),
    }
}

fn null(span: Span) -> Node {
    Node {
        span,
        kind: Kind::Literal(Value::Null),
    }
}
