//! A workflow's run queue: what a start does while other runs are active.
//!
//! One queue a workflow; inside it one line for each value of `strategy.key`. Runs stand in the
//! order in which they came. Active means admitted and not ended.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kapell_expr::Value;
use kapell_model::spec::{Strategy, StrategyMode};
use kapell_model::{EntityKey, Error, ErrorCode, RunId, Time, limits};
use serde::{Deserialize, Serialize};

use crate::chunk;
use crate::message::{Message, StartClass};
use crate::small::{Ask, Decided, Small, SmallInput, misdirected};

mod apply;
mod decide;
mod event;
mod hold;
mod index;
pub mod pace;
mod settings;
mod snapshot;
mod view;

use event::mode_number;
pub use event::{Kind, QueueEvent};
pub use hold::Hold;
use hold::Holds;
use index::Index;
pub use settings::{Activate, Bounds, Change, Kept, Mark, Settings};
pub use view::LinesAsk;

/// A run that wants to start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The run.
    pub run: RunId,
    /// Value of `strategy.key`, or empty.
    pub key: Arc<str>,
    /// The rule, as its version says.
    pub rule: Rule,
    /// A run above it holds a place here: it runs inside that place.
    pub inside: bool,
    /// How the queue takes it.
    pub class: StartClass,
    /// Its due time: catch-up starts stand by it.
    pub scheduled_at: Time,
    /// When its run was made.
    pub created_at: Time,
    /// It was active before, and starts again.
    pub again: bool,
    /// The backfill that it is of.
    #[serde(default)]
    pub backfill: Option<Arc<str>>,
}

/// A strategy as the queue needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The mode.
    pub mode: StrategyMode,
    /// Active runs of one key; 0 is no bound.
    pub limit: u32,
    /// Active runs of all keys; 0 is no bound.
    pub total: u32,
    /// Debounce: microseconds of quiet; 0 is none.
    pub quiet: i64,
    /// Debounce: microseconds after the first of a burst; 0 is no bound.
    pub longest: i64,
}

impl Rule {
    /// True if a start may have to wait for another.
    pub fn is_bounded(&self) -> bool {
        self.mode != StrategyMode::Parallel || self.limit > 0 || self.total > 0
    }

    /// True if a start may be dropped because of another.
    fn discards(&self) -> bool {
        match self.mode {
            StrategyMode::FirstOnly | StrategyMode::LastOnly | StrategyMode::SerialLatest => true,
            StrategyMode::Parallel | StrategyMode::Sequential | StrategyMode::StrictSequential => {
                false
            }
        }
    }

    /// The rule of a strategy; none if every start goes at once.
    pub fn of(strategy: &Strategy) -> Option<Self> {
        let bounded = strategy.mode != StrategyMode::Parallel
            || strategy.limit.is_some()
            || strategy.total.is_some()
            || strategy.key.is_some()
            || strategy.debounce.is_some();
        let micros =
            |span: jiff::SignedDuration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        bounded.then(|| Self {
            mode: strategy.mode,
            limit: match strategy.mode {
                StrategyMode::Parallel => strategy.limit.unwrap_or(0),
                _ => 1,
            },
            total: strategy.total.unwrap_or(0),
            quiet: strategy
                .debounce
                .map_or(0, |debounce| micros(debounce.quiet)),
            longest: strategy
                .debounce
                .and_then(|debounce| debounce.max)
                .map_or(0, micros),
        })
    }
}

/// A run queue in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunQueue {
    /// A line for each key in use.
    pub lines: BTreeMap<Arc<str>, Line>,
    /// The line of each run that is active or waits.
    pub runs: BTreeMap<RunId, Arc<str>>,
    /// Active runs of all lines that hold places.
    pub active: u32,
    /// The turn of each run that waits.
    pub turns: BTreeMap<RunId, u64>,
    /// What is said of the workflow beside its versions.
    pub settings: Settings,
    /// Every active run has a place. If not, there may be more than those that are known: where every
    /// start goes at once they go past the queue.
    pub counted: bool,
    /// The last runs that will never start.
    pub discards: VecDeque<Discard>,
    /// Backfills that start nothing now.
    holds: Holds,
    index: Index,
    next_turn: u64,
    last_at: Time,
    paces: pace::Paces,
    /// The success of each key with the latest due time, where definitions ask for it.
    successes: BTreeMap<Arc<str>, Success>,
}

/// A run that succeeded, as `run.last_success` of the runs after it shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success {
    /// The run.
    pub run: RunId,
    /// Its line.
    pub key: Arc<str>,
    /// Its due time.
    pub scheduled_at: Time,
    /// When it ended.
    pub ended_at: Time,
    /// Parameters, as [`Value::to_stored`] writes them.
    pub params: Vec<u8>,
    /// Outputs, likewise.
    pub outputs: Vec<u8>,
}

/// A run that will never start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discard {
    /// The run.
    pub run: RunId,
    /// Its line.
    pub key: Arc<str>,
    /// Why.
    pub reason: Arc<str>,
    /// Since when that is so.
    pub at: Time,
}

/// The runs of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Started and not ended.
    pub active: BTreeSet<RunId>,
    /// In order.
    pub waiting: VecDeque<Entry>,
    /// A failed run that blocks the line under `strict_sequential`.
    pub blocked: Option<RunId>,
    /// That one timed out.
    pub timed_out: bool,
    /// The mode of the run admitted last.
    pub mode: StrategyMode,
    /// Those of the active ones that no other start stops, with their classes.
    pub kept: BTreeMap<RunId, StartClass>,
    /// A burst that is not over: its last start, when it began, and when it goes on.
    pub burst: Option<(Entry, Time, Time)>,
}

/// What a run queue decided: facts, already applied, and messages to send once they are safe.
#[derive(Debug, Default)]
pub struct QueueDecision {
    /// Facts.
    pub events: Vec<QueueEvent>,
    /// Messages.
    pub messages: Vec<(EntityKey, Message)>,
    /// Versions that become the active ones of their workflows.
    pub activated: Vec<(Arc<str>, Arc<str>, u32)>,
    /// Lines that were looked at to find what may start: not more where there are more.
    pub looked: usize,
}

struct Deciding<'a> {
    queue: &'a mut RunQueue,
    now: Time,
    out: QueueDecision,
}

impl RunQueue {
    /// Takes a message or the passing of time (`None`).
    pub fn decide(&mut self, message: Option<&Message>, now: Time) -> QueueDecision {
        self.deciding(now, |deciding| deciding.hear(message))
    }

    /// Decides something, and what follows from it.
    fn deciding(&mut self, now: Time, first: impl FnOnce(&mut Deciding<'_>)) -> QueueDecision {
        let now = now.max(self.last_at);
        let mut deciding = Deciding {
            queue: self,
            now,
            out: QueueDecision::default(),
        };
        first(&mut deciding);
        deciding.bursts();
        deciding.sweep();
        deciding.admit();
        deciding.out
    }

    /// Refuses the retry of an ended run that could not take a place: its workflow was deleted, or
    /// under modes that keep one run alone another one is active. `version` is what its version says.
    ///
    /// # Errors
    /// [`ErrorCode::NotAllowedNow`]
    pub fn may_reenter(&self, run: RunId, key: &str, version: Option<Rule>) -> Result<(), Error> {
        if self.settings.deleted {
            return Err(Error::new(
                ErrorCode::NotAllowedNow,
                "its workflow was deleted, and nothing of it starts any more",
            )
            .hint("`kapell deploy` brings the workflow back"));
        }
        let Some(line) = self.lines.get(key) else {
            return Ok(());
        };
        let alone = self.settings.rule(version).discards();
        let other = line.active.iter().find(|active| **active != run);
        match other {
            Some(other) if alone => Err(Error::new(
                ErrorCode::NotAllowedNow,
                format!("run {other} of the same workflow is active"),
            )
            .hint("its strategy allows one at a time: retry when that run has ended")),
            _ => Ok(()),
        }
    }

    /// The rule of a start whose version says this one; none if it goes at once, past the queue.
    pub fn rule(&self, version: Option<Rule>) -> Option<Rule> {
        let rule = self.settings.rule(version);
        let holds = version.is_some() || rule.is_bounded() || self.settings.stopped();
        (holds || self.counted).then_some(rule)
    }

    /// True if it must hear [`Message::Active`] before it takes this: a run that may have to wait for
    /// others comes while some may be active that went past the queue.
    pub fn must_count(&self, message: &Message) -> bool {
        let (Message::Enqueue(entry) | Message::Reenter(entry)) = message else {
            return false;
        };
        !self.counted && !entry.inside && self.settings.rule(Some(entry.rule)).is_bounded()
    }

    /// The same of a change by which starts may have to wait for others: whoever looks at the queue from then
    /// on sees for whom.
    pub fn must_count_for(&self, ask: &Ask) -> bool {
        let rule = match ask {
            Ask::Activate(to) => Some(self.settings.rule(to.rule)),
            Ask::Change(change) => change.rule,
            _ => None,
        };
        !self.counted && rule.is_some_and(|rule| rule.is_bounded())
    }

    /// True if it takes no more starts: [`limits::RUN_QUEUE`] runs hold a place or wait for one.
    pub fn is_full(&self) -> bool {
        self.runs.len() >= limits::RUN_QUEUE
    }

    /// Frees a line that a failed run blocks; none if it blocks none.
    pub fn dismiss(&mut self, run: RunId, now: Time) -> Option<QueueDecision> {
        let key = self.index.blocking().get(&run)?.clone();
        Some(self.deciding(now, |deciding| {
            deciding.emit(Kind::Unblocked, run, &key, None);
        }))
    }

    /// Failed runs that block a line under `strict_sequential`.
    pub fn blocking(&self) -> impl Iterator<Item = RunId> {
        self.index.blocking().keys().copied()
    }

    /// When something happens in it by itself: the first burst is over, or a deleted workflow has runs
    /// left.
    pub fn wake_at(&self) -> Option<Time> {
        if self.settings.deleted && !self.turns.is_empty() {
            return Some(self.last_at);
        }
        self.index.burst().map(|(until, _)| *until)
    }

    /// `run.last_success` of a run of a line that starts now; null if none has succeeded yet.
    pub fn last_success(&self, key: &str) -> Value {
        let Some(success) = self.successes.get(key) else {
            return Value::Null;
        };
        let value = |bytes: &[u8]| Value::from_stored(bytes).unwrap_or_default();
        Value::map([
            ("id", Value::string(success.run.to_string())),
            (
                "scheduled_at",
                Value::Timestamp(success.scheduled_at.timestamp()),
            ),
            ("params", value(&success.params)),
            ("outputs", value(&success.outputs)),
        ])
    }
}

/// Keys that are named where none was given.
const KEYS_NAMED: usize = 5;

/// The refusal of a dismissal where nothing blocks: `blocked` are the keys where something does.
fn not_blocked(workflow: &str, key: &str, blocked: BTreeSet<Arc<str>>) -> Error {
    let shows = format!("`kapell workflow queue {workflow}` shows it");
    let more = blocked.len().saturating_sub(KEYS_NAMED);
    let mut named: Vec<String> = blocked
        .iter()
        .take(KEYS_NAMED)
        .map(|key| format!("`{key}`"))
        .collect();
    if more > 0 {
        named.push(format!("{more} more"));
    }
    let named = named.join(", ");
    let (message, hint) = match (key, blocked.len()) {
        ("", 0) => (
            format!("no run blocks the run queue of `{workflow}`"),
            shows,
        ),
        ("", 1) => (
            format!("in the run queue of `{workflow}` a run blocks those of key {named}"),
            "name the key: `--key`".to_owned(),
        ),
        ("", _) => (
            format!("in the run queue of `{workflow}` runs block those of the keys {named}"),
            "name one of them: `--key`".to_owned(),
        ),
        (key, 0) => (
            format!("no run blocks the run queue of `{workflow}` of key `{key}`"),
            shows,
        ),
        (key, _) => (
            format!("no run blocks the run queue of `{workflow}` of key `{key}`"),
            format!("runs block those of {named}"),
        ),
    };
    Error::new(ErrorCode::NotAllowedNow, message).hint(hint)
}

impl From<QueueDecision> for Decided {
    fn from(decided: QueueDecision) -> Self {
        Self {
            chunk: chunk::encode(&decided.events),
            messages: decided.messages,
            activated: decided.activated,
            ..Self::default()
        }
    }
}

impl Small for RunQueue {
    fn decide(&mut self, key: &EntityKey, input: SmallInput, now: Time) -> Result<Decided, Error> {
        let EntityKey::RunQueue {
            namespace,
            workflow,
            ..
        } = key
        else {
            return Ok(Decided::default());
        };
        let of = (namespace, workflow);
        Ok(match input {
            SmallInput::Message(message) => Self::decide(self, Some(&message), now).into(),
            SmallInput::Wake => Self::decide(self, None, now).into(),
            SmallInput::Ask(Ask::Activate(to)) => self
                .deciding(now, |deciding| deciding.activate(of, *to))
                .into(),
            SmallInput::Ask(Ask::Change(change)) => self
                .deciding(now, |deciding| deciding.change(of, *change))
                .into(),
            SmallInput::Ask(Ask::Dismiss { key, .. }) => {
                let blocked = self.lines.get(&*key).and_then(|line| line.blocked);
                let decided = blocked.and_then(|run| self.dismiss(run, now));
                let keys = self.index.blocking().values();
                decided
                    .ok_or_else(|| not_blocked(workflow, &key, keys.cloned().collect()))?
                    .into()
            }
            SmallInput::Ask(Ask::View) => Decided {
                answer: self.view(workflow, &LinesAsk::default()),
                ..Decided::default()
            },
            SmallInput::Ask(Ask::Lines(which)) => Decided {
                answer: self.view(workflow, &which),
                ..Decided::default()
            },
            SmallInput::Ask(Ask::Whys(runs)) => Decided {
                answer: Value::map(
                    self.whys(workflow, &runs)
                        .into_iter()
                        .map(|(run, why)| (run.to_string(), Value::string(why))),
                ),
                ..Decided::default()
            },
            SmallInput::Ask(_) => return Err(misdirected()),
        })
    }

    fn replay(&mut self, chunk: &[u8]) -> Result<(), prost::DecodeError> {
        for event in chunk::decode(chunk)? {
            self.apply(&event);
        }
        Ok(())
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.snapshot()
    }

    fn wake_at(&self) -> Option<Time> {
        Self::wake_at(self)
    }

    fn document(&self) -> Option<String> {
        (self.settings != Settings::default())
            .then(|| serde_json::to_string(&self.settings).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
