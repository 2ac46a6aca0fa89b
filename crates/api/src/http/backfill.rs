//! Backfills: due times of a schedule that are made up for on request.

use kapell_model::{RunId, Time};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::schema;

/// A backfill to start; its workflow is in the address.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBackfill {
    /// The schedule; none is the only one that the workflow has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// The first instant.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub from: Time,
    /// The first instant that does not belong to it any more.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub until: Time,
    /// Which due times.
    #[serde(default)]
    pub only: BackfillOnly,
    /// Which goes first.
    #[serde(default)]
    pub order: BackfillOrder,
    /// Runs active at once; 0 is one.
    #[serde(default)]
    pub concurrency: u32,
    /// Unique in the workflow: the same twice is one backfill. None gives it one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Who; of a caller with a token its name.
    #[serde(default)]
    pub by: String,
}

/// Which due times a backfill makes up for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackfillOnly {
    /// Those without a run that succeeded or is under way.
    #[default]
    Missing,
    /// Those with a run that failed, and none that succeeded.
    Failed,
    /// All.
    All,
}

/// Which due time of a backfill goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackfillOrder {
    /// The oldest.
    #[default]
    #[serde(alias = "oldest")]
    OldestFirst,
    /// The newest.
    #[serde(alias = "newest")]
    NewestFirst,
}

/// Which backfills to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BackfillQuery {
    /// Of this workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// Those after this one: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most so many; 0 is 100.
    #[serde(default)]
    #[param(maximum = 1_000)]
    pub limit: usize,
}

/// One page of backfills.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct BackfillPage {
    /// By workflow and id.
    pub backfills: Vec<BackfillView>,
    /// Give it as `after` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A backfill and how far it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct BackfillView {
    /// Name of the workflow.
    #[serde(default)]
    pub workflow: String,
    /// Its id.
    #[serde(default)]
    pub id: String,
    /// The schedule.
    pub trigger: String,
    /// The version that its runs take.
    pub version: u32,
    /// `running`, `paused`, `blocked` by a failed run, `cancelled` or `ended`.
    pub status: String,
    /// The first instant.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub from: Time,
    /// The first instant that does not belong to it any more.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub until: Time,
    /// Which due times.
    pub only: BackfillOnly,
    /// Which goes first.
    pub order: BackfillOrder,
    /// Runs active at once.
    pub concurrency: u32,
    /// Who asked for it.
    pub by: String,
    /// When.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub created_at: Option<Time>,
    /// When it ended.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub ended_at: Option<Time>,
    /// Due times that it makes up for.
    pub total: u64,
    /// Due times of the range, wanted or not.
    #[serde(default)]
    pub found: u64,
    /// The first due time of the range that is left to the schedule, or still to come.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub ahead: Option<Time>,
    /// Those whose run succeeded.
    pub succeeded: u64,
    /// Those whose run ended otherwise.
    pub failed: u64,
    /// Those whose run was cancelled.
    #[serde(default)]
    pub cancelled: u64,
    /// Those whose run could not be made.
    pub refused: u64,
    /// Those that the trigger's `when` refused.
    pub declined: u64,
    /// Runs under way.
    #[serde(default)]
    pub active: Vec<BackfillRun>,
    /// Runs that did not succeed; at most 100 of them.
    #[serde(default)]
    pub failed_runs: Vec<BackfillRun>,
    /// Who paused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_by: Option<String>,
    /// Who cancelled it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<String>,
    /// The failed run that blocks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::RunId>)]
    pub blocked_by: Option<RunId>,
    /// The last thing that went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl BackfillView {
    /// Due times that are done with, one way or another.
    pub fn done(&self) -> u64 {
        self.succeeded + self.failed + self.cancelled + self.refused + self.declined
    }
}

/// A run of a backfill.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BackfillRun {
    /// The run.
    #[schema(value_type = schema::RunId)]
    pub run: RunId,
    /// What it stands for.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub scheduled_at: Time,
    /// Why it waits in its run queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
}
