//! Facts about a run as a whole.

use prost::Message;

use super::{Stored, StoredBlob, StoredBreak, StoredError, UnitRef};

/// See [`super::Fact::RunCreated`].
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
    /// Name of the trigger; empty: what made it says it all.
    #[prost(string, tag = "18")]
    pub trigger_name: String,
    /// `run.interval`; none: both ends are the due time.
    #[prost(message, optional, tag = "19")]
    pub interval: Option<Interval>,
    /// How many runs, each started by a signal of the one before, led to it.
    #[prost(uint32, tag = "20")]
    pub hops: u32,
    /// Number of its [`crate::message::StartClass`].
    #[prost(uint32, tag = "21")]
    pub class: u32,
    /// The backfill that wants it, by its id; empty is none.
    #[prost(string, tag = "22")]
    pub backfill: String,
    /// Who asked for the run above all those that led to it; empty is `by`.
    #[prost(string, tag = "42")]
    pub root_by: String,
    /// Breakpoints that runs of its workflow have when they are made, beside those of the definition.
    #[prost(message, repeated, tag = "40")]
    pub breakpoints: Vec<StoredBreak>,
}

/// A time between two instants, microseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Interval {
    /// From.
    #[prost(int64, tag = "1")]
    pub start: i64,
    /// To.
    #[prost(int64, tag = "2")]
    pub end: i64,
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
    /// What its items came to, if it is a foreach.
    #[prost(message, optional, tag = "4")]
    pub items: Option<KeptItems>,
}

/// Items of a foreach kept by a fork. The output alone does not tell a success that gave null.
#[derive(Clone, PartialEq, Message)]
pub struct KeptItems {
    /// Items that did not succeed, ascending: of each stretch the first, and the one after the last.
    #[prost(uint32, repeated, tag = "1")]
    pub others: Vec<u32>,
    /// A list of index, label and error of each item that failed.
    #[prost(message, optional, tag = "2")]
    pub failures: Option<Stored>,
}

/// See [`super::Fact::RunStarted`].
#[derive(Clone, PartialEq, Message)]
pub struct RunStarted {
    /// When its timeout ends it, relative; 0 is none.
    #[prost(int64, tag = "1")]
    pub timeout: i64,
    /// `run.last_success` as it is for the run's life; none is null.
    #[prost(message, optional, tag = "2")]
    pub last_success: Option<Stored>,
}

/// See [`super::Fact::CancelRequested`].
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

/// See [`super::Fact::RunReopened`].
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
    /// Items that a person skipped stay so. Before this was known they started again.
    #[prost(bool, tag = "5")]
    pub keeps_skipped: bool,
}

/// See [`super::Fact::StepsEnded`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct StepsEnded {
    /// Number of the [`kapell_model::RunStatus`] so far.
    #[prost(uint32, tag = "1")]
    pub outcome: u32,
}

/// See [`super::Fact::RunEnded`].
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

/// See [`super::Fact::PriorityChanged`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PriorityChanged {
    /// 0 to 100.
    #[prost(uint32, tag = "1")]
    pub priority: u32,
    /// Who.
    #[prost(string, tag = "2")]
    pub by: String,
}

/// See [`super::Fact::RunDiscarded`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RunDiscarded {
    /// Why.
    #[prost(string, tag = "1")]
    pub reason: String,
}

/// See [`super::Fact::DeadlineSet`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DeadlineSet {
    /// Microseconds since 1970.
    #[prost(int64, tag = "1")]
    pub at: i64,
    /// Why there is none; empty if there is.
    #[prost(string, tag = "2")]
    pub error: String,
}

/// See [`super::Fact::DeadlineEstimated`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct DeadlineEstimated {
    /// Microseconds since 1970; 0 is never.
    #[prost(int64, tag = "1")]
    pub risk_at: i64,
    /// What half of the last successes took at most, in microseconds.
    #[prost(int64, tag = "2")]
    pub usual: i64,
    /// What nine in ten of them took at most.
    #[prost(int64, tag = "3")]
    pub slow: i64,
}

/// Of a fact that says it all by its kind.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Nothing {}
