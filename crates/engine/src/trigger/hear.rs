//! What comes to a trigger: what the active version says of it, people, ends of its runs.

use std::sync::Arc;

use kapell_expr::Value;
use kapell_model::spec::{self, TriggerKind};
use kapell_model::{EntityKey, Error, ErrorCode, RunStatus, Time, limits};

use super::account::carried;
use super::fact::{ByPerson, Due, Ended, Fact, Flag, Nothing, Refused, Removed, Set};
use super::room::Taken;
use super::{Deciding, Made, unknown};
use crate::backfill::{self, AskBackfill, Only};
use crate::message::{Message, TriggerSet};
use crate::small::{Ask, misdirected};

impl Deciding<'_> {
    pub(super) fn hear(&mut self, message: Message) {
        match message {
            Message::TriggerSet(set) => self.set(&set),
            Message::TriggerRemoved if self.trigger.state.defined() => {
                let before = self.trigger.made.clone();
                self.emit(Fact::Removed(Removed { keeps: true }));
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
                run,
                scheduled_at,
                error,
            } => {
                let due = self.trigger.schedule().is_some();
                self.emit(Fact::Refused(Refused {
                    scheduled_at: scheduled_at.0,
                    message: if due {
                        format!("the run for {scheduled_at}: {}", error.message)
                    } else {
                        error.message
                    },
                    run: run.to_bytes().to_vec(),
                }));
            }
            Message::NoRoom { start, error } => self.no_room(&start, error.message),
            Message::StartTaken { run } => {
                self.emit(Fact::Taken(Taken {
                    run: run.to_bytes().to_vec(),
                }));
            }
            Message::DueRunEnded {
                scheduled_at,
                status,
                ..
            } => self.run_ended(scheduled_at, status),
            Message::DueRunReopened { scheduled_at, .. }
                if !self.trigger.state.is_open(scheduled_at) =>
            {
                self.emit(Fact::Reopened(Due {
                    due: scheduled_at.0,
                }));
            }
            _ => {}
        }
    }

    fn set(&mut self, set: &TriggerSet) {
        // A definition that was read from JSON is written as JSON.
        let definition = serde_json::to_string(&set.trigger).unwrap_or_default();
        let state = &self.trigger.state;
        let made = self.trigger.made.clone();
        let anew = match &made {
            Some(before) => {
                starts_by(&before.spec, &state.timezone) != starts_by(&set.trigger, &set.timezone)
            }
            None => true,
        };
        // Of one that was removed the last version that had it is what came before.
        let before = made.or_else(|| Made::read(&state.former, &state.timezone));
        let paused = before.as_ref().is_some_and(|before| before.spec.paused);
        let succeeded = if anew {
            let now = Made::read(&definition, &set.timezone);
            let old = before.as_ref().and_then(|before| before.schedule());
            let new = now.as_ref().and_then(|now| now.schedule());
            carried(
                &state.succeeded,
                old.map(|(_, calendar)| calendar),
                new.map(|(_, calendar)| calendar),
            )
        } else {
            Vec::new()
        };
        let fact = Set {
            version: set.version,
            timezone: set.timezone.to_string(),
            workflow_paused: set.workflow_paused,
            anew,
            paused: (paused != set.trigger.paused).then_some(set.trigger.paused),
            delay: self.of.delay(&set.trigger),
            keeps: anew,
            succeeded,
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
        // Also of one that has no due times now: a later version may have them again.
        let schedule = made.as_ref().and_then(|made| made.schedule());
        let calendar = schedule.map(|(_, calendar)| calendar);
        let succeeded = status == RunStatus::Succeeded;
        let state = &self.trigger.state;
        let known = state.has_succeeded(due) || !succeeded && state.has_failed(due);
        if known && !state.is_open(due) {
            return;
        }
        let ended = Ended {
            due: due.0,
            before: calendar.and_then(|of| of.previous(due)).map(|at| at.0),
            after: calendar.and_then(|of| of.next(due)).map(|at| at.0),
            succeeded,
        };
        self.emit(Fact::Ended(ended));
    }

    fn rotate(&mut self) -> Result<(), Error> {
        let made = self.trigger.made.as_ref();
        if made.is_some_and(|made| matches!(made.spec.kind, TriggerKind::Webhook(_))) {
            self.emit(Fact::Rotated(Nothing {}));
            return Ok(());
        }
        let message = format!("the trigger `{}` is no webhook", self.of.name);
        Err(Error::new(ErrorCode::BadRequest, message)
            .hint("one with `webhook:` in the workflow file has an address"))
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
            Ask::RotateTrigger => self.rotate()?,
            Ask::Deliver(signal) => return self.delivered(*signal),
            Ask::PauseTrigger { .. } | Ask::ResumeTrigger { .. } | Ask::View => {}
            _ => return Err(misdirected()),
        }
        let shown = serde_json::to_value(self.trigger.shown()).unwrap_or_default();
        Ok(Value::from_json(&shown))
    }
}

impl Deciding<'_> {
    /// Hands the due times that are wanted to a backfill of their own. If there is one with its id, that
    /// stays as it is: `made_at` of the answer tells whose it is.
    fn backfill(&mut self, ask: AskBackfill) -> Result<Value, Error> {
        let made = self.trigger.made.clone();
        let Some((_, calendar)) = made.as_ref().and_then(|made| made.schedule()) else {
            let message = format!("the trigger `{}` is no schedule", self.of.name);
            return Err(Error::new(ErrorCode::BadRequest, message)
                .hint("only schedules have due times that a backfill can make up for"));
        };
        let before = Time(ask.from.0.saturating_sub(1));
        let last = Time(ask.until.0.saturating_sub(1));
        let mut all = calendar.first(before, last.min(self.now), limits::BACKFILL + 1);
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
        // From here on nothing is refused. What is due by now is the schedule's own, and so is what is
        // still to come, or will start later because of its jitter or the pace of its catch-up.
        self.fire();
        let state = &self.trigger.state;
        let own = if self.trigger.is_active() {
            Time(state.watermark)
        } else {
            self.now
        };
        all.retain(|due| *due <= own);
        let ahead = calendar.next(own.max(before)).filter(|due| *due <= last);
        let found = u32::try_from(all.len()).unwrap_or(u32::MAX);
        let is_wanted = |due: &Time| match ask.only {
            Only::Missing => !state.has_succeeded(*due) && !state.is_open(*due),
            Only::Failed => state.has_failed(*due) && !state.is_open(*due),
            Only::All => true,
        };
        all.retain(|due| !state.holds(*due));
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
            ("made_at", Value::Timestamp(self.now.timestamp())),
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
            found,
            ahead: ahead.map_or(0, |due| due.0),
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
