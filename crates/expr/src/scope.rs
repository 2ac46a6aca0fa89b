//! What names an expression can read when it is evaluated.

use std::sync::Arc;

use crate::{EvalError, Map, Value};

/// The names in scope. The evaluator asks for the longest path it can see in the source
/// (`steps.load.output.rows` is `["steps", "load", "output", "rows"]`), so that an implementation
/// can answer `steps.load.output` without building `steps`.
pub trait Scope {
    /// The value of a prefix of `path` (at least one name) and how many names of it were used.
    /// `Ok(None)`: no such name. The evaluator selects the rest of the path from the value.
    fn resolve(&self, path: &[Arc<str>]) -> Result<Option<(Value, usize)>, EvalError>;
}

/// A scope of plain values by top-level name.
#[derive(Clone, Debug, Default)]
pub struct MapScope(pub Map);

impl Scope for MapScope {
    fn resolve(&self, path: &[Arc<str>]) -> Result<Option<(Value, usize)>, EvalError> {
        Ok(path
            .first()
            .and_then(|name| self.0.get(name))
            .map(|value| (value.clone(), 1)))
    }
}
