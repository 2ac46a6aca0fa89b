//! Locks that units ask for, one after another.

use kapell_api::task::{Place, TaskError};
use kapell_expr::{Template, Value};
use kapell_model::{EntityKey, StepStatus};

use super::input::Taken;
use super::names::At;
use super::{Decider, Refusal, Stop};
use crate::event::{Fact, LockRequested};
use crate::message::Message;

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
        let held = self
            .run
            .state
            .locks
            .get(&place)
            .map_or(0, |locks| locks.held.len());
        let Some((name, lock)) = locks.get(held) else {
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
            },
        );
        Ok(())
    }

    /// A lock that is a rate for others, or the other way round, is none that the unit could get.
    pub(super) fn lock_refused(&mut self, place: Place, name: &str) -> Taken {
        let locks = self.run.state.locks.get(&place);
        let asked = locks.and_then(|locks| locks.asked.as_deref());
        if asked != Some(name) {
            return Err(Refusal::Stale);
        }
        let error = TaskError {
            reason: "lock".into(),
            message: format!(
                "others use `{name}` as a lock, and this step as a rate, or the other way round: one of them needs another name"
            ),
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
