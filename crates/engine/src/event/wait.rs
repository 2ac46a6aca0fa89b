//! Facts about steps that wait for signals and people, and about signals that steps send.

use prost::Message;

use super::{Stored, StoredError, UnitRef};

/// See [`super::Fact::AwaitStarted`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AwaitStarted {
    /// The unit.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// The signal's name.
    #[prost(string, tag = "2")]
    pub signal: String,
    /// Signals sent before do not count, microseconds since 1970.
    #[prost(int64, tag = "3")]
    pub since: i64,
    /// When it waited too long, relative; 0 is never.
    #[prost(int64, tag = "4")]
    pub timeout: i64,
}

/// See [`super::Fact::ApprovalAsked`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ApprovalAsked {
    /// The unit.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// What people are asked.
    #[prost(string, tag = "2")]
    pub message: String,
    /// When it waited too long, relative; 0 is never.
    #[prost(int64, tag = "3")]
    pub timeout: i64,
}

/// See [`super::Fact::ApprovalGiven`].
#[derive(Clone, PartialEq, Message)]
pub struct ApprovalGiven {
    /// The unit.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// Who said yes.
    #[prost(string, tag = "2")]
    pub by: String,
    /// What they said with it.
    #[prost(string, tag = "3")]
    pub comment: String,
    /// What they filled in, a map.
    #[prost(message, optional, tag = "4")]
    pub input: Option<Stored>,
}

/// See [`super::Fact::SignalsSent`].
#[derive(Clone, PartialEq, Message)]
pub struct SignalsSent {
    /// The unit.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// The signals.
    #[prost(message, repeated, tag = "2")]
    pub sent: Vec<SentSignal>,
    /// Why none was sent: a step that had succeeded has failed by it.
    #[prost(message, optional, tag = "3")]
    pub error: Option<StoredError>,
}

/// A signal that was sent. What it says is kept by its topic.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SentSignal {
    /// Its name.
    #[prost(string, tag = "1")]
    pub signal: String,
    /// Its id.
    #[prost(string, tag = "2")]
    pub id: String,
}

/// See [`super::Fact::BreakReached`].
#[derive(Clone, PartialEq, Message)]
pub struct BreakReached {
    /// The unit.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// Number of the [`BreakAt`].
    #[prost(uint32, tag = "2")]
    pub at: u32,
    /// Number of the [`kapell_model::StepStatus`] with which it goes on, if it has been tried.
    #[prost(uint32, tag = "3")]
    pub status: u32,
    /// The output with which it goes on.
    #[prost(message, optional, tag = "4")]
    pub output: Option<Stored>,
    /// The error with which it goes on.
    #[prost(message, optional, tag = "5")]
    pub error: Option<StoredError>,
    /// Which breakpoint it is, as people say it after "a breakpoint".
    #[prost(string, tag = "6")]
    pub why: String,
}

/// Where a unit stops. Numbers are stored.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum BreakAt {
    /// Before it starts.
    Before = 1,
    /// Before it ends.
    After = 2,
    /// After its last try failed, before its handler runs.
    OnFailure = 3,
}

impl BreakAt {
    /// The one of a stored number.
    pub fn from_number(number: u32) -> Self {
        match number {
            2 => Self::After,
            3 => Self::OnFailure,
            _ => Self::Before,
        }
    }

    /// Its word in files, requests and answers.
    pub fn word(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::OnFailure => "on_failure",
        }
    }

    /// As people say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Before => "before it starts",
            Self::After => "after it ran",
            Self::OnFailure => "after it failed",
        }
    }
}

/// See [`super::Fact::BreakPassed`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BreakPassed {
    /// The unit.
    #[prost(message, required, tag = "1")]
    pub unit: UnitRef,
    /// Number of the [`BreakAt`].
    #[prost(uint32, tag = "2")]
    pub at: u32,
    /// Who let it go on.
    #[prost(string, tag = "3")]
    pub by: String,
}

/// See [`super::Fact::BreakpointsChanged`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BreakpointsChanged {
    /// All of them, beside those of the definition.
    #[prost(message, repeated, tag = "1")]
    pub breakpoints: Vec<StoredBreak>,
    /// Every step stops before it starts.
    #[prost(bool, tag = "2")]
    pub stepping: bool,
    /// Who.
    #[prost(string, tag = "3")]
    pub by: String,
}

/// A breakpoint.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StoredBreak {
    /// Id or path of the step; empty is every step.
    #[prost(string, tag = "1")]
    pub step: String,
    /// Number of the [`BreakAt`].
    #[prost(uint32, tag = "2")]
    pub at: u32,
    /// It counts only where this expression holds; empty is always.
    #[prost(string, tag = "3")]
    pub when: String,
    /// Who set it.
    #[prost(string, tag = "4")]
    pub by: String,
}

/// See [`super::Fact::ParamChanged`].
#[derive(Clone, PartialEq, Message)]
pub struct ParamChanged {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(message, required, tag = "2")]
    pub value: Stored,
    /// Who.
    #[prost(string, tag = "3")]
    pub by: String,
}
