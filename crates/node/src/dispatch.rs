//! Which run's work is granted next.
//!
//! An index of runs by queue, priority and turn. Each visit grants a run a small share and puts it
//! at the end of its priority, so that a run with a million items and one with three both move.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kapell_engine::Run;
use kapell_model::RunId;

use crate::lend::Wants;

/// Attempts granted to one run before the next of its priority has its turn.
pub(crate) const SHARE: usize = 256;

/// Runs with work that waits for workers.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    queues: BTreeMap<Arc<str>, BTreeSet<(u8, u64, RunId)>>,
    stands: BTreeMap<RunId, Vec<(Arc<str>, u8, u64)>>,
    turn: u64,
}

impl Demand {
    /// Takes note of what a run wants now.
    pub(crate) fn update(&mut self, id: RunId, run: &Run) {
        let rank = |queue: &str| 100 - run.demand_priority(queue).unwrap_or(0).min(100);
        let mut stands = self.stands.get(&id).into_iter().flatten();
        let same = run.demand().all(|queue| {
            stands
                .next()
                .is_some_and(|(stood, old, _)| stood == queue && *old == rank(queue))
        });
        if same && stands.next().is_none() {
            return;
        }
        self.remove(id);
        for queue in run.demand() {
            self.insert(id, queue.clone(), rank(queue));
        }
    }

    fn insert(&mut self, id: RunId, queue: Arc<str>, rank: u8) {
        self.turn += 1;
        self.queues
            .entry(queue.clone())
            .or_default()
            .insert((rank, self.turn, id));
        self.stands
            .entry(id)
            .or_default()
            .push((queue, rank, self.turn));
    }

    /// Forgets a run.
    pub(crate) fn remove(&mut self, id: RunId) {
        for (queue, rank, turn) in self.stands.remove(&id).unwrap_or_default() {
            if let Some(runs) = self.queues.get_mut(&queue) {
                runs.remove(&(rank, turn, id));
                if runs.is_empty() {
                    self.queues.remove(&queue);
                }
            }
        }
    }

    /// Queues in which work waits.
    pub(crate) fn queues(&self) -> Vec<Arc<str>> {
        self.queues.keys().cloned().collect()
    }

    /// The highest priority that waits in each queue.
    pub(crate) fn wants(&self) -> Wants {
        let first = |runs: &BTreeSet<(u8, u64, RunId)>| runs.first().map(|(rank, ..)| 100 - rank);
        let queues = self.queues.iter();
        queues
            .filter_map(|(queue, runs)| Some((queue.clone(), first(runs)?)))
            .collect()
    }

    /// The run whose turn it is in a queue.
    pub(crate) fn first(&self, queue: &str) -> Option<RunId> {
        self.queues.get(queue)?.first().map(|(_, _, id)| *id)
    }

    /// Puts a run at the end of its priority in a queue.
    pub(crate) fn next_turn(&mut self, id: RunId, queue: &Arc<str>) {
        let Some(stands) = self.stands.get_mut(&id) else {
            return;
        };
        let Some(at) = stands.iter().position(|(other, _, _)| other == queue) else {
            return;
        };
        let (queue, rank, turn) = stands.swap_remove(at);
        if let Some(runs) = self.queues.get_mut(&queue) {
            runs.remove(&(rank, turn, id));
        }
        self.insert(id, queue, rank);
    }

    /// Takes a run out of one queue until it says again what it wants.
    pub(crate) fn leave(&mut self, id: RunId, queue: &Arc<str>) {
        let Some(stands) = self.stands.get_mut(&id) else {
            return;
        };
        let Some(at) = stands.iter().position(|(other, _, _)| other == queue) else {
            return;
        };
        let (queue, rank, turn) = stands.swap_remove(at);
        if let Some(runs) = self.queues.get_mut(&queue) {
            runs.remove(&(rank, turn, id));
            if runs.is_empty() {
                self.queues.remove(&queue);
            }
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.queues.clear();
        self.stands.clear();
    }
}
