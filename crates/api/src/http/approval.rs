//! What runs ask people.

use kapell_model::{RunId, Time};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{ApprovalView, schema};

/// Which questions to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ApprovalQuery {
    /// Those that this person may answer, who has not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Groups that they are in, comma-separated.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub groups: String,
    /// Those of runs after this one: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::RunId>)]
    #[param(value_type = Option<schema::RunId>, inline)]
    pub after: Option<RunId>,
    /// At most so many, but always all of one run; 0 is 100.
    #[serde(default)]
    #[param(maximum = 1_000)]
    pub limit: usize,
}

/// One page of questions.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ApprovalPage {
    /// Those of the oldest run first.
    pub approvals: Vec<ApprovalWaiting>,
    /// Give it as `after` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::RunId>)]
    pub next: Option<RunId>,
}

/// A question of a run that waits for an answer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ApprovalWaiting {
    /// The run.
    #[schema(value_type = schema::RunId)]
    pub run: RunId,
    /// Name of its workflow.
    pub workflow: String,
    /// Its version.
    pub version: u32,
    /// Path of the step or item.
    pub step: String,
    /// The label of the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Since when it asks.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub asked_at: Option<Time>,
    /// What it asks, and whom.
    pub approval: ApprovalView,
}

impl ApprovalView {
    /// True if this person, who is in these groups, may answer and has not yet.
    pub fn is_for(&self, by: &str, groups: &[&str]) -> bool {
        let named = |name: &String| name == by || groups.contains(&name.as_str());
        (self.by.is_empty() || self.by.iter().any(named))
            && self.not_by.as_deref() != Some(by)
            && self.given.iter().all(|given| given.by != by)
    }
}
