//! Statuses of runs and steps, and kinds of failure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a run stands. The numbers are stored and never reused.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Waits in its workflow's run queue.
    #[default]
    Queued = 1,
    /// Started and not ended.
    Running = 2,
    /// Starts nothing until it is resumed.
    Paused = 3,
    /// Asked to stop; running attempts are ending.
    Cancelling = 4,
    /// Ended well.
    Succeeded = 5,
    /// Ended with a failed step, or could not go on.
    Failed = 6,
    /// Ended by its own timeout.
    TimedOut = 7,
    /// Ended by a person, its parent, or its strategy.
    Cancelled = 8,
    /// Never started: its strategy dropped it.
    Discarded = 9,
}

impl RunStatus {
    /// Every status, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Running,
        Self::Paused,
        Self::Cancelling,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Cancelled,
        Self::Discarded,
    ];

    /// The word users see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Discarded => "discarded",
        }
    }

    /// The stored number.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The status of a stored number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|status| status.number() == number)
    }

    /// True once nothing more happens by itself.
    pub fn ended(self) -> bool {
        self.number() >= Self::Succeeded.number()
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a step, or an item of a foreach, stands. The numbers are stored and never reused.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Its needs have not all ended.
    #[default]
    Pending = 1,
    /// Could start but for something it waits for: time, a lock, a signal.
    Waiting = 2,
    /// Ready; waits for a worker.
    Queued = 3,
    /// An attempt runs, or inner steps do.
    Running = 4,
    /// Failed and waits to be tried again.
    Retrying = 5,
    /// Asked to stop; the attempt is ending.
    Cancelling = 6,
    /// Ended well.
    Succeeded = 7,
    /// Ended well without running: an equal result was kept.
    Cached = 8,
    /// Not run: its `if` was false, a need was skipped, or its branch was not taken.
    Skipped = 9,
    /// Ended with an error after its last try.
    Failed = 10,
    /// Not run: a need failed and its `run_if` can no longer hold.
    UpstreamFailed = 11,
    /// Ended by a timeout after its last try.
    TimedOut = 12,
    /// Ended by a cancel.
    Cancelled = 13,
}

impl StepStatus {
    /// Every status, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::Pending,
        Self::Waiting,
        Self::Queued,
        Self::Running,
        Self::Retrying,
        Self::Cancelling,
        Self::Succeeded,
        Self::Cached,
        Self::Skipped,
        Self::Failed,
        Self::UpstreamFailed,
        Self::TimedOut,
        Self::Cancelled,
    ];

    /// The word users see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Cached => "cached",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::UpstreamFailed => "upstream_failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }

    /// The stored number.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The status of a stored number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|status| status.number() == number)
    }

    /// True once it has ended.
    pub fn ended(self) -> bool {
        self.number() >= Self::Succeeded.number()
    }

    /// True for `succeeded` and `cached`.
    pub fn good(self) -> bool {
        matches!(self, Self::Succeeded | Self::Cached)
    }

    /// True for what `run_if` counts as failed: failed, timed out or upstream failed.
    pub fn bad(self) -> bool {
        matches!(self, Self::Failed | Self::TimedOut | Self::UpstreamFailed)
    }
}

impl fmt::Display for StepStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whose fault a failed attempt was: each kind has its own budget of retries.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The user's: an exit code, an exception, a 4xx, out of memory, a bad output.
    #[default]
    User = 1,
    /// A timeout of the attempt.
    Timeout = 2,
    /// The platform's: a lost worker, a connection, a 429 or 5xx.
    Platform = 3,
}

impl FailureKind {
    /// The word users see.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Timeout => "timeout",
            Self::Platform => "platform",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
