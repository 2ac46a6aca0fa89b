//! Tasks for workers.

use std::sync::Arc;

use kapell_api::task::{Place, Task, TaskError};
use kapell_expr::Template;
use kapell_model::spec::{Named, Resources};
use kapell_model::{Offer, RunStatus, StepStatus, Time};

use super::names::At;
use super::ready::Pick;
use super::render::named;
use super::room::{Refused, Room, Spot, Wish};
use super::{Decider, Decision, Effect, Flight, Run, Stop};
use crate::event::{AttemptStarted, Fact};

/// Numbers for offers: the owner's epoch and a counter of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// The next to be given.
    pub next: Offer,
}

impl Offers {
    fn take(&mut self) -> Offer {
        let offer = self.next;
        self.next.counter += 1;
        offer
    }
}

impl Run {
    /// Queues in which work of this run waits.
    pub fn demand(&self) -> impl Iterator<Item = &Arc<str>> {
        let paused = matches!(self.state.status, RunStatus::Paused | RunStatus::Queued);
        self.state.ready.keys().filter(move |_| !paused)
    }

    /// The priority of the first work that waits in a queue.
    pub fn demand_priority(&self, queue: &str) -> Option<u8> {
        let rank = self.state.ready.get(queue)?.next_rank(Pick::All, None)?;
        Some(100 - rank)
    }

    /// Grants up to `max` attempts that wait in `queue`, are of `pick` and fit the room, which they take: highest
    /// priority first, and within one priority a fair share to each step. Returns how many; fewer
    /// than `max` with room left means that no more can be granted now.
    pub fn grant(
        &mut self,
        (queue, pick): (&str, Pick<'_>),
        max: usize,
        room: &mut Room,
        now: Time,
        offers: &mut Offers,
    ) -> (usize, Decision) {
        let now = now.max(self.state.last_at);
        let mut decider = Decider {
            run: self,
            now,
            out: Decision::default(),
        };
        let mut granting = Granting {
            max,
            room,
            offers,
            tasks: Vec::new(),
        };
        decider.grant_classes((queue, pick), &mut granting);
        let tasks = granting.tasks;
        let granted = tasks.len();
        if !tasks.is_empty() {
            decider.out.effects.push(Effect::Offer(tasks));
        }
        decider.settle();
        (granted, decider.out)
    }
}

/// Preemptions after which an attempt goes to workers that cannot be taken away, where nothing is said.
const PREEMPTIONS: u32 = 2;

/// Granting in progress.
struct Granting<'a> {
    max: usize,
    room: &'a mut Room,
    offers: &'a mut Offers,
    tasks: Vec<Task>,
}

impl Decider<'_> {
    fn grant_classes(&mut self, (queue, pick): (&str, Pick<'_>), granting: &mut Granting<'_>) {
        if matches!(self.run.state.status, RunStatus::Paused | RunStatus::Queued) {
            return;
        }
        let mut after: Option<u8> = None;
        loop {
            let Some(ready) = self.run.state.ready.get(queue) else {
                return;
            };
            let Some(rank) = ready.next_rank(pick, after) else {
                return;
            };
            let class = ready.at_rank(pick, rank);
            let class: Vec<Place> = class.take(granting.max).collect();
            self.grant_class(&class, granting);
            if granting.tasks.len() >= granting.max || !self.run.live.needs.is_empty() {
                return;
            }
            after = Some(rank);
        }
    }

    /// Rounds over the steps of one class, each taking its share, until nobody takes any.
    fn grant_class(&mut self, class: &[Place], granting: &mut Granting<'_>) {
        loop {
            let before = granting.tasks.len();
            for place in class {
                let room = granting
                    .max
                    .saturating_sub(granting.tasks.len())
                    .min(self.room());
                if room == 0 {
                    return;
                }
                let share = (room / class.len()).max(1);
                self.grant_place(*place, share, granting);
                if !self.run.live.needs.is_empty() {
                    return;
                }
            }
            if granting.tasks.len() == before {
                return;
            }
        }
    }

    /// Attempts that the run may have in flight besides those it has.
    fn room(&self) -> usize {
        match self.run.plan.spec.max_parallelism {
            Some(bound) => (bound as usize).saturating_sub(self.run.live.flights.len()),
            None => usize::MAX,
        }
    }

    fn grant_place(&mut self, place: Place, share: usize, granting: &mut Granting<'_>) {
        let Some(step) = self.run.state.step(place.scope, place.step) else {
            return;
        };
        if place.item != Place::NO_ITEM {
            let flying: usize = step
                .foreach
                .as_ref()
                .filter(|foreach| foreach.concurrency > 0)
                .map_or(0, |foreach| {
                    foreach.open.saturating_sub(foreach.concurrency) as usize
                });
            if flying == 0 {
                self.grant_one(place, granting);
            }
            return;
        }
        let Some(foreach) = &step.foreach else {
            self.grant_one(place, granting);
            return;
        };
        let flights = self
            .run
            .live
            .items
            .get(&(place.scope, place.step))
            .copied()
            .unwrap_or_default();
        let mut share = share;
        if foreach.concurrency > 0 {
            share = share.min(foreach.concurrency.saturating_sub(flights.count) as usize);
        }
        let mut items: Vec<u32> = foreach
            .again
            .iter()
            .copied()
            .filter(|item| {
                let item = Place {
                    item: *item,
                    ..place
                };
                self.run.flight(item).is_none()
            })
            .take(share)
            .collect();
        if !foreach.stopped && foreach.tail.is_none() {
            let fresh = foreach.next.max(flights.next)..foreach.count;
            items.extend(fresh.take(share - items.len()));
        }
        for item in items {
            let fits = self.grant_one(Place { item, ..place }, granting);
            if !fits || !self.run.live.needs.is_empty() {
                return;
            }
        }
    }

    /// Grants an attempt, if it is time for one; false if there is no room for it.
    fn grant_one(&mut self, place: Place, granting: &mut Granting<'_>) -> bool {
        if self.run.flight(place).is_some() {
            return true;
        }
        let Some(step) = self.run.state.plan_step(&self.run.plan, place) else {
            return true;
        };
        let step = step.step.clone();
        if !granting.room.may_take(&step.verb) {
            return false;
        }
        let unit = self.run.state.unit(place);
        let attempts = unit.map_or(0, |unit| unit.attempts);
        let alone = unit.is_some_and(|unit| unit.deliveries > 0);
        if unit.is_some_and(|unit| unit.status.ended() || unit.status == StepStatus::Retrying) {
            return true;
        }
        if step.off_peak.is_some() && self.waits_for_hours(place, &step) {
            return true;
        }
        let work = self.work(place);
        let work = work.and_then(|work| Ok((work, self.wish(place, &step.resources)?)));
        let (work, wish) = match work {
            Ok(work) => work,
            Err(Stop::Need(need)) => {
                self.run.live.needs.push(need);
                return true;
            }
            Err(Stop::Failed(message)) => {
                let error = TaskError {
                    reason: "expression".into(),
                    message,
                    ..TaskError::default()
                };
                self.end_started(place, StepStatus::Failed, Some(error));
                return true;
            }
        };
        let of = (place.scope, place.step);
        let taken = match granting.room.take(&work, wish.as_ref()) {
            Ok(taken) => taken,
            Err(Refused::Quota) => return false,
            Err(Refused::Room) => {
                if let Some(why) = granting.room.unfit_for(&work, wish.as_ref(), &step.queue) {
                    self.run.live.unfit.insert(of, why);
                }
                return false;
            }
        };
        if !self.run.live.unfit.is_empty() {
            self.run.live.unfit.remove(&of);
        }
        let offer = granting.offers.take();
        self.run.take_off(
            place,
            Flight {
                offer,
                granted_at: self.now,
                spot: taken.spot,
            },
        );
        if self.durable_grant(place) {
            self.emit(Fact::AttemptStarted(AttemptStarted {
                unit: place.into(),
                epoch: offer.epoch,
                counter: offer.counter,
                started: 0,
                attempt: attempts + 1,
            }));
        }
        granting.tasks.push(Task {
            offer,
            session: taken.session,
            queue: step.queue.clone(),
            run: self.run.state.meta.id,
            place,
            attempt: attempts + 1,
            alone,
            work,
        });
        true
    }

    /// True if the grant must be known before the attempt may begin.
    fn durable_grant(&self, place: Place) -> bool {
        self.run
            .state
            .plan_step(&self.run.plan, place)
            .is_some_and(|step| {
                let step = &step.step;
                !step.locks.is_empty() || step.once || !step.idempotent || step.retry.platform == 0
            })
    }

    /// What a unit's next attempt asks of its worker besides resources; none if nothing.
    fn wish(&self, place: Place, resources: &Resources) -> Result<Option<Wish>, Stop> {
        if resources.labels.is_empty() && resources.prefer.is_empty() && !resources.spot {
            return Ok(None);
        }
        let names = At::unit(self.run, place, self.now);
        let labels = |what: &str, labels: &Named<Template>| -> Result<Vec<_>, Stop> {
            let label = |(name, value): &(Arc<str>, Template)| {
                let text = self.text(value, &names);
                let text = text.map_err(|stop| named(&format!("resources.{what}.{name}"), stop))?;
                Ok((name.clone(), Arc::from(text)))
            };
            labels.iter().map(label).collect()
        };
        let preempted = self.run.state.preempted.get(&place).copied();
        let most = resources.preemptions.unwrap_or(PREEMPTIONS);
        let spot = match resources.spot {
            false => Spot::Never,
            true if preempted.unwrap_or(0) >= most => Spot::Last,
            true => Spot::First,
        };
        Ok(Some(Wish {
            labels: labels("labels", &resources.labels)?,
            prefer: labels("prefer", &resources.prefer)?,
            spot,
        }))
    }
}
