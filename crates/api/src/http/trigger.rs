//! What starts runs of workflows by itself.

use kapell_model::{RunId, Time};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::schema;

/// Which triggers to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TriggerQuery {
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

/// One page of triggers.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct TriggerPage {
    /// By workflow and name.
    pub triggers: Vec<TriggerView>,
    /// Give it as `after` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A trigger of the active version of a workflow, and what it has done.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct TriggerView {
    /// Name of the workflow.
    #[serde(default)]
    pub workflow: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// `schedule`, `signal` or `webhook`.
    pub kind: String,
    /// What it waits for.
    pub on: TriggerOn,
    /// IANA name of its time zone.
    pub timezone: String,
    /// The version that its runs take.
    pub version: u32,
    /// Goes up when its times, or what it listens to, change.
    pub generation: u32,
    /// Goes up with each new address of a webhook.
    #[serde(default)]
    pub address: u32,
    /// Who paused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_by: Option<String>,
    /// Its workflow is paused.
    #[serde(default)]
    pub workflow_paused: bool,
    /// When it starts a run next.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub next_at: Option<Time>,
    /// It makes up for due times that were missed.
    #[serde(default)]
    pub catching_up: bool,
    /// The last run that it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<TriggerRun>,
    /// Runs that it started.
    pub started: u64,
    /// Due times that were missed and are not made up for, and signals that came during a pause.
    pub missed: u64,
    /// Starts that its `when` refused.
    pub declined: u64,
    /// Starts that could not be made.
    pub refused: u64,
    /// Signals and calls that were the same as others before.
    #[serde(default)]
    pub duplicates: u64,
    /// Starts that wait for room in the run queue of the workflow, in order; the first is tried again at
    /// `next_at`.
    #[serde(default)]
    pub waiting_starts: u64,
    /// Signals that wait for others to be joined with.
    #[serde(default)]
    pub waiting_signals: u64,
    /// They, in the order in which they came; at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitingSignal>,
    /// The last thing that went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<TriggerProblem>,
}

/// A signal that waits for others to be joined with.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WaitingSignal {
    /// The alias of the source that took it.
    #[serde(default)]
    pub source: String,
    /// Its name.
    pub signal: String,
    /// Its id.
    pub id: String,
    /// What it is joined by.
    #[serde(default)]
    pub key: serde_json::Value,
    /// When it was sent.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub sent_at: Time,
}

/// What a trigger waits for: one of these.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct TriggerOn {
    /// Times, as a cron expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// Times, by the span between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// Names of signals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signals: Option<Vec<String>>,
    /// The last part of the address of a webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// A run that a trigger started.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TriggerRun {
    /// The run.
    #[schema(value_type = schema::RunId)]
    pub run: RunId,
    /// What it stands for.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub scheduled_at: Time,
    /// When it was made.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub started_at: Time,
    /// Milliseconds after its due time, if it is for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_ms: Option<i64>,
}

/// What went wrong in a trigger.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TriggerProblem {
    /// What, for people.
    pub message: String,
    /// The run that could not be made, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::RunId>)]
    pub run: Option<RunId>,
    /// When.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub at: Option<Time>,
}

/// A person pauses a trigger, or lets it go on.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ByPerson {
    /// Who.
    #[serde(default)]
    pub by: String,
}

/// Where a webhook is called.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HookView {
    /// The path of its address on a server: nobody can guess it.
    pub path: String,
    /// Calls must be signed with the trigger's secret.
    pub signed: bool,
}

/// What became of a call of a webhook.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HookTaken {
    /// Id of the signal that the call stands for. The same call again gives the same id, and starts
    /// nothing more.
    pub id: String,
    /// What became of it.
    #[serde(default)]
    pub outcome: HookOutcome,
    /// The run that it started, or that the same call started before; none if the trigger's `when` refused
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::RunId>)]
    pub run: Option<RunId>,
}

/// What became of a call of a webhook that was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HookOutcome {
    /// It started a run.
    #[default]
    Started,
    /// The same call was taken before.
    Duplicate,
    /// The trigger's `when` refused it.
    Declined,
}
