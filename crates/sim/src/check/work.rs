//! What is handed to workers: never twice, never too much, never without its locks.

use std::sync::Arc;

use kapell_api::task::{Place, Task};
use kapell_model::spec::Step;
use kapell_model::{EntityKey, Offer, RunId, RunStatus, StepStatus};

use super::{Checks, Shadow, Verdict, wrong};
use crate::worker::{Attempt, Worker};
use crate::world::{Failure, NAMESPACE};

impl Checks {
    /// An attempt leaves for the worker. Returns the locks its unit holds.
    pub(crate) fn offered(
        &mut self,
        task: &Task,
        worker: &Worker,
    ) -> Result<Vec<Arc<str>>, Failure> {
        let Some(shadow) = self.runs.get(&task.run) else {
            wrong("offer", format!("{} is not durable", task.run))?;
            return Ok(Vec::new());
        };
        let step = shadow.may_offer(task, worker)?;
        shadow.bounds_of_offer(task, worker)?;
        let held = self.locks_of_offer(shadow, task, &step, worker)?;
        if let Some(shadow) = self.runs.get_mut(&task.run) {
            let offers = shadow.offered.entry(task.place).or_default();
            offers.push(task.offer);
            shadow
                .attempts
                .insert(task.place, (task.offer, task.attempt));
        }
        Ok(held)
    }

    /// An attempt leaves although its owner is no more: nothing is looked at before it comes to a worker.
    pub(crate) fn offered_late(&mut self, task: &Task) {
        if let Some(shadow) = self.runs.get_mut(&task.run) {
            let offers = shadow.offered.entry(task.place).or_default();
            offers.push(task.offer);
            offers.sort_unstable();
        }
    }

    /// An attempt comes to a worker: no other of its unit is at work.
    pub(crate) fn arrives(&self, task: &Task, worker: &Worker) -> Verdict {
        let Some(shadow) = self.runs.get(&task.run) else {
            return Ok(());
        };
        let counts = |attempt: &&Attempt| shadow.counts_attempt(attempt);
        match worker.of_unit(task.run, task.place).find(counts) {
            None => Ok(()),
            Some(other) => {
                let path = shadow.name(task.place);
                let (offer, beside) = (task.offer, other.offer);
                wrong(
                    "twice",
                    format!("{path} begins as {offer:?} beside {beside:?}"),
                )
            }
        }
    }

    /// A worker is told that its result need not be said again: it is durable, or nobody waits for it.
    pub(crate) fn taken(&self, (run, place, offer): &(RunId, Place, Offer)) -> Verdict {
        let Some(shadow) = self.runs.get(run) else {
            return Ok(());
        };
        let state = &shadow.state;
        let waited = |(last, attempt): &(Offer, u32)| {
            let ended = state.attempts_of_open(*place);
            last == offer
                && *offer > shadow.before
                && !state.ended()
                && ended.is_some_and(|ended| ended < *attempt)
        };
        if shadow.attempts.get(place).is_some_and(waited) {
            let path = shadow.name(*place);
            return wrong(
                "taken",
                format!("{path} of {run}, {offer:?}, is not durable"),
            );
        }
        Ok(())
    }

    /// Every lock of the step is held, and by no more attempts than it allows.
    fn locks_of_offer(
        &self,
        shadow: &Shadow,
        task: &Task,
        step: &Step,
        worker: &Worker,
    ) -> Result<Vec<Arc<str>>, Failure> {
        let path = shadow.name(task.place);
        let held: Vec<Arc<str>> = shadow
            .state
            .locks
            .get(&task.place)
            .map_or(Vec::new(), |locks| locks.held.clone());
        if held.len() != step.locks.len() {
            wrong(
                "lock",
                format!("{path} is offered with {held:?} of {}", step.locks.len()),
            )?;
        }
        for name in &held {
            let key = EntityKey::Lock {
                namespace: NAMESPACE.into(),
                name: name.clone(),
            };
            let Some(lock) = self.locks.get(&key).filter(|lock| lock.period == 0) else {
                continue;
            };
            let holders = 1 + worker
                .live()
                .filter(|other| other.locks.contains(name))
                .filter(|other| {
                    self.runs
                        .get(&other.run)
                        .is_some_and(|shadow| shadow.counts_attempt(other))
                })
                .count();
            if holders > lock.max as usize {
                wrong(
                    "lock",
                    format!("{path}: `{name}` is held by {holders} of {}", lock.max),
                )?;
            }
        }
        Ok(held)
    }
}

impl Shadow {
    /// True unless the attempt was told to stop, stayed silent, and was given up.
    fn counts_attempt(&self, attempt: &Attempt) -> bool {
        if attempt.offer <= self.before {
            return false;
        }
        !self.stopping.contains(&attempt.place)
            || self
                .state
                .unit(attempt.place)
                .is_some_and(|unit| unit.status == StepStatus::Cancelling)
    }

    /// The run ends: whatever is still at the worker was told to stop. What an owner before handed out may be
    /// at one that its owner now has not heard yet: that is stopped once it is.
    pub(super) fn nothing_left(&self, worker: &Worker) -> Verdict {
        let counts = |attempt: &&Attempt| {
            let known = attempt.offer > self.before && attempt.offer.epoch >= self.epoch;
            known && !self.stopping.contains(&attempt.place)
        };
        let left = worker.of_run(self.state.meta.id).find(counts);
        match left {
            None => Ok(()),
            Some(left) => wrong(
                "left",
                format!("{} is at work and its run ends", self.name(left.place)),
            ),
        }
    }

    /// The unit waits for an attempt, and for this one.
    fn may_offer(&self, task: &Task, worker: &Worker) -> Result<Arc<Step>, Failure> {
        let place = task.place;
        let state = &self.state;
        let path = self.name(place);
        let offer = |detail| wrong("offer", detail);
        if state.ended() || state.status == RunStatus::Queued {
            offer(format!(
                "{path} is offered while its run is {}",
                state.status
            ))?;
        }
        let Some(plan) = self.plan_of(place) else {
            return Err(Failure {
                what: "offer",
                detail: format!("{path} is not in the run"),
            });
        };
        let step = plan.step.clone();
        let unit = state.unit(place);
        if let Some(unit) = unit
            && (unit.status.ended() || unit.status == StepStatus::Retrying)
        {
            offer(format!("{path} is offered and is {}", unit.status))?;
        }
        let attempts = unit.map_or(0, |unit| unit.attempts);
        if task.attempt != attempts + 1 {
            offer(format!(
                "{path} is offered as try {} after {attempts}",
                task.attempt
            ))?;
        }
        let other = worker
            .of_unit(task.run, place)
            .find(|attempt| self.counts_attempt(attempt));
        if let Some(other) = other {
            let detail = format!(
                "{path} is offered as {:?} beside {:?}",
                task.offer, other.offer
            );
            wrong("twice", detail)?;
        }
        let offers = self.offered.get(&place).map_or(&[][..], Vec::as_slice);
        if offers.iter().any(|other| *other >= task.offer) {
            offer(format!(
                "{path} is offered as {:?} after {offers:?}",
                task.offer
            ))?;
        }
        if step.once && !offers.is_empty() {
            wrong(
                "once",
                format!("{path} is handed out again after {offers:?}"),
            )?;
        }
        if !step.idempotent && self.lost.contains(&place) {
            wrong("idempotent", format!("{path} is repeated after a loss"))?;
        }
        Ok(step)
    }

    /// Never more attempts of a run, nor items of a foreach, than were asked for.
    fn bounds_of_offer(&self, task: &Task, worker: &Worker) -> Verdict {
        let place = task.place;
        let alive = |attempt: &&Attempt| self.counts_attempt(attempt);
        if let Some(bound) = self.plan.spec.max_parallelism {
            let in_flight = 1 + worker.of_run(task.run).filter(alive).count();
            if in_flight > bound as usize {
                let detail = format!("{}: {in_flight} in flight of {bound}", self.name(place));
                return wrong("max_parallelism", detail);
            }
        }
        let foreach = self
            .state
            .step(place.scope, place.step)
            .and_then(|step| step.foreach.as_ref())
            .filter(|foreach| place.item != Place::NO_ITEM && foreach.concurrency > 0);
        let Some(foreach) = foreach else {
            return Ok(());
        };
        let here = |attempt: &&Attempt| {
            attempt.place.scope == place.scope && attempt.place.step == place.step
        };
        let items = 1 + worker.of_run(task.run).filter(alive).filter(here).count();
        if items > foreach.concurrency as usize {
            let detail = format!("{}: {items} of {}", self.name(place), foreach.concurrency);
            return wrong("concurrency", detail);
        }
        Ok(())
    }
}
