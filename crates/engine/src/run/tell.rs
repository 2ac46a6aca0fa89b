//! What people are told of a run.

use std::collections::BTreeSet;

use kapell_expr::{Map, Value};
use kapell_model::spec::NotifyOn;
use kapell_model::{EntityKey, RunStatus, Time, limits};

use super::{Decider, Run};
use crate::message::Message;
use crate::notice::Notice;
use crate::run_queue::pace::Outcome;

impl Decider<'_> {
    /// Tells everybody who is to be told of it. `text` goes on after the workflow's name.
    pub(super) fn tell(
        &mut self,
        on: NotifyOn,
        text: &str,
        more: impl IntoIterator<Item = (&'static str, Value)>,
    ) {
        let channels = self.run.channels(on);
        if channels.is_empty() {
            return;
        }
        let notice = self.run.notice(on, text, more, self.now);
        for channel in channels {
            self.send(channel, Message::Notice(Box::new(notice.clone())));
        }
    }

    /// Tells how the run ended, and its run queue what it needs to know of it.
    pub(super) fn tell_end(&mut self, status: RunStatus) {
        let text = self.run.end_text(status);
        let on = match status {
            RunStatus::Succeeded => NotifyOn::Succeeded,
            RunStatus::Failed => NotifyOn::Failed,
            RunStatus::TimedOut => NotifyOn::TimedOut,
            RunStatus::Cancelled => NotifyOn::Cancelled,
            RunStatus::Discarded => NotifyOn::Discarded,
            RunStatus::Queued | RunStatus::Running | RunStatus::Paused | RunStatus::Cancelling => {
                return;
            }
        };
        self.tell(on, &text, []);
        let counts = matches!(
            status,
            RunStatus::Succeeded | RunStatus::Failed | RunStatus::TimedOut
        );
        if !self.run.plan.paced || !counts {
            return;
        }
        let recovered = self.run.channels(NotifyOn::Recovered);
        let notice = self
            .run
            .notice(NotifyOn::Recovered, "succeeded again", [], self.now);
        let state = &self.run.state;
        let took = state
            .started_at
            .filter(|_| status == RunStatus::Succeeded && !state.reopened)
            .map(|started_at| self.now.since(started_at));
        let key = state.meta.queue.as_ref();
        let outcome = Outcome {
            run: state.meta.id,
            key: key.map_or_else(|| "".into(), |(_, _, key)| key.clone()),
            succeeded: status == RunStatus::Succeeded,
            took,
            recovered: recovered
                .into_iter()
                .map(|channel| (channel, notice.clone()))
                .collect(),
        };
        let queue = self.run.state.run_queue();
        self.send(queue, Message::Outcome(Box::new(outcome)));
    }
}

impl Run {
    /// Where something is told, each place once.
    fn channels(&self, on: NotifyOn) -> BTreeSet<EntityKey> {
        let told = self.plan.spec.notify.iter();
        told.filter(|notify| notify.on.contains(&on))
            .flat_map(|notify| &notify.to)
            // Nothing is sent to e-mail addresses: nothing is kept for them either.
            .filter(|to| !to.contains('@') || to.contains("://"))
            .map(|to| EntityKey::Channel {
                namespace: self.state.meta.namespace.clone(),
                name: to.clone(),
            })
            .collect()
    }

    /// What is told: the same fields whatever it is about, so that one template does for all.
    fn notice(
        &self,
        on: NotifyOn,
        text: &str,
        more: impl IntoIterator<Item = (&'static str, Value)>,
        now: Time,
    ) -> Notice {
        let (state, spec) = (&self.state, &self.plan.spec);
        let meta = &state.meta;
        let time = |at: Option<Time>| at.map_or(Value::Null, |at| Value::Timestamp(at.timestamp()));
        let tags = spec.tags.iter().map(Value::string).collect();
        let small = meta.params.size() <= limits::NOTICE_PARAMS_BYTES;
        let mut content: Map = [
            ("event", Value::string(on.name())),
            ("text", Value::string(format!("`{}` {text}", meta.workflow))),
            ("namespace", Value::String(meta.namespace.clone())),
            ("workflow", Value::String(meta.workflow.clone())),
            ("version", Value::Int(i64::from(meta.version))),
            ("run", Value::string(meta.id.to_string())),
            ("status", Value::string(state.status.name())),
            ("owner", Value::string(&spec.owner)),
            ("tags", Value::list(tags)),
            ("labels", meta.labels.clone()),
            (
                "params",
                if small {
                    meta.params.clone()
                } else {
                    Value::Null
                },
            ),
            ("trigger", Value::String(meta.trigger.clone())),
            ("by", Value::String(meta.by.clone())),
            ("scheduled_at", time(Some(meta.scheduled_at))),
            ("created_at", time(Some(meta.created_at))),
            ("started_at", time(state.started_at)),
            ("ended_at", time(state.ended_at)),
            (
                "deadline_at",
                time(state.deadline.as_ref().map(|deadline| deadline.at)),
            ),
            ("error", self.told_error()),
            ("step", Value::Null),
            ("at", time(Some(now))),
        ]
        .into_iter()
        .map(|(name, value)| (name.into(), value))
        .collect();
        let mut id = format!("{}-{}-{}", meta.id, on.name(), now.0);
        for (name, value) in more {
            if let ("step", Some(step)) = (name, value.as_str()) {
                // Several steps may ask at the same moment.
                id = format!("{id}-{step}");
            }
            content.insert(name.into(), value);
        }
        Notice {
            id: id.into(),
            at: now,
            content: Value::Map(content.into()),
        }
    }

    fn told_error(&self) -> Value {
        let Some(error) = self.state.error.as_deref() else {
            return Value::Null;
        };
        Value::map([
            ("step", Value::string(&error.step)),
            ("kind", Value::string(error.error.kind.name())),
            ("reason", Value::string(&error.error.reason)),
            ("message", Value::string(shortened(&error.error.message))),
        ])
    }

    fn end_text(&self, status: RunStatus) -> String {
        let took = match (self.state.started_at, self.state.ended_at) {
            (Some(from), Some(to)) => {
                let micros = to.since(from).as_micros() / 1_000 * 1_000;
                let span =
                    jiff::SignedDuration::from_micros(i64::try_from(micros).unwrap_or(i64::MAX));
                format!(" after {}", kapell_expr::format_duration(span))
            }
            _ => String::new(),
        };
        let how = match status {
            RunStatus::Succeeded => "succeeded",
            RunStatus::TimedOut => "timed out",
            RunStatus::Cancelled => "was cancelled",
            RunStatus::Discarded => "was discarded",
            _ => "failed",
        };
        match self
            .state
            .error
            .as_deref()
            .filter(|_| status != RunStatus::Succeeded)
        {
            Some(error) if error.step.is_empty() => {
                format!("{how}{took}: {}", shortened(&error.error.message))
            }
            Some(error) => {
                let message = shortened(&error.error.message);
                format!("{how}{took} in `{}`: {message}", error.step)
            }
            None => format!("{how}{took}"),
        }
    }
}

pub(super) fn shortened(message: &str) -> String {
    match message.char_indices().nth(limits::NOTICE_ERROR_CHARS) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}
