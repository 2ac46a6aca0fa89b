//! Text with expressions in it, and trees of such text.

mod scan;
mod tree;

use std::sync::Arc;

use crate::ast::Kind;
use crate::eval::Machine;
use crate::{Budget, EvalError, Problem, Program, Scope, Type, TypeScope, Value};

use scan::{OPEN, Piece};

/// A value as a user writes it: literals, `${{ expressions }}` and text around them, in any tree of
/// lists and maps. Serialises to the JSON it was written as. Keys of maps are always literal.
///
/// Equal to another that was written the same.
#[derive(Clone, Debug, PartialEq)]
pub enum Template {
    /// No expression anywhere inside.
    Literal(Value),
    /// Exactly one expression: the value keeps its type.
    Expr(Program),
    /// Text with expressions or secrets inside: the values are formatted into it.
    Text(Text),
    /// A list with an expression somewhere inside.
    List(Arc<[Template]>),
    /// A map with an expression somewhere inside. In the order written.
    Map(Arc<[(Arc<str>, Template)]>),
}

/// Text with expressions inside. Equal to another with the same source.
#[derive(Clone, Debug)]
pub struct Text {
    /// As written.
    pub source: Arc<str>,
    /// Its parts in order.
    pub parts: Arc<[Part]>,
}

/// One part of a [`Text`].
#[derive(Clone, Debug)]
pub enum Part {
    /// Text as it is.
    Literal(Arc<str>),
    /// An expression.
    Expr(Program),
    /// `${{ secrets.NAME }}`: the name. Never evaluated here; the worker resolves it.
    Secret(Arc<str>),
}

/// One part of a rendered [`Text`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Text.
    Text(String),
    /// The value of the secret of this name goes here.
    Secret(Arc<str>),
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Template {
    /// Parses the text of one scalar. Spans of problems are bytes of `text`.
    ///
    /// A text that is exactly one `${{ … }}`, without anything around it, is [`Template::Expr`].
    /// `$${{` stands for a literal `${{`.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        if !text.contains(OPEN) {
            return Ok(Self::Literal(Value::string(text)));
        }
        let mut problems = Vec::new();
        let mut parts = Vec::new();
        for piece in scan::pieces(text).map_err(|problem| vec![problem])? {
            match piece {
                Piece::Literal(literal) => parts.push(Part::Literal(literal.into())),
                Piece::Expr(range) => match expression(&text[range.clone()]) {
                    Ok(part) => parts.push(part),
                    Err(found) => problems.extend(moved(found, range.start)),
                },
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        match parts.as_slice() {
            [Part::Expr(program)] => Ok(Self::Expr(program.clone())),
            [Part::Literal(literal)] => Ok(Self::Literal(Value::String(literal.clone()))),
            _ => Ok(Self::Text(Text {
                source: text.into(),
                parts: parts.into(),
            })),
        }
    }

    /// Checks every expression inside. Spans are bytes of the source of each scalar, so call this
    /// on scalars when places matter.
    pub fn check(&self, scope: &TypeScope) -> (Type, Vec<Problem>) {
        match self {
            Self::Literal(value) => (Type::of(value), Vec::new()),
            Self::Expr(program) => {
                let (found, problems) = program.check(scope);
                (found, moved(problems, OPEN.len() + program.written().1))
            }
            Self::Text(text) => (Type::String, text.check(scope)),
            Self::List(items) => tree::check_list(items, scope),
            Self::Map(entries) => tree::check_map(entries, scope),
        }
    }

    /// The value. Fails on a secret: render text that may hold one by its parts.
    pub fn eval(&self, scope: &dyn Scope, budget: Budget) -> Result<Value, EvalError> {
        let mut machine = Machine::new(scope, budget);
        let value = self.run(&mut machine)?;
        if !self.is_literal() {
            machine.meter.result(&value)?;
        }
        Ok(value)
    }

    fn run(&self, machine: &mut Machine<'_>) -> Result<Value, EvalError> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::Expr(program) => machine.run(program),
            Self::Text(text) => text.run(machine),
            Self::List(items) => {
                let values: Result<Vec<_>, _> =
                    items.iter().map(|item| item.run(machine)).collect();
                values.map(Value::list)
            }
            Self::Map(entries) => {
                let values: Result<crate::Map, EvalError> = entries
                    .iter()
                    .map(|(key, value)| Ok((key.clone(), value.run(machine)?)))
                    .collect();
                values.map(|map| Value::Map(Arc::new(map)))
            }
        }
    }
}

impl Text {
    /// Checks every expression inside. Spans are bytes of `source`.
    pub fn check(&self, scope: &TypeScope) -> Vec<Problem> {
        let places = scan::pieces(&self.source).unwrap_or_default();
        let mut places = places.iter().filter_map(|piece| match piece {
            Piece::Expr(range) => Some(range.start),
            Piece::Literal(_) => None,
        });
        let mut problems = Vec::new();
        for part in self.parts.iter() {
            match part {
                Part::Literal(_) => {}
                Part::Secret(_) => {
                    places.next();
                }
                Part::Expr(program) => {
                    let start = places.next().unwrap_or(0) + program.written().1;
                    problems.extend(moved(program.check(scope).1, start));
                }
            }
        }
        problems
    }

    /// Evaluates the expressions and leaves the secrets: what the worker puts together. `budget` is
    /// for all parts together. Neighbouring texts are one fragment.
    pub fn render(&self, scope: &dyn Scope, budget: Budget) -> Result<Vec<Fragment>, EvalError> {
        let mut machine = Machine::new(scope, budget);
        let mut fragments = Vec::new();
        let mut text = String::new();
        for part in self.parts.iter() {
            if let Part::Secret(name) = part {
                if !text.is_empty() {
                    fragments.push(Fragment::Text(std::mem::take(&mut text)));
                }
                fragments.push(Fragment::Secret(name.clone()));
            } else {
                part.run(&mut machine, &mut text)?;
            }
        }
        if !text.is_empty() {
            fragments.push(Fragment::Text(text));
        }
        Ok(fragments)
    }

    /// The names of the secrets inside, in the order of the text.
    pub fn secrets(&self) -> Vec<Arc<str>> {
        self.parts
            .iter()
            .filter_map(|part| match part {
                Part::Secret(name) => Some(name.clone()),
                Part::Literal(_) | Part::Expr(_) => None,
            })
            .collect()
    }

    /// The expressions inside, in the order of the text.
    pub fn programs(&self) -> Vec<&Program> {
        self.parts
            .iter()
            .filter_map(|part| match part {
                Part::Expr(program) => Some(program),
                Part::Literal(_) | Part::Secret(_) => None,
            })
            .collect()
    }

    fn run(&self, machine: &mut Machine<'_>) -> Result<Value, EvalError> {
        let mut text = String::new();
        for part in self.parts.iter() {
            part.run(machine, &mut text)?;
        }
        Ok(Value::from(text))
    }
}

impl Part {
    /// Appends this part to `text`: null as `null`, dates, timestamps and durations as ISO 8601,
    /// bytes as base64, lists and maps as compact JSON.
    fn run(&self, machine: &mut Machine<'_>, text: &mut String) -> Result<(), EvalError> {
        match self {
            Self::Literal(literal) => text.push_str(literal),
            Self::Secret(name) => {
                return Err(EvalError::Failed(format!(
                    "the secret `{name}` cannot be used here"
                )));
            }
            Self::Expr(program) => {
                let value = machine.run(program)?;
                machine.meter.look_inside(&value)?;
                text.push_str(&value.text());
            }
        }
        machine.meter.text(text.len())
    }
}

/// The part that an expression is, from the text between its braces.
fn expression(written: &str) -> Result<Part, Vec<Problem>> {
    let program = Program::parse_written(written)?;
    let blanks = program.written().1;
    let parsed = program.parsed();
    if let Kind::Path(path) = &parsed.root.kind
        && let [root, name] = path.names.as_slice()
        && &**root == "secrets"
    {
        return Ok(Part::Secret(name.clone()));
    }
    let problems: Vec<Problem> = parsed
        .roots
        .iter()
        .filter(|(name, _)| &**name == "secrets")
        .map(|(_, span)| Problem {
            span: span.start as usize + blanks..span.end as usize + blanks,
            message: "a secret may only stand alone, as `${{ secrets.NAME }}`".to_owned(),
            hint: Some("put literal text around it, outside the braces".to_owned()),
        })
        .collect();
    if problems.is_empty() {
        Ok(Part::Expr(program))
    } else {
        Err(problems)
    }
}

fn moved(mut problems: Vec<Problem>, by: usize) -> Vec<Problem> {
    for problem in &mut problems {
        problem.span.start += by;
        problem.span.end += by;
    }
    problems
}

#[cfg(test)]
mod tests;
