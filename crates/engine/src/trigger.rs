//! A trigger: starts runs of a workflow by itself, at due times or when signals come.
//!
//! ```text
//! (unknown) -- set --> waits -- due, or a signal --> one decision: facts and starts --> waits
//!                        ^  \-- paused, or its workflow --> paused -- resumed --'
//!                        '----------- set again ----------- removed
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `state` | what is remembered, and facts to state |
//! | `account` | which due times have a run that succeeded, over all definitions |
//! | `hear` | what comes: what the active version says, people, ends of runs |
//! | `fire` | due times to starts: one each, and what becomes of those that were missed |
//! | `listen` | signals to starts: conditions, joins, what is the same as before |
//! | `room` | starts that find no room in their run queue, which are tried again |
//! | `show` | what people see |
//!
//! - **One due time, one run**: the watermark is part of the commit that makes the run, and the run's
//!   id is derived from the trigger, its generation and the due time with its offset.
//! - **Crash**: due times that passed meanwhile lie after the watermark, and `catchup` says what
//!   becomes of them.
//! - **Clock jump**: time that a node gives passes every instant once, unless it was set by hours. Then, set
//!   back, the watermark stays, so nothing is due until the clock has passed it again; set forward, due
//!   times in between are like missed ones.
//! - **A full run queue**: a start waits in the trigger, and due times after it wait behind the watermark.
//! - **Edit or resume**: the watermark is set to now. What lies before is for a backfill, for which what
//!   is known of due times stays known.

use std::sync::Arc;

use jiff::SignedDuration;
use kapell_model::spec::{self, Schedule, TriggerKind};
use kapell_model::{EntityKey, Error, ErrorCode, Time};
use prost::Message as _;

use crate::calendar::Calendar;
use crate::chunk;
use crate::message::Message;
use crate::small::{Decided, Small, SmallInput};

mod account;
mod fact;
mod fire;
mod hear;
mod listen;
mod room;
mod show;
mod state;

pub use fact::{Fact, TriggerEvent};
pub use fire::Coming;
pub(crate) use fire::Wanted;
pub use state::State;

/// A trigger in memory.
#[derive(Clone, Debug, Default)]
pub struct Trigger {
    /// What its facts say.
    pub state: State,
    /// What its definition means, read once.
    made: Option<Arc<Made>>,
}

/// A definition as it is used.
#[derive(Debug)]
pub(crate) struct Made {
    spec: spec::Trigger,
    /// Of a schedule: its due times, or why it has none.
    calendar: Option<Result<Calendar, String>>,
}

impl Made {
    pub(crate) fn read(definition: &str, timezone: &str) -> Option<Arc<Self>> {
        let spec: spec::Trigger = serde_json::from_str(definition).ok()?;
        let calendar = match &spec.kind {
            TriggerKind::Schedule(schedule) => Some(Calendar::new(schedule, timezone)),
            TriggerKind::Signal(_) | TriggerKind::Webhook(_) => None,
        };
        Some(Arc::new(Self { spec, calendar }))
    }

    fn schedule(&self) -> Option<(&Schedule, &Calendar)> {
        match (&self.spec.kind, &self.calendar) {
            (TriggerKind::Schedule(schedule), Some(Ok(calendar))) => Some((schedule, calendar)),
            _ => None,
        }
    }
}

/// Names of a trigger.
#[derive(Clone, Copy, Debug)]
struct Names<'a> {
    key: &'a EntityKey,
    namespace: &'a Arc<str>,
    workflow: &'a Arc<str>,
    name: &'a Arc<str>,
}

impl<'a> Names<'a> {
    fn of(key: &'a EntityKey) -> Option<Self> {
        match key {
            EntityKey::Trigger {
                namespace,
                workflow,
                name,
            } => Some(Self {
                key,
                namespace,
                workflow,
                name,
            }),
            _ => None,
        }
    }

    /// By how much each start is late: a fixed part of the schedule's jitter, in microseconds.
    fn delay(self, trigger: &spec::Trigger) -> i64 {
        let jitter = match &trigger.kind {
            TriggerKind::Schedule(schedule) => schedule.jitter.unwrap_or_default(),
            TriggerKind::Signal(_) | TriggerKind::Webhook(_) => SignedDuration::ZERO,
        };
        let hash = blake3::hash(&self.key.to_bytes());
        let number = hash.as_bytes()[..8]
            .iter()
            .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let most = u128::try_from(jitter.as_micros().max(0)).unwrap_or(0);
        let part = (most * u128::from(number)) >> 64;
        i64::try_from(part).unwrap_or(0)
    }
}

/// A decision under way.
struct Deciding<'a> {
    trigger: &'a mut Trigger,
    of: Names<'a>,
    now: Time,
    events: Vec<TriggerEvent>,
    messages: Vec<(EntityKey, Message)>,
}

impl Deciding<'_> {
    fn emit(&mut self, fact: Fact) {
        let event = TriggerEvent {
            at: self.now.0,
            fact: Some(fact),
        };
        self.trigger.apply(&event);
        self.events.push(event);
    }
}

impl Trigger {
    /// Reads what [`Small::to_bytes`] wrote, also of an earlier or a later version.
    ///
    /// # Errors
    /// Bytes that are no such message.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        let mut trigger = Self {
            state: State::decode(bytes)?,
            made: None,
        };
        trigger.read();
        Ok(trigger)
    }

    /// What a schedule says and when it is due; none of one that is no schedule, or none any more.
    pub fn schedule(&self) -> Option<(&Schedule, &Calendar)> {
        self.made.as_ref()?.schedule()
    }

    /// Makes the state that the event says.
    pub fn apply(&mut self, event: &TriggerEvent) {
        let before = self.state.defined();
        self.state.apply(event);
        if before != self.state.defined() || matches!(event.fact, Some(Fact::Set(_))) {
            self.read();
        }
    }

    fn read(&mut self) {
        self.made = Made::read(&self.state.definition, &self.state.timezone);
    }

    /// True if it may start runs now.
    fn is_active(&self) -> bool {
        self.state.defined() && self.state.paused_by.is_none() && !self.state.workflow_paused
    }

    fn deciding<'a>(&'a mut self, of: Names<'a>, now: Time) -> Deciding<'a> {
        Deciding {
            now: now.max(Time(self.state.last_at)),
            trigger: self,
            of,
            events: Vec::new(),
            messages: Vec::new(),
        }
    }
}

impl Small for Trigger {
    fn decide(&mut self, key: &EntityKey, input: SmallInput, now: Time) -> Result<Decided, Error> {
        let Some(of) = Names::of(key) else {
            return Ok(Decided::default());
        };
        let mut deciding = self.deciding(of, now);
        let answer = match input {
            SmallInput::Message(message) => {
                deciding.hear(*message);
                kapell_expr::Value::Null
            }
            SmallInput::Ask(ask) => deciding.asked(ask)?,
            SmallInput::Wake => kapell_expr::Value::Null,
        };
        deciding.expire();
        deciding.fire();
        let Deciding {
            events, messages, ..
        } = deciding;
        Ok(Decided {
            chunk: chunk::encode(&events),
            messages,
            answer,
            ..Decided::default()
        })
    }

    fn replay(&mut self, chunk: &[u8]) -> Result<(), prost::DecodeError> {
        for event in chunk::decode(chunk)? {
            self.apply(&event);
        }
        Ok(())
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.state.encode_to_vec()
    }

    fn wake_at(&self) -> Option<Time> {
        let times = [self.next_start(), self.next_expiry()];
        times.into_iter().flatten().min()
    }

    fn document(&self) -> Option<String> {
        // What has only names of fields for keys is written without fail.
        serde_json::to_string(&self.shown()?).ok()
    }
}

fn unknown(of: Names<'_>) -> Error {
    let message = format!("`{}` has no trigger `{}`", of.workflow, of.name);
    Error::new(ErrorCode::TriggerNotFound, message).hint(
        "`kapell triggers` lists them; a removed one belonged to a version before the active one",
    )
}

#[cfg(test)]
mod tests;
