//! A person's decision.

use std::sync::Arc;

use jiff::SignedDuration;
use kapell_expr::Template;
use serde::{Deserialize, Serialize};

use super::{Dyn, Param};

/// Waits until people have said yes, or one has said no.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Approval {
    /// Users and groups that may answer; empty is everybody who may act on the run.
    pub by: Vec<Arc<str>>,
    /// How many must say yes.
    pub count: u32,
    /// What they are asked.
    pub message: Option<Template>,
    /// What they fill in, typed.
    pub input: Vec<Param>,
    /// From when the step could start.
    pub timeout: Option<Dyn<SignedDuration>>,
    /// Whoever started the run may answer too.
    pub allow_self: bool,
    /// What a no does.
    pub on_reject: OnReject,
}

/// What a no does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnReject {
    /// The step fails as `rejected`, and is never retried.
    #[default]
    Fail,
    /// The step succeeds with `approved: false`.
    Continue,
}
