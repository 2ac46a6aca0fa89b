//! What starts runs of a workflow by itself.

use std::sync::Arc;

use jiff::SignedDuration;
use kapell_expr::{Program, Template};
use serde::{Deserialize, Serialize};

use crate::Time;

/// One trigger. Its name is its identity over versions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trigger {
    /// Unique in the workflow.
    pub name: Arc<str>,
    /// What it waits for.
    pub kind: TriggerKind,
    /// Parameters of the runs that it starts: a map of templates over `run` and what started it
    /// (`signal`, `signals`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<Template>,
    /// False starts nothing; over the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Program>,
    /// True: it starts nothing until it is resumed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// What a trigger waits for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum TriggerKind {
    /// Due times.
    Schedule(Box<Schedule>),
    /// A signal, or several that belong together.
    Signal(Box<SignalTrigger>),
    /// A request from outside: its body is the payload of the signal that it stands for.
    Webhook(Webhook),
}

/// Due times and what becomes of those that were missed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Schedule {
    /// When.
    pub timing: Timing,
    /// IANA name; none is the workflow's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<Arc<str>>,
    /// What becomes of due times at which nothing could start.
    #[serde(default)]
    pub catchup: Catchup,
    /// Each start is late by a fixed part of this, by a hash of its due time's schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<SignedDuration>,
    /// No due time before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Time>,
    /// No due time at or after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Time>,
}

/// When due times are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Timing {
    /// A cron expression of five or six fields, checked.
    Cron(Arc<str>),
    /// At a fixed rate of at least a second, counted from the schedule's `start`, else from 1970.
    Every(SignedDuration),
}

/// What becomes of due times at which nothing could start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Catchup {
    /// The newest is made up for.
    #[default]
    Latest,
    /// None is.
    None,
    /// All are, oldest first.
    All {
        /// At most so many, the newest.
        max: u32,
        /// Only those that are no older.
        within: Option<SignedDuration>,
        /// At least so long between two of them.
        pace: Option<SignedDuration>,
    },
}

/// Signals that start a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SignalTrigger {
    /// One without a name, or several with an alias each, which are joined on equal keys.
    pub sources: Vec<SignalSource>,
    /// Joined signals are no further apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<SignedDuration>,
    /// Of signals with an equal value one starts a run; over `signal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe: Option<Template>,
}

/// One kind of signal that a trigger takes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SignalSource {
    /// `signals.<alias>`; empty where there is one source: it is `signal`.
    pub alias: Arc<str>,
    /// The signal's name.
    pub signal: Arc<str>,
    /// Which of them, over `signal`; none takes any.
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<Program>,
    /// What it is joined by, over `signal`; none is the signal's own key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Template>,
}

/// A request from outside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Webhook {
    /// The last part of its address.
    pub path: Arc<str>,
    /// What bodies are signed with (HMAC-SHA256); may hold secrets. None: whoever knows the address
    /// may call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Template>,
    /// Of requests with an equal value one starts a run; over `signal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe: Option<Template>,
}
