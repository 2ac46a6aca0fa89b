//! What is remembered of a trigger, and facts to state. Both are stored: tags keep their meaning for
//! ever. Instants are microseconds since 1970.

use kapell_expr::Value;
use kapell_model::{Time, limits};
use prost::Message;

use super::account::{insert, remove};
use super::fact::{Declined, Fact, Refused, Set, Started, TriggerEvent};
use super::room::Room;
use crate::message::Signal;

/// What a trigger's facts say: its snapshot.
#[derive(Clone, PartialEq, Message)]
pub struct State {
    /// What the active version says of it, as JSON; empty: nothing, or nothing any more.
    #[prost(string, tag = "1")]
    pub definition: String,
    /// The version that its runs take.
    #[prost(uint32, tag = "2")]
    pub version: u32,
    /// IANA name of the workflow's time zone.
    #[prost(string, tag = "3")]
    pub timezone: String,
    /// Goes up when it is set anew: when its times, or what it listens to, have changed.
    #[prost(uint32, tag = "4")]
    pub generation: u32,
    /// Due times up to it are done with. It never goes back.
    #[prost(int64, tag = "5")]
    pub watermark: i64,
    /// Who paused it.
    #[prost(string, optional, tag = "6")]
    pub paused_by: Option<String>,
    /// Its workflow is paused.
    #[prost(bool, tag = "7")]
    pub workflow_paused: bool,
    /// Due times up to it are made up for, all of them.
    #[prost(int64, tag = "8")]
    pub catching_up: i64,
    /// When the last of them started.
    #[prost(int64, tag = "9")]
    pub paced_at: i64,
    /// By how much each start is late, in microseconds.
    #[prost(int64, tag = "10")]
    pub delay: i64,
    /// Runs that it started.
    #[prost(uint64, tag = "11")]
    pub started: u64,
    /// Due times that were missed and are not made up for, and signals that were not heard or not kept
    /// for others to be joined with.
    #[prost(uint64, tag = "12")]
    pub missed: u64,
    /// Starts that its `when` refused.
    #[prost(uint64, tag = "13")]
    pub declined: u64,
    /// Starts that could not be made.
    #[prost(uint64, tag = "14")]
    pub refused: u64,
    /// The last run that it started.
    #[prost(message, optional, tag = "15")]
    pub last: Option<Started>,
    /// When that was.
    #[prost(int64, tag = "16")]
    pub last_started_at: i64,
    /// The last thing that went wrong.
    #[prost(message, optional, tag = "17")]
    pub problem: Option<Problem>,
    /// When the last fact was.
    #[prost(int64, tag = "18")]
    pub last_at: i64,
    /// Due times with a run that succeeded, in order: all from the first to the last of each.
    #[prost(message, repeated, tag = "19")]
    pub succeeded: Vec<Stretch>,
    /// Due times with a run that ended otherwise and none that succeeded, in order.
    #[prost(int64, repeated, tag = "20")]
    pub failed: Vec<i64>,
    /// Due times with a run that has not ended, in order.
    #[prost(int64, repeated, tag = "21")]
    pub open: Vec<i64>,
    /// Backfills that were asked for.
    #[prost(uint64, tag = "22")]
    pub backfills: u64,
    /// Signals that wait for others to be joined with, in the order in which they came.
    #[prost(message, repeated, tag = "23")]
    pub pending: Vec<Pending>,
    /// The number of the last of them.
    #[prost(uint64, tag = "24")]
    pub last_pending: u64,
    /// What started runs in the last days, so that it starts no other.
    #[prost(message, repeated, tag = "25")]
    pub seen: Vec<Seen>,
    /// Signals that were the same as one before.
    #[prost(uint64, tag = "26")]
    pub duplicates: u64,
    /// Of one that the active version does not have: what the last version that had it said of it.
    #[prost(string, tag = "27")]
    pub former: String,
    /// Goes up with each new address of a webhook.
    #[prost(uint32, tag = "28")]
    pub address: u32,
    /// Its run queue has no room, and what waits for that.
    #[prost(message, optional, tag = "29")]
    pub room: Option<Room>,
    /// The run that it started before the last, and when: the last may come to nothing.
    #[prost(message, optional, tag = "30")]
    pub before: Option<Started>,
    /// See `before`.
    #[prost(int64, tag = "31")]
    pub before_at: i64,
}

/// A signal that waits for others to be joined with.
#[derive(Clone, PartialEq, Message)]
pub struct Pending {
    /// Unique in the trigger.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// Place of the source that took it.
    #[prost(uint32, tag = "2")]
    pub source: u32,
    /// What it is joined by, a stored value.
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    /// The signal.
    #[prost(message, required, tag = "4")]
    pub signal: StoredSignal,
}

/// A signal as it is stored.
#[derive(Clone, PartialEq, Message)]
pub struct StoredSignal {
    /// See [`Signal::id`].
    #[prost(string, tag = "1")]
    pub id: String,
    /// See [`Signal::name`].
    #[prost(string, tag = "2")]
    pub name: String,
    /// See [`Signal::key`]; a stored value.
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    /// See [`Signal::payload`]; a stored value.
    #[prost(bytes = "vec", tag = "4")]
    pub payload: Vec<u8>,
    /// See [`Signal::sent_at`].
    #[prost(int64, tag = "5")]
    pub sent_at: i64,
    /// See [`Signal::hops`].
    #[prost(uint32, tag = "6")]
    pub hops: u32,
    /// See [`Signal::by`].
    #[prost(string, tag = "7")]
    pub by: String,
}

/// What has started a run.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Seen {
    /// Hash of the value.
    #[prost(bytes = "vec", tag = "1")]
    pub hash: Vec<u8>,
    /// When.
    #[prost(int64, tag = "2")]
    pub at: i64,
    /// The run; empty where that was not remembered yet.
    #[prost(bytes = "vec", tag = "3")]
    pub run: Vec<u8>,
    /// Hash of the id that came with it, where the value is another.
    #[prost(bytes = "vec", tag = "4")]
    pub id: Vec<u8>,
}

/// Due times next to each other.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Stretch {
    /// The first.
    #[prost(int64, tag = "1")]
    pub first: i64,
    /// The last.
    #[prost(int64, tag = "2")]
    pub last: i64,
}

/// What went wrong.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Problem {
    /// When.
    #[prost(int64, tag = "1")]
    pub at: i64,
    /// What, for people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// The run that could not be made, if it is about one.
    #[prost(bytes = "vec", tag = "3")]
    pub run: Vec<u8>,
}

impl State {
    /// True if the active version has it.
    pub fn defined(&self) -> bool {
        !self.definition.is_empty()
    }

    /// Makes the state that the event says.
    pub(super) fn apply(&mut self, event: &TriggerEvent) {
        let at = event.at;
        self.last_at = at;
        match &event.fact {
            Some(Fact::Set(set)) => self.set(at, set),
            Some(Fact::Removed(removed)) => {
                let former = std::mem::take(&mut self.definition);
                self.pending.clear();
                self.drop_held(|_| true);
                self.catching_up = 0;
                if removed.keeps {
                    self.former = former;
                } else {
                    self.paused_by = None;
                }
            }
            Some(Fact::Paused(paused)) => self.paused_by = Some(paused.by.clone()),
            Some(Fact::Resumed(_)) => {
                self.paused_by = None;
                self.go_on_at(at);
            }
            Some(Fact::WorkflowPaused(paused)) => {
                self.workflow_paused = paused.on;
                if !paused.on {
                    self.go_on_at(at);
                }
            }
            Some(Fact::Missed(missed)) => {
                self.pass(missed.until);
                self.missed = self.missed.saturating_add(missed.count);
            }
            Some(Fact::CatchingUp(due)) => self.catching_up = due.due,
            Some(Fact::Started(started)) => {
                if started.due {
                    if started.scheduled_at <= self.catching_up {
                        self.paced_at = at;
                    }
                    self.pass(started.scheduled_at);
                    insert(&mut self.open, started.scheduled_at, limits::DUE_OPEN);
                }
                self.use_up(&started.used);
                self.see(at, started);
                if started.waited {
                    self.tries(started);
                } else {
                    self.has_started(at, started);
                }
            }
            Some(Fact::Declined(declined)) => self.declined(at, declined),
            Some(Fact::Refused(refused)) => self.refused(at, refused),
            Some(Fact::Ended(ended)) => self.ended(ended),
            Some(Fact::NoRoom(met)) => self.met_no_room(at, met),
            Some(Fact::Taken(taken)) => {
                if let Some(started) = self.tried(at, &taken.run) {
                    self.has_started(at, &started);
                }
            }
            Some(Fact::HasRoom(_)) => self.room = None,
            Some(Fact::Holds(holds)) => {
                self.use_up(&holds.used);
                let started = Started {
                    run: holds.start.run.clone(),
                    seen: holds.seen.clone(),
                    seen_id: holds.seen_id.clone(),
                    ..Started::default()
                };
                self.see(at, &started);
                if let Some(room) = &mut self.room {
                    room.held.push(holds.start.clone());
                }
            }
            Some(Fact::Rotated(_)) => self.address = self.address.saturating_add(1),
            Some(Fact::Reopened(due)) => insert(&mut self.open, due.due, limits::DUE_OPEN),
            Some(Fact::Backfilled(_)) => self.backfills += 1,
            Some(Fact::Waits(pending)) => self.wait_for_others(pending),
            Some(Fact::Expired(gone)) => {
                self.use_up(&gone.numbers);
                self.missed = self.missed.saturating_add(gone.numbers.len() as u64);
            }
            Some(Fact::Duplicate(used)) => {
                self.use_up(&used.numbers);
                self.duplicates += 1;
            }
            None => {}
        }
    }

    fn set(&mut self, at: i64, set: &Set) {
        self.definition.clone_from(&set.definition);
        self.former.clear();
        self.version = set.version;
        self.timezone.clone_from(&set.timezone);
        self.delay = set.delay;
        if let Some(paused) = set.paused {
            if !paused && self.paused_by.is_some() {
                self.go_on_at(at);
            }
            self.paused_by = paused.then(|| "its definition".to_owned());
        }
        if self.workflow_paused && !set.workflow_paused {
            self.go_on_at(at);
        }
        self.workflow_paused = set.workflow_paused;
        if set.anew {
            self.generation += 1;
            self.problem = None;
            if set.keeps {
                self.succeeded.clone_from(&set.succeeded);
            } else {
                self.succeeded.clear();
                self.failed.clear();
                self.open.clear();
            }
            self.pending.clear();
            self.drop_held(|_| true);
            self.go_on_at(at);
        }
    }

    fn declined(&mut self, at: i64, declined: &Declined) {
        if let Some(due) = declined.due {
            self.pass(due);
        }
        self.use_up(&declined.used);
        if declined.error.is_empty() {
            self.declined += 1;
            return;
        }
        self.refused += 1;
        self.problem = Some(Problem {
            at,
            message: declined.error.clone(),
            run: Vec::new(),
        });
    }

    fn refused(&mut self, at: i64, refused: &Refused) {
        self.refused += 1;
        self.problem = Some(Problem {
            at,
            message: refused.message.clone(),
            run: refused.run.clone(),
        });
        self.tried(at, &refused.run);
        // It started nothing: the same may come again.
        if !refused.run.is_empty() {
            self.seen.retain(|seen| seen.run != refused.run);
            self.has_not_started(&refused.run);
        }
        if remove(&mut self.open, refused.scheduled_at) {
            insert(&mut self.failed, refused.scheduled_at, limits::DUE_FAILURES);
        }
    }

    /// A start was refused: no run was made.
    fn has_not_started(&mut self, run: &[u8]) {
        self.started = self.started.saturating_sub(1);
        let is_it = |started: &Option<Started>| started.as_ref().is_some_and(|of| of.run == run);
        if is_it(&self.last) {
            (self.last, self.last_started_at) = (self.before.take(), self.before_at);
        } else if is_it(&self.before) {
            self.before = None;
        }
    }

    fn has_started(&mut self, at: i64, started: &Started) {
        self.started += 1;
        (self.before, self.before_at) = (self.last.take(), self.last_started_at);
        self.last = Some(Started {
            used: Vec::new(),
            seen: Vec::new(),
            seen_id: Vec::new(),
            ..started.clone()
        });
        self.last_started_at = at;
    }

    /// The oldest go if there are too many.
    fn wait_for_others(&mut self, pending: &Pending) {
        self.last_pending = pending.number;
        self.pending.push(pending.clone());
        let mut bytes: usize = self.pending.iter().map(Message::encoded_len).sum();
        while self.pending.len() > limits::JOIN_SIGNALS || bytes > limits::JOIN_BYTES {
            bytes -= self.pending.remove(0).encoded_len();
            self.missed = self.missed.saturating_add(1);
        }
    }

    fn use_up(&mut self, used: &[u64]) {
        if !used.is_empty() {
            self.pending
                .retain(|pending| !used.contains(&pending.number));
        }
    }

    /// What a call that somebody has read could be sent again for is forgotten last.
    fn see(&mut self, at: i64, started: &Started) {
        if started.seen.is_empty() {
            return;
        }
        let kept = i64::try_from(limits::TOPIC_KEEPS.as_micros()).unwrap_or(i64::MAX);
        let forgotten = at.saturating_sub(kept);
        let forgotten = self.seen.partition_point(|seen| seen.at <= forgotten);
        let replayed = at.saturating_sub(replay_micros());
        let old = self.seen.partition_point(|seen| seen.at <= replayed);
        let many = (self.seen.len() + 1).saturating_sub(limits::DEDUPE_VALUES);
        let most = (self.seen.len() + 1).saturating_sub(limits::WEBHOOK_CALLS);
        let gone = many.min(old).max(most).max(forgotten);
        self.seen.drain(..gone.min(self.seen.len()));
        self.seen.push(Seen {
            hash: started.seen.clone(),
            at,
            run: started.run.clone(),
            id: started.seen_id.clone(),
        });
    }

    /// True if what is remembered cannot be forgotten yet and no more can be.
    pub(super) fn has_seen_too_much(&self, now: Time) -> bool {
        let first = self.seen.first();
        self.seen.len() >= limits::WEBHOOK_CALLS
            && first.is_some_and(|first| first.at > now.0.saturating_sub(replay_micros()))
    }

    /// What was due is over.
    fn go_on_at(&mut self, at: i64) {
        self.drop_held(|held| held.due);
        self.pass(at);
        self.catching_up = 0;
    }

    fn pass(&mut self, due: i64) {
        self.watermark = self.watermark.max(due);
    }
}

/// For so long a signed call can be sent again: its time may be ahead as much as behind.
fn replay_micros() -> i64 {
    let window = i64::try_from(limits::WEBHOOK_WINDOW.as_micros()).unwrap_or(i64::MAX);
    window.saturating_mul(2)
}

impl From<&Signal> for StoredSignal {
    fn from(signal: &Signal) -> Self {
        Self {
            id: signal.id.to_string(),
            name: signal.name.to_string(),
            key: signal.key.to_stored(),
            payload: signal.payload.to_stored(),
            sent_at: signal.sent_at.0,
            hops: signal.hops,
            by: signal.by.to_string(),
        }
    }
}

impl From<&StoredSignal> for Signal {
    fn from(stored: &StoredSignal) -> Self {
        let value = |bytes: &[u8]| Value::from_stored(bytes).unwrap_or_default();
        Self {
            id: stored.id.as_str().into(),
            name: stored.name.as_str().into(),
            key: value(&stored.key),
            payload: value(&stored.payload),
            sent_at: Time(stored.sent_at),
            hops: stored.hops,
            by: stored.by.as_str().into(),
        }
    }
}
