//! Kapell's expression language: CEL, checked before it runs and bounded while it runs.
//!
//! Start reading at [`Template`] (what a user writes in a workflow file), then [`Program`] (one
//! compiled expression), `parse` (limits, then CEL's parser, then the compiled form in `ast`), `check`
//! (types against the names in scope) and `eval` (the evaluator). `functions` holds one table of all
//! functions, which the checker and the evaluator share: a new one is one entry and its body.
//! `CEL.md` beside this crate says what of CEL is here, what is not, and what is added.
//!
//! Invariants
//! - Evaluation is deterministic, reads nothing but its [`Scope`], and always ends: every node
//!   costs fuel, results have a bound on size and depth.
//! - A [`Value::Blob`] that is only passed on stays a reference; an operation that must look inside
//!   it fails with [`EvalError::Need`], so that the caller can load it and evaluate again.
//!
//! Not here: what names are in scope (the `model` checks, the `engine` binds), and any IO.

mod ast;
mod budget;
mod check;
mod equalities;
mod error;
mod eval;
mod functions;
mod parse;
mod program;
mod scope;
mod template;
mod time;
mod types;
mod value;

#[cfg(test)]
mod tests;

pub use budget::Budget;
pub use error::{EvalError, Problem};
pub use program::Program;
pub use scope::{MapScope, Scope};
pub use template::{Fragment, Part, Template, Text};
pub use time::{format_duration, parse_duration};
pub use types::{Object, Type, TypeScope};
pub use value::{BlobRef, Map, Value, stored};
