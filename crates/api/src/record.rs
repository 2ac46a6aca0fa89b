//! What became of a run, as people look at it afterwards. `engine::record` folds history into it.

use kapell_expr::Value;
use kapell_model::{RunId, RunStatus, StepStatus, Time};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::schema;
use crate::task::{TaskError, Usage};

/// A run up to a moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Record {
    /// Its id.
    #[schema(value_type = schema::RunId)]
    pub run: RunId,
    /// Namespace of the workflow.
    pub namespace: String,
    /// Name of the workflow.
    pub workflow: String,
    /// Version.
    pub version: u32,
    /// Where it stood.
    #[schema(value_type = schema::RunStatus)]
    pub status: RunStatus,
    /// What made it: `manual`, `workflow`, `fork`.
    pub trigger: String,
    /// Name of the trigger that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger_name: Option<String>,
    /// The backfill that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backfill: Option<String>,
    /// It makes up for a due time that was missed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub catching_up: bool,
    /// Its due time, if that is not when it was made.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub scheduled_at: Option<Time>,
    /// `run.interval.start`, if it has a length.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub interval_start: Option<Time>,
    /// `run.interval.end`, if it has a length.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub interval_end: Option<Time>,
    /// Who or what asked for it.
    pub by: String,
    /// The run whose step made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::RunId>)]
    pub parent: Option<RunId>,
    /// The run it was forked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::RunId>)]
    pub forked_from: Option<RunId>,
    /// 0 to 100.
    pub priority: u8,
    /// When it was made.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub created_at: Time,
    /// When its steps could start.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub ended_at: Option<Time>,
    /// The moment it is seen at: the last event taken.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub seen_at: Time,
    /// Bound parameters.
    pub params: Value,
    /// Outputs, once it has succeeded.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub outputs: Value,
    /// The error, if it is none of a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
    /// What people and timers did to it, in order; the newest 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// The steps of the workflow, then those of `finally`.
    pub steps: Vec<StepRecord>,
}

/// Something that was done to a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Note {
    /// When.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub at: Time,
    /// What, as a sentence.
    pub text: String,
}

/// A step, or an item of a foreach.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct StepRecord {
    /// Path in the run: `tune[3]`, `refine#2.improve`.
    pub path: String,
    /// The label of the item of a foreach that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Id in its graph.
    pub id: String,
    /// The verb: `shell`, `steps`, …
    pub verb: String,
    /// Where it stood.
    #[schema(value_type = schema::StepStatus)]
    pub status: StepStatus,
    /// Ids of the steps of the same graph that it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// The iteration of the loop that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iteration: Option<u32>,
    /// It is part of `finally`, or of the handler of the step above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// When it could start.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub ready_at: Option<Time>,
    /// When its first attempt, or its inside, started.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub ended_at: Option<Time>,
    /// Attempts that ended or whose start is recorded; the last 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptRecord>,
    /// Items, if it has a foreach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<ItemsRecord>,
    /// Its output, if it is small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Bytes of an output that is too big to be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// Its error, or why it did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
    /// The run it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::RunId>)]
    pub child: Option<RunId>,
    /// Until when it waits: a `wait`, a retry, `not_before`, a loop's delay.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub until: Option<Time>,
    /// The lock it asked for and did not get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// A signal, people or a breakpoint that it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// Names of the signals that it sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sent: Vec<String>,
    /// Who ended it by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Its failure does not fail its graph.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tolerated: bool,
    /// Inner steps, those of its handler last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(no_recursion)]
    pub children: Vec<StepRecord>,
    /// Iterations of a loop that are left out of `children`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u32,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the form that serde calls"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Which part of a workflow a step belongs to, if not the ordinary one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The workflow's `finally`.
    Finally,
    /// The handler of a failed step.
    Handler,
}

/// Items of a foreach.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ItemsRecord {
    /// All.
    pub count: u32,
    /// Succeeded.
    pub succeeded: u32,
    /// Failed or timed out.
    pub failed: u32,
    /// Ended otherwise.
    pub other: u32,
    /// The first 1,000, and those that failed up to 10,000; in order.
    #[schema(no_recursion)]
    pub shown: Vec<StepRecord>,
}

/// One try.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AttemptRecord {
    /// 1 for the first.
    pub attempt: u32,
    /// When it started.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub started_at: Time,
    /// When it ended.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub ended_at: Option<Time>,
    /// How.
    pub result: AttemptResult,
    /// Its error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
    /// What it used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Name of the worker that ran it; none for the one in the process of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
}

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttemptResult {
    /// It has not.
    Running,
    /// Well.
    Succeeded,
    /// With an error.
    Failed,
    /// Stopped as asked.
    Cancelled,
    /// Gone without a result.
    Lost,
}

impl StepRecord {
    /// This step and all inside it, items and inner steps, outer first.
    pub fn walk<'r>(&'r self, visit: &mut dyn FnMut(&'r StepRecord)) {
        visit(self);
        for item in self.items.iter().flat_map(|items| &items.shown) {
            item.walk(visit);
        }
        for child in &self.children {
            child.walk(visit);
        }
    }
}

impl Record {
    /// Every step and item kept, outer first.
    pub fn walk<'r>(&'r self, visit: &mut dyn FnMut(&'r StepRecord)) {
        for step in &self.steps {
            step.walk(visit);
        }
    }
}
