//! Entities in memory by their keys.
//!
//! They are many, come and go all the time, and are looked up several times for each input: they are hashed. Ids
//! of runs are made here; names of users are hashed with a seed that nobody knows outside of the process, so that
//! they cannot be chosen to collide. The hash has no other chance in it: whoever walks over entities meets them in
//! the same order in each process that has the same seed and did the same.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::FixedState;
use kapell_model::{EntityKey, RunId, Time};

use super::{Slot, commit};
use crate::entity::Entity;
use crate::perform::Size;
use crate::rows::Shown;

/// Bytes of chunks after which a snapshot is written.
const SNAPSHOT_BYTES: usize = 4 << 20;

/// Chunks of an entity that is no run after which a snapshot may replace them: once they are as big as
/// the last one, so that a big entity is not written anew for little that changes.
const FORGET_CHUNKS: usize = 64;

/// Bytes that a chunk counts beside its own: to read many small ones takes time too.
const CHUNK_OVERHEAD: usize = 1 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Slots {
    runs: HashMap<RunId, Box<(EntityKey, Slot)>, FixedState>,
    others: HashMap<EntityKey, Box<Slot>, FixedState>,
}

impl Slots {
    /// None yet, with the seed of a process.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            runs: HashMap::default(),
            others: HashMap::with_hasher(FixedState::with_seed(seed)),
        }
    }

    /// That of a key.
    pub(super) fn get(&self, key: &EntityKey) -> Option<&Slot> {
        match key {
            EntityKey::Run(id) => self.runs.get(id).map(|run| &run.1),
            _ => self.others.get(key).map(|slot| &**slot),
        }
    }

    /// That of a key, to be changed.
    pub(super) fn get_mut(&mut self, key: &EntityKey) -> Option<&mut Slot> {
        match key {
            EntityKey::Run(id) => self.runs.get_mut(id).map(|run| &mut run.1),
            _ => self.others.get_mut(key).map(|slot| &mut **slot),
        }
    }

    /// True if it is in memory.
    pub(super) fn contains_key(&self, key: &EntityKey) -> bool {
        self.get(key).is_some()
    }

    /// It is in memory from now on.
    pub(super) fn insert(&mut self, key: EntityKey, slot: Slot) {
        if let EntityKey::Run(id) = key {
            self.runs.insert(id, Box::new((key, slot)));
        } else {
            self.others.insert(key, Box::new(slot));
        }
    }

    /// It leaves memory.
    pub(super) fn remove(&mut self, key: &EntityKey) -> Option<Slot> {
        match key {
            EntityKey::Run(id) => self.runs.remove(id).map(|run| run.1),
            _ => self.others.remove(key).map(|slot| *slot),
        }
    }

    /// All leave memory.
    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.others.clear();
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.runs.len() + self.others.len()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&EntityKey, &Slot)> {
        let runs = self.runs.values().map(|run| (&run.0, &run.1));
        runs.chain(self.others.iter().map(|(key, slot)| (key, &**slot)))
    }

    /// All of them, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&EntityKey, &mut Slot)> {
        let runs = self.runs.values_mut();
        let runs = runs.map(|run| (&run.0, &mut run.1));
        runs.chain(self.others.iter_mut().map(|(key, slot)| (key, &mut **slot)))
    }
}

impl Slot {
    /// True if it is time to write the whole of it.
    pub(super) fn wants_snapshot(&self) -> bool {
        if !self.entity.forgets() {
            return self.size.bytes > SNAPSHOT_BYTES;
        }
        let Size {
            snapshot,
            chunks,
            bytes,
        } = self.size;
        chunks >= FORGET_CHUNKS && bytes + chunks * CHUNK_OVERHEAD >= snapshot
    }

    /// As it was loaded, or made.
    pub(super) fn new(entity: Entity, seq: u64, shown: Option<Shown>, now: Time) -> Self {
        let told = match &entity {
            Entity::Run(run) => commit::ends(run),
            _ => [0; 2],
        };
        Self {
            size: Size::default(),
            told,
            // As loaded it shows what the commit before wrote.
            document: entity.document().filter(|_| seq > 0),
            entity,
            seq,
            shown,
            timer: None,
            waiting: VecDeque::new(),
            asked: Vec::new(),
            touched_at: now,
            stood_before: false,
        }
    }
}
