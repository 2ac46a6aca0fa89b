//! What can be done to a run.

use kapell_expr::Value;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{BreakAt, Breakpoint};

/// Something to do to a run. The verb is the last part of the address, the rest is the body.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Action {
    /// End it.
    Cancel {
        /// Who.
        #[serde(default)]
        by: String,
        /// Why.
        #[serde(default)]
        reason: String,
        /// Without `finally`.
        #[serde(default)]
        now: bool,
    },
    /// Start nothing more until it is resumed.
    Pause {
        /// Who.
        #[serde(default)]
        by: String,
    },
    /// Go on.
    Resume {
        /// Who.
        #[serde(default)]
        by: String,
    },
    /// Do again what did not succeed.
    Retry {
        /// Who.
        #[serde(default)]
        by: String,
    },
    /// Do a step and everything after it again.
    Restart {
        /// Who.
        #[serde(default)]
        by: String,
        /// Path of the step.
        from: String,
    },
    /// End a step with output null.
    Skip {
        /// Who.
        #[serde(default)]
        by: String,
        /// Groups that they are in; those of a caller with a token do not count. An approval is ended by
        /// hand only by who may answer it, or with a token that has the scope `admin`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        groups: Vec<String>,
        /// They may end an approval that they may not answer: what a body says of it does not count.
        #[serde(skip)]
        admin: bool,
        /// Path of the step or item.
        step: String,
    },
    /// Give a step an output.
    SetOutput {
        /// Who.
        #[serde(default)]
        by: String,
        /// Groups that they are in; those of a caller with a token do not count. An approval is ended by
        /// hand only by who may answer it, or with a token that has the scope `admin`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        groups: Vec<String>,
        /// They may end an approval that they may not answer: what a body says of it does not count.
        #[serde(skip)]
        admin: bool,
        /// Path of the step or item.
        step: String,
        /// The output.
        output: Value,
    },
    /// Change its priority.
    Priority {
        /// Who.
        #[serde(default)]
        by: String,
        /// 0 to 100.
        priority: u8,
    },
    /// Make a run that shares everything before a step with it.
    Fork {
        /// Who.
        #[serde(default)]
        by: String,
        /// The first step that is done again.
        from: String,
        /// Parameters that change.
        #[serde(default)]
        params: Value,
        /// Parameters that are text are parsed by their types.
        #[serde(default)]
        text: bool,
        /// Version; none keeps the other's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u32>,
        /// The same key makes the same run. The header `Idempotency-Key` says it too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idempotency_key: Option<String>,
    },
    /// Free the strict run queue that it blocks.
    Dismiss {
        /// Who.
        #[serde(default)]
        by: String,
    },
    /// Say yes to what a step asks.
    Approve {
        /// Who; of a caller with a token its name.
        #[serde(default)]
        by: String,
        /// Groups that they are in; those of a caller with a token do not count.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        groups: Vec<String>,
        /// Path of the step or item.
        step: String,
        /// What they say with it.
        #[serde(default)]
        comment: String,
        /// What they fill in: a map.
        #[serde(default)]
        input: Value,
        /// Input that is text is parsed by its types.
        #[serde(default)]
        text: bool,
    },
    /// Say no to what a step asks.
    Reject {
        /// Who; of a caller with a token its name.
        #[serde(default)]
        by: String,
        /// Groups that they are in; those of a caller with a token do not count.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        groups: Vec<String>,
        /// Path of the step or item.
        step: String,
        /// What they say with it.
        #[serde(default)]
        comment: String,
    },
    /// Let steps go on that stopped at breakpoints.
    Continue {
        /// Who.
        #[serde(default)]
        by: String,
        /// Path of the step; none is every one that stopped.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
        /// The steps that come next stop before they start.
        #[serde(default)]
        stepping: bool,
    },
    /// Set all breakpoints of the run, beside those of its definition.
    Breakpoints {
        /// Who.
        #[serde(default)]
        by: String,
        /// All of them: those that were there are replaced.
        breakpoints: Vec<Breakpoint>,
        /// Every step stops before it starts.
        #[serde(default)]
        stepping: bool,
    },
    /// Set one breakpoint of the run beside those that are there.
    AddBreakpoint {
        /// Who.
        #[serde(default)]
        by: String,
        /// It.
        breakpoint: Breakpoint,
    },
    /// Remove breakpoints of the run beside those of its definition: with all of them, steps do not stop
    /// any more because every one does.
    RemoveBreakpoints {
        /// Who.
        #[serde(default)]
        by: String,
        /// Those at this step, as it was given; `*` is those at every step. None is all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
        /// Those that stop there; none is wherever they stop.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<BreakAt>,
    },
    /// Change a parameter while a step has stopped or the run is paused.
    SetParam {
        /// Who.
        #[serde(default)]
        by: String,
        /// Which.
        name: String,
        /// Its value.
        value: Value,
        /// A value that is text is parsed by the parameter's type.
        #[serde(default)]
        text: bool,
    },
}

impl Action {
    /// The last part of its address.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Cancel { .. } => "cancel",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Retry { .. } => "retry",
            Self::Restart { .. } => "restart",
            Self::Skip { .. } => "skip",
            Self::SetOutput { .. } => "set-output",
            Self::Priority { .. } => "priority",
            Self::Fork { .. } => "fork",
            Self::Dismiss { .. } => "dismiss",
            Self::Approve { .. } => "approve",
            Self::Reject { .. } => "reject",
            Self::Continue { .. } => "continue",
            Self::Breakpoints { .. } => "breakpoints",
            Self::AddBreakpoint { .. } => "add-breakpoint",
            Self::RemoveBreakpoints { .. } => "remove-breakpoints",
            Self::SetParam { .. } => "set-param",
        }
    }
}
