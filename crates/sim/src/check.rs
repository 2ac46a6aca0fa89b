//! What must hold, always.
//!
//! | file | what |
//! | --- | --- |
//! | here | commits, one by one: fenced, and each run, queue and lock as its history says |
//! | `durable` | memory, store and history say the same; who has work is found |
//! | `people` | nothing undurable is shown; what people can ask about |
//! | `work` | what is handed out: never twice, never too much |
//! | `steps` | how steps, items and runs end, by rules of its own |
//! | `signals` | nothing sent or answered is lost, nobody waits for what is there |
//! | `approvals` | who has answered what a step asks |
//! | `breaks` | breakpoints of all runs of a workflow |
//! | `lines` | what strategies and locks promise |
//! | `watermark` | `run.last_success` |
//! | `due` | each due time makes exactly one run, and none is missed |
//! | `backfills` | which due times they take, in which order, how many at a time |
//! | `triggers` | each signal or request starts what it is to start, once |
//! | `joins` | signals that are joined: the oldest of each, once |

mod approvals;
mod backfills;
mod breaks;
mod due;
mod durable;
mod joins;
mod lines;
mod people;
mod signals;
mod steps;
mod triggers;
mod watermark;
mod work;

pub(crate) use people::facts;
pub(crate) use signals::breakpoints;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kapell_api::task::Place;
use kapell_engine::Plan;
use kapell_engine::event::{self, Event, Fact};
use kapell_engine::lock::{self, Lock};
use kapell_engine::run::state::State;
use kapell_engine::run_queue::{self, RunQueue};
use kapell_model::{EntityKey, Offer, RunId, RunStatus, Shard, Time};
use kapell_node::Entity;
use kapell_store::{Commit, Lease, MemoryStore, Store};

use crate::worker::Worker;
use crate::world::{Failure, NAMESPACE};

/// What a checker finds.
pub(crate) type Verdict = Result<(), Failure>;

/// A failure of a checker.
pub(crate) fn wrong(what: &'static str, detail: impl Into<String>) -> Verdict {
    Err(Failure {
        what,
        detail: detail.into(),
    })
}

/// A run as its commits say.
pub(crate) struct Shadow {
    pub state: State,
    pub plan: Arc<Plan>,
    /// Goes up when the run is opened again.
    pub generation: u32,
    /// Everything the run has ever looked like: status and counts.
    pub seen: BTreeSet<(RunStatus, [u64; 3])>,
    /// Grants of each unit in this generation.
    pub offered: BTreeMap<Place, Vec<Offer>>,
    /// The last grant of each unit, and which try it is.
    pub attempts: BTreeMap<Place, (Offer, u32)>,
    /// Units that were lost in this generation.
    pub lost: BTreeSet<Place>,
    /// Units that were told to stop in this generation.
    pub stopping: BTreeSet<Place>,
    /// The last grant of the generations before.
    pub before: Offer,
    /// That of its owner now, where owners follow each other while their workers live.
    pub epoch: u64,
}

/// See the module.
#[derive(Default)]
pub struct Checks {
    pub(crate) runs: BTreeMap<RunId, Shadow>,
    pub(crate) plans: BTreeMap<(Arc<str>, u32), Arc<Plan>>,
    pub(crate) leases: BTreeMap<Shard, Lease>,
    queues: BTreeMap<EntityKey, RunQueue>,
    locks: BTreeMap<EntityKey, Lock>,
    /// Entities of other kinds, as their facts say.
    smalls: BTreeMap<EntityKey, Entity>,
    grants: BTreeMap<EntityKey, VecDeque<Time>>,
    orders: BTreeMap<EntityKey, lines::Order>,
    acknowledged: BTreeSet<RunId>,
    /// Who made runs and sent signals, and who was told that nothing came of what they asked.
    asked_by: BTreeSet<String>,
    refused: BTreeSet<String>,
    /// Signals that runs say they sent in the commit that is read.
    sent: Vec<(EntityKey, String)>,
    watermarks: watermark::Watermarks,
    due: due::DueTimes,
    backfills: backfills::Backfills,
    starts: triggers::Starts,
    breaks: breaks::Breaks,
    dirty: BTreeSet<EntityKey>,
    commits: u64,
    quiets: u64,
    /// Several lanes own what there is: what is said between shards takes its time.
    spread: bool,
    /// Signals that triggers are to hear of, and those of which they have: by trigger.
    owed: BTreeMap<EntityKey, (u64, u64)>,
}

impl Checks {
    /// Of several lanes.
    pub(crate) fn spread() -> Self {
        Self {
            spread: true,
            ..Self::default()
        }
    }

    /// True if a shard was last taken in this epoch.
    pub(crate) fn is_epoch(&self, shard: Shard, epoch: u64) -> bool {
        self.leases
            .get(&shard)
            .is_some_and(|lease| lease.epoch == epoch)
    }

    /// Shards were taken over.
    pub(crate) fn acquired(&mut self, leases: &[Lease]) {
        for lease in leases {
            let known = self.leases.entry(lease.shard).or_insert(*lease);
            if known.epoch < lease.epoch {
                *known = *lease;
            }
        }
    }

    /// True if nobody has taken over or written the shards since they were read.
    pub(crate) fn may_write(&self, commit: &Commit) -> bool {
        commit
            .shards
            .iter()
            .all(|lease| self.leases.get(&lease.shard) == Some(lease))
    }

    /// A commit is durable.
    pub(crate) fn landed(
        &mut self,
        commit: &Commit,
        store: &MemoryStore,
        worker: &Worker,
    ) -> Verdict {
        self.commits += 1;
        for lease in &commit.shards {
            if let Some(known) = self.leases.get_mut(&lease.shard) {
                known.seq += 1;
            }
        }
        for write in &commit.entities {
            if !commit
                .shards
                .iter()
                .any(|lease| lease.shard == write.key.shard())
            {
                return wrong(
                    "fence",
                    format!("{:?} is written without its shard", write.key),
                );
            }
            self.dirty.insert(write.key.clone());
            match &write.key {
                EntityKey::Run(id) => self.run_written(*id, &write.chunk, worker)?,
                EntityKey::RunQueue { .. } => self.queue_written(&write.key, &write.chunk)?,
                EntityKey::Lock { .. } => self.lock_written(&write.key, &write.chunk)?,
                EntityKey::Trigger { .. } => self.trigger_written(&write.key, &write.chunk)?,
                EntityKey::Topic { .. } => self.topic_written(&write.key, &write.chunk)?,
                EntityKey::Backfill { .. } => self.backfill_written(&write.key, &write.chunk)?,
                EntityKey::Channel { .. } => self.small_written(&write.key, &write.chunk)?,
            }
        }
        self.watermarks.landed()?;
        self.due_times_made()?;
        self.backfills_kept(commit)?;
        self.signals_started()?;
        self.breakpoints_set()?;
        self.sent_kept()?;
        for write in &commit.entities {
            if let EntityKey::Run(id) = write.key {
                self.row_right(id, store)?;
                self.bounds_of_run(id)?;
            }
        }
        if let Some(write) = commit.entities.first() {
            let often = if self.is_big(&write.key) { 512 } else { 16 };
            if self.commits.is_multiple_of(often) {
                self.replayed(&write.key, store)?;
            }
        }
        Ok(())
    }

    fn run_written(&mut self, id: RunId, chunk: &[u8], worker: &Worker) -> Verdict {
        let events =
            kapell_engine::chunk::decode::<event::Event>(chunk).map_err(|error| Failure {
                what: "history",
                detail: format!("{id}: {error}"),
            })?;
        for event in &events {
            if let Some(Fact::RunCreated(created)) = &event.fact {
                if self.runs.contains_key(&id) {
                    return wrong("created", format!("{id} was made twice"));
                }
                let version = (created.workflow.as_str().into(), created.version);
                let plan = self.plans.get(&version).cloned();
                let Some(plan) = plan else {
                    return wrong("created", "of an unknown workflow");
                };
                self.took_effect(&created.by)?;
                self.runs.insert(id, Shadow::new(plan));
                self.due.created(id, created);
                self.backfills.created(id, created, event.at);
                self.starts.created(id, created)?;
                self.breaks.created(id, created);
            }
            let lease = self.leases.get(&id.shard());
            let epoch = lease.filter(|_| self.spread);
            let epoch = epoch.map_or(0, |lease| lease.epoch);
            let Some(shadow) = self.runs.get_mut(&id) else {
                return wrong("history", format!("{id} has events before it was made"));
            };
            shadow.epoch = epoch;
            approvals::answered_rightly(shadow, event)?;
            shadow.event(event, worker)?;
            self.watermarks.event(&shadow.state, &shadow.plan, event);
            self.note_sent(id, event);
            self.note_ended(id, event);
        }
        Ok(())
    }

    /// The process has started again: what was acknowledged is there.
    pub(crate) fn restarted(&self, store: &MemoryStore) -> Verdict {
        for run in &self.acknowledged {
            if !matches!(store.load(&(*run).into()), Ok(Some(_))) {
                return wrong("durable", format!("{run} was acknowledged and is gone"));
            }
        }
        self.woken(store)
    }

    /// The end: everything is as its history says, and nothing is held or waits.
    pub(crate) fn finish(&self, store: &MemoryStore) -> Verdict {
        let keys = self
            .runs
            .keys()
            .map(|run| EntityKey::Run(*run))
            .chain(self.queues.keys().cloned())
            .chain(self.locks.keys().cloned())
            .chain(self.smalls.keys().cloned());
        for key in keys {
            self.replayed(&key, store)?;
        }
        self.restarted(store)?;
        self.lines_empty()?;
        self.due_times_done()?;
        let counts = store.run_counts(NAMESPACE).unwrap_or_default();
        let sum: u64 = counts.iter().map(|(_, _, count)| *count).sum();
        if sum != self.runs.len() as u64 {
            return wrong(
                "counts",
                format!("{sum} runs are counted and {} exist", self.runs.len()),
            );
        }
        Ok(())
    }
}

impl Shadow {
    fn new(plan: Arc<Plan>) -> Self {
        Self {
            state: State::default(),
            plan,
            generation: 0,
            seen: BTreeSet::new(),
            offered: BTreeMap::new(),
            attempts: BTreeMap::new(),
            lost: BTreeSet::new(),
            stopping: BTreeSet::new(),
            before: Offer::default(),
            epoch: 0,
        }
    }

    fn event(&mut self, event: &Event, worker: &Worker) -> Verdict {
        if Time(event.at) < self.state.last_at {
            return wrong(
                "time",
                format!("an event of {} goes back in time", self.state.meta.id),
            );
        }
        self.before(event, worker)?;
        self.state.apply(&self.plan, event);
        self.after(event)?;
        self.seen.insert((self.state.status, self.state.counts));
        Ok(())
    }
}

impl Checks {
    /// Entities of other kinds: their facts are taken and nothing more is known of them.
    fn small_written(&mut self, key: &EntityKey, chunk: &[u8]) -> Verdict {
        let Some(fresh) = Entity::fresh(key) else {
            return wrong("history", format!("{key:?} is of no known kind"));
        };
        let shadow = self.smalls.entry(key.clone()).or_insert(fresh);
        let replayed = shadow.small_mut().map(|small| small.replay(chunk));
        match replayed {
            Some(Err(error)) => wrong("history", format!("{key:?}: {error}")),
            _ => self.signals_took_effect(key),
        }
    }

    fn queue_written(&mut self, key: &EntityKey, chunk: &[u8]) -> Verdict {
        let events =
            kapell_engine::chunk::decode::<run_queue::QueueEvent>(chunk).map_err(|error| {
                Failure {
                    what: "history",
                    detail: format!("{key:?}: {error}"),
                }
            })?;
        let several = match key {
            EntityKey::RunQueue { workflow, .. } => self.plans.contains_key(&(workflow.clone(), 2)),
            _ => false,
        };
        let mut admitted = Vec::new();
        for event in &events {
            let queue = self.queues.entry(key.clone()).or_default();
            admitted.extend(lines::admission(queue, event));
            let order = self.orders.entry(key.clone()).or_default();
            order.before(queue, event, several)?;
            self.breaks.event(key, event);
            queue.apply(event);
        }
        // Where the rule changes in the same commit, some were admitted by the one before.
        if events.iter().any(|event| event.kind == 9) {
            return Ok(());
        }
        self.keeps_strategy(&admitted)
    }

    fn lock_written(&mut self, key: &EntityKey, chunk: &[u8]) -> Verdict {
        let events =
            kapell_engine::chunk::decode::<lock::LockEvent>(chunk).map_err(|error| Failure {
                what: "history",
                detail: format!("{key:?}: {error}"),
            })?;
        for event in &events {
            let lock = self.locks.entry(key.clone()).or_default();
            lock.apply(event);
            let grants = self.grants.entry(key.clone()).or_default();
            lines::bound_of_lock(key, lock, event, grants)?;
        }
        Ok(())
    }
}
