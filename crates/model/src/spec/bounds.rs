//! What bounds runs and attempts beside each other, and how long runs are kept.

use std::fmt;

use jiff::SignedDuration;
use kapell_expr::{Program, Template};
use serde::{Deserialize, Serialize};

/// A name held for an attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LockUse {
    /// The name in its namespace.
    pub name: Template,
    /// How many hold it at once, or how many a period.
    pub max: u32,
    /// A rate: at most `max` grants in each such period.
    pub per: Option<SignedDuration>,
}

/// What belongs to the name of a lock: all that use it say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockBounds {
    /// How many hold it at once, or how many a period.
    pub max: u32,
    /// The period of a rate.
    pub per: Option<SignedDuration>,
}

impl fmt::Display for LockBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "max: {}", self.max)?;
        match self.per {
            Some(per) => write!(f, ", per: {}", kapell_expr::format_duration(per)),
            None => Ok(()),
        }
    }
}

impl LockUse {
    /// What it says of its name.
    pub fn bounds(&self) -> LockBounds {
        LockBounds {
            max: self.max,
            per: self.per,
        }
    }
}

/// What a start does while other runs of the workflow are active.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Strategy {
    /// The rule.
    pub mode: StrategyMode,
    /// Active runs of one key under `parallel`; none is no bound.
    pub limit: Option<u32>,
    /// Active runs over all keys.
    pub total: Option<u32>,
    /// One queue for each value.
    pub key: Option<Program>,
    /// Bursts of starts become the last of them.
    pub debounce: Option<Debounce>,
}

impl StrategyMode {
    /// True if `limit` may stand beside it: the other modes run one at a time.
    pub fn takes_limit(self) -> bool {
        match self {
            Self::Parallel => true,
            Self::Sequential
            | Self::StrictSequential
            | Self::FirstOnly
            | Self::LastOnly
            | Self::SerialLatest => false,
        }
    }
}

/// The rule of a strategy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StrategyMode {
    /// At once below the limit, else waits its turn.
    #[default]
    Parallel,
    /// One at a time, in order.
    Sequential,
    /// One at a time; a failed run blocks the queue.
    StrictSequential,
    /// Discarded while one is active.
    FirstOnly,
    /// The newest replaces the active one.
    LastOnly,
    /// The active one is left alone; of those waiting only the newest stays.
    SerialLatest,
}

impl StrategyMode {
    /// All of them as they are written.
    pub const ALL: [(&'static str, Self); 6] = [
        ("parallel", Self::Parallel),
        ("sequential", Self::Sequential),
        ("strict_sequential", Self::StrictSequential),
        ("first_only", Self::FirstOnly),
        ("last_only", Self::LastOnly),
        ("serial_latest", Self::SerialLatest),
    ];

    /// Their names.
    pub const NAMES: [&'static str; 6] = {
        let mut names = [""; 6];
        let mut place = 0;
        while place < names.len() {
            names[place] = Self::ALL[place].0;
            place += 1;
        }
        names
    };

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|(known, _)| *known == name).map(|(_, mode)| mode)
    }
}

/// Bursts of starts become the last of them.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Debounce {
    /// Starts once no other start came for so long.
    pub quiet: SignedDuration,
    /// Starts at the latest so long after the first of the burst.
    pub max: Option<SignedDuration>,
}

/// How long ended runs are kept; none is for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// By age since the end.
    pub age: Option<SignedDuration>,
    /// The newest so many.
    pub runs: Option<u32>,
}
