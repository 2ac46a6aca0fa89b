//! Values with expressions in them: parsed, checked against the scope, placed in the file.

use std::sync::Arc;

use jiff::SignedDuration;
use kapell_expr::{Problem, Program, Template, Type, Value};

use crate::limits;
use crate::spec::Dyn;
use crate::yaml::{Entry, Kind, Node, Scalar, Span, Style, source_offset};

use super::Context;
use super::read::{Plain, expression_start, plain};
use super::scope::{Scope, object_type};

/// A parsed template, or what is wrong with it.
pub(crate) type Compiled = Result<Template, Vec<Problem>>;

/// Whether `${{ secrets.NAME }}` may be used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrets {
    Refused,
    Allowed,
}

impl Context<'_> {
    /// Text as written, with expressions inside if need be. Null is an error.
    pub(crate) fn text(
        &mut self,
        node: &Node,
        what: &str,
        scope: &Scope<'_>,
        secrets: Secrets,
    ) -> Option<Template> {
        self.typed_text(node, what, scope, secrets)
            .map(|(template, _)| template)
    }

    /// The same with its type: that of the value where it is exactly one expression, else text.
    pub(crate) fn typed_text(
        &mut self,
        node: &Node,
        what: &str,
        scope: &Scope<'_>,
        secrets: Secrets,
    ) -> Option<(Template, Type)> {
        if node.is_null() {
            self.error_hint(
                "empty-value",
                node.span,
                format!("`{what}` has no value"),
                "for empty text write `\"\"`",
            );
            return None;
        }
        let scalar = self.scalar(node, what)?;
        self.template(node, scalar, scope, secrets)
    }

    /// Any value, with expressions inside if need be, and its type.
    pub(crate) fn value(
        &mut self,
        node: &Node,
        scope: &Scope<'_>,
        secrets: Secrets,
    ) -> Option<(Template, Type)> {
        match &node.kind {
            Kind::Broken => None,
            Kind::Scalar(scalar) => self.scalar_value(node, scalar, scope, secrets),
            Kind::List(items) => {
                let values: Vec<_> = items
                    .iter()
                    .map(|item| self.value(item, scope, secrets))
                    .collect();
                let values: Option<Vec<_>> = values.into_iter().collect();
                let (templates, types): (Vec<_>, Vec<_>) = values?.into_iter().unzip();
                Some((
                    list(templates),
                    Type::List(Arc::new(Type::join_all(&types))),
                ))
            }
            Kind::Map(entries) => self.map_value(entries, scope, secrets),
        }
    }

    fn scalar_value(
        &mut self,
        node: &Node,
        scalar: &Scalar,
        scope: &Scope<'_>,
        secrets: Secrets,
    ) -> Option<(Template, Type)> {
        if scalar.style != Style::Plain || expression_start(&scalar.text).is_some() {
            return self.template(node, scalar, scope, secrets);
        }
        match plain(&scalar.text) {
            Plain::Value(value) => {
                let of = Type::of(&value);
                Some((Template::Literal(value), of))
            }
            Plain::Refused(why) => {
                self.error_hint(
                    "bad-number",
                    node.span,
                    format!("`{}`: {why}", scalar.text),
                    "put it in quotes if it is text",
                );
                None
            }
        }
    }

    fn map_value(
        &mut self,
        entries: &[Entry],
        scope: &Scope<'_>,
        secrets: Secrets,
    ) -> Option<(Template, Type)> {
        let mut templates = Vec::with_capacity(entries.len());
        let mut types = Vec::with_capacity(entries.len());
        let mut failed = false;
        for entry in entries {
            failed |= !self.literal_key(entry);
            match self.value(&entry.value, scope, secrets) {
                Some((template, of)) => {
                    templates.push((entry.key.clone(), template));
                    types.push((entry.key.to_string(), of));
                }
                None => failed = true,
            }
        }
        (!failed).then(|| (map(templates), object_type("the map", types)))
    }

    /// Refuses a key with an expression in it.
    pub(crate) fn literal_key(&mut self, entry: &Entry) -> bool {
        let fine = expression_start(&entry.key).is_none();
        if !fine {
            self.error_hint(
                "literal-only",
                entry.key_span,
                "keys of maps take no expressions",
                "compute the whole map with one expression",
            );
        }
        fine
    }

    /// A map of values: always a template of a map.
    pub(crate) fn values_map(
        &mut self,
        node: &Node,
        what: &str,
        scope: &Scope<'_>,
        secrets: Secrets,
    ) -> Option<Template> {
        let entries = self.entries(node, what);
        self.map_value(entries, scope, secrets)
            .map(|(template, _)| template)
    }

    /// Exactly one expression of type bool.
    pub(crate) fn condition(
        &mut self,
        node: &Node,
        what: &str,
        scope: &Scope<'_>,
    ) -> Option<Program> {
        let hint = "write `\"${{ … }}\"` around the whole condition";
        let (program, of) = self.only_expression(node, what, scope, hint)?;
        if matches!(of, Type::Bool | Type::Any) {
            return Some(program);
        }
        self.error_hint(
            "wrong-type",
            node.span,
            format!("`{what}` is a condition, and this is {of}"),
            "compare it with something: `== …`",
        );
        None
    }

    /// Exactly one expression.
    pub(crate) fn only_expression(
        &mut self,
        node: &Node,
        what: &str,
        scope: &Scope<'_>,
        hint: &str,
    ) -> Option<(Program, Type)> {
        let scalar = self.scalar(node, what)?;
        if let (Template::Expr(program), of) =
            self.template(node, scalar, scope, Secrets::Refused)?
        {
            return Some((program, of));
        }
        self.error_hint(
            "not-an-expression",
            node.span,
            format!("`{what}` is exactly one expression"),
            hint,
        );
        None
    }

    /// A literal read by `literal`, or an expression that gives one of `types`.
    pub(crate) fn dynamic<T>(
        &mut self,
        node: &Node,
        what: &str,
        scope: &Scope<'_>,
        types: &[Type],
        literal: impl FnOnce(&mut Self, &Node) -> Option<T>,
    ) -> Option<Dyn<T>> {
        let scalar = self.scalar(node, what)?;
        if expression_start(&scalar.text).is_none() {
            return literal(self, node).map(Dyn::Fixed);
        }
        let (program, of) = self.only_expression(
            node,
            what,
            scope,
            "write a value, or one expression around all of it",
        )?;
        if of != Type::Any && !types.contains(&of) {
            let wanted: Vec<String> = types.iter().map(Type::to_string).collect();
            self.error(
                "wrong-type",
                node.span,
                format!(
                    "`{what}` is {}, and this expression gives {of}",
                    wanted.join(" or ")
                ),
            );
            return None;
        }
        Some(Dyn::Expr(program))
    }

    pub(crate) fn dynamic_int(
        &mut self,
        node: &Node,
        what: &str,
        scope: &Scope<'_>,
        bounds: (i64, i64),
    ) -> Option<Dyn<i64>> {
        self.dynamic(node, what, scope, &[Type::Int], |cx, node| {
            cx.int(node, what, bounds)
        })
    }

    pub(crate) fn dynamic_duration(
        &mut self,
        node: &Node,
        what: &str,
        scope: &Scope<'_>,
    ) -> Option<Dyn<SignedDuration>> {
        self.dynamic(
            node,
            what,
            scope,
            &[Type::Duration, Type::String],
            |cx, node| cx.duration(node, what),
        )
    }

    /// Parses the text of a scalar and checks it against the scope.
    fn template(
        &mut self,
        node: &Node,
        scalar: &Scalar,
        scope: &Scope<'_>,
        secrets: Secrets,
    ) -> Option<(Template, Type)> {
        if !scalar.text.contains("${{") {
            let literal = Template::Literal(Value::String(scalar.text.clone()));
            return Some((literal, Type::String));
        }
        if scalar.text.len() > limits::TEMPLATE_BYTES {
            let message = format!(
                "text with expressions has at most {} bytes",
                limits::TEMPLATE_BYTES
            );
            self.error_hint("limit", node.span, message, "keep large text in a file");
            return None;
        }
        let known = self.templates.get(&scalar.text).cloned();
        let compiled = known.unwrap_or_else(|| {
            let compiled = Template::parse(&scalar.text);
            self.templates.insert(scalar.text.clone(), compiled.clone());
            compiled
        });
        match compiled {
            Ok(template) => {
                let of = self.checked(node, &template, scope)?;
                self.secrets_allowed(node, &template, secrets)
                    .then_some((template, of))
            }
            Err(problems) => {
                for problem in problems {
                    self.problem(node, problem);
                }
                None
            }
        }
    }

    fn checked(&mut self, node: &Node, template: &Template, scope: &Scope<'_>) -> Option<Type> {
        let programs = match template {
            Template::Expr(program) => vec![program],
            Template::Text(text) => text.programs(),
            Template::Literal(_) | Template::List(_) | Template::Map(_) => Vec::new(),
        };
        let (of, problems) = template.check(&scope.types_for(self, &programs));
        let fine = problems.is_empty();
        for problem in problems {
            self.problem(node, problem);
        }
        fine.then_some(of)
    }

    fn secrets_allowed(&mut self, node: &Node, template: &Template, secrets: Secrets) -> bool {
        let Template::Text(text) = template else {
            return true;
        };
        if secrets == Secrets::Allowed || text.secrets().is_empty() {
            return true;
        }
        let at = text.source.find("secrets").unwrap_or(0);
        let start = source_offset(self.text, node, at);
        self.error_hint(
            "secret-not-here",
            Span { start, end: start + "secrets".len() },
            "a secret cannot be used here",
            "secrets go into `env`, `http.headers`, `http.auth`, `webhook.secret` and the `with` of steps that run on a worker",
        );
        false
    }

    /// Reports a problem of an expression at its place in the file.
    fn problem(&mut self, node: &Node, problem: Problem) {
        if self.full() {
            return;
        }
        let start = source_offset(self.text, node, problem.span.start);
        let end = if problem.span.is_empty() {
            start + 1
        } else {
            // The end of the last character, not the start of what comes behind it.
            let text = node.scalar().map_or("", |scalar| &*scalar.text);
            let last = text
                .get(..problem.span.end)
                .and_then(|text| text.char_indices().next_back());
            let last = last.map_or(problem.span.start, |(at, _)| at);
            source_offset(self.text, node, last)
                + text[last..].chars().next().map_or(1, char::len_utf8)
        };
        let code = match &problem.hint {
            Some(hint) if hint.contains("` to the `needs` of `") => "missing-need",
            _ if problem.message.contains("cannot be used here") => "not-in-scope",
            _ if problem.message.starts_with("unknown name")
                || problem.message.contains("is not in ") =>
            {
                "unknown-name"
            }
            _ => "bad-expression",
        };
        let span = Span {
            start,
            end: end.min(self.text.len()).max(start),
        };
        self.add(
            crate::diagnostic::Severity::Error,
            code,
            span,
            problem.message,
            problem.hint,
        );
    }
}

/// A list template, literal if all items are.
pub(crate) fn list(items: Vec<Template>) -> Template {
    let literals: Option<Vec<Value>> = items.iter().map(literal).collect();
    literals.map_or_else(
        || Template::List(items.into()),
        |values| Template::Literal(Value::list(values)),
    )
}

/// A map template, literal if all values are.
pub(crate) fn map(entries: Vec<(Arc<str>, Template)>) -> Template {
    let literals: Option<kapell_expr::Map> = entries
        .iter()
        .map(|(key, value)| Some((key.clone(), literal(value)?)))
        .collect();
    literals.map_or_else(
        || Template::Map(entries.into()),
        |values| Template::Literal(Value::Map(Arc::new(values))),
    )
}

fn literal(template: &Template) -> Option<Value> {
    match template {
        Template::Literal(value) => Some(value.clone()),
        Template::Expr(_) | Template::Text(_) | Template::List(_) | Template::Map(_) => None,
    }
}
