//! What of a run waits for workers, counted for whoever watches queues.

use std::sync::Arc;

use kapell_api::task::Place;
use kapell_model::{RunStatus, Time};

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
    place: Place,
}

impl Run {
    /// Work that waits, by queue and fairness key.
    pub fn demands(&self) -> impl Iterator<Item = Demand<'_>> {
        let paused = matches!(self.state.status, RunStatus::Paused | RunStatus::Queued);
        let ready = self.state.ready.iter().filter(move |_| !paused);
        ready.flat_map(|(queue, ready)| {
            let firsts = ready.firsts();
            firsts.map(move |(key, (rank, place))| Demand {
                queue,
                key,
                priority: 100 - rank,
                place,
            })
        })
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
