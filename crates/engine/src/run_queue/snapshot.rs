//! A run queue as bytes. The only record of it once its history is forgotten, so tags keep their
//! meaning for ever, as those of events do. What follows from the lines is not stored: which run
//! stands in which line, and how many are active.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use kapell_model::{RunId, Time};
use prost::Message;

use super::event::{MODES, backfill, mode_number};
use super::hold::Hold;
use super::pace::Paces;
use super::{Discard, Entry, Line, Rule, RunQueue, Settings, Success};
use crate::event::run_id;
use crate::message::StartClass;

#[derive(Clone, PartialEq, Message)]
struct StoredQueue {
    #[prost(message, repeated, tag = "1")]
    lines: Vec<StoredLine>,
    #[prost(uint64, tag = "2")]
    next_turn: u64,
    #[prost(int64, tag = "3")]
    last_at: i64,
    #[prost(message, repeated, tag = "4")]
    successes: Vec<StoredSuccess>,
    /// As JSON; empty is the default.
    #[prost(bytes = "vec", tag = "5")]
    settings: Vec<u8>,
    #[prost(bool, tag = "6")]
    counted: bool,
    #[prost(message, repeated, tag = "7")]
    discards: Vec<StoredDiscard>,
    /// Backfills that start nothing.
    #[prost(message, repeated, tag = "8")]
    holds: Vec<StoredHold>,
    /// Microseconds that the last successes took, oldest first.
    #[prost(int64, repeated, tag = "20")]
    took: Vec<i64>,
    /// Lines whose last run failed.
    #[prost(string, repeated, tag = "21")]
    failing: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredHold {
    #[prost(string, tag = "1")]
    backfill: String,
    /// What blocks it; empty: somebody paused it.
    #[prost(bytes = "vec", tag = "2")]
    run: Vec<u8>,
    #[prost(string, tag = "3")]
    by: String,
}

#[derive(Clone, PartialEq, Message)]
struct StoredDiscard {
    #[prost(bytes = "vec", tag = "1")]
    run: Vec<u8>,
    #[prost(string, tag = "2")]
    reason: String,
    #[prost(int64, tag = "3")]
    at: i64,
    #[prost(string, tag = "4")]
    key: String,
}

#[derive(Clone, PartialEq, Message)]
struct StoredSuccess {
    #[prost(bytes = "vec", tag = "1")]
    run: Vec<u8>,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(int64, tag = "3")]
    scheduled_at: i64,
    #[prost(int64, tag = "4")]
    ended_at: i64,
    #[prost(bytes = "vec", tag = "5")]
    params: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    outputs: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredLine {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "vec", repeated, tag = "2")]
    active: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "3")]
    waiting: Vec<StoredEntry>,
    #[prost(bytes = "vec", optional, tag = "4")]
    blocked: Option<Vec<u8>>,
    #[prost(uint32, tag = "5")]
    mode: u32,
    #[prost(message, optional, tag = "6")]
    burst: Option<StoredBurst>,
    /// Active catch-up runs.
    #[prost(bytes = "vec", repeated, tag = "7")]
    catchup: Vec<Vec<u8>>,
    /// Active backfill runs.
    #[prost(bytes = "vec", repeated, tag = "8")]
    backfill: Vec<Vec<u8>>,
    /// What blocks it timed out.
    #[prost(bool, tag = "9")]
    timed_out: bool,
}

#[derive(Clone, PartialEq, Message)]
struct StoredEntry {
    #[prost(bytes = "vec", tag = "1")]
    run: Vec<u8>,
    #[prost(uint32, tag = "2")]
    mode: u32,
    #[prost(uint32, tag = "3")]
    limit: u32,
    #[prost(uint32, tag = "4")]
    total: u32,
    #[prost(int64, tag = "5")]
    quiet: i64,
    #[prost(int64, tag = "6")]
    longest: i64,
    #[prost(bool, tag = "7")]
    inside: bool,
    /// Its turn, if it waits.
    #[prost(uint64, optional, tag = "8")]
    turn: Option<u64>,
    #[prost(uint32, tag = "9")]
    class: u32,
    #[prost(int64, tag = "10")]
    scheduled_at: i64,
    #[prost(int64, tag = "11")]
    created_at: i64,
    #[prost(bool, tag = "12")]
    again: bool,
    #[prost(string, tag = "13")]
    backfill: String,
}

#[derive(Clone, PartialEq, Message)]
struct StoredBurst {
    #[prost(message, required, tag = "1")]
    entry: StoredEntry,
    #[prost(int64, tag = "2")]
    began: i64,
    #[prost(int64, tag = "3")]
    until: i64,
}

impl StoredEntry {
    fn new(entry: &Entry, turn: Option<u64>) -> Self {
        Self {
            run: bytes(entry.run),
            mode: mode_number(entry.rule.mode),
            limit: entry.rule.limit,
            total: entry.rule.total,
            quiet: entry.rule.quiet,
            longest: entry.rule.longest,
            inside: entry.inside,
            turn,
            class: entry.class as u32,
            scheduled_at: entry.scheduled_at.0,
            created_at: entry.created_at.0,
            again: entry.again,
            backfill: entry.backfill.as_deref().unwrap_or_default().to_owned(),
        }
    }

    fn entry(&self, key: &Arc<str>) -> Entry {
        Entry {
            run: run_id(&self.run),
            key: key.clone(),
            rule: Rule {
                mode: MODES.get(self.mode as usize).copied().unwrap_or_default(),
                limit: self.limit,
                total: self.total,
                quiet: self.quiet,
                longest: self.longest,
            },
            inside: self.inside,
            class: StartClass::from_number(self.class),
            scheduled_at: Time(self.scheduled_at),
            created_at: Time(self.created_at),
            again: self.again,
            backfill: backfill(&self.backfill),
        }
    }
}

impl StoredHold {
    fn new((backfill, hold): (&Arc<str>, &Hold)) -> Self {
        let (run, by) = hold.stored();
        Self {
            backfill: backfill.to_string(),
            run,
            by,
        }
    }

    fn hold(self) -> (Arc<str>, Hold) {
        let hold = Hold::read(&self.run, &self.by);
        (self.backfill.into(), hold)
    }
}

impl StoredDiscard {
    fn new(discard: &Discard) -> Self {
        Self {
            run: bytes(discard.run),
            reason: discard.reason.to_string(),
            at: discard.at.0,
            key: discard.key.to_string(),
        }
    }

    fn discard(self) -> Discard {
        Discard {
            run: run_id(&self.run),
            key: self.key.into(),
            reason: self.reason.into(),
            at: Time(self.at),
        }
    }
}

impl StoredSuccess {
    fn new(success: &Success) -> Self {
        Self {
            run: bytes(success.run),
            key: success.key.to_string(),
            scheduled_at: success.scheduled_at.0,
            ended_at: success.ended_at.0,
            params: success.params.clone(),
            outputs: success.outputs.clone(),
        }
    }

    fn success(self) -> Success {
        Success {
            run: run_id(&self.run),
            key: self.key.into(),
            scheduled_at: Time(self.scheduled_at),
            ended_at: Time(self.ended_at),
            params: self.params,
            outputs: self.outputs,
        }
    }
}

impl RunQueue {
    /// The queue as bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        let turn = |run: RunId| self.turns.get(&run).copied();
        let kept = |line: &Line, class| {
            let kept = line.kept.iter().filter(|(_, kept)| **kept == class);
            kept.map(|(run, _)| bytes(*run)).collect()
        };
        let line = |(key, line): (&Arc<str>, &Line)| StoredLine {
            catchup: kept(line, StartClass::Catchup),
            backfill: kept(line, StartClass::Backfill),
            key: key.to_string(),
            active: line.active.iter().copied().map(bytes).collect(),
            waiting: line
                .waiting
                .iter()
                .map(|entry| StoredEntry::new(entry, turn(entry.run)))
                .collect(),
            blocked: line.blocked.map(bytes),
            timed_out: line.timed_out,
            mode: mode_number(line.mode),
            burst: line
                .burst
                .as_ref()
                .map(|(entry, began, until)| StoredBurst {
                    entry: StoredEntry::new(entry, None),
                    began: began.0,
                    until: until.0,
                }),
        };
        StoredQueue {
            lines: self.lines.iter().map(line).collect(),
            next_turn: self.next_turn,
            last_at: self.last_at.0,
            counted: self.counted,
            discards: self.discards.iter().map(StoredDiscard::new).collect(),
            holds: self.holds.iter().map(StoredHold::new).collect(),
            successes: self.successes.values().map(StoredSuccess::new).collect(),
            took: self.paces.took.iter().copied().collect(),
            failing: self.paces.failing.iter().map(ToString::to_string).collect(),
            settings: if self.settings == Settings::default() {
                Vec::new()
            } else {
                serde_json::to_vec(&self.settings).unwrap_or_default()
            },
        }
        .encode_to_vec()
    }

    /// Reads [`RunQueue::snapshot`], also of an earlier or a later version.
    ///
    /// # Errors
    /// Bytes that are no such message.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        let stored = StoredQueue::decode(bytes)?;
        let mut queue = Self {
            next_turn: stored.next_turn,
            last_at: Time(stored.last_at),
            settings: serde_json::from_slice(&stored.settings).unwrap_or_default(),
            counted: stored.counted,
            holds: stored.holds.into_iter().map(StoredHold::hold).collect(),
            discards: stored
                .discards
                .into_iter()
                .map(StoredDiscard::discard)
                .collect(),
            paces: Paces {
                took: stored.took.into_iter().collect(),
                failing: stored.failing.into_iter().map(Into::into).collect(),
            },
            ..Self::default()
        };
        for line in stored.lines {
            queue.restore_line(&line);
        }
        for success in stored.successes {
            let success = success.success();
            queue.successes.insert(success.key.clone(), success);
        }
        Ok(queue)
    }

    fn restore_line(&mut self, stored: &StoredLine) {
        let key: Arc<str> = stored.key.as_str().into();
        let kept = |runs: &[Vec<u8>], class| -> Vec<(RunId, StartClass)> {
            runs.iter().map(|run| (run_id(run), class)).collect()
        };
        let catchup = kept(&stored.catchup, StartClass::Catchup);
        let backfill = kept(&stored.backfill, StartClass::Backfill);
        let line = Line {
            kept: catchup.into_iter().chain(backfill).collect(),
            active: stored
                .active
                .iter()
                .map(|run| run_id(run))
                .collect::<BTreeSet<_>>(),
            waiting: stored
                .waiting
                .iter()
                .map(|entry| entry.entry(&key))
                .collect::<VecDeque<_>>(),
            blocked: stored.blocked.as_deref().map(run_id),
            timed_out: stored.timed_out,
            mode: MODES.get(stored.mode as usize).copied().unwrap_or_default(),
            burst: stored.burst.as_ref().map(|burst| {
                let (began, until) = (Time(burst.began), Time(burst.until));
                (burst.entry.entry(&key), began, until)
            }),
        };
        for (entry, stored) in line.waiting.iter().zip(&stored.waiting) {
            self.turns.extend(stored.turn.map(|turn| (entry.run, turn)));
        }
        let waiting = line.waiting.iter().map(|entry| entry.run);
        let burst = line.burst.iter().map(|(entry, ..)| entry.run);
        for run in line.active.iter().copied().chain(waiting).chain(burst) {
            self.runs.insert(run, key.clone());
        }
        self.active = self
            .active
            .saturating_add(u32::try_from(line.active.len()).unwrap_or(u32::MAX));
        self.lines.insert(key.clone(), line);
        self.settle(&key);
    }
}

fn bytes(run: RunId) -> Vec<u8> {
    run.to_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use kapell_model::spec::StrategyMode;
    use kapell_model::{RunStatus, Shard};
    use proptest::prelude::*;

    use super::super::{Bounds, Change};
    use super::*;
    use crate::message::Message as Told;
    use crate::small::{Ask, Small, SmallInput};

    fn key() -> kapell_model::EntityKey {
        kapell_model::EntityKey::RunQueue {
            namespace: "default".into(),
            workflow: "w".into(),
            key: "".into(),
        }
    }

    /// A later field set: what it has more is passed over, what is gone is as if nobody had set it.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Later {
        #[prost(message, repeated, tag = "1")]
        lines: Vec<LaterLine>,
        #[prost(bool, tag = "90")]
        frozen: bool,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct LaterLine {
        #[prost(string, tag = "1")]
        key: String,
        #[prost(bytes = "vec", repeated, tag = "2")]
        active: Vec<Vec<u8>>,
        #[prost(string, tag = "17")]
        note: String,
    }

    fn run(number: u8) -> RunId {
        RunId::new(Time(0), Shard(1), number.into())
    }

    #[test]
    fn more_and_fewer_fields_are_read() {
        let later = Later {
            lines: vec![LaterLine {
                key: "eu".to_owned(),
                active: vec![bytes(run(7)), bytes(run(8))],
                note: "what a later version adds".to_owned(),
            }],
            frozen: true,
        };
        let queue = RunQueue::from_snapshot(&later.encode_to_vec()).unwrap();
        assert_eq!(queue.active, 2);
        assert_eq!(queue.runs.len(), 2);
        assert_eq!(queue.lines["eu"].active, BTreeSet::from([run(7), run(8)]));
        let back = Later::decode(&*queue.snapshot()).unwrap();
        assert_eq!(back.lines[0].active, later.lines[0].active);
        assert_eq!(RunQueue::from_snapshot(&[]).unwrap(), RunQueue::default());
        assert!(RunQueue::from_snapshot(&[0xff]).is_err());
    }

    proptest! {
        #[test]
        fn a_run_queue_comes_back_as_it_was(
            inputs in prop::collection::vec(
                (0_u8..8, 0_u8..8, 0_usize..6, any::<[bool; 3]>(), 0_i64..30),
                0..80,
            ),
        ) {
            let mut queue = RunQueue::default();
            let mut now = 0;
            for (number, verb, mode, [bounded, bursts, failed], later) in inputs {
                now += later;
                let entry = Entry {
                    run: run(number),
                    key: ["", "eu"][usize::from(number % 2)].into(),
                    rule: Rule {
                        mode: MODES[mode],
                        limit: u32::from(MODES[mode] != StrategyMode::Parallel || bounded),
                        total: if bounded { 2 } else { 0 },
                        quiet: if bursts { 20 } else { 0 },
                        longest: if failed { 25 } else { 0 },
                    },
                    inside: verb == 0 && failed,
                    class: StartClass::from_number(u32::from(number % 3)),
                    scheduled_at: if number % 3 == 0 { Time::ZERO } else { Time(100 - now) },
                    created_at: Time(now),
                    again: false,
                    backfill: (number % 3 == 2).then(|| "fill".into()),
                };
                let now = Time(now);
                match verb {
                    0 | 1 => drop(queue.decide(Some(&Told::Enqueue(Box::new(entry))), now)),
                    2 => drop(queue.decide(Some(&Told::Reenter(Box::new(entry))), now)),
                    3 => drop(queue.dismiss(run(number), now)),
                    4 => drop(queue.decide(None, now)),
                    6 => drop(queue.decide(Some(&Told::Active(vec![entry.run])), now)),
                    7 => {
                        let change = Change {
                            strategy: Some(bounded.then_some(Bounds {
                                mode: MODES[mode],
                                limit: None,
                                total: None,
                            })),
                            rule: Some(entry.rule),
                            paused: Some(bursts.then(|| "ann".to_owned())),
                            ..Change::default()
                        };
                        let ask = SmallInput::Ask(Ask::Change(Box::new(change)));
                        Small::decide(&mut queue, &key(), ask, now).unwrap();
                    }
                    _ => {
                        let status = if failed { RunStatus::Failed } else { RunStatus::Succeeded };
                        let success = bursts.then(|| Box::new(Success {
                            run: run(number),
                            key: entry.key,
                            scheduled_at: now,
                            ended_at: now,
                            params: vec![number],
                            outputs: vec![],
                        }));
                        let ended = Told::RunEnded {
                            run: run(number),
                            status,
                            by_person: bounded,
                            success,
                            blocks: (number % 3 == 2 && failed).then(|| "fill".into()),
                        };
                        drop(queue.decide(Some(&ended), now));
                    }
                }
                prop_assert_eq!(RunQueue::from_snapshot(&queue.snapshot()).unwrap(), queue.clone());
            }
        }
    }
}
