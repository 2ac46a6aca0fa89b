//! History folded into what people look at afterwards: a [`Record`] of any moment of a run.
//!
//! [`Fold`] takes events one after another and keeps what a person can take in: all steps, the first
//! items of a foreach and those that failed, a byte for each of the others. So the history of a
//! million items folds in bounded memory. [`critical_path`] says which steps decided how long it took.
//!
//! Invariants
//! - Any prefix of a history gives the record of that moment.
//! - What is left out is counted.

mod created;
mod labels;
mod path;
mod reopen;
#[cfg(test)]
mod tests;
mod tree;
mod unit;
mod waits;

use std::collections::{BTreeMap, VecDeque};

use kapell_api::record::{AttemptRecord, AttemptResult as Result, Note, Record};
use kapell_api::task::{Place, TaskError};
use kapell_expr::Value;
use kapell_model::{RunStatus, StepStatus, Time};

use crate::event::{
    AttemptEnded, AttemptResult, Event, Fact, Next, ScopeKind, ScopeOpened, Stored, StoredError,
    run_id,
};
use crate::plan::Plan;

pub use labels::Items;
pub use path::critical_path;
use unit::{ItemsFold, ScopeFold, StepFold, UnitFold};

/// Items of a foreach kept in detail, however they ended.
const FIRST_ITEMS: u32 = 1_000;
/// Failed items kept beyond those.
const FAILED_ITEMS: usize = 10_000;
/// Attempts kept of a unit.
const ATTEMPTS: usize = 100;
/// Iterations of a loop kept at its start, and at its end.
const FIRST_ITERATIONS: usize = 50;
const LAST_ITERATIONS: usize = 20;
/// Graphs inside units kept in all.
const SCOPES: usize = 20_000;
/// Bytes of one output that is shown, and of all.
const OUTPUT: usize = 16 << 10;
const OUTPUTS: usize = 8 << 20;
/// Bytes of the lists that items are made of: items of lists beyond have no labels.
const LISTS: usize = 64 << 20;
/// Notes kept.
const NOTES: usize = 1_000;

/// Folds the events of a run. See the module.
pub struct Fold<'p> {
    plan: &'p Plan,
    until: Option<Time>,
    over: bool,
    record: Record,
    /// `run` as labels of items see it.
    named: Value,
    scopes: BTreeMap<u32, ScopeFold>,
    notes: VecDeque<Note>,
    /// Numbers of items and iterations that are kept wherever they stand.
    named_items: Vec<u32>,
    output_bytes: usize,
    list_bytes: usize,
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

impl<'p> Fold<'p> {
    /// Nothing yet. With a moment, events after it are not taken.
    pub fn new(plan: &'p Plan, until: Option<Time>) -> Self {
        Self {
            plan,
            until,
            over: false,
            record: Record::default(),
            named: Value::Null,
            scopes: BTreeMap::new(),
            notes: VecDeque::new(),
            named_items: Vec::new(),
            output_bytes: 0,
            list_bytes: 0,
        }
    }

    /// Keeps the step or item at this path too, with its output, and with it what has the same numbers.
    /// Before the first event.
    #[must_use]
    pub fn with(mut self, path: &str) -> Self {
        let numbers = path.split(['[', ']', '#', '.']);
        self.named_items = numbers.filter_map(|number| number.parse().ok()).collect();
        self
    }

    /// True once an event after the moment has come: no later one is taken.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Takes the next event of the history.
    pub fn take(&mut self, event: &Event) {
        self.over |= self.until.is_some_and(|until| event.at > until.0);
        let (false, Some(fact)) = (self.over, &event.fact) else {
            return;
        };
        let at = Time(event.at);
        self.record.seen_at = at;
        match fact {
            Fact::RunCreated(created) => self.created(at, created),
            Fact::RunStarted(_) => {
                self.record.status = RunStatus::Running;
                self.record.started_at = Some(at);
            }
            Fact::RunDiscarded(discarded) => {
                self.record.status = RunStatus::Discarded;
                self.record.ended_at = Some(at);
                self.record.error = Some(TaskError {
                    reason: "discarded".into(),
                    message: discarded.reason.clone(),
                    ..TaskError::default()
                });
            }
            Fact::RunEnded(ended) => {
                self.record.status = run_status(ended.status);
                self.record.ended_at = Some(at);
                let outputs = ended
                    .outputs
                    .as_ref()
                    .map(Stored::value)
                    .unwrap_or_default();
                self.record.outputs = outputs;
                self.record.error = error(ended.error.as_ref()).map(|error| *error);
            }
            Fact::RunReopened(reopened) => self.reopened(at, reopened),
            Fact::DeadlineSet(_)
            | Fact::DeadlineEstimated(_)
            | Fact::DeadlineAtRisk(_)
            | Fact::DeadlineMissed(_)
            | Fact::RunPaused(_)
            | Fact::RunResumed(_)
            | Fact::CancelRequested(_)
            | Fact::PriorityChanged(_)
            | Fact::BreakpointsChanged(_)
            | Fact::ParamChanged(_) => {
                self.requested(at, fact);
            }
            Fact::ScopeOpened(opened) => self.scope_opened(at, opened),
            Fact::AttemptStarted(started) => {
                let attempt = AttemptRecord {
                    attempt: started.attempt,
                    started_at: event.time(started.started),
                    ended_at: None,
                    result: Result::Running,
                    error: None,
                    usage: None,
                    worker: None,
                };
                self.unit(started.unit.into(), StepStatus::Running, |unit| {
                    unit.started_at.get_or_insert(attempt.started_at);
                    unit.attempt(attempt);
                });
            }
            Fact::AttemptEnded(ended) => self.attempt_ended(event, ended),
            Fact::ForeachExpanded(expanded) => {
                let place: Place = expanded.unit.into();
                self.unit(place, StepStatus::Running, |unit| unit.begin(at));
                let lists = self.kept_lists(&expanded.lists);
                if let Some(step) = self.step(place) {
                    let pending = StepStatus::Pending.number();
                    step.items = Some(Box::new(ItemsFold {
                        statuses: vec![pending; expanded.count as usize],
                        lists,
                        ..ItemsFold::default()
                    }));
                }
            }
            Fact::ForeachStopped(stopped) => {
                if let Some(items) = self
                    .step(stopped.unit.into())
                    .and_then(|step| step.items.as_mut())
                {
                    items.enough |= stopped.enough;
                }
            }
            Fact::ItemsEnded(items) => self.items_ended(
                items.unit.into(),
                items.from,
                items.to,
                status(items.status),
            ),
            Fact::AwaitStarted(_)
            | Fact::ApprovalAsked(_)
            | Fact::ApprovalGiven(_)
            | Fact::SignalsSent(_)
            | Fact::BreakReached(_)
            | Fact::BreakPassed(_) => self.wait_fact(event, fact),
            _ => self.unit_fact(event, fact),
        }
    }

    /// Facts of one unit that set its status and little else.
    fn unit_fact(&mut self, event: &Event, fact: &Fact) {
        let at = Time(event.at);
        match fact {
            Fact::UnitReady(ready) => {
                let place: Place = ready.unit.into();
                let until = (ready.not_before > 0).then(|| event.time(ready.not_before));
                let status = if until.is_some() {
                    StepStatus::Waiting
                } else {
                    StepStatus::Queued
                };
                self.unit(place, status, |unit| {
                    unit.ready_at.get_or_insert(at);
                    unit.until = until;
                });
            }
            Fact::UnitEnded(ended) => {
                let place: Place = ended.unit.into();
                let output = ended
                    .output
                    .as_ref()
                    .map(|output| self.shown(output, place.item))
                    .unwrap_or_default();
                self.unit(place, ended.step_status(), |unit| {
                    unit.end(at, output);
                    unit.error = error(ended.error.as_ref());
                    unit.tolerated = ended.tolerated && ended.step_status().bad();
                    unit.by = Some(ended.by.clone()).filter(|by| !by.is_empty());
                });
            }
            Fact::WaitStarted(wait) => self.unit(wait.unit.into(), StepStatus::Waiting, |unit| {
                unit.begin(at);
                unit.until = Some(event.time(wait.until));
            }),
            Fact::ChildStarted(child) => {
                self.unit(child.unit.into(), StepStatus::Running, |unit| {
                    unit.begin(at);
                    unit.child = Some(run_id(&child.run));
                });
            }
            Fact::LockRequested(request) => {
                self.unit(request.unit.into(), StepStatus::Waiting, |unit| {
                    unit.lock = Some(request.name.clone());
                });
            }
            Fact::LockGranted(unit) => {
                self.unit((*unit).into(), StepStatus::Queued, |unit| unit.lock = None);
            }
            Fact::LocksReturned(unit) => self.unit((*unit).into(), StepStatus::Waiting, |_| {}),
            Fact::HandlingStarted(handling) => {
                self.unit(handling.unit.into(), StepStatus::Running, |unit| {
                    unit.error = error(handling.error.as_ref());
                });
            }
            Fact::UnitStopping(stopping) => {
                self.unit(stopping.unit.into(), StepStatus::Cancelling, |unit| {
                    unit.error = error(stopping.error.as_ref());
                });
            }
            Fact::LoopWaiting(waiting) => {
                self.unit(waiting.unit.into(), StepStatus::Waiting, |unit| {
                    unit.until = Some(event.time(waiting.until));
                });
            }
            Fact::UnitRetrying(retrying) => {
                let place: Place = retrying.unit.into();
                self.unit(place, StepStatus::Retrying, |unit| {
                    unit.until = Some(event.time(retrying.retry));
                    unit.error = error(retrying.error.as_ref());
                });
                self.drop_inner(place);
            }
            _ => {}
        }
    }

    fn requested(&mut self, at: Time, fact: &Fact) {
        let text = match fact {
            Fact::RunPaused(by) => {
                self.record.status = RunStatus::Paused;
                format!("paused by {}", by.by)
            }
            Fact::RunResumed(by) => {
                self.record.status = RunStatus::Running;
                format!("resumed by {}", by.by)
            }
            Fact::CancelRequested(cancel) => {
                self.record.status = RunStatus::Cancelling;
                let reason = if cancel.reason.is_empty() {
                    String::new()
                } else {
                    format!(": {}", cancel.reason)
                };
                if cancel.timed_out {
                    "its timeout passed".to_owned()
                } else {
                    format!("cancelled by {}{reason}", cancel.by)
                }
            }
            Fact::PriorityChanged(changed) => {
                self.record.priority = u8::try_from(changed.priority).unwrap_or(100);
                format!("priority set to {} by {}", changed.priority, changed.by)
            }
            Fact::BreakpointsChanged(changed) => {
                let stepping = if changed.stepping {
                    ", and every step stops"
                } else {
                    ""
                };
                let count = changed.breakpoints.len();
                format!("{count} breakpoints set by {}{stepping}", changed.by)
            }
            Fact::ParamChanged(changed) => {
                let value = changed.value.value();
                let text = format!(
                    "parameter `{}` set to {} by {}",
                    changed.name,
                    value.text(),
                    changed.by
                );
                let params = self.record.params.as_map();
                let mut params = params.map(|params| (**params).clone()).unwrap_or_default();
                params.insert(changed.name.as_str().into(), value);
                self.record.params = Value::Map(params.into());
                text
            }
            _ => return,
        };
        self.note(at, text);
    }

    fn note(&mut self, at: Time, text: String) {
        if self.notes.len() == NOTES {
            self.notes.pop_front();
        }
        self.notes.push_back(Note { at, text });
    }

    fn fresh_scope(
        &self,
        graph: u32,
        kind: ScopeKind,
        parent: Option<Place>,
        iteration: u32,
    ) -> ScopeFold {
        let count = self
            .plan
            .graphs
            .get(graph as usize)
            .map_or(0, |graph| graph.steps.len());
        ScopeFold {
            graph,
            kind,
            parent,
            iteration,
            steps: (0..count).map(|_| StepFold::default()).collect(),
        }
    }

    fn scope_opened(&mut self, at: Time, opened: &ScopeOpened) {
        let kind = ScopeKind::from_number(opened.kind);
        let parent = opened.unit.map(Place::from);
        if let Some(place) = parent {
            let repeats = kind == ScopeKind::Body;
            let known = self.unit_of(place).is_some();
            self.unit(place, StepStatus::Running, |unit| {
                unit.until = None;
                if kind != ScopeKind::Handler {
                    unit.begin(at);
                }
            });
            if !known || self.scopes.len() >= SCOPES {
                if let Some(unit) = self.unit_of(place) {
                    unit.left_out += 1;
                }
                return;
            }
            if repeats {
                self.drop_inner(place);
            }
            if let Some(unit) = self.unit_of(place) {
                unit.inner.push(opened.scope);
            }
            self.forget_iterations(place);
        } else if self.scopes.contains_key(&opened.scope) {
            // The root of a fork, which holds what is kept already.
            return;
        }
        let scope = self.fresh_scope(opened.graph, kind, parent, opened.iteration);
        self.scopes.insert(opened.scope, scope);
    }

    /// Keeps the first and the last iterations of a loop.
    fn forget_iterations(&mut self, place: Place) {
        let Some(unit) = self.unit_of(place) else {
            return;
        };
        if unit.inner.len() <= FIRST_ITERATIONS + LAST_ITERATIONS {
            return;
        }
        let inner = unit.inner.clone();
        let forgotten = (0..).zip(inner).skip(FIRST_ITERATIONS).find(|(_, scope)| {
            let iteration = self.scopes.get(scope).map(|scope| scope.iteration);
            iteration.is_none_or(|number| !self.named_items.contains(&number))
        });
        if let (Some((at, scope)), Some(unit)) = (forgotten, self.unit_of(place)) {
            unit.left_out += 1;
            unit.inner.remove(at);
            self.drop_scope(scope);
        }
    }

    fn drop_inner(&mut self, place: Place) {
        let inner = self
            .unit_of(place)
            .map(|unit| std::mem::take(&mut unit.inner))
            .unwrap_or_default();
        for scope in inner {
            self.drop_scope(scope);
        }
    }

    fn drop_scope(&mut self, number: u32) {
        let Some(scope) = self.scopes.remove(&number) else {
            return;
        };
        for step in scope.steps {
            let items = step
                .items
                .into_iter()
                .flat_map(|items| items.kept.into_values());
            for unit in std::iter::once(step.unit).chain(items) {
                for inner in unit.inner {
                    self.drop_scope(inner);
                }
            }
        }
    }

    fn attempt_ended(&mut self, event: &Event, ended: &AttemptEnded) {
        let place: Place = ended.unit.into();
        let ended_at = event.time(ended.ended);
        let usage = ended.usage();
        let attempt = AttemptRecord {
            attempt: ended.attempt,
            started_at: event.time(ended.started),
            ended_at: Some(ended_at),
            result: match AttemptResult::from_number(ended.result) {
                AttemptResult::Succeeded => Result::Succeeded,
                AttemptResult::Failed => Result::Failed,
                AttemptResult::Cancelled => Result::Cancelled,
                AttemptResult::Lost => Result::Lost,
            },
            error: ended.error.as_deref().map(TaskError::from),
            usage: (usage != kapell_api::task::Usage::default()).then_some(usage),
            worker: (!ended.worker.is_empty()).then(|| ended.worker.clone()),
        };
        let status = match ended.next {
            number if number == Next::Succeeded as u32 => StepStatus::Succeeded,
            number if number == Next::Retry as u32 => StepStatus::Retrying,
            _ => StepStatus::Running,
        };
        let keeps = status != StepStatus::Succeeded
            || place.item == Place::NO_ITEM
            || self.keeps(place.item);
        let output = match &ended.output {
            Some(output) if keeps => self.shown(output, place.item),
            _ => (Value::Null, None),
        };
        self.unit(place, status, |unit| {
            unit.started_at.get_or_insert(attempt.started_at);
            unit.error = attempt.error.clone().map(Box::new);
            unit.attempt(attempt);
            unit.until = (status == StepStatus::Retrying).then(|| event.time(ended.retry));
            if status == StepStatus::Succeeded {
                unit.end(ended_at, output);
                unit.error = None;
            }
        });
        self.forget_good(place, status);
    }

    /// A late item that failed once and then succeeded is none of those that failed.
    fn forget_good(&mut self, place: Place, status: StepStatus) {
        if place.item != Place::NO_ITEM
            && !self.keeps(place.item)
            && status.good()
            && let Some(items) = self.step(place).and_then(|step| step.items.as_mut())
            && items.kept.remove(&place.item).is_some()
        {
            items.beyond -= 1;
        }
    }

    /// True for an item that is kept in detail, however it ended.
    fn keeps(&self, item: u32) -> bool {
        item < FIRST_ITEMS || self.named_items.contains(&item)
    }

    fn items_ended(&mut self, place: Place, from: u32, to: u32, status: StepStatus) {
        let Some(items) = self.step(place).and_then(|step| step.items.as_mut()) else {
            return;
        };
        let range = from as usize..(to as usize).min(items.statuses.len());
        if let Some(statuses) = items.statuses.get_mut(range) {
            statuses.fill(status.number());
        }
        for (_, unit) in items.kept.range_mut(from..to.max(from)) {
            unit.status = status;
        }
    }

    /// The part of an output that is shown, and its size if it is not.
    fn shown(&mut self, stored: &Stored, item: u32) -> (Value, Option<u64>) {
        let size = stored.inline.len();
        let room = self.output_bytes + size <= OUTPUTS || self.named_items.contains(&item);
        if size > OUTPUT || !room {
            return (Value::Null, Some(size as u64));
        }
        match stored.value() {
            Value::Blob(blob) => (Value::Null, Some(blob.size)),
            value => {
                self.output_bytes += size;
                (value, None)
            }
        }
    }

    fn step(&mut self, place: Place) -> Option<&mut StepFold> {
        self.scopes
            .get_mut(&place.scope)?
            .steps
            .get_mut(usize::from(place.step))
    }

    /// A unit that is kept in detail.
    fn unit_of(&mut self, place: Place) -> Option<&mut UnitFold> {
        let keeps = self.keeps(place.item);
        let step = self.step(place)?;
        if place.item == Place::NO_ITEM {
            return Some(&mut step.unit);
        }
        step.items
            .as_mut()?
            .kept_unit(place.item, StepStatus::Pending, keeps)
    }

    /// Sets the status of a unit and changes what is kept of it.
    fn unit(&mut self, place: Place, status: StepStatus, change: impl FnOnce(&mut UnitFold)) {
        let keeps = self.keeps(place.item);
        let Some(step) = self.step(place) else { return };
        let unit = if place.item == Place::NO_ITEM {
            Some(&mut step.unit)
        } else {
            let Some(items) = &mut step.items else { return };
            if let Some(known) = items.statuses.get_mut(place.item as usize) {
                *known = status.number();
            }
            items.kept_unit(place.item, status, keeps)
        };
        if let Some(unit) = unit {
            unit.status = status;
            change(unit);
        }
    }

    /// The record of all that was taken.
    pub fn finish(mut self) -> Record {
        if let Some(until) = self.until {
            self.record.seen_at = self.record.seen_at.max(until);
        }
        self.record.notes = std::mem::take(&mut self.notes).into();
        let steps = tree::steps(&self);
        self.record.steps = steps;
        self.record
    }
}
