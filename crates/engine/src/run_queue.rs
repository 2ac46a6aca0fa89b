//! A workflow's run queue: what a start does while other runs are active.
//!
//! One queue a workflow; inside it one line for each value of `strategy.key`. Runs stand in the
//! order in which they came. Active means admitted and not ended.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kapell_expr::Value;
use kapell_model::spec::{Strategy, StrategyMode};
use kapell_model::{EntityKey, Error, ErrorCode, RunId, Time, limits};
use prost::Message as _;

use crate::message::{Message, StartClass};
use crate::small::{Ask, Decided, Small, SmallInput, misdirected};

mod decide;
pub mod pace;
mod settings;
mod snapshot;
mod view;

pub use settings::{Activate, Bounds, Change, Mark, Settings};
pub use view::LinesAsk;

/// A run that wants to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
}

/// A strategy as the queue needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    next_turn: u64,
    last_at: Time,
    paces: pace::Paces,
    /// The success of each key with the latest due time, where definitions ask for it.
    successes: BTreeMap<Arc<str>, Success>,
}

/// A run that succeeded, as `run.last_success` of the runs after it shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// The runs of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Started and not ended.
    pub active: BTreeSet<RunId>,
    /// In order.
    pub waiting: VecDeque<Entry>,
    /// A failed run that blocks the line under `strict_sequential`.
    pub blocked: Option<RunId>,
    /// The mode of the run admitted last.
    pub mode: StrategyMode,
    /// Those of the active ones that no other start stops, with their classes.
    pub kept: BTreeMap<RunId, StartClass>,
    /// A burst that is not over: its last start, when it began, and when it goes on.
    pub burst: Option<(Entry, Time, Time)>,
}

/// One fact about a run queue.
#[derive(Clone, PartialEq, prost::Message)]
pub struct QueueEvent {
    /// When, microseconds since 1970.
    #[prost(int64, tag = "1")]
    pub at: i64,
    /// Number of the [`Kind`].
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    /// The run.
    #[prost(bytes = "vec", tag = "3")]
    pub run: Vec<u8>,
    /// Its line.
    #[prost(string, tag = "4")]
    pub key: String,
    /// Of an entry: number of the mode.
    #[prost(uint32, tag = "5")]
    pub mode: u32,
    /// Of an entry.
    #[prost(uint32, tag = "6")]
    pub limit: u32,
    /// Of an entry.
    #[prost(uint32, tag = "7")]
    pub total: u32,
    /// Of an entry.
    #[prost(int64, tag = "8")]
    pub quiet: i64,
    /// Of an entry.
    #[prost(int64, tag = "9")]
    pub longest: i64,
    /// Of an entry.
    #[prost(bool, tag = "10")]
    pub inside: bool,
    /// Of a success, and of an entry that is not regular: its due time, microseconds since 1970.
    #[prost(int64, tag = "11")]
    pub scheduled_at: i64,
    /// Of a success: a stored value.
    #[prost(bytes = "vec", tag = "12")]
    pub params: Vec<u8>,
    /// Of a success: a stored value.
    #[prost(bytes = "vec", tag = "13")]
    pub outputs: Vec<u8>,
    /// All settings, as JSON.
    #[prost(bytes = "vec", tag = "14")]
    pub settings: Vec<u8>,
    /// Of settings: the rule counts for all that waits.
    #[prost(bool, tag = "15")]
    pub rules: bool,
    /// Of an entry: number of its [`StartClass`].
    #[prost(uint32, tag = "16")]
    pub class: u32,
    /// Of an outcome: microseconds that the run took.
    #[prost(int64, tag = "20")]
    pub took: i64,
    /// Of an outcome.
    #[prost(bool, tag = "21")]
    pub failed: bool,
}

/// What happened. Numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It waits.
    Waits = 1,
    /// It became active.
    Admitted = 2,
    /// It will never start, or was withdrawn.
    Dropped = 3,
    /// It has ended.
    Ended = 4,
    /// It failed and blocks its line.
    Blocks = 5,
    /// The line is free again.
    Unblocked = 6,
    /// It is the last start of a burst.
    Burst = 7,
    /// It is the last success of its line.
    Succeeded = 8,
    /// The settings are these.
    Set = 9,
    /// It is the last run of its line that ended, for whoever asks how they do.
    Outcome = 20,
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
        deciding.admit();
        deciding.out
    }

    /// Refuses the retry of an ended run that could not take a place: under modes that keep one run
    /// alone, another one is active or waits.
    pub fn may_reenter(&self, run: RunId, key: &str, mode: StrategyMode) -> Result<(), Error> {
        let Some(line) = self.lines.get(key) else {
            return Ok(());
        };
        let alone = matches!(
            mode,
            StrategyMode::FirstOnly | StrategyMode::LastOnly | StrategyMode::SerialLatest
        );
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

    /// Frees a line that a failed run blocks. False if it was not blocked by this run.
    pub fn dismiss(&mut self, run: RunId, now: Time) -> Option<QueueDecision> {
        let key = self
            .lines
            .iter()
            .find(|(_, line)| line.blocked == Some(run))?
            .0
            .clone();
        Some(self.deciding(now, |deciding| {
            deciding.emit(Kind::Unblocked, run, &key, None);
        }))
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

    fn remember(&mut self, success: Success) {
        self.successes.insert(success.key.clone(), success);
        if self.successes.len() > limits::LAST_SUCCESSES {
            let oldest = self
                .successes
                .values()
                .min_by_key(|success| (success.ended_at, success.key.clone()))
                .map(|success| success.key.clone());
            if let Some(oldest) = oldest {
                self.successes.remove(&oldest);
            }
        }
    }

    /// Makes the state that the event says.
    pub fn apply(&mut self, event: &QueueEvent) {
        self.last_at = Time(event.at);
        let run = crate::event::run_id(&event.run);
        let key: Arc<str> = event.key.as_str().into();
        if event.kind == Kind::Succeeded as u32 {
            self.remember(Success {
                run,
                key,
                scheduled_at: Time(event.scheduled_at),
                ended_at: Time(event.at),
                params: event.params.clone(),
                outputs: event.outputs.clone(),
            });
            return;
        }
        if event.kind == Kind::Outcome as u32 {
            self.paces.apply(event);
            return;
        }
        if event.kind == Kind::Set as u32 {
            self.settings = serde_json::from_slice(&event.settings).unwrap_or_default();
            if event.rules {
                let rule = entry_of(event, run, &key).rule;
                for entry in self.lines.values_mut().flat_map(|line| &mut line.waiting) {
                    entry.rule = rule;
                }
            }
            return;
        }
        self.turns.remove(&run);
        let line = self.lines.entry(key.clone()).or_default();
        match event.kind {
            1 => {
                line.burst.take_if(|(entry, _, _)| entry.run == run);
                line.line_up(entry_of(event, run, &key));
                self.turns.insert(run, self.next_turn);
                self.next_turn += 1;
                self.runs.insert(run, key.clone());
            }
            2 => {
                let place = line.waiting.iter().position(|entry| entry.run == run);
                let mut class = StartClass::from_number(event.class);
                if let Some(entry) = place.and_then(|place| line.waiting.remove(place)) {
                    line.mode = entry.rule.mode;
                    class = entry.class;
                }
                if class != StartClass::Regular {
                    line.kept.insert(run, class);
                }
                line.blocked.take_if(|blocked| *blocked == run);
                if line.active.insert(run) {
                    self.active += 1;
                }
                self.runs.insert(run, key.clone());
            }
            3 | 4 => {
                line.burst.take_if(|(entry, _, _)| entry.run == run);
                line.kept.remove(&run);
                if line.active.remove(&run) {
                    self.active -= 1;
                } else {
                    line.waiting.retain(|entry| entry.run != run);
                }
                self.runs.remove(&run);
            }
            5 => line.blocked = Some(run),
            6 => line.blocked = None,
            7 => {
                let at = Time(event.at);
                let began = line.burst.as_ref().map_or(at, |(_, began, _)| *began);
                let mut until = at.0.saturating_add(event.quiet);
                if event.longest > 0 {
                    until = until.min(began.0.saturating_add(event.longest));
                }
                line.burst = Some((entry_of(event, run, &key), began, Time(until)));
                self.runs.insert(run, key.clone());
            }
            _ => {}
        }
        if let Some(line) = self.lines.get(&key)
            && line.is_empty()
        {
            self.lines.remove(&key);
        }
    }

    /// The turn of the first run that waits in a line, with the line's key.
    fn turn(&self, key: &Arc<str>, line: &Line) -> Option<(u64, Arc<str>)> {
        let turn = self.turns.get(&line.waiting.front()?.run)?;
        Some((*turn, key.clone()))
    }

    /// When the first burst is over.
    pub fn wake_at(&self) -> Option<Time> {
        self.lines
            .values()
            .filter_map(|line| line.burst.as_ref())
            .map(|(_, _, until)| *until)
            .min()
    }

    /// Why a run waits here, for people; none if it does not.
    pub fn why(&self, run: RunId) -> Option<String> {
        let line = self.lines.get(self.runs.get(&run)?)?;
        if let Some((_, _, until)) = line.burst.as_ref().filter(|(entry, _, _)| entry.run == run) {
            return Some(format!(
                "waits for a burst of starts to be over, at the latest at {until}"
            ));
        }
        let place = line.waiting.iter().position(|entry| entry.run == run)?;
        if let Some(why) = self.settings.why() {
            return Some(why);
        }
        if let Some(blocked) = line.blocked {
            return Some(format!(
                "the workflow is strict_sequential and run {blocked} failed: retry it, or dismiss it"
            ));
        }
        let active: Vec<String> = line
            .active
            .iter()
            .take(3)
            .map(ToString::to_string)
            .collect();
        Some(match active.len() {
            0 => format!("waits for its turn: {place} runs are before it"),
            _ => format!(
                "waits for its turn: {} active ({}), {place} waiting before it",
                line.active.len(),
                active.join(", ")
            ),
        })
    }
}

impl Line {
    /// Puts a start where it belongs among those that wait: each behind what came before it, but
    /// catch-up among its kind by due time, and backfill behind all others. Under modes that discard,
    /// regular starts go before both, which start when nothing else is there.
    fn line_up(&mut self, entry: Entry) {
        let discards = entry.rule.discards();
        let behind = |other: &Entry| match (entry.class, other.class) {
            (StartClass::Regular, StartClass::Regular) | (StartClass::Backfill, _) => false,
            (StartClass::Regular, class) => class == StartClass::Backfill || discards,
            (StartClass::Catchup, StartClass::Catchup) => other.scheduled_at > entry.scheduled_at,
            (StartClass::Catchup, class) => class == StartClass::Backfill,
        };
        let before = self.waiting.iter().rev().take_while(|other| behind(other));
        let place = self.waiting.len() - before.count();
        self.waiting.insert(place, entry);
    }

    fn is_empty(&self) -> bool {
        self.active.is_empty()
            && self.waiting.is_empty()
            && self.blocked.is_none()
            && self.burst.is_none()
    }
}

fn entry_of(event: &QueueEvent, run: RunId, key: &Arc<str>) -> Entry {
    Entry {
        run,
        key: key.clone(),
        rule: Rule {
            mode: MODES.get(event.mode as usize).copied().unwrap_or_default(),
            limit: event.limit,
            total: event.total,
            quiet: event.quiet,
            longest: event.longest,
        },
        inside: event.inside,
        class: StartClass::from_number(event.class),
        scheduled_at: Time(event.scheduled_at),
    }
}

/// Modes by their stored numbers.
const MODES: [StrategyMode; 6] = [
    StrategyMode::Parallel,
    StrategyMode::Sequential,
    StrategyMode::StrictSequential,
    StrategyMode::FirstOnly,
    StrategyMode::LastOnly,
    StrategyMode::SerialLatest,
];

fn mode_number(mode: StrategyMode) -> u32 {
    let place = MODES.iter().position(|known| *known == mode);
    place
        .and_then(|place| u32::try_from(place).ok())
        .unwrap_or(0)
}

/// Encodes events as one chunk.
pub fn encode_chunk(events: &[QueueEvent]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for event in events {
        // Encoding into a vector only fails for want of room, which a vector makes.
        let _ = event.encode_length_delimited(&mut bytes);
    }
    bytes
}

/// Reads what [`encode_chunk`] wrote.
pub fn decode_chunk(mut bytes: &[u8]) -> Result<Vec<QueueEvent>, prost::DecodeError> {
    let mut events = Vec::new();
    while !bytes.is_empty() {
        events.push(QueueEvent::decode_length_delimited(&mut bytes)?);
    }
    Ok(events)
}

impl From<QueueDecision> for Decided {
    fn from(decided: QueueDecision) -> Self {
        Self {
            chunk: encode_chunk(&decided.events),
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
            SmallInput::Ask(Ask::View) => Decided {
                answer: self.view(&LinesAsk::default()),
                ..Decided::default()
            },
            SmallInput::Ask(Ask::Lines(which)) => Decided {
                answer: self.view(&which),
                ..Decided::default()
            },
            SmallInput::Ask(_) => return Err(misdirected()),
        })
    }

    fn replay(&mut self, chunk: &[u8]) -> Result<(), prost::DecodeError> {
        for event in decode_chunk(chunk)? {
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
