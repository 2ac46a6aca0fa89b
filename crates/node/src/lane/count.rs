//! Which runs of a workflow are active, where they went past its run queue.
//!
//! Where every start goes at once, the queue hears nothing of it: many thousand a second must not go
//! through one entity. When a strategy comes by which runs may have to wait for others, or such a run, the
//! queue is told of all that are active first; what it is given meanwhile waits. From then on every start
//! has a place there.
//!
//! Rows say which runs were active when they were read. What is in memory is newer than any row, and so
//! is what happens until the answer comes: both are noted, and go before the rows. Runs that only rows
//! speak of are read into memory, so that their shards are held: no commit of an owner before ends one
//! of them unheard.

use std::collections::{BTreeMap, BTreeSet};

use kapell_engine::{Message, Request, Run};
use kapell_model::{EntityKey, RunId, RunStatus};

use super::{Lane, Output, Slot, ToEntity};
use crate::entity::Entity;

/// What a run queue waits to hear.
#[derive(Debug, Default)]
pub(super) struct Counting {
    /// Runs, and whether they are active and went past it.
    known: BTreeMap<RunId, bool>,
    /// Runs that are read into memory.
    missing: BTreeSet<RunId>,
}

/// True if a run is active and went past its queue.
fn is_past(run: &Run) -> bool {
    let state = &run.state;
    let active = !state.ended() && state.status != RunStatus::Queued;
    active && state.meta.queue.is_none()
}

impl Lane {
    /// True if a run queue must hear which runs are active before it takes this.
    pub(super) fn must_count(&self, queue: &EntityKey, input: &ToEntity) -> bool {
        match input {
            ToEntity::Message(message) => self.counts_before(queue, message),
            ToEntity::Then(run, input) => self.retry_must_count(queue, run, input),
            ToEntity::Ask(_, ask) => match self.slots.get(queue).map(|slot| &slot.entity) {
                Some(Entity::Queue(queue)) => queue.must_count_for(ask),
                _ => false,
            },
            _ => false,
        }
    }

    /// The same of the retry of a run, which its queue may refuse.
    pub(super) fn retry_must_count(
        &self,
        queue: &EntityKey,
        run: &EntityKey,
        input: &ToEntity,
    ) -> bool {
        let ToEntity::Request(_, Request::Retry { .. } | Request::Restart { .. }) = input else {
            return false;
        };
        match self.slots.get(run).map(|slot| &slot.entity) {
            Some(Entity::Run(run)) => {
                let reenters = Message::Reenter(Box::new(run.queue_entry()));
                self.counts_before(queue, &reenters)
            }
            _ => false,
        }
    }

    fn counts_before(&self, queue: &EntityKey, message: &Message) -> bool {
        match self.slots.get(queue).map(|slot| &slot.entity) {
            Some(Entity::Queue(queue)) => queue.must_count(message),
            _ => false,
        }
    }

    /// Asks which runs of a queue's workflow are active. The input waits for the answer.
    pub(super) fn count(&mut self, key: &EntityKey, input: ToEntity, holds: bool) {
        let EntityKey::RunQueue {
            namespace,
            workflow,
            ..
        } = key
        else {
            return;
        };
        let runs = self
            .slots
            .iter()
            .filter_map(|(_, slot)| match &slot.entity {
                Entity::Run(run) => Some(run),
                _ => None,
            });
        let known: BTreeMap<RunId, bool> = runs
            .filter(|run| {
                let meta = &run.state.meta;
                meta.workflow == *workflow && meta.namespace == *namespace
            })
            .map(|run| (run.state.meta.id, is_past(run)))
            .collect();
        if let Some(slot) = self.slots.get_mut(key) {
            slot.waiting.push_back((input, holds));
            self.holds += usize::from(holds);
            let counting = Counting {
                known,
                ..Counting::default()
            };
            self.counting.insert(key.clone(), counting);
            self.out.push(Output::FindActive(key.clone()));
        }
    }

    /// A run that goes past its queue is made.
    pub(super) fn goes_past(&mut self, queue: &EntityKey, run: RunId) {
        if let Some(counting) = self.counting.get_mut(queue) {
            counting.known.insert(run, true);
        }
    }

    /// True if a run has ended of which its queue has never heard, and need not hear.
    pub(super) fn went_past(&mut self, to: &EntityKey, message: &Message) -> bool {
        let Message::RunEnded {
            run, success: None, ..
        } = message
        else {
            return false;
        };
        if let Some(counting) = self.counting.get_mut(to) {
            counting.known.insert(*run, false);
            return false;
        }
        let Some(Slot {
            entity: Entity::Queue(queue),
            touched_at,
            ..
        }) = self.slots.get_mut(to)
        else {
            return false;
        };
        *touched_at = self.now;
        !queue.runs.contains_key(run)
    }

    pub(super) fn active(&mut self, key: &EntityKey, result: kapell_store::Result<Vec<RunId>>) {
        let rows = match result {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(?key, %error, "active runs could not be read; trying again");
                self.read_again(Output::FindActive(key.clone()));
                return;
            }
        };
        let Some(counting) = self.counting.get_mut(key) else {
            return;
        };
        for run in rows {
            if counting.known.contains_key(&run) {
                continue;
            }
            match self.slots.get(&run.into()).map(|slot| &slot.entity) {
                Some(Entity::Run(found)) => {
                    counting.known.insert(run, is_past(found));
                }
                _ => {
                    counting.missing.insert(run);
                }
            }
        }
        let missing: Vec<RunId> = counting.missing.iter().copied().collect();
        if missing.is_empty() {
            self.tell_active(key);
        }
        for run in missing {
            self.submit(run.into(), ToEntity::Wake, false);
        }
    }

    /// A run is in memory, or never will be: whoever counts it knows now.
    pub(super) fn in_memory(&mut self, key: &EntityKey) {
        if self.counting.is_empty() {
            return;
        }
        let EntityKey::Run(id) = key else { return };
        let active = match self.slots.get(key).map(|slot| &slot.entity) {
            Some(Entity::Run(run)) => is_past(run),
            _ => false,
        };
        let mut told = Vec::new();
        for (queue, counting) in &mut self.counting {
            if counting.missing.remove(id) {
                counting.known.entry(*id).or_insert(active);
                if counting.missing.is_empty() {
                    told.push(queue.clone());
                }
            }
        }
        for queue in told {
            self.tell_active(&queue);
        }
    }

    /// Everything is known: the queue hears of it, and then takes what waits.
    fn tell_active(&mut self, key: &EntityKey) {
        let Some(counting) = self.counting.remove(key) else {
            return;
        };
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        let waiting = std::mem::take(&mut slot.waiting);
        self.holds -= waiting.iter().filter(|(_, holds)| *holds).count();
        let active = counting.known.into_iter().filter(|(_, active)| *active);
        let message = Message::Active(active.map(|(run, _)| run).collect());
        self.deliver(key, ToEntity::Message(Box::new(message)), false);
        for (input, holds) in waiting {
            self.submit(key.clone(), input, holds);
        }
    }
}
