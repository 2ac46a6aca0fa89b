//! Locks that units ask for, one after another.

use std::sync::Arc;

use kapell_api::task::{Place, TaskError};
use kapell_expr::{Template, Value, format_duration};
use kapell_model::spec::LockUse;
use kapell_model::{EntityKey, RunStatus, StepStatus, Time, limits};

use super::input::Taken;
use super::names::At;
use super::{Decider, Refusal, Stop};
use crate::event::{Fact, LockRequested};
use crate::message::{LockRefusal, Message};

impl Decider<'_> {
    pub(super) fn request_lock(&mut self, place: Place) -> Result<(), Stop> {
        let Some(plan) = self.run.state.plan_step(&self.run.plan, place) else {
            return Ok(());
        };
        let step = plan.step.clone();
        let names = At::unit(self.run, place, self.now);
        let mut locks = Vec::with_capacity(step.locks.len());
        for lock in &step.locks {
            match self.render(&lock.name, &names) {
                Ok(value) => {
                    if let Some(name) = value.scalar_text().filter(|text| !text.is_empty()) {
                        locks.push((name, lock));
                    } else {
                        let message = format!("a lock's name cannot be a {}", value.type_name());
                        return self.expression_failed(place, message);
                    }
                }
                Err(stop) => return self.failed_by(place, "locks", stop),
            }
        }
        locks.sort_by(|a, b| a.0.cmp(&b.0));
        // Different expressions may give one name, and nobody waits for what they hold themselves.
        for pair in locks.windows(2) {
            let ((name, one), (other, two)) = (&pair[0], &pair[1]);
            if name == other && (one.max, one.per) != (two.max, two.per) {
                let (one, two) = (bound(one), bound(two));
                let message = format!("locks: `{name}` is named twice, with {one} and with {two}");
                return self.expression_failed(place, message);
            }
        }
        locks.dedup_by(|a, b| a.0 == b.0);
        let held = self
            .run
            .state
            .locks
            .get(&place)
            .map_or(0, |locks| locks.held.len());
        let Some((name, lock)) = locks.get(held) else {
            // It holds all that it names, though it names fewer than its definition does.
            self.emit(Fact::LockGranted(place.into()));
            return Ok(());
        };
        let run = self.run.state.meta.id;
        let namespace = self.run.state.meta.namespace.clone();
        let key = EntityKey::Lock {
            namespace,
            name: name.as_str().into(),
        };
        let period = lock.per.map_or(0, Self::micros);
        let max = lock.max;
        let path = self.run.state.path(&self.run.plan, place).into();
        self.emit(Fact::LockRequested(LockRequested {
            unit: place.into(),
            name: name.clone(),
            index: u32::try_from(held).unwrap_or(0),
        }));
        self.send(
            key,
            Message::Acquire {
                run,
                place,
                max,
                period,
                path,
                asked: self.asks_since(place),
            },
        );
        Ok(())
    }

    /// Which of the unit's requests are under way.
    pub(super) fn asks_since(&self, place: Place) -> Option<Time> {
        let locks = self.run.state.locks.get(&place);
        locks.map(|locks| locks.since)
    }

    /// A lock is granted to a unit. A request that was withdrawn meanwhile goes straight back, and so does
    /// what a paused run is granted: it starts nothing, and others can.
    pub(super) fn lock_came(
        &mut self,
        place: Place,
        name: &Arc<str>,
        at: Option<Time>,
        request: Option<Time>,
    ) {
        let state = &self.run.state;
        let asked = state.locks.get(&place).and_then(|of| of.asked.as_ref());
        let known = request.is_none() || request == self.asks_since(place);
        let wanted = asked == Some(name) && known;
        if wanted {
            self.emit(Fact::LockGranted(place.into()));
        }
        let paused = self.run.state.status == RunStatus::Paused;
        if wanted && paused {
            self.emit(Fact::LocksReturned(place.into()));
        }
        if !wanted || paused {
            let request = request.or_else(|| self.asks_since(place));
            self.give_back(place, name.clone(), (at, request));
        }
    }

    /// The run is paused: units without an attempt give back what they hold. Requests stay in line, and go
    /// back when they are granted: were they withdrawn, a grant under way could not be told from the next.
    pub(super) fn return_locks(&mut self) {
        let state = &self.run.state;
        let idle = state.locks.iter().filter(|(place, of)| {
            let attempted = state.started.contains_key(place) || self.run.flight(**place).is_some();
            !attempted && !of.held.is_empty()
        });
        let idle: Vec<_> = idle.map(|(place, of)| (*place, of.held.clone())).collect();
        for (place, held) in idle {
            for name in held {
                let request = self.asks_since(place);
                self.give_back(place, name, (None, request));
            }
            self.emit(Fact::LocksReturned(place.into()));
        }
    }

    /// A unit gives back what it holds of a request, or takes that back.
    pub(super) fn give_back(
        &mut self,
        place: Place,
        name: Arc<str>,
        (unused, asked): (Option<Time>, Option<Time>),
    ) {
        let run = self.run.state.meta.id;
        let namespace = self.run.state.meta.namespace.clone();
        self.send(
            EntityKey::Lock { namespace, name },
            Message::Release {
                run,
                place,
                unused,
                asked,
            },
        );
    }

    /// A lock that the unit can never get.
    pub(super) fn lock_refused(&mut self, place: Place, name: &str, why: LockRefusal) -> Taken {
        let locks = self.run.state.locks.get(&place);
        if locks.and_then(|locks| locks.asked.as_deref()) != Some(name) {
            return Err(Refusal::Stale);
        }
        let (reason, message) = match why {
            LockRefusal::OtherKind => (
                "lock",
                format!(
                    "others use `{name}` as a lock, and this step as a rate, or the other way round: one of them needs another name"
                ),
            ),
            LockRefusal::Full => (
                "too_many_wait",
                format!(
                    "{} steps already wait for the lock `{name}`, and no more may",
                    limits::LOCK_REQUESTS
                ),
            ),
        };
        let error = TaskError {
            reason: reason.into(),
            message,
            ..TaskError::default()
        };
        self.end_started(place, StepStatus::Failed, Some(error));
        Ok(())
    }

    /// A map of rendered values.
    pub(super) fn named(
        &self,
        values: &kapell_model::spec::Named<Template>,
        names: &At<'_>,
    ) -> Result<Value, Stop> {
        let mut map = kapell_expr::Map::new();
        for (name, template) in values {
            let value = self.render(template, names).map_err(|stop| match stop {
                Stop::Failed(message) => Stop::Failed(format!("{name}: {message}")),
                Stop::Need(need) => Stop::Need(need),
            })?;
            map.insert(name.clone(), value);
        }
        Ok(Value::Map(map.into()))
    }
}

/// The bound of a lock as its definition says it.
fn bound(lock: &LockUse) -> String {
    match lock.per {
        None => format!("`max: {}`", lock.max),
        Some(per) => format!("`max: {}, per: {}`", lock.max, format_duration(per)),
    }
}

#[cfg(test)]
mod tests;
