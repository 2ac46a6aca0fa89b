//! Signals: steps that wait for them and steps that send them, and how the run's end is told.

use std::sync::Arc;

use kapell_api::task::{Place, TaskError};
use kapell_expr::{Value, format_duration};
use kapell_model::spec::{Await, Dyn, Emit, EmitWhen};
use kapell_model::{EntityKey, RunStatus, StepStatus, Time, limits};

use super::input::Taken;
use super::names::{At, error_value, run_error_value};
use super::state::Todo;
use super::waiting::Waiting;
use super::{Decider, Refusal, Run, Stop};
use crate::event::{AwaitStarted, Fact, SentSignal, SignalsSent};
use crate::message::{Message, Signal, Subscribe};
use crate::topic::{self, signal_value};

/// True if a signal is sent after this end of a step.
pub(super) fn sends(when: EmitWhen, status: StepStatus) -> bool {
    let failed = matches!(status, StepStatus::Failed | StepStatus::TimedOut);
    match when {
        EmitWhen::Succeeded => status.good(),
        EmitWhen::Failed => failed,
        EmitWhen::Done => failed || status.good(),
    }
}

impl Decider<'_> {
    fn topic(&self, name: &Arc<str>) -> EntityKey {
        EntityKey::Topic {
            namespace: self.run.state.meta.namespace.clone(),
            name: name.clone(),
        }
    }

    // ---- waiting ----

    /// A unit begins to wait for a signal.
    pub(super) fn await_signal(&mut self, place: Place, wanted: &Await) -> Result<(), Stop> {
        let names = At::unit(self.run, place, self.now);
        let rendered = (|| {
            let since = match &wanted.since {
                Some(since) => self.instant(since, &names)?,
                None => None,
            };
            let timeout = self.wait_bound(wanted.timeout.as_ref(), &names)?;
            Ok::<_, Stop>((since, timeout))
        })();
        let (since, timeout) = match rendered {
            Ok(rendered) => rendered,
            Err(stop) => return self.failed_by(place, "await", stop),
        };
        let since = since.unwrap_or_else(|| names.interval_start());
        let subscribe = self.subscription(place, wanted, since);
        self.emit(Fact::AwaitStarted(AwaitStarted {
            unit: place.into(),
            signal: wanted.signal.to_string(),
            since: since.0,
            timeout,
        }));
        let to = self.topic(&wanted.signal);
        self.send(to, Message::Subscribe(Box::new(subscribe)));
        Ok(())
    }

    /// Microseconds until a wait has taken too long; 0 is never.
    pub(super) fn wait_bound(
        &self,
        timeout: Option<&Dyn<jiff::SignedDuration>>,
        names: &At<'_>,
    ) -> Result<i64, Stop> {
        let Some(timeout) = timeout else { return Ok(0) };
        Ok(self.duration(timeout, names)?.map_or(0, Self::micros))
    }

    fn subscription(&self, place: Place, wanted: &Await, since: Time) -> Subscribe {
        let names = At::unit(self.run, place, self.now);
        Subscribe {
            who: self.run.state.meta.id.into(),
            place: Some(place),
            since: Some(since),
            before: None,
            equal: topic::equals(wanted.matches.as_ref(), &names),
        }
    }

    /// What the unit that waits for a signal is defined as, with what is remembered of it.
    fn awaiting(&self, place: Place) -> Option<(Await, Time)> {
        let Some(Waiting::Signal { since, .. }) = self.run.state.waits.get(&place) else {
            return None;
        };
        let plan = self.run.state.plan_step(&self.run.plan, place)?;
        match &plan.step.verb {
            kapell_model::spec::Verb::Await(wanted) => Some(((**wanted).clone(), *since)),
            _ => None,
        }
    }

    /// Signals that a unit may wait for have come, newest first.
    pub(super) fn signals_came(
        &mut self,
        place: Place,
        signals: &[Arc<Signal>],
        older: Option<u64>,
    ) -> Taken {
        let Some((wanted, since)) = self.awaiting(place) else {
            return Err(Refusal::Stale);
        };
        for signal in signals {
            if signal.sent_at >= since && self.is_wanted(place, &wanted, signal)? {
                let output = signal_value(signal);
                self.end(place, StepStatus::Succeeded, output, None);
                return Ok(());
            }
        }
        if older.is_some() {
            let mut next = self.subscription(place, &wanted, since);
            next.before = older;
            let to = self.topic(&wanted.signal);
            self.send(to, Message::Subscribe(Box::new(next)));
        }
        Ok(())
    }

    /// True if `match` holds. Where it cannot be evaluated, as where a field is missing, it does not:
    /// what others send fails no step here.
    fn is_wanted(&self, place: Place, wanted: &Await, signal: &Signal) -> Result<bool, Stop> {
        let Some(matches) = &wanted.matches else {
            return Ok(true);
        };
        let names = At::unit(self.run, place, self.now).with("signal", signal_value(signal));
        match self.eval(matches, &names) {
            Ok(value) => Ok(value == Value::Bool(true)),
            Err(Stop::Need(need)) => Err(Stop::Need(need)),
            Err(Stop::Failed(_)) => Ok(false),
        }
    }

    /// The topic takes no more subscriptions.
    pub(super) fn await_refused(&mut self, place: Place, topic: &str) -> Taken {
        if !matches!(self.run.state.waits.get(&place), Some(Waiting::Signal { signal, .. }) if **signal == *topic)
        {
            return Err(Refusal::Stale);
        }
        let error = TaskError {
            reason: "too_many_wait".into(),
            message: format!("too many already wait for the signal `{topic}`"),
            ..TaskError::default()
        };
        self.fail_unit(place, StepStatus::Failed, error)?;
        Ok(())
    }

    /// What is said of a unit whose own wait took too long: reason and message.
    pub(super) fn waited_too_long(&self, place: Place) -> Option<(&'static str, String)> {
        let since = self.run.state.unit(place)?.started_at;
        let span = format_duration(self.now.since(since));
        match self.run.state.waits.get(&place)? {
            Waiting::Signal { signal, .. } => Some((
                "await_timeout",
                format!("no signal `{signal}` that matches came in {span}"),
            )),
            Waiting::Approval { given, .. } => {
                let count = self.approvals_wanted(place);
                let yes = given.len();
                let message = if yes == 0 {
                    format!("nobody answered in {span}")
                } else {
                    format!("{yes} of {count} said yes in {span}")
                };
                Some(("approval_timeout", message))
            }
            Waiting::Break { .. } => None,
        }
    }

    /// What is asked of signals has changed: units that wait ask anew, of kept ones too.
    pub(super) fn subscribe_again(&mut self) {
        let waits: Vec<Place> = self.run.state.waits.keys().copied().collect();
        for place in waits {
            if let Some((wanted, since)) = self.awaiting(place)
                && wanted.matches.is_some()
            {
                let again = self.subscription(place, &wanted, since);
                let to = self.topic(&wanted.signal);
                self.send(to, Message::Subscribe(Box::new(again)));
            }
        }
    }

    /// A unit that waits for a signal waits no more.
    pub(super) fn unsubscribe(&mut self, place: Place) {
        let Some(Waiting::Signal { signal, .. }) = self.run.state.waits.get(&place) else {
            return;
        };
        let to = self.topic(signal);
        let who = self.run.state.meta.id.into();
        let place = Some(place);
        self.send(to, Message::Unsubscribe { who, place });
    }

    // ---- sending ----

    /// A step that has ended sends its signals, all or none.
    pub(super) fn send_signals(&mut self, place: Place) -> Result<(), Stop> {
        let Some(unit) = self.run.state.unit(place) else {
            return Ok(());
        };
        let (status, ended_at) = (unit.status, unit.ended_at);
        let Some(plan) = self.run.state.plan_step(&self.run.plan, place) else {
            return Ok(());
        };
        let step = plan.step.clone();
        let path = self.run.state.path(&self.run.plan, place);
        let mut signals = Vec::new();
        let mut error = None;
        let wanted = step.emit.iter().filter(|emit| sends(emit.when, status));
        for (number, emit) in wanted.enumerate() {
            let id = format!("{}/{path}/{number}/{}", self.run.state.meta.id, ended_at.0);
            match self.signal_of(place, emit, id) {
                Ok(signal) => signals.push(signal),
                Err(Stop::Need(need)) => return Err(Stop::Need(need)),
                Err(Stop::Failed(message)) => {
                    error = Some(TaskError {
                        reason: "emit".into(),
                        message: format!("the signal `{}` cannot be sent: {message}", emit.signal),
                        permanent: true,
                        ..TaskError::default()
                    });
                    signals.clear();
                    break;
                }
            }
        }
        let sent = signals.iter().map(|signal| SentSignal {
            signal: signal.name.to_string(),
            id: signal.id.to_string(),
        });
        self.emit(Fact::SignalsSent(SignalsSent {
            unit: place.into(),
            sent: sent.collect(),
            error: error.as_ref().map(Into::into),
        }));
        for signal in signals {
            let to = self.topic(&signal.name);
            self.send(to, Message::Signal(Arc::new(signal)));
        }
        Ok(())
    }

    fn signal_of(&self, place: Place, emit: &Emit, id: String) -> Result<Signal, Stop> {
        let scope = At::scope(self.run, place.scope, self.now);
        let state = &self.run.state;
        let step = state.step(place.scope, place.step);
        let output = match step {
            Some(step) => scope.field(place, step, "output")?.unwrap_or_default(),
            None => Value::Null,
        };
        let error = state.unit(place).and_then(|unit| unit.error.as_deref());
        let names = At::unit(self.run, place, self.now)
            .with("output", output)
            .with("error", error.map_or(Value::Null, error_value));
        let rendered = |template: &Option<kapell_expr::Template>| match template {
            Some(template) => self.render(template, &names),
            None => Ok(Value::Null),
        };
        let given = match &emit.id {
            Some(_) => Some(rendered(&emit.id)?.text()),
            None => None,
        };
        if let Some(given) = &given
            && (given.is_empty() || given.len() > limits::SUBSCRIPTION_TEXT)
        {
            return Err(Stop::Failed(format!(
                "its id has {} bytes; 1 to {} are allowed",
                given.len(),
                limits::SUBSCRIPTION_TEXT
            )));
        }
        if let Some(Err(error)) = given.as_deref().map(topic::may_name) {
            return Err(Stop::Failed(error.message));
        }
        let signal = Signal {
            id: given.unwrap_or(id).into(),
            name: emit.signal.clone(),
            key: rendered(&emit.key)?,
            payload: rendered(&emit.payload)?,
            sent_at: self.now,
            hops: self.run.state.meta.hops + 1,
            by: format!("run {}", state.meta.id).into(),
        };
        topic::fits(&signal).map_err(|_| {
            Stop::Failed(format!(
                "its payload is larger than {} bytes",
                kapell_model::limits::SIGNAL_BYTES
            ))
        })?;
        Ok(signal)
    }
}

impl Run {
    /// How the run has ended, as the topic that tells it is told. Who owns the run sends it only where
    /// somebody listens: nobody does to most workflows. None for ends that nobody can listen to.
    pub fn end_signal(&self) -> Option<(EntityKey, Message)> {
        let state = &self.state;
        let how = match state.status {
            RunStatus::Succeeded => "succeeded",
            RunStatus::Failed | RunStatus::TimedOut => "failed",
            _ => return None,
        };
        let meta = &state.meta;
        let name: Arc<str> = format!("{}{}.{how}", topic::FINISHED, meta.workflow).into();
        let error = state.error.as_deref().map_or(Value::Null, run_error_value);
        let run = Value::string(meta.id.to_string());
        let told = |params: &Value, outputs: &Value| {
            Value::map([
                ("run", run.clone()),
                ("workflow", Value::String(meta.workflow.clone())),
                ("version", Value::Int(i64::from(meta.version))),
                ("params", params.clone()),
                ("outputs", outputs.clone()),
                ("error", error.clone()),
            ])
        };
        let mut signal = Signal {
            id: format!("{}/{}", meta.id, state.last_at.0).into(),
            name: name.clone(),
            key: Value::Null,
            payload: told(&meta.params, &state.outputs),
            sent_at: state.last_at,
            hops: meta.hops + 1,
            by: format!("run {}", meta.id).into(),
        };
        // What does not fit is left out: who listens has the run's id.
        if topic::fits(&signal).is_err() {
            signal.payload = told(&meta.params, &Value::Null);
        }
        if topic::fits(&signal).is_err() {
            signal.payload = told(&Value::Null, &Value::Null);
        }
        let to = EntityKey::Topic {
            namespace: meta.namespace.clone(),
            name,
        };
        Some((to, Message::Signal(Arc::new(signal))))
    }
}

impl super::State {
    /// A step that has just ended sends signals if it says so.
    pub(super) fn note_emits(&mut self, plan: &crate::plan::Plan, place: Place) {
        let Some(status) = self.unit(place).map(|unit| unit.status) else {
            return;
        };
        let sends = place.item == Place::NO_ITEM
            && self
                .plan_step(plan, place)
                .is_some_and(|step| step.step.emit.iter().any(|emit| sends(emit.when, status)));
        if sends {
            self.todo.insert(Todo::Emit(place.scope, place.step));
        }
    }
}
