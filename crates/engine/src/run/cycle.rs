//! Loops and switches.

use kapell_api::task::{Place, TaskError};
use kapell_expr::{Program, Value};
use kapell_model::StepStatus;
use kapell_model::spec::{Branch, Loop, Verb};

use super::names::At;
use super::state::Inner;
use super::{Decider, Stop};
use crate::event::{Fact, LoopWaiting, ScopeKind, ScopeOpened};

impl Decider<'_> {
    fn truth(&self, program: &Program, names: &At<'_>) -> Result<bool, Stop> {
        match self.eval(program, names)? {
            Value::Bool(truth) => Ok(truth),
            other => Err(Stop::Failed(format!(
                "`{}` gave a {}, not a bool",
                program.source(),
                other.type_name()
            ))),
        }
    }

    pub(super) fn switch(
        &mut self,
        place: Place,
        branches: &[Branch],
        graphs: &[u32],
        total: i64,
    ) -> Result<(), Stop> {
        for (branch, graph) in branches.iter().zip(graphs) {
            let taken = match &branch.when {
                None => Ok(true),
                Some(when) => self.truth(when, &At::unit(self.run, place, self.now)),
            };
            match taken {
                Ok(true) => {
                    self.open(place, ScopeKind::Body, *graph, total);
                    return Ok(());
                }
                Ok(false) => {}
                Err(stop) => return self.failed_by(place, "switch", stop),
            }
        }
        let output = Value::map([("branch", Value::Null)]);
        self.end(place, StepStatus::Succeeded, output, None);
        Ok(())
    }

    pub(super) fn first_iteration(
        &mut self,
        place: Place,
        body: &Loop,
        graph: u32,
        total: i64,
    ) -> Result<(), Stop> {
        let names = At::unit(self.run, place, self.now);
        let vars = match self.named(&body.vars, &names) {
            Ok(vars) => vars,
            Err(stop) => return self.failed_by(place, "vars", stop),
        };
        if let Some(condition) = &body.while_ {
            let names = names
                .with("vars", vars.clone())
                .with("iteration", Value::Int(0));
            match self.truth(condition, &names) {
                Ok(true) => {}
                Ok(false) => {
                    self.loop_done(place, &vars, 0);
                    return Ok(());
                }
                Err(stop) => return self.failed_by(place, "while", stop),
            }
        }
        if body.max_iterations == 0 {
            return self.loop_at_max(place, body, &vars, 0);
        }
        self.iterate(place, graph, 0, &vars, total);
        Ok(())
    }

    fn iterate(&mut self, place: Place, graph: u32, iteration: u32, vars: &Value, total: i64) {
        let vars = Some(self.stored(vars));
        let scope = self.run.state.next_scope;
        self.emit(Fact::ScopeOpened(ScopeOpened {
            scope,
            unit: Some(place.into()),
            kind: ScopeKind::Iteration as u32,
            graph,
            iteration,
            vars,
            total,
        }));
    }

    /// An iteration has ended well: the loop ends, waits, or goes on.
    pub(super) fn iteration_ended(&mut self, number: u32, place: Place) -> Result<(), Stop> {
        let Some(plan) = self.run.state.plan_step(&self.run.plan, place) else {
            return Ok(());
        };
        let step = plan.step.clone();
        let graph = plan.inner[0];
        let Verb::Loop(body) = &step.verb else {
            return Ok(());
        };
        let Some(scope) = self.run.state.scopes.get(&number) else {
            return Ok(());
        };
        let iteration = scope.iteration;
        let before = self.run.live.loaded(&scope.vars)?;
        let inside = At::scope(self.run, number, self.now);
        let next = match self.named(&body.next, &inside) {
            Ok(next) => next,
            Err(stop) => return self.failed_by(place, "next", stop),
        };
        let mut vars = before
            .as_map()
            .map(|map| (**map).clone())
            .unwrap_or_default();
        if let Some(next) = next.as_map() {
            vars.extend(
                next.iter()
                    .map(|(name, value)| (name.clone(), value.clone())),
            );
        }
        let vars = Value::Map(vars.into());
        if let Some(until) = &body.until {
            match self.truth(until, &inside.with("vars", vars.clone())) {
                Ok(false) => {}
                Ok(true) => {
                    self.loop_done(place, &vars, iteration + 1);
                    return Ok(());
                }
                Err(stop) => return self.failed_by(place, "until", stop),
            }
        }
        if let Some(condition) = &body.while_ {
            let names = At::unit(self.run, place, self.now)
                .with("vars", vars.clone())
                .with("iteration", Value::Int(i64::from(iteration) + 1));
            match self.truth(condition, &names) {
                Ok(true) => {}
                Ok(false) => {
                    self.loop_done(place, &vars, iteration + 1);
                    return Ok(());
                }
                Err(stop) => return self.failed_by(place, "while", stop),
            }
        }
        if iteration + 1 >= body.max_iterations {
            return self.loop_at_max(place, body, &vars, iteration + 1);
        }
        let delay = match &body.delay {
            Some(delay) => match self.duration(delay, &At::unit(self.run, place, self.now)) {
                Ok(delay) => delay.filter(|delay| !delay.is_zero()),
                Err(stop) => return self.failed_by(place, "delay", stop),
            },
            None => None,
        };
        match delay {
            Some(delay) => {
                let until = Self::micros(delay);
                let vars = Some(self.stored(&vars));
                self.emit(Fact::LoopWaiting(LoopWaiting {
                    unit: place.into(),
                    until,
                    iteration: iteration + 1,
                    vars,
                }));
            }
            None => self.iterate(place, graph, iteration + 1, &vars, 0),
        }
        Ok(())
    }

    /// The delay of a loop is over.
    pub(super) fn next_iteration(&mut self, place: Place) {
        let Some(plan) = self.run.state.plan_step(&self.run.plan, place) else {
            return;
        };
        let graph = plan.inner[0];
        let Some(Inner::Scope(number)) = self.run.state.unit(place).map(|unit| unit.inner.clone())
        else {
            return;
        };
        let Some(scope) = self.run.state.scopes.get(&number) else {
            return;
        };
        let (vars, iteration) = (scope.vars.clone(), scope.iteration);
        self.iterate(place, graph, iteration + 1, &vars, 0);
    }

    fn loop_done(&mut self, place: Place, vars: &Value, iterations: u32) {
        let mut output = vars.as_map().map(|map| (**map).clone()).unwrap_or_default();
        output.insert("iterations".into(), Value::Int(i64::from(iterations)));
        self.end(
            place,
            StepStatus::Succeeded,
            Value::Map(output.into()),
            None,
        );
    }

    fn loop_at_max(
        &mut self,
        place: Place,
        body: &Loop,
        vars: &Value,
        iterations: u32,
    ) -> Result<(), Stop> {
        if body.on_max_succeed {
            self.loop_done(place, vars, iterations);
            return Ok(());
        }
        let error = TaskError {
            reason: "max_iterations".into(),
            message: format!(
                "the loop did not end within {} iterations",
                body.max_iterations
            ),
            permanent: true,
            ..TaskError::default()
        };
        self.fail_unit(place, StepStatus::Failed, error)
    }
}
