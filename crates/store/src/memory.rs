//! The plainest store: maps in memory. The simulator drives it, tests compare the others with it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use kapell_model::{EntityKey, NodeId, RunId, RunStatus, Shard, ShardSet, Time};
use parking_lot::Mutex;

use crate::check::{check_commit, check_documents, check_shards};
use crate::refs::{self, Hash};
use crate::suffix::{NEWEST_SEARCHED, Suffix};
use crate::{
    Commit, Document, Lease, Loaded, Mail, NodeRow, Order, Result, RunFilter, RunPlace, RunRow,
    RunsFound, Store, VersionRow, time_in,
};

mod cluster;
mod commit;
#[cfg(test)]
mod tests;

/// A store that lives as long as its last clone. Clones share what is stored; [`MemoryStore::fork`]
/// does not.
#[derive(Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the clock by which leases of nodes are decided. It stands still otherwise.
    pub fn set_now(&self, now: Time) {
        self.state.lock().now = now;
    }

    /// A store of its own with everything that is stored now.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            state: Arc::new(Mutex::new(self.state.lock().clone())),
        }
    }
}

type Name = (Arc<str>, Arc<str>);

#[derive(Clone, Default)]
struct State {
    now: Time,
    nodes: BTreeMap<NodeId, NodeRow>,
    owners: BTreeMap<Shard, NodeId>,
    shards: BTreeMap<Shard, Lease>,
    entities: BTreeMap<EntityKey, Entity>,
    wakes: BTreeSet<(Time, EntityKey)>,
    runs: BTreeMap<RunId, RunRow>,
    made: BTreeSet<(Time, RunId)>,
    ended: BTreeSet<(Time, RunId)>,
    counts: BTreeMap<(Name, RunStatus), u64>,
    workflows: BTreeMap<Name, Vec<VersionRow>>,
    /// Versions that were activated.
    activated: BTreeMap<Name, u32>,
    /// Versions that were registered last, and not by a commit.
    registered: BTreeMap<Name, u32>,
    /// By the shards it is for and from, and its number.
    mail: BTreeMap<(Shard, Shard, u64), (EntityKey, Vec<u8>)>,
    documents: BTreeMap<Vec<u8>, String>,
    /// Who refers to which blob; none are the versions.
    referred: BTreeSet<(Hash, Option<EntityKey>)>,
}

#[derive(Clone, Default)]
struct Entity {
    snapshot: Option<(u64, Arc<[u8]>)>,
    chunks: BTreeMap<u64, Arc<[u8]>>,
    pages: BTreeMap<u32, Arc<[u8]>>,
    wake_at: Option<Time>,
    refers: BTreeSet<Hash>,
}

impl Entity {
    /// All that it keeps.
    fn written(&self) -> impl Iterator<Item = &[u8]> {
        let snapshot = self.snapshot.iter().map(|(_, snapshot)| snapshot);
        snapshot
            .chain(self.chunks.values())
            .chain(self.pages.values())
            .map(|bytes| &**bytes)
    }

    fn is_nothing(&self) -> bool {
        self.snapshot.is_none()
            && self.chunks.is_empty()
            && self.pages.is_empty()
            && self.wake_at.is_none()
            && self.refers.is_empty()
    }
}

impl State {
    /// Gives the shard a greater epoch.
    fn take(&mut self, shard: Shard) -> Lease {
        let lease = self.shards.entry(shard).or_insert(Lease {
            shard,
            epoch: 0,
            seq: 0,
        });
        lease.epoch += 1;
        *lease
    }

    /// True if a node may take the shard.
    fn is_free(&self, shard: Shard, node: NodeId, dead: &[NodeId]) -> bool {
        let Some(owner) = self.owners.get(&shard).filter(|owner| **owner != node) else {
            return true;
        };
        let row = self.nodes.get(owner);
        row.is_none_or(|row| dead.contains(owner) && row.expires_at <= self.now)
    }
}

impl Store for MemoryStore {
    fn acquire(&self, shards: &[Shard]) -> Result<Vec<Lease>> {
        check_shards(shards)?;
        let mut state = self.state.lock();
        Ok(shards.iter().map(|&shard| state.take(shard)).collect())
    }

    fn commit(&self, commit: &Commit) -> Result<()> {
        check_commit(commit)?;
        let mut state = self.state.lock();
        state.check_fence(commit)?;
        state.check_places(commit)?;
        state.check_versions(commit)?;
        for held in &commit.shards {
            let lease = Lease {
                seq: held.seq + 1,
                ..*held
            };
            state.shards.insert(held.shard, lease);
        }
        for write in &commit.entities {
            state.write_entity(write);
        }
        for row in &commit.runs {
            state.write_run(row);
        }
        for mail in &commit.mail {
            let place = (mail.to.shard(), mail.from, mail.number);
            state
                .mail
                .insert(place, (mail.to.clone(), mail.message.clone()));
        }
        for mark in &commit.marks {
            let (first, last) = ((mark.to, mark.from, 0), (mark.to, mark.from, mark.number));
            let over: Vec<_> = state.mail.range(first..=last).map(|(at, _)| *at).collect();
            for place in over {
                state.mail.remove(&place);
            }
        }
        state.write_documents(&commit.documents);
        for row in &commit.versions {
            state.write_version(row.clone());
        }
        for (namespace, workflow, version) in &commit.activated {
            let name = (namespace.clone(), workflow.clone());
            state.activated.insert(name, *version);
        }
        Ok(())
    }

    fn load(&self, key: &EntityKey) -> Result<Option<Loaded>> {
        let state = self.state.lock();
        let Some(entity) = state.entities.get(key) else {
            return Ok(None);
        };
        if entity.snapshot.is_none() && entity.chunks.is_empty() {
            return Ok(None);
        }
        let first = entity.snapshot.as_ref().map_or(0, |(seq, _)| seq + 1);
        Ok(Some(Loaded {
            snapshot: entity
                .snapshot
                .as_ref()
                .map(|(seq, bytes)| (*seq, bytes.to_vec())),
            chunks: entity
                .chunks
                .range(first..)
                .map(|(seq, chunk)| (*seq, chunk.to_vec()))
                .collect(),
        }))
    }

    fn due(
        &self,
        now: Time,
        after: Option<&(Time, EntityKey)>,
        limit: usize,
    ) -> Result<Vec<(Time, EntityKey)>> {
        let state = self.state.lock();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let due = state
            .wakes
            .range((from, Bound::Unbounded))
            .take_while(|(at, _)| *at <= now);
        Ok(due.take(limit).cloned().collect())
    }

    fn next_wake(&self, now: Time) -> Result<Option<Time>> {
        let state = self.state.lock();
        // The smallest key at the next instant: nothing of `now` is after it.
        let from = (Time(now.0.saturating_add(1)), EntityKey::Run(RunId(0)));
        let next = state.wakes.range(from..).map(|(at, _)| *at).next();
        Ok(next.filter(|at| *at > now))
    }

    fn mail(&self, shards: &ShardSet, limit: usize) -> Result<Vec<Mail>> {
        let state = self.state.lock();
        let waits = state
            .mail
            .iter()
            .filter(|((to, _, _), _)| shards.contains(*to))
            .map(|((_, from, number), (to, message))| Mail {
                from: *from,
                number: *number,
                to: to.clone(),
                message: message.clone(),
            });
        Ok(waits.take(limit).collect())
    }

    fn history(&self, key: &EntityKey, from: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>)>> {
        let state = self.state.lock();
        let chunks = state
            .entities
            .get(key)
            .into_iter()
            .flat_map(|entity| entity.chunks.range(from..));
        Ok(chunks
            .take(limit)
            .map(|(seq, chunk)| (*seq, chunk.to_vec()))
            .collect())
    }

    fn page(&self, key: &EntityKey, page: u32) -> Result<Option<Vec<u8>>> {
        let state = self.state.lock();
        Ok(state
            .entities
            .get(key)
            .and_then(|entity| entity.pages.get(&page))
            .map(|page| page.to_vec()))
    }

    fn run(&self, id: RunId) -> Result<Option<RunRow>> {
        Ok(self.state.lock().runs.get(&id).cloned())
    }

    fn find_runs(&self, suffix: &str, limit: usize) -> Result<Vec<RunId>> {
        let state = self.state.lock();
        match Suffix::parse(suffix) {
            None => Ok(Vec::new()),
            Some(Suffix::Whole(id)) => Ok(state
                .runs
                .contains_key(&id)
                .then_some(id)
                .into_iter()
                .take(limit)
                .collect()),
            Some(suffix) => {
                let newest = state.made.iter().rev().take(NEWEST_SEARCHED);
                Ok(newest
                    .map(|(_, id)| *id)
                    .filter(|id| suffix.matches(*id))
                    .take(limit)
                    .collect())
            }
        }
    }

    fn search_runs(&self, filter: &RunFilter, limit: usize) -> Result<RunsFound> {
        let state = self.state.lock();
        let before = filter.before.map(|place| {
            let row = state.runs.get(&place.run).map(|row| row.created_at);
            let made = place.created_at.or(row);
            (made.unwrap_or_else(|| time_in(place.run)), place.run)
        });
        let made = state
            .made
            .range(..before.unwrap_or((Time(i64::MAX), RunId(u128::MAX))));
        let since = filter.since.unwrap_or(Time(i64::MIN));
        let made = made.rev().take_while(|(at, _)| *at >= since);
        let rows = made.filter_map(|(_, id)| state.runs.get(id));
        let wanted = rows.filter(|row| filter.matches(row));
        let rows: Vec<RunRow> = wanted.take(limit).cloned().collect();
        let next = rows.last().filter(|_| rows.len() == limit);
        Ok(RunsFound {
            next: next.map(RunPlace::of),
            rows,
        })
    }

    fn run_counts(&self, namespace: &str) -> Result<Vec<(Arc<str>, RunStatus, u64)>> {
        let state = self.state.lock();
        let first: Arc<str> = Arc::from(namespace);
        let from = ((first, Arc::from("")), RunStatus::Queued);
        let counts = state
            .counts
            .range(from..)
            .take_while(|(((of, _), _), _)| **of == *namespace);
        Ok(counts
            .map(|(((_, workflow), status), count)| (workflow.clone(), *status, *count))
            .collect())
    }

    fn register(&self, row: &VersionRow) -> Result<u32> {
        let mut state = self.state.lock();
        let versions = state
            .workflows
            .entry((row.namespace.clone(), row.workflow.clone()))
            .or_default();
        if let Some(known) = versions.iter().find(|known| known.hash == row.hash) {
            return Ok(known.version);
        }
        let version = versions.last().map_or(1, |last| last.version + 1);
        state.write_version(VersionRow {
            version,
            ..row.clone()
        });
        let name = (row.namespace.clone(), row.workflow.clone());
        state.registered.insert(name, version);
        Ok(version)
    }

    fn version_numbers(
        &self,
        namespace: &str,
        workflow: &str,
        hash: &str,
    ) -> Result<(Option<u32>, u32)> {
        let state = self.state.lock();
        let name = (Arc::from(namespace), Arc::from(workflow));
        let versions = || state.workflows.get(&name).into_iter().flatten();
        let same = versions().find(|row| *row.hash == *hash);
        let newest = versions().last().map_or(0, |row| row.version);
        Ok((same.map(|row| row.version), newest))
    }

    fn versions(
        &self,
        namespace: &str,
        workflow: &str,
        before: Option<u32>,
        limit: usize,
    ) -> Result<Vec<VersionRow>> {
        let state = self.state.lock();
        let name = (Arc::from(namespace), Arc::from(workflow));
        let versions = state.workflows.get(&name).into_iter().flatten().rev();
        let wanted = versions.filter(|row| before.is_none_or(|before| row.version < before));
        Ok(wanted.take(limit).cloned().collect())
    }

    fn version(
        &self,
        namespace: &str,
        workflow: &str,
        version: Option<u32>,
    ) -> Result<Option<VersionRow>> {
        let state = self.state.lock();
        let name = (Arc::from(namespace), Arc::from(workflow));
        let Some(versions) = state.workflows.get(&name) else {
            return Ok(None);
        };
        let number = version.unwrap_or_else(|| state.active(&name));
        Ok(versions.iter().find(|row| row.version == number).cloned())
    }

    fn list_workflows(
        &self,
        namespace: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(Arc<str>, u32)>> {
        let state = self.state.lock();
        let from = Bound::Excluded((Arc::from(namespace), Arc::from(after)));
        let names = state.workflows.range((from, Bound::Unbounded));
        let names = names.take_while(|((of, _), _)| **of == *namespace);
        let active = names
            .filter(|(_, versions)| !versions.is_empty())
            .map(|(name, _)| (name.1.clone(), state.active(name)));
        Ok(active.take(limit).collect())
    }

    fn expired_runs(
        &self,
        workflow: Option<(&str, &str)>,
        before: Time,
        limit: usize,
    ) -> Result<Vec<RunId>> {
        let state = self.state.lock();
        let ended = state.ended.range(..(before, RunId(0))).map(|(_, id)| *id);
        let wanted = ended.filter(|id| {
            workflow.is_none_or(|(namespace, name)| {
                state
                    .runs
                    .get(id)
                    .is_some_and(|row| *row.namespace == *namespace && *row.workflow == *name)
            })
        });
        Ok(wanted.take(limit).collect())
    }

    fn delete_runs(&self, ids: &[RunId]) -> Result<u64> {
        let mut state = self.state.lock();
        let mut deleted = 0;
        for id in ids {
            if state.runs.get(id).is_some_and(|row| row.status.ended()) {
                state.forget_run_row(*id);
                let key = EntityKey::Run(*id);
                if let Some(entity) = state.entities.remove(&key) {
                    if let Some(at) = entity.wake_at {
                        state.wakes.remove(&(at, key.clone()));
                    }
                    state.forget_refs(&key, entity.refers);
                }
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    fn blobs_of(&self, key: &EntityKey, after: &str, limit: usize) -> Result<Vec<Arc<str>>> {
        let state = self.state.lock();
        let after = refs::parse(after.as_bytes()).map_or(Bound::Unbounded, Bound::Excluded);
        let refers = state.entities.get(key).into_iter();
        Ok(refers
            .flat_map(|entity| entity.refers.range((after, Bound::Unbounded)))
            .take(limit)
            .map(refs::text)
            .collect())
    }

    fn blobs_referred(&self, hashes: &[Arc<str>]) -> Result<Vec<bool>> {
        let hashes = refs::parse_all(hashes)?;
        let state = self.state.lock();
        let referred = hashes.into_iter().map(|hash| {
            let first = state.referred.range((hash, None)..).next();
            first.is_some_and(|(found, _)| *found == hash)
        });
        Ok(referred.collect())
    }

    fn documents(
        &self,
        prefix: &[u8],
        beyond: Option<&[u8]>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, String)>> {
        let state = self.state.lock();
        let all = state.documents.range(prefix.to_vec()..);
        let all = all.take_while(|(key, _)| key.starts_with(prefix));
        let found = |(key, body): (&Vec<u8>, &String)| (key.clone(), body.clone());
        let mut all: Vec<_> = all.map(found).collect();
        if order == Order::Backward {
            all.reverse();
        }
        let wanted = all.into_iter().filter(|(key, _)| match order {
            Order::Forward => beyond.is_none_or(|beyond| key.as_slice() > beyond),
            Order::Backward => beyond.is_none_or(|beyond| key.as_slice() < beyond),
        });
        Ok(wanted.take(limit).collect())
    }

    fn put_documents(&self, documents: &[Document]) -> Result<()> {
        check_documents(documents)?;
        self.state.lock().write_documents(documents);
        Ok(())
    }

    fn tidy(&self) -> Result<()> {
        Ok(())
    }
}

fn count_of(row: &RunRow) -> (Name, RunStatus) {
    ((row.namespace.clone(), row.workflow.clone()), row.status)
}
