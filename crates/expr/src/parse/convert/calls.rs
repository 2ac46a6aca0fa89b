//! Operators, functions, methods and macros.

use std::sync::Arc;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr, operators};

use super::{Converter, null};
use crate::Value;
use crate::ast::{BinaryOp, Call, Kind, Macro, MacroKind, Name, Node, Span};
use crate::functions;

fn binary_op(name: &str) -> Option<BinaryOp> {
    Some(match name {
        operators::ADD => BinaryOp::Add,
        operators::SUBSTRACT => BinaryOp::Sub,
        operators::MULTIPLY => BinaryOp::Mul,
        operators::DIVIDE => BinaryOp::Div,
        operators::MODULO => BinaryOp::Rem,
        operators::EQUALS => BinaryOp::Eq,
        operators::NOT_EQUALS => BinaryOp::Ne,
        operators::LESS => BinaryOp::Lt,
        operators::LESS_EQUALS => BinaryOp::Le,
        operators::GREATER => BinaryOp::Gt,
        operators::GREATER_EQUALS => BinaryOp::Ge,
        operators::IN => BinaryOp::In,
        _ => return None,
    })
}

fn is_operator(name: &str) -> bool {
    matches!(
        name,
        operators::CONDITIONAL
            | operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::NEGATE
            | operators::INDEX
    )
}

impl Converter<'_> {
    pub(super) fn call(&mut self, token: Span, call: CallExpr) -> Node {
        if call.target.is_none() {
            if let Some(op) = binary_op(&call.func_name) {
                return self.binary(token, op, call.args);
            }
            if is_operator(&call.func_name) {
                return self.operator(token, &call.func_name, call.args);
            }
        }
        let name = self.call_name(token, &call.func_name);
        match call.target {
            None if &*name.text == "has" => self.has(&name, call.args),
            None if &*name.text == "coalesce" => {
                let args = self.nodes(call.args);
                if args.is_empty() {
                    self.problem(name.span, "`coalesce` takes one or more arguments", None);
                }
                let span = args
                    .iter()
                    .fold(name.span.to(token), |span, arg| span.to(arg.span));
                Node {
                    span: self.closed(span, ')'),
                    kind: Kind::Coalesce(args.into()),
                }
            }
            None => self.function(token, name, Vec::new(), call.args, false),
            Some(target) => {
                if let Some(name) = self.qualified(&target, &name) {
                    return self.function(token, name, Vec::new(), call.args, false);
                }
                let target = self.node(*target);
                match MacroKind::by_name(&name.text) {
                    Some(kind) => self.macro_call(token, &name, kind, target, call.args),
                    None => self.function(token, name, vec![target], call.args, true),
                }
            }
        }
    }

    /// The name of a function such as `math.abs`, which looks like a method of `math`.
    fn qualified(&self, target: &IdedExpr, name: &Name) -> Option<Name> {
        let Expr::Ident(space) = &target.expr else {
            return None;
        };
        let space_or_scope = matches!(space.as_str(), "math" | "strings");
        if !space_or_scope || self.locals.iter().any(|local| **local == **space) {
            return None;
        }
        let full = format!("{space}.{}", name.text);
        let known = |wanted: &str| functions::names().any(|known| known == wanted);
        // A variable may have such a name too, and then methods are called on it.
        (known(&full) || !known(&name.text)).then(|| Name {
            text: Arc::from(full),
            span: self.token(target.id).to(name.span),
        })
    }

    fn nodes(&mut self, exprs: Vec<IdedExpr>) -> Vec<Node> {
        exprs.into_iter().map(|expr| self.node(expr)).collect()
    }

    /// The name before the `(` at `open`.
    fn call_name(&self, open: Span, name: &str) -> Name {
        let name = name.trim_start_matches('.');
        let before = self
            .source
            .get(..open.start as usize)
            .unwrap_or_default()
            .trim_end();
        let span = if before.ends_with(name) {
            Span::new(before.len() - name.len(), before.len())
        } else {
            open
        };
        Name {
            text: Arc::from(name),
            span,
        }
    }

    fn binary(&mut self, token: Span, op: BinaryOp, args: Vec<IdedExpr>) -> Node {
        match <[Node; 2]>::try_from(self.nodes(args)) {
            Ok(sides) => Node {
                span: sides[0].span.to(sides[1].span),
                kind: Kind::Binary(op, Box::new(sides)),
            },
            Err(_) => self.lacks_operand(token),
        }
    }

    fn lacks_operand(&mut self, token: Span) -> Node {
        self.problem(token, "this operator lacks an operand", None);
        null(token)
    }

    fn operator(&mut self, token: Span, name: &str, args: Vec<IdedExpr>) -> Node {
        let mut nodes = self.nodes(args).into_iter();
        let (first, second, third) = (nodes.next(), nodes.next(), nodes.next());
        match (name, first, second, third) {
            (operators::CONDITIONAL, Some(test), Some(yes), Some(no)) => Node {
                span: test.span.to(no.span),
                kind: Kind::Cond(Box::new([test, yes, no])),
            },
            (operators::LOGICAL_AND, Some(left), Some(right), None) => Node {
                span: left.span.to(right.span),
                kind: Kind::And(Box::new([left, right])),
            },
            (operators::LOGICAL_OR, Some(left), Some(right), None) => Node {
                span: left.span.to(right.span),
                kind: Kind::Or(Box::new([left, right])),
            },
            (operators::LOGICAL_NOT, Some(operand), None, None) => Node {
                span: token.to(operand.span),
                kind: Kind::Not(Box::new(operand)),
            },
            (operators::NEGATE, Some(operand), None, None) => Node {
                span: token.to(operand.span),
                kind: Kind::Negate(Box::new(operand)),
            },
            (operators::INDEX, Some(operand), Some(index), None) => self.index(operand, index),
            _ => self.lacks_operand(token),
        }
    }

    /// `steps['load']` is `steps.load`, so that it is checked and resolved as a path.
    fn index(&mut self, operand: Node, index: Node) -> Node {
        let span = self.closed(operand.span.to(index.span), ']');
        match (operand.kind, index.kind) {
            (Kind::Path(mut path), Kind::Literal(Value::String(name))) => {
                path.names.push(name);
                path.spans.push(index.span);
                Node {
                    span,
                    kind: Kind::Path(path),
                }
            }
            (operand_kind, index_kind) => Node {
                span,
                kind: Kind::Index {
                    operand: Box::new(Node {
                        span: operand.span,
                        kind: operand_kind,
                    }),
                    index: Box::new(Node {
                        span: index.span,
                        kind: index_kind,
                    }),
                },
            },
        }
    }

    fn has(&mut self, name: &Name, args: Vec<IdedExpr>) -> Node {
        let mut args = self.nodes(args);
        let arg = if args.len() == 1 { args.pop() } else { None };
        if let Some(arg) = arg {
            let span = self.closed(name.span.to(arg.span), ')');
            match arg.kind {
                Kind::Path(path) if path.names.len() > 1 => {
                    return Node {
                        span,
                        kind: Kind::HasPath(path),
                    };
                }
                Kind::Select { operand, field } => {
                    return Node {
                        span,
                        kind: Kind::Has { operand, field },
                    };
                }
                _ => {}
            }
        }
        self.problem(name.span, "`has` takes one field: `has(a.b)`", None);
        null(name.span)
    }

    fn macro_call(
        &mut self,
        token: Span,
        name: &Name,
        kind: MacroKind,
        list: Node,
        args: Vec<IdedExpr>,
    ) -> Node {
        let most = if kind == MacroKind::Map { 3 } else { 2 };
        let variable = match args.first().map(|arg| &arg.expr) {
            Some(Expr::Ident(variable)) if !variable.starts_with('.') => variable.clone(),
            _ => String::new(),
        };
        if args.len() < 2 || args.len() > most || variable.is_empty() {
            let text = &name.text;
            let message = format!("`{text}` takes a variable and an expression: `{text}(x, …)`");
            self.problem(name.span, message, None);
            return null(token);
        }
        let slot = self.locals.len();
        self.locals.push(Arc::from(variable));
        let mut parts = self.nodes(args.into_iter().skip(1).collect());
        self.locals.pop();
        let body = parts.pop().unwrap_or_else(|| null(token));
        let condition = parts.pop();
        let span = self.closed(list.span.to(name.span).to(body.span), ')');
        Node {
            span,
            kind: Kind::Macro(Box::new(Macro {
                kind,
                list,
                slot,
                condition,
                body,
            })),
        }
    }

    fn function(
        &mut self,
        token: Span,
        name: Name,
        mut args: Vec<Node>,
        rest: Vec<IdedExpr>,
        method: bool,
    ) -> Node {
        args.extend(self.nodes(rest));
        let span = args
            .iter()
            .fold(name.span.to(token), |span, arg| span.to(arg.span));
        let function = functions::find(&name.text, method, args.len());
        let regex = match (&*name.text, args.get(1).map(|arg| &arg.kind)) {
            ("matches", Some(Kind::Literal(Value::String(pattern)))) => {
                let compiled = functions::compile(pattern);
                if let Err(message) = &compiled {
                    self.problem(args[1].span, message.clone(), None);
                }
                compiled.ok()
            }
            _ => None,
        };
        let call = Call {
            name,
            function,
            method,
            args,
            regex,
        };
        Node {
            span: self.closed(span, ')'),
            kind: Kind::Call(Box::new(call)),
        }
    }
}
