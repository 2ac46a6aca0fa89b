//! What must hold, always.
//!
//! | file | what |
//! | --- | --- |
//! | here | the history: every commit fenced, state as its history says, nothing undurable shown |
//! | `work` | what is handed out: never twice, never too much |
//! | `steps` | how steps, items and runs end, by rules of its own |
//! | `lines` | what strategies and locks promise |

mod lines;
mod steps;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kapell_api::task::Place;
use kapell_engine::event::{self, Event, Fact};
use kapell_engine::lock::{self, Lock};
use kapell_engine::run::state::{State, TimerKind};
use kapell_engine::run_queue::{self, RunQueue};
use kapell_engine::{Plan, Request};
use kapell_model::spec::StepIndex;
use kapell_model::{EntityKey, Offer, RunId, RunStatus, Shard, Time};
use kapell_node::{Answer, ClientRequest, Entity, Lane};
use kapell_store::{Commit, Lease, MemoryStore, RunRow, Store};

use crate::rng::Rng;
use crate::worker::Worker;
use crate::world::{Failure, NAMESPACE, stands};

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
    /// Somebody ended a step by hand.
    pub by_hand: bool,
    /// Everything the run has ever looked like: status and counts.
    pub seen: BTreeSet<(RunStatus, [u64; 3])>,
    /// Grants of each unit in this generation.
    pub offered: BTreeMap<Place, Vec<Offer>>,
    /// Units that were lost in this generation.
    pub lost: BTreeSet<Place>,
    /// Units that were told to stop in this generation.
    pub stopping: BTreeSet<Place>,
    /// The last grant of the generations before.
    pub before: Offer,
}

/// See the module.
#[derive(Default)]
pub struct Checks {
    pub(crate) runs: BTreeMap<RunId, Shadow>,
    pub(crate) plans: BTreeMap<Arc<str>, Arc<Plan>>,
    pub(crate) leases: BTreeMap<Shard, Lease>,
    queues: BTreeMap<EntityKey, RunQueue>,
    locks: BTreeMap<EntityKey, Lock>,
    grants: BTreeMap<EntityKey, VecDeque<Time>>,
    orders: BTreeMap<EntityKey, lines::Order>,
    acknowledged: BTreeSet<RunId>,
    dirty: BTreeSet<EntityKey>,
    commits: u64,
    quiets: u64,
}

impl Checks {
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
            }
        }
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
        let events = event::decode_chunk(chunk).map_err(|error| Failure {
            what: "history",
            detail: format!("{id}: {error}"),
        })?;
        for event in &events {
            if let Some(Fact::RunCreated(created)) = &event.fact {
                if self.runs.contains_key(&id) {
                    return wrong("created", format!("{id} was made twice"));
                }
                let plan = self.plans.get(created.workflow.as_str()).cloned();
                let Some(plan) = plan else {
                    return wrong("created", "of an unknown workflow");
                };
                self.runs.insert(id, Shadow::new(plan));
            }
            let Some(shadow) = self.runs.get_mut(&id) else {
                return wrong("history", format!("{id} has events before it was made"));
            };
            shadow.event(event, worker)?;
        }
        Ok(())
    }

    /// Lists and histories say the same of a run.
    fn row_right(&self, id: RunId, store: &MemoryStore) -> Verdict {
        let Some(shadow) = self.runs.get(&id) else {
            return Ok(());
        };
        let row = store.run(id).ok().flatten();
        let Some(row) = row else {
            return wrong("rows", format!("{id} has no row"));
        };
        let state = &shadow.state;
        if row.status != state.status
            || row.ended_at != state.ended_at
            || row.started_at != state.started_at
            || row.error.is_some() != state.error.is_some()
        {
            return wrong(
                "rows",
                format!("{id} is {} and its row says {row:?}", state.status),
            );
        }
        if state.ended() && row.counts != state.counts {
            return wrong(
                "rows",
                format!(
                    "{id} ended with {:?} and its row says {:?}",
                    state.counts, row.counts
                ),
            );
        }
        Ok(())
    }

    /// True for a run with so many items that it is looked at more seldom.
    fn is_big(&self, key: &EntityKey) -> bool {
        let EntityKey::Run(id) = key else {
            return false;
        };
        self.runs
            .get(id)
            .is_some_and(|shadow| shadow.state.counts[2] > 1_000)
    }

    /// What the store holds gives the same state, by the snapshot and by the whole history.
    fn replayed(&self, key: &EntityKey, store: &MemoryStore) -> Verdict {
        let Ok(Some(loaded)) = store.load(key) else {
            return wrong("replay", format!("{key:?} is not in the store"));
        };
        let plan = match key {
            EntityKey::Run(id) => self.runs.get(id).map(|shadow| shadow.plan.clone()),
            _ => None,
        };
        let fresh = Entity::restore(key, &loaded, plan.clone())
            .map_err(|error| Failure {
                what: "replay",
                detail: format!("{key:?}: {error}"),
            })?
            .snapshot();
        let expected = match key {
            EntityKey::Run(id) => self.runs.get(id).map(|shadow| shadow.state.snapshot()),
            EntityKey::RunQueue { .. } => self.queues.get(key).map(pack),
            EntityKey::Lock { .. } => self.locks.get(key).map(pack),
        };
        if Some(&fresh) != expected.as_ref() {
            return wrong(
                "replay",
                format!("{key:?} comes out of the store as another"),
            );
        }
        if let EntityKey::Run(_) = key {
            let history = store.history(key, 1, usize::MAX).unwrap_or_default();
            let whole = kapell_store::Loaded {
                snapshot: None,
                chunks: history,
            };
            let whole = Entity::restore(key, &whole, plan).map(|entity| entity.snapshot());
            if whole.as_ref().ok() != expected.as_ref() {
                return wrong(
                    "replay",
                    format!("the history of {key:?} gives another state"),
                );
            }
        }
        Ok(())
    }

    /// Nothing is under way: what the lane holds in memory is what is durable.
    pub(crate) fn quiet(&mut self, lane: &Lane) -> Verdict {
        if self.dirty.is_empty() {
            return Ok(());
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        self.quiets += 1;
        if !self.quiets.is_multiple_of(256) {
            // Looking at thousands of items each time would take all the time there is.
            let (later, now) = dirty.into_iter().partition(|key| self.is_big(key));
            (self.dirty, dirty) = (later, now);
        }
        for (key, entity) in lane.entities() {
            if !dirty.contains(key) {
                continue;
            }
            match entity {
                Entity::Run(run) => {
                    let EntityKey::Run(id) = key else { continue };
                    let Some(shadow) = self.runs.get(id) else {
                        return wrong("live", format!("{id} is in memory and not durable"));
                    };
                    if let Some(difference) = difference(&run.state, &shadow.state) {
                        return wrong(
                            "live",
                            format!("{id} in memory is not as durable: {difference}"),
                        );
                    }
                }
                Entity::Queue(queue) => {
                    if self.queues.get(key) != Some(queue) {
                        return wrong("live", format!("{key:?} in memory is not as durable"));
                    }
                }
                Entity::Lock(_, lock) => {
                    if self.locks.get(key) != Some(lock) {
                        return wrong("live", format!("{key:?} in memory is not as durable"));
                    }
                }
            }
        }
        self.explained()
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

    /// Every run that has something to do by itself will be found.
    fn woken(&self, store: &MemoryStore) -> Verdict {
        let due = store
            .due(Time(i64::MAX), None, usize::MAX)
            .unwrap_or_default();
        let due: BTreeMap<EntityKey, Time> = due.into_iter().map(|(at, key)| (key, at)).collect();
        for (id, shadow) in &self.runs {
            let state = &shadow.state;
            let at = due.get(&EntityKey::Run(*id));
            if state.ended() {
                if let Some(at) = at {
                    return wrong("wake", format!("{id} has ended and is to be woken at {at}"));
                }
                continue;
            }
            if state.status == RunStatus::Queued {
                continue;
            }
            let ready = !state.ready.is_empty() && state.status != RunStatus::Paused;
            let busy = ready || !state.started.is_empty();
            let paused = state.status == RunStatus::Paused;
            let first = state.timers.first_of(paused).map(|(at, _, _)| at);
            match (at, busy, first) {
                (None, true, _) => {
                    return wrong("wake", format!("{id} has work and is never woken"));
                }
                (None, false, Some(timer)) => {
                    return wrong(
                        "wake",
                        format!("{id} has a timer at {timer} and is never woken"),
                    );
                }
                (Some(at), false, Some(timer)) if *at > timer => {
                    return wrong(
                        "wake",
                        format!("{id} is woken at {at}, after its timer at {timer}"),
                    );
                }
                (Some(at), true, _) if *at != Time::ZERO => {
                    return wrong("wake", format!("{id} has work and is woken only at {at}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A client is told something: it is durable.
    pub(crate) fn answered(
        &mut self,
        request: &ClientRequest,
        answer: &Answer,
        store: &MemoryStore,
    ) -> Verdict {
        match answer {
            Answer::Started(run) => {
                if !matches!(store.load(&(*run).into()), Ok(Some(_))) {
                    return wrong("durable", format!("{run} is acknowledged and not durable"));
                }
                self.acknowledged.insert(*run);
                Ok(())
            }
            Answer::View(view) => {
                let shown = (view.status, view.counts);
                match self.runs.get(&view.id) {
                    Some(shadow) if shadow.seen.contains(&shown) => Ok(()),
                    Some(_) => wrong(
                        "durable",
                        format!("{} is shown as {shown:?}, never durable", view.id),
                    ),
                    None => wrong("durable", format!("{} is shown and not durable", view.id)),
                }
            }
            Answer::Done => {
                let ClientRequest::Run {
                    run,
                    request: Request::Cancel { .. },
                } = request
                else {
                    return Ok(());
                };
                match self.runs.get(run) {
                    Some(shadow) if shadow.state.cancel.is_some() => Ok(()),
                    Some(shadow) if shadow.state.ended() || shadow.generation > 0 => Ok(()),
                    _ => wrong(
                        "durable",
                        format!("the cancel of {run} is acknowledged and not durable"),
                    ),
                }
            }
        }
    }

    /// A row goes to whoever watches.
    pub(crate) fn row_shown(&self, row: &RunRow) -> Verdict {
        let known = self
            .runs
            .get(&row.id)
            .is_some_and(|shadow| shadow.seen.iter().any(|(status, _)| *status == row.status));
        if known {
            Ok(())
        } else {
            wrong("durable", format!("{} is shown as {}", row.id, row.status))
        }
    }

    /// Any run.
    pub(crate) fn any_run(&self, rng: &mut Rng) -> Option<RunId> {
        let place = rng.place(self.runs.len());
        self.runs.keys().nth(place).copied()
    }

    /// The path of any step of a run; with `top` one of the workflow itself.
    pub(crate) fn any_step(&self, run: RunId, rng: &mut Rng, top: bool) -> Option<String> {
        let shadow = self.runs.get(&run)?;
        let scopes: Vec<u32> = shadow
            .state
            .scopes
            .keys()
            .copied()
            .filter(|scope| !top || *scope == 0)
            .collect();
        if scopes.is_empty() {
            return None;
        }
        let scope = *rng.pick(&scopes);
        let steps = &shadow.state.scopes.get(&scope)?.steps;
        if steps.is_empty() {
            return None;
        }
        let step = StepIndex::try_from(rng.place(steps.len())).ok()?;
        let count = steps[usize::from(step)]
            .foreach
            .as_ref()
            .map_or(0, |foreach| foreach.count);
        let item = if !top && count > 0 && rng.chance(500) {
            u32::try_from(rng.below(u64::from(count))).ok()?
        } else {
            Place::NO_ITEM
        };
        Some(shadow.state.path(&shadow.plan, Place { scope, step, item }))
    }

    /// What people do after all is over, so that nothing waits for them: resume and dismiss.
    pub(crate) fn care(&self) -> Vec<ClientRequest> {
        let mut requests: Vec<ClientRequest> = self
            .runs
            .iter()
            .filter(|(_, shadow)| shadow.state.status == RunStatus::Paused)
            .map(|(run, _)| ClientRequest::Run {
                run: *run,
                request: Request::Resume {
                    by: "care".to_owned(),
                },
            })
            .collect();
        for queue in self.queues.values() {
            for line in queue.lines.values() {
                requests.extend(line.blocked.map(|run| ClientRequest::Dismiss { run }));
            }
        }
        requests
    }

    /// True if no run is left.
    pub(crate) fn all_ended(&self) -> bool {
        self.runs.values().all(|shadow| shadow.state.ended())
    }

    /// Runs that have not ended, for people.
    pub(crate) fn open(&self) -> String {
        let open: Vec<String> = self
            .runs
            .iter()
            .filter(|(_, shadow)| !shadow.state.ended())
            .take(5)
            .map(|(run, shadow)| {
                let state = &shadow.state;
                let units: Vec<String> = state
                    .scopes
                    .iter()
                    .flat_map(|(number, scope)| {
                        scope.steps.iter().enumerate().filter(|(_, step)| !step.unit.status.ended()).map(
                            move |(index, step)| {
                                let items = step.foreach.as_ref().map(|foreach| {
                                    format!(
                                        " of {} good {} bad {} other {} open {} next {} again {}",
                                        foreach.count,
                                        foreach.good,
                                        foreach.bad,
                                        foreach.other,
                                        foreach.open,
                                        foreach.next,
                                        foreach.again.len()
                                    )
                                });
                                format!("{number}.{index} {}{}", step.unit.status, items.unwrap_or_default())
                            },
                        )
                    })
                    .take(12)
                    .collect();
                let why = format!(
                    "workflow {} units [{}] ready {:?} locks {:?} started {:?} todo {:?} timer {:?}",
                    state.meta.workflow,
                    units.join(", "),
                    state.ready,
                    state.locks,
                    state.started.len(),
                    state.todo,
                    state.timers.next()
                );
                stands(*run, state.status, Some(why.as_str().into()))
            })
            .collect();
        open.join("; ")
    }

    /// The end: everything is as its history says, and nothing is held or waits.
    pub(crate) fn finish(&self, store: &MemoryStore) -> Verdict {
        let keys = self
            .runs
            .keys()
            .map(|run| EntityKey::Run(*run))
            .chain(self.queues.keys().cloned())
            .chain(self.locks.keys().cloned());
        for key in keys {
            self.replayed(&key, store)?;
        }
        self.restarted(store)?;
        self.lines_empty()?;
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
            by_hand: false,
            seen: BTreeSet::new(),
            offered: BTreeMap::new(),
            lost: BTreeSet::new(),
            stopping: BTreeSet::new(),
            before: Offer::default(),
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

/// The facts of a commit, for people.
pub(crate) fn facts(commit: &Commit) -> Vec<String> {
    let mut lines = Vec::new();
    for write in &commit.entities {
        let facts: Vec<String> = match &write.key {
            EntityKey::Run(_) => event::decode_chunk(&write.chunk)
                .unwrap_or_default()
                .iter()
                .map(|event| format!("{:?}", event.fact))
                .collect(),
            EntityKey::RunQueue { .. } => run_queue::decode_chunk(&write.chunk)
                .unwrap_or_default()
                .iter()
                .map(|event| format!("{event:?}"))
                .collect(),
            EntityKey::Lock { .. } => lock::decode_chunk(&write.chunk)
                .unwrap_or_default()
                .iter()
                .map(|event| format!("{event:?}"))
                .collect(),
        };
        for fact in facts {
            lines.push(format!(
                "   {:?} {}",
                write.key,
                fact.chars().take(400).collect::<String>()
            ));
        }
    }
    lines
}

/// What differs between what is in memory and what history says; what only helps deciding (`todo`,
/// timers that are over) may differ.
fn difference(live: &State, durable: &State) -> Option<String> {
    let normal = |state: &State| {
        let mut state = state.clone();
        state.todo.clear();
        let now = state.last_at;
        let mut left = Vec::new();
        while let Some((at, place, kind)) = state.timers.due(Time(i64::MAX)) {
            state.timers.unset(place, kind);
            if at > now && kind != TimerKind::QueueTimeout {
                left.push((at, place, kind));
            }
        }
        for (at, place, kind) in left {
            state.timers.set(place, kind, at);
        }
        state
    };
    if live.snapshot() == durable.snapshot() {
        return None;
    }
    let (live, durable) = (normal(live), normal(durable));
    if live.snapshot() == durable.snapshot() {
        return None;
    }
    let (live, durable) = (format!("{live:?}"), format!("{durable:?}"));
    let place = live
        .bytes()
        .zip(durable.bytes())
        .position(|(a, b)| a != b)
        .unwrap_or(0);
    let cut = |text: &str| {
        text.chars()
            .skip(place.saturating_sub(200))
            .take(400)
            .collect::<String>()
    };
    Some(format!(
        "memory …{}… history …{}…",
        cut(&live),
        cut(&durable)
    ))
}

fn pack<T: serde::Serialize>(state: &T) -> Vec<u8> {
    postcard::to_stdvec(state).unwrap_or_default()
}

impl Checks {
    fn queue_written(&mut self, key: &EntityKey, chunk: &[u8]) -> Verdict {
        let events = run_queue::decode_chunk(chunk).map_err(|error| Failure {
            what: "history",
            detail: format!("{key:?}: {error}"),
        })?;
        for event in &events {
            let queue = self.queues.entry(key.clone()).or_default();
            let order = self.orders.entry(key.clone()).or_default();
            order.before(queue, event)?;
            queue.apply(event);
        }
        Ok(())
    }

    fn lock_written(&mut self, key: &EntityKey, chunk: &[u8]) -> Verdict {
        let events = lock::decode_chunk(chunk).map_err(|error| Failure {
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
