//! What a unit waits for that somebody else decides: a signal, people, a breakpoint.

use std::sync::Arc;

use kapell_expr::Value;
use kapell_model::{Error, ErrorCode, StepStatus, Time, limits};
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
        /// Which breakpoint it is, as people say it after "a breakpoint"; empty is not known.
        why: Arc<str>,
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
    /// Who set it.
    #[serde(default)]
    pub by: Option<Arc<str>>,
}

impl Break {
    /// What stands for every step where somebody names one.
    pub const EVERY: &str = "*";

    /// True if both stop at the same under the same condition, whoever set them.
    pub fn same(&self, other: &Self) -> bool {
        (&self.step, self.at, &self.when) == (&other.step, other.at, &other.when)
    }
}

/// Which breakpoints are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaks {
    /// Those at this step, as it was given; [`Break::EVERY`] is those at every step. None is all.
    pub step: Option<Arc<str>>,
    /// Those that stop there; none is wherever they stop.
    pub at: Option<BreakAt>,
}

impl Breaks {
    /// True if this one is meant.
    pub fn has(&self, of: &Break) -> bool {
        let step = of.step.as_deref().unwrap_or(Break::EVERY);
        self.step.as_deref().is_none_or(|wanted| wanted == step)
            && self.at.is_none_or(|at| at == of.at)
    }

    /// Sets one beside those that are there; `limit-reached` if there are too many.
    ///
    /// # Errors
    /// `limit-reached`.
    pub fn add(all: &mut Vec<Break>, of: Break) -> Result<(), Error> {
        if all.iter().any(|known| known.same(&of)) {
            return Ok(());
        }
        if all.len() >= limits::BREAKPOINTS {
            return Err(Self::too_many(all.len() + 1));
        }
        all.push(of);
        Ok(())
    }

    /// The refusal of more than a run, or a workflow, may have.
    pub fn too_many(count: usize) -> Error {
        let message = format!(
            "{count} breakpoints are more than the {} there may be",
            limits::BREAKPOINTS
        );
        Error::new(ErrorCode::LimitReached, message).hint("one without a step stops at every step")
    }
}

impl From<&StoredBreak> for Break {
    fn from(stored: &StoredBreak) -> Self {
        let text = |text: &String| (!text.is_empty()).then(|| Arc::from(text.as_str()));
        Self {
            step: text(&stored.step),
            at: BreakAt::from_number(stored.at),
            when: text(&stored.when),
            by: text(&stored.by),
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
            by: text(&of.by),
        }
    }
}
