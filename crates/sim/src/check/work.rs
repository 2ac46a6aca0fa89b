//! What is handed to workers: never twice, never too much, never without its locks.

use std::sync::Arc;

use kapell_api::task::{Place, Task};
use kapell_model::{RunStatus, StepStatus, limits};

use super::Checks;
use crate::worker::{Attempt, Worker};
use crate::world::Failure;

fn wrong<T>(what: &'static str, detail: String) -> Result<T, Failure> {
    Err(Failure { what, detail })
}

/// After this long a stopped attempt that stays silent is given up, in microseconds.
fn patience() -> i64 {
    i64::try_from(limits::GRACE.as_micros() * 3).unwrap_or(i64::MAX)
}

impl Checks {
    /// An attempt leaves for the worker. Returns the locks its unit holds.
    pub(crate) fn offered(
        &mut self,
        task: &Task,
        worker: &Worker,
        now: i64,
    ) -> Result<Vec<Arc<str>>, Failure> {
        let place = task.place;
        let Some(shadow) = self.runs.get_mut(&task.run) else {
            return wrong("offer", format!("{} is not durable", task.run));
        };
        let state = &shadow.state;
        let path = format!("{} {}", task.run, state.path(&shadow.plan, place));
        if state.ended() || state.status == RunStatus::Queued {
            return wrong("offer", format!("{path} is offered while its run is {}", state.status));
        }
        let plan = state
            .scopes
            .get(&place.scope)
            .and_then(|scope| shadow.plan.graphs.get(scope.graph as usize))
            .and_then(|graph| graph.steps.get(usize::from(place.step)));
        let Some(plan) = plan else { return wrong("offer", format!("{path} is not in the run")) };
        let step = plan.step.clone();
        let unit = state.unit(place);
        let attempts = unit.map_or(0, |unit| unit.attempts);
        if let Some(unit) = unit
            && (unit.status.ended() || unit.status == StepStatus::Retrying)
        {
            return wrong("offer", format!("{path} is offered and is {}", unit.status));
        }
        if task.attempt != attempts + 1 {
            return wrong("offer", format!("{path} is offered as try {} after {attempts}", task.attempt));
        }
        let alive = |attempt: &&Attempt| {
            attempt
                .stopped_at
                .is_none_or(|stopped| now - stopped < patience())
        };
        if let Some(other) = worker.of_unit(task.run, place).find(alive) {
            return wrong("twice", format!("{path} is offered as {:?} beside {:?}", task.offer, other.offer));
        }
        let offers = shadow.offered.entry(place).or_default();
        if offers.iter().any(|offer| *offer >= task.offer) {
            return wrong("offer", format!("{path} is offered as {:?} after {offers:?}", task.offer));
        }
        offers.push(task.offer);
        if step.once && offers.len() > 1 {
            return wrong("once", format!("{path} is handed out {} times", offers.len()));
        }
        if !step.idempotent && shadow.lost.contains(&place) {
            return wrong("idempotent", format!("{path} is repeated after a loss"));
        }
        if let Some(bound) = shadow.plan.spec.max_parallelism {
            let in_flight = 1 + worker.of_run(task.run).filter(alive).count();
            if in_flight > bound as usize {
                return wrong(
                    "max_parallelism",
                    format!("{path}: {in_flight} in flight of {bound}"),
                );
            }
        }
        if place.item != Place::NO_ITEM
            && let Some(foreach) =
                state.step(place.scope, place.step).and_then(|step| step.foreach.as_ref())
            && foreach.concurrency > 0
        {
            let here = |attempt: &&Attempt| {
                attempt.place.scope == place.scope && attempt.place.step == place.step
            };
            let items = 1 + worker.of_run(task.run).filter(alive).filter(here).count();
            if items > foreach.concurrency as usize {
                return wrong("concurrency", format!("{path}: {items} of {}", foreach.concurrency));
            }
        }
        let held: Vec<Arc<str>> = state.locks.get(&place).map_or(Vec::new(), |locks| locks.held.clone());
        if held.len() != step.locks.len() {
            return wrong("lock", format!("{path} is offered with {held:?} of {}", step.locks.len()));
        }
        for name in &held {
            let use_of = step.locks.iter().find(|lock| {
                let text = format!("{:?}", lock.name);
                lock.per.is_none() && (text.contains(&**name) || name.starts_with("n-"))
            });
            let Some(bound) = use_of.map(|lock| lock.max) else { continue };
            let holders = 1 + worker
                .live()
                .filter(|other| other.stopped_at.is_none_or(|stopped| now - stopped < patience()))
                .filter(|other| other.locks.contains(name))
                .count();
            if holders > bound as usize {
                return wrong("lock", format!("{path}: `{name}` is held by {holders} of {bound}"));
            }
        }
        Ok(held)
    }
}
