//! Which run's work is granted next.
//!
//! First by priority, which rises while work waits; within a priority by what [`Order`] says. An index of
//! runs by queue ([`line`]); each visit grants a run a small share and charges it for that, so that a
//! run with a million items and one with three both move. A visit costs O(log n) of the runs that wait.
//!
//! Who had how much is kept in memory while somebody waits, and begins anew with another owner.

use std::collections::BTreeMap;
use std::sync::Arc;

use kapell_engine::Run;
use kapell_model::{RunId, Time};

mod line;
mod settings;
mod stride;
#[cfg(test)]
mod tests;

pub use settings::{Order, Settings};

use line::{Line, Place, Share};

use crate::lend::Wants;

/// Attempts granted to one run before the next of its priority has its turn.
pub(crate) const SHARE: usize = 256;

/// Whose turn it is.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    /// Which run.
    pub id: RunId,
    /// Attempts that it may have.
    pub share: usize,
    place: Place,
}

/// Runs with work that waits for workers.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    settings: Settings,
    queues: BTreeMap<Arc<str>, Line>,
    stands: BTreeMap<RunId, Vec<(Arc<str>, Place)>>,
}

fn rank(run: &Run, queue: &str) -> u8 {
    100 - run.demand_priority(queue).unwrap_or(0).min(100)
}

impl Demand {
    /// Nobody waits yet.
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// Takes note of what a run wants now.
    pub(crate) fn update(&mut self, id: RunId, run: &Run, now: Time) {
        let mut stands = self.stands.get(&id).into_iter().flatten();
        let same = run.demand().all(|queue| {
            stands
                .next()
                .is_some_and(|(stood, place)| stood == queue && place.rank == rank(run, queue))
        });
        if same && stands.next().is_none() {
            return;
        }
        self.remove(id);
        for queue in run.demand() {
            let place = self.place_of(id, run, queue);
            self.insert(id, queue, place, now);
        }
    }

    fn place_of(&self, id: RunId, run: &Run, queue: &str) -> Place {
        let shared = || Arc::from("");
        let (namespace, share) = match self.settings.order {
            Order::Fair => (run.state.meta.namespace.clone(), Share::Run(id)),
            Order::RoundRobin => (shared(), Share::Run(id)),
            Order::Age => (shared(), Share::Key(shared())),
        };
        Place {
            rank: rank(run, queue),
            namespace,
            share,
            made_at: run.state.meta.created_at,
        }
    }

    fn insert(&mut self, id: RunId, queue: &Arc<str>, place: Place, now: Time) {
        let line = match self.queues.get_mut(queue) {
            Some(line) => line,
            None => self.queues.entry(queue.clone()).or_default(),
        };
        line.enter(id, &place, &self.settings, now);
        let stands = self.stands.entry(id).or_default();
        stands.push((queue.clone(), place));
    }

    /// Forgets a run.
    pub(crate) fn remove(&mut self, id: RunId) {
        for (queue, place) in self.stands.remove(&id).unwrap_or_default() {
            if let Some(line) = self.queues.get_mut(&queue) {
                line.leave(id, &place);
            }
        }
    }

    /// Queues in which work waits.
    pub(crate) fn queues(&mut self) -> Vec<Arc<str>> {
        self.queues.retain(|_, line| line.tidy());
        self.queues.keys().cloned().collect()
    }

    /// The highest priority that waits in each queue.
    pub(crate) fn wants(&self) -> Wants {
        let queues = self.queues.iter();
        queues
            .filter_map(|(queue, line)| Some((queue.clone(), 100 - line.highest()?)))
            .collect()
    }

    /// Whose turn it is in a queue.
    pub(crate) fn first(&self, queue: &str) -> Option<Turn> {
        let id = self.queues.get(queue)?.first(&self.settings)?;
        let place = self.stand(id, queue)?.clone();
        Some(Turn {
            id,
            share: SHARE,
            place,
        })
    }

    fn stand(&self, id: RunId, queue: &str) -> Option<&Place> {
        let mut stands = self.stands.get(&id)?.iter();
        let stand = stands.find(|(other, _)| &**other == queue);
        stand.map(|(_, place)| place)
    }

    /// A run had its turn in a queue, and was granted so many attempts.
    pub(crate) fn charge(&mut self, turn: &Turn, queue: &str, granted: usize, now: Time) {
        let cost = match self.settings.order {
            _ if granted == 0 => return,
            Order::RoundRobin => 1,
            Order::Fair | Order::Age => granted as u64,
        };
        if let Some(line) = self.queues.get_mut(queue) {
            line.charge(&turn.place, cost, &self.settings, now);
        }
    }

    /// Takes a run out of one queue until it says again what it wants.
    pub(crate) fn leave(&mut self, id: RunId, queue: &Arc<str>) {
        let Some(stands) = self.stands.get_mut(&id) else {
            return;
        };
        let Some(at) = stands.iter().position(|(other, _)| other == queue) else {
            return;
        };
        let (queue, place) = stands.swap_remove(at);
        if let Some(line) = self.queues.get_mut(&queue) {
            line.leave(id, &place);
        }
    }

    /// The priority that a run's work has in a queue, and to which it has risen meanwhile.
    pub(crate) fn priority(&self, id: RunId, queue: &str, now: Time) -> Option<(u8, u8)> {
        let rank = self.stand(id, queue)?.rank;
        let risen = self.queues.get(queue)?.risen(rank, &self.settings, now);
        Some((100 - rank, 100 - rank + risen))
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.queues.clear();
        self.stands.clear();
    }
}
