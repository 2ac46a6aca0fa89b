//! Applying events: counting, never choosing.

use std::sync::Arc;

use kapell_api::task::{Place, TaskError};
use kapell_expr::{BlobRef, Value};
use kapell_model::spec::{FailurePolicy, OnFailure, StepIndex};
use kapell_model::{RunStatus, StepStatus, Time};

use super::state::{
    Cancel, ForeachState, Inner, LockState, Meta, Page, ParentUnit, RunError, Scope, State,
    StepState, TimerKind, Todo, Unit, split,
};
use crate::event::{
    AttemptEnded, AttemptResult, Event, Fact, ForeachExpanded, Next, RunCreated, RunQueueRef,
    RunReopened, ScopeKind, ScopeOpened, Stored, StoredError, UnitReady, run_id,
};
use crate::plan::Plan;

fn value(stored: Option<&Stored>) -> Value {
    stored.map(Stored::value).unwrap_or_default()
}

fn error(stored: Option<&StoredError>) -> Option<Box<TaskError>> {
    stored.map(|error| Box::new(TaskError::from(error)))
}

fn status(number: u32) -> StepStatus {
    u8::try_from(number)
        .ok()
        .and_then(StepStatus::from_number)
        .unwrap_or(StepStatus::Failed)
}

fn run_status(number: u32) -> RunStatus {
    u8::try_from(number)
        .ok()
        .and_then(RunStatus::from_number)
        .unwrap_or(RunStatus::Failed)
}

fn queue(reference: &RunQueueRef) -> (Arc<str>, Arc<str>, Arc<str>) {
    (
        reference.namespace.as_str().into(),
        reference.workflow.as_str().into(),
        reference.key.as_str().into(),
    )
}

impl State {
    /// Makes the state that the event says. An event that does not fit changes nothing.
    pub fn apply(&mut self, plan: &Plan, event: &Event) {
        let at = Time(event.at);
        self.last_at = at;
        let Some(fact) = &event.fact else { return };
        match fact {
            Fact::RunCreated(created) => self.created(at, created),
            Fact::RunStarted(started) => {
                self.status = RunStatus::Running;
                self.started_at = Some(at);
                self.timeout_at = (started.timeout > 0).then(|| event.time(started.timeout));
            }
            Fact::RunDiscarded(discarded) => {
                self.status = RunStatus::Discarded;
                self.ended_at = Some(at);
                self.error = Some(Box::new(RunError {
                    step: String::new(),
                    error: TaskError {
                        reason: "discarded".into(),
                        message: discarded.reason.clone(),
                        ..TaskError::default()
                    },
                }));
            }
            Fact::UnitReady(ready) => self.unit_ready(plan, event, ready),
            Fact::AttemptStarted(started) => {
                let place = started.unit.into();
                self.note_item_started(place);
                let started_at = event.time(started.started);
                self.leave_ready(plan, place);
                self.started.insert(place, (started.offer(), started_at));
                if let Some(unit) = self.unit_mut(place) {
                    if unit.stop.is_none() {
                        unit.status = StepStatus::Running;
                    }
                    unit.started_at = started_at;
                }
            }
            Fact::AttemptEnded(ended) => self.attempt_ended(plan, event, ended),
            Fact::UnitEnded(ended) => {
                let place: Place = ended.unit.into();
                self.note_item_started(place);
                if let Some(step) = self.step_mut(place.scope, place.step)
                    && place.item == Place::NO_ITEM
                {
                    step.as_success = ended.as_success;
                }
                self.end_unit(
                    plan,
                    place,
                    at,
                    ended.step_status(),
                    value(ended.output.as_ref()),
                    error(ended.error.as_ref()),
                    ended.tolerated,
                );
            }
            Fact::ForeachExpanded(expanded) => self.foreach_expanded(plan, event, expanded),
            Fact::ScopeOpened(opened) => self.scope_opened(plan, event, opened),
            Fact::WaitStarted(wait) => {
                let place = wait.unit.into();
                self.note_item_started(place);
                self.step_begun(place);
                self.timers
                    .set(place, TimerKind::Wait, event.time(wait.until));
                if let Some(unit) = self.unit_mut(place) {
                    unit.status = StepStatus::Waiting;
                    unit.ready_at = at;
                    unit.started_at = at;
                }
            }
            Fact::ChildStarted(child) => {
                let place = child.unit.into();
                self.note_item_started(place);
                self.step_begun(place);
                self.set_total(place, event, child.total);
                if let Some(unit) = self.unit_mut(place) {
                    unit.status = StepStatus::Running;
                    if unit.ready_at == Time::ZERO {
                        unit.ready_at = at;
                    }
                    unit.started_at = at;
                    unit.inner = Inner::Child(run_id(&child.run));
                }
            }
            Fact::LockRequested(request) => {
                let place = request.unit.into();
                let name: Arc<str> = request.name.as_str().into();
                self.todo.remove(&Todo::Lock(place));
                self.locks.entry(place).or_default().asked = Some(name);
                if let Some(unit) = self.unit_mut(place) {
                    unit.status = StepStatus::Waiting;
                }
            }
            Fact::LockGranted(unit) => self.lock_granted(plan, (*unit).into()),
            Fact::HandlingStarted(handling) => {
                let place: Place = handling.unit.into();
                self.forget_attempt(plan, place);
                self.leave_inner(place);
                self.todo.remove(&Todo::Foreach(place.scope, place.step));
                let scope = self.next_scope;
                if let Some(unit) = self.unit_mut(place) {
                    unit.error = error(handling.error.as_ref());
                    unit.inner = Inner::Handler(scope, status(handling.status));
                    unit.status = StepStatus::Running;
                }
            }
            Fact::UnitStopping(stopping) => {
                let place: Place = stopping.unit.into();
                self.note_item_started(place);
                self.timers.unset(place, TimerKind::TotalTimeout);
                self.timers.unset(place, TimerKind::QueueTimeout);
                if stopping.give_up > 0 {
                    self.timers
                        .set(place, TimerKind::GiveUp, event.time(stopping.give_up));
                }
                if let Some(unit) = self.unit_mut(place) {
                    unit.stop = Some(status(stopping.status));
                    unit.status = StepStatus::Cancelling;
                    unit.error = error(stopping.error.as_ref());
                }
            }
            Fact::ItemsEnded(items) => {
                let place: Place = items.unit.into();
                let count = items.to.saturating_sub(items.from);
                self.counts[1] += u64::from(count);
                if let Some(foreach) = self.foreach_mut(place) {
                    foreach.tail = Some((items.from, status(items.status)));
                    foreach.other += count;
                }
                self.todo.insert(Todo::Foreach(place.scope, place.step));
            }
            Fact::ScopeStopped(scope) => {
                self.todo.remove(&Todo::Fail(scope.scope));
                if let Some(scope) = self.scopes.get_mut(&scope.scope) {
                    scope.stopped = true;
                }
            }
            Fact::CancelRequested(cancel) => {
                if !self.ended() {
                    self.status = RunStatus::Cancelling;
                    self.paused_at = None;
                }
                self.timeout_at = None;
                self.cancel = Some(Cancel {
                    by: cancel.by.clone(),
                    reason: cancel.reason.clone(),
                    now: cancel.now,
                    timed_out: cancel.timed_out,
                });
            }
            Fact::RunPaused(_) => {
                self.status = RunStatus::Paused;
                self.paused_at = Some(at);
            }
            Fact::RunResumed(_) => {
                self.status = RunStatus::Running;
                if let (Some(since), Some(timeout)) = (self.paused_at.take(), self.timeout_at) {
                    self.timeout_at = Some(timeout.plus(at.since(since)));
                }
            }
            Fact::RunReopened(reopened) => self.reopened(plan, event, reopened),
            Fact::StepsEnded(ended) => {
                self.outcome = Some(run_status(ended.outcome));
                self.timeout_at = None;
                self.todo.remove(&Todo::Scope(0));
            }
            Fact::RunEnded(ended) => {
                self.status = run_status(ended.status);
                self.ended_at = Some(at);
                self.paused_at = None;
                self.outputs = value(ended.outputs.as_ref());
                self.todo.clear();
                self.timeout_at = None;
                if let Some(error) = error(ended.error.as_ref())
                    && self.error.is_none()
                {
                    self.error = Some(Box::new(RunError {
                        step: String::new(),
                        error: *error,
                    }));
                }
            }
            Fact::PageClosed(closed) => {
                let place: Place = closed.unit.into();
                self.todo
                    .remove(&Todo::Page(place.scope, place.step, closed.page));
                self.next_page = closed.number + 1;
                if let Some(foreach) = self.foreach_mut(place)
                    && let Some(page) = foreach.pages.get_mut(closed.page as usize)
                {
                    *page = Page::Closed(closed.number);
                }
            }
            Fact::PriorityChanged(priority) => {
                self.meta.priority = u8::try_from(priority.priority).unwrap_or(100);
                self.rebuild_ready(plan);
            }
            Fact::LoopWaiting(waiting) => {
                let place: Place = waiting.unit.into();
                self.timers
                    .set(place, TimerKind::Iteration, event.time(waiting.until));
                let vars = value(waiting.vars.as_ref());
                if let Some(Inner::Scope(scope)) = self.unit(place).map(|unit| unit.inner.clone()) {
                    self.todo.remove(&Todo::Scope(scope));
                    if let Some(scope) = self.scopes.get_mut(&scope) {
                        scope.vars = vars;
                    }
                }
                if let Some(unit) = self.unit_mut(place) {
                    unit.status = StepStatus::Waiting;
                }
            }
            Fact::UnitRetrying(retrying) => {
                let place: Place = retrying.unit.into();
                self.timers
                    .set(place, TimerKind::Retry, event.time(retrying.retry));
                self.drop_inner(place);
                if let Some(unit) = self.unit_mut(place) {
                    unit.status = StepStatus::Retrying;
                    unit.attempts += 1;
                    unit.error = error(retrying.error.as_ref());
                    let kind = retrying.error.as_ref().map_or(1, |error| error.kind);
                    count_retry(unit, kind);
                    forget_discarded(unit);
                }
            }
            Fact::ForeachStopped(stopped) => {
                let place: Place = stopped.unit.into();
                if let Some(foreach) = self.foreach_mut(place) {
                    foreach.stopped = true;
                    foreach.enough = stopped.enough;
                }
                self.leave_ready(plan, place);
            }
        }
    }

    fn created(&mut self, at: Time, created: &RunCreated) {
        self.meta = Meta {
            id: run_id(&created.id),
            namespace: created.namespace.as_str().into(),
            workflow: created.workflow.as_str().into(),
            version: created.version,
            params: value(created.params.as_ref()),
            trigger: created.trigger.as_str().into(),
            by: created.by.as_str().into(),
            created_at: at,
            scheduled_at: Time(created.scheduled_at),
            timezone: created.timezone.as_str().into(),
            parent: created.parent.as_ref().map(|parent| ParentUnit {
                run: run_id(&parent.run),
                place: parent.unit.into(),
                waits: parent.waits,
            }),
            depth: created.depth,
            labels: value(created.labels.as_ref()),
            priority: u8::try_from(created.priority).unwrap_or(100),
            queue: created.queue.as_ref().map(queue),
            held_queues: created.held_queues.iter().map(queue).collect(),
            forked_from: created.fork.as_ref().map(|fork| run_id(&fork.run)),
            kept: created
                .fork
                .iter()
                .flat_map(|fork| &fork.kept)
                .filter_map(|kept| {
                    let step = StepIndex::try_from(kept.step).ok()?;
                    Some((step, status(kept.status), value(kept.output.as_ref())))
                })
                .collect(),
            bundle: created.bundle.as_ref().map(BlobRef::from),
        };
        self.status = RunStatus::Queued;
    }

    fn unit_ready(&mut self, plan: &Plan, event: &Event, ready: &UnitReady) {
        let place: Place = ready.unit.into();
        self.note_item_started(place);
        self.step_begun(place);
        self.set_total(place, event, ready.total);
        if ready.queue > 0 {
            self.timers
                .set(place, TimerKind::QueueTimeout, event.time(ready.queue));
        }
        if let Some(step) = self.step_mut(place.scope, place.step)
            && ready.priority > 0
        {
            step.priority = u8::try_from(ready.priority).unwrap_or(101);
        }
        let at = Time(event.at);
        let waits = ready.not_before > 0;
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

    fn has_locks(&self, plan: &Plan, place: Place) -> bool {
        self.plan_step(plan, place)
            .is_some_and(|step| !step.step.locks.is_empty())
    }

    pub(super) fn plan_step<'p>(
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

    fn lock_granted(&mut self, plan: &Plan, place: Place) {
        let wanted = self
            .plan_step(plan, place)
            .map_or(0, |step| step.step.locks.len());
        let Some(locks) = self.locks.get_mut(&place) else {
            return;
        };
        locks.held.extend(locks.asked.take());
        if locks.held.len() < wanted {
            self.todo.insert(Todo::Lock(place));
            return;
        }
        if let Some(unit) = self.unit_mut(place) {
            unit.status = StepStatus::Queued;
        }
        self.enter_ready(plan, place);
    }

    /// Where a unit stands in `ready`: the foreach as one, unless its items start one by one.
    fn ready_place(&self, plan: &Plan, place: Place) -> Place {
        if place.item != Place::NO_ITEM && !self.items_open(plan, place) {
            Place {
                item: Place::NO_ITEM,
                ..place
            }
        } else {
            place
        }
    }

    fn ready_key(&self, place: Place) -> (u8, Place) {
        let own = self
            .step(place.scope, place.step)
            .map_or(0, |step| step.priority);
        let priority = if own > 0 { own - 1 } else { self.meta.priority };
        (100 - priority.min(100), place)
    }

    pub(super) fn enter_ready(&mut self, plan: &Plan, place: Place) {
        let stands = self.ready_place(plan, place);
        if stands != place
            && let Some(foreach) = self.foreach_mut(place)
        {
            foreach.again.insert(place.item);
        }
        let key = self.ready_key(stands);
        if let Some(step) = self.plan_step(plan, place) {
            self.ready
                .entry(step.step.queue.clone())
                .or_default()
                .insert(key);
        }
    }

    fn leave_ready(&mut self, plan: &Plan, place: Place) {
        let stands = self.ready_place(plan, place);
        if stands != place {
            if let Some(foreach) = self.foreach_mut(place) {
                foreach.again.remove(&place.item);
                // Items that are tried again stay, also where no new ones start.
                if foreach.has_more() || !foreach.again.is_empty() {
                    return;
                }
            }
        }
        let key = self.ready_key(stands);
        let Some(step) = self.plan_step(plan, place) else {
            return;
        };
        if let Some(queue) = self.ready.get_mut(&step.step.queue) {
            queue.remove(&key);
            if queue.is_empty() {
                self.ready.remove(&step.step.queue);
            }
        }
    }

    fn rebuild_ready(&mut self, plan: &Plan) {
        let places: Vec<Place> = self
            .ready
            .values()
            .flatten()
            .map(|(_, place)| *place)
            .collect();
        self.ready.clear();
        for place in places {
            let key = self.ready_key(place);
            if let Some(step) = self.plan_step(plan, place) {
                self.ready
                    .entry(step.step.queue.clone())
                    .or_default()
                    .insert(key);
            }
        }
    }

    /// What a step does has begun: nothing is to be decided about its needs any more.
    fn step_begun(&mut self, place: Place) {
        self.todo.remove(&Todo::Step(place.scope, place.step));
        self.timers.unset(place, TimerKind::Retry);
        self.timers.unset(place, TimerKind::NotBefore);
    }

    fn set_total(&mut self, place: Place, event: &Event, total: i64) {
        if total > 0 && self.timers.get(place, TimerKind::TotalTimeout).is_none() {
            self.timers
                .set(place, TimerKind::TotalTimeout, event.time(total));
        }
    }

    pub(super) fn foreach_mut(&mut self, place: Place) -> Option<&mut ForeachState> {
        self.step_mut(place.scope, place.step)?
            .foreach
            .as_deref_mut()
    }

    /// An item that is heard of for the first time has been started: the cursor moves past it.
    fn note_item_started(&mut self, place: Place) {
        if place.item == Place::NO_ITEM {
            return;
        }
        let Some(foreach) = self.foreach_mut(place) else {
            return;
        };
        foreach.again.remove(&place.item);
        if foreach.unit(place.item).is_none_or(|unit| unit.status == StepStatus::Pending) {
            foreach.open += 1;
        }
        if place.item >= foreach.next {
            // Items are granted in order but may end in any order: those passed over were granted
            // too, and are granted again should the owner forget it.
            foreach.again.extend(foreach.next..place.item);
            foreach.next = place.item + 1;
        }
    }

    fn attempt_ended(&mut self, plan: &Plan, event: &Event, ended: &AttemptEnded) {
        let place: Place = ended.unit.into();
        let at = event.time(ended.ended);
        let result = AttemptResult::from_number(ended.result);
        self.note_item_started(place);
        self.forget_attempt(plan, place);
        if result == AttemptResult::Lost {
            self.lost.insert(
                place,
                kapell_model::Offer {
                    epoch: ended.epoch,
                    counter: ended.counter,
                },
            );
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
        } else if ended.next == Next::Retry as u32 {
            unit.status = StepStatus::Retrying;
            unit.error = error(ended.error.as_ref());
            count_retry(unit, ended.error.as_ref().map_or(1, |error| error.kind));
            self.timers
                .set(place, TimerKind::Retry, event.time(ended.retry));
        } else {
            // Its end follows; until then it counts as open once.
            unit.status = StepStatus::Running;
            unit.error = error(ended.error.as_ref());
        }
    }

    /// An attempt is over: nothing of it is in flight, ready or locked any more.
    fn forget_attempt(&mut self, plan: &Plan, place: Place) {
        self.started.remove(&place);
        self.locks.remove(&place);
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
    fn end_unit(
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
        self.timers.clear(place);
        if status.good() || status == StepStatus::Skipped {
            self.drop_inner(place);
            self.drop_items(place);
        }
        self.lost.remove(&place);
        self.leave_handler(place);
        self.leave_inner(place);
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

    fn step_ended(&mut self, plan: &Plan, place: Place, status: StepStatus, tolerated: bool) {
        self.todo.remove(&Todo::Step(place.scope, place.step));
        self.todo.remove(&Todo::Foreach(place.scope, place.step));
        let fails = matches!(status, StepStatus::Failed | StepStatus::TimedOut) && !tolerated;
        let top = self
            .scopes
            .get(&place.scope)
            .is_some_and(|scope| scope.parent.is_none());
        if fails && top && self.error.is_none() {
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
        scope.left = scope.left.saturating_sub(1);
        if fails && scope.failed.is_none() {
            scope.failed = Some(place.step);
            if plan.policy() != FailurePolicy::Continue {
                self.todo.insert(Todo::Fail(place.scope));
            }
        }
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

    /// The step, inside the failed one or itself, that failed first.
    fn first_cause(&self, place: Place) -> Place {
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

    fn item_ended(&mut self, plan: &Plan, place: Place, status: StepStatus) {
        let opens = self.items_open(plan, place);
        let Some(foreach) = self.foreach_mut(place) else {
            return;
        };
        match status {
            StepStatus::Succeeded | StepStatus::Cached => foreach.good += 1,
            StepStatus::Failed | StepStatus::TimedOut => foreach.bad += 1,
            _ => foreach.other += 1,
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
    pub(super) fn items_open(&self, plan: &Plan, place: Place) -> bool {
        self.plan_step(plan, place).is_some_and(|step| {
            !step.is_task() || !step.step.locks.is_empty() || step.step.not_before.is_some()
        })
    }

    fn foreach_expanded(&mut self, plan: &Plan, event: &Event, expanded: &ForeachExpanded) {
        let place: Place = expanded.unit.into();
        self.todo.remove(&Todo::Step(place.scope, place.step));
        self.set_total(place, event, expanded.total);
        let count = expanded.count;
        let opens = self.items_open(plan, place);
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
            ..ForeachState::default()
        }));
        self.counts[2] += u64::from(count);
        if opens || count == 0 {
            self.todo.insert(Todo::Foreach(place.scope, place.step));
        } else {
            let key = self.ready_key(place);
            if let Some(step) = self.plan_step(plan, place) {
                self.ready
                    .entry(step.step.queue.clone())
                    .or_default()
                    .insert(key);
            }
        }
    }

    fn scope_opened(&mut self, plan: &Plan, event: &Event, opened: &ScopeOpened) {
        let at = Time(event.at);
        let kind = ScopeKind::from_number(opened.kind);
        self.next_scope = opened.scope + 1;
        let parent: Option<Place> = opened.unit.map(Place::from);
        if let Some(place) = parent {
            self.note_item_started(place);
            self.set_total(place, event, opened.total);
            self.timers.unset(place, TimerKind::Iteration);
            self.timers.unset(place, TimerKind::Retry);
            self.todo.remove(&Todo::Step(place.scope, place.step));
            if kind != ScopeKind::Handler {
                self.drop_inner(place);
                if let Some(unit) = self.unit_mut(place) {
                    unit.inner = Inner::Scope(opened.scope);
                    unit.status = StepStatus::Running;
                    if unit.ready_at == Time::ZERO {
                        unit.ready_at = at;
                    }
                    if opened.iteration == 0 {
                        unit.started_at = at;
                    }
                }
            }
        }
        let Some(graph) = plan.graphs.get(opened.graph as usize) else {
            return;
        };
        let mut scope = Scope {
            graph: opened.graph,
            kind,
            parent,
            iteration: opened.iteration,
            vars: value(opened.vars.as_ref()),
            steps: Vec::with_capacity(graph.steps.len()),
            left: u32::try_from(graph.steps.len()).unwrap_or(u32::MAX),
            failed: None,
            stopped: false,
        };
        for (index, step) in graph.steps.iter().enumerate() {
            scope.steps.push(StepState {
                needs_left: u16::try_from(step.step.needs.len()).unwrap_or(u16::MAX),
                ..StepState::default()
            });
            if step.step.needs.is_empty() {
                let index = StepIndex::try_from(index).unwrap_or(StepIndex::MAX);
                self.todo.insert(Todo::Step(opened.scope, index));
            }
        }
        self.counts[2] += graph.steps.len() as u64;
        if graph.steps.is_empty() {
            self.todo.insert(Todo::Scope(opened.scope));
        }
        self.scopes.insert(opened.scope, scope);
        if kind == ScopeKind::Root {
            self.keep_forked(plan, at);
        }
    }

    fn keep_forked(&mut self, plan: &Plan, at: Time) {
        for (step, status, output) in self.meta.kept.clone() {
            let place = Place {
                scope: 0,
                step,
                item: Place::NO_ITEM,
            };
            self.end_unit(plan, place, at, status, output, None, true);
        }
    }

    /// What is inside a unit has been decided about: it stays only to be retried or looked into.
    fn leave_inner(&mut self, place: Place) {
        if let Some(Inner::Scope(scope)) = self.unit(place).map(|unit| unit.inner.clone()) {
            self.todo.remove(&Todo::Scope(scope));
            self.todo.remove(&Todo::Fail(scope));
        }
    }

    /// The handler is over: what the unit had inside when it failed is its inside again.
    fn leave_handler(&mut self, place: Place) {
        let Some(Inner::Handler(handler, _)) = self.unit(place).map(|unit| unit.inner.clone())
        else {
            return;
        };
        self.drop_scope(handler);
        let body = self
            .scopes
            .iter()
            .find(|(_, scope)| scope.parent == Some(place))
            .map_or(Inner::None, |(number, _)| Inner::Scope(*number));
        if let Some(unit) = self.unit_mut(place) {
            unit.inner = body;
        }
    }

    /// Drops the graph inside a unit, and all inside it.
    fn drop_inner(&mut self, place: Place) {
        let inner = self
            .unit(place)
            .map(|unit| unit.inner.clone())
            .unwrap_or_default();
        match inner {
            Inner::Scope(scope) | Inner::Handler(scope, _) => {
                self.drop_scope(scope);
                if let Some(unit) = self.unit_mut(place) {
                    unit.inner = Inner::None;
                }
            }
            Inner::None | Inner::Child(_) => {}
        }
    }

    /// A foreach that is ended by hand: items that have not ended are no more.
    fn drop_items(&mut self, place: Place) {
        if place.item != Place::NO_ITEM {
            return;
        }
        let Some(foreach) = self.foreach_mut(place).filter(|foreach| !foreach.ended()) else {
            return;
        };
        let ended = foreach.good + foreach.bad + foreach.other;
        let left = foreach.count.saturating_sub(ended);
        let mut inner = Vec::new();
        for page in &foreach.pages {
            if let Page::Open { units, .. } = page {
                inner.extend(units.iter().map(|unit| unit.inner.clone()));
            }
        }
        foreach.other += left;
        foreach.open = 0;
        foreach.again.clear();
        foreach.stopped = true;
        self.counts[2] = self.counts[2].saturating_sub(u64::from(left));
        for inner in inner {
            if let Inner::Scope(scope) | Inner::Handler(scope, _) = inner {
                self.drop_scope(scope);
            }
        }
    }

    fn drop_scope(&mut self, number: u32) {
        let Some(scope) = self.scopes.remove(&number) else {
            return;
        };
        self.todo.remove(&Todo::Scope(number));
        self.todo.remove(&Todo::Fail(number));
        let mut inner = Vec::new();
        for (index, step) in scope.steps.iter().enumerate() {
            let step_index = StepIndex::try_from(index).unwrap_or(StepIndex::MAX);
            self.todo.remove(&Todo::Step(number, step_index));
            self.todo.remove(&Todo::Foreach(number, step_index));
            let place = Place {
                scope: number,
                step: step_index,
                item: Place::NO_ITEM,
            };
            self.timers.clear(place);
            self.lost.remove(&place);
            inner.push(step.unit.inner.clone());
            if !step.unit.status.ended() {
                self.counts[2] = self.counts[2].saturating_sub(1);
            }
            if let Some(foreach) = &step.foreach {
                let ended = foreach.good + foreach.bad + foreach.other;
                let left = foreach.count.saturating_sub(ended);
                self.counts[2] = self.counts[2].saturating_sub(u64::from(left));
                for page in &foreach.pages {
                    if let Page::Open { units, .. } = page {
                        inner.extend(units.iter().map(|unit| unit.inner.clone()));
                    }
                }
            }
        }
        for inner in inner {
            if let Inner::Scope(scope) | Inner::Handler(scope, _) = inner {
                self.drop_scope(scope);
            }
        }
    }

    fn reopened(&mut self, plan: &Plan, event: &Event, reopened: &RunReopened) {
        self.status = if reopened.queued {
            RunStatus::Queued
        } else {
            RunStatus::Running
        };
        self.ended_at = None;
        self.outcome = None;
        self.error = None;
        self.cancel = None;
        self.outputs = Value::Null;
        self.timeout_at = (reopened.timeout > 0).then(|| event.time(reopened.timeout));
        let (counts, before) = (self.counts, self.tally());
        let finals: Vec<u32> = self
            .scopes
            .iter()
            .filter(|(_, scope)| scope.kind == ScopeKind::Finally)
            .map(|(number, _)| *number)
            .collect();
        for number in finals {
            self.drop_scope(number);
        }
        let again: Vec<Place> = reopened.again.iter().map(|unit| (*unit).into()).collect();
        for place in &again {
            self.drop_inner(*place);
            if let Some(step) = self.step_mut(place.scope, place.step) {
                *step = StepState::default();
            }
        }
        self.reset_scope(plan, 0, again.is_empty());
        let after = self.tally();
        for (place, count) in self.counts.iter_mut().enumerate() {
            *count = (counts[place] + after[place]).saturating_sub(before[place]);
        }
    }

    /// The units of all open graphs, as `counts` counts them.
    fn tally(&self) -> [u64; 3] {
        let mut tally = [0; 3];
        for step in self.scopes.values().flat_map(|scope| &scope.steps) {
            tally[2] += 1;
            if step.unit.status.ended() {
                tally[usize::from(!step.unit.status.good())] += 1;
            }
            if let Some(foreach) = &step.foreach {
                tally[0] += u64::from(foreach.good);
                tally[1] += u64::from(foreach.bad) + u64::from(foreach.other);
                tally[2] += u64::from(foreach.count);
            }
        }
        tally
    }

    /// Makes a scope ready to go on: with `failed`, units that did not succeed start again.
    fn reset_scope(&mut self, plan: &Plan, number: u32, failed: bool) {
        let Some(mut scope) = self.scopes.remove(&number) else {
            return;
        };
        scope.failed = None;
        scope.stopped = false;
        let mut inside = Vec::new();
        let mut unfinished = Vec::new();
        for (index, step) in scope.steps.iter_mut().enumerate() {
            let place = Place {
                scope: number,
                step: StepIndex::try_from(index).unwrap_or(StepIndex::MAX),
                item: Place::NO_ITEM,
            };
            if failed {
                reset_step(step, place, &mut inside);
            }
        }
        let Some(graph) = plan.graphs.get(scope.graph as usize) else {
            return;
        };
        let ended: Vec<bool> = scope
            .steps
            .iter()
            .map(|step| step.unit.status.ended())
            .collect();
        scope.left =
            u32::try_from(ended.iter().filter(|ended| !**ended).count()).unwrap_or(u32::MAX);
        for (index, step) in graph.steps.iter().enumerate() {
            let left = step
                .step
                .needs
                .iter()
                .filter(|need| !ended[usize::from(**need)])
                .count();
            let state = &mut scope.steps[index];
            state.needs_left = u16::try_from(left).unwrap_or(u16::MAX);
            let index = StepIndex::try_from(index).unwrap_or(StepIndex::MAX);
            if state.unit.status == StepStatus::Pending && left == 0 {
                self.todo.insert(Todo::Step(number, index));
            }
            if state.foreach.is_some() && !state.unit.status.ended() {
                self.todo.insert(Todo::Foreach(number, index));
                unfinished.push(index);
            }
        }
        if scope.left == 0 {
            self.todo.insert(Todo::Scope(number));
        }
        // What is not done again keeps its failure.
        scope.failed = scope.steps.iter().zip(&graph.steps).find_map(|(state, step)| {
            let failed = matches!(state.unit.status, StepStatus::Failed | StepStatus::TimedOut);
            let strict = match &step.step.on_failure {
                OnFailure::Policy => true,
                OnFailure::Continue => false,
                OnFailure::Handle { then_continue, .. } => !then_continue,
            };
            (failed && strict).then_some(step.index)
        });
        self.scopes.insert(number, scope);
        for step in unfinished {
            self.foreach_waits(
                plan,
                Place {
                    scope: number,
                    step,
                    item: Place::NO_ITEM,
                },
            );
        }
        for place in inside {
            if let Some(Inner::Scope(scope)) = self.unit(place).map(|unit| unit.inner.clone()) {
                self.reset_scope(plan, scope, true);
            }
        }
    }

    /// A foreach whose items are granted stands among what waits for workers if it has any.
    fn foreach_waits(&mut self, plan: &Plan, place: Place) {
        let more = self
            .foreach_mut(place)
            .is_some_and(|foreach| foreach.has_more());
        if !more || self.items_open(plan, place) {
            return;
        }
        let key = self.ready_key(place);
        if let Some(step) = self.plan_step(plan, place) {
            self.ready
                .entry(step.step.queue.clone())
                .or_default()
                .insert(key);
        }
    }

    /// The path of a unit for people: `tune[3]`, `refine#2.improve`.
    pub fn path(&self, plan: &Plan, place: Place) -> String {
        let Some(scope) = self.scopes.get(&place.scope) else {
            return "?".to_owned();
        };
        let mut path = match scope.parent {
            None => String::new(),
            Some(parent) => {
                let mut path = self.path(plan, parent);
                if scope.kind == ScopeKind::Iteration {
                    path.push_str(&format!("#{}", scope.iteration));
                }
                path.push('.');
                path
            }
        };
        path.push_str(
            self.plan_step(plan, place)
                .map_or("?", |step| &step.step.id),
        );
        if place.item != Place::NO_ITEM {
            path.push_str(&format!("[{}]", place.item));
        }
        path
    }
}

fn count_retry(unit: &mut Unit, kind: u32) {
    let place = match kind {
        2 => 1,
        3 => 2,
        _ => 0,
    };
    unit.retries[place] = unit.retries[place].saturating_add(1);
}

/// A child that never started is not retried: the step makes another.
fn forget_discarded(unit: &mut Unit) {
    let discarded = unit
        .error
        .as_ref()
        .is_some_and(|error| error.reason == "discarded");
    if discarded && matches!(unit.inner, Inner::Child(_)) {
        unit.inner = Inner::None;
    }
}

/// Makes a step that did not succeed start again. Containers and foreach keep what succeeded inside:
/// their places are added to `inside`.
fn reset_step(step: &mut StepState, place: Place, inside: &mut Vec<Place>) {
    let again = matches!(
        step.unit.status,
        StepStatus::Failed
            | StepStatus::TimedOut
            | StepStatus::Cancelled
            | StepStatus::UpstreamFailed
    );
    if !again {
        return;
    }
    if let Some(foreach) = &mut step.foreach {
        foreach.stopped = false;
        foreach.enough = false;
        foreach.bad = 0;
        foreach.other = 0;
        foreach.open = 0;
        foreach.tail = None;
        for (page_index, page) in foreach.pages.iter_mut().enumerate() {
            let Page::Open { units, left } = page else {
                continue;
            };
            for (index, unit) in units.iter_mut().enumerate() {
                if unit.status.ended() && !unit.status.good() {
                    *left += 1;
                    reset_unit(unit);
                    let item = page_index * kapell_model::limits::FOREACH_PAGE + index;
                    let item = u32::try_from(item).unwrap_or(u32::MAX);
                    if matches!(unit.inner, Inner::Scope(_)) {
                        // It goes on inside, where what succeeded is kept.
                        unit.status = StepStatus::Running;
                        foreach.open += 1;
                        inside.push(Place { item, ..place });
                    } else {
                        foreach.again.insert(item);
                    }
                }
            }
        }
        step.unit.status = StepStatus::Running;
        step.unit.stop = None;
        step.unit.error = None;
        return;
    }
    reset_unit(&mut step.unit);
    if matches!(step.unit.inner, Inner::Scope(_)) {
        step.unit.status = StepStatus::Running;
        inside.push(place);
    }
}

fn reset_unit(unit: &mut Unit) {
    let inner = std::mem::take(&mut unit.inner);
    *unit = Unit {
        attempts: unit.attempts,
        inner,
        ..Unit::default()
    };
}

impl LockState {
    /// Every name that must be given back: those held and the one asked for.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.held.iter().chain(&self.asked)
    }
}
