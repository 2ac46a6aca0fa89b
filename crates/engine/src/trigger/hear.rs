//! What comes to a trigger: what the active version says of it, people, ends of its runs.

use std::sync::Arc;

use kapell_expr::Value;
use kapell_model::spec::{self, TriggerKind};
use kapell_model::{EntityKey, Error, ErrorCode, RunStatus, Time, limits};

use super::state::{ByPerson, Ended, Fact, Flag, Nothing, Refused, Set};
use super::{Deciding, unknown};
use crate::backfill::{self, AskBackfill, Only};
use crate::message::{Message, TriggerSet};
use crate::small::{Ask, misdirected};

impl Deciding<'_> {
    pub(super) fn hear(&mut self, message: Message) {
        match message {
            Message::TriggerSet(set) => self.set(&set),
            Message::TriggerRemoved if self.trigger.state.defined() => {
                let before = self.trigger.made.clone();
                self.emit(Fact::Removed(Nothing {}));
                self.listen(before.as_deref());
            }
            Message::Signal(signal) => self.signalled(&signal),
            Message::SubscriptionRefused { topic, .. } => {
                let error = format!("the topic `{topic}` takes no more subscriptions");
                self.decline(None, error);
            }
            Message::WorkflowPaused(on) if self.trigger.state.workflow_paused != on => {
                self.emit(Fact::WorkflowPaused(Flag { on }));
            }
            Message::StartRefused {
                scheduled_at,
                error,
                ..
            } => {
                self.emit(Fact::Refused(Refused {
                    scheduled_at: scheduled_at.0,
                    message: format!("the run for {scheduled_at}: {}", error.message),
                }));
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
            let before = self.trigger.made.clone();
            self.emit(Fact::Set(fact));
            if anew {
                self.listen(before.as_deref());
            }
        }
    }

    fn run_ended(&mut self, due: Time, status: RunStatus) {
        let made = self.trigger.made.clone();
        let Some((_, calendar)) = made.as_ref().and_then(|made| made.schedule()) else {
            return;
        };
        let succeeded = status == RunStatus::Succeeded;
        let state = &self.trigger.state;
        let known = state.has_succeeded(due) || !succeeded && state.has_failed(due);
        if known && !state.is_open(due) {
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
            Ask::Backfill(ask) => return self.backfill(*ask),
            Ask::Deliver(signal) => return self.delivered(*signal),
            Ask::PauseTrigger { .. } | Ask::ResumeTrigger { .. } | Ask::View => {}
            _ => return Err(misdirected()),
        }
        let shown = self.trigger.shown().unwrap_or_default();
        Ok(Value::from_json(&shown))
    }
}

impl Deciding<'_> {
    /// Hands the due times that are wanted to a backfill of their own.
    fn backfill(&mut self, ask: AskBackfill) -> Result<Value, Error> {
        let made = self.trigger.made.clone();
        let Some((_, calendar)) = made.as_ref().and_then(|made| made.schedule()) else {
            let message = format!("the trigger `{}` is no schedule", self.of.name);
            return Err(Error::new(ErrorCode::BadRequest, message)
                .hint("only schedules have due times that a backfill can make up for"));
        };
        let state = &self.trigger.state;
        // What is still to come is the schedule's own.
        let last = ask.until.0.saturating_sub(1).min(self.now.0);
        let all = calendar.first(
            Time(ask.from.0.saturating_sub(1)),
            Time(last),
            limits::BACKFILL + 1,
        );
        if all.len() > limits::BACKFILL {
            let message = format!(
                "more than {} due times lie between {} and {}",
                limits::BACKFILL,
                ask.from,
                ask.until
            );
            return Err(Error::new(ErrorCode::LimitReached, message)
                .hint("backfill a shorter range, then the next one"));
        }
        let is_wanted = |due: &Time| match ask.only {
            Only::Missing => !state.has_succeeded(*due) && !state.is_open(*due),
            Only::Failed => state.has_failed(*due) && !state.is_open(*due),
            Only::All => true,
        };
        let mut due: Vec<i64> = all.into_iter().filter(is_wanted).map(|due| due.0).collect();
        if ask.newest_first {
            due.reverse();
        }
        let id: Arc<str> = if ask.id.is_empty() {
            format!("{}-{}", self.of.name, state.backfills + 1).into()
        } else {
            ask.id.clone()
        };
        let answer = Value::map([
            ("id", Value::String(id.clone())),
            ("due", Value::Int(i64::try_from(due.len()).unwrap_or(0))),
        ]);
        let backfill = backfill::State {
            trigger: self.of.name.to_string(),
            definition: state.definition.clone(),
            version: state.version,
            timezone: state.timezone.clone(),
            from: ask.from.0,
            until: ask.until.0,
            only: ask.only as u32,
            newest_first: ask.newest_first,
            concurrency: ask.concurrency.clamp(1, limits::BACKFILL_CONCURRENCY),
            by: ask.by,
            created_at: self.now.0,
            total: u32::try_from(due.len()).unwrap_or(u32::MAX),
            due,
            ..backfill::State::default()
        };
        self.emit(Fact::Backfilled(Nothing {}));
        let key = EntityKey::Backfill {
            namespace: self.of.namespace.clone(),
            workflow: self.of.workflow.clone(),
            id,
        };
        self.messages
            .push((key, Message::BackfillMade(Box::new(backfill))));
        Ok(answer)
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
