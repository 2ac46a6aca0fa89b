//! What a commit changes.

use std::collections::{BTreeMap, BTreeSet};

use kapell_model::{EntityKey, RunId, Time};

use super::{Name, State, count_of};
use crate::check::{drops_entity, version_taken};
use crate::refs::{Hash, hashes_in};
use crate::{Commit, Document, EntityWrite, Error, Result, RunRow, VersionRow};

impl State {
    pub(super) fn check_fence(&self, commit: &Commit) -> Result<()> {
        match commit
            .shards
            .iter()
            .find(|held| self.shards.get(&held.shard) != Some(held))
        {
            Some(stale) => Err(Error::Conflict(stale.shard)),
            None => Ok(()),
        }
    }

    pub(super) fn check_places(&self, commit: &Commit) -> Result<()> {
        for write in &commit.entities {
            let Some(entity) = self.entities.get(&write.key) else {
                continue;
            };
            let keeps_chunk = !write.chunk.is_empty() && !write.forget;
            let page_taken = write
                .pages
                .iter()
                .any(|(number, _)| entity.pages.contains_key(number));
            if (keeps_chunk && entity.chunks.contains_key(&write.seq)) || page_taken {
                return Err(Error::Invalid(format!(
                    "the place is taken: {:?} at {}",
                    write.key, write.seq
                )));
            }
        }
        Ok(())
    }

    pub(super) fn check_versions(&self, commit: &Commit) -> Result<()> {
        let mut new: BTreeMap<Name, Vec<&VersionRow>> = BTreeMap::new();
        for row in &commit.versions {
            let name = (row.namespace.clone(), row.workflow.clone());
            let stored = self.workflows.get(&name);
            let new = new
                .entry(name)
                .or_insert_with(|| stored.into_iter().flatten().collect());
            let next = new.last().map_or(1, |last| last.version + 1);
            if row.version != next || new.iter().any(|known| known.hash == row.hash) {
                return Err(version_taken(row));
            }
            new.push(row);
        }
        Ok(())
    }

    pub(super) fn write_version(&mut self, row: VersionRow) {
        let bundle = row.bundle.as_deref().unwrap_or_default();
        let refers = hashes_in(bundle.as_bytes());
        self.referred
            .extend(refers.into_iter().map(|hash| (hash, None)));
        let name = (row.namespace.clone(), row.workflow.clone());
        self.workflows.entry(name).or_default().push(row);
    }

    /// The active version of a workflow; 0 is none.
    pub(super) fn active(&self, name: &Name) -> u32 {
        let active = self.activated.get(name).or(self.registered.get(name));
        active.copied().unwrap_or(0)
    }

    pub(super) fn write_entity(&mut self, write: &EntityWrite) {
        let entity = self.entities.entry(write.key.clone()).or_default();
        let mut before = BTreeSet::new();
        entity.refers.extend(hashes_in(&write.chunk));
        if !write.chunk.is_empty() {
            entity
                .chunks
                .insert(write.seq, write.chunk.as_slice().into());
        }
        if let Some(snapshot) = &write.snapshot {
            entity.snapshot = Some((write.seq, snapshot.as_slice().into()));
        }
        if write.forget {
            entity.chunks = entity.chunks.split_off(&(write.seq + 1));
        }
        for (number, page) in &write.pages {
            entity.pages.insert(*number, page.as_slice().into());
        }
        let wake_at = write.wake_at.map(|at| at.max(Time::ZERO));
        let earlier = std::mem::replace(&mut entity.wake_at, wake_at);
        if drops_entity(write) {
            before = std::mem::take(entity).refers;
        } else if write.forget {
            let refers = entity.written().flat_map(hashes_in).collect();
            before = std::mem::replace(&mut entity.refers, refers);
        }
        let refers = entity.refers.clone();
        if entity.is_nothing() {
            self.entities.remove(&write.key);
        }
        self.forget_refs(&write.key, before);
        let refers = refers.into_iter();
        self.referred
            .extend(refers.map(|hash| (hash, Some(write.key.clone()))));
        if earlier != wake_at {
            if let Some(at) = earlier {
                self.wakes.remove(&(at, write.key.clone()));
            }
            if let Some(at) = wake_at {
                self.wakes.insert((at, write.key.clone()));
            }
        }
    }

    pub(super) fn write_documents(&mut self, documents: &[Document]) {
        for (key, body) in documents {
            match body {
                Some(body) => self.documents.insert(key.clone(), body.clone()),
                None => self.documents.remove(key),
            };
        }
    }

    pub(super) fn write_run(&mut self, row: &RunRow) {
        self.forget_run_row(row.id);
        *self.counts.entry(count_of(row)).or_default() += 1;
        if let Some(at) = row.ended_at.filter(|_| row.status.ended()) {
            self.ended.insert((at, row.id));
        }
        self.made.insert((row.created_at, row.id));
        self.runs.insert(row.id, row.clone());
    }

    pub(super) fn forget_refs(&mut self, key: &EntityKey, refers: BTreeSet<Hash>) {
        for hash in refers {
            self.referred.remove(&(hash, Some(key.clone())));
        }
    }

    pub(super) fn forget_run_row(&mut self, id: RunId) {
        let Some(row) = self.runs.remove(&id) else {
            return;
        };
        self.made.remove(&(row.created_at, id));
        if let Some(at) = row.ended_at {
            self.ended.remove(&(at, id));
        }
        let key = count_of(&row);
        if let Some(count) = self.counts.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&key);
            }
        }
    }
}
