//! What entities tell each other.

use std::sync::Arc;

use kapell_api::task::Place;
use kapell_expr::Value;
use kapell_model::{RunId, RunStatus};

use crate::run::state::ParentUnit;

/// A message from one entity to another. Applied exactly once, in order for each pair.
#[derive(Clone, Debug)]
pub enum Message {
    /// To a run that does not exist yet: be made. The node finds the version and binds parameters.
    StartChild(Box<StartChild>),
    /// To a run: a child has ended.
    ChildEnded {
        /// The unit that made it.
        place: Place,
        /// The child.
        run: RunId,
        /// How it ended.
        status: RunStatus,
        /// Its outputs.
        outputs: Value,
        /// Its error.
        error: String,
    },
    /// To a run: end, your parent does.
    CancelChild {
        /// Why.
        reason: String,
        /// Without `finally`.
        now: bool,
    },
    /// To a run: do again what did not succeed.
    RetryChild,
    /// To a run: your parent is paused, or goes on.
    PauseChild {
        /// Paused, or going on.
        paused: bool,
    },
    /// To a lock: a unit asks for it.
    Acquire {
        /// The run.
        run: RunId,
        /// Its unit.
        place: Place,
        /// How many hold it at once, or how many a period.
        max: u32,
        /// A rate's period in microseconds; 0 is a lock.
        period: i64,
    },
    /// To a lock: a unit gives it back, or takes its request back.
    Release {
        /// The run.
        run: RunId,
        /// Its unit.
        place: Place,
    },
    /// To a run: a lock is granted to its unit.
    LockGranted {
        /// The unit.
        place: Place,
        /// The lock's name.
        name: Arc<str>,
    },
    /// To a run queue: a run wants to start.
    Enqueue(Box<crate::run_queue::Entry>),
    /// To a run queue: a run has ended.
    RunEnded {
        /// The run.
        run: RunId,
        /// How.
        status: RunStatus,
        /// A person ended it.
        by_person: bool,
        /// It succeeded, and its workflow asks for `run.last_success`.
        success: Option<Box<crate::run_queue::Success>>,
    },
    /// To a run queue: an ended run wants to start again.
    Reenter(Box<crate::run_queue::Entry>),
    /// To a run: your queue lets you start.
    Admitted {
        /// `run.last_success`.
        last_success: Value,
    },
    /// To a run: your queue drops you.
    Discarded {
        /// Why.
        reason: String,
    },
    /// To a run: a newer one takes your place.
    Superseded {
        /// By which.
        by: RunId,
    },
}

/// What a child is made of.
#[derive(Clone, Debug)]
pub struct StartChild {
    /// Its id.
    pub id: RunId,
    /// Namespace of the workflow.
    pub namespace: Arc<str>,
    /// Name of the workflow.
    pub workflow: Arc<str>,
    /// Version; none is the active one.
    pub version: Option<u32>,
    /// Parameters as given.
    pub params: Value,
    /// The unit that makes it.
    pub parent: ParentUnit,
    /// How many runs are above it.
    pub depth: u32,
    /// 0 to 100.
    pub priority: u8,
    /// Its due time, in microseconds since 1970.
    pub scheduled_at: i64,
    /// IANA name.
    pub timezone: Arc<str>,
    /// Queues that runs above it hold places in.
    pub held_queues: Vec<(Arc<str>, Arc<str>, Arc<str>)>,
}
