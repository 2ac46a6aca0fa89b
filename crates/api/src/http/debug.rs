//! Breakpoints, and what is seen at one.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A breakpoint beside those of a definition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Breakpoint {
    /// Id of the step, or its path, with or without numbers of iterations; none is every step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Where it stops.
    #[serde(default)]
    pub at: BreakAt,
    /// It counts only where this expression, over what the step sees, holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Who set it; not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Where a step stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakAt {
    /// Before it starts.
    #[default]
    Before,
    /// Before it ends.
    After,
    /// After its last try failed, before its handler runs.
    OnFailure,
}

impl BreakAt {
    /// The word of a workflow file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::OnFailure => "on_failure",
        }
    }
}

/// Breakpoints of all new runs of a workflow, or of every workflow.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkflowBreakpoints {
    /// Of a version of the workflow alone; none is of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// All of them: those that were there are replaced.
    pub breakpoints: Vec<Breakpoint>,
    /// Who; of a caller with a token its name.
    #[serde(default)]
    pub by: String,
}

/// One more breakpoint of all new runs of a workflow, or of every workflow.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct AddBreakpoint {
    /// Of a version of the workflow alone; none is of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// It.
    pub breakpoint: Breakpoint,
    /// Who; of a caller with a token its name.
    #[serde(default)]
    pub by: String,
}

/// Breakpoints of all new runs of a workflow, or of every workflow, that go.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RemoveBreakpoints {
    /// Of a version of the workflow alone; none is of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Those at this step, as it was given; `*` is those at every step. None is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Those that stop there; none is wherever they stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<BreakAt>,
    /// Who; of a caller with a token its name.
    #[serde(default)]
    pub by: String,
}

/// Whose breakpoints of a workflow to show.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BreakpointQuery {
    /// Of a version of the workflow alone; none is of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// An expression to evaluate over what a step sees.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// Path of the step or item; empty is the run as a whole.
    #[serde(default)]
    pub step: String,
    /// The expression, as in `if`, without `${{` and `}}`.
    pub expression: String,
}

/// What an expression gives.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Evaluated {
    /// Its value.
    #[serde(default)]
    pub value: serde_json::Value,
}
