//! Which run's work is granted next.
//!
//! First by priority, which rises while work waits; within a priority by what [`Order`] says. An index of
//! runs by queue ([`line`]); each visit grants a run a small share and charges it for that, so that a
//! run with a million items and one with three both move. A visit costs O(log n) of the runs that wait.
//!
//! Who had how much is kept in memory while somebody waits, and begins anew with another owner.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::FixedState;
use kapell_engine::Run;
use kapell_engine::run::demand::Demand as Wanted;
use kapell_engine::run::ready::Pick;
use kapell_model::{RunId, Time};

mod line;
mod settings;
mod stride;
#[cfg(test)]
mod tests;

pub use settings::{Order, Settings};

use line::{Blocked, Line, Place, Share};

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
    /// All that it has waiting in the queue has the turn, not only what has its fairness key.
    whole: bool,
    place: Place,
}

impl Turn {
    /// Which of the run's work has the turn.
    pub(crate) fn pick(&self) -> Pick<'_> {
        match &self.place.share {
            _ if self.whole => Pick::All,
            Share::Key(key) => Pick::Key(Some(key)),
            Share::Run(_) => Pick::Key(None),
        }
    }
}

/// Runs with work that waits for workers.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    settings: Settings,
    queues: BTreeMap<Arc<str>, Line>,
    stands: HashMap<RunId, Vec<Stand>, FixedState>,
    /// Namespaces whose quotas are used up.
    blocked: Blocked,
    /// The run that has its turn: what left its queue before does not come back by it.
    granting: Option<RunId>,
}

/// Work of a run in one queue.
#[derive(Debug)]
struct Stand {
    queue: Arc<str>,
    place: Place,
    /// About how many attempts.
    waits: u64,
    /// It has left its line until the run says again what it wants.
    left: bool,
}

fn rank(priority: u8) -> u8 {
    100 - priority.min(100)
}

/// What waits in one queue with one priority is said to be no more than this.
const MOST: u64 = 1 << 20;

/// What a run wants: by queue and fairness key, or by queue alone, each with its highest priority.
fn demands(run: &Run, by_key: bool) -> impl Iterator<Item = Wanted<'_>> {
    let mut demands = run.demands().peekable();
    std::iter::from_fn(move || {
        let mut first = demands.next()?;
        while !by_key && let Some(next) = demands.next_if(|next| next.queue == first.queue) {
            first.priority = first.priority.max(next.priority);
            first.waits = first.waits.saturating_add(next.waits);
        }
        first.waits = first.waits.clamp(1, MOST);
        Some(first)
    })
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
        let fair = self.settings.order == Order::Fair;
        let granting = self.granting == Some(id);
        let same = demands(run, fair).all(|demand| {
            stands.next().is_some_and(|stand| {
                stand.queue == *demand.queue
                    && stand.place.rank == rank(demand.priority)
                    && (!fair || stand.place.share.is_of(demand.key))
                    && (granting || !stand.left)
            })
        });
        if same && stands.next().is_none() {
            self.count(id, run);
            return;
        }
        let before = self.take_out(id);
        let mut stands = Vec::new();
        for demand in demands(run, fair) {
            let place = self.place_of(id, run, &demand);
            let left = granting
                && before.iter().any(|stand| {
                    stand.left && stand.queue == *demand.queue && stand.place.share == place.share
                });
            if !left {
                let line = match self.queues.get_mut(demand.queue) {
                    Some(line) => line,
                    None => self.queues.entry(demand.queue.clone()).or_default(),
                };
                line.enter(id, &place, &self.settings, now);
                line.count(&place, (0, demand.waits));
            }
            stands.push(Stand {
                queue: demand.queue.clone(),
                place,
                waits: demand.waits,
                left,
            });
        }
        if !stands.is_empty() {
            self.stands.insert(id, stands);
        }
    }

    /// A run wants what it wanted, but more of it or less.
    fn count(&mut self, id: RunId, run: &Run) {
        let fair = self.settings.order == Order::Fair;
        let stands = self.stands.get_mut(&id).into_iter().flatten();
        for (demand, stand) in demands(run, fair).zip(stands) {
            if stand.waits == demand.waits {
                continue;
            }
            if !stand.left
                && let Some(line) = self.queues.get_mut(&stand.queue)
            {
                line.count(&stand.place, (stand.waits, demand.waits));
            }
            stand.waits = demand.waits;
        }
    }

    /// A run has its turn from now on; none: it is over.
    pub(crate) fn granting(&mut self, id: Option<RunId>) {
        self.granting = id;
    }

    fn place_of(&self, id: RunId, run: &Run, demand: &Wanted<'_>) -> Place {
        let shared = || Arc::from("");
        let own = || run.state.meta.namespace.clone();
        let (namespace, share, weight) = match (self.settings.order, demand.key) {
            (Order::Fair, None) => (own(), Share::Run(id), 1),
            (Order::Fair, Some(key)) => (own(), Share::Key(key.clone()), run.weight(demand)),
            (Order::RoundRobin, _) => (shared(), Share::Run(id), 1),
            (Order::Age, _) => (shared(), Share::Key(shared()), 1),
        };
        Place {
            rank: rank(demand.priority),
            namespace,
            share,
            weight,
            made_at: run.state.meta.created_at,
        }
    }

    /// Forgets a run.
    pub(crate) fn remove(&mut self, id: RunId) {
        self.take_out(id);
    }

    /// Forgets a run; returns where it stood.
    fn take_out(&mut self, id: RunId) -> Vec<Stand> {
        let stands = self.stands.remove(&id).unwrap_or_default();
        for stand in stands.iter().filter(|stand| !stand.left) {
            if let Some(line) = self.queues.get_mut(&stand.queue) {
                line.count(&stand.place, (stand.waits, 0));
                line.leave(id, &stand.place);
            }
        }
        stands
    }

    /// Queues in which work waits.
    pub(crate) fn queues(&mut self) -> Vec<Arc<str>> {
        self.queues.retain(|_, line| line.tidy());
        self.queues.keys().cloned().collect()
    }

    /// What waits in each queue, by the priority to which it has risen; counts are rounded up to powers of two.
    pub(crate) fn wants(&self, now: Time) -> Wants {
        let mut wants = Wants::new();
        for (queue, line) in &self.queues {
            for (rank, waits) in line.waits(&self.blocked) {
                let risen = line.risen(rank, &self.settings, now);
                let sum = wants
                    .entry((queue.clone(), 100 - rank + risen))
                    .or_insert(0);
                *sum = sum.saturating_add(u32::try_from(waits.min(MOST)).unwrap_or(u32::MAX));
            }
        }
        for waits in wants.values_mut() {
            *waits = waits.checked_next_power_of_two().unwrap_or(u32::MAX);
        }
        wants
    }

    /// Whose turn it is in a queue.
    pub(crate) fn first(&self, queue: &str) -> Option<Turn> {
        let (id, share) = self
            .queues
            .get(queue)?
            .first(&self.settings, &self.blocked)?;
        let mut stands = self.stands.get(&id)?.iter();
        let stand = stands.find(|stand| &*stand.queue == queue && stand.place.share == *share)?;
        Some(Turn {
            id,
            share: SHARE,
            whole: self.settings.order != Order::Fair,
            place: stand.place.clone(),
        })
    }

    /// A run had its turn in a queue, and was granted so many attempts.
    pub(crate) fn charge(&mut self, turn: &Turn, queue: &str, granted: usize, now: Time) {
        let cost = match self.settings.order {
            _ if granted == 0 => return,
            Order::RoundRobin => 1,
            Order::Fair | Order::Age => granted as u64,
        };
        if let Some(line) = self.queues.get_mut(queue) {
            line.charge(&turn.place, cost, (&self.settings, &self.blocked), now);
        }
    }

    /// Nothing of a namespace starts until it is let go; false if that has no namespaces to tell apart.
    pub(crate) fn block(&mut self, namespace: &Arc<str>) -> bool {
        let fair = self.settings.order == Order::Fair;
        if fair {
            self.blocked.insert(namespace.clone());
        }
        fair
    }

    /// True if nothing of a namespace starts.
    pub(crate) fn is_blocked(&self, namespace: &str) -> bool {
        self.blocked.contains(namespace)
    }

    /// A namespace has less in flight than before.
    pub(crate) fn unblock(&mut self, namespace: &str) {
        self.blocked.remove(namespace);
    }

    /// Takes what had its turn out of the queue until its run says again what it wants.
    pub(crate) fn leave(&mut self, turn: &Turn, queue: &Arc<str>) {
        let id = turn.id;
        let Some(stands) = self.stands.get_mut(&id) else {
            return;
        };
        let mut stands = stands.iter_mut();
        let Some(stand) = stands.find(|stand| {
            stand.queue == *queue && stand.place.share == turn.place.share && !stand.left
        }) else {
            return;
        };
        stand.left = true;
        if let Some(line) = self.queues.get_mut(queue) {
            line.count(&stand.place, (stand.waits, 0));
            line.leave(id, &stand.place);
        }
    }

    /// What left a queue waits there again. What its run wants of other queues is as it was: if that were said again,
    /// two queues in which nothing can be granted would take turns in asking for room.
    pub(crate) fn wait(&mut self, turn: &Turn, queue: &Arc<str>, now: Time) {
        let stands = self.stands.get_mut(&turn.id).into_iter().flatten();
        let mut left = stands.filter(|stand| stand.left && stand.queue == *queue);
        let Some(stand) = left.find(|stand| stand.place.share == turn.place.share) else {
            return;
        };
        stand.left = false;
        let line = self.queues.entry(queue.clone()).or_default();
        line.enter(turn.id, &stand.place, &self.settings, now);
        line.count(&stand.place, (0, stand.waits));
    }

    /// The priority that a run's work has in a queue, and to which it has risen meanwhile.
    pub(crate) fn priority(&self, id: RunId, queue: &str, now: Time) -> Option<(u8, u8)> {
        let stands = self.stands.get(&id)?.iter();
        let stands = stands.filter(|stand| &*stand.queue == queue);
        let rank = stands.map(|stand| stand.place.rank).min()?;
        let risen = self.queues.get(queue)?.risen(rank, &self.settings, now);
        Some((100 - rank, 100 - rank + risen))
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.blocked.clear();
        self.queues.clear();
        self.stands.clear();
    }
}
