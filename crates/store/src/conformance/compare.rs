//! The same random operations on two stores.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use kapell_model::{EntityKey, RunId, RunStatus, Shard, ShardSet, Time};

use super::{advanced, id, lock, row, version_row};
use crate::{
    Commit, Document, EntityWrite, Error, Lease, Mail, Mark, Order, Result, RunFilter, RunPlace,
    RunRow, Store, VersionRow,
};

/// Runs `steps` random operations, the same for the same seed, and panics where the stores differ.
/// `reopen` is called at random between operations: it closes the tested store and opens it again.
pub fn compare<A: Store, B: Store>(
    seed: u64,
    steps: usize,
    expected: &A,
    tested: B,
    reopen: impl FnMut(B) -> B,
) {
    World::new(seed).live(0..steps, expected, tested, reopen);
}

/// As [`compare`], with all that is stored moved to another store in the middle.
pub fn compare_moved<A: Store, B: Store, C: Store>(
    seed: u64,
    steps: usize,
    expected: &A,
    tested: B,
    moved: impl FnOnce(B) -> C,
) {
    let mut world = World::new(seed);
    let tested = world.live(0..steps, expected, tested, |store| store);
    let tested = moved(tested);
    let (one, other) = (everything(expected, &world), everything(&tested, &world));
    assert_eq!(one, other, "all after the move of seed {seed}");
    world.live(steps..2 * steps, expected, tested, |store| store);
}

impl World {
    fn live<A: Store, B: Store>(
        &mut self,
        steps: Range<usize>,
        expected: &A,
        mut tested: B,
        mut reopen: impl FnMut(B) -> B,
    ) -> B {
        for step in steps {
            if self.dice.one_in(60) {
                tested = reopen(tested);
            }
            let operation = if step == 0 {
                self.first()
            } else {
                self.operation()
            };
            let (one, other) = (operation.on(expected), operation.on(&tested));
            assert_eq!(one, other, "step {step}: {operation:?}");
            self.learn(&operation, &one, expected);
            if self.dice.one_in(25) {
                let (one, other) = (everything(expected, self), everything(&tested, self));
                assert_eq!(one, other, "all after step {step}: {operation:?}");
            }
        }
        tested
    }
}

/// Splitmix64: the same numbers everywhere and for ever.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).unwrap_or(1);
        usize::try_from(self.roll() % bound).unwrap_or(0)
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn time(&mut self) -> Time {
        Time(i64::try_from(self.below(50)).unwrap_or(0) - 2)
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let place = self.below(items.len());
        &items[place]
    }

    fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.one_in(2) {
            Some(value(self))
        } else {
            None
        }
    }
}

#[derive(Debug)]
enum Operation {
    Acquire(Vec<Shard>),
    Commit(Commit),
    Register(&'static str, String),
    Delete(Vec<RunId>),
    List(RunFilter, usize),
    Due(Time, Option<(Time, EntityKey)>, usize),
    Expired(Option<&'static str>, Time, usize),
    History(EntityKey, u64, usize),
    Find(String),
    Referred(Vec<Arc<str>>),
    BlobsOf(EntityKey, String, usize),
    Workflows(&'static str, usize),
    Put(Vec<Document>),
    Documents(Vec<u8>, Option<Vec<u8>>, Order, usize),
    Tidy,
}

/// An answer that can be compared: texts of errors may differ, kinds may not.
fn told<T: Debug>(outcome: Result<T>) -> String {
    match outcome {
        Ok(value) => format!("{value:?}"),
        Err(Error::Conflict(shard)) => format!("{CONFLICT} on {shard:?}"),
        Err(Error::Invalid(_)) => REFUSED.to_owned(),
        Err(other) => panic!("the store failed: {other}"),
    }
}

impl Operation {
    fn on(&self, store: &dyn Store) -> String {
        match self {
            Self::Acquire(shards) => told(store.acquire(shards)),
            Self::Commit(commit) => told(store.commit(commit)),
            Self::Register(workflow, hash) => told(store.register(&version_row(workflow, hash))),
            Self::Delete(ids) => told(store.delete_runs(ids)),
            Self::List(filter, limit) => told(store.list_runs(filter, *limit)),
            Self::Due(now, after, limit) => {
                told(store.due(*now, after.as_ref(), *limit)) + &told(store.next_wake(*now))
            }
            Self::Expired(workflow, before, limit) => {
                told(store.expired_runs(workflow.map(|name| ("default", name)), *before, *limit))
            }
            Self::History(key, from, limit) => told(store.history(key, *from, *limit)),
            Self::Find(suffix) => told(store.find_runs(suffix, 5)),
            Self::Referred(hashes) => told(store.blobs_referred(hashes)),
            Self::BlobsOf(key, after, limit) => told(store.blobs_of(key, after, *limit)),
            Self::Workflows(after, limit) => told(store.list_workflows("default", after, *limit)),
            Self::Put(documents) => told(store.put_documents(documents)),
            Self::Documents(prefix, beyond, order, limit) => {
                told(store.documents(prefix, beyond.as_deref(), *order, *limit))
            }
            Self::Tidy => told(store.tidy()),
        }
    }
}

fn blob(number: usize) -> Arc<str> {
    format!("{number:064x}").into()
}

const CONFLICT: &str = "conflict";
const REFUSED: &str = "refused";
const WORKFLOWS: [&str; 3] = ["a", "b", "c"];
const TRIGGERS: [&str; 3] = ["manual", "schedule", "nightly"];

/// What the operations are about, and what is known of it, so that most of them succeed.
struct World {
    dice: Dice,
    keys: Vec<EntityKey>,
    runs: Vec<RunId>,
    leases: BTreeMap<Shard, Lease>,
    seqs: BTreeMap<EntityKey, u64>,
    pages: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        // Half of the worlds have ids that say different days, as most have.
        let day = |n: u16| i64::from(20_000 + n % 3) * 86_400_000 * i64::from(seed % 2 == 1);
        let runs: Vec<RunId> = (0_u16..24)
            .map(|n| id(day(n) + i64::from(n / 4), n % 5, u128::from(n) << 7))
            .collect();
        let mut keys: Vec<EntityKey> = runs.iter().copied().map(EntityKey::from).collect();
        keys.extend(["x", "y", "z"].map(lock));
        keys.extend(["", "k"].map(|key| EntityKey::RunQueue {
            namespace: Arc::from("default"),
            workflow: Arc::from("a"),
            key: Arc::from(key),
        }));
        Self {
            dice: Dice(seed),
            keys,
            runs,
            leases: BTreeMap::new(),
            seqs: BTreeMap::new(),
            pages: 0,
        }
    }

    /// Takes nearly all shards; what is left is taken by chance.
    fn first(&self) -> Operation {
        let mut shards: Vec<Shard> = self.keys.iter().map(EntityKey::shard).collect();
        shards.sort_unstable();
        shards.dedup();
        shards.pop();
        Operation::Acquire(shards)
    }

    fn operation(&mut self) -> Operation {
        match self.dice.below(22) {
            0 => Operation::Acquire(self.shards()),
            1 => Operation::Register(self.workflow(), self.dice.below(5).to_string()),
            2 => Operation::Delete((0..self.dice.below(6)).map(|_| self.run()).collect()),
            3 | 4 => Operation::List(self.filter(), self.dice.below(12)),
            5 => {
                let after = self
                    .dice
                    .maybe(Dice::time)
                    .map(|at| (at.max(Time::ZERO), self.key()));
                Operation::Due(self.dice.time(), after, self.dice.below(8))
            }
            6 => {
                let workflow = self.workflow();
                let workflow = self.dice.maybe(|_| workflow);
                Operation::Expired(workflow, self.dice.time(), self.dice.below(10))
            }
            7 => Operation::History(self.key(), self.dice.roll() % 9, self.dice.below(6)),
            8 => {
                let text = self.run().to_string();
                let start = self.dice.below(text.len() + 1);
                Operation::Find(text.get(start..).unwrap_or_default().to_owned())
            }
            9 => Operation::Workflows(self.workflow(), self.dice.below(4)),
            10 if self.dice.one_in(5) => Operation::Tidy,
            10 if self.dice.one_in(2) => {
                let hashes = (0..self.dice.below(9)).map(|_| self.hash());
                Operation::Referred(hashes.collect())
            }
            10 => {
                let after = self.hash().to_string();
                let after = self.dice.maybe(|_| after).unwrap_or_default();
                Operation::BlobsOf(self.key(), after, self.dice.below(4))
            }
            11 if self.dice.one_in(2) => {
                let documents = (0..self.dice.below(5)).map(|_| self.document());
                Operation::Put(documents.collect())
            }
            11 => {
                let (mut prefix, beyond) = (self.document().0, self.document().0);
                prefix.truncate(self.dice.below(3));
                let order = *self.dice.pick(&[Order::Forward, Order::Backward]);
                let beyond = self.dice.maybe(|_| beyond);
                Operation::Documents(prefix, beyond, order, self.dice.below(9))
            }
            _ => Operation::Commit(self.commit()),
        }
    }

    fn workflow(&mut self) -> &'static str {
        WORKFLOWS[self.dice.below(WORKFLOWS.len())]
    }

    fn run(&mut self) -> RunId {
        *self.dice.pick(&self.runs)
    }

    /// One of few, so that several entities refer to one.
    fn hash(&mut self) -> Arc<str> {
        blob(self.dice.below(12))
    }

    fn key(&mut self) -> EntityKey {
        self.dice.pick(&self.keys).clone()
    }

    fn shards(&mut self) -> Vec<Shard> {
        (0..=self.dice.below(4))
            .map(|_| self.key().shard())
            .collect()
    }

    fn filter(&mut self) -> RunFilter {
        let (before, workflow, parent) = (self.run(), self.workflow(), self.runs[0]);
        RunFilter {
            namespace: self
                .dice
                .maybe(|dice| Arc::from(*dice.pick(&["default", "other"]))),
            workflow: self.dice.maybe(|_| Arc::from(workflow)),
            statuses: (0..self.dice.below(4))
                .map(|_| *self.dice.pick(&RunStatus::ALL))
                .collect(),
            parent: if self.dice.one_in(4) {
                Some(parent)
            } else {
                None
            },
            since: self.dice.maybe(|dice| Time(dice.time().0 * 150)),
            until: if self.dice.one_in(4) {
                Some(Time(self.dice.time().0 * 150))
            } else {
                None
            },
            trigger: if self.dice.one_in(4) {
                Some(Arc::from(*self.dice.pick(&TRIGGERS)))
            } else {
                None
            },
            backfill: if self.dice.one_in(8) {
                Some(Arc::from(*self.dice.pick(&TRIGGERS)))
            } else {
                None
            },
            labels: if self.dice.one_in(4) {
                vec![(Arc::from("team"), Arc::from(*self.dice.pick(&["a", "b"])))]
            } else {
                Vec::new()
            },
            error: if self.dice.one_in(6) {
                Some(self.dice.below(40).to_string().into())
            } else {
                None
            },
            before: self.dice.maybe(|dice| RunPlace {
                created_at: dice.maybe(|dice| Time(dice.time().0 * 150)),
                run: before,
            }),
        }
    }

    fn document(&mut self) -> Document {
        let length = self.dice.below(4);
        let key = (0..length).map(|_| *self.dice.pick(&[0, 7, 0xff]));
        let key = key.collect();
        (key, self.dice.maybe(|dice| dice.roll().to_string()))
    }

    /// What some of these shards send to others, and what they have taken.
    fn mail(&mut self, shards: &[Lease]) -> (Vec<Mail>, Vec<Mark>) {
        let (mut mail, mut marks) = (Vec::new(), Vec::new());
        for lease in shards {
            if self.dice.one_in(4) {
                mail.push(Mail {
                    from: lease.shard,
                    number: lease.seq << 20,
                    to: self.key(),
                    message: vec![0xff; 3],
                });
            }
            if self.dice.one_in(6) {
                marks.push(Mark {
                    to: lease.shard,
                    from: self.key().shard(),
                    number: (self.dice.roll() % 9) << 20,
                });
            }
        }
        (mail, marks)
    }

    fn commit(&mut self) -> Commit {
        let mut keys: Vec<EntityKey> = (0..=self.dice.below(5)).map(|_| self.key()).collect();
        let mut runs: Vec<RunId> = (0..self.dice.below(5)).map(|_| self.run()).collect();
        if !self.dice.one_in(30) {
            keys.sort_unstable();
            keys.dedup();
            runs.sort_unstable();
            runs.dedup();
        }
        let mut shards: Vec<Shard> = keys.iter().map(EntityKey::shard).collect();
        shards.extend(runs.iter().map(|run| run.shard()));
        shards.sort_unstable();
        shards.dedup();
        if self.dice.one_in(40) {
            shards.pop();
        }
        let shards: Vec<Lease> = shards.into_iter().map(|shard| self.lease(shard)).collect();
        let (mail, marks) = self.mail(&shards);
        Commit {
            shards,
            mail,
            marks,
            entities: keys.into_iter().map(|key| self.entity(key)).collect(),
            runs: runs.into_iter().map(|run| self.row(run)).collect(),
            documents: if self.dice.one_in(5) {
                vec![self.document()]
            } else {
                Vec::new()
            },
            activated: if self.dice.one_in(12) {
                let version = u32::try_from(self.dice.below(4)).unwrap_or(0);
                vec![("default".into(), self.workflow().into(), version)]
            } else {
                Vec::new()
            },
            versions: if self.dice.one_in(12) {
                vec![self.version()]
            } else {
                Vec::new()
            },
        }
    }

    fn version(&mut self) -> VersionRow {
        let hash = self.dice.below(9).to_string();
        VersionRow {
            version: u32::try_from(self.dice.below(5)).unwrap_or(0),
            ..version_row(self.workflow(), &hash)
        }
    }

    fn lease(&mut self, shard: Shard) -> Lease {
        let known = self.leases.get(&shard).copied().unwrap_or(Lease {
            shard,
            epoch: 0,
            seq: 0,
        });
        match self.dice.below(60) {
            0 => Lease {
                epoch: known.epoch + 1,
                ..known
            },
            1 => Lease {
                seq: known.seq.saturating_sub(1),
                ..known
            },
            _ => known,
        }
    }

    fn entity(&mut self, key: EntityKey) -> EntityWrite {
        let known = self.seqs.get(&key).copied().unwrap_or(0);
        let seq = if self.dice.one_in(40) {
            known
        } else {
            known + 1
        };
        let length = [0, 5, 300, 9000][self.dice.below(4)];
        let filler = u8::try_from(seq & 0xff).unwrap_or(0);
        let mut write = EntityWrite {
            key,
            seq,
            chunk: if self.dice.one_in(3) {
                format!("{}, {}", self.hash(), self.hash()).into()
            } else {
                vec![filler; length]
            },
            wake_at: self.dice.maybe(Dice::time),
            snapshot: if self.dice.one_in(4) {
                Some(vec![filler; self.dice.below(3000)])
            } else {
                None
            },
            forget: false,
            pages: Vec::new(),
        };
        write.forget = self
            .dice
            .one_in(if write.snapshot.is_some() { 3 } else { 60 });
        if self.dice.one_in(20) {
            write.snapshot = Some(Vec::new());
        } else if write.snapshot.is_some() && self.dice.one_in(3) {
            write.snapshot = Some(self.hash().as_bytes().to_vec());
        }
        if self.dice.one_in(6) {
            self.pages += 1;
            let number = if self.dice.one_in(10) { 1 } else { self.pages };
            write
                .pages
                .push((number, vec![filler; self.dice.below(2000)]));
        }
        write
    }

    fn row(&mut self, run: RunId) -> RunRow {
        let status = *self.dice.pick(&RunStatus::ALL);
        let workflow = WORKFLOWS[usize::try_from(run.0 >> 8 & 1).unwrap_or(0)];
        let moved = self.dice.one_in(20);
        RunRow {
            ended_at: if status.ended() {
                Some(self.dice.time())
            } else {
                None
            },
            parent: if run.0 >> 7 & 3 == 1 {
                Some(self.runs[0])
            } else {
                None
            },
            created_at: Time(1_000 * i64::try_from(run.0 >> 7 & 7).unwrap_or(0)),
            counts: [self.dice.roll() >> 1, 0, 7],
            error: self.dice.maybe(|dice| dice.roll().to_string()),
            trigger: Arc::from(TRIGGERS[usize::try_from(run.0 >> 9 & 1).unwrap_or(0)]),
            trigger_name: if run.0 >> 10 & 1 == 1 {
                Some(Arc::from(TRIGGERS[usize::from(moved) + 1]))
            } else {
                None
            },
            backfill: if run.0 >> 11 & 1 == 1 {
                Some(Arc::from(TRIGGERS[usize::from(moved)]))
            } else {
                None
            },
            labels: if self.dice.one_in(9) {
                r#"{"team":"b","x":"y"}"#.to_owned()
            } else {
                r#"{"team":"a"}"#.to_owned()
            },
            ..row(run, if moved { "c" } else { workflow }, status)
        }
    }

    /// Follows what the stores took.
    fn learn(&mut self, operation: &Operation, answer: &str, store: &dyn Store) {
        if answer == REFUSED || answer.starts_with(CONFLICT) {
            return;
        }
        match operation {
            Operation::Acquire(shards) => {
                for &shard in shards {
                    let lease = self.leases.entry(shard).or_insert(Lease {
                        shard,
                        epoch: 0,
                        seq: 0,
                    });
                    lease.epoch += 1;
                }
            }
            Operation::Commit(commit) => {
                for lease in &commit.shards {
                    self.leases.insert(lease.shard, advanced(*lease));
                }
                for write in &commit.entities {
                    let loaded = store.load(&write.key).ok().flatten().unwrap_or_default();
                    let snapshot = loaded.snapshot.map_or(0, |(seq, _)| seq);
                    let last = loaded.chunks.last().map_or(snapshot, |(seq, _)| *seq);
                    self.seqs.insert(write.key.clone(), last);
                }
            }
            _ => {}
        }
    }
}

/// All that can be read of the world.
fn everything(store: &dyn Store, world: &World) -> String {
    let mut text = String::new();
    let mut add = |part: String| {
        text.push_str(&part);
        text.push('\n');
    };
    for key in &world.keys {
        add(told(store.load(key)));
        add(told(store.history(key, 0, usize::MAX)));
        add(told(
            (0..=world.pages)
                .map(|page| store.page(key, page))
                .collect::<Result<Vec<_>>>(),
        ));
    }
    for key in &world.keys {
        add(told(store.blobs_of(key, "", usize::MAX)));
    }
    let blobs: Vec<Arc<str>> = (0..12).map(blob).collect();
    add(told(store.blobs_referred(&blobs)));
    for run in &world.runs {
        add(told(store.run(*run)));
    }
    add(told(store.list_runs(&RunFilter::default(), usize::MAX)));
    add(told(store.run_counts("default")));
    add(told(store.due(Time(i64::MAX), None, usize::MAX)));
    add(told(store.mail(&ShardSet::all(), usize::MAX)));
    add(told(store.expired_runs(None, Time(i64::MAX), usize::MAX)));
    add(told(store.list_workflows("default", "", usize::MAX)));
    add(told(store.documents(b"", None, Order::Forward, usize::MAX)));
    for workflow in WORKFLOWS {
        let versions = [None, Some(1), Some(2), Some(5)]
            .map(|version| store.version("default", workflow, version));
        add(told(versions.into_iter().collect::<Result<Vec<_>>>()));
        add(told(store.versions("default", workflow, None, usize::MAX)));
    }
    text
}
