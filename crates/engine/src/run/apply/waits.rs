//! Units that wait for signals, people and breakpoints; signals that steps sent.

use std::sync::Arc;

use kapell_api::task::Place;
use kapell_model::{StepStatus, Time};

use super::super::state::{Inner, State, Todo};
use super::super::waiting::{Given, Waiting};
use crate::event::{
    ApprovalAsked, ApprovalGiven, AwaitStarted, BreakAt, BreakPassed, BreakReached, Event, Fact,
    ParamChanged, SignalsSent,
};
use crate::plan::Plan;

use super::{error, status, value};

impl State {
    /// Facts about units that wait for what somebody else decides.
    pub(super) fn apply_wait(&mut self, plan: &Plan, event: &Event, fact: &Fact) {
        match fact {
            Fact::AwaitStarted(wait) => self.await_started(event, wait),
            Fact::ApprovalAsked(asked) => self.approval_asked(event, asked),
            Fact::ApprovalGiven(given) => self.approval_given(event, given),
            Fact::SignalsSent(sent) => self.signals_sent(plan, sent),
            Fact::BreakReached(reached) => self.break_reached(plan, event, reached),
            Fact::BreakPassed(passed) => self.break_passed(passed),
            Fact::BreakpointsChanged(changed) => {
                self.breaks = changed.breakpoints.iter().map(Into::into).collect();
                self.stepping = changed.stepping;
            }
            Fact::ParamChanged(changed) => self.param_changed(changed),
            _ => {}
        }
    }

    fn wait_begun(&mut self, event: &Event, place: Place, timeout: i64, waits: Waiting) {
        self.note_item_started(place);
        self.step_begun(place);
        self.set_total(place, event, timeout);
        self.waits.insert(place, waits);
        let at = Time(event.at);
        if let Some(unit) = self.unit_mut(place) {
            unit.status = StepStatus::Waiting;
            unit.ready_at = at;
            unit.started_at = at;
        }
    }

    fn await_started(&mut self, event: &Event, wait: &AwaitStarted) {
        let waits = Waiting::Signal {
            signal: wait.signal.as_str().into(),
            since: Time(wait.since),
        };
        self.wait_begun(event, wait.unit.into(), wait.timeout, waits);
    }

    fn approval_asked(&mut self, event: &Event, asked: &ApprovalAsked) {
        let waits = Waiting::Approval {
            message: asked.message.as_str().into(),
            given: Vec::new(),
        };
        self.wait_begun(event, asked.unit.into(), asked.timeout, waits);
    }

    fn approval_given(&mut self, event: &Event, yes: &ApprovalGiven) {
        let place = yes.unit.into();
        if let Some(Waiting::Approval { given, .. }) = self.waits.get_mut(&place) {
            given.push(Given {
                by: yes.by.as_str().into(),
                at: Time(event.at),
                comment: yes.comment.as_str().into(),
                input: value(yes.input.as_ref()),
            });
        }
    }

    fn signals_sent(&mut self, plan: &Plan, sent: &SignalsSent) {
        let place: Place = sent.unit.into();
        self.todo.remove(&Todo::Emit(place.scope, place.step));
        let Some(error) = error(sent.error.as_ref()) else {
            return;
        };
        let tolerated = self.plan_step(plan, place).is_some_and(|step| {
            matches!(
                step.step.on_failure,
                kapell_model::spec::OnFailure::Continue
            )
        });
        let Some(unit) = self.unit_mut(place).filter(|unit| unit.status.good()) else {
            return;
        };
        unit.status = StepStatus::Failed;
        unit.error = Some(error);
        self.counts[0] = self.counts[0].saturating_sub(1);
        self.counts[1] += 1;
        if !tolerated {
            self.step_failed(plan, place);
        }
    }

    fn break_reached(&mut self, plan: &Plan, event: &Event, reached: &BreakReached) {
        let place: Place = reached.unit.into();
        let at = BreakAt::from_number(reached.at);
        self.todo.remove(&Todo::Step(place.scope, place.step));
        if at != BreakAt::Before {
            self.forget_attempt(plan, place);
            self.timers.clear(place);
            self.todo.remove(&Todo::Foreach(place.scope, place.step));
            let inner = self.unit(place).map(|unit| unit.inner.clone());
            if let Some(Inner::Scope(scope) | Inner::Handler(scope, _)) = inner {
                self.todo.remove(&Todo::Scope(scope));
                self.todo.remove(&Todo::Fail(scope));
            }
        }
        let ends = (at != BreakAt::Before).then(|| status(reached.status));
        let why = reached.why.as_str().into();
        self.waits.insert(place, Waiting::Break { at, ends, why });
        if let Some(unit) = self.unit_mut(place) {
            unit.status = StepStatus::Waiting;
            unit.stop = None;
            if unit.ready_at == Time::ZERO {
                unit.ready_at = Time(event.at);
            }
            unit.output = value(reached.output.as_ref());
            unit.error = error(reached.error.as_ref());
        }
    }

    fn break_passed(&mut self, passed: &BreakPassed) {
        let place: Place = passed.unit.into();
        let at = BreakAt::from_number(passed.at);
        self.waits.remove(&place);
        self.passed.insert((place, at));
        if at == BreakAt::Before {
            self.todo.insert(Todo::Step(place.scope, place.step));
            if let Some(unit) = self.unit_mut(place) {
                unit.status = StepStatus::Pending;
            }
        }
    }

    /// Nothing is remembered of breakpoints that a unit has passed.
    pub(super) fn forget_passed(&mut self, place: Place) {
        if !self.passed.is_empty() {
            self.passed.retain(|(passed, _)| *passed != place);
        }
    }

    fn param_changed(&mut self, changed: &ParamChanged) {
        let mut params = self
            .meta
            .params
            .as_map()
            .map(|params| (**params).clone())
            .unwrap_or_default();
        params.insert(Arc::from(changed.name.as_str()), changed.value.value());
        self.meta.params = kapell_expr::Value::Map(params.into());
    }
}
