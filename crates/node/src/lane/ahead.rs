//! What a schedule needs for its next start is read before that is due: many that are due at once would
//! wait for each other's reads otherwise, since a start is part of the commit that says it was made.

use std::collections::{BTreeMap, BTreeSet};

use kapell_model::{EntityKey, RunId, Time};

use super::{Entity, HORIZON_MICROS, Lane, Output, ToEntity, VersionKey};
use crate::perform::Version;

/// Versions in memory at most.
const VERSIONS: usize = 20_000;

/// Runs at most that are known not to be there.
const ABSENT: usize = 100_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Versions in memory, and when each was used last.
    versions: BTreeMap<VersionKey, (Version, Time)>,
    /// Runs to come that were looked for and are not there: as long as their shard is held, only this
    /// lane could make them.
    absent: BTreeSet<RunId>,
}

impl Ahead {
    /// A version, if it is in memory.
    pub(super) fn version(&mut self, key: &VersionKey, now: Time) -> Option<Version> {
        let (version, used_at) = self.versions.get_mut(key)?;
        *used_at = now;
        Some(version.clone())
    }

    /// A version was read.
    pub(super) fn keep(&mut self, key: VersionKey, version: Version, now: Time) {
        if self.versions.len() >= VERSIONS {
            self.versions.clear();
        }
        self.versions.insert(key, (version, now));
    }

    /// Other versions may be the active ones by now.
    pub(super) fn versions_changed(&mut self) {
        self.versions.retain(|(_, _, number), _| number.is_some());
    }

    /// Versions that nobody has used since leave memory.
    pub(super) fn forget_unused(&mut self, since: Time) {
        self.versions.retain(|_, (_, used_at)| *used_at >= since);
    }

    /// A run was looked for and is not there.
    pub(super) fn is_absent(&mut self, run: RunId) {
        if self.absent.len() >= ABSENT {
            self.absent.clear();
        }
        self.absent.insert(run);
    }

    /// True, once, if a run is surely not there.
    pub(super) fn take_absent(&mut self, run: RunId) -> bool {
        self.absent.remove(&run)
    }

    /// Shards are no longer held: others may make what was not there.
    pub(super) fn reset(&mut self) {
        self.absent.clear();
    }
}

impl Lane {
    /// Reads what the next start of a schedule needs, if that is near.
    pub(super) fn read_ahead(&mut self, key: &EntityKey) {
        let EntityKey::Trigger {
            namespace,
            workflow,
            ..
        } = key
        else {
            return;
        };
        let Some(Entity::Trigger(trigger)) = self.slots.get(key).map(|slot| &slot.entity) else {
            return;
        };
        let horizon = Time(self.now.0.saturating_add(HORIZON_MICROS));
        let Some(coming) = trigger.coming(key).filter(|coming| coming.at <= horizon) else {
            return;
        };
        let queue = EntityKey::RunQueue {
            namespace: namespace.clone(),
            workflow: workflow.clone(),
            key: "".into(),
        };
        if !self.slots.contains_key(&queue) && !self.loading.contains_key(&queue) {
            self.submit(queue, ToEntity::Wake, false);
        }
        let version: VersionKey = (namespace.clone(), workflow.clone(), Some(coming.version));
        let known = self.ahead.version(&version, self.now).is_some();
        if !known && !self.making.contains_key(&version) {
            self.making.insert(version.clone(), Vec::new());
            self.out.push(Output::LoadVersion(version));
        }
        let run = EntityKey::Run(coming.run);
        let known = self.slots.contains_key(&run) || self.ahead.absent.contains(&coming.run);
        if !known && !self.loading.contains_key(&run) {
            self.loading
                .insert(run.clone(), std::collections::VecDeque::new());
            self.out.push(Output::Load(run));
        }
    }
}
