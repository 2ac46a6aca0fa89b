//! What a run was made with, and when it should have ended.

use std::sync::Arc;

use jiff::SignedDuration;
use kapell_api::task::Place;
use kapell_expr::{BlobRef, Value};
use kapell_model::spec::StepIndex;
use kapell_model::{RunId, StepStatus, Time};
use serde::{Deserialize, Serialize};

use crate::message::StartClass;
use crate::run_queue::pace::Pace;

/// When a run should have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// Then.
    pub at: Time,
    /// When it will be known that it probably misses it.
    pub risk_at: Option<Time>,
    /// What half of the last successes took at most, in microseconds; 0 is unknown.
    pub usual: i64,
    /// What nine in ten of them took at most.
    pub slow: i64,
    /// It was said that it probably misses it.
    pub at_risk: bool,
    /// It was said that it has missed it.
    pub missed: bool,
}

impl Deadline {
    /// How long such runs take, if that is known.
    pub fn pace(&self) -> Option<Pace> {
        (self.slow > 0).then(|| Pace {
            usual: SignedDuration::from_micros(self.usual),
            slow: SignedDuration::from_micros(self.slow),
        })
    }
}

/// What a run was made with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Meta {
    /// Its id.
    pub id: RunId,
    /// Namespace of the workflow.
    pub namespace: Arc<str>,
    /// Name of the workflow.
    pub workflow: Arc<str>,
    /// Version.
    pub version: u32,
    /// Bound parameters, a map.
    pub params: Value,
    /// What made it.
    pub trigger: Arc<str>,
    /// Who asked for it.
    pub by: Arc<str>,
    /// Who asked for the run above all those that led to it; empty is `by`.
    pub root_by: Arc<str>,
    /// When it was made.
    pub created_at: Time,
    /// Its due time.
    pub scheduled_at: Time,
    /// IANA name.
    pub timezone: Arc<str>,
    /// The unit that made it.
    pub parent: Option<ParentUnit>,
    /// How many runs are above it.
    pub depth: u32,
    /// Labels, a map of text.
    pub labels: Value,
    /// 0 to 100.
    pub priority: u8,
    /// The run queue it holds or waits for a place in.
    pub queue: Option<(Arc<str>, Arc<str>, Arc<str>)>,
    /// Queues that runs above it hold places in.
    pub held_queues: Vec<(Arc<str>, Arc<str>, Arc<str>)>,
    /// The run it was forked from.
    pub forked_from: Option<RunId>,
    /// Steps kept by a fork, until its first graph opens.
    pub kept: Vec<Kept>,
    /// The files that go with the version.
    pub bundle: Option<BlobRef>,
    /// The last success of the same workflow and key when it started, a map.
    pub last_success: Value,
    /// `run.trigger.name`.
    pub trigger_name: Arc<str>,
    /// `run.interval`.
    pub interval: (Time, Time),
    /// How many runs, each started by a signal of the one before, led to it.
    pub hops: u32,
    /// How its run queue takes it.
    pub class: StartClass,
    /// The backfill that is told how it ends.
    pub backfill: Option<Arc<str>>,
}

impl Meta {
    /// Who is behind it: whoever asked for it, or for the run above all those that led to it.
    pub fn person(&self) -> &Arc<str> {
        if self.root_by.is_empty() {
            &self.by
        } else {
            &self.root_by
        }
    }
}

/// A step kept by a fork.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Which.
    pub step: StepIndex,
    /// How it had ended.
    pub status: StepStatus,
    /// Its output.
    pub output: Value,
    /// What its items had come to, if it is a foreach.
    pub items: Option<Box<KeptItems>>,
}

/// What the items of a foreach kept by a fork had come to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptItems {
    /// Items that did not succeed, ascending: of each stretch the first, and the one after the last.
    pub others: Vec<(u32, u32)>,
    /// A list of index, label and error of each item that failed.
    pub failures: Value,
}

/// The unit that made a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentUnit {
    /// Its run.
    pub run: RunId,
    /// Its place.
    pub place: Place,
    /// It waits for the end.
    pub waits: bool,
}
