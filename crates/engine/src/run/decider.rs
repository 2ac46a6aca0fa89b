//! Deciding one input: facts are applied as they are stated, expressions see blobs from memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use kapell_expr::{BlobRef, Budget, EvalError, Program, Template, Value};
use kapell_model::{EntityKey, Time, limits};

use super::{Decision, Effect, Ref, Run, names};
use crate::event::{Event, Fact, Stored};
use crate::message::Message;

fn reference(blob: &BlobRef) -> Ref {
    match blob
        .hash
        .strip_prefix("page:")
        .and_then(|number| number.parse().ok())
    {
        Some(number) => Ref::Page(number),
        None => Ref::Blob(blob.clone()),
    }
}

/// Why a micro-step did not happen.
pub(crate) enum Stop {
    /// Something must be loaded.
    Need(Ref),
    /// The user's expression failed.
    Failed(String),
}

impl From<EvalError> for Stop {
    fn from(error: EvalError) -> Self {
        match error {
            EvalError::Need(blob) if blob.size > limits::OUTPUT_BYTES => Self::Failed(format!(
                "the value has {} bytes; an expression looks into {} at most",
                blob.size,
                limits::OUTPUT_BYTES
            )),
            EvalError::Need(blob) => Self::Need(reference(&blob)),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// Deciding one input.
pub(crate) struct Decider<'a> {
    pub run: &'a mut Run,
    pub now: Time,
    pub out: Decision,
}

impl Decider<'_> {
    /// States a fact: it is applied at once and becomes part of the decision.
    pub(crate) fn emit(&mut self, fact: Fact) {
        let event = Event::new(self.now, fact);
        self.run.state.apply(&self.run.plan, &event);
        self.out.events.push(event);
    }

    pub(crate) fn send(&mut self, to: EntityKey, message: Message) {
        self.out.effects.push(Effect::Send(to, message));
    }

    /// Microseconds from now to an instant, at least 1.
    pub(crate) fn relative(&self, at: Time) -> i64 {
        at.0.saturating_sub(self.now.0).max(1)
    }

    /// The stored form of a value: a big one becomes a blob.
    pub(crate) fn stored(&mut self, value: &Value) -> Stored {
        if value.size() <= limits::INLINE_OUTPUT_BYTES {
            return Stored::new(value);
        }
        let bytes = value.to_stored();
        if bytes.len() <= limits::INLINE_OUTPUT_BYTES {
            return Stored { inline: bytes };
        }
        self.blob(value, bytes)
    }

    /// The stored form of a value that becomes a blob.
    pub(crate) fn blob(&mut self, value: &Value, bytes: Vec<u8>) -> Stored {
        let blob = BlobRef {
            hash: blake3::hash(&bytes).to_hex().as_str().into(),
            size: bytes.len() as u64,
        };
        self.run.live.blobs.insert(blob.hash.clone(), value.clone());
        self.out.blobs.push((blob.clone(), bytes));
        Stored::new(&Value::Blob(blob))
    }

    /// Evaluates an expression. A blob that is only passed on stays a reference; one that must be
    /// looked into is taken from memory or asked for.
    pub(crate) fn eval(&self, program: &Program, names: &names::At<'_>) -> Result<Value, Stop> {
        self.opening(names, |scope| program.eval(scope, Budget::default()))
    }

    /// Evaluates a template, as [`Decider::eval`] does.
    pub(crate) fn render(&self, template: &Template, names: &names::At<'_>) -> Result<Value, Stop> {
        self.opening(names, |scope| template.eval(scope, Budget::default()))
    }

    fn opening(
        &self,
        names: &names::At<'_>,
        eval: impl Fn(&Opened<'_>) -> Result<Value, EvalError>,
    ) -> Result<Value, Stop> {
        let mut scope = Opened {
            names,
            contents: BTreeMap::new(),
        };
        loop {
            match eval(&scope) {
                Err(EvalError::Need(blob)) => {
                    if let Some(message) = self.run.live.unreadable.get(&blob.hash) {
                        return Err(Stop::Failed(message.clone()));
                    }
                    match self.run.live.blobs.get(&blob.hash) {
                        Some(content) if !scope.contents.contains_key(&blob.hash) => {
                            scope.contents.insert(blob.hash, content.clone());
                        }
                        _ => return Err(EvalError::Need(blob).into()),
                    }
                }
                result => return Ok(result?),
            }
        }
    }
}

/// Names in which some blobs are replaced by their contents.
struct Opened<'a> {
    names: &'a names::At<'a>,
    contents: BTreeMap<Arc<str>, Value>,
}

impl Opened<'_> {
    fn open(&self, value: Value) -> Value {
        match value {
            Value::Blob(blob) => self
                .contents
                .get(&blob.hash)
                .cloned()
                .unwrap_or(Value::Blob(blob)),
            Value::List(items) => {
                Value::list(items.iter().map(|item| self.open(item.clone())).collect())
            }
            Value::Map(entries) => Value::map(
                entries
                    .iter()
                    .map(|(key, value)| (key, self.open(value.clone()))),
            ),
            value => value,
        }
    }
}

impl kapell_expr::Scope for Opened<'_> {
    fn resolve(&self, path: &[Arc<str>]) -> Result<Option<(Value, usize)>, EvalError> {
        let found = self.names.resolve(path)?;
        if self.contents.is_empty() {
            return Ok(found);
        }
        Ok(found.map(|(value, used)| (self.open(value), used)))
    }
}
