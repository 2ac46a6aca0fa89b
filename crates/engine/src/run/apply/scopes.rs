//! Graphs inside units, opened and dropped; paths.

use kapell_api::task::Place;
use kapell_model::spec::StepIndex;
use kapell_model::{StepStatus, Time};

use super::super::state::{Inner, Page, Scope, State, StepState, TimerKind, Todo};
use crate::event::{Event, ScopeKind, ScopeOpened};
use crate::plan::Plan;

use super::value;

impl State {
    pub(super) fn scope_opened(&mut self, plan: &Plan, event: &Event, opened: &ScopeOpened) {
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
        self.scopes.insert(opened.scope, Box::new(scope));
        if kind == ScopeKind::Finally {
            self.todo.remove(&Todo::Scope(0));
        }
        if kind == ScopeKind::Root {
            self.keep_forked(plan, at);
        }
    }

    pub(super) fn keep_forked(&mut self, plan: &Plan, at: Time) {
        for kept in std::mem::take(&mut self.meta.kept) {
            let place = Place {
                scope: 0,
                step: kept.step,
                item: Place::NO_ITEM,
            };
            if let Some(step) = self.step_mut(0, kept.step) {
                step.kept = kept.items;
            }
            self.end_unit(plan, place, at, kept.status, kept.output, None, true);
        }
    }

    /// What is inside a unit has been decided about: it stays only to be retried or looked into.
    pub(super) fn leave_inner(&mut self, place: Place) {
        if let Some(Inner::Scope(scope)) = self.unit(place).map(|unit| unit.inner.clone()) {
            self.todo.remove(&Todo::Scope(scope));
            self.todo.remove(&Todo::Fail(scope));
        }
    }

    /// The handler is over: what the unit had inside when it failed is its inside again.
    pub(super) fn leave_handler(&mut self, place: Place) {
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
    pub(super) fn drop_inner(&mut self, place: Place) {
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

    /// Drops the graphs inside the items of a foreach.
    pub(super) fn drop_inside_items(&mut self, place: Place) {
        let of_item = |parent: Place| {
            let step = Place {
                item: Place::NO_ITEM,
                ..parent
            };
            parent.item != Place::NO_ITEM && step == place
        };
        let inside = self.scopes.iter();
        let inside = inside.filter(|(_, scope)| scope.parent.is_some_and(of_item));
        let inside: Vec<u32> = inside.map(|(number, _)| *number).collect();
        for scope in inside {
            self.drop_scope(scope);
        }
    }

    /// A foreach that is ended by hand: items that have not ended are no more.
    pub(super) fn drop_items(&mut self, place: Place) {
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
        self.counts[2] = self.counts[2].saturating_sub(u64::from(left));
        // What it gave is given by hand now.
        if let Some(step) = self.step_mut(place.scope, place.step) {
            step.foreach = None;
        }
        for inner in inner {
            if let Inner::Scope(scope) | Inner::Handler(scope, _) = inner {
                self.drop_scope(scope);
            }
        }
    }

    pub(super) fn drop_scope(&mut self, number: u32) {
        let Some(scope) = self.scopes.remove(&number) else {
            return;
        };
        self.todo.remove(&Todo::Scope(number));
        self.todo.remove(&Todo::Fail(number));
        if scope.left > 0 {
            self.ready.retain(|_, places| {
                places.retain(|place| place.scope != number);
                !places.is_empty()
            });
            self.keys.retain(|place, _| place.scope != number);
            self.preempted.retain(|place, _| place.scope != number);
            // Of what handles a failure inside a unit that has ended: nobody is asked any more.
            self.waits.retain(|place, _| place.scope != number);
        }
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
