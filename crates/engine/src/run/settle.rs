//! What follows by itself: one entry of `todo` after another, until none is left.

use kapell_api::task::{Place, TaskError};
use kapell_expr::{Template, Value};
use kapell_model::spec::{Dyn, FailurePolicy, RunIf, StepIndex, Timeouts, Verb, Wait};
use kapell_model::{StepStatus, Time};

use super::names::At;
use super::state::{Inner, Todo};
use super::waiting::Waiting;
use super::{Decider, SETTLE_STEPS, Stop};
use crate::event::{Fact, ScopeKind, ScopeOpened, ScopeRef, UnitReady, WaitStarted};

/// What the needs of a step allow.
enum Needs {
    Go,
    Skip(&'static str),
    UpstreamFailed(StepIndex),
}

impl Decider<'_> {
    /// Decides what must be decided, until nothing is left, something must be loaded, or the batch
    /// is full.
    pub(super) fn settle(&mut self) {
        let mut steps = 0;
        while steps < SETTLE_STEPS && self.run.live.needs.is_empty() {
            let Some(todo) = self.run.state.next_todo() else {
                return;
            };
            let before = self.out.events.len();
            if let Err(Stop::Need(need)) = self.settle_one(todo) {
                self.run.live.needs.push(need);
                return;
            }
            // Progress is certain: what was decided took the entry away. Were it not so, the run
            // would turn in circles, so it is taken away here.
            if self.run.live.needs.is_empty() && self.out.events.len() == before {
                self.run.state.todo.remove(&todo);
            }
            steps += (self.out.events.len() - before).max(1);
        }
    }

    fn settle_one(&mut self, todo: Todo) -> Result<(), Stop> {
        match todo {
            Todo::Emit(scope, step) => self.send_signals(Place {
                scope,
                step,
                item: Place::NO_ITEM,
            }),
            Todo::Fail(scope) => {
                self.scope_failed(scope);
                Ok(())
            }
            Todo::Step(scope, step) => self.step_due(Place {
                scope,
                step,
                item: Place::NO_ITEM,
            }),
            Todo::Foreach(scope, step) => self.foreach_due(Place {
                scope,
                step,
                item: Place::NO_ITEM,
            }),
            Todo::Page(scope, step, page) => {
                self.close_page(
                    Place {
                        scope,
                        step,
                        item: Place::NO_ITEM,
                    },
                    page,
                );
                Ok(())
            }
            Todo::Lock(place) => self.request_lock(place),
            Todo::Scope(scope) => self.scope_ended(scope),
        }
    }

    /// A step of the scope has failed: by the policy nothing more starts, or what runs is stopped
    /// too.
    fn scope_failed(&mut self, scope: u32) {
        match self.run.plan.policy() {
            FailurePolicy::FailFast => {
                self.emit(Fact::ScopeStopped(ScopeRef { scope }));
                // Steps whose needs have not ended are decided when they have: some start even now.
                self.stop_steps(scope, |status| status != StepStatus::Pending);
            }
            FailurePolicy::FinishRunning => {
                self.emit(Fact::ScopeStopped(ScopeRef { scope }));
                let count = self
                    .run
                    .state
                    .scopes
                    .get(&scope)
                    .map_or(0, |scope| scope.steps.len());
                for step in 0..count {
                    let step = StepIndex::try_from(step).unwrap_or(StepIndex::MAX);
                    let place = Place {
                        scope,
                        step,
                        item: Place::NO_ITEM,
                    };
                    if self.never_ran(place) {
                        self.not_started(place);
                    }
                }
            }
            FailurePolicy::Continue => {}
        }
    }

    /// True for a unit that waits for its first attempt.
    fn never_ran(&self, place: Place) -> bool {
        let Some(step) = self.run.state.step(place.scope, place.step) else {
            return false;
        };
        let ends = matches!(
            self.run.state.waits.get(&place),
            Some(Waiting::Break { ends: Some(_), .. })
        );
        matches!(step.unit.status, StepStatus::Queued | StepStatus::Waiting)
            && !ends
            && step.unit.attempts == 0
            && step.foreach.is_none()
            && step.unit.inner == Inner::None
            && step.unit.started_at == Time::ZERO
            && self.run.flight(place).is_none()
    }

    fn not_started(&mut self, place: Place) {
        let failed = self
            .run
            .state
            .scopes
            .get(&place.scope)
            .and_then(|scope| scope.failed);
        let message = match failed {
            Some(step) => {
                let step = self.run.state.path(&self.run.plan, Place { step, ..place });
                format!("not started: `{step}` failed")
            }
            None => "not started: the run was stopped".to_owned(),
        };
        let error = TaskError {
            reason: "not_started".into(),
            message,
            ..TaskError::default()
        };
        self.end(place, StepStatus::Cancelled, Value::Null, Some(error));
    }

    fn step_due(&mut self, place: Place) -> Result<(), Stop> {
        let Some(scope) = self.run.state.scopes.get(&place.scope) else {
            return Ok(());
        };
        let Some(plan) = self.run.state.plan_step(&self.run.plan, place) else {
            return Ok(());
        };
        let step = plan.step.clone();
        let stopped = scope.stopped;
        let failed = scope.failed.is_some();
        match self.needs(place, &step.needs, step.run_if) {
            Needs::Go => {}
            Needs::Skip(why) => {
                let error = TaskError {
                    reason: "skipped".into(),
                    message: why.to_owned(),
                    ..TaskError::default()
                };
                self.end(place, StepStatus::Skipped, Value::Null, Some(error));
                return Ok(());
            }
            Needs::UpstreamFailed(need) => {
                let need = self.run.state.path(
                    &self.run.plan,
                    Place {
                        step: need,
                        ..place
                    },
                );
                let error = TaskError {
                    reason: "upstream_failed".into(),
                    message: format!("`{need}` did not succeed"),
                    ..TaskError::default()
                };
                self.end(place, StepStatus::UpstreamFailed, Value::Null, Some(error));
                return Ok(());
            }
        }
        let goes_on = failed
            && self.run.state.cancel.is_none()
            && matches!(step.run_if, RunIf::AnyFailed | RunIf::AllDone)
            && !step.needs.is_empty();
        if stopped && !goes_on {
            self.not_started(place);
            return Ok(());
        }
        if let Some(condition) = &step.condition {
            match self.eval(condition, &At::unit(self.run, place, self.now)) {
                Ok(Value::Bool(true)) => {}
                Ok(Value::Bool(false)) => {
                    let error = TaskError {
                        reason: "skipped".into(),
                        message: format!("`if: {}` is false", condition.source()),
                        ..TaskError::default()
                    };
                    self.end(place, StepStatus::Skipped, Value::Null, Some(error));
                    return Ok(());
                }
                Ok(other) => {
                    let message = format!("`if` gave a {}, not a bool", other.type_name());
                    return self.expression_failed(place, message);
                }
                Err(stop) => return self.failed_by(place, "if", stop),
            }
        }
        if self.stopped_before(place)? {
            return Ok(());
        }
        match &step.foreach {
            Some(foreach) => match self.expand(place, foreach, &step) {
                Ok(()) => Ok(()),
                Err(stop) => self.failed_by(place, "foreach", stop),
            },
            None => self.start_unit(place),
        }
    }

    fn needs(&self, place: Place, needs: &[StepIndex], run_if: RunIf) -> Needs {
        let (mut good, mut skipped) = (0, 0);
        let (mut bad, mut stopped) = (None, None);
        for need in needs {
            let Some(step) = self.run.state.step(place.scope, *need) else {
                continue;
            };
            let status = step.unit.status;
            if status.good() || step.as_success {
                good += 1;
            } else if status == StepStatus::Skipped {
                skipped += 1;
            } else if status.bad() {
                bad = bad.or(Some(*need));
            } else {
                stopped = stopped.or(Some(*need));
            }
        }
        if !needs.is_empty() && skipped == needs.len() && run_if != RunIf::NoneFailed {
            return Needs::Skip("every step it needs was skipped");
        }
        let unmet = |why| match bad.or(stopped) {
            Some(need) => Needs::UpstreamFailed(need),
            None => Needs::Skip(why),
        };
        match run_if {
            RunIf::AllSucceeded if good == needs.len() => Needs::Go,
            RunIf::AllSucceeded => unmet("a step it needs was skipped"),
            RunIf::AllDone => Needs::Go,
            RunIf::AnySucceeded if good > 0 || needs.is_empty() => Needs::Go,
            RunIf::AnySucceeded => unmet("no step it needs succeeded"),
            RunIf::AnyFailed if bad.is_some() => Needs::Go,
            RunIf::AnyFailed => Needs::Skip("no step it needs failed"),
            RunIf::NoneFailed if bad.is_none() && stopped.is_none() => Needs::Go,
            RunIf::NoneFailed => unmet("a step it needs failed"),
        }
    }

    pub(super) fn expression_failed(&mut self, place: Place, message: String) -> Result<(), Stop> {
        let error = TaskError {
            reason: "expression".into(),
            message,
            ..TaskError::default()
        };
        self.end_started(place, StepStatus::Failed, Some(error));
        Ok(())
    }

    /// A failed expression fails its unit; a need is passed on.
    pub(super) fn failed_by(&mut self, place: Place, what: &str, stop: Stop) -> Result<(), Stop> {
        match stop {
            Stop::Need(need) => Err(Stop::Need(need)),
            Stop::Failed(message) => self.expression_failed(place, format!("{what}: {message}")),
        }
    }

    /// Starts a unit: what it does begins, or it waits for what it needs.
    pub(super) fn start_unit(&mut self, place: Place) -> Result<(), Stop> {
        let Some(plan) = self.run.state.plan_step(&self.run.plan, place) else {
            return Ok(());
        };
        let step = plan.step.clone();
        let inner = plan.inner.clone();
        let total = match self.total(place, &step.timeout, plan.is_task()) {
            Ok(total) => total,
            Err(stop) => return self.failed_by(place, "timeout", stop),
        };
        let held = match self.held_until(place, &step) {
            Ok(held) => held,
            Err(stop) => return self.failed_by(place, "the step's settings", stop),
        };
        if held.is_some() {
            return self.ready(place, &step, total, held);
        }
        match &step.verb {
            Verb::Shell { .. }
            | Verb::Exec { .. }
            | Verb::Python { .. }
            | Verb::Http(_)
            | Verb::Noop
            | Verb::Fail { .. } => self.ready(place, &step, total, None),
            Verb::Steps { .. } => {
                self.open(place, ScopeKind::Body, inner[0], total);
                Ok(())
            }
            Verb::Switch { branches } => self.switch(place, branches, &inner, total),
            Verb::Loop(body) => self.first_iteration(place, body, inner[0], total),
            Verb::Workflow {
                name,
                version,
                wait,
            } => self.start_child(place, &step, (name, *version), *wait, total),
            Verb::Wait(wait) => self.wait(place, wait),
            Verb::Await(wanted) => self.await_signal(place, wanted),
            Verb::Approval(approval) => self.ask_people(place, approval),
            Verb::Set { values } => {
                match self.named(values, &At::unit(self.run, place, self.now)) {
                    Ok(value) => self.end(place, StepStatus::Succeeded, value, None),
                    Err(stop) => return self.failed_by(place, "set", stop),
                }
                Ok(())
            }
        }
    }

    fn ready(
        &mut self,
        place: Place,
        step: &kapell_model::spec::Step,
        total: i64,
        held: Option<Time>,
    ) -> Result<(), Stop> {
        let names = At::unit(self.run, place, self.now);
        let rendered = (|| {
            let queue = match &step.timeout.queue {
                Some(timeout) if held.is_none() => {
                    self.duration(timeout, &names)?.map_or(0, Self::micros)
                }
                _ => 0,
            };
            let priority = match &step.priority {
                Some(Dyn::Fixed(priority)) => Some(*priority),
                Some(Dyn::Expr(program)) => self.eval(program, &names)?.as_int(),
                None => None,
            };
            let fairness = match &step.fairness {
                Some(fairness) => Some(self.text(&fairness.key, &names)?),
                None => None,
            };
            Ok::<_, Stop>((queue, priority, fairness))
        })();
        let (queue, priority, fairness) = match rendered {
            Ok(rendered) => rendered,
            Err(stop) => return self.failed_by(place, "the step's settings", stop),
        };
        let priority = priority.map_or(0, |priority| {
            u32::try_from(priority.clamp(0, 100)).unwrap_or(0) + 1
        });
        self.emit(Fact::UnitReady(UnitReady {
            unit: place.into(),
            total,
            queue,
            not_before: held.map_or(0, |at| self.relative(at)),
            priority,
            fairness,
        }));
        Ok(())
    }

    pub(super) fn open(&mut self, place: Place, kind: ScopeKind, graph: u32, total: i64) {
        let scope = self.run.state.next_scope;
        self.emit(Fact::ScopeOpened(ScopeOpened {
            scope,
            unit: Some(place.into()),
            kind: kind as u32,
            graph,
            total,
            ..ScopeOpened::default()
        }));
    }

    /// Microseconds until the unit's total timeout; for what has no attempts the attempt's clock is
    /// that too. 0 is none.
    fn total(&self, place: Place, timeouts: &Timeouts, task: bool) -> Result<i64, Stop> {
        let timeout = timeouts.total.as_ref().or(if task {
            None
        } else {
            timeouts.attempt.as_ref()
        });
        let Some(timeout) = timeout else { return Ok(0) };
        let names = At::unit(self.run, place, self.now);
        Ok(self.duration(timeout, &names)?.map_or(0, Self::micros))
    }

    pub(super) fn duration(
        &self,
        setting: &Dyn<jiff::SignedDuration>,
        names: &At<'_>,
    ) -> Result<Option<jiff::SignedDuration>, Stop> {
        match setting {
            Dyn::Fixed(span) => Ok(Some(*span)),
            Dyn::Expr(program) => match self.eval(program, names)? {
                Value::Null => Ok(None),
                Value::Duration(span) if !span.is_negative() => Ok(Some(span)),
                Value::String(text) => kapell_expr::parse_duration(&text)
                    .map(Some)
                    .map_err(Stop::Failed),
                other => Err(Stop::Failed(format!(
                    "expected a duration, found {}",
                    other.type_name()
                ))),
            },
        }
    }

    pub(super) fn instant(
        &self,
        template: &Template,
        names: &At<'_>,
    ) -> Result<Option<Time>, Stop> {
        let zone = self.run.state.meta.timezone.clone();
        let midnight = |date: jiff::civil::Date| {
            date.in_tz(&zone)
                .map(|zoned| Some(Time::from(zoned.timestamp())))
                .map_err(|error| Stop::Failed(error.to_string()))
        };
        match self.render(template, names)? {
            Value::Null => Ok(None),
            Value::Timestamp(at) => Ok(Some(at.into())),
            Value::Date(date) => midnight(date),
            Value::String(text) => match text.parse::<jiff::Timestamp>() {
                Ok(at) => Ok(Some(at.into())),
                Err(_) => match text.parse::<jiff::civil::Date>() {
                    Ok(date) => midnight(date),
                    Err(error) => Err(Stop::Failed(format!("`{text}` is no time: {error}"))),
                },
            },
            other => Err(Stop::Failed(format!(
                "expected a timestamp, found {}",
                other.type_name()
            ))),
        }
    }

    fn wait(&mut self, place: Place, wait: &Wait) -> Result<(), Stop> {
        let names = At::unit(self.run, place, self.now);
        let until = match wait {
            Wait::For(span) => self
                .duration(span, &names)
                .map(|span| self.now.plus(span.unwrap_or(jiff::SignedDuration::ZERO))),
            Wait::Until(template) => self
                .instant(template, &names)
                .map(|until| until.unwrap_or(self.now)),
        };
        match until {
            Ok(until) if until <= self.now => {
                self.end(place, StepStatus::Succeeded, Value::Null, None);
                Ok(())
            }
            Ok(until) => {
                let until = self.relative(until);
                self.emit(Fact::WaitStarted(WaitStarted {
                    unit: place.into(),
                    until,
                }));
                Ok(())
            }
            Err(stop) => self.failed_by(place, "wait", stop),
        }
    }

    fn scope_ended(&mut self, number: u32) -> Result<(), Stop> {
        let Some(scope) = self.run.state.scopes.get(&number) else {
            return Ok(());
        };
        let Some(place) = scope.parent else {
            if scope.kind == ScopeKind::Finally {
                self.finally_ended(number);
            } else if let Some(outcome) = self.run.state.outcome {
                // Something that the outputs need had to be loaded.
                self.end_run(outcome);
            } else {
                self.steps_ended();
            }
            return Ok(());
        };
        let failed = scope.failed;
        let kind = scope.kind;
        let Some(unit) = self.run.state.unit(place).cloned() else {
            return Ok(());
        };
        if let Inner::Handler(_, status) = unit.inner {
            self.end(place, status, Value::Null, unit.error.map(|error| *error));
            return Ok(());
        }
        if let Some(stop) = unit.stop {
            self.end_started(place, stop, unit.error.map(|error| *error));
            return Ok(());
        }
        if let Some(step) = failed {
            let inside = Place {
                scope: number,
                step,
                item: Place::NO_ITEM,
            };
            let inner = self
                .run
                .state
                .unit(inside)
                .and_then(|unit| unit.error.clone());
            let path = self.run.state.path(&self.run.plan, inside);
            let inner = inner.map(|error| *error).unwrap_or_default();
            // A group inside names its own step already: the text grows by no level.
            let named = inner
                .message
                .strip_prefix('`')
                .and_then(|text| text.strip_prefix(&path))
                .is_some_and(|rest| rest.starts_with(['.', '#']) && rest.contains("` failed: "));
            let message = if named {
                inner.message
            } else {
                format!("`{path}` failed: {}", inner.message)
            };
            let error = TaskError {
                kind: kapell_model::FailureKind::User,
                message,
                permanent: false,
                ..inner
            };
            return self.fail_unit(place, StepStatus::Failed, error);
        }
        if kind == ScopeKind::Iteration {
            return self.iteration_ended(number, place);
        }
        match self.body_output(number, place) {
            Ok(output) => {
                self.end(place, StepStatus::Succeeded, output, None);
                Ok(())
            }
            Err(stop) => self.failed_by(place, "outputs", stop),
        }
    }

    /// The output of a group or of the branch of a switch.
    fn body_output(&self, number: u32, place: Place) -> Result<Value, Stop> {
        let names = At::scope(self.run, number, self.now);
        let Some(plan) = self.run.state.plan_step(&self.run.plan, place) else {
            return Ok(Value::Null);
        };
        let step = plan.step.clone();
        if let Verb::Steps { outputs, .. } = &step.verb
            && !outputs.is_empty()
        {
            return self.named(outputs, &names);
        }
        let mut map = self.inner_outputs(number, &names)?;
        if let Verb::Switch { .. } = &step.verb {
            let graph = self.run.state.scopes.get(&number).map(|scope| scope.graph);
            let branch = plan.inner.iter().position(|inner| Some(*inner) == graph);
            let branch = branch.and_then(|branch| i64::try_from(branch).ok());
            map.insert("branch".into(), branch.map_or(Value::Null, Value::Int));
        }
        Ok(Value::Map(map.into()))
    }

    fn inner_outputs(&self, number: u32, names: &At<'_>) -> Result<kapell_expr::Map, Stop> {
        let mut map = kapell_expr::Map::new();
        let Some(scope) = self.run.state.scopes.get(&number) else {
            return Ok(map);
        };
        for step in &self.run.plan.graph(scope.graph).steps {
            let path: [std::sync::Arc<str>; 3] =
                ["steps".into(), step.step.id.clone(), "output".into()];
            let value = kapell_expr::Scope::resolve(names, &path)?;
            map.insert(
                step.step.id.clone(),
                value.map(|(value, _)| value).unwrap_or_default(),
            );
        }
        Ok(map)
    }
}
