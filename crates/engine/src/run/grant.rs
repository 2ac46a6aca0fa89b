//! Tasks for workers.

use std::sync::Arc;

use kapell_api::task::{Place, Task, TaskError, TaskResources, Work};
use kapell_model::spec::Verb;
use kapell_model::{Offer, RunStatus, SessionId, StepStatus, Time};

use super::ready::Pick;
use super::{Decider, Decision, Effect, Flight, Run, Stop};
use crate::event::{AttemptStarted, Fact};

/// Numbers for offers: the owner's epoch and a counter of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// The next to be given.
    pub next: Offer,
}

/// What one worker has room for. Verbs that start nothing have room of their own, so that thousands
/// of them do not wait behind a few processes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seat {
    /// Whose.
    pub session: SessionId,
    /// Attempts that start a process or a request.
    pub process: usize,
    /// Attempts that start nothing.
    pub light: usize,
    /// What attempts may take of it now.
    pub free: TaskResources,
    /// What it has to give in all.
    pub total: TaskResources,
}

impl Seat {
    /// A worker that itself sees to it that no more starts than it has the means for.
    pub const fn unmeasured(session: SessionId, process: usize, light: usize) -> Self {
        Self {
            session,
            process,
            light,
            free: TaskResources::ALL,
            total: TaskResources::ALL,
        }
    }
}

/// What the workers of a queue have room for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Room {
    /// Those that serve it.
    pub seats: Vec<Seat>,
    /// Set when something was not granted for want of room.
    pub short: bool,
    /// Set when something was not granted because it asks for more than any of them has in all.
    pub unfit: bool,
}

impl Room {
    /// True if nothing fits.
    pub fn is_empty(&self) -> bool {
        self.seats
            .iter()
            .all(|seat| seat.process == 0 && seat.light == 0)
    }

    /// True if some worker may take an attempt of this verb, whatever it asks for.
    fn may_take(&mut self, verb: &Verb) -> bool {
        let light = matches!(verb, Verb::Noop | Verb::Fail { .. });
        let room = |seat: &Seat| if light { seat.light } else { seat.process };
        let some = self.seats.iter().any(|seat| room(seat) > 0);
        self.short |= !some;
        some
    }

    /// Takes room for an attempt at the worker that has most of it; none if it has to wait.
    fn take(&mut self, work: &Work) -> Option<SessionId> {
        let Some(process) = work.process() else {
            let seat = self.seats.iter_mut().max_by_key(|seat| seat.light)?;
            seat.light = seat.light.checked_sub(1)?;
            return Some(seat.session);
        };
        let needs = process.resources;
        let seats = self.seats.iter_mut();
        let seat = seats
            .filter(|seat| seat.process > 0 && seat.free.covers(&needs))
            .max_by_key(|seat| seat.process);
        let Some(seat) = seat else {
            let possible = self.seats.iter().any(|seat| seat.total.covers(&needs));
            self.short |= possible;
            self.unfit |= !possible;
            return None;
        };
        seat.process -= 1;
        seat.free = seat.free.less(&needs);
        Some(seat.session)
    }

    /// What is to be said of an attempt that asks for more than any worker has in all; none if some
    /// worker has enough.
    fn unfit_for(&self, work: &Work, queue: &str) -> Option<String> {
        let needs = work.process()?.resources;
        let totals = self.seats.iter().map(|seat| seat.total);
        if self.seats.is_empty() || totals.clone().any(|total| total.covers(&needs)) {
            return None;
        }
        let largest = totals.max_by_key(|total| {
            let enough = [
                total.cpu_millis >= needs.cpu_millis,
                total.memory_bytes >= needs.memory_bytes,
                total.gpus >= needs.gpus,
            ];
            let enough = enough.iter().filter(|enough| **enough).count();
            (enough, total.memory_bytes, total.cpu_millis)
        })?;
        Some(format!(
            "a worker in queue `{queue}` that has {}; the closest there now has {}",
            amounts(&needs),
            amounts(&largest)
        ))
    }
}

/// Resources in words: `2 cores, 20 GiB of memory and 1 GPU`.
fn amounts(of: &TaskResources) -> String {
    let mut parts = Vec::new();
    if of.cpu_millis > 0 {
        let (whole, thousandths) = (of.cpu_millis / 1_000, of.cpu_millis % 1_000);
        let part = format!("{whole}.{thousandths:03}");
        let number = part.trim_end_matches('0').trim_end_matches('.');
        let word = if of.cpu_millis == 1_000 {
            "core"
        } else {
            "cores"
        };
        parts.push(format!("{number} {word}"));
    }
    if of.memory_bytes > 0 {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let unit = units.iter().find(|(shift, _)| of.memory_bytes >> shift > 0);
        let (shift, name) = unit.copied().unwrap_or((0, "bytes"));
        let tenths = (u128::from(of.memory_bytes) * 10) >> shift;
        let number = format!("{}.{}", tenths / 10, tenths % 10);
        parts.push(format!(
            "{} {name} of memory",
            number.trim_end_matches(".0")
        ));
    }
    if of.gpus > 0 {
        let word = if of.gpus == 1 { "GPU" } else { "GPUs" };
        parts.push(format!("{} {word}", of.gpus));
    }
    match parts.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
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
        let work = match self.work(place) {
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
        let Some(session) = granting.room.take(&work) else {
            if let Some(why) = granting.room.unfit_for(&work, &step.queue) {
                self.run.live.unfit.insert(of, why);
            }
            return false;
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
            session,
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
}
