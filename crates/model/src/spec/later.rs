//! Signals, breakpoints, notifications, and what a step says of when and beside whom it runs.

use std::sync::Arc;

use jiff::SignedDuration;
use jiff::civil::Time;
use kapell_expr::{Program, Template};
use serde::{Deserialize, Serialize};

use super::Dyn;

/// A wait for a signal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Await {
    /// The signal's name.
    pub signal: Arc<str>,
    /// Which of them, over `signal` and what the step sees; none takes any.
    #[serde(rename = "match")]
    pub matches: Option<Program>,
    /// Signals sent before this instant do not count (timestamp, date or text of one); none is the
    /// start of the run's interval.
    pub since: Option<Template>,
    /// From when the step could start.
    pub timeout: Option<Dyn<SignedDuration>>,
}

/// A signal sent when a step ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Emit {
    /// The signal's name.
    pub signal: Arc<str>,
    /// What it says, over what the step sees, `output` and `error`; none is null.
    pub payload: Option<Template>,
    /// What signals are joined by, over the same.
    pub key: Option<Template>,
    /// What makes it the same signal as another with the same id, over the same; none: no other is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Template>,
    /// After which ends.
    pub when: EmitWhen,
}

/// After which ends of a step a signal is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmitWhen {
    /// Succeeded or cached.
    #[default]
    Succeeded,
    /// Failed or timed out.
    Failed,
    /// Any of them.
    Done,
}

/// Who is told what.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Notify {
    /// E-mail addresses, `https://` addresses and names of channels.
    pub to: Vec<Arc<str>>,
    /// What they are told.
    pub on: Vec<NotifyOn>,
}

/// What is told of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotifyOn {
    /// It started.
    Started,
    /// It succeeded.
    Succeeded,
    /// It failed.
    Failed,
    /// It timed out.
    TimedOut,
    /// It was cancelled.
    Cancelled,
    /// It was discarded by its workflow's strategy.
    Discarded,
    /// It has not ended at its deadline, or will probably not have.
    Deadline,
    /// It succeeded, and the one before it had not.
    Recovered,
    /// People are asked.
    Approval,
}

impl NotifyOn {
    /// Its word in files, messages and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Discarded => "discarded",
            Self::Deadline => "deadline",
            Self::Recovered => "recovered",
            Self::Approval => "approval",
        }
    }
}

/// Where a run stops until a person lets it go on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Breakpoint {
    /// Before the step starts.
    Before,
    /// After it has ended.
    After,
    /// After its last try failed.
    OnFailure,
    /// Before the step starts, if this holds.
    When(Program),
}

/// The hours of each day in which a step starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffPeak {
    /// The first moment.
    pub from: Time,
    /// The end, on the next day if it is not after `from`; not equal to it.
    pub to: Time,
    /// IANA name; none is the workflow's.
    pub timezone: Option<Arc<str>>,
}

/// What a queue is shared between.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fairness {
    /// The key, over what an item sees.
    pub key: Template,
    /// How many tasks of this key for one of a key with weight 1: 1 to 1,000.
    pub weight: u32,
}

#[cfg(test)]
mod tests;
