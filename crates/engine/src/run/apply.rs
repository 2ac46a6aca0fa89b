//! Applying events: counting, never choosing.

mod reopen;
mod scopes;
mod units;
mod waits;

use std::sync::Arc;

use kapell_api::task::{Place, TaskError};
use kapell_expr::{BlobRef, Value};
use kapell_model::spec::StepIndex;
use kapell_model::{RunStatus, StepStatus, Time};

use super::state::{
    Cancel, Deadline, Inner, Kept, KeptItems, LockState, Meta, Page, ParentUnit, RunError, State,
    TimerKind, Todo, Unit,
};
use crate::event::{Event, Fact, RunCreated, RunQueueRef, Stored, StoredError, run_id};
use crate::message::StartClass;
use crate::plan::Plan;

use reopen::forget_discarded;

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
    #[expect(
        clippy::too_many_lines,
        reason = "one arm for each fact, in the order of their tags"
    )]
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
                self.meta.last_success = value(started.last_success.as_ref());
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
            Fact::DeadlineSet(set) => {
                self.deadline_error = (!set.error.is_empty()).then(|| set.error.as_str().into());
                self.deadline = set.error.is_empty().then(|| {
                    Box::new(Deadline {
                        at: Time(set.at),
                        ..Deadline::default()
                    })
                });
            }
            Fact::DeadlineEstimated(estimate) => {
                if let Some(deadline) = &mut self.deadline {
                    deadline.risk_at = (estimate.risk_at != 0).then_some(Time(estimate.risk_at));
                    (deadline.usual, deadline.slow) = (estimate.usual, estimate.slow);
                }
            }
            Fact::DeadlineAtRisk(_) => {
                if let Some(deadline) = &mut self.deadline {
                    deadline.at_risk = true;
                }
            }
            Fact::DeadlineMissed(_) => {
                if let Some(deadline) = &mut self.deadline {
                    deadline.missed = true;
                }
            }
            Fact::UnitReady(ready) => self.unit_ready(plan, event, ready),
            Fact::AttemptStarted(started) => {
                let place = started.unit.into();
                self.note_item_started(place);
                let started_at = event.time(started.started);
                self.timers.unset(place, TimerKind::QueueTimeout);
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
                let ended_before = self.unit(place).is_some_and(|unit| unit.status.ended());
                self.end_unit(
                    plan,
                    place,
                    at,
                    ended.step_status(),
                    value(ended.output.as_ref()),
                    error(ended.error.as_ref()),
                    ended.tolerated,
                );
                if !ended_before {
                    self.note_emits(plan, place);
                }
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
                let locks = self.locks.entry(place).or_default();
                if locks.held.is_empty() && locks.asked.is_none() {
                    locks.since = at;
                }
                locks.asked = Some(name);
                if let Some(unit) = self.unit_mut(place) {
                    unit.status = StepStatus::Waiting;
                }
            }
            Fact::LockGranted(unit) => self.lock_granted(plan, (*unit).into()),
            Fact::LocksReturned(unit) => self.locks_returned(plan, (*unit).into()),
            Fact::HandlingStarted(handling) => {
                let place: Place = handling.unit.into();
                self.forget_attempt(plan, place);
                self.leave_inner(place);
                self.timers.clear(place);
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
            Fact::RunPaused(by) => {
                self.status = RunStatus::Paused;
                self.paused_by = by.by.as_str().into();
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
                // `Scope(0)` stays to be done until the run's outputs are known.
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
                    // Items in flight are granted again should the owner forget them.
                    foreach.again.extend(foreach.next..stopped.granted);
                    foreach.next = foreach.next.max(stopped.granted);
                }
                self.leave_ready(plan, place);
                self.foreach_waits(plan, place);
            }
            Fact::AwaitStarted(_)
            | Fact::ApprovalAsked(_)
            | Fact::ApprovalGiven(_)
            | Fact::SignalsSent(_)
            | Fact::BreakReached(_)
            | Fact::BreakPassed(_)
            | Fact::BreakpointsChanged(_)
            | Fact::ParamChanged(_) => self.apply_wait(plan, event, fact),
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
            trigger_name: match created.trigger_name.as_str() {
                "" => created.trigger.as_str().into(),
                name => name.into(),
            },
            interval: match &created.interval {
                Some(interval) => (Time(interval.start), Time(interval.end)),
                None => (Time(created.scheduled_at), Time(created.scheduled_at)),
            },
            hops: created.hops,
            class: StartClass::from_number(created.class),
            backfill: (!created.backfill.is_empty()).then(|| created.backfill.as_str().into()),
            by: created.by.as_str().into(),
            root_by: created.root_by.as_str().into(),
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
                    Some(Kept {
                        step: StepIndex::try_from(kept.step).ok()?,
                        status: status(kept.status),
                        output: value(kept.output.as_ref()),
                        items: kept.items.as_ref().map(|items| {
                            Box::new(KeptItems {
                                others: items
                                    .others
                                    .chunks_exact(2)
                                    .map(|pair| (pair[0], pair[1]))
                                    .collect(),
                                failures: value(items.failures.as_ref()),
                            })
                        }),
                    })
                })
                .collect(),
            bundle: created.bundle.as_ref().map(BlobRef::from),
            last_success: Value::Null,
        };
        self.breaks = created.breakpoints.iter().map(Into::into).collect();
        self.status = RunStatus::Queued;
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

impl LockState {
    /// Every name that must be given back: those held and the one asked for.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.held.iter().chain(&self.asked)
    }
}
