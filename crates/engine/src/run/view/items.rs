//! What the items of a foreach wait for, counted by reason. What is asked for are the indexes of
//! what waits, up to a bound: never all items.

use std::collections::BTreeMap;
use std::sync::Arc;

use kapell_api::task::Place;
use kapell_model::spec::Verb;
use kapell_model::{RunId, RunStatus, Time};
use serde::{Deserialize, Serialize};

use super::super::Run;
use super::super::state::{ForeachState, TimerKind};
use super::super::waiting::Waiting;

/// Entries of one index that are looked at for one foreach.
const LOOKED_AT: usize = 10_000;

/// Locks that are named; the others are counted together.
const LOCKS: usize = 5;

/// Runs of items that are named.
const CHILDREN: usize = 5;

/// Items of a foreach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemCounts {
    /// All.
    pub count: u32,
    /// Succeeded.
    pub succeeded: u32,
    /// Failed.
    pub failed: u32,
    /// Ended otherwise.
    pub other: u32,
    /// In flight.
    pub running: u32,
    /// Those that wait, by what for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<ItemsWaiting>,
    /// The first of the runs that items made and wait for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<RunId>,
}

/// Items that wait for the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemsWaiting {
    /// Why.
    pub reason: ItemsWait,
    /// How many.
    pub items: u32,
    /// There may be more of them: not all were looked at.
    #[serde(default)]
    pub more: bool,
    /// What for, after "wait for".
    pub waits_for: String,
    /// The lock, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// When the first of them goes on by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Time>,
}

/// Why items wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemsWait {
    /// They failed and are tried again.
    Retry,
    /// A lock or a rate.
    Lock,
    /// A time.
    Time,
    /// A signal.
    Signal,
    /// People who answer.
    People,
    /// A worker with room.
    Worker,
    /// A bound of the foreach or of the run.
    Turn,
    /// Somebody to resume the run.
    Paused,
}

impl ItemsWait {
    /// Its word in answers.
    pub fn word(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Lock => "lock",
            Self::Time => "time",
            Self::Signal => "signal",
            Self::People => "people",
            Self::Worker => "worker",
            Self::Turn => "turn",
            Self::Paused => "paused",
        }
    }
}

/// Items of one reason, while they are counted.
#[derive(Clone, Copy, Default)]
struct Tally {
    items: u32,
    first_at: Option<Time>,
}

impl Tally {
    fn add(&mut self, at: Option<Time>) {
        self.items += 1;
        self.first_at = match (self.first_at, at) {
            (Some(first), Some(at)) => Some(first.min(at)),
            (first, at) => first.or(at),
        };
    }
}

/// Items of a foreach in the indexes of what waits.
#[derive(Default)]
struct Tallies {
    retry: Tally,
    time: Tally,
    people: Tally,
    signals: BTreeMap<Arc<str>, Tally>,
    locks: BTreeMap<Arc<str>, Tally>,
    /// Of timers, waits and locks: there are more entries than were looked at.
    more: [bool; 3],
}

impl Tallies {
    /// Items that have begun and wait by themselves, but for locks.
    fn begun(&self) -> u32 {
        let signals = self.signals.values().map(|tally| tally.items);
        self.retry.items + self.time.items + self.people.items + signals.sum::<u32>()
    }

    fn all(&self) -> u32 {
        self.begun() + self.locks.values().map(|tally| tally.items).sum::<u32>()
    }

    fn waiting(self) -> Vec<ItemsWaiting> {
        let [timers, waits, locks] = self.more;
        let mut all = Vec::new();
        let mut say = |reason, tally: Tally, more, what: String| {
            if tally.items > 0 {
                let first = tally.first_at.map(|at| format!(", the first at {at}"));
                all.push(ItemsWaiting {
                    reason,
                    items: tally.items,
                    more,
                    waits_for: what + &first.unwrap_or_default(),
                    lock: None,
                    next_at: tally.first_at,
                });
            }
        };
        say(
            ItemsWait::Retry,
            self.retry,
            timers,
            "their next try".to_owned(),
        );
        say(ItemsWait::Time, self.time, timers, "their time".to_owned());
        for (name, tally) in self.signals {
            say(
                ItemsWait::Signal,
                tally,
                waits,
                format!("a signal `{name}` each"),
            );
        }
        let people = "people to approve them: `kapell approvals`";
        say(ItemsWait::People, self.people, waits, people.to_owned());
        let mut others = Tally::default();
        let named = self.locks.len().min(LOCKS);
        for (place, (name, tally)) in self.locks.into_iter().enumerate() {
            if place < LOCKS {
                all.push(ItemsWaiting {
                    reason: ItemsWait::Lock,
                    items: tally.items,
                    more: locks,
                    waits_for: format!("the lock `{name}`"),
                    lock: Some(name.to_string()),
                    next_at: None,
                });
            } else {
                others.items += tally.items;
            }
        }
        if others.items > 0 {
            all.push(ItemsWaiting {
                reason: ItemsWait::Lock,
                items: others.items,
                more: locks,
                waits_for: format!("locks beside these {named}"),
                lock: None,
                next_at: None,
            });
        }
        all
    }
}

/// The first and the last place of the items of a step.
fn items_of(step: Place) -> std::ops::RangeInclusive<Place> {
    let item = |item| Place { item, ..step };
    item(0)..=item(Place::NO_ITEM - 1)
}

impl Run {
    /// The items of a foreach, and what those that wait, wait for.
    pub(super) fn item_counts(
        &self,
        place: Place,
        foreach: &ForeachState,
        now: Time,
    ) -> ItemCounts {
        let flying = self.live.items.get(&(place.scope, place.step));
        let flying = flying.map_or(0, |items| items.count);
        let flights = self.live.flights.items((), place);
        let flights = flights.filter(|(item, flight)| !self.waits_in_worker(*item, **flight, now));
        let flights = u32::try_from(flights.count()).unwrap_or(u32::MAX);
        let opens = self.state.items_open(&self.plan, place);
        let is_task = self.plans_a_task(place);
        let tallies = self.tally(place);
        let running = if opens && !is_task {
            foreach.open.saturating_sub(tallies.begun())
        } else {
            flights
        };
        let ended = foreach.good + foreach.bad + foreach.other;
        let mut rest = foreach
            .count
            .saturating_sub(ended.saturating_add(running))
            .saturating_sub(tallies.all());
        if foreach.stopped || foreach.tail.is_some() {
            rest = 0;
        }
        let more = tallies.more.contains(&true);
        let mut waiting = tallies.waiting();
        // Of what neither runs nor waits by itself: what a worker holds without room for it, or what
        // has begun and has no worker yet; then what has not begun.
        let begun = if opens && is_task {
            let waits: u32 = waiting.iter().map(|waiting| waiting.items).sum();
            foreach.open.saturating_sub(running.saturating_add(waits))
        } else {
            flying.saturating_sub(running)
        };
        let in_turn = if opens { foreach.open } else { flying };
        for (items, reason) in [
            (begun.min(rest), self.worker_reason(place)),
            (
                rest.saturating_sub(begun),
                self.turn_reason(place, foreach, in_turn),
            ),
        ] {
            let (reason, waits_for) = reason;
            if let Some(same) = waiting
                .iter_mut()
                .find(|of| of.reason == reason && of.waits_for == waits_for)
            {
                same.items += items;
            } else if items > 0 {
                waiting.push(ItemsWaiting {
                    reason,
                    items,
                    more: false,
                    // Where not all was looked at, the others are known by their number alone.
                    waits_for: if more {
                        format!("one of these, or for {waits_for}")
                    } else {
                        waits_for
                    },
                    lock: None,
                    next_at: None,
                });
            }
        }
        let verb = self.state.plan_step(&self.plan, place);
        // Others have none, and may have very many items.
        let children = match verb.map(|plan| &plan.step.verb) {
            Some(Verb::Workflow { .. }) => foreach.children().take(CHILDREN).collect(),
            _ => Vec::new(),
        };
        ItemCounts {
            count: foreach.count,
            succeeded: foreach.good,
            failed: foreach.bad,
            other: foreach.other,
            running,
            waiting,
            children,
        }
    }

    fn tally(&self, place: Place) -> Tallies {
        let state = &self.state;
        let mut found = Tallies::default();
        let mut looked = 0;
        for (_, kind, at) in state.timers.of_items(place).take(LOOKED_AT) {
            looked += 1;
            match kind {
                TimerKind::Retry => found.retry.add(Some(at)),
                TimerKind::NotBefore | TimerKind::Wait | TimerKind::Iteration => {
                    found.time.add(Some(at));
                }
                TimerKind::QueueTimeout | TimerKind::TotalTimeout | TimerKind::GiveUp => {}
            }
        }
        found.more[0] = looked == LOOKED_AT;
        looked = 0;
        for (_, waiting) in state.waits.range(items_of(place)).take(LOOKED_AT) {
            looked += 1;
            match waiting {
                Waiting::Signal { signal, .. } => {
                    found.signals.entry(signal.clone()).or_default().add(None);
                }
                Waiting::Approval { .. } => found.people.add(None),
                Waiting::Break { .. } => {}
            }
        }
        found.more[1] = looked == LOOKED_AT;
        looked = 0;
        for (_, locks) in state.locks.range(items_of(place)).take(LOOKED_AT) {
            looked += 1;
            if let Some(name) = &locks.asked {
                found.locks.entry(name.clone()).or_default().add(None);
            }
        }
        found.more[2] = looked == LOOKED_AT;
        found
    }

    /// What an attempt waits for that could start at once.
    pub(super) fn worker_reason(&self, place: Place) -> (ItemsWait, String) {
        let step = self.state.plan_step(&self.plan, place);
        let queue = step.map_or_else(|| "".into(), |step| step.step.queue.clone());
        if self.state.status == RunStatus::Paused {
            return (ItemsWait::Paused, "the run to be resumed".to_owned());
        }
        if let Some(why) = self.live.held_up.get(&queue) {
            return (ItemsWait::Worker, why.clone());
        }
        let flying = self.live.flights.len();
        let bound = self.plan.spec.max_parallelism;
        if bound.is_some_and(|bound| flying >= bound as usize) {
            let what =
                format!("one of the run's {flying} attempts in flight to end (`max_parallelism`)");
            return (ItemsWait::Turn, what);
        }
        let granted = self.flight(place).is_some();
        if let Some(why) = self.live.quota.as_ref().filter(|_| !granted) {
            return (ItemsWait::Worker, why.clone());
        }
        if let Some(why) = self.live.unfit.get(&(place.scope, place.step)) {
            return (ItemsWait::Worker, why.clone());
        }
        let risen = self
            .live
            .risen
            .get(&queue)
            .map_or_else(String::new, |risen| {
                format!("; waiting has brought it to priority {risen}")
            });
        let what = format!("a worker with room in queue `{queue}`{risen}");
        (ItemsWait::Worker, what)
    }

    /// What an item waits for that has not begun.
    pub(super) fn turn_reason(
        &self,
        place: Place,
        foreach: &ForeachState,
        in_turn: u32,
    ) -> (ItemsWait, String) {
        let bound = foreach.concurrency;
        if self.state.status != RunStatus::Paused && bound > 0 && in_turn >= bound {
            let what = format!("their turn, {bound} at a time (`concurrency`)");
            return (ItemsWait::Turn, what);
        }
        if self.plans_a_task(place) || self.state.status == RunStatus::Paused {
            return self.worker_reason(place);
        }
        (ItemsWait::Turn, "their turn".to_owned())
    }
}
