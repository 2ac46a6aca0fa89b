//! What is remembered of a backfill, and facts to state. Both are stored: tags keep their meaning for
//! ever. Instants are microseconds since 1970.

use kapell_model::{RunId, Time};
use prost::Message;

use crate::event::run_id;
use crate::run_queue::Hold;

/// What a backfill's facts say: its snapshot.
#[derive(Clone, PartialEq, Message)]
pub struct State {
    /// Name of the schedule; empty: there is no such backfill.
    #[prost(string, tag = "1")]
    pub trigger: String,
    /// What the version says of the schedule, as JSON.
    #[prost(string, tag = "2")]
    pub definition: String,
    /// The version that its runs take.
    #[prost(uint32, tag = "3")]
    pub version: u32,
    /// IANA name of the workflow's time zone.
    #[prost(string, tag = "4")]
    pub timezone: String,
    /// The first instant of the range.
    #[prost(int64, tag = "5")]
    pub from: i64,
    /// The end of the range.
    #[prost(int64, tag = "6")]
    pub until: i64,
    /// Number of its [`super::Only`].
    #[prost(uint32, tag = "7")]
    pub only: u32,
    /// The newest goes first.
    #[prost(bool, tag = "8")]
    pub newest_first: bool,
    /// Runs active at once.
    #[prost(uint32, tag = "9")]
    pub concurrency: u32,
    /// Who asked for it.
    #[prost(string, tag = "10")]
    pub by: String,
    /// When.
    #[prost(int64, tag = "11")]
    pub created_at: i64,
    /// How many due times it has.
    #[prost(uint32, tag = "12")]
    pub total: u32,
    /// They, in the order in which they start; dropped once it is over.
    #[prost(int64, repeated, tag = "13")]
    pub due: Vec<i64>,
    /// How many of them are done with.
    #[prost(uint32, tag = "14")]
    pub next: u32,
    /// Runs that have not ended.
    #[prost(message, repeated, tag = "15")]
    pub active: Vec<Started>,
    /// Runs that ended without success, also those that were cancelled.
    #[prost(message, repeated, tag = "16")]
    pub failed: Vec<Started>,
    /// Runs that succeeded.
    #[prost(uint32, tag = "17")]
    pub succeeded: u32,
    /// Starts that could not be made.
    #[prost(uint32, tag = "18")]
    pub refused: u32,
    /// Starts that `when` declined.
    #[prost(uint32, tag = "19")]
    pub declined: u32,
    /// Who paused it.
    #[prost(string, optional, tag = "20")]
    pub paused_by: Option<String>,
    /// Who cancelled it.
    #[prost(string, optional, tag = "21")]
    pub cancelled_by: Option<String>,
    /// The run that keeps back the others.
    #[prost(bytes = "vec", optional, tag = "22")]
    pub blocked_by: Option<Vec<u8>>,
    /// When it was over; 0: it is not.
    #[prost(int64, tag = "23")]
    pub ended_at: i64,
    /// The last thing that went wrong, for people.
    #[prost(string, tag = "24")]
    pub problem: String,
    /// When the last fact was.
    #[prost(int64, tag = "25")]
    pub last_at: i64,
    /// Due times of the range, wanted or not.
    #[prost(uint32, tag = "26")]
    pub found: u32,
    /// The first due time of the range that is left to the schedule; 0: there is none.
    #[prost(int64, tag = "27")]
    pub ahead: i64,
    /// Of those that failed: runs that were cancelled.
    #[prost(bytes = "vec", repeated, tag = "28")]
    pub cancelled: Vec<Vec<u8>>,
}

/// A run of a backfill.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Started {
    /// Its id.
    #[prost(bytes = "vec", tag = "1")]
    pub run: Vec<u8>,
    /// Its due time.
    #[prost(int64, tag = "2")]
    pub due: i64,
}

/// One fact about a backfill.
#[derive(Clone, PartialEq, Message)]
pub struct BackfillEvent {
    /// When.
    #[prost(int64, tag = "1")]
    pub at: i64,
    /// What.
    #[prost(oneof = "Fact", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11")]
    pub fact: Option<Fact>,
}

/// What became true of a backfill.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Fact {
    /// It exists, with nothing started.
    #[prost(message, tag = "2")]
    Made(Box<State>),
    /// A run for the next due time is to be made.
    #[prost(message, tag = "3")]
    Started(Started),
    /// The next due time makes no run: `when` does not hold, or something cannot be evaluated.
    #[prost(message, tag = "4")]
    Declined(OfRun),
    /// A run could not be made.
    #[prost(message, tag = "5")]
    Refused(OfRun),
    /// A run has ended.
    #[prost(message, tag = "6")]
    Ended(Ended),
    /// It starts nothing until it is resumed.
    #[prost(message, tag = "7")]
    Paused(By),
    /// It goes on.
    #[prost(message, tag = "8")]
    Resumed(By),
    /// It starts nothing any more.
    #[prost(message, tag = "9")]
    Cancelled(By),
    /// All its runs have ended.
    #[prost(message, tag = "10")]
    Over(Nothing),
    /// A run that had failed goes on.
    #[prost(message, tag = "11")]
    Reopened(OfRun),
}

/// See [`Fact::Refused`] and [`Fact::Declined`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct OfRun {
    /// Its id, if it has one.
    #[prost(bytes = "vec", tag = "1")]
    pub run: Vec<u8>,
    /// Why, for people; empty: `when` is false.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// See [`Fact::Ended`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Ended {
    /// The run.
    #[prost(bytes = "vec", tag = "1")]
    pub run: Vec<u8>,
    /// It succeeded.
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
    /// Nothing more starts until it does.
    #[prost(bool, tag = "3")]
    pub blocks: bool,
    /// It was cancelled.
    #[prost(bool, tag = "4")]
    pub cancelled: bool,
}

/// A person did it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct By {
    /// Who.
    #[prost(string, tag = "1")]
    pub by: String,
}

/// Nothing more is to be said.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Nothing {}

impl State {
    /// True once it was made.
    pub fn exists(&self) -> bool {
        !self.trigger.is_empty()
    }

    /// The due time that starts next; none while nothing may.
    pub(super) fn next_due(&self) -> Option<Time> {
        let held = self.paused_by.is_some()
            || self.cancelled_by.is_some()
            || self.blocked_by.is_some()
            || self.active.len() >= self.concurrency as usize;
        let due = self.due.get(self.next as usize).filter(|_| !held);
        due.map(|due| Time(*due))
    }

    /// Why nothing of it starts; none if something may, or if it is over.
    pub(super) fn hold(&self) -> Option<Hold> {
        if self.ended_at > 0 || self.cancelled_by.is_some() {
            return None;
        }
        let blocked = || self.blocked_by.as_deref().map(run_id).map(Hold::Blocked);
        self.paused_by.clone().map(Hold::Paused).or_else(blocked)
    }

    /// True if nothing runs and nothing more starts.
    pub(super) fn is_done(&self) -> bool {
        let starts_no_more = self.cancelled_by.is_some() || self.next as usize >= self.due.len();
        self.active.is_empty() && starts_no_more
    }

    pub(super) fn is_active(&self, run: RunId) -> bool {
        let run = run.to_bytes();
        self.active.iter().any(|active| active.run == run)
    }

    pub(super) fn has_failed(&self, run: RunId) -> bool {
        let run = run.to_bytes();
        self.failed.iter().any(|failed| failed.run == run)
    }

    /// Makes the state that the event says.
    pub(super) fn apply(&mut self, event: &BackfillEvent) {
        match &event.fact {
            Some(Fact::Made(made)) => *self = State::clone(made),
            Some(Fact::Started(started)) => {
                self.next += 1;
                self.active.push(started.clone());
            }
            Some(Fact::Declined(declined)) => {
                self.next += 1;
                if declined.message.is_empty() {
                    self.declined += 1;
                } else {
                    self.refused += 1;
                    self.problem.clone_from(&declined.message);
                }
            }
            Some(Fact::Refused(refused)) => {
                self.active.retain(|active| active.run != refused.run);
                self.refused += 1;
                self.problem.clone_from(&refused.message);
            }
            Some(Fact::Ended(ended)) => self.ended(ended),
            Some(Fact::Reopened(reopened)) => {
                let is = |other: &Started| other.run == reopened.run;
                if let Some(place) = self.failed.iter().position(is) {
                    self.active.push(self.failed.remove(place));
                    self.cancelled.retain(|run| *run != reopened.run);
                }
            }
            Some(Fact::Paused(paused)) => self.paused_by = Some(paused.by.clone()),
            Some(Fact::Resumed(_)) => {
                self.paused_by = None;
                self.blocked_by = None;
            }
            Some(Fact::Cancelled(cancelled)) => self.cancelled_by = Some(cancelled.by.clone()),
            Some(Fact::Over(_)) => {
                self.ended_at = event.at;
                self.due.clear();
                self.next = 0;
                self.blocked_by = None;
            }
            None => {}
        }
        self.last_at = event.at;
    }

    fn ended(&mut self, ended: &Ended) {
        let is = |other: &Started| other.run == ended.run;
        let active = self.active.iter().position(is);
        let failed = self.failed.iter().position(is);
        let run = match (active, failed) {
            (Some(place), _) => self.active.remove(place),
            (None, Some(place)) => self.failed.remove(place),
            (None, None) => return,
        };
        self.cancelled.retain(|other| *other != run.run);
        if ended.cancelled {
            self.cancelled.push(run.run.clone());
        }
        if ended.succeeded {
            self.succeeded += 1;
            self.blocked_by.take_if(|blocked| *blocked == run.run);
        } else {
            if ended.blocks {
                self.blocked_by = Some(run.run.clone());
            }
            self.failed.push(run);
        }
    }
}
