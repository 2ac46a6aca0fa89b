//! What people ask of a run.

use std::sync::Arc;

use kapell_expr::Value;
use kapell_model::spec::Approval;
use serde::{Deserialize, Serialize};

use super::waiting::{Break, Breaks};

/// What a person can do to a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// End it.
    Cancel {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// Without `finally`.
        now: bool,
    },
    /// Start nothing more until resumed.
    Pause {
        /// Who.
        by: String,
    },
    /// Go on.
    Resume {
        /// Who.
        by: String,
    },
    /// Do again what did not succeed.
    Retry {
        /// Who.
        by: String,
    },
    /// Do a step and everything after it again.
    Restart {
        /// Who.
        by: String,
        /// Path of the step.
        from: String,
    },
    /// End a step with output null; dependants go on as after success.
    Skip {
        /// Who.
        by: String,
        /// Groups that they are in.
        groups: Vec<String>,
        /// They may end an approval that they may not answer.
        admin: bool,
        /// Path of the step or item.
        step: String,
        /// Approvals in runs that the step makes: see [`super::approvals_below`].
        below: Vec<Approval>,
    },
    /// Give a step an output; it has succeeded.
    SetOutput {
        /// Who.
        by: String,
        /// Groups that they are in.
        groups: Vec<String>,
        /// They may end an approval that they may not answer.
        admin: bool,
        /// Path of the step or item.
        step: String,
        /// Approvals in runs that the step makes: see [`super::approvals_below`].
        below: Vec<Approval>,
        /// The output.
        #[serde(with = "kapell_expr::stored")]
        output: Value,
    },
    /// Change its priority.
    Priority {
        /// Who.
        by: String,
        /// 0 to 100.
        priority: u8,
    },
    /// Answer what a step asks people.
    Answer(Answer),
    /// Let steps go on that stopped at breakpoints.
    Continue {
        /// Who.
        by: String,
        /// Path of the step; none is every one that stopped.
        step: Option<String>,
        /// The steps that come next stop before they start.
        stepping: bool,
    },
    /// Set all breakpoints beside those of the definition.
    Breakpoints {
        /// Who.
        by: String,
        /// All of them.
        breakpoints: Vec<Break>,
        /// Every step stops before it starts.
        stepping: bool,
    },
    /// Set one breakpoint beside those that are there.
    AddBreakpoint {
        /// Who.
        by: String,
        /// It.
        breakpoint: Break,
    },
    /// Remove breakpoints beside those of the definition.
    RemoveBreakpoints {
        /// Who.
        by: String,
        /// Which.
        which: Breaks,
    },
    /// Change a parameter while a step is stopped or the run is paused.
    SetParam {
        /// Who.
        by: String,
        /// Which.
        name: Arc<str>,
        /// Its value.
        #[serde(with = "kapell_expr::stored")]
        value: Value,
        /// It is text to be parsed by the parameter's type.
        text: bool,
    },
}

/// What a person says to a step that asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Who.
    pub by: String,
    /// Groups that they are in.
    pub groups: Vec<String>,
    /// Path of the step or item.
    pub step: String,
    /// Yes, or no.
    pub approved: bool,
    /// What they say with it.
    pub comment: String,
    /// What they fill in: a map, or null.
    #[serde(with = "kapell_expr::stored")]
    pub input: Value,
    /// Its values are text to be parsed by their types.
    pub text: bool,
}
