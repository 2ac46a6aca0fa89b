//! Entities that are no runs: small state machines behind one trait, so that whoever owns them needs
//! to know nothing of any of them.
//!
//! Their history is of no use to people: a snapshot replaces it. What people see of them is a document,
//! which is written with each commit that changes it.

use std::sync::Arc;

use kapell_expr::Value;
use kapell_model::{EntityKey, Error, ErrorCode, RunId, Time};
use serde::{Deserialize, Serialize};

use crate::backfill::AskBackfill;
use crate::message::{Message, Signal};
use crate::notice::NoticeAsk;
use crate::run_queue::{Activate, Change, LinesAsk};

/// What comes to a small entity.
#[derive(Clone, Debug)]
pub enum SmallInput {
    /// Another entity says something.
    Message(Box<Message>),
    /// Somebody wants something.
    Ask(Ask),
    /// Time has passed.
    Wake,
}

/// What people and programs ask of entities that are no runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Show everything of it.
    View,
    /// A trigger: start nothing until you are resumed.
    PauseTrigger {
        /// Who asks.
        by: String,
    },
    /// A trigger: go on from now.
    ResumeTrigger {
        /// Who asks.
        by: String,
    },
    /// A webhook's trigger: be called at another address.
    RotateTrigger,
    /// A trigger: make up for due times. Answers a map of `id`, `due`, how many there are, and
    /// `made_at`: a backfill with this id that was made at another time is another one.
    Backfill(Box<AskBackfill>),
    /// A webhook's trigger: a request has come. `sent_at` is set when it is taken; an empty `id` is given
    /// one, another is taken once. Answers a map of `outcome` (`started`, `duplicate`, `declined` or
    /// `refused`), `run`, that it starts or that the same request started before, and `error`, why it is
    /// refused.
    Deliver(Box<Signal>),
    /// A backfill: start nothing more until you are resumed.
    PauseBackfill {
        /// Who asks.
        by: String,
    },
    /// A backfill: go on. One that a failed run blocks goes on without it.
    ResumeBackfill {
        /// Who asks.
        by: String,
    },
    /// A backfill: start nothing more, and cancel what runs.
    CancelBackfill {
        /// Who asks.
        by: String,
    },
    /// A run queue: show a page of its lines.
    Lines(LinesAsk),
    /// A run queue: why does each of these runs wait? At most [`kapell_model::limits::LIST_PAGE`]. Answers a
    /// map of those that wait in it, by id, with a sentence of each.
    Whys(Vec<RunId>),
    /// A run queue: this version of your workflow is the active one.
    Activate(Box<Activate>),
    /// A run queue: something that is not versioned changes.
    Change(Box<Change>),
    /// A run queue: let those go on that wait for a failed run of this key.
    Dismiss {
        /// Value of `strategy.key`, or empty.
        key: Arc<str>,
        /// Who asks.
        by: String,
    },
    /// To a topic: keep this signal and tell who listens. `sent_at` is set when it is taken; an empty
    /// `id` is given one. Answers a map of `id`, `sent_at` and `known` (it was there already).
    Send(Box<Signal>),
    /// To a topic: kept signals, newest first. Answers a list of maps, each with its `number`.
    Signals {
        /// Only those before this number.
        before: Option<u64>,
        /// At most so many, and at most [`kapell_model::limits::LIST_PAGE`].
        limit: usize,
    },
    /// A channel: what whoever delivers its notices has to say.
    Notice(NoticeAsk),
}

/// What was decided: facts, already applied, and what to do once they are safe.
#[derive(Debug, Default)]
pub struct Decided {
    /// The facts, encoded; empty if nothing changed.
    pub chunk: Vec<u8>,
    /// Messages to other entities.
    pub messages: Vec<(EntityKey, Message)>,
    /// Versions that become the active ones of their workflows: namespace, workflow, version.
    pub activated: Vec<(Arc<str>, Arc<str>, u32)>,
    /// What is answered to whoever asked.
    pub answer: Value,
}

/// An entity that is no run.
pub trait Small {
    /// Takes an input. A refusal has changed nothing.
    ///
    /// # Errors
    /// What is answered to whoever asked; messages and the passing of time are never refused.
    fn decide(&mut self, key: &EntityKey, input: SmallInput, now: Time) -> Result<Decided, Error>;

    /// Makes the state that facts say, as [`Decided::chunk`] holds them.
    ///
    /// # Errors
    /// Bytes that are no facts of this entity.
    fn replay(&mut self, chunk: &[u8]) -> Result<(), prost::DecodeError>;

    /// The whole state as bytes of a protobuf message.
    fn to_bytes(&self) -> Vec<u8>;

    /// When something happens in it by itself.
    fn wake_at(&self) -> Option<Time>;

    /// What lists show of it, as JSON; none if lists do not show it.
    fn document(&self) -> Option<String> {
        None
    }
}

/// The refusal of what another kind of entity is asked.
pub fn misdirected() -> Error {
    Error::new(ErrorCode::Internal, "another kind of entity is asked")
}
