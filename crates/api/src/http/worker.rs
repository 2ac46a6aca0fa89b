//! Workers: the one inside the server, and those of other processes.

use std::collections::BTreeMap;

use kapell_model::{RunId, Time};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
    /// What it has: the oldest 100.
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

/// All workers.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct WorkerList {
    /// By name; at most 1,000.
    pub workers: Vec<WorkerView>,
}

/// How a worker is to go.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainWorker {
    /// How long what it runs may take to end, in milliseconds; the rest is done elsewhere.
    #[serde(default)]
    pub grace_ms: u64,
}
