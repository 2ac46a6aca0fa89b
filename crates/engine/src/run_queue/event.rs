//! What happens to a run queue, as it is stored.

use std::sync::Arc;

use kapell_model::spec::StrategyMode;
use kapell_model::{RunId, Time};

use super::{Entry, Rule};
use crate::message::StartClass;

/// One fact about a run queue.
#[derive(Clone, PartialEq, prost::Message)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one field for whatever an event of any kind may say"
)]
pub struct QueueEvent {
    /// When, microseconds since 1970.
    #[prost(int64, tag = "1")]
    pub at: i64,
    /// Number of the [`Kind`].
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    /// The run.
    #[prost(bytes = "vec", tag = "3")]
    pub run: Vec<u8>,
    /// Its line.
    #[prost(string, tag = "4")]
    pub key: String,
    /// Of an entry: number of the mode.
    #[prost(uint32, tag = "5")]
    pub mode: u32,
    /// Of an entry.
    #[prost(uint32, tag = "6")]
    pub limit: u32,
    /// Of an entry.
    #[prost(uint32, tag = "7")]
    pub total: u32,
    /// Of an entry.
    #[prost(int64, tag = "8")]
    pub quiet: i64,
    /// Of an entry.
    #[prost(int64, tag = "9")]
    pub longest: i64,
    /// Of an entry.
    #[prost(bool, tag = "10")]
    pub inside: bool,
    /// Of a success, and of an entry that is not regular: its due time, microseconds since 1970.
    #[prost(int64, tag = "11")]
    pub scheduled_at: i64,
    /// Of a success: a stored value.
    #[prost(bytes = "vec", tag = "12")]
    pub params: Vec<u8>,
    /// Of a success: a stored value.
    #[prost(bytes = "vec", tag = "13")]
    pub outputs: Vec<u8>,
    /// All settings, as JSON.
    #[prost(bytes = "vec", tag = "14")]
    pub settings: Vec<u8>,
    /// Of settings: the rule counts for all that waits.
    #[prost(bool, tag = "15")]
    pub rules: bool,
    /// Of an entry: number of its [`StartClass`].
    #[prost(uint32, tag = "16")]
    pub class: u32,
    /// Of an outcome: microseconds that the run took.
    #[prost(int64, tag = "20")]
    pub took: i64,
    /// Of an outcome.
    #[prost(bool, tag = "21")]
    pub failed: bool,
    /// Of an entry: when its run was made, microseconds since 1970.
    #[prost(int64, tag = "22")]
    pub created_at: i64,
    /// Of an entry: it was active before.
    #[prost(bool, tag = "23")]
    pub again: bool,
    /// Why it will never start.
    #[prost(string, tag = "24")]
    pub reason: String,
    /// Of one that blocks: it timed out.
    #[prost(bool, tag = "25")]
    pub timed_out: bool,
    /// Of an entry: the backfill that it is of; or the one that starts nothing, or goes on.
    #[prost(string, tag = "26")]
    pub backfill: String,
    /// Who paused it.
    #[prost(string, tag = "27")]
    pub by: String,
}

/// What happened. Numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It waits.
    Waits = 1,
    /// It became active.
    Admitted = 2,
    /// It will never start, or was withdrawn.
    Dropped = 3,
    /// It has ended.
    Ended = 4,
    /// It failed and blocks its line.
    Blocks = 5,
    /// The line is free again.
    Unblocked = 6,
    /// It is the last start of a burst.
    Burst = 7,
    /// It is the last success of its line.
    Succeeded = 8,
    /// The settings are these.
    Set = 9,
    /// It is active, and went past the queue when it started.
    Found = 10,
    /// Every active run of the workflow has a place now.
    Counted = 11,
    /// A backfill starts nothing: somebody paused it, or this run of it failed.
    Held = 12,
    /// It goes on.
    Freed = 13,
    /// It is the last run of its line that ended, for whoever asks how they do.
    Outcome = 20,
}

pub(super) fn entry_of(event: &QueueEvent, run: RunId, key: &Arc<str>) -> Entry {
    Entry {
        run,
        key: key.clone(),
        rule: Rule {
            mode: MODES.get(event.mode as usize).copied().unwrap_or_default(),
            limit: event.limit,
            total: event.total,
            quiet: event.quiet,
            longest: event.longest,
        },
        inside: event.inside,
        class: StartClass::from_number(event.class),
        scheduled_at: Time(event.scheduled_at),
        created_at: Time(event.created_at),
        again: event.again,
        backfill: backfill(&event.backfill),
    }
}

/// A backfill's id as it is stored.
pub(super) fn backfill(stored: &str) -> Option<Arc<str>> {
    Some(stored).filter(|id| !id.is_empty()).map(Into::into)
}

/// Modes by their stored numbers.
pub(super) const MODES: [StrategyMode; 6] = [
    StrategyMode::Parallel,
    StrategyMode::Sequential,
    StrategyMode::StrictSequential,
    StrategyMode::FirstOnly,
    StrategyMode::LastOnly,
    StrategyMode::SerialLatest,
];

pub(super) fn mode_number(mode: StrategyMode) -> u32 {
    let place = MODES.iter().position(|known| *known == mode);
    place
        .and_then(|place| u32::try_from(place).ok())
        .unwrap_or(0)
}
