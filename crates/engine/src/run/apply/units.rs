//! Units: ready, attempted, ended; items of a foreach.

use std::sync::Arc;

use kapell_api::task::{Place, TaskError};
use kapell_expr::Value;
use kapell_model::spec::FailurePolicy;
use kapell_model::{StepStatus, Time};

use super::super::ready::Ready;
use super::super::state::{ForeachState, Inner, Page, RunError, State, TimerKind, Todo, split};
use crate::event::{AttemptEnded, AttemptResult, Event, ForeachExpanded, Next, Stored, UnitReady};
use crate::plan::{Plan, StepPlan};

use super::reopen::forget_discarded;
use super::{count_retry, error, value};

impl State {
    pub(super) fn unit_ready(&mut self, plan: &Plan, event: &Event, ready: &UnitReady) {
        let place: Place = ready.unit.into();
        self.note_item_started(place);
        self.step_begun(place);
        self.set_total(place, event, ready.total);
        if ready.queue > 0 {
            self.timers
                .set(place, TimerKind::QueueTimeout, event.time(ready.queue));
        }
        let at = Time(event.at);
        let waits = ready.not_before > 0;
        if waits {
            // What has waited for a worker until now does so no longer.
            self.forget_attempt(plan, place);
        }
        if let Some(step) = self.step_mut(place.scope, place.step)
            && ready.priority > 0
        {
            step.priority = u8::try_from(ready.priority).unwrap_or(101);
        }
        if let Some(key) = &ready.fairness {
            self.keys.insert(place, key.as_str().into());
        }
        if waits {
            self.timers
                .set(place, TimerKind::NotBefore, event.time(ready.not_before));
        }
        let has_locks = self.has_locks(plan, place);
        if let Some(unit) = self.unit_mut(place) {
            if unit.ready_at == Time::ZERO {
                unit.ready_at = at;
            }
            unit.status = if waits || has_locks {
                StepStatus::Waiting
            } else {
                StepStatus::Queued
            };
        }
        if waits {
            return;
        }
        if has_locks {
            self.todo.insert(Todo::Lock(place));
        } else {
            self.enter_ready(plan, place);
        }
    }

    pub(super) fn has_locks(&self, plan: &Plan, place: Place) -> bool {
        self.plan_step(plan, place)
            .is_some_and(|step| !step.step.locks.is_empty())
    }

    pub(in crate::run) fn plan_step<'p>(
        &self,
        plan: &'p Plan,
        place: Place,
    ) -> Option<&'p crate::plan::StepPlan> {
        let graph = self.scopes.get(&place.scope)?.graph;
        plan.graphs
            .get(graph as usize)?
            .steps
            .get(usize::from(place.step))
    }

    /// A unit holds the lock that it asked for; where it asked for none, all that it names.
    pub(super) fn lock_granted(&mut self, plan: &Plan, place: Place) {
        let wanted = self
            .plan_step(plan, place)
            .map_or(0, |step| step.step.locks.len());
        let Some(locks) = self.locks.get_mut(&place) else {
            return;
        };
        let granted = locks.asked.take();
        let all_held = granted.is_none();
        locks.held.extend(granted);
        if locks.held.len() < wanted && !all_held {
            self.todo.insert(Todo::Lock(place));
            return;
        }
        self.todo.remove(&Todo::Lock(place));
        if let Some(unit) = self.unit_mut(place) {
            unit.status = StepStatus::Queued;
        }
        self.enter_ready(plan, place);
    }

    /// A unit holds no lock any more and must ask for the first again. What it asked for and did not get it
    /// still asks for.
    pub(super) fn locks_returned(&mut self, plan: &Plan, place: Place) {
        self.leave_ready(plan, place);
        self.locks.entry(place).or_default().held.clear();
        self.todo.insert(Todo::Lock(place));
        if let Some(unit) = self.unit_mut(place) {
            unit.status = StepStatus::Waiting;
        }
    }

    /// Where a unit stands in `ready`: the foreach as one, unless its items start one by one.
    pub(super) fn ready_place(&self, plan: &Plan, place: Place) -> Place {
        if place.item != Place::NO_ITEM && !self.items_open(plan, place) {
            Place {
                item: Place::NO_ITEM,
                ..place
            }
        } else {
            place
        }
    }

    fn ready_key(&self, place: Place) -> (Option<Arc<str>>, (u8, Place)) {
        let step = self.step(place.scope, place.step);
        let own = step.map_or(0, |step| step.priority);
        let priority = if own > 0 { own - 1 } else { self.meta.priority };
        let foreach = step.and_then(|step| step.foreach.as_ref());
        let key = match foreach {
            Some(foreach) if place.item == Place::NO_ITEM => foreach.key.clone(),
            _ if self.keys.is_empty() => None,
            _ => self.keys.get(&place).cloned(),
        };
        (key, (100 - priority.min(100), place))
    }

    pub(in crate::run) fn enter_ready(&mut self, plan: &Plan, place: Place) {
        let stands = self.ready_place(plan, place);
        if stands != place
            && let Some(foreach) = self.foreach_mut(place)
        {
            foreach.again.insert(place.item);
        }
        self.stand_ready(plan, stands);
    }

    /// Puts a place among what waits for workers.
    pub(super) fn stand_ready(&mut self, plan: &Plan, stands: Place) {
        let (key, unit) = self.ready_key(stands);
        if let Some(step) = self.plan_step(plan, stands) {
            self.ready
                .entry(step.step.queue.clone())
                .or_default()
                .insert(key, unit);
        }
    }

    pub(super) fn leave_ready(&mut self, plan: &Plan, place: Place) {
        let stands = self.ready_place(plan, place);
        if stands != place
            && let Some(foreach) = self.foreach_mut(place)
        {
            foreach.again.remove(&place.item);
            // Items that are tried again stay, also where no new ones start.
            if foreach.has_more() || !foreach.again.is_empty() {
                return;
            }
        }
        let (key, unit) = self.ready_key(stands);
        let Some(step) = self.plan_step(plan, place) else {
            return;
        };
        if let Some(queue) = self.ready.get_mut(&step.step.queue) {
            queue.remove(key.as_deref(), unit);
            if queue.is_empty() {
                self.ready.remove(&step.step.queue);
            }
        }
    }

    pub(super) fn rebuild_ready(&mut self, plan: &Plan) {
        let places: Vec<Place> = self
            .ready
            .values()
            .flat_map(Ready::units)
            .map(|(_, place)| place)
            .collect();
        self.ready.clear();
        for place in places {
            self.stand_ready(plan, place);
        }
    }

    /// What a step does has begun: nothing is to be decided about its needs any more.
    pub(super) fn step_begun(&mut self, place: Place) {
        self.forget_passed(place);
        self.todo.remove(&Todo::Step(place.scope, place.step));
        self.timers.unset(place, TimerKind::Retry);
        self.timers.unset(place, TimerKind::NotBefore);
    }

    pub(super) fn set_total(&mut self, place: Place, event: &Event, total: i64) {
        if total > 0 && self.timers.get(place, TimerKind::TotalTimeout).is_none() {
            self.timers
                .set(place, TimerKind::TotalTimeout, event.time(total));
        }
    }

    pub(in crate::run) fn foreach_mut(&mut self, place: Place) -> Option<&mut ForeachState> {
        self.step_mut(place.scope, place.step)?
            .foreach
            .as_deref_mut()
    }

    /// An item that is heard of for the first time has been started: the cursor moves past it.
    pub(super) fn note_item_started(&mut self, place: Place) {
        if place.item == Place::NO_ITEM {
            return;
        }
        let Some(foreach) = self.foreach_mut(place) else {
            return;
        };
        foreach.again.remove(&place.item);
        if foreach
            .unit(place.item)
            .is_none_or(|unit| unit.status == StepStatus::Pending)
        {
            foreach.open += 1;
        }
        if place.item >= foreach.next {
            // Items are granted in order but may end in any order: those passed over were granted
            // too, and are granted again should the owner forget it.
            foreach.again.extend(foreach.next..place.item);
            foreach.next = place.item + 1;
        }
    }

    pub(super) fn attempt_ended(&mut self, plan: &Plan, event: &Event, ended: &AttemptEnded) {
        let place: Place = ended.unit.into();
        let at = event.time(ended.ended);
        let result = AttemptResult::from_number(ended.result);
        self.note_item_started(place);
        if ended.next != Next::Succeeded as u32 {
            self.forget_attempt(plan, place);
        }
        if result == AttemptResult::Lost {
            self.lost.insert(
                place,
                kapell_model::Offer {
                    epoch: ended.epoch,
                    counter: ended.counter,
                },
            );
        }
        if ended.preempted {
            *self.preempted.entry(place).or_default() += 1;
        }
        let Some(unit) = self.unit_mut(place) else {
            return;
        };
        unit.attempts = ended.attempt;
        unit.started_at = event.time(ended.started);
        if unit.ready_at == Time::ZERO {
            unit.ready_at = unit.started_at;
        }
        if result == AttemptResult::Lost && !ended.explained {
            unit.deliveries = unit.deliveries.saturating_add(1);
        }
        if ended.next == Next::Succeeded as u32 {
            let output = value(ended.output.as_ref());
            self.end_unit(plan, place, at, StepStatus::Succeeded, output, None, false);
            self.note_emits(plan, place);
        } else if ended.next == Next::Retry as u32 {
            unit.status = StepStatus::Retrying;
            unit.error = error(ended.error.as_deref());
            count_retry(unit, ended.error.as_ref().map_or(1, |error| error.kind));
            self.timers
                .set(place, TimerKind::Retry, event.time(ended.retry));
        } else {
            // Its end follows; until then it counts as open once.
            unit.status = StepStatus::Running;
            unit.error = error(ended.error.as_deref());
        }
    }

    /// An attempt is over: nothing of it is in flight, ready or locked any more.
    pub(super) fn forget_attempt(&mut self, plan: &Plan, place: Place) {
        self.started.remove(&place);
        self.locks.remove(&place);
        self.waits.remove(&place);
        self.todo.remove(&Todo::Lock(place));
        self.timers.unset(place, TimerKind::GiveUp);
        self.timers.unset(place, TimerKind::QueueTimeout);
        if !self.ready.is_empty() {
            self.leave_ready(plan, place);
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one place through which every unit ends"
    )]
    pub(super) fn end_unit(
        &mut self,
        plan: &Plan,
        place: Place,
        at: Time,
        status: StepStatus,
        output: Value,
        error: Option<Box<TaskError>>,
        tolerated: bool,
    ) {
        self.forget_attempt(plan, place);
        self.forget_passed(place);
        self.timers.clear(place);
        if !self.keys.is_empty() {
            self.keys.remove(&place);
        }
        if !self.preempted.is_empty() {
            self.preempted.remove(&place);
        }
        if status.good() || status == StepStatus::Skipped {
            self.drop_items(place);
        }
        if self
            .unit(place)
            .is_some_and(|unit| unit.inner != Inner::None)
        {
            if status.good() || status == StepStatus::Skipped {
                self.drop_inner(place);
            }
            self.leave_handler(place);
            self.leave_inner(place);
        }
        self.lost.remove(&place);
        let Some(unit) = self.unit_mut(place) else {
            return;
        };
        if unit.status.ended() {
            return;
        }
        unit.status = status;
        unit.stop = None;
        unit.ended_at = at;
        unit.output = output;
        unit.error = error;
        forget_discarded(unit);
        self.counts[usize::from(!status.good())] += 1;
        if place.item == Place::NO_ITEM {
            self.step_ended(plan, place, status, tolerated);
        } else {
            self.item_ended(plan, place, status);
        }
    }

    pub(super) fn step_ended(
        &mut self,
        plan: &Plan,
        place: Place,
        status: StepStatus,
        tolerated: bool,
    ) {
        self.todo.remove(&Todo::Step(place.scope, place.step));
        self.todo.remove(&Todo::Foreach(place.scope, place.step));
        let fails = matches!(status, StepStatus::Failed | StepStatus::TimedOut) && !tolerated;
        if fails {
            self.step_failed(plan, place);
        }
        let Some(scope) = self.scopes.get_mut(&place.scope) else {
            return;
        };
        scope.left = scope.left.saturating_sub(1);
        if scope.left == 0 {
            self.todo.insert(Todo::Scope(place.scope));
        }
        let Some(graph) = plan.graphs.get(scope.graph as usize) else {
            return;
        };
        for dependent in &graph.steps[usize::from(place.step)].dependents {
            let Some(step) = scope.steps.get_mut(usize::from(*dependent)) else {
                continue;
            };
            step.needs_left = step.needs_left.saturating_sub(1);
            if step.needs_left == 0 && step.unit.status == StepStatus::Pending {
                self.todo.insert(Todo::Step(place.scope, *dependent));
            }
        }
    }

    /// A step's failure is its scope's, and may be the run's.
    pub(super) fn step_failed(&mut self, plan: &Plan, place: Place) {
        let top = self
            .scopes
            .get(&place.scope)
            .is_some_and(|scope| scope.parent.is_none());
        if top && self.error.is_none() {
            let cause = self.first_cause(place);
            let error = self
                .unit(cause)
                .and_then(|unit| unit.error.clone())
                .unwrap_or_default();
            let step = self.path(plan, cause);
            self.error = Some(Box::new(RunError {
                step,
                error: *error,
            }));
        }
        let Some(scope) = self.scopes.get_mut(&place.scope) else {
            return;
        };
        if scope.failed.is_none() {
            scope.failed = Some(place.step);
            if plan.policy() != FailurePolicy::Continue {
                self.todo.insert(Todo::Fail(place.scope));
            }
        }
    }

    /// The step, inside the failed one or itself, that failed first.
    pub(super) fn first_cause(&self, place: Place) -> Place {
        let mut cause = place;
        while let Some(Inner::Scope(scope)) = self.unit(cause).map(|unit| &unit.inner)
            && let Some(step) = self.scopes.get(scope).and_then(|scope| scope.failed)
        {
            cause = Place {
                scope: *scope,
                step,
                item: Place::NO_ITEM,
            };
        }
        cause
    }

    pub(super) fn item_ended(&mut self, plan: &Plan, place: Place, status: StepStatus) {
        let opens = self.items_open(plan, place);
        let Some(foreach) = self.foreach_mut(place) else {
            return;
        };
        match status {
            StepStatus::Succeeded | StepStatus::Cached => foreach.good += 1,
            StepStatus::Failed | StepStatus::TimedOut => foreach.bad += 1,
            _ => foreach.other += 1,
        }
        if status == StepStatus::Skipped {
            foreach.skipped += 1;
        }
        foreach.open = foreach.open.saturating_sub(1);
        let (page, _) = split(place.item);
        let paged = foreach.pages.len() > 1;
        let mut close = false;
        if let Some(Page::Open { left, units }) = foreach.pages.get_mut(page) {
            *left = left.saturating_sub(1);
            // Items that did not succeed stay: they may be retried.
            close = paged && *left == 0 && units.iter().all(|unit| unit.status.good());
        }
        let look = foreach.ended()
            || (!foreach.stopped && foreach.out_of_reach())
            || (opens && foreach.has_more());
        if close {
            let page = u32::try_from(page).unwrap_or(u32::MAX);
            self.todo.insert(Todo::Page(place.scope, place.step, page));
        }
        if look {
            self.todo.insert(Todo::Foreach(place.scope, place.step));
        }
    }

    /// True if items of this step are started one by one, not by grants.
    pub(in crate::run) fn items_open(&self, plan: &Plan, place: Place) -> bool {
        let Some(plan) = self.plan_step(plan, place) else {
            return false;
        };
        opens(plan)
            || (plan.step.off_peak.is_some() || plan.step.fairness.is_some()) && {
                let step = self.step(place.scope, place.step);
                let foreach = step.and_then(|step| step.foreach.as_ref());
                foreach.is_some_and(|foreach| foreach.opens)
            }
    }

    pub(super) fn foreach_expanded(
        &mut self,
        plan: &Plan,
        event: &Event,
        expanded: &ForeachExpanded,
    ) {
        let place: Place = expanded.unit.into();
        self.todo.remove(&Todo::Step(place.scope, place.step));
        self.set_total(place, event, expanded.total);
        let count = expanded.count;
        let opens = expanded.opens || self.plan_step(plan, place).is_some_and(opens);
        let Some(step) = self.step_mut(place.scope, place.step) else {
            return;
        };
        step.unit.status = StepStatus::Running;
        step.unit.ready_at = Time(event.at);
        step.unit.started_at = Time(event.at);
        if expanded.priority > 0 {
            step.priority = u8::try_from(expanded.priority).unwrap_or(101);
        }
        let pages = (count as usize).div_ceil(kapell_model::limits::FOREACH_PAGE);
        step.foreach = Some(Box::new(ForeachState {
            count,
            lists: expanded.lists.iter().map(Stored::value).collect(),
            concurrency: expanded.concurrency,
            min_success: expanded.min_success,
            pages: vec![Page::Untouched; pages],
            key: expanded.fairness.as_deref().map(Arc::from),
            opens: expanded.opens,
            ..ForeachState::default()
        }));
        self.counts[2] += u64::from(count);
        if opens || count == 0 {
            self.todo.insert(Todo::Foreach(place.scope, place.step));
        } else {
            self.stand_ready(plan, place);
        }
    }
}

/// True if items of the step start one by one whatever the foreach says.
fn opens(plan: &StepPlan) -> bool {
    !plan.is_task() || !plan.step.locks.is_empty() || plan.step.not_before.is_some()
}
