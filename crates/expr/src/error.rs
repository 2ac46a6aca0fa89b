//! What can go wrong, before and while an expression runs.

use std::ops::Range;

use crate::BlobRef;

/// Something wrong with an expression, found before it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The bytes of the source that are wrong: of the template's text for a
    /// [`crate::Template`], of the expression for a [`crate::Program`].
    pub span: Range<usize>,
    /// What is wrong, with the names involved quoted in backticks.
    pub message: String,
    /// What to do about it, if that can be said.
    pub hint: Option<String>,
}

/// Why an evaluation ended without a value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvalError {
    /// The content of a blob is needed to go on. Not a failure: load it and evaluate again.
    #[error("needs the content of {}", .0.hash)]
    Need(BlobRef),
    /// A name, field, key or index does not exist. `coalesce` and `has` look for this one.
    #[error("{0}")]
    Missing(String),
    /// The budget ran out.
    #[error("{0}")]
    Budget(String),
    /// Anything else: a wrong type, a division by zero, an overflow, a bad date.
    #[error("{0}")]
    Failed(String),
}
