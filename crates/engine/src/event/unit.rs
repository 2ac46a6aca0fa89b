//! Facts about units, attempts and the graphs inside units.

use kapell_api::task::Usage;
use kapell_model::{Offer, StepStatus};
use prost::Message;

use super::{Stored, StoredError, UnitRef};

/// See [`super::Fact::UnitReady`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct UnitReady {
    /// The unit.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// When its total timeout ends it, relative; 0 is none.
    #[prost(int64, tag = "2")]
    pub total: i64,
    /// When its wait for a worker ends it, relative; 0 is none.
    #[prost(int64, tag = "3")]
    pub queue: i64,
    /// It may not start before, relative; 0 is at once.
    #[prost(int64, tag = "4")]
    pub not_before: i64,
    /// Its own priority plus one; 0 takes the run's.
    #[prost(uint32, tag = "5")]
    pub priority: u32,
    /// What its queue is shared between, if it says so.
    #[prost(string, optional, tag = "6")]
    pub fairness: Option<String>,
}

/// See [`super::Fact::AttemptStarted`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct AttemptStarted {
    /// The unit.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// The offer's epoch.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// The offer's counter.
    #[prost(uint64, tag = "3")]
    pub counter: u64,
    /// When, relative.
    #[prost(sint64, tag = "4")]
    pub started: i64,
    /// 1 for the first.
    #[prost(uint32, tag = "5")]
    pub attempt: u32,
}

impl AttemptStarted {
    /// The grant it speaks of.
    pub fn offer(&self) -> Offer {
        Offer {
            epoch: self.epoch,
            counter: self.counter,
        }
    }
}

/// See [`super::Fact::AttemptEnded`].
#[derive(Clone, PartialEq, Message)]
pub struct AttemptEnded {
    /// The unit.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// 1 for the first.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    /// When it started, relative.
    #[prost(sint64, tag = "3")]
    pub started: i64,
    /// When it ended, relative.
    #[prost(sint64, tag = "4")]
    pub ended: i64,
    /// Number of the [`AttemptResult`].
    #[prost(uint32, tag = "5")]
    pub result: u32,
    /// Its output, if it succeeded with one.
    #[prost(message, optional, tag = "6")]
    pub output: Option<Stored>,
    /// Its error, if it failed.
    #[prost(message, optional, boxed, tag = "7")]
    pub error: Option<Box<StoredError>>,
    /// Number of the [`Next`].
    #[prost(uint32, tag = "8")]
    pub next: u32,
    /// When the next try may start, relative.
    #[prost(int64, tag = "9")]
    pub retry: i64,
    /// CPU milliseconds used.
    #[prost(uint64, tag = "10")]
    pub cpu_millis: u64,
    /// Peak memory in bytes.
    #[prost(uint64, tag = "11")]
    pub memory_bytes: u64,
    /// Epoch of the offer, kept for losses, which count once each.
    #[prost(uint64, tag = "12")]
    pub epoch: u64,
    /// Counter of the offer, kept for losses.
    #[prost(uint64, tag = "13")]
    pub counter: u64,
    /// The loss says nothing of this step.
    #[prost(bool, tag = "14")]
    pub explained: bool,
    /// Its worker was one that can be taken away, and was.
    #[prost(bool, tag = "15")]
    pub preempted: bool,
    /// Name of the worker that ran it; empty for the one in the process of the node.
    #[prost(string, tag = "30")]
    pub worker: String,
}

impl AttemptEnded {
    /// What it used.
    pub fn usage(&self) -> Usage {
        Usage {
            cpu_millis: self.cpu_millis,
            memory_bytes: self.memory_bytes,
        }
    }
}

/// How an attempt ended. Numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// Well.
    Succeeded = 0,
    /// With an error.
    Failed = 1,
    /// Stopped as asked.
    Cancelled = 2,
    /// Gone.
    Lost = 3,
}

impl AttemptResult {
    /// The result of a stored number.
    pub fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Succeeded,
            2 => Self::Cancelled,
            3 => Self::Lost,
            _ => Self::Failed,
        }
    }
}

/// What comes after an attempt. Numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The unit has ended well.
    Succeeded = 0,
    /// Another try.
    Retry = 1,
    /// The unit's end follows in an event of its own.
    End = 2,
}

/// See [`super::Fact::UnitEnded`].
#[derive(Clone, PartialEq, Message)]
pub struct UnitEnded {
    /// The unit.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// Number of its [`StepStatus`].
    #[prost(uint32, tag = "2")]
    pub status: u32,
    /// Its output.
    #[prost(message, optional, tag = "3")]
    pub output: Option<Stored>,
    /// Its error, or why it did not run.
    #[prost(message, optional, tag = "4")]
    pub error: Option<StoredError>,
    /// Dependants go on as after success although it was skipped.
    #[prost(bool, tag = "5")]
    pub as_success: bool,
    /// Who ended it by hand.
    #[prost(string, tag = "6")]
    pub by: String,
    /// Its failure does not fail its graph.
    #[prost(bool, tag = "7")]
    pub tolerated: bool,
}

impl UnitEnded {
    /// The status it names.
    pub fn step_status(&self) -> StepStatus {
        u8::try_from(self.status)
            .ok()
            .and_then(StepStatus::from_number)
            .unwrap_or(StepStatus::Failed)
    }
}

/// See [`super::Fact::ForeachExpanded`].
#[derive(Clone, PartialEq, Message)]
pub struct ForeachExpanded {
    /// The step.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// How many items.
    #[prost(uint32, tag = "2")]
    pub count: u32,
    /// The lists of its variables, in their order.
    #[prost(message, repeated, tag = "3")]
    pub lists: Vec<Stored>,
    /// Items in flight at once; 0 is no bound.
    #[prost(uint32, tag = "4")]
    pub concurrency: u32,
    /// How many must succeed.
    #[prost(uint32, tag = "5")]
    pub min_success: u32,
    /// When its total timeout ends it, relative; 0 is none.
    #[prost(int64, tag = "6")]
    pub total: i64,
    /// Its own priority plus one; 0 takes the run's.
    #[prost(uint32, tag = "7")]
    pub priority: u32,
    /// What its queue is shared between, where all items have one key.
    #[prost(string, optional, tag = "8")]
    pub fairness: Option<String>,
    /// Its items start one by one, also where neither verb nor locks ask for it.
    #[prost(bool, tag = "9")]
    pub opens: bool,
}

/// What a scope is an instance of. Numbers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ScopeKind {
    /// The workflow's steps.
    #[default]
    Root = 0,
    /// A group, or the branch of a switch that was taken.
    Body = 1,
    /// An iteration of a loop.
    Iteration = 2,
    /// The handler of a failed step.
    Handler = 3,
    /// The workflow's `finally`.
    Finally = 4,
}

impl ScopeKind {
    /// The kind of a stored number.
    pub fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Body,
            2 => Self::Iteration,
            3 => Self::Handler,
            4 => Self::Finally,
            _ => Self::Root,
        }
    }
}

/// See [`super::Fact::ScopeOpened`].
#[derive(Clone, PartialEq, Message)]
pub struct ScopeOpened {
    /// Its number, one above the last.
    #[prost(uint32, tag = "1")]
    pub scope: u32,
    /// The unit it is inside; none for root and finally.
    #[prost(message, optional, tag = "2")]
    pub unit: Option<UnitRef>,
    /// Number of the [`ScopeKind`].
    #[prost(uint32, tag = "3")]
    pub kind: u32,
    /// Number of the graph in the plan.
    #[prost(uint32, tag = "4")]
    pub graph: u32,
    /// From 0, of a loop.
    #[prost(uint32, tag = "5")]
    pub iteration: u32,
    /// Variables of a loop, a map.
    #[prost(message, optional, tag = "6")]
    pub vars: Option<Stored>,
    /// When the unit's total timeout ends it, relative; 0 is none or as set before.
    #[prost(int64, tag = "7")]
    pub total: i64,
}

/// See [`super::Fact::WaitStarted`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct WaitStarted {
    /// The unit.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// Until, relative.
    #[prost(int64, tag = "2")]
    pub until: i64,
}

/// See [`super::Fact::ChildStarted`].
#[derive(Clone, PartialEq, Message)]
pub struct ChildStarted {
    /// The unit.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// The child's id.
    #[prost(bytes = "vec", tag = "2")]
    pub run: Vec<u8>,
    /// When the unit's total timeout ends it, relative; 0 is none.
    #[prost(int64, tag = "3")]
    pub total: i64,
}

/// See [`super::Fact::LockRequested`].
#[derive(Clone, PartialEq, Message)]
pub struct LockRequested {
    /// The unit.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// The name it asks for.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Which of its locks in name order, from 0.
    #[prost(uint32, tag = "3")]
    pub index: u32,
}

/// See [`super::Fact::HandlingStarted`].
#[derive(Clone, PartialEq, Message)]
pub struct HandlingStarted {
    /// The unit.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// Number of the [`StepStatus`] it will end with.
    #[prost(uint32, tag = "2")]
    pub status: u32,
    /// Its error.
    #[prost(message, optional, tag = "3")]
    pub error: Option<StoredError>,
}

/// See [`super::Fact::UnitStopping`].
#[derive(Clone, PartialEq, Message)]
pub struct UnitStopping {
    /// The unit.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// Number of the [`StepStatus`] it will end with.
    #[prost(uint32, tag = "2")]
    pub status: u32,
    /// Why.
    #[prost(message, optional, tag = "3")]
    pub error: Option<StoredError>,
    /// When a silent attempt is given up, relative; 0 is never.
    #[prost(int64, tag = "4")]
    pub give_up: i64,
}

/// See [`super::Fact::ItemsEnded`].
#[derive(Clone, PartialEq, Message)]
pub struct ItemsEnded {
    /// The step.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// The first.
    #[prost(uint32, tag = "2")]
    pub from: u32,
    /// One after the last.
    #[prost(uint32, tag = "3")]
    pub to: u32,
    /// Number of their [`StepStatus`].
    #[prost(uint32, tag = "4")]
    pub status: u32,
}

/// See [`super::Fact::ForeachStopped`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ForeachStopped {
    /// The step.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// `stop_when` held: the step succeeds.
    #[prost(bool, tag = "2")]
    pub enough: bool,
    /// The first item that was never granted: those before it have begun, or may have.
    #[prost(uint32, tag = "3")]
    pub granted: u32,
}

/// See [`super::Fact::PageClosed`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct PageClosed {
    /// The step.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// The page of the foreach.
    #[prost(uint32, tag = "2")]
    pub page: u32,
    /// Its number in the run's stored pages.
    #[prost(uint32, tag = "3")]
    pub number: u32,
}

/// See [`super::Fact::LoopWaiting`].
#[derive(Clone, PartialEq, Message)]
pub struct LoopWaiting {
    /// The unit.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// Until, relative.
    #[prost(int64, tag = "2")]
    pub until: i64,
    /// The iteration that follows.
    #[prost(uint32, tag = "3")]
    pub iteration: u32,
    /// Its variables, a map.
    #[prost(message, optional, tag = "4")]
    pub vars: Option<Stored>,
}

/// See [`super::Fact::UnitRetrying`].
#[derive(Clone, PartialEq, Message)]
pub struct UnitRetrying {
    /// The unit.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// When it starts again, relative.
    #[prost(int64, tag = "2")]
    pub retry: i64,
    /// Why it failed.
    #[prost(message, optional, tag = "3")]
    pub error: Option<StoredError>,
}
