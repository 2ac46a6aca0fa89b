//! The bounds of one evaluation.

/// How much one evaluation may cost. Steps, never time, so it is the same on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Evaluation steps: one for each node visited, item looked at and 16 bytes of text produced.
    pub fuel: u64,
    /// Bytes of the result, as [`crate::Value::size`] counts them.
    pub size: usize,
    /// Depth of nesting of the expression and of the result.
    pub depth: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            fuel: 10_000_000,
            size: 64 << 20,
            depth: 96,
        }
    }
}
