//! The nouns of Kapell: ids, workflow definitions, statuses, limits and error codes.
//!
//! Start reading at [`spec::Spec`], what a workflow file means once it is parsed and checked, then
//! [`parse`] (text to a spec with every problem in it), [`params`], [`limits`] and [`ErrorCode`].
//!
//! Invariants
//! - No IO, no async, no clock, no randomness.
//! - Every bound of the product is a constant in [`limits`].
//! - A spec that `parse` returns is normalised: defaults filled in, `needs` resolved, expressions
//!   checked. Nothing downstream checks again.
//! - Every key of the language is in one table (`language`), and `parse` reads no key that is not.
//!
//! Not here: what a run does with a spec (`engine`), where it is kept (`store`).

pub mod config;
mod convert;
mod diagnostic;
mod error_code;
mod id;
mod language;
pub mod limits;
pub mod params;
mod parse;
mod shards;
pub mod spec;
mod status;
mod time;
mod yaml;

pub use convert::convert;
pub use diagnostic::{Color, Diagnostic, Severity, render};
pub use error_code::{Error, ErrorCode};
pub use id::{EntityKey, FINISHED, NodeId, Offer, RunId, SHARDS, SessionId, Shard};
pub use language::{json_schema, reference_markdown};
pub use parse::{Parsed, mentions_workflow, nearest, nearest_few, parse, top_level, values};
pub use shards::ShardSet;
pub use status::{FailureKind, RunStatus, StepStatus};
pub use time::Time;
pub use yaml::written;
