//! What a unit waits for that somebody else decides: a signal, people, a breakpoint.

use std::sync::Arc;

use kapell_expr::Value;
use kapell_model::{StepStatus, Time};
use serde::{Deserialize, Serialize};

use crate::event::{BreakAt, StoredBreak};

/// What a unit waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Waiting {
    /// A signal.
    Signal {
        /// Its name.
        signal: Arc<str>,
        /// Signals sent before do not count.
        since: Time,
    },
    /// People.
    Approval {
        /// What they are asked.
        message: Arc<str>,
        /// Who said yes.
        given: Vec<Given>,
    },
    /// Somebody to let it go on.
    Break {
        /// Where it stopped.
        at: BreakAt,
        /// How it ends, if it has been tried. Output and error are in the unit.
        ends: Option<StepStatus>,
    },
}

/// A yes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Given {
    /// Who.
    pub by: Arc<str>,
    /// When.
    pub at: Time,
    /// What they said with it.
    pub comment: Arc<str>,
    /// What they filled in, a map.
    pub input: Value,
}

/// A breakpoint that somebody set on a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Break {
    /// Id of the step, or its path, with or without numbers of iterations; none is every step.
    #[serde(default)]
    pub step: Option<Arc<str>>,
    /// Where it stops.
    pub at: BreakAt,
    /// It counts only where this expression, over what the step sees, holds.
    #[serde(default)]
    pub when: Option<Arc<str>>,
}

impl From<&StoredBreak> for Break {
    fn from(stored: &StoredBreak) -> Self {
        let text = |text: &String| (!text.is_empty()).then(|| Arc::from(text.as_str()));
        Self {
            step: text(&stored.step),
            at: BreakAt::from_number(stored.at),
            when: text(&stored.when),
        }
    }
}

impl From<&Break> for StoredBreak {
    fn from(of: &Break) -> Self {
        let text = |text: &Option<Arc<str>>| text.as_deref().unwrap_or_default().to_owned();
        Self {
            step: text(&of.step),
            at: of.at as u32,
            when: text(&of.when),
        }
    }
}
