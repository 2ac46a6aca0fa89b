//! How attempts and units end: retries, handlers, policies.

use std::sync::Arc;

use jiff::SignedDuration;
use kapell_api::task::{Outcome, Place, TaskError, Usage};
use kapell_expr::Value;
use kapell_model::spec::{Dyn, OnFailure, Retry};
use kapell_model::{FailureKind, Offer, RunStatus, StepStatus, Time, limits};

use super::names::{At, error_value};
use super::state::{Inner, Unit};
use super::{Decider, Effect, Refusal, Stop};
use crate::event::{
    AttemptEnded, AttemptResult, BreakAt, Fact, HandlingStarted, Next, RunEnded, ScopeKind,
    ScopeOpened, StepsEnded, UnitEnded, UnitRetrying,
};

/// The end of an attempt, as reported.
pub(crate) struct Ended {
    pub started_at: Time,
    pub ended_at: Time,
    pub outcome: Outcome,
    pub usage: Usage,
    /// Empty for the one in the process of the node, or if nobody knows.
    pub worker: Arc<str>,
}

/// What follows a failed attempt.
enum Verdict {
    Retry(Time),
    End(StepStatus, Box<TaskError>),
}

impl Decider<'_> {
    pub(super) fn attempt_ended(
        &mut self,
        place: Place,
        offer: Offer,
        ended: Ended,
    ) -> Result<(), Refusal> {
        let open = self.run.state.attempts_of_open(place);
        let attempts = open.ok_or(Refusal::Stale)?;
        let outcome = self.typed(place, ended.outcome);
        let mut fact = AttemptEnded {
            unit: place.into(),
            attempt: attempts + 1,
            started: ended.started_at.0 - self.now.0,
            ended: ended.ended_at.0 - self.now.0,
            cpu_millis: ended.usage.cpu_millis,
            memory_bytes: ended.usage.memory_bytes,
            worker: ended.worker.to_string(),
            ..AttemptEnded::default()
        };
        if let Outcome::Succeeded(output) = outcome {
            let enough = self.enough(place, &output)?;
            self.run.land(place);
            self.release(place);
            if self.stops(place, BreakAt::After)?.is_some() {
                // How it ends is stated where it stops.
                fact.next = Next::End as u32;
                self.emit(Fact::AttemptEnded(fact));
                self.end(place, StepStatus::Succeeded, output, None);
                return Ok(());
            }
            if !output.is_null() {
                fact.output = Some(self.stored(&output));
            }
            fact.next = Next::Succeeded as u32;
            self.emit(Fact::AttemptEnded(fact));
            if enough {
                self.stop_items(place, true);
            }
            return Ok(());
        }
        // That a worker which can be taken away is gone says nothing of the step.
        let flight = self.run.flight(place);
        let spot = flight.is_some_and(|flight| flight.offer == offer && flight.spot);
        let (outcome, preempted) = match outcome {
            Outcome::Lost { reason, .. } if spot => {
                let explained = true;
                (Outcome::Lost { reason, explained }, true)
            }
            outcome => (outcome, false),
        };
        let unit = self.run.state.unit(place).cloned().unwrap_or_default();
        let verdict = self.verdict(place, &unit, &outcome)?;
        fact.result = match &outcome {
            Outcome::Cancelled => AttemptResult::Cancelled as u32,
            Outcome::Lost { .. } => AttemptResult::Lost as u32,
            Outcome::Succeeded(_) | Outcome::Failed(_) => AttemptResult::Failed as u32,
        };
        if matches!(outcome, Outcome::Lost { .. }) {
            (fact.epoch, fact.counter) = (offer.epoch, offer.counter);
        }
        fact.explained = explained(&outcome);
        fact.preempted = preempted;
        self.run.land(place);
        self.release(place);
        match verdict {
            Verdict::Retry(at) => {
                fact.error = failure(&outcome)
                    .as_ref()
                    .map(|error| Box::new(error.into()));
                fact.next = Next::Retry as u32;
                fact.retry = self.relative(at);
                self.emit(Fact::AttemptEnded(fact));
            }
            Verdict::End(status, error) => {
                fact.error = Some(Box::new((&*error).into()));
                fact.next = Next::End as u32;
                self.emit(Fact::AttemptEnded(fact));
                self.end_started(place, status, Some(*error));
            }
        }
        Ok(())
    }

    /// A success whose output is not of the declared type is the user's failure.
    fn typed(&self, place: Place, outcome: Outcome) -> Outcome {
        let Outcome::Succeeded(output) = outcome else {
            return outcome;
        };
        let declared = self
            .run
            .state
            .plan_step(&self.run.plan, place)
            .and_then(|step| step.step.outputs.ty.as_ref());
        let Some(declared) = declared else {
            return Outcome::Succeeded(output);
        };
        match kapell_model::convert(&output, declared) {
            Ok(output) => Outcome::Succeeded(output),
            Err(message) => Outcome::Failed(Box::new(TaskError {
                reason: "output".into(),
                message: format!("the output is not of its declared type: {message}"),
                ..TaskError::default()
            })),
        }
    }

    fn enough(&self, place: Place, output: &Value) -> Result<bool, Stop> {
        if place.item == Place::NO_ITEM {
            return Ok(false);
        }
        let program = self
            .run
            .state
            .plan_step(&self.run.plan, place)
            .and_then(|step| step.step.foreach.as_ref())
            .and_then(|foreach| foreach.stop_when.clone());
        let Some(program) = program else {
            return Ok(false);
        };
        let names = At::unit(self.run, place, self.now).with("output", output.clone());
        match self.eval(&program, &names) {
            Ok(value) => Ok(value == Value::Bool(true)),
            Err(Stop::Need(need)) => Err(Stop::Need(need)),
            Err(Stop::Failed(_)) => Ok(false),
        }
    }

    fn verdict(&self, place: Place, unit: &Unit, outcome: &Outcome) -> Result<Verdict, Stop> {
        let error = failure(outcome).unwrap_or_default();
        if let Some(stop) = unit.stop {
            let error = unit.error.clone().unwrap_or_else(|| Box::new(error));
            return Ok(Verdict::End(stop, error));
        }
        let Some(step) = self.run.state.plan_step(&self.run.plan, place) else {
            return Ok(Verdict::End(StepStatus::Failed, Box::new(error)));
        };
        let status = if error.kind == FailureKind::Timeout {
            StepStatus::TimedOut
        } else {
            StepStatus::Failed
        };
        if matches!(outcome, Outcome::Lost { .. }) {
            if step.step.once || !step.step.idempotent {
                let message = format!(
                    "{}; whether it did its work is unknown, and the step may not be repeated",
                    error.message
                );
                return Ok(Verdict::End(
                    StepStatus::Failed,
                    Box::new(TaskError {
                        reason: "unknown_outcome".into(),
                        message,
                        ..error
                    }),
                ));
            }
            if !explained(outcome) && u32::from(unit.deliveries) + 1 >= limits::POISON_DELIVERIES {
                let message = format!(
                    "it took its worker down {} times",
                    u32::from(unit.deliveries) + 1
                );
                return Ok(Verdict::End(
                    StepStatus::Failed,
                    Box::new(TaskError {
                        reason: "poison".into(),
                        message,
                        ..error
                    }),
                ));
            }
        } else if step.step.once {
            return Ok(Verdict::End(status, Box::new(error)));
        }
        match self.retry_at(place, unit, &step.step.retry, &error)? {
            Some(at) => Ok(Verdict::Retry(at)),
            None => Ok(Verdict::End(status, Box::new(error))),
        }
    }

    /// When the next try may start; none if the budgets or the user's condition refuse one.
    fn retry_at(
        &self,
        place: Place,
        unit: &Unit,
        retry: &Retry,
        error: &TaskError,
    ) -> Result<Option<Time>, Stop> {
        let (used, budget) = match error.kind {
            FailureKind::User => (unit.retries[0], self.user_limit(place, &retry.limit)?),
            FailureKind::Timeout => (unit.retries[1], retry.timeout),
            FailureKind::Platform => (unit.retries[2], retry.platform),
        };
        if error.permanent || u32::from(used) >= budget {
            return Ok(None);
        }
        if let Some(when) = &retry.when {
            let names = At::unit(self.run, place, self.now)
                .with("error", error_value(error))
                .with("attempt", Value::Int(i64::from(unit.attempts) + 1));
            match self.eval(when, &names) {
                Ok(Value::Bool(true)) => {}
                Err(Stop::Need(need)) => return Err(Stop::Need(need)),
                Ok(_) | Err(Stop::Failed(_)) => return Ok(None),
            }
        }
        let tries = unit.retries.iter().map(|count| u32::from(*count)).sum();
        let mut wait = backoff(retry, tries, self.jitter(place, unit.attempts));
        if let Some(after) = error.retry_after {
            let asked = SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX);
            wait = wait.max(asked.min(limits::RETRY_AFTER));
        }
        Ok(Some(self.now.plus(wait)))
    }

    fn user_limit(&self, place: Place, limit: &Dyn<i64>) -> Result<u32, Stop> {
        let limit = match limit {
            Dyn::Fixed(limit) => *limit,
            Dyn::Expr(program) => {
                let names = At::unit(self.run, place, self.now);
                match self.eval(program, &names) {
                    Ok(value) => value.as_int().unwrap_or(0),
                    Err(Stop::Need(need)) => return Err(Stop::Need(need)),
                    Err(Stop::Failed(_)) => 0,
                }
            }
        };
        Ok(u32::try_from(limit).unwrap_or(0).min(limits::RETRIES))
    }

    /// A number that is the same whenever the same attempt is asked for.
    fn jitter(&self, place: Place, attempt: u32) -> u64 {
        let mut hash = blake3::Hasher::new();
        hash.update(&self.run.state.meta.id.to_bytes());
        for number in [place.scope, u32::from(place.step), place.item, attempt] {
            hash.update(&number.to_le_bytes());
        }
        hash.finalize().as_bytes()[..8]
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// A unit without a try of its own (a graph, a child, an expression) has failed: the whole of
    /// it is done again, if its budgets allow it.
    pub(super) fn fail_unit(
        &mut self,
        place: Place,
        status: StepStatus,
        error: TaskError,
    ) -> Result<(), Stop> {
        let unit = self.run.state.unit(place).cloned().unwrap_or_default();
        let retry = self
            .run
            .state
            .plan_step(&self.run.plan, place)
            .map(|step| step.step.retry.clone());
        let is_foreach = place.item == Place::NO_ITEM
            && self
                .run
                .state
                .step(place.scope, place.step)
                .is_some_and(|step| step.foreach.is_some());
        if let (Some(retry), false, None) = (retry, is_foreach, unit.stop)
            && let Some(at) = self.retry_at(place, &unit, &retry, &error)?
        {
            self.emit(Fact::UnitRetrying(UnitRetrying {
                unit: place.into(),
                retry: self.relative(at),
                error: Some((&error).into()),
            }));
            return Ok(());
        }
        self.end_started(place, status, Some(error));
        Ok(())
    }

    /// Ends a unit that has started: a failed, cancelled or timed-out step first runs its handler.
    pub(super) fn end_started(
        &mut self,
        place: Place,
        status: StepStatus,
        error: Option<TaskError>,
    ) {
        let with = (&Value::Null, error.as_ref());
        if self.stopped_at_end(place, BreakAt::OnFailure, status, with) {
            return;
        }
        let state = &self.run.state;
        let unit = state.unit(place).cloned().unwrap_or_default();
        let handler = state
            .plan_step(&self.run.plan, place)
            .and_then(|step| step.handler)
            .filter(|_| place.item == Place::NO_ITEM)
            .filter(|_| unit.started_at != Time::ZERO || error.is_some())
            .filter(|_| !matches!(unit.inner, Inner::Handler(..)))
            .filter(|_| !state.cancel.as_ref().is_some_and(|cancel| cancel.now));
        let Some(graph) = handler else {
            self.end(place, status, Value::Null, error);
            return;
        };
        self.run.land(place);
        self.release(place);
        self.emit(Fact::HandlingStarted(HandlingStarted {
            unit: place.into(),
            status: u32::from(status.number()),
            error: error.as_ref().map(Into::into),
        }));
        let scope = self.run.state.next_scope;
        self.emit(Fact::ScopeOpened(ScopeOpened {
            scope,
            unit: Some(place.into()),
            kind: ScopeKind::Handler as u32,
            graph,
            ..ScopeOpened::default()
        }));
    }

    /// Ends a unit now.
    pub(super) fn end(
        &mut self,
        place: Place,
        status: StepStatus,
        output: Value,
        error: Option<TaskError>,
    ) {
        if self.stopped_at_end(place, BreakAt::After, status, (&output, error.as_ref())) {
            return;
        }
        let tolerated = status.bad()
            && self
                .run
                .state
                .plan_step(&self.run.plan, place)
                .is_some_and(|step| match &step.step.on_failure {
                    OnFailure::Continue => true,
                    OnFailure::Handle { then_continue, .. } => {
                        *then_continue && !self.handler_failed(place)
                    }
                    OnFailure::Policy => false,
                });
        self.run.land(place);
        self.release(place);
        let enough = status.good() && matches!(self.enough(place, &output), Ok(true));
        let output = (!output.is_null()).then(|| self.stored(&output));
        self.emit(Fact::UnitEnded(UnitEnded {
            unit: place.into(),
            status: u32::from(status.number()),
            output,
            error: error.as_ref().map(Into::into),
            tolerated,
            ..UnitEnded::default()
        }));
        if enough {
            self.stop_items(place, true);
        }
    }

    fn handler_failed(&self, place: Place) -> bool {
        match self.run.state.unit(place).map(|unit| &unit.inner) {
            Some(Inner::Handler(scope, _)) => self
                .run
                .state
                .scopes
                .get(scope)
                .is_some_and(|scope| scope.failed.is_some()),
            _ => false,
        }
    }

    /// Gives back every lock a unit holds or asks for, and waits for no signal any more.
    pub(super) fn release(&mut self, place: Place) {
        self.unsubscribe(place);
        let Some(locks) = self.run.state.locks.get(&place) else {
            return;
        };
        let names: Vec<Arc<str>> = locks.names().cloned().collect();
        let asked = Some(locks.since);
        for name in names {
            self.give_back(place, name, (None, asked));
        }
    }

    /// The steps are over: `finally` runs, or the run ends.
    pub(super) fn steps_ended(&mut self) {
        let state = &self.run.state;
        let failed = state
            .scopes
            .get(&0)
            .is_some_and(|scope| scope.failed.is_some());
        let outcome = match &state.cancel {
            Some(cancel) if cancel.timed_out => RunStatus::TimedOut,
            Some(_) => RunStatus::Cancelled,
            None if failed => RunStatus::Failed,
            None => RunStatus::Succeeded,
        };
        let now = state.cancel.as_ref().is_some_and(|cancel| cancel.now);
        self.emit(Fact::StepsEnded(StepsEnded {
            outcome: u32::from(outcome.number()),
        }));
        match self.run.plan.finally {
            Some(graph) if !now => self.open_top(ScopeKind::Finally, graph),
            _ => self.end_run(outcome),
        }
    }

    /// `finally` is over, and so is the run.
    pub(super) fn finally_ended(&mut self, scope: u32) {
        let failed = self
            .run
            .state
            .scopes
            .get(&scope)
            .is_some_and(|scope| scope.failed.is_some());
        let outcome = self.run.state.outcome.unwrap_or(RunStatus::Failed);
        if failed && outcome == RunStatus::Succeeded {
            self.end_run(RunStatus::Failed);
        } else {
            self.end_run(outcome);
        }
    }

    pub(super) fn end_run(&mut self, status: RunStatus) {
        let mut status = status;
        let mut outputs = Value::Null;
        let mut error = None;
        if status == RunStatus::Succeeded && !self.run.plan.spec.outputs.is_empty() {
            let plan = self.run.plan.clone();
            match self.named(&plan.spec.outputs, &At::scope(self.run, 0, self.now)) {
                Ok(value) => outputs = value,
                Err(Stop::Need(need)) => {
                    self.run.live.needs.push(need);
                    return;
                }
                Err(Stop::Failed(message)) => {
                    status = RunStatus::Failed;
                    error = Some(TaskError {
                        reason: "expression".into(),
                        message: format!("outputs: {message}"),
                        ..TaskError::default()
                    });
                }
            }
        }
        let stored = (!outputs.is_null()).then(|| self.stored(&outputs));
        self.emit(Fact::RunEnded(RunEnded {
            status: u32::from(status.number()),
            outputs: stored,
            error: error.as_ref().map(Into::into),
        }));
        let message = self
            .run
            .state
            .error
            .as_ref()
            .map(|error| error.error.message.clone())
            .unwrap_or_default();
        self.tell_parent(status, outputs, message);
        self.tell_queue(status);
        self.tell_trigger(status);
        self.tell_end(status);
        self.out.effects.push(Effect::Finished);
    }
}

/// The error of an attempt that did not succeed.
fn failure(outcome: &Outcome) -> Option<TaskError> {
    match outcome {
        Outcome::Succeeded(_) => None,
        Outcome::Failed(error) => Some((**error).clone()),
        Outcome::Cancelled => Some(TaskError {
            kind: FailureKind::Platform,
            reason: "cancelled".into(),
            message: "the attempt was stopped".into(),
            ..TaskError::default()
        }),
        Outcome::Lost { reason, .. } => Some(TaskError {
            kind: FailureKind::Platform,
            reason: "lost".into(),
            message: reason.clone(),
            ..TaskError::default()
        }),
    }
}

/// True for a loss that says nothing of the step.
fn explained(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Lost {
            explained: true,
            ..
        }
    )
}

/// `initial * factor ^ tries`, at most `max`; with jitter 50 to 100 % of it by `random`.
fn backoff(retry: &Retry, tries: u32, random: u64) -> SignedDuration {
    let backoff = &retry.backoff;
    let exponent = i32::try_from(tries.min(1_000)).unwrap_or(1_000);
    let seconds = backoff.initial.as_secs_f64() * backoff.factor.max(1.0).powi(exponent);
    let capped = seconds.min(backoff.max.as_secs_f64()).max(0.0);
    let share = if backoff.jitter {
        let part = u32::try_from(random % 1_000_001).unwrap_or(0);
        0.5 + f64::from(part) / 2_000_000.0
    } else {
        1.0
    };
    SignedDuration::try_from_secs_f64(capped * share).unwrap_or(backoff.max)
}
