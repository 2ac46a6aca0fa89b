//! Memory, store and history say the same, and whoever has work is found by `wake_at`.

use std::collections::{BTreeMap, BTreeSet};

use kapell_engine::run::state::{State, TimerKind};
use kapell_model::{EntityKey, RunId, RunStatus, Shard, Time};
use kapell_node::{Entity, Lane};
use kapell_store::{MemoryStore, Store};

use super::{Checks, Verdict, wrong};
use crate::world::Failure;

impl Checks {
    /// Lists and histories say the same of a run.
    pub(super) fn row_right(&self, id: RunId, store: &MemoryStore) -> Verdict {
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
    pub(super) fn is_big(&self, key: &EntityKey) -> bool {
        let EntityKey::Run(id) = key else {
            return false;
        };
        self.runs
            .get(id)
            .is_some_and(|shadow| shadow.state.counts[2] > 1_000)
    }

    /// What the store holds gives the same state, by the snapshot and by the whole history.
    pub(super) fn replayed(&self, key: &EntityKey, store: &MemoryStore) -> Verdict {
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
            EntityKey::RunQueue { .. } => self
                .queues
                .get(key)
                .map(|queue| Entity::Queue(Box::new(queue.clone())).snapshot()),
            EntityKey::Lock { .. } => self
                .locks
                .get(key)
                .map(|lock| Entity::Lock(Box::new(lock.clone())).snapshot()),
            EntityKey::Trigger { .. }
            | EntityKey::Topic { .. }
            | EntityKey::Backfill { .. }
            | EntityKey::Channel { .. } => self.smalls.get(key).map(Entity::snapshot),
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
        self.as_durable(lane, &|_| true)?;
        self.settled()
    }

    /// The same of one of several lanes, which owns these shards.
    pub(crate) fn quiet_of(&mut self, lane: &Lane, owns: &dyn Fn(Shard) -> bool) -> Verdict {
        if self.dirty.is_empty() {
            return Ok(());
        }
        self.as_durable(lane, owns)
    }

    /// No message between entities is under way: whoever is to know of another does.
    pub(crate) fn settled(&mut self) -> Verdict {
        self.sent_settled()?;
        self.nothing_owed()?;
        self.waits_for_nothing_there()?;
        self.explained()
    }

    fn as_durable(&mut self, lane: &Lane, owns: &dyn Fn(Shard) -> bool) -> Verdict {
        let dirty = std::mem::take(&mut self.dirty);
        let (mut dirty, of_others): (_, BTreeSet<EntityKey>) =
            dirty.into_iter().partition(|key| owns(key.shard()));
        self.quiets += 1;
        if !self.quiets.is_multiple_of(256) {
            // Looking at thousands of items each time would take all the time there is.
            let (later, now) = std::mem::take(&mut dirty)
                .into_iter()
                .partition(|key| self.is_big(key));
            (self.dirty, dirty) = (later, now);
        }
        self.dirty.extend(of_others);
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
                Entity::Channel(channel) => {
                    let durable = self.smalls.get(key);
                    if !matches!(durable, Some(Entity::Channel(durable)) if durable == channel) {
                        return wrong("live", format!("{key:?} in memory is not as durable"));
                    }
                }
                Entity::Queue(queue) => {
                    if self.queues.get(key) != Some(queue) {
                        return wrong("live", format!("{key:?} in memory is not as durable"));
                    }
                }
                Entity::Lock(lock) => {
                    if self.locks.get(key) != Some(lock) {
                        return wrong("live", format!("{key:?} in memory is not as durable"));
                    }
                }
                small => {
                    let durable = self.smalls.get(key).map(Entity::snapshot);
                    if durable != Some(small.snapshot()) {
                        return wrong("live", format!("{key:?} in memory is not as durable"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Every run that has something to do by itself will be found.
    pub(super) fn woken(&self, store: &MemoryStore) -> Verdict {
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
