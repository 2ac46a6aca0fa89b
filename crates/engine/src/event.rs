//! Facts, as history keeps them.
//!
//! An [`Event`] holds every choice that was made, so that applying it only counts. Tags are stored:
//! they are never reused, and a field keeps its meaning for ever. Times inside an event are
//! microseconds relative to the event's own `at`, which keeps them short.

mod run;
mod stored;
mod unit;
mod wait;

use kapell_model::{RunId, Time};
use prost::Message;

pub use run::*;
pub use stored::*;
pub use unit::*;
pub use wait::*;

/// One fact about a run.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// When it became true, microseconds since 1970.
    #[prost(int64, tag = "1")]
    pub at: i64,
    /// What became true.
    #[prost(
        oneof = "Fact",
        tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 40, 41, 42, 43, 44, 45, 46, 47, 60, 61, 62, 63"
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
    /// A unit has no attempt yet and holds none of its locks any more: it asks again once the run goes on.
    #[prost(message, tag = "30")]
    LocksReturned(UnitRef),
    /// A unit waits for a signal.
    #[prost(message, tag = "40")]
    AwaitStarted(AwaitStarted),
    /// A unit waits for people.
    #[prost(message, tag = "41")]
    ApprovalAsked(ApprovalAsked),
    /// One of them said yes, and more must.
    #[prost(message, tag = "42")]
    ApprovalGiven(ApprovalGiven),
    /// A unit that has ended sent its signals, or could not.
    #[prost(message, tag = "43")]
    SignalsSent(SignalsSent),
    /// A unit stopped at a breakpoint.
    #[prost(message, tag = "44")]
    BreakReached(BreakReached),
    /// It goes on.
    #[prost(message, tag = "45")]
    BreakPassed(BreakPassed),
    /// The run has other breakpoints.
    #[prost(message, tag = "46")]
    BreakpointsChanged(BreakpointsChanged),
    /// A parameter of the run has another value.
    #[prost(message, tag = "47")]
    ParamChanged(ParamChanged),
    /// When it should have ended.
    #[prost(message, tag = "60")]
    DeadlineSet(DeadlineSet),
    /// When it will be known to be late, by how long such runs take.
    #[prost(message, tag = "61")]
    DeadlineEstimated(DeadlineEstimated),
    /// It will probably miss its deadline.
    #[prost(message, tag = "62")]
    DeadlineAtRisk(Nothing),
    /// It has not ended at its deadline.
    #[prost(message, tag = "63")]
    DeadlineMissed(Nothing),
}

impl Event {
    /// An event of now.
    pub fn new(at: Time, fact: Fact) -> Self {
        Self {
            at: at.0,
            fact: Some(fact),
        }
    }

    /// The instant `relative` microseconds from the event.
    pub fn time(&self, relative: i64) -> Time {
        Time(self.at.saturating_add(relative))
    }
}

/// The id in stored bytes; zero if they are not one.
pub fn run_id(bytes: &[u8]) -> RunId {
    bytes.try_into().map(RunId::from_bytes).unwrap_or_default()
}
