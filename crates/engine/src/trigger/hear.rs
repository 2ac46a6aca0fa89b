//! What comes to a trigger: what the active version says of it, people, ends of its runs.

use kapell_expr::Value;
use kapell_model::spec::{self, TriggerKind};
use kapell_model::{Error, RunStatus, Time};

use super::state::{ByPerson, Ended, Fact, Flag, Nothing, Problem, Set};
use super::{Deciding, unknown};
use crate::message::{Message, TriggerSet};
use crate::small::{Ask, misdirected};

impl Deciding<'_> {
    pub(super) fn hear(&mut self, message: Message) {
        match message {
            Message::TriggerSet(set) => self.set(&set),
            Message::TriggerRemoved if self.trigger.state.defined() => {
                self.emit(Fact::Removed(Nothing {}));
            }
            Message::WorkflowPaused(on) if self.trigger.state.workflow_paused != on => {
                self.emit(Fact::WorkflowPaused(Flag { on }));
            }
            Message::StartRefused {
                scheduled_at,
                error,
                ..
            } => {
                let problem = Problem {
                    at: self.now.0,
                    message: format!("the run for {scheduled_at}: {}", error.message),
                };
                self.emit(Fact::Refused(problem));
            }
            Message::DueRunEnded {
                scheduled_at,
                status,
                ..
            } => self.run_ended(scheduled_at, status),
            _ => {}
        }
    }

    fn set(&mut self, set: &TriggerSet) {
        // A definition that was read from JSON is written as JSON.
        let definition = serde_json::to_string(&set.trigger).unwrap_or_default();
        let state = &self.trigger.state;
        let before = self.trigger.made.as_ref().map(|made| &made.spec);
        let anew = match before {
            Some(before) => {
                starts_by(before, &state.timezone) != starts_by(&set.trigger, &set.timezone)
            }
            None => true,
        };
        let paused = before.is_some_and(|before| before.paused);
        let fact = Set {
            version: set.version,
            timezone: set.timezone.to_string(),
            workflow_paused: set.workflow_paused,
            anew,
            paused: (paused != set.trigger.paused).then_some(set.trigger.paused),
            delay: self.of.delay(&set.trigger),
            definition,
        };
        let same = !anew
            && state.definition == fact.definition
            && state.version == fact.version
            && state.timezone == fact.timezone
            && state.workflow_paused == fact.workflow_paused;
        if !same {
            self.emit(Fact::Set(fact));
        }
    }

    fn run_ended(&mut self, due: Time, status: RunStatus) {
        let made = self.trigger.made.clone();
        let Some((_, calendar)) = made.as_ref().and_then(|made| made.schedule()) else {
            return;
        };
        let succeeded = status == RunStatus::Succeeded;
        let state = &self.trigger.state;
        if state.has_succeeded(due) || !succeeded && state.has_failed(due) {
            return;
        }
        let ended = Ended {
            due: due.0,
            before: calendar.previous(due).map(|at| at.0),
            after: calendar.next(due).map(|at| at.0),
            succeeded,
        };
        self.emit(Fact::Ended(ended));
    }

    /// Does what somebody asks.
    pub(super) fn asked(&mut self, ask: Ask) -> Result<Value, Error> {
        if !self.trigger.state.defined() {
            return Err(unknown(self.of));
        }
        let paused = self.trigger.state.paused_by.is_some();
        match ask {
            Ask::PauseTrigger { by } if !paused => self.emit(Fact::Paused(ByPerson { by })),
            Ask::ResumeTrigger { by } if paused => self.emit(Fact::Resumed(ByPerson { by })),
            Ask::PauseTrigger { .. } | Ask::ResumeTrigger { .. } | Ask::View => {}
            _ => return Err(misdirected()),
        }
        let shown = self.trigger.shown().unwrap_or_default();
        Ok(Value::from_json(&shown))
    }
}

/// What, if it changes, begins a new generation.
fn starts_by(trigger: &spec::Trigger, timezone: &str) -> serde_json::Value {
    match &trigger.kind {
        TriggerKind::Schedule(schedule) => serde_json::json!([
            schedule.timing,
            schedule.timezone.as_deref().unwrap_or(timezone),
            schedule.start,
            schedule.end,
        ]),
        kind => serde_json::json!(kind),
    }
}
