//! An ended run starts again: what did not succeed is to be done anew.

use kapell_api::task::Place;
use kapell_expr::Value;
use kapell_model::spec::{OnFailure, StepIndex};
use kapell_model::{RunStatus, StepStatus};

use super::super::state::{Inner, Page, State, StepState, Todo, Unit};
use crate::event::{Event, RunReopened, ScopeKind};
use crate::plan::Plan;

/// Which units of a scope start again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reset {
    /// None.
    Nothing,
    /// All that did not succeed, items that a person skipped among them.
    NotGood,
    /// All that did not succeed, without items that a person skipped.
    NotGoodNorSkipped,
}

impl State {
    pub(super) fn reopened(&mut self, plan: &Plan, event: &Event, reopened: &RunReopened) {
        self.status = if reopened.queued {
            RunStatus::Queued
        } else {
            RunStatus::Running
        };
        self.reopened = true;
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
            self.drop_inside_items(*place);
            if let Some(step) = self.step_mut(place.scope, place.step) {
                *step = StepState::default();
            }
        }
        let what = match (again.is_empty(), reopened.keeps_skipped) {
            (false, _) => Reset::Nothing,
            (true, false) => Reset::NotGood,
            (true, true) => Reset::NotGoodNorSkipped,
        };
        self.reset_scope(plan, 0, what);
        let after = self.tally();
        for (place, count) in self.counts.iter_mut().enumerate() {
            *count = (counts[place] + after[place]).saturating_sub(before[place]);
        }
    }

    /// The units of all open graphs, as `counts` counts them.
    pub(super) fn tally(&self) -> [u64; 3] {
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

    /// Makes a scope ready to go on.
    pub(super) fn reset_scope(&mut self, plan: &Plan, number: u32, what: Reset) {
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
            if what != Reset::Nothing {
                reset_step(step, place, what, &mut inside);
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
        scope.failed = scope
            .steps
            .iter()
            .zip(&graph.steps)
            .find_map(|(state, step)| {
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
                self.reset_scope(plan, scope, what);
            }
        }
    }

    /// A foreach whose items are granted stands among what waits for workers if it has any.
    pub(super) fn foreach_waits(&mut self, plan: &Plan, place: Place) {
        let more = self
            .foreach_mut(place)
            .is_some_and(|foreach| foreach.has_more() || !foreach.again.is_empty());
        if !more || self.items_open(plan, place) {
            return;
        }
        self.stand_ready(plan, place);
    }
}

/// A child that never started is not retried: the step makes another.
pub(super) fn forget_discarded(unit: &mut Unit) {
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
fn reset_step(step: &mut StepState, place: Place, what: Reset, inside: &mut Vec<Place>) {
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
        // What `stop_when` skipped was to be done if the step did not succeed after all.
        let kept = what == Reset::NotGoodNorSkipped && !foreach.enough;
        if !kept {
            foreach.skipped = 0;
        }
        foreach.stopped = false;
        foreach.enough = false;
        foreach.bad = 0;
        foreach.other = foreach.skipped;
        foreach.open = 0;
        foreach.tail = None;
        for (page_index, page) in foreach.pages.iter_mut().enumerate() {
            let Page::Open { units, left } = page else {
                continue;
            };
            for (index, unit) in units.iter_mut().enumerate() {
                let stays = kept && unit.status == StepStatus::Skipped;
                if unit.status.ended() && !unit.status.good() && !stays {
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
