//! Bodies of requests and answers under `/api/v1`, and the problem body of failures (RFC 9457).

use std::collections::BTreeMap;

use kapell_expr::{BlobRef, Value};
use kapell_model::{Error, ErrorCode, RunId, RunStatus, StepStatus, Time};
use serde::{Deserialize, Serialize};

use crate::log::Line;
use crate::task::TaskError;

/// Where everything is.
pub const BASE: &str = "/api/v1";

/// The socket in a data directory.
pub const SOCKET: &str = "kapell.sock";

/// Bytes of the body of one request, but for blobs.
pub const REQUEST_BYTES: usize = 64 << 20;

/// Bytes of one answer that a client takes.
pub const ANSWER_BYTES: usize = 256 << 20;

/// A failure, as RFC 9457 has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// Where its page is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The meaning of its code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What failed.
    pub detail: String,
    /// Its stable code.
    pub code: ErrorCode,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self {
            kind: format!("/docs/errors/{}", error.code),
            title: error.code.meaning().trim().to_owned(),
            status: error.code.http_status(),
            detail: error.message,
            code: error.code,
            hint: error.hint,
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self {
            code: problem.code,
            message: problem.detail,
            hint: problem.hint,
        }
    }
}

/// Who answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Health {
    /// Version of Kapell.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// True if it starts work; false if it only looks and records.
    pub working: bool,
}

/// A workflow to register.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RegisterWorkflow {
    /// Name of the file, for messages.
    pub file: String,
    /// The file as its author wrote it.
    pub source: String,
    /// The bundle's list of files, stored before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BlobRef>,
}

/// A workflow that is registered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Registered {
    /// Its name.
    pub workflow: String,
    /// The version that this content has.
    pub version: u32,
}

/// One page of workflows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WorkflowPage {
    /// By name.
    pub workflows: Vec<WorkflowSummary>,
    /// Give it as `after` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A workflow in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkflowSummary {
    /// Its name.
    pub name: String,
    /// The version that new runs take.
    pub version: u32,
    /// Runs by status.
    pub runs: BTreeMap<RunStatusName, u64>,
}

/// A run's status as a key.
pub type RunStatusName = String;

/// A registered version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Version {
    /// Name of the workflow.
    pub workflow: String,
    /// 1 for the first.
    pub version: u32,
    /// Hash of the normalised definition and the bundle.
    pub hash: String,
    /// When it was registered.
    #[serde(with = "crate::stamp")]
    pub created_at: Time,
    /// The file as its author wrote it; left out in lists.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
}

/// One page of versions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VersionPage {
    /// Newest first.
    pub versions: Vec<Version>,
    /// Give it as `before` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
}

/// A run to make.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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
    /// The same key makes the same run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// A run was made.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Started {
    /// Its id.
    pub run: RunId,
}

/// Which runs to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunQuery {
    /// Of this workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// In one of these statuses, comma-separated; empty is all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Made by this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<RunId>,
    /// Made at or after.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub since: Option<Time>,
    /// Older than this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<RunId>,
    /// At most so many; 0 is 100.
    #[serde(default)]
    pub limit: usize,
}

/// One page of runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunPage {
    /// Newest first.
    pub runs: Vec<RunSummary>,
    /// Give it as `before` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<RunId>,
}

/// A run in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunSummary {
    /// Its id.
    pub run: RunId,
    /// Name of the workflow.
    pub workflow: String,
    /// Version.
    pub version: u32,
    /// Where it stands.
    pub status: RunStatus,
    /// When it was made.
    #[serde(with = "crate::stamp")]
    pub created_at: Time,
    /// When its steps could start.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub ended_at: Option<Time>,
    /// The run whose step made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<RunId>,
    /// What made it.
    pub trigger: String,
    /// Steps and items that ended well, that ended otherwise, and all that are known.
    pub counts: [u64; 3],
    /// Its first error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub labels: serde_json::Value,
}

/// Where a run stands now.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// What the whole run waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// Its steps in order, inner ones after the step they are in.
    pub steps: Vec<StepView>,
}

/// Where a step stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepView {
    /// Path in the run.
    pub path: String,
    /// How deep it is inside other steps.
    pub depth: u32,
    /// Status.
    pub status: StepStatus,
    /// Tries that have ended.
    pub attempts: u32,
    /// When it could start.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub ready_at: Option<Time>,
    /// When its last attempt started.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub ended_at: Option<Time>,
    /// Items of a foreach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<ItemCounts>,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// Its error, or why it did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
    /// The run that it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<RunId>,
}

/// Items of a foreach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// Up to when a record is wanted.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct RecordQuery {
    /// None: up to now.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub at: Option<Time>,
}

/// Something to do to a run. The verb is the last part of the address, the rest is the body.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
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
        /// Path of the step or item.
        step: String,
    },
    /// Give a step an output.
    SetOutput {
        /// Who.
        #[serde(default)]
        by: String,
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
    },
    /// Free the strict run queue that it blocks.
    Dismiss,
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
            Self::Dismiss => "dismiss",
        }
    }
}

/// Which log lines to read, and from where on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LogQuery {
    /// Path of a step: its lines, its items' and those of its inner steps. None: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// One attempt; none is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Where the page before ended.
    #[serde(default)]
    pub cursor: LogCursor,
    /// At most so many lines; 0 is 10,000.
    #[serde(default)]
    pub limit: usize,
}

/// How far each file of a log has been read. Opaque to clients.
pub type LogCursor = BTreeMap<String, u64>;

/// Some lines of the logs of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LogPage {
    /// In order of time.
    pub lines: Vec<LogLine>,
    /// For the next page.
    pub cursor: LogCursor,
    /// More lines are there already.
    pub more: bool,
    /// Attempts whose logs are left out: name a step to see them.
    pub left_out: usize,
}

/// A line of a log and whose it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogLine {
    /// Path of the step or item.
    pub path: String,
    /// The attempt.
    pub attempt: u32,
    /// The line.
    #[serde(flatten)]
    pub line: Line,
}
