//! Starts that find no room in their run queue: kept in order, and tried again one at a time.
//!
//! ```text
//! (room) -- a start is not taken --> waits -- its time has come --> one is tried -- taken --> the next one
//!                                     ^                                  |                        |
//!                                     '--- longer each time, not taken --'        none is left: (room)
//! ```
//!
//! While a start waits, no other goes past it: due times stay after the watermark and are then started
//! in order, none of which counts as missed; signals stand behind those that wait. Whether one was taken
//! is heard in the commit that tries it. What is remembered of them is stored: tags keep their meaning
//! for ever.

use std::sync::Arc;

use kapell_expr::Value;
use kapell_model::spec::TriggerKind;
use kapell_model::{Time, limits};

use super::fact::{Fact, Nothing, Refused, Started};
use super::listen::Same;
use super::state::State;
use super::{Deciding, Trigger};
use crate::event::run_id;
use crate::message::{Message, StartClass, StartTriggered};

/// What a trigger does that met a run queue without room.
pub(super) enum Next {
    /// It waits, or hears soon whether what it tries is taken.
    Nothing,
    /// It tries what has waited longest.
    Again,
    /// It takes the due times that came meanwhile, if there are any.
    DueTimes,
}

/// A run queue without room.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Room {
    /// Since when.
    #[prost(int64, tag = "1")]
    pub since: i64,
    /// Tries in a row that it did not take.
    #[prost(uint32, tag = "2")]
    pub tries: u32,
    /// When the next one is.
    #[prost(int64, tag = "3")]
    pub next_at: i64,
    /// Why, for people.
    #[prost(string, tag = "4")]
    pub message: String,
    /// Starts that wait, in order.
    #[prost(message, repeated, tag = "5")]
    pub held: Vec<HeldStart>,
    /// The one that is tried, until it is known whether it was taken.
    #[prost(message, optional, tag = "6")]
    pub trying: Option<Started>,
}

/// A start that waits for room.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HeldStart {
    /// The run.
    #[prost(bytes = "vec", tag = "1")]
    pub run: Vec<u8>,
    /// `run.scheduled_at`.
    #[prost(int64, tag = "2")]
    pub scheduled_at: i64,
    /// It is for a due time.
    #[prost(bool, tag = "3")]
    pub due: bool,
    /// The version.
    #[prost(uint32, tag = "4")]
    pub version: u32,
    /// Parameters, a stored value.
    #[prost(bytes = "vec", tag = "5")]
    pub params: Vec<u8>,
    /// `run.trigger.by`.
    #[prost(string, tag = "6")]
    pub by: String,
    /// Where `run.interval` begins.
    #[prost(int64, tag = "7")]
    pub interval_start: i64,
    /// Where it ends.
    #[prost(int64, tag = "8")]
    pub interval_end: i64,
    /// IANA name.
    #[prost(string, tag = "9")]
    pub timezone: String,
    /// Runs, each started by a signal of the one before, that led to it.
    #[prost(uint32, tag = "10")]
    pub hops: u32,
}

/// See [`Fact::NoRoom`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NoRoom {
    /// The start.
    #[prost(message, required, tag = "1")]
    pub start: HeldStart,
    /// Why, for people.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// See [`Fact::Taken`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Taken {
    /// The run.
    #[prost(bytes = "vec", tag = "1")]
    pub run: Vec<u8>,
}

/// See [`Fact::Holds`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Holds {
    /// The start.
    #[prost(message, required, tag = "1")]
    pub start: HeldStart,
    /// See [`Started`].
    #[prost(uint64, repeated, tag = "2")]
    pub used: Vec<u64>,
    /// See [`Started`].
    #[prost(bytes = "vec", tag = "3")]
    pub seen: Vec<u8>,
    /// See [`Started`].
    #[prost(bytes = "vec", tag = "4")]
    pub seen_id: Vec<u8>,
}

impl Trigger {
    /// What is to be done for want of room; none if there is room as far as it knows.
    pub(super) fn next_in_room(&self, now: Time) -> Option<Next> {
        let room = self.state.room.as_ref()?;
        Some(match (&room.trying, room.held.is_empty()) {
            (None, true) => Next::DueTimes,
            (None, false) if room.next_at <= now.0 => Next::Again,
            (Some(_), _) | (None, false) => Next::Nothing,
        })
    }
}

impl Deciding<'_> {
    /// Its run queue did not take a start.
    pub(super) fn no_room(&mut self, start: &StartTriggered, message: String) {
        let state = &self.trigger.state;
        let spec = self.trigger.made.as_ref().map(|made| &made.spec.kind);
        let keeps = matches!(
            spec,
            Some(TriggerKind::Schedule(_) | TriggerKind::Signal(_))
        );
        if !state.defined() || !keeps {
            // Whoever calls a webhook is told, and may call again.
            return self.emit(Fact::Refused(Refused {
                scheduled_at: start.scheduled_at.0,
                message,
                run: start.id.to_bytes().to_vec(),
            }));
        }
        let start = HeldStart::of(start);
        self.emit(Fact::NoRoom(Box::new(NoRoom { start, message })));
    }

    /// Keeps the start of a signal behind those that wait already.
    ///
    /// # Errors
    /// There are too many of them.
    pub(super) fn hold(
        &mut self,
        start: &StartTriggered,
        used: Vec<u64>,
        same: Same,
    ) -> Result<(), String> {
        let held = self.trigger.state.room.as_ref().map(|room| &room.held);
        let held = held.map(Vec::as_slice).unwrap_or_default();
        let start = HeldStart::of(start);
        let bytes: usize = held.iter().map(|held| held.params.len()).sum();
        if held.len() >= limits::HELD_STARTS || bytes + start.params.len() > limits::HELD_BYTES {
            return Err(format!(
                "{} starts wait for room in the run queue already, and no more can",
                held.len()
            ));
        }
        self.emit(Fact::Holds(Box::new(Holds {
            start,
            used,
            seen: same.hash,
            seen_id: same.id,
        })));
        Ok(())
    }

    /// Tries the start that has waited longest.
    pub(super) fn try_again(&mut self) {
        let room = self.trigger.state.room.as_ref();
        let Some(held) = room.and_then(|room| room.held.first()).cloned() else {
            return;
        };
        let start = StartTriggered {
            id: run_id(&held.run),
            from: self.of.key.clone(),
            namespace: self.of.namespace.clone(),
            workflow: self.of.workflow.clone(),
            version: Some(held.version),
            params: Value::from_stored(&held.params).unwrap_or_default(),
            kind: if held.due { "schedule" } else { "signal" },
            name: self.of.name.clone(),
            by: held.by.clone(),
            scheduled_at: Time(held.scheduled_at),
            interval: (Time(held.interval_start), Time(held.interval_end)),
            timezone: Arc::from(held.timezone.as_str()),
            hops: held.hops,
            class: StartClass::Regular,
            backfill: None,
            waited: true,
        };
        self.emit(Fact::Started(Started {
            scheduled_at: held.scheduled_at,
            run: held.run,
            due: held.due,
            class: StartClass::Regular as u32,
            waited: true,
            ..Started::default()
        }));
        self.messages
            .push((start.id.into(), Message::StartTriggered(Box::new(start))));
    }

    pub(super) fn has_room(&mut self) {
        self.emit(Fact::HasRoom(Nothing {}));
    }
}

impl HeldStart {
    fn of(start: &StartTriggered) -> Self {
        Self {
            run: start.id.to_bytes().to_vec(),
            scheduled_at: start.scheduled_at.0,
            due: start.kind == "schedule",
            version: start.version.unwrap_or_default(),
            params: start.params.to_stored(),
            by: start.by.clone(),
            interval_start: start.interval.0.0,
            interval_end: start.interval.1.0,
            timezone: start.timezone.to_string(),
            hops: start.hops,
        }
    }
}

/// How long it waits after so many tries in a row.
fn wait(tries: u32) -> i64 {
    let doubled = limits::ROOM_WAIT.saturating_mul(1 << tries.saturating_sub(1).min(16));
    let micros = doubled.min(limits::ROOM_WAIT_MOST).as_micros();
    i64::try_from(micros).unwrap_or(i64::MAX)
}

impl State {
    pub(super) fn met_no_room(&mut self, at: i64, met: &NoRoom) {
        let run = &met.start.run;
        let room = self.room.get_or_insert_with(|| Room {
            since: at,
            ..Room::default()
        });
        room.message.clone_from(&met.message);
        if room
            .trying
            .as_ref()
            .is_some_and(|trying| trying.run == *run)
        {
            room.trying = None;
            room.held.insert(0, met.start.clone());
        } else {
            // It was to go at once, and stands behind those before it.
            room.held.push(met.start.clone());
            self.started = self.started.saturating_sub(1);
            self.last.take_if(|last| last.run == *run);
        }
        room.tries = room.tries.saturating_add(1);
        room.next_at = at.saturating_add(wait(room.tries));
    }

    pub(super) fn tries(&mut self, started: &Started) {
        let Some(room) = &mut self.room else { return };
        if room
            .held
            .first()
            .is_some_and(|held| held.run == started.run)
        {
            room.held.remove(0);
        }
        room.trying = Some(started.clone());
    }

    /// What was tried is settled. Returns it.
    pub(super) fn tried(&mut self, at: i64, run: &[u8]) -> Option<Started> {
        let room = self.room.as_mut()?;
        let tried = room.trying.take_if(|trying| trying.run == run)?;
        room.tries = 0;
        room.next_at = at;
        Some(tried)
    }

    /// True if a run for this due time waits for room.
    pub(super) fn holds(&self, due: Time) -> bool {
        let held = self.room.as_ref().map(|room| &room.held);
        held.is_some_and(|held| {
            held.iter()
                .any(|held| held.due && held.scheduled_at == due.0)
        })
    }

    /// Drops those of the starts that wait, and counts them as missed.
    pub(super) fn drop_held(&mut self, which: impl Fn(&HeldStart) -> bool) {
        let Some(room) = &mut self.room else { return };
        for gone in room.held.extract_if(.., |held| which(held)) {
            self.missed = self.missed.saturating_add(1);
            self.seen.retain(|seen| seen.run != gone.run);
            if gone.due {
                super::account::remove(&mut self.open, gone.scheduled_at);
            }
        }
    }
}
