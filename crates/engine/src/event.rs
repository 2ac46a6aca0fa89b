//! Facts, as history keeps them.
//!
//! An [`Event`] holds every choice that was made, so that applying it only counts. Tags are stored:
//! they are never reused, and a field keeps its meaning for ever. Times inside an event are
//! microseconds relative to the event's own `at`, which keeps them short.

use kapell_api::task::{Place, TaskError, Usage};
use kapell_expr::{BlobRef, Value};
use kapell_model::{FailureKind, Offer, RunId, StepStatus, Time};
use prost::Message;

/// One fact about a run.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// When it became true, microseconds since 1970.
    #[prost(int64, tag = "1")]
    pub at: i64,
    /// What became true.
    #[prost(
        oneof = "Fact",
        tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29"
    )]
    pub fact: Option<Fact>,
}

/// What became true of a run.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Fact {
    /// The run exists.
    #[prost(message, tag = "2")]
    RunCreated(Box<RunCreated>),
    /// Its steps may start.
    #[prost(message, tag = "3")]
    RunStarted(RunStarted),
    /// A unit (a step, or an item) may start: it waits for a worker, a lock or a time.
    #[prost(message, tag = "4")]
    UnitReady(UnitReady),
    /// An attempt runs.
    #[prost(message, tag = "5")]
    AttemptStarted(AttemptStarted),
    /// An attempt is over, and what comes next.
    #[prost(message, tag = "6")]
    AttemptEnded(AttemptEnded),
    /// A unit has ended.
    #[prost(message, tag = "7")]
    UnitEnded(UnitEnded),
    /// The items of a foreach are known.
    #[prost(message, tag = "8")]
    ForeachExpanded(ForeachExpanded),
    /// A graph was opened inside a unit.
    #[prost(message, tag = "9")]
    ScopeOpened(ScopeOpened),
    /// A unit waits until a time.
    #[prost(message, tag = "10")]
    WaitStarted(WaitStarted),
    /// A unit's child run was made.
    #[prost(message, tag = "11")]
    ChildStarted(ChildStarted),
    /// A unit asked for its next lock.
    #[prost(message, tag = "12")]
    LockRequested(LockRequested),
    /// A unit holds the lock it asked for.
    #[prost(message, tag = "13")]
    LockGranted(UnitRef),
    /// A failed unit runs its handler before it ends.
    #[prost(message, tag = "14")]
    HandlingStarted(HandlingStarted),
    /// A unit is being stopped and will end so.
    #[prost(message, tag = "15")]
    UnitStopping(UnitStopping),
    /// Items that never started have ended, all alike.
    #[prost(message, tag = "16")]
    ItemsEnded(ItemsEnded),
    /// Nothing more starts in a scope.
    #[prost(message, tag = "17")]
    ScopeStopped(ScopeRef),
    /// Somebody or something asked the run to end.
    #[prost(message, tag = "18")]
    CancelRequested(CancelRequested),
    /// Nothing more starts until it is resumed.
    #[prost(message, tag = "19")]
    RunPaused(ByPerson),
    /// It goes on.
    #[prost(message, tag = "20")]
    RunResumed(ByPerson),
    /// An ended run starts again, with these units to be done again.
    #[prost(message, tag = "21")]
    RunReopened(RunReopened),
    /// The steps are over; `finally` may run.
    #[prost(message, tag = "22")]
    StepsEnded(StepsEnded),
    /// The run is over.
    #[prost(message, tag = "23")]
    RunEnded(RunEnded),
    /// A page of items has ended and left memory.
    #[prost(message, tag = "24")]
    PageClosed(PageClosed),
    /// The run's priority is another.
    #[prost(message, tag = "25")]
    PriorityChanged(PriorityChanged),
    /// A loop waits before its next iteration.
    #[prost(message, tag = "26")]
    LoopWaiting(LoopWaiting),
    /// A unit failed as a whole and is done again after a time.
    #[prost(message, tag = "27")]
    UnitRetrying(UnitRetrying),
    /// A foreach grants no more items.
    #[prost(message, tag = "28")]
    ForeachStopped(ForeachStopped),
    /// The run will never start.
    #[prost(message, tag = "29")]
    RunDiscarded(RunDiscarded),
}

/// A step in a scope, or one item of it.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct UnitRef {
    /// The scope.
    #[prost(uint32, tag = "1")]
    pub scope: u32,
    /// The step in its graph.
    #[prost(uint32, tag = "2")]
    pub step: u32,
    /// The item's index plus one; 0 is the step itself.
    #[prost(uint32, tag = "3")]
    pub item: u32,
}

impl From<Place> for UnitRef {
    fn from(place: Place) -> Self {
        Self { scope: place.scope, step: u32::from(place.step), item: place.item.wrapping_add(1) }
    }
}

impl From<UnitRef> for Place {
    fn from(unit: UnitRef) -> Self {
        Self {
            scope: unit.scope,
            step: u16::try_from(unit.step).unwrap_or(u16::MAX),
            item: unit.item.wrapping_sub(1),
        }
    }
}

/// A scope.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ScopeRef {
    /// The scope.
    #[prost(uint32, tag = "1")]
    pub scope: u32,
}

/// A value in history: inline, or where it is stored.
#[derive(Clone, PartialEq, Message)]
pub struct Stored {
    /// The value as [`Value::to_stored`] writes it; empty is null.
    #[prost(bytes = "vec", tag = "1")]
    pub inline: Vec<u8>,
}

impl Stored {
    /// The stored form.
    pub fn new(value: &Value) -> Self {
        Self { inline: if value.is_null() { Vec::new() } else { value.to_stored() } }
    }

    /// The value; null if it cannot be read.
    pub fn value(&self) -> Value {
        if self.inline.is_empty() {
            Value::Null
        } else {
            Value::from_stored(&self.inline).unwrap_or_default()
        }
    }
}

/// An error in history.
#[derive(Clone, PartialEq, Message)]
pub struct StoredError {
    /// Number of the [`FailureKind`].
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    /// A stable word.
    #[prost(string, tag = "2")]
    pub reason: String,
    /// For people.
    #[prost(string, tag = "3")]
    pub message: String,
    /// Of a process.
    #[prost(sint32, optional, tag = "4")]
    pub exit_code: Option<i32>,
    /// Of a response.
    #[prost(uint32, optional, tag = "5")]
    pub http_status: Option<u32>,
    /// Trying again is useless.
    #[prost(bool, tag = "6")]
    pub permanent: bool,
    /// An exception's.
    #[prost(string, optional, tag = "7")]
    pub traceback: Option<String>,
}

impl From<&TaskError> for StoredError {
    fn from(error: &TaskError) -> Self {
        Self {
            kind: error.kind as u32,
            reason: error.reason.clone(),
            message: error.message.clone(),
            exit_code: error.exit_code,
            http_status: error.http_status.map(u32::from),
            permanent: error.permanent,
            traceback: error.traceback.clone(),
        }
    }
}

impl From<&StoredError> for TaskError {
    fn from(error: &StoredError) -> Self {
        Self {
            kind: match error.kind {
                2 => FailureKind::Timeout,
                3 => FailureKind::Platform,
                _ => FailureKind::User,
            },
            reason: error.reason.clone(),
            message: error.message.clone(),
            exit_code: error.exit_code,
            http_status: error.http_status.and_then(|status| u16::try_from(status).ok()),
            permanent: error.permanent,
            retry_after: None,
            traceback: error.traceback.clone(),
        }
    }
}

/// See [`Fact::RunCreated`].
#[derive(Clone, PartialEq, Message)]
pub struct RunCreated {
    /// The run's id.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Namespace of the workflow.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Name of the workflow.
    #[prost(string, tag = "3")]
    pub workflow: String,
    /// Its version.
    #[prost(uint32, tag = "4")]
    pub version: u32,
    /// Bound parameters, a map.
    #[prost(message, optional, tag = "5")]
    pub params: Option<Stored>,
    /// What made it: `manual`, `workflow`, `fork`.
    #[prost(string, tag = "6")]
    pub trigger: String,
    /// Who or what asked for it.
    #[prost(string, tag = "7")]
    pub by: String,
    /// The due time, microseconds since 1970.
    #[prost(int64, tag = "8")]
    pub scheduled_at: i64,
    /// IANA name.
    #[prost(string, tag = "9")]
    pub timezone: String,
    /// The run whose step made it.
    #[prost(message, optional, tag = "10")]
    pub parent: Option<Parent>,
    /// How many runs are above it.
    #[prost(uint32, tag = "11")]
    pub depth: u32,
    /// Labels, a map of text.
    #[prost(message, optional, tag = "12")]
    pub labels: Option<Stored>,
    /// 0 to 100.
    #[prost(uint32, tag = "13")]
    pub priority: u32,
    /// Waits for its run queue.
    #[prost(message, optional, tag = "14")]
    pub queue: Option<RunQueueRef>,
    /// The run it was forked from, with what it shares of it.
    #[prost(message, optional, tag = "15")]
    pub fork: Option<Fork>,
    /// The bundle's blob.
    #[prost(message, optional, tag = "16")]
    pub bundle: Option<StoredBlob>,
    /// Run queues that runs above it hold places in.
    #[prost(message, repeated, tag = "17")]
    pub held_queues: Vec<RunQueueRef>,
}

/// A reference to stored content.
#[derive(Clone, PartialEq, Message)]
pub struct StoredBlob {
    /// BLAKE3, hexadecimal.
    #[prost(string, tag = "1")]
    pub hash: String,
    /// Bytes.
    #[prost(uint64, tag = "2")]
    pub size: u64,
}

impl From<&BlobRef> for StoredBlob {
    fn from(blob: &BlobRef) -> Self {
        Self { hash: blob.hash.to_string(), size: blob.size }
    }
}

impl From<&StoredBlob> for BlobRef {
    fn from(blob: &StoredBlob) -> Self {
        Self { hash: blob.hash.as_str().into(), size: blob.size }
    }
}

/// A run queue.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RunQueueRef {
    /// Namespace of the workflow.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Name of the workflow.
    #[prost(string, tag = "2")]
    pub workflow: String,
    /// Value of `strategy.key`.
    #[prost(string, tag = "3")]
    pub key: String,
}

/// The step that made a run.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Parent {
    /// Its run.
    #[prost(bytes = "vec", tag = "1")]
    pub run: Vec<u8>,
    /// Its unit.
    #[prost(message, required, tag = "2")]
    pub unit: UnitRef,
    /// True: it waits for the end.
    #[prost(bool, tag = "3")]
    pub waits: bool,
}

/// What a forked run shares with the run it came from.
#[derive(Clone, PartialEq, Message)]
pub struct Fork {
    /// That run.
    #[prost(bytes = "vec", tag = "1")]
    pub run: Vec<u8>,
    /// The first step that is done again.
    #[prost(string, tag = "2")]
    pub from: String,
    /// Top-level steps kept as they were.
    #[prost(message, repeated, tag = "3")]
    pub kept: Vec<KeptStep>,
}

/// A step kept by a fork.
#[derive(Clone, PartialEq, Message)]
pub struct KeptStep {
    /// Its place in the new version's graph.
    #[prost(uint32, tag = "1")]
    pub step: u32,
    /// Number of its [`StepStatus`].
    #[prost(uint32, tag = "2")]
    pub status: u32,
    /// Its output.
    #[prost(message, optional, tag = "3")]
    pub output: Option<Stored>,
}

/// See [`Fact::RunStarted`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct RunStarted {
    /// When its timeout ends it, relative; 0 is none.
    #[prost(int64, tag = "1")]
    pub timeout: i64,
}

/// See [`Fact::UnitReady`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
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
}

/// See [`Fact::AttemptStarted`].
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
        Offer { epoch: self.epoch, counter: self.counter }
    }
}

/// See [`Fact::AttemptEnded`].
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
    #[prost(message, optional, tag = "7")]
    pub error: Option<StoredError>,
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
}

impl AttemptEnded {
    /// What it used.
    pub fn usage(&self) -> Usage {
        Usage { cpu_millis: self.cpu_millis, memory_bytes: self.memory_bytes }
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

/// See [`Fact::UnitEnded`].
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
        u8::try_from(self.status).ok().and_then(StepStatus::from_number).unwrap_or(StepStatus::Failed)
    }
}

/// See [`Fact::ForeachExpanded`].
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

/// See [`Fact::ScopeOpened`].
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

/// See [`Fact::WaitStarted`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct WaitStarted {
    /// The unit.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// Until, relative.
    #[prost(int64, tag = "2")]
    pub until: i64,
}

/// See [`Fact::ChildStarted`].
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

/// See [`Fact::LockRequested`].
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

/// See [`Fact::HandlingStarted`].
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

/// See [`Fact::UnitStopping`].
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

/// See [`Fact::ItemsEnded`].
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

/// See [`Fact::ForeachStopped`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ForeachStopped {
    /// The step.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// `stop_when` held: the step succeeds.
    #[prost(bool, tag = "2")]
    pub enough: bool,
}

/// See [`Fact::CancelRequested`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CancelRequested {
    /// Who or what asked.
    #[prost(string, tag = "1")]
    pub by: String,
    /// Why.
    #[prost(string, tag = "2")]
    pub reason: String,
    /// True: `finally` does not run.
    #[prost(bool, tag = "3")]
    pub now: bool,
    /// True: its timeout ended it.
    #[prost(bool, tag = "4")]
    pub timed_out: bool,
}

/// Something a person did.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ByPerson {
    /// Who.
    #[prost(string, tag = "1")]
    pub by: String,
}

/// See [`Fact::RunReopened`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RunReopened {
    /// Who.
    #[prost(string, tag = "1")]
    pub by: String,
    /// Units to be done again with everything inside them; none: everything that did not succeed.
    #[prost(message, repeated, tag = "2")]
    pub again: Vec<UnitRef>,
    /// When the run's timeout ends it, relative; 0 is none.
    #[prost(int64, tag = "3")]
    pub timeout: i64,
    /// It waits for its run queue first.
    #[prost(bool, tag = "4")]
    pub queued: bool,
}

/// See [`Fact::StepsEnded`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct StepsEnded {
    /// Number of the [`kapell_model::RunStatus`] so far.
    #[prost(uint32, tag = "1")]
    pub outcome: u32,
}

/// See [`Fact::RunEnded`].
#[derive(Clone, PartialEq, Message)]
pub struct RunEnded {
    /// Number of the [`kapell_model::RunStatus`].
    #[prost(uint32, tag = "1")]
    pub status: u32,
    /// The run's outputs, a map.
    #[prost(message, optional, tag = "2")]
    pub outputs: Option<Stored>,
    /// The error, if it is none of a step.
    #[prost(message, optional, tag = "3")]
    pub error: Option<StoredError>,
}

/// See [`Fact::PageClosed`].
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

/// See [`Fact::PriorityChanged`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PriorityChanged {
    /// 0 to 100.
    #[prost(uint32, tag = "1")]
    pub priority: u32,
    /// Who.
    #[prost(string, tag = "2")]
    pub by: String,
}

/// See [`Fact::LoopWaiting`].
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

/// See [`Fact::UnitRetrying`].
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

/// See [`Fact::RunDiscarded`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RunDiscarded {
    /// Why.
    #[prost(string, tag = "1")]
    pub reason: String,
}

impl Event {
    /// An event of now.
    pub fn new(at: Time, fact: Fact) -> Self {
        Self { at: at.0, fact: Some(fact) }
    }

    /// The instant `relative` microseconds from the event.
    pub fn time(&self, relative: i64) -> Time {
        Time(self.at.saturating_add(relative))
    }
}

/// Encodes events as one chunk: each with its length before it.
pub fn encode_chunk(events: &[Event]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(events.len() * 40);
    for event in events {
        // Encoding into a vector only fails for want of room, which a vector makes.
        let _ = event.encode_length_delimited(&mut bytes);
    }
    bytes
}

/// Reads what [`encode_chunk`] wrote.
pub fn decode_chunk(mut bytes: &[u8]) -> Result<Vec<Event>, prost::DecodeError> {
    let mut events = Vec::new();
    while !bytes.is_empty() {
        events.push(Event::decode_length_delimited(&mut bytes)?);
    }
    Ok(events)
}

/// The id in stored bytes; zero if they are not one.
pub(crate) fn run_id(bytes: &[u8]) -> RunId {
    bytes.try_into().map(RunId::from_bytes).unwrap_or_default()
}
