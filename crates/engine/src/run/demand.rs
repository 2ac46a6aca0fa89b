//! What of a run waits for workers, counted for whoever watches queues.

use std::collections::BTreeMap;
use std::sync::Arc;

use kapell_api::task::{Custom, Place, TaskResources};
use kapell_expr::Template;
use kapell_model::spec::{Dyn, Resources, Verb};
use kapell_model::{RunStatus, Time};
use serde::{Deserialize, Serialize};

use super::Run;
use super::ready::Ready;

/// Steps looked at for one run.
const LOOKED_AT: usize = 10_000;

/// Work of a run that waits in one queue and shares it as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand<'a> {
    /// Where it waits.
    pub queue: &'a Arc<str>,
    /// Its fairness key.
    pub key: Option<&'a Arc<str>>,
    /// The priority of the first of it.
    pub priority: u8,
    /// How many attempts of it could start, about: of a `foreach` that is not the first its items are not counted.
    pub waits: u64,
    place: Place,
}

/// Different needs that are told apart in one queue.
pub const NEEDS: usize = 50;

/// Attempts of one queue that could start if a worker had room, and that ask the same of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Startable {
    /// How many.
    pub attempts: u64,
    /// What each of them takes.
    pub needs: TaskResources,
    /// What the worker is to be labelled with.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// It may be one that can be taken away.
    pub spot: bool,
    /// It starts nothing, and takes no slot.
    pub light: bool,
    /// Some of what it asks for is known only once it is granted, and counts as nothing here.
    pub open: bool,
}

impl Startable {
    fn asks_like(&self, other: &Self) -> bool {
        (self.light, self.spot, self.open) == (other.light, other.spot, other.open)
            && self.needs == other.needs
            && self.labels == other.labels
    }

    /// Adds attempts to those that ask the same; of too many different ones only the count is kept.
    pub fn add(self, all: &mut Vec<Self>) {
        if let Some(same) = all.iter_mut().find(|other| other.asks_like(&self)) {
            same.attempts += self.attempts;
            return;
        }
        if all.len() < NEEDS {
            all.push(self);
            return;
        }
        let counted = Self {
            attempts: self.attempts,
            open: true,
            ..Self::default()
        };
        match all.last_mut().filter(|last| last.asks_like(&counted)) {
            Some(last) => last.attempts += counted.attempts,
            None => all.push(counted),
        }
    }
}

/// What is known of resources before an attempt is granted.
fn known(resources: &Resources, light: bool) -> Startable {
    let mut open = false;
    let mut whole = |number: &Dyn<i64>| match number {
        Dyn::Fixed(number) => u64::try_from(*number).unwrap_or(0),
        Dyn::Expr(_) => {
            open = true;
            0
        }
    };
    let memory_bytes = resources.memory.as_ref().map_or(0, &mut whole);
    let gpus = resources.gpu.as_ref().map_or(0, &mut whole);
    let custom: Custom = resources
        .custom
        .iter()
        .map(|(name, amount)| (name.clone(), whole(amount)))
        .filter(|(_, amount)| *amount > 0)
        .collect();
    let cpu_millis = match &resources.cpu {
        None => 0,
        Some(Dyn::Fixed(cores)) => super::render::millis(*cores),
        Some(Dyn::Expr(_)) => {
            open = true;
            0
        }
    };
    let mut labels = BTreeMap::new();
    for (name, value) in &resources.labels {
        match value {
            Template::Literal(value) => {
                labels.insert(name.clone(), value.text().into());
            }
            Template::Expr(_) | Template::Text(_) | Template::List(_) | Template::Map(_) => {
                open = true;
            }
        }
    }
    Startable {
        attempts: 0,
        needs: TaskResources {
            cpu_millis,
            memory_bytes,
            gpus: u32::try_from(gpus).unwrap_or(u32::MAX),
            custom,
        },
        labels,
        spot: resources.spot,
        light,
        open,
    }
}

impl Run {
    /// Work that waits, by queue and fairness key.
    pub fn demands(&self) -> impl Iterator<Item = Demand<'_>> {
        let paused = matches!(self.state.status, RunStatus::Paused | RunStatus::Queued);
        let ready = self.state.ready.iter().filter(move |_| !paused);
        let room = self.room_of_run();
        ready.flat_map(move |(queue, ready)| {
            let firsts = ready.firsts();
            firsts.map(move |(key, (rank, place), units)| {
                let others = u64::try_from(units - 1).unwrap_or(u64::MAX);
                let waits = self.allowed_at(place).saturating_add(others);
                Demand {
                    queue,
                    key,
                    priority: 100 - rank,
                    waits: waits.min(room),
                    place,
                }
            })
        })
    }

    /// Attempts that the run may have in flight besides those that are.
    fn room_of_run(&self) -> u64 {
        let bound = self.plan.spec.max_parallelism;
        let in_flight = self.live.flights.len() as u64;
        bound.map_or(u64::MAX, |bound| u64::from(bound).saturating_sub(in_flight))
    }

    /// The weight of a fairness key, as the first of its work says.
    pub fn weight(&self, demand: &Demand<'_>) -> u32 {
        let plan = self.state.plan_step(&self.plan, demand.place);
        let fairness = plan.and_then(|plan| plan.step.fairness.as_ref());
        fairness.map_or(1, |fairness| fairness.weight)
    }

    /// Attempts that are handed out.
    pub fn in_flight(&self) -> usize {
        self.live.flights.len()
    }

    /// Attempts that wait in a queue, of items too, and since when the first of them could start.
    pub fn waiting_in(&self, queue: &str) -> (u64, Option<Time>) {
        let ready = self.state.ready.get(queue);
        let ready = ready.into_iter().flat_map(Ready::units);
        let (mut waiting, mut oldest) = (0, None::<Time>);
        for (_, place) in ready.take(LOOKED_AT) {
            let (count, since) = self.waiting_at(place);
            if count > 0 {
                waiting += count;
                oldest = Some(oldest.map_or(since, |oldest| oldest.min(since)));
            }
        }
        (waiting, oldest)
    }

    /// Attempts in a queue that could start now if workers had room for all, by what they ask for: what bounds of
    /// the run and of its steps, or quiet hours, hold back is not among them.
    pub fn startable_in(&self, queue: &str, now: Time) -> Vec<Startable> {
        let mut room = self.room_of_run();
        let ready = self.state.ready.get(queue);
        let ready = ready.into_iter().flat_map(Ready::units);
        let mut all = Vec::new();
        for (_, place) in ready.take(LOOKED_AT) {
            let attempts = self.startable_at(place, now).min(room);
            let Some(plan) = self
                .state
                .plan_step(&self.plan, place)
                .filter(|_| attempts > 0)
            else {
                continue;
            };
            room -= attempts;
            let light = matches!(plan.step.verb, Verb::Noop | Verb::Fail { .. });
            let asks = known(&plan.step.resources, light);
            Startable { attempts, ..asks }.add(&mut all);
        }
        all
    }

    fn startable_at(&self, place: Place, now: Time) -> u64 {
        let allowed = self.allowed_at(place);
        if allowed == 0 || self.hours_reason(place, now).is_some() {
            return 0;
        }
        allowed
    }

    /// What waits there, within the bound of its `foreach`.
    fn allowed_at(&self, place: Place) -> u64 {
        let (waiting, _) = self.waiting_at(place);
        let step = self.state.step(place.scope, place.step);
        let foreach = step.and_then(|step| step.foreach.as_ref());
        let Some(foreach) = foreach.filter(|foreach| foreach.concurrency > 0) else {
            return waiting;
        };
        let bound = foreach.concurrency;
        if place.item != Place::NO_ITEM {
            return u64::from(foreach.open <= bound);
        }
        let flights = self.live.items.get(&(place.scope, place.step));
        let flying = flights.map_or(0, |flights| flights.count);
        waiting.min(bound.saturating_sub(flying).into())
    }

    /// The queue of a unit, and since when it could start.
    pub fn queue_of(&self, place: Place) -> Option<(&Arc<str>, Time)> {
        let plan = self.state.plan_step(&self.plan, place)?;
        let step = self.state.step(place.scope, place.step)?;
        Some((&plan.step.queue, step.unit.ready_at))
    }

    fn waiting_at(&self, place: Place) -> (u64, Time) {
        let step = self.state.step(place.scope, place.step);
        let foreach = step
            .filter(|_| place.item == Place::NO_ITEM)
            .and_then(|step| Some((step, step.foreach.as_ref()?)));
        let Some((step, foreach)) = foreach else {
            let unit = self.state.unit(place);
            let waits = self.flight(place).is_none();
            return (
                u64::from(waits),
                unit.map_or(self.state.last_at, |unit| unit.ready_at),
            );
        };
        let flights = self.live.items.get(&(place.scope, place.step));
        let next = foreach.next.max(flights.map_or(0, |flights| flights.next));
        let fresh = if foreach.stopped || foreach.tail.is_some() {
            0
        } else {
            foreach.count.saturating_sub(next)
        };
        let again = foreach.again.len() as u64;
        (again + u64::from(fresh), step.unit.ready_at)
    }
}

#[cfg(test)]
mod tests;
