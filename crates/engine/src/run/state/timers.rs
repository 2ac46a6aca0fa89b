//! What happens by itself, and when.

use std::collections::{BTreeMap, BTreeSet};

use kapell_api::task::Place;
use kapell_model::Time;
use serde::{Deserialize, Serialize};

/// What a timer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TimerKind {
    /// Tries the unit again.
    Retry,
    /// The unit may start now.
    NotBefore,
    /// The unit's wait is over.
    Wait,
    /// The loop's next iteration starts.
    Iteration,
    /// The unit waited too long for a worker.
    QueueTimeout,
    /// The unit took too long in all.
    TotalTimeout,
    /// A stopped attempt stays silent.
    GiveUp,
}

/// Timers by time and by unit.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Timers {
    by_time: BTreeSet<(Time, Place, TimerKind)>,
    by_unit: BTreeMap<(Place, TimerKind), Time>,
}

impl Timers {
    /// Sets the timer of this kind of a unit.
    pub fn set(&mut self, place: Place, kind: TimerKind, at: Time) {
        self.unset(place, kind);
        self.by_time.insert((at, place, kind));
        self.by_unit.insert((place, kind), at);
    }

    /// Drops the timer of this kind of a unit.
    pub fn unset(&mut self, place: Place, kind: TimerKind) {
        if let Some(at) = self.by_unit.remove(&(place, kind)) {
            self.by_time.remove(&(at, place, kind));
        }
    }

    /// Drops every timer of a unit.
    pub fn clear(&mut self, place: Place) {
        if self.by_unit.is_empty() {
            return;
        }
        let kinds: Vec<TimerKind> = self
            .by_unit
            .range((place, TimerKind::Retry)..=(place, TimerKind::GiveUp))
            .map(|((_, kind), _)| *kind)
            .collect();
        for kind in kinds {
            self.unset(place, kind);
        }
    }

    /// When the timer of this kind of a unit ends.
    pub fn get(&self, place: Place, kind: TimerKind) -> Option<Time> {
        self.by_unit.get(&(place, kind)).copied()
    }

    /// The timers of the items of a step.
    pub fn of_items(&self, step: Place) -> impl Iterator<Item = (Place, TimerKind, Time)> + '_ {
        let from = (Place { item: 0, ..step }, TimerKind::Retry);
        let last = Place {
            item: Place::NO_ITEM - 1,
            ..step
        };
        self.by_unit
            .range(from..=(last, TimerKind::GiveUp))
            .map(|((place, kind), at)| (*place, *kind, *at))
    }

    /// The first that is due at `now`; while paused of those that start nothing.
    pub fn due_of(&self, now: Time, paused: bool) -> Option<(Time, Place, TimerKind)> {
        self.first_of(paused).filter(|(at, _, _)| *at <= now)
    }

    /// The first; while paused the first of those that start nothing.
    pub fn first_of(&self, paused: bool) -> Option<(Time, Place, TimerKind)> {
        let ends = |kind| {
            matches!(
                kind,
                TimerKind::TotalTimeout | TimerKind::GiveUp | TimerKind::Wait
            )
        };
        self.by_time
            .iter()
            .find(|(_, _, kind)| !paused || ends(*kind))
            .copied()
    }

    /// The first that is due at `now`.
    pub fn due(&self, now: Time) -> Option<(Time, Place, TimerKind)> {
        self.by_time
            .first()
            .filter(|(at, _, _)| *at <= now)
            .copied()
    }

    /// When the first is due.
    pub fn next(&self) -> Option<Time> {
        self.by_time.first().map(|(at, _, _)| *at)
    }
}
