//! Workers: the one inside the server, and those of other processes.

use std::collections::BTreeMap;

use kapell_model::{RunId, Time};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::schema;
use crate::task::TaskResources;

/// A worker.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a field of the answer by itself"
)]
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WorkerView {
    /// Its session.
    pub session: String,
    /// What its owner calls it.
    pub name: String,
    /// The node that it is connected to.
    #[serde(default)]
    pub node: String,
    /// The pool that it is one of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Its version of Kapell.
    pub version: String,
    /// What its owner says of it.
    pub labels: BTreeMap<String, String>,
    /// The queues that it serves; none is every queue that no worker names.
    pub queues: Vec<String>,
    /// What it has to give.
    pub capacity: TaskResources,
    /// Attempts at a time.
    pub slots: u32,
    /// Slots that no attempt has.
    #[serde(default)]
    pub free_slots: u32,
    /// What of its capacity no attempt asked for.
    #[serde(default)]
    pub free: TaskResources,
    /// What of it was idle over its last hour, or since it came to its node; none in its first second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waste: Option<WorkerWaste>,
    /// Verbs that it can do.
    pub runtimes: Vec<String>,
    /// True if it can be taken away at any time: it gets only steps that allow it.
    #[serde(default)]
    pub spot: bool,
    /// When its session began.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub opened_at: Time,
    /// True for the one inside the server's process.
    #[serde(default)]
    pub inside: bool,
    /// False while it is away; within its lease it may come again.
    pub connected: bool,
    /// True if it takes nothing more.
    pub draining: bool,
    /// What it has: the oldest 100, of many workers fewer each.
    pub attempts: Vec<WorkerAttempt>,
    /// How many it has.
    pub count: usize,
}

/// An attempt that a worker has.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WorkerAttempt {
    /// The run.
    #[schema(value_type = schema::RunId)]
    pub run: RunId,
    /// Its workflow.
    pub workflow: String,
    /// Path of the step.
    pub step: String,
    /// From 1.
    pub attempt: u32,
    /// The queue it waited in.
    pub queue: String,
    /// When it was handed out.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub granted_at: Time,
}

/// What a worker had and nobody took. Shares are from 0 to 1, of what its node saw of it once a second.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WorkerWaste {
    /// Of how long this is, in milliseconds: an hour at most.
    pub over_ms: u64,
    /// The share of its slots that no attempt had.
    pub slots: f64,
    /// The share of its cores that no attempt asked for; none if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// The share of its memory that no attempt asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<f64>,
    /// The share of its devices that no attempt asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<f64>,
    /// Attempts that ended and whose use was measured asked for so much: cores by milliseconds.
    pub cpu_asked_ms: u64,
    /// And used so much of it.
    pub cpu_used_ms: u64,
}

/// Workers of all nodes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct WorkerList {
    /// By name; at most 10,000.
    pub workers: Vec<WorkerView>,
    /// Nodes that did not answer: what is at them is not listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unanswered: Vec<String>,
}

/// Which workers are listed.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct WorkerQuery {
    /// Those that serve this queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Those of this pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Those at this node, by its id or the beginning of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Those that run nothing.
    #[serde(default)]
    pub idle: bool,
}

/// How a worker is to go.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainWorker {
    /// How long what it runs may take to end, in milliseconds; the rest is done elsewhere.
    #[serde(default)]
    pub grace_ms: u64,
}
