//! One compiled expression.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use crate::eval::Machine;
use crate::parse::{self, Parsed};
use crate::{Budget, EvalError, Problem, Scope, Type, TypeScope, Value, check};

/// A compiled expression: parsed once, evaluated often. Cheap to clone.
///
/// Equal to another with the same source. Serialises to its source.
#[derive(Clone)]
pub struct Program {
    inner: Arc<Inner>,
}

struct Inner {
    /// The source with the blanks that a template had around it.
    written: Box<str>,
    /// Bytes of blanks before and after the source.
    blanks: (usize, usize),
    parsed: Parsed,
}

impl Program {
    /// Parses `source`: at most 16 KiB, at most 96 levels deep. All problems found are returned.
    pub fn parse(source: &str) -> Result<Self, Vec<Problem>> {
        Self::compile(source, (0, 0))
    }

    /// Parses the text between the braces of a template. Spans of problems are bytes of `written`.
    pub(crate) fn parse_written(written: &str) -> Result<Self, Vec<Problem>> {
        let before = written.len() - written.trim_start().len();
        let after = written.len() - written.trim_end().len();
        let blanks = if before == written.len() {
            (0, 0)
        } else {
            (before, after)
        };
        Self::compile(written, blanks).map_err(|mut problems| {
            for problem in &mut problems {
                problem.span.start += blanks.0;
                problem.span.end += blanks.0;
            }
            problems
        })
    }

    fn compile(written: &str, blanks: (usize, usize)) -> Result<Self, Vec<Problem>> {
        let parsed = parse::parse(&written[blanks.0..written.len() - blanks.1])?;
        Ok(Self {
            inner: Arc::new(Inner {
                written: written.into(),
                blanks,
                parsed,
            }),
        })
    }

    /// The text it was parsed from. In a template: without the blanks around it.
    pub fn source(&self) -> &str {
        let (before, after) = self.inner.blanks;
        &self.inner.written[before..self.inner.written.len() - after]
    }

    /// The source as a template has it, and the bytes of blanks before it.
    pub(crate) fn written(&self) -> (&str, usize) {
        (&self.inner.written, self.inner.blanks.0)
    }

    pub(crate) fn parsed(&self) -> &Parsed {
        &self.inner.parsed
    }

    /// Checks every name and the types of every operation against `scope`, and returns the type of
    /// the result with all problems found ([`Type::Any`] where it cannot be known).
    pub fn check(&self, scope: &TypeScope) -> (Type, Vec<Problem>) {
        check::check(&self.inner.parsed.root, scope)
    }

    /// As [`Program::check`], where the value must be a condition: anything that is surely not a
    /// `bool` is a problem too.
    pub fn check_condition(&self, scope: &TypeScope) -> Vec<Problem> {
        let (found, mut problems) = self.check(scope);
        if !matches!(found, Type::Bool | Type::Any) {
            problems.push(Problem {
                span: 0..self.source().len(),
                message: format!("a condition must be bool, this is {found}"),
                hint: Some("compare it with something: `== …`".to_owned()),
            });
        }
        problems
    }

    /// Evaluates against the names in `scope`.
    pub fn eval(&self, scope: &dyn Scope, budget: Budget) -> Result<Value, EvalError> {
        let mut machine = Machine::new(scope, budget);
        let value = machine.run(self)?;
        machine.meter.result(&value)?;
        Ok(value)
    }

    /// The paths of free names it reads, each as long as the source shows it
    /// (`["steps", "load", "output"]`), sorted and without repetition.
    pub fn references(&self) -> &[Vec<Arc<str>>] {
        &self.inner.parsed.references
    }
}

impl PartialEq for Program {
    fn eq(&self, other: &Self) -> bool {
        self.inner.written == other.inner.written
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Program").field(&self.source()).finish()
    }
}

impl Serialize for Program {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.source())
    }
}

impl<'de> Deserialize<'de> for Program {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let source = String::deserialize(deserializer)?;
        Self::parse(&source).map_err(|problems| {
            let first = problems
                .first()
                .map_or("not an expression", |problem| &problem.message);
            D::Error::custom(format!("`{source}`: {first}"))
        })
    }
}
