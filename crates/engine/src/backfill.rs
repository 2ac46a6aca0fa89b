//! A backfill: due times of a schedule that are made up for on request.
//!
//! Its due times are known when it is made; it starts a run for each, so many at a time, and hears how
//! each ends. Run ids are derived from the backfill and the due time, so that a backfill makes one run for
//! each whatever crashes, and another backfill makes its own. Paused or blocked it starts nothing: the run
//! queue hears of that in the same commit, and lets none of its runs that wait there start either.
//!
//! ```text
//! running -- paused --> paused -- resumed --> running
//!    |  \-- a run failed under `strict_sequential` --> blocked -- it is retried, or resumed --> running
//!    |-- cancelled --> cancelled: starts no more, and cancels what runs
//!    '-- all have ended --> ended
//! ```

use std::sync::Arc;

use kapell_expr::Value;
use kapell_model::{EntityKey, Error, ErrorCode, RunId, RunStatus, Time, limits};
use prost::Message as _;
use serde::{Deserialize, Serialize};

use crate::chunk;
use crate::event::run_id;
use crate::message::{Message, StartClass};
use crate::run_queue::Hold;
use crate::small::{Ask, Decided, Small, SmallInput, misdirected};
use crate::trigger::{Made, Wanted};

mod show;
mod state;

pub use state::{BackfillEvent, Fact, State};
use state::{By, Ended, Nothing, OfRun, Started};

/// Due times to be made up for, as somebody asks a trigger.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AskBackfill {
    /// Unique in the workflow; empty: it is given one.
    pub id: Arc<str>,
    /// The first instant.
    pub from: Time,
    /// The first instant that does not belong to it any more.
    pub until: Time,
    /// Which of the due times.
    pub only: Only,
    /// The newest goes first.
    pub newest_first: bool,
    /// Runs active at once, 1 to [`limits::BACKFILL_CONCURRENCY`].
    pub concurrency: u32,
    /// Who asks.
    pub by: String,
}

/// Which due times a backfill makes up for. Numbers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Only {
    /// Those without a run that succeeded, or that is still under way.
    #[default]
    Missing = 0,
    /// Those with a run that failed, and none that succeeded.
    Failed = 1,
    /// All.
    All = 2,
}

impl Only {
    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Failed => "failed",
            Self::All => "all",
        }
    }

    /// What a word or a stored number means.
    pub fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Failed,
            2 => Self::All,
            _ => Self::Missing,
        }
    }
}

/// A backfill in memory.
#[derive(Clone, Debug, Default)]
pub struct Backfill {
    /// What its facts say.
    pub state: State,
    made: Option<Arc<Made>>,
}

/// A decision under way.
struct Deciding<'a> {
    backfill: &'a mut Backfill,
    key: &'a EntityKey,
    now: Time,
    events: Vec<BackfillEvent>,
    messages: Vec<(EntityKey, Message)>,
}

impl Backfill {
    /// Reads what [`Small::to_bytes`] wrote, also of an earlier or a later version.
    ///
    /// # Errors
    /// Bytes that are no such message.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        let mut backfill = Self {
            state: State::decode(bytes)?,
            made: None,
        };
        backfill.read();
        Ok(backfill)
    }

    /// Makes the state that the event says.
    pub fn apply(&mut self, event: &BackfillEvent) {
        self.state.apply(event);
        if matches!(event.fact, Some(Fact::Made(_))) {
            self.read();
        }
    }

    fn read(&mut self) {
        self.made = Made::read(&self.state.definition, &self.state.timezone);
    }
}

impl Deciding<'_> {
    fn emit(&mut self, fact: Fact) {
        let event = BackfillEvent {
            at: self.now.0,
            fact: Some(fact),
        };
        self.backfill.apply(&event);
        self.events.push(event);
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::BackfillMade(state) if !self.backfill.state.exists() => {
                self.emit(Fact::Made(state));
            }
            Message::DueRunEnded {
                run,
                status,
                blocks,
                ..
            } => self.run_ended(run, status, blocks),
            // One that is over stays so: it starts nothing that a run could keep back.
            Message::DueRunReopened { run, .. }
                if self.backfill.state.ended_at == 0 && self.backfill.state.has_failed(run) =>
            {
                self.emit(Fact::Reopened(OfRun {
                    run: run.to_bytes().to_vec(),
                    ..OfRun::default()
                }));
            }
            Message::StartRefused { run, error, .. } if self.backfill.state.is_active(run) => {
                self.emit(Fact::Refused(OfRun {
                    run: run.to_bytes().to_vec(),
                    message: error.message,
                }));
            }
            _ => {}
        }
    }

    fn run_ended(&mut self, run: RunId, status: RunStatus, blocks: bool) {
        let state = &self.backfill.state;
        let succeeded = status == RunStatus::Succeeded;
        // One that failed before may have been retried.
        if state.is_active(run) || succeeded && state.has_failed(run) {
            self.emit(Fact::Ended(Ended {
                run: run.to_bytes().to_vec(),
                succeeded,
                blocks,
                cancelled: status == RunStatus::Cancelled,
            }));
        }
    }

    fn asked(&mut self, ask: Ask) -> Result<Value, Error> {
        let state = &self.backfill.state;
        if !state.exists() {
            let EntityKey::Backfill { workflow, id, .. } = self.key else {
                return Err(misdirected());
            };
            let message = format!("`{workflow}` has no backfill `{id}`");
            return Err(Error::new(ErrorCode::TriggerNotFound, message)
                .hint("`kapell backfill list` lists them"));
        }
        let over = state.ended_at > 0 || state.cancelled_by.is_some();
        let held = state.paused_by.is_some() || state.blocked_by.is_some();
        match ask {
            Ask::PauseBackfill { .. } | Ask::ResumeBackfill { .. } | Ask::CancelBackfill { .. }
                if over =>
            {
                return Err(Error::new(ErrorCode::NotAllowedNow, "the backfill is over")
                    .hint("start another one; by default it makes up for what is still missing"));
            }
            Ask::PauseBackfill { by } => self.emit(Fact::Paused(By { by })),
            Ask::ResumeBackfill { by } if held => self.emit(Fact::Resumed(By { by })),
            Ask::ResumeBackfill { .. } | Ask::View => {}
            Ask::CancelBackfill { by } => {
                for active in &self.backfill.state.active {
                    let message = Message::CancelRun {
                        by: by.clone(),
                        reason: "its backfill was cancelled".to_owned(),
                    };
                    self.messages.push((run_id(&active.run).into(), message));
                }
                self.emit(Fact::Cancelled(By { by }));
            }
            _ => return Err(misdirected()),
        }
        Ok(Value::from_json(&self.backfill.shown().unwrap_or_default()))
    }

    /// Starts what there is room for, up to a bound: the rest follows in the next decision, at once.
    fn go_on(&mut self) {
        for _ in 0..limits::TRIGGER_STARTS {
            let Some(due) = self.backfill.state.next_due() else {
                break;
            };
            self.start(due);
        }
        let state = &self.backfill.state;
        if state.exists() && state.ended_at == 0 && state.is_done() {
            self.emit(Fact::Over(Nothing {}));
        }
    }

    /// Where it starts nothing, or goes on, its runs that wait in line do so too.
    fn tell_queue(&mut self, before: Option<&Hold>) {
        let hold = self.backfill.state.hold();
        let EntityKey::Backfill {
            namespace,
            workflow,
            id,
        } = self.key
        else {
            return;
        };
        if hold.as_ref() == before {
            return;
        }
        let queue = EntityKey::RunQueue {
            namespace: namespace.clone(),
            workflow: workflow.clone(),
            key: "".into(),
        };
        let backfill = id.clone();
        let message = Message::BackfillHeld { backfill, hold };
        self.messages.push((queue, message));
    }

    fn start(&mut self, due: Time) {
        let EntityKey::Backfill {
            namespace,
            workflow,
            id,
        } = self.key
        else {
            return;
        };
        let state = &self.backfill.state;
        let made = self.backfill.made.clone();
        let name: Arc<str> = state.trigger.as_str().into();
        let timezone = state.timezone.clone();
        let start = match &made {
            None => Err("its schedule cannot be read".to_owned()),
            Some(made) => Wanted {
                made,
                namespace,
                workflow,
                name: &name,
                kind: "backfill",
                by: state.by.clone(),
                version: state.version,
                timezone: &timezone,
                now: self.now,
                from: self.key,
                // Due times of long ago would stand at the end of every list.
                id_at: Time(state.created_at),
                id_from: ["backfill", id],
                class: StartClass::Backfill,
                backfill: Some(id.clone()),
            }
            .start(due),
        };
        match start {
            Ok(Some(start)) => {
                self.emit(Fact::Started(Started {
                    run: start.id.to_bytes().to_vec(),
                    due: due.0,
                }));
                self.messages
                    .push((start.id.into(), Message::StartTriggered(Box::new(start))));
            }
            Ok(None) => self.emit(Fact::Declined(OfRun::default())),
            Err(message) => self.emit(Fact::Declined(OfRun {
                message,
                ..OfRun::default()
            })),
        }
    }
}

impl Small for Backfill {
    fn decide(&mut self, key: &EntityKey, input: SmallInput, now: Time) -> Result<Decided, Error> {
        let mut deciding = Deciding {
            now: now.max(Time(self.state.last_at)),
            backfill: self,
            key,
            events: Vec::new(),
            messages: Vec::new(),
        };
        let held = deciding.backfill.state.hold();
        let mut answer = Value::Null;
        match input {
            SmallInput::Message(message) => deciding.hear(*message),
            SmallInput::Ask(ask) => answer = deciding.asked(ask)?,
            SmallInput::Wake => {}
        }
        deciding.go_on();
        deciding.tell_queue(held.as_ref());
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
        self.state.next_due().map(|_| Time(self.state.last_at))
    }

    fn document(&self) -> Option<String> {
        self.shown().map(|shown| shown.to_string())
    }
}

#[cfg(test)]
mod tests;
