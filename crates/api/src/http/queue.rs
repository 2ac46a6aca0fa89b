//! Queues, in which tasks wait for workers.

use std::collections::BTreeMap;

use kapell_model::Time;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::schema;
use crate::task::TaskResources;

/// A queue, over all nodes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct TaskQueue {
    /// Its name.
    pub name: String,
    /// Attempts that are to be done now: those that could start, and those in flight. By what one worker takes at
    /// a time it is how many workers are needed.
    pub attempts: u64,
    /// Attempts that could start now if workers had room: no bound of their step or run, no quota, no quiet hours
    /// hold them back.
    pub startable: u64,
    /// Attempts with a process or request that workers have.
    pub in_flight: u64,
    /// Attempts that wait, also those that a bound holds back, and those that a worker was given and has not
    /// started.
    pub waiting: u64,
    /// Since when the first of them could start.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub oldest_at: Option<Time>,
    /// How long that is.
    pub oldest_wait_ms: u64,
    /// Workers that serve it and take work.
    pub workers: u64,
    /// Their slots.
    pub slots: u64,
    /// Those that no attempt has.
    pub free_slots: u64,
    /// What all that could start asks for together.
    pub demand: TaskResources,
    /// The same by what attempts ask for, at most 51; the last may be of those that are not told apart.
    pub needs: Vec<TaskNeed>,
}

/// Attempts that ask the same of their worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct TaskNeed {
    /// How many.
    pub attempts: u64,
    /// What each of them takes.
    pub each: TaskResources,
    /// What the worker must be labelled with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// It may be one that can be taken away.
    #[serde(default)]
    pub spot: bool,
    /// They start nothing, and take no slot.
    #[serde(default)]
    pub light: bool,
    /// Some of what they ask for is known only once they are granted, and counts as nothing here.
    #[serde(default)]
    pub open: bool,
}

/// Workers of one pool, over all nodes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct WorkerPool {
    /// Its name.
    pub name: String,
    /// Queues that some of them serve; none is every queue that no worker names.
    pub queues: Vec<String>,
    /// Workers that take work.
    pub workers: u64,
    /// Those that take nothing more.
    pub draining: u64,
    /// Those that are not heard of.
    pub away: u64,
    /// Slots of those that take work.
    pub slots: u64,
    /// Those that no attempt has.
    pub free_slots: u64,
    /// Attempts that all of them have.
    pub attempts: u64,
}

/// Queues with work or workers.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct TaskQueueList {
    /// By name.
    pub queues: Vec<TaskQueue>,
    /// Pools of which some worker is there, by name.
    pub pools: Vec<WorkerPool>,
    /// Nodes that did not answer: what is theirs is not counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unanswered: Vec<String>,
}
