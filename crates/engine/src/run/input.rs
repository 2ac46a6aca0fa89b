//! What comes from outside: workers' reports, timers, other entities.

use std::collections::BTreeSet;

use kapell_api::task::{Outcome, Place, Report, TaskError, TaskEvent};
use kapell_api::worker::Queues;
use kapell_expr::Value;
use kapell_model::spec::{NotifyOn, StepIndex};
use kapell_model::{Error, ErrorCode, FailureKind, Offer, RunStatus, StepStatus, Time, limits};

use super::finish::Ended;
use super::state::{Inner, TimerKind};
use super::waiting::Waiting;
use super::{Decider, Effect, Flight, Holding, Input, Refusal, Stop};
use crate::event::{
    AttemptStarted, ByPerson, CancelRequested, Fact, RunDiscarded, RunStarted, ScopeKind,
    ScopeOpened, Stored, UnitStopping,
};
use crate::message::Message;

/// After so long it is looked again whether a unit that waited too long for a worker may be at one.
const UNHEARD_MICROS: i64 = 1_000_000;

pub(super) type Taken = Result<(), Refusal>;

impl From<Stop> for Refusal {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Need(need) => Self::Need(vec![need]),
            Stop::Failed(message) => Self::Reject(Error::new(ErrorCode::NotAllowedNow, message)),
        }
    }
}

impl Decider<'_> {
    pub(super) fn take(&mut self, input: Input) -> Taken {
        match input {
            Input::Create(mut created) => {
                self.store_kept(&mut created);
                let waits = created.queue.is_some();
                self.emit(Fact::RunCreated(created));
                self.set_deadline();
                if !waits {
                    self.start(&Value::Null);
                }
                Ok(())
            }
            Input::Admitted { last_success } => {
                if self.run.state.status != RunStatus::Queued {
                    return Err(Refusal::Stale);
                }
                if self.run.state.started_at.is_none() {
                    self.start(&last_success);
                } else {
                    self.emit(Fact::RunResumed(ByPerson {
                        by: "its run queue".to_owned(),
                    }));
                }
                Ok(())
            }
            Input::Superseded { by } => self.superseded(by),
            Input::Discarded { reason } => {
                if self.run.state.status != RunStatus::Queued {
                    return Err(Refusal::Stale);
                }
                if self.run.state.started_at.is_some() {
                    // It ran before and was to run again: what is left of it is cancelled.
                    self.cancel("its run queue", &reason, true, false);
                    return Ok(());
                }
                self.emit(Fact::RunDiscarded(RunDiscarded {
                    reason: reason.clone(),
                }));
                self.tell_parent(RunStatus::Discarded, Value::Null, reason);
                self.tell_trigger(RunStatus::Discarded);
                self.tell_end(RunStatus::Discarded);
                Ok(())
            }
            Input::Report(report) => self.report(report),
            Input::SessionsEnded {
                epoch,
                held,
                unheard,
            } => self.sessions_ended(epoch, &held, &unheard),
            Input::ChildEnded {
                place,
                run,
                status,
                outputs,
                error,
            } => self.child_ended(place, run, status, &outputs, &error),
            Input::LockGranted {
                place,
                name,
                at,
                asked,
            } => {
                self.lock_came(place, &name, at, asked);
                Ok(())
            }
            Input::LockRefused { place, name, why } => self.lock_refused(place, &name, why),
            Input::Signals {
                place,
                signals,
                older,
            } => self.signals_came(place, &signals, older),
            Input::AwaitRefused { place, topic } => self.await_refused(place, &topic),
            Input::Pace(pace) => {
                self.paced(pace);
                Ok(())
            }
            Input::RetryChild => self.retry_child(),
            Input::Wake => self.wake(),
            Input::Request(request) => self.request(request),
        }
    }

    pub(super) fn start(&mut self, last_success: &Value) {
        let timeout = self.run.plan.spec.timeout.map_or(0, Self::micros);
        let asked = self.run.plan.watermark && !last_success.is_null();
        self.emit(Fact::RunStarted(RunStarted {
            timeout,
            last_success: asked.then(|| Stored::new(last_success)),
        }));
        self.open_top(ScopeKind::Root, 0);
        self.estimate_again();
        self.tell(NotifyOn::Started, "started", []);
    }

    pub(super) fn open_top(&mut self, kind: ScopeKind, graph: u32) {
        let scope = self.run.state.next_scope;
        self.emit(Fact::ScopeOpened(ScopeOpened {
            scope,
            kind: kind as u32,
            graph,
            ..ScopeOpened::default()
        }));
    }

    /// A duration in microseconds, at least 1.
    pub(super) fn micros(span: jiff::SignedDuration) -> i64 {
        i64::try_from(span.as_micros()).unwrap_or(i64::MAX).max(1)
    }

    fn report(&mut self, report: Report) -> Taken {
        let place = report.place;
        let flight = self.run.flight(place);
        let held = flight.is_some_and(|flight| flight.offer == report.offer);
        match report.event {
            TaskEvent::Started { at } => {
                if !held || self.run.state.started.contains_key(&place) {
                    return Err(Refusal::Stale);
                }
                let attempt = self
                    .run
                    .state
                    .unit(place)
                    .map_or(1, |unit| unit.attempts + 1);
                self.emit(Fact::AttemptStarted(AttemptStarted {
                    unit: place.into(),
                    epoch: report.offer.epoch,
                    counter: report.offer.counter,
                    started: at.0 - self.now.0,
                    attempt,
                }));
                Ok(())
            }
            TaskEvent::Ended {
                started_at,
                ended_at,
                outcome,
                usage,
            } => {
                let lost = matches!(outcome, Outcome::Lost { .. });
                if !(held || lost && self.counts_as_lost(place, report.offer)) {
                    return Err(Refusal::Stale);
                }
                // Whoever reports a loss was not there: what is recorded of the start is known better.
                let recorded = self.run.state.started.get(&place);
                let recorded = recorded.filter(|(offer, _)| lost && *offer == report.offer);
                let started_at = recorded.map_or(started_at, |(_, at)| *at);
                self.attempt_ended(
                    place,
                    report.offer,
                    Ended {
                        started_at,
                        ended_at,
                        outcome,
                        usage: usage.unwrap_or_default(),
                        worker: report.worker,
                    },
                )
            }
        }
    }

    /// A loss of a grant that this owner does not know: it was made by an owner before, and counts
    /// once.
    fn counts_as_lost(&self, place: Place, offer: Offer) -> bool {
        let state = &self.run.state;
        self.run.flight(place).is_none()
            && state.lost.get(&place).is_none_or(|last| *last < offer)
            && state.attempts_of_open(place).is_some()
            && state.unit(place).is_none_or(|unit| match unit.status {
                StepStatus::Queued | StepStatus::Pending => true,
                StepStatus::Cancelling => unit.inner == Inner::None,
                _ => false,
            })
            && !state.ended()
    }

    fn sessions_ended(&mut self, epoch: u64, held: &[Holding], unheard: &[Queues]) -> Taken {
        self.run.live.unheard = unheard.to_vec();
        let mut still = BTreeSet::new();
        for Holding {
            place,
            offer,
            attempt,
            spot,
        } in held
        {
            let open = self.run.state.attempts_of_open(*place);
            if open.is_none_or(|ended| ended + 1 != *attempt) {
                continue;
            }
            still.insert((*place, *offer));
            let known = self.run.flight(*place);
            let known = known.filter(|flight| flight.offer == *offer);
            if known.is_none_or(|known| *spot && !known.spot) {
                self.run.take_off(
                    *place,
                    Flight {
                        offer: *offer,
                        granted_at: known.map_or(self.now, |known| known.granted_at),
                        spot: *spot,
                    },
                );
            }
        }
        let gone: Vec<(Place, Flight)> = self
            .run
            .live
            .flights
            .of(())
            .filter(|(place, flight)| {
                flight.offer.epoch < epoch && !still.contains(&(*place, flight.offer))
            })
            .filter(|(place, _)| !self.may_be_at(*place, unheard))
            .map(|(place, flight)| (place, *flight))
            .collect();
        for (place, flight) in gone {
            let ended = Ended {
                started_at: flight.granted_at,
                ended_at: self.now,
                outcome: Outcome::Lost {
                    reason: "its worker is gone".to_owned(),
                    explained: true,
                },
                usage: kapell_api::task::Usage::default(),
                worker: std::sync::Arc::default(),
            };
            self.attempt_ended(place, flight.offer, ended)?;
        }
        Ok(())
    }

    /// True if an attempt there may be at one of the workers that serve these queues.
    fn may_be_at(&self, place: Place, queues: &[Queues]) -> bool {
        let step = self.run.state.plan_step(&self.run.plan, place);
        step.is_some_and(|step| {
            let mut queues = queues.iter();
            queues.any(|queues| queues.may_serve(&step.step.queue))
        })
    }

    fn child_ended(
        &mut self,
        place: Place,
        run: kapell_model::RunId,
        status: RunStatus,
        outputs: &Value,
        error: &str,
    ) -> Taken {
        let Some(unit) = self.run.state.unit(place) else {
            return Err(Refusal::Stale);
        };
        if unit.inner != Inner::Child(run) || unit.status.ended() {
            return Err(Refusal::Stale);
        }
        if status == RunStatus::Succeeded {
            let mut fields = outputs
                .as_map()
                .map(|map| (**map).clone())
                .unwrap_or_default();
            fields.insert("run_id".into(), Value::string(run.to_string()));
            self.end(
                place,
                StepStatus::Succeeded,
                Value::Map(fields.into()),
                None,
            );
            return Ok(());
        }
        if let Some(stop) = unit.stop {
            let error = unit.error.clone();
            self.end_started(place, stop, error.map(|error| *error));
            return Ok(());
        }
        let reason = if status == RunStatus::Discarded {
            "discarded"
        } else {
            "child_failed"
        };
        let message = if status == RunStatus::Discarded {
            format!("the run did not start: {error}")
        } else if error.is_empty() {
            format!("run {run} ended {status}")
        } else {
            let (began, error) = began(error);
            format!("run {run} ended {status}{began}: {error}")
        };
        let error = TaskError {
            reason: reason.into(),
            message,
            ..TaskError::default()
        };
        let bad = if status == RunStatus::TimedOut {
            StepStatus::TimedOut
        } else {
            StepStatus::Failed
        };
        self.fail_unit(place, bad, error)?;
        Ok(())
    }

    fn wake(&mut self) -> Taken {
        if self.run.state.ended() {
            return Ok(());
        }
        self.deadline_due();
        let timeout = self.run.state.timeout_at.filter(|at| *at <= self.now);
        if timeout.is_some() && self.run.state.paused_at.is_none() {
            self.cancel("kapell", "the run's timeout passed", false, true);
        }
        loop {
            let paused = self.run.state.status == RunStatus::Paused;
            let Some((_, place, kind)) = self.run.state.timers.due_of(self.now, paused) else {
                break;
            };
            if self.out.events.len() >= super::SETTLE_STEPS {
                break;
            }
            if let Err(refusal) = self.timer(place, kind) {
                if self.out.events.is_empty() {
                    return Err(refusal);
                }
                break;
            }
        }
        Ok(())
    }

    fn timer(&mut self, place: Place, kind: TimerKind) -> Taken {
        match kind {
            TimerKind::Retry | TimerKind::NotBefore => self.start_unit(place)?,
            TimerKind::Wait => self.end(place, StepStatus::Succeeded, Value::Null, None),
            TimerKind::Iteration => self.next_iteration(place),
            TimerKind::QueueTimeout => {
                if self.run.flight(place).is_some() {
                    self.run.state.timers.unset(place, kind);
                    return Ok(());
                }
                if self.may_be_at(place, &self.run.live.unheard) {
                    // It may run already: that is known once workers have said so.
                    let later = Time(self.now.0.saturating_add(UNHEARD_MICROS));
                    self.run.state.timers.set(place, kind, later);
                    return Ok(());
                }
                self.time_out(place, "it waited too long for a worker", "queue_timeout")?;
            }
            TimerKind::TotalTimeout => {
                self.run.state.timers.unset(place, kind);
                let (reason, message) = self.waited_too_long(place).unwrap_or_else(|| {
                    let message = "it took too long in all, waits included";
                    ("total_timeout", message.to_owned())
                });
                self.time_out(place, &message, reason)?;
            }
            TimerKind::GiveUp => {
                let flight = self.run.flight(place);
                let ended = Ended {
                    started_at: flight.map_or(self.now, |flight| flight.granted_at),
                    ended_at: self.now,
                    outcome: Outcome::Cancelled,
                    usage: kapell_api::task::Usage::default(),
                    worker: std::sync::Arc::default(),
                };
                let offer = flight.map(|flight| flight.offer).unwrap_or_default();
                self.run.state.timers.unset(place, kind);
                self.attempt_ended(place, offer, ended)?;
            }
        }
        Ok(())
    }

    fn time_out(&mut self, place: Place, message: &str, reason: &str) -> Result<(), Stop> {
        let error = TaskError {
            kind: FailureKind::Timeout,
            reason: reason.into(),
            message: message.into(),
            ..TaskError::default()
        };
        self.stop_unit(place, StepStatus::TimedOut, Some(error));
        Ok(())
    }

    /// Stops a unit that has not ended, so that it ends with `status`: what runs is told to stop,
    /// what does not run ends now.
    pub(super) fn stop_unit(&mut self, place: Place, status: StepStatus, error: Option<TaskError>) {
        let Some(unit) = self.run.state.unit(place) else {
            return;
        };
        let unit_status = unit.status;
        let inner = unit.inner.clone();
        let now = self
            .run
            .state
            .cancel
            .as_ref()
            .is_some_and(|cancel| cancel.now);
        if unit_status.ended() {
            return;
        }
        let ends = matches!(
            self.run.state.waits.get(&place),
            Some(Waiting::Break { ends: Some(_), .. })
        );
        if ends {
            // How it ends is known already, and stays so.
            self.go_on(place, "kapell");
            return;
        }
        let Some(unit) = self.run.state.unit(place) else {
            return;
        };
        if unit.stop.is_some() && unit_status == StepStatus::Cancelling {
            if let (Inner::Child(child), true) = (inner, now) {
                let reason = "the step that waits for it ends now".to_owned();
                self.send(child.into(), Message::CancelChild { reason, now });
            }
            return;
        }
        let is_foreach = place.item == Place::NO_ITEM
            && self
                .run
                .state
                .step(place.scope, place.step)
                .is_some_and(|step| step.foreach.is_some());
        let flight = self.run.flight(place);
        let stopping = |give_up: i64| {
            Fact::UnitStopping(UnitStopping {
                unit: place.into(),
                status: u32::from(status.number()),
                error: error.as_ref().map(Into::into),
                give_up,
            })
        };
        if matches!(inner, Inner::Handler(..)) {
            return;
        }
        if let Some(flight) = flight {
            let give_up = limits::GRACE.as_micros() * 3;
            self.emit(stopping(i64::try_from(give_up).unwrap_or(i64::MAX)));
            self.out
                .effects
                .push(Effect::Stop(vec![(place, flight.offer)]));
        } else if is_foreach {
            self.emit(stopping(0));
            self.stop_items(place, false);
        } else if let Inner::Scope(scope) = inner {
            self.emit(stopping(0));
            self.stop_scope(scope);
            // A loop that waits for its next iteration has nothing left inside.
            if self
                .run
                .state
                .scopes
                .get(&scope)
                .is_none_or(|scope| scope.left == 0)
            {
                self.end_started(place, status, error);
            }
        } else if let (Inner::Child(child), StepStatus::Running) = (inner, unit_status) {
            self.emit(stopping(0));
            let reason = format!("the step that waits for it ends {status}");
            self.send(child.into(), Message::CancelChild { reason, now });
        } else {
            self.end_started(place, status, error);
        }
    }

    /// Stops everything in a scope.
    pub(super) fn stop_scope(&mut self, scope: u32) {
        self.emit(Fact::ScopeStopped(crate::event::ScopeRef { scope }));
        self.stop_steps(scope, |_| true);
    }

    /// Stops the steps of a scope whose status is one of those.
    pub(super) fn stop_steps(&mut self, scope: u32, which: fn(StepStatus) -> bool) {
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
            if self
                .run
                .state
                .unit(place)
                .is_some_and(|unit| which(unit.status))
            {
                self.stop_unit(place, StepStatus::Cancelled, None);
            }
        }
    }

    pub(super) fn cancel(&mut self, by: &str, reason: &str, now: bool, timed_out: bool) {
        let queued = self.run.state.status == RunStatus::Queued;
        let fresh = self.run.state.started_at.is_none();
        // What only waited to run again has done nothing that `finally` should follow.
        let now = now || queued;
        self.emit(Fact::CancelRequested(CancelRequested {
            by: by.to_owned(),
            reason: reason.to_owned(),
            now,
            timed_out,
        }));
        if queued && fresh {
            self.end_run(RunStatus::Cancelled);
            return;
        }
        let tops: Vec<u32> = self
            .run
            .state
            .scopes
            .iter()
            .filter(|(_, scope)| match scope.kind {
                ScopeKind::Root => true,
                ScopeKind::Finally | ScopeKind::Handler => now,
                ScopeKind::Body | ScopeKind::Iteration => false,
            })
            .filter(|(_, scope)| scope.left > 0)
            .map(|(number, _)| *number)
            .collect();
        for scope in tops {
            self.stop_scope(scope);
        }
    }
}

/// Of the error of a run that failed by a run of its own: where it began, to be named beside this
/// run, and what went wrong there. So the text grows by no level.
fn began(error: &str) -> (String, &str) {
    let parsed = || {
        let (id, rest) = error.strip_prefix("run ")?.split_once(" ended ")?;
        let (how, message) = rest.split_once(": ")?;
        let run = how.split_once(", from run ").map_or(id, |(_, run)| run);
        run.parse::<kapell_model::RunId>().ok()?;
        Some((format!(", from run {run}"), message))
    };
    parsed().unwrap_or((String::new(), error))
}
