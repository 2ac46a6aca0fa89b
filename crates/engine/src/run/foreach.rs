//! Items of a foreach.

use kapell_api::task::{Place, TaskError};
use kapell_expr::{Template, Value};
use kapell_model::spec::{Dyn, FailurePolicy, Foreach, MinSuccess, Step};
use kapell_model::{StepStatus, limits};

use super::names::At;
use super::state::Page;
use super::{Decider, Stop};
use crate::event::{Fact, ForeachExpanded, ForeachStopped, ItemsEnded, PageClosed, UnitRef};

/// Items that are started one by one and have not ended, where the user set no bound.
const OPEN_ITEMS: u32 = 10_000;

/// The same where each has a fairness key, which is looked at whenever the run changes.
const OPEN_KEYED: u32 = 1_000;

/// Items started in one step of deciding.
const OPEN_BATCH: u32 = 256;

impl Decider<'_> {
    pub(super) fn expand(
        &mut self,
        place: Place,
        foreach: &Foreach,
        step: &Step,
    ) -> Result<(), Stop> {
        let names = At::unit(self.run, place, self.now);
        let mut lists = Vec::with_capacity(foreach.vars.len());
        for (name, template) in &foreach.vars {
            let value = self.run.live.loaded(&self.render(template, &names)?)?;
            match &value {
                Value::List(_) => lists.push(value),
                Value::Map(entries) => lists.push(Value::list(
                    entries
                        .iter()
                        .map(|(key, value)| {
                            Value::map([
                                ("key", Value::String(key.clone())),
                                ("value", value.clone()),
                            ])
                        })
                        .collect(),
                )),
                other => {
                    return Err(Stop::Failed(format!(
                        "`{name}` must be a list, and is a {}",
                        other.type_name()
                    )));
                }
            }
        }
        let count = Self::count(foreach, &lists)?;
        let concurrency = match &foreach.concurrency {
            None => 0,
            Some(Dyn::Fixed(bound)) => *bound,
            Some(Dyn::Expr(program)) => match self.eval(program, &names)? {
                Value::Int(bound) if bound > 0 => bound,
                Value::Null => 0,
                other => {
                    return Err(Stop::Failed(format!(
                        "`concurrency` must be a whole number of at least 1, and is {other}"
                    )));
                }
            },
        };
        let priority = match &step.priority {
            Some(Dyn::Fixed(priority)) => Some(*priority),
            Some(Dyn::Expr(program)) => self.eval(program, &names)?.as_int(),
            None => None,
        };
        let total = match &step.timeout.total {
            Some(total) => self.duration(total, &names)?.map_or(0, Self::micros),
            None => 0,
        };
        let own_keys = keys_of_items(foreach, step);
        let fairness = match &step.fairness {
            Some(fairness) if !own_keys => Some(self.text(&fairness.key, &names)?),
            _ => None,
        };
        let lists = lists.iter().map(|list| self.stored(list)).collect();
        self.emit(Fact::ForeachExpanded(ForeachExpanded {
            unit: place.into(),
            count,
            lists,
            concurrency: u32::try_from(concurrency).unwrap_or(u32::MAX),
            min_success: min_success(foreach.min_success, count),
            total,
            priority: priority.map_or(0, |priority| {
                u32::try_from(priority.clamp(0, 100)).unwrap_or(0) + 1
            }),
            fairness,
            opens: own_keys || step.off_peak.is_some(),
        }));
        Ok(())
    }

    fn count(foreach: &Foreach, lists: &[Value]) -> Result<u32, Stop> {
        let lens: Vec<usize> = lists
            .iter()
            .map(|list| list.as_list().map_or(0, |items| items.len()))
            .collect();
        let count = if foreach.zip {
            if lens.iter().any(|len| *len != lens[0]) {
                return Err(Stop::Failed(format!(
                    "`zip` needs lists of equal length, and these have {lens:?}"
                )));
            }
            lens.first().copied().unwrap_or(0)
        } else {
            lens.iter()
                .try_fold(1_usize, |product, len| product.checked_mul(*len))
                .unwrap_or(usize::MAX)
        };
        let count = match foreach.chunk {
            Some(chunk) => count.div_ceil(chunk.max(1) as usize),
            None => count,
        };
        if count > limits::FOREACH_ITEMS {
            return Err(Stop::Failed(format!(
                "{count} items are more than the {} a foreach may have; use `chunk`",
                limits::FOREACH_ITEMS
            )));
        }
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Something changed in the items: it ends, stops early, or starts more.
    pub(super) fn foreach_due(&mut self, place: Place) -> Result<(), Stop> {
        let Some(step) = self.run.state.step(place.scope, place.step) else {
            return Ok(());
        };
        let (Some(foreach), unit) = (&step.foreach, &step.unit) else {
            return Ok(());
        };
        if unit.status.ended() {
            return Ok(());
        }
        if self.run.state.waits.contains_key(&place) {
            // It stopped at a breakpoint, and all its items have ended.
            self.done_looking(place);
            return Ok(());
        }
        if foreach.ended() {
            return self.foreach_ended(place);
        }
        let out_of_reach = foreach.out_of_reach();
        if out_of_reach && !foreach.stopped {
            match self.run.plan.policy() {
                FailurePolicy::Continue => {}
                FailurePolicy::FinishRunning => {
                    self.leave_rest(place, StepStatus::Cancelled, false);
                    return Ok(());
                }
                FailurePolicy::FailFast => {
                    self.stop_items(place, false);
                    return Ok(());
                }
            }
        }
        if self.run.state.items_open(&self.run.plan, place) && unit.stop.is_none() {
            return self.open_items(place);
        }
        self.done_looking(place);
        Ok(())
    }

    fn done_looking(&mut self, place: Place) {
        self.run
            .state
            .todo
            .remove(&super::state::Todo::Foreach(place.scope, place.step));
    }

    fn foreach_ended(&mut self, place: Place) -> Result<(), Stop> {
        let Some(step) = self.run.state.step(place.scope, place.step) else {
            return Ok(());
        };
        let Some(foreach) = &step.foreach else {
            return Ok(());
        };
        if let Some(stop) = step.unit.stop {
            let error = step.unit.error.clone().map(|error| *error);
            self.end_started(place, stop, error);
            return Ok(());
        }
        if foreach.reached() {
            self.end(place, StepStatus::Succeeded, Value::Null, None);
            return Ok(());
        }
        let (bad, count, wanted) = (foreach.bad, foreach.count, foreach.min_success);
        let first = self.first_failure(place);
        let (label, inner) = first.unwrap_or_default();
        let mut message = format!("{bad} of {count} items failed");
        if wanted < count {
            message.push_str(&format!(" (at least {wanted} had to succeed)"));
        }
        if !inner.message.is_empty() {
            message.push_str(&format!("; first [{label}]: {}", inner.message));
        }
        let error = TaskError {
            message,
            permanent: true,
            ..inner
        };
        self.end_started(place, StepStatus::Failed, Some(error));
        Ok(())
    }

    fn first_failure(&self, place: Place) -> Option<(String, TaskError)> {
        let foreach = self
            .run
            .state
            .step(place.scope, place.step)?
            .foreach
            .as_ref()?;
        for (index, page) in foreach.pages.iter().enumerate() {
            let Page::Open { units, .. } = page else {
                continue;
            };
            if let Some(offset) = units.iter().position(|unit| unit.status.bad()) {
                let item = u32::try_from(index * limits::FOREACH_PAGE + offset).ok()?;
                let label = self.run.label(Place { item, ..place }, self.now);
                let error = units[offset].error.as_deref().cloned().unwrap_or_default();
                return Some((label.to_string(), error));
            }
        }
        None
    }

    /// No more items start; those that never did end with `status`.
    fn leave_rest(&mut self, place: Place, status: StepStatus, enough: bool) {
        let Some(step) = self.run.state.step(place.scope, place.step) else {
            return;
        };
        let Some(foreach) = &step.foreach else { return };
        if foreach.stopped {
            return;
        }
        let granted = self
            .run
            .live
            .items
            .get(&(place.scope, place.step))
            .map_or(0, |items| items.next)
            .max(foreach.next);
        let count = foreach.count;
        // Items to be tried again that are not in flight never started, or start no more.
        let waiting: Vec<u32> = (foreach.next..granted)
            .chain(foreach.again.iter().copied())
            .filter(|item| {
                let item = Place {
                    item: *item,
                    ..place
                };
                self.run.flight(item).is_none()
            })
            .collect();
        self.emit(Fact::ForeachStopped(ForeachStopped {
            unit: UnitRef::from(Place {
                item: Place::NO_ITEM,
                ..place
            }),
            enough,
            granted,
        }));
        for item in waiting {
            self.end(Place { item, ..place }, status, Value::Null, None);
        }
        if granted < count {
            self.emit(Fact::ItemsEnded(ItemsEnded {
                unit: place.into(),
                from: granted,
                to: count,
                status: u32::from(status.number()),
            }));
        }
        self.done_looking_unless_ended(place);
    }

    fn done_looking_unless_ended(&mut self, place: Place) {
        let ended = self
            .run
            .state
            .step(place.scope, place.step)
            .and_then(|step| step.foreach.as_ref())
            .is_none_or(|foreach| foreach.ended());
        if ended {
            self.run
                .state
                .todo
                .insert(super::state::Todo::Foreach(place.scope, place.step));
        } else {
            self.done_looking(place);
        }
    }

    /// Stops every item: with `enough` what is left is skipped and the step succeeds.
    pub(super) fn stop_items(&mut self, place: Place, enough: bool) {
        let place = Place {
            item: Place::NO_ITEM,
            ..place
        };
        let status = if enough {
            StepStatus::Skipped
        } else {
            StepStatus::Cancelled
        };
        self.leave_rest(place, status, enough);
        let Some(step) = self.run.state.step(place.scope, place.step) else {
            return;
        };
        let Some(foreach) = &step.foreach else { return };
        let mut open = Vec::new();
        for (index, page) in foreach.pages.iter().enumerate() {
            let Page::Open { units, left } = page else {
                continue;
            };
            if *left == 0 {
                continue;
            }
            for (offset, unit) in units.iter().enumerate() {
                let item = u32::try_from(index * limits::FOREACH_PAGE + offset).unwrap_or(u32::MAX);
                let tail = foreach.tail.is_some_and(|(from, _)| item >= from);
                if !unit.status.ended() && !tail {
                    open.push(Place { item, ..place });
                }
            }
        }
        // Items in flight whose page was never touched.
        let flights: Vec<Place> = self
            .run
            .live
            .flights
            .items((), place)
            .map(|(place, _)| place)
            .collect();
        for unit in flights.into_iter().chain(open) {
            if unit.scope == place.scope && unit.step == place.step {
                self.touch(unit);
                self.stop_unit(unit, status, None);
            }
        }
        self.done_looking_unless_ended(place);
    }

    fn touch(&mut self, place: Place) {
        let _ = self.run.state.unit_mut(place);
    }

    /// Starts items one by one, as many as may be open.
    fn open_items(&mut self, place: Place) -> Result<(), Stop> {
        for _ in 0..OPEN_BATCH {
            let Some(step) = self.run.state.step(place.scope, place.step) else {
                return Ok(());
            };
            let Some(foreach) = &step.foreach else {
                return Ok(());
            };
            let plan = self.run.state.plan_step(&self.run.plan, place);
            let keyed = plan.is_some_and(|plan| plan.step.fairness.is_some());
            let bound = match foreach.concurrency {
                0 if keyed => OPEN_KEYED,
                0 => OPEN_ITEMS,
                bound => bound,
            };
            if !foreach.has_more() || foreach.open >= bound {
                self.done_looking_unless_ended(place);
                return Ok(());
            }
            let item = foreach.again.first().copied().unwrap_or(foreach.next);
            self.start_unit(Place { item, ..place })?;
        }
        Ok(())
    }

    pub(super) fn close_page(&mut self, place: Place, page: u32) {
        let number = self.run.state.next_page;
        let Some(step) = self.run.state.step(place.scope, place.step) else {
            return;
        };
        let Some(Page::Open { units, .. }) = step
            .foreach
            .as_ref()
            .and_then(|foreach| foreach.pages.get(page as usize))
        else {
            return;
        };
        let bytes = postcard::to_stdvec(units).unwrap_or_default();
        self.out.pages.push((number, bytes));
        self.emit(Fact::PageClosed(PageClosed {
            unit: place.into(),
            page,
            number,
        }));
    }
}

/// True if each item has a fairness key of its own.
fn keys_of_items(foreach: &Foreach, step: &Step) -> bool {
    let key = step.fairness.as_ref().map(|fairness| &fairness.key);
    let programs = key.into_iter().flat_map(Template::programs);
    let mut paths = programs.flat_map(kapell_expr::Program::references);
    paths.any(|path| {
        path.first().is_some_and(|name| {
            &**name == "index" || foreach.vars.iter().any(|(var, _)| var == name)
        })
    })
}

/// How many of `count` items must succeed.
fn min_success(wanted: MinSuccess, count: u32) -> u32 {
    match wanted {
        MinSuccess::Count(_) if count == 0 => 0,
        MinSuccess::Count(wanted) => wanted,
        MinSuccess::Share(share) => {
            let wanted = (u64::from(count) * u64::from(share)).div_ceil(10_000);
            u32::try_from(wanted).unwrap_or(count).min(count)
        }
    }
}
