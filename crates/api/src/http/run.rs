//! Runs: made, listed, looked at.

use std::fmt;
use std::str::FromStr;

use kapell_expr::Value;
use kapell_model::{RunId, RunStatus, StepStatus, Time};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::{IntoParams, ToSchema};

use super::{Breakpoint, schema};
use crate::task::TaskError;

/// A run to make.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRun {
    /// Name of the workflow.
    pub workflow: String,
    /// Version; none is the active one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Parameters by name.
    #[serde(default)]
    pub params: Value,
    /// Parameters that are text are parsed by their types.
    #[serde(default)]
    pub text: bool,
    /// Who asks.
    #[serde(default)]
    pub by: String,
    /// 0 to 100; none takes the workflow's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// The same key makes the same run; with other parameters it is refused. The header
    /// `Idempotency-Key` says it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// What `run.scheduled_at` is; none is now. `run.interval` is the last one of the workflow's first
    /// schedule that was complete then.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub scheduled_at: Option<Time>,
}

/// A run was made.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Started {
    /// Its id.
    #[schema(value_type = schema::RunId)]
    pub run: RunId,
}

/// Which runs to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RunQuery {
    /// Of this workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// In one of these statuses, comma-separated; empty is all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Made by this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::RunId>)]
    #[param(value_type = Option<schema::RunId>, inline)]
    pub parent: Option<RunId>,
    /// Made at or after.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    #[param(value_type = Option<schema::Timestamp>, inline)]
    pub since: Option<Time>,
    /// Made before.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    #[param(value_type = Option<schema::Timestamp>, inline)]
    pub until: Option<Time>,
    /// Of this namespace; none is `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Made by a trigger of this kind or name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Made by the backfill with this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backfill: Option<String>,
    /// With all these labels, `name=value`, comma-separated; `\,` is a comma in a value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// With this text in the error, in capitals or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What comes after this place in the list: `next` of the page before, or the id of a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::RunCursor>)]
    #[param(value_type = Option<schema::RunCursor>, inline)]
    pub before: Option<RunCursor>,
    /// At most so many; 0 is 100.
    #[serde(default)]
    pub limit: usize,
}

/// One page of runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RunPage {
    /// Newest first.
    pub runs: Vec<RunSummary>,
    /// Give it as `before` for the next page. A search that finds little stops after a while: a page
    /// may have fewer than asked for, even none, and still a next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::RunCursor>)]
    pub next: Option<RunCursor>,
}

/// A place in a list of runs. It stays when its run is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunCursor {
    /// The run.
    pub run: RunId,
    /// When it was made; none looks for it.
    pub created_at: Option<Time>,
}

impl From<RunId> for RunCursor {
    fn from(run: RunId) -> Self {
        Self {
            run,
            created_at: None,
        }
    }
}

impl fmt::Display for RunCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.created_at {
            Some(Time(micros)) => write!(f, "{}.{micros}", self.run),
            None => self.run.fmt(f),
        }
    }
}

impl FromStr for RunCursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((run, micros)) = text.split_once('.') else {
            return text.parse::<RunId>().map(Self::from);
        };
        let micros = micros
            .parse()
            .map_err(|_| format!("`{text}` is no place in a list of runs"))?;
        Ok(Self {
            run: run.parse()?,
            created_at: Some(Time(micros)),
        })
    }
}

impl Serialize for RunCursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunCursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A run in a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RunSummary {
    /// Its id.
    #[schema(value_type = schema::RunId)]
    pub run: RunId,
    /// Name of the workflow.
    pub workflow: String,
    /// Version.
    pub version: u32,
    /// Where it stands.
    #[schema(value_type = schema::RunStatus)]
    pub status: RunStatus,
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
    /// The run whose step made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::RunId>)]
    pub parent: Option<RunId>,
    /// What made it: `manual`, `workflow`, `fork` and the kinds of triggers.
    pub trigger: String,
    /// Name of the trigger that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger_name: Option<String>,
    /// Id of the backfill that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backfill: Option<String>,
    /// Its due time, if that is not when it was made.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub scheduled_at: Option<Time>,
    /// Steps and items that ended well, that ended otherwise, and all that are known.
    pub counts: [u64; 3],
    /// Its first error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub labels: serde_json::Value,
    /// What the whole run waits for. In lists: why one that is queued has not started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
}

/// Where a run stands now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RunView {
    /// As in lists.
    #[serde(flatten)]
    pub summary: RunSummary,
    /// Parameters.
    pub params: serde_json::Value,
    /// Outputs, once it has succeeded.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub outputs: serde_json::Value,
    /// The step of the first error; empty for the run itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_step: Option<String>,
    /// The first error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<TaskError>,
    /// When it should have ended.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub deadline_at: Option<Time>,
    /// What is to be said of that: it was missed, probably will be, or cannot be worked out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<String>,
    /// Breakpoints that somebody set, beside those of the definition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breakpoints: Vec<Breakpoint>,
    /// Every step stops before it starts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stepping: bool,
    /// Its steps in order, inner ones after the step they are in.
    pub steps: Vec<StepView>,
}

/// A worker that runs an attempt of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepWorker {
    /// Its name.
    pub name: String,
    /// The attempt: 1 for the first.
    pub attempt: u32,
    /// Since when it has it, as far as the server knows.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub since: Time,
}

/// Where a step stands.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// Path in the run.
    pub path: String,
    /// The label of the item of a foreach that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// How deep it is inside other steps.
    pub depth: u32,
    /// Status.
    #[schema(value_type = schema::StepStatus)]
    pub status: StepStatus,
    /// Tries that have ended.
    pub attempts: u32,
    /// When it could start.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub ready_at: Option<Time>,
    /// When its last attempt started.
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
    /// Items of a foreach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<ItemCounts>,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// The worker in another process that runs it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<StepWorker>,
    /// Its error, or why it did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
    /// The run that it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::RunId>)]
    pub child: Option<RunId>,
    /// The lock that it asked for and did not get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// What it asks people, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalView>,
    /// What it shows at the breakpoint where it stopped, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<StoppedView>,
}

/// What a step asks people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalView {
    /// What they are asked.
    pub message: String,
    /// Users and groups that may answer; empty is everybody.
    pub by: Vec<String>,
    /// Whoever started the run, where they may not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_by: Option<String>,
    /// How many must say yes.
    pub count: u32,
    /// Who has.
    pub given: Vec<GivenView>,
    /// What they fill in.
    pub input: Vec<InputView>,
    /// When it is too late.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub until: Option<Time>,
    /// A no fails the step.
    pub reject_fails: bool,
}

/// A yes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GivenView {
    /// Who.
    pub by: String,
    /// When.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub at: Time,
    /// What they said with it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// Something that people fill in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InputView {
    /// Its name.
    pub name: String,
    /// Its type, as in definitions.
    #[serde(rename = "type")]
    pub ty: String,
    /// What it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// It must be given.
    pub required: bool,
    /// Its only values, if it has such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<serde_json::Value>>,
}

/// A step that stopped at a breakpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StoppedView {
    /// Where: `before`, `after` or `on_failure`.
    pub at: String,
    /// Which breakpoint it is, as it follows "a breakpoint".
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What it starts with, as expressions give it now.
    pub inputs: Vec<SettingView>,
    /// What it gives, if it has been tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<serde_json::Value>,
}

/// A setting of a step, evaluated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SettingView {
    /// Its key: `with`, `env.NAME`, `foreach.name`, `set.name`.
    pub name: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub value: serde_json::Value,
    /// Why it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Items of a foreach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ItemCounts {
    /// All.
    pub count: u32,
    /// Succeeded.
    pub succeeded: u32,
    /// Failed.
    pub failed: u32,
    /// Ended otherwise.
    pub other: u32,
    /// In flight.
    pub running: u32,
    /// Those that wait, by what for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<ItemsWaiting>,
}

/// Items of a foreach that wait for the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ItemsWaiting {
    /// `retry`, `lock`, `time`, `signal`, `people`, `worker`, `turn` (a bound of the foreach or of the
    /// run), `paused` or `run` (a run that it made and that waits itself).
    pub reason: String,
    /// How many.
    pub items: u32,
    /// There may be more of them: not all were looked at.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// What for, as it follows "wait for".
    pub waits_for: String,
    /// The lock, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// The run that it made, if that waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::RunId>)]
    pub child: Option<RunId>,
    /// When the first of them goes on by itself.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub next_at: Option<Time>,
}

/// Which step or item of a run to show.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StepQuery {
    /// Its path.
    pub path: String,
}

/// What a record is to hold.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RecordQuery {
    /// Up to when. None: up to now.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    #[param(value_type = Option<schema::Timestamp>, inline)]
    pub at: Option<Time>,
    /// The path of a step or item that is in the record with its output even where others like it are only
    /// counted: an item beyond the first 1,000, an iteration amid many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

impl RecordQuery {
    /// All that is known now, with this step or item.
    pub fn with(step: &str) -> Self {
        Self {
            step: Some(step.to_owned()),
            ..Self::default()
        }
    }

    /// All that was known then.
    pub fn at(at: Time) -> Self {
        Self {
            at: Some(at),
            ..Self::default()
        }
    }
}
