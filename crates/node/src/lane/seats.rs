//! What the workers of this node have room for, by their sessions.
//!
//! A session is *unheard* while it may hold attempts of an owner before this one and has not said
//! which: what stood ready before in its queues is not granted meanwhile, what becomes ready later
//! is. A session that is away for a moment keeps its place with no room; one that is over has none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kapell_api::task::{Task, TaskResources};
use kapell_api::worker::Queues;
use kapell_engine::run::room::{Labels, Quota, Room, Seat as Free, environment};
use kapell_model::SessionId;

use super::held::Grant;
use super::quotas::Quotas;

/// Environments remembered of one worker.
const WARM: usize = 32;

/// Attempts handed out ahead at most.
const AHEAD: usize = 1_024;

/// What a worker takes at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Seat {
    /// Whose work.
    pub queues: Queues,
    /// Attempts in flight that start a process or a request; while they end faster than commits, as
    /// many more are handed out ahead as end during two commits. 0 takes none.
    pub process_window: usize,
    /// Attempts in flight that start nothing.
    pub light_window: usize,
    /// What it has to give in all. [`TaskResources::ALL`]: it sees to its bounds itself.
    pub total: TaskResources,
    /// What of it attempts from here may take in all: less than the worker has while attempts of other nodes take
    /// of it.
    pub share: TaskResources,
    /// What its owner says of it.
    pub labels: Labels,
    /// It can be taken away at any time.
    pub spot: bool,
}

/// A seat and what is taken of it.
#[derive(Debug)]
struct Taken {
    seat: Seat,
    processes: usize,
    lights: usize,
    used: TaskResources,
    /// Attempts with processes that ended since the last commit began.
    landed: usize,
    /// Attempts handed out ahead of the worker's room, so that it does not wait for commits.
    ahead: usize,
    /// Environments that ran there last, the latest at the end.
    warm: Vec<u64>,
    /// The same, for granting.
    warm_set: Arc<BTreeSet<u64>>,
}

impl Taken {
    fn process_window(&self) -> usize {
        match self.seat.process_window {
            0 => 0,
            window => window + self.ahead,
        }
    }

    fn free(&self, session: SessionId) -> Free {
        let process = self.process_window().saturating_sub(self.processes);
        let light = self.seat.light_window.saturating_sub(self.lights);
        let total = self.seat.total.clone();
        let free = self.seat.share.clone().less(&self.used);
        let free = if total.is_all() {
            TaskResources::all_with(free.custom)
        } else {
            free
        };
        Free {
            session,
            process,
            light,
            free,
            total,
            labels: Arc::clone(&self.seat.labels),
            spot: self.seat.spot,
            warm: Arc::clone(&self.warm_set),
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Seats {
    taken: BTreeMap<SessionId, Taken>,
    unheard: BTreeMap<SessionId, Queues>,
    /// Queues that are not for workers that name none.
    kept: BTreeSet<Arc<str>>,
    /// What namespaces have in flight.
    pub(super) quotas: Quotas,
}

impl Seats {
    /// No workers yet; these are the quotas of namespaces.
    pub(super) fn new(quotas: BTreeMap<Arc<str>, Quota>) -> Self {
        Self {
            quotas: Quotas::new(quotas),
            ..Self::default()
        }
    }

    /// What a session has to give from now on. True if something may fit that did not: how much of it is lent here
    /// at the moment changes nothing of that.
    pub(super) fn set(&mut self, session: SessionId, seat: Seat) -> bool {
        if let Some(taken) = self.taken.get_mut(&session) {
            let lent = Seat {
                process_window: taken.seat.process_window,
                light_window: taken.seat.light_window,
                share: taken.seat.share.clone(),
                ..seat.clone()
            };
            let fits = lent != taken.seat;
            taken.seat = seat;
            return fits;
        }
        let taken = Taken {
            seat,
            processes: 0,
            lights: 0,
            used: TaskResources::default(),
            landed: 0,
            ahead: 0,
            warm: Vec::new(),
            warm_set: Arc::default(),
        };
        self.taken.insert(session, taken);
        true
    }

    /// These queues are for workers that name them.
    pub(super) fn keep(&mut self, names: BTreeSet<Arc<str>>) {
        self.kept = names;
    }

    /// A session may hold attempts and has not said which. It keeps its seat, if it has one.
    pub(super) fn expect(&mut self, session: SessionId, queues: Queues) {
        self.unheard.insert(session, queues);
    }

    /// A session has said what it holds. True if it had not.
    pub(super) fn hear(&mut self, session: SessionId) -> bool {
        self.unheard.remove(&session).is_some()
    }

    /// A session is over.
    pub(super) fn remove(&mut self, session: SessionId) {
        self.unheard.remove(&session);
        self.taken.remove(&session);
    }

    /// The queues of sessions that may hold attempts and have not said so yet.
    pub(super) fn unheard(&self) -> Vec<Queues> {
        self.unheard.values().cloned().collect()
    }

    /// True if every session has said what it holds.
    pub(super) fn all_heard(&self) -> bool {
        self.unheard.is_empty()
    }

    /// How many have not said what they hold.
    pub(super) fn not_heard(&self) -> usize {
        self.unheard.len()
    }

    /// True if attempts of this queue may be at a session that has not said what it holds.
    pub(super) fn is_unheard(&self, queue: &str) -> bool {
        let mut unheard = self.unheard.values();
        unheard.any(|queues| queues.may_serve(queue))
    }

    /// The sessions that serve a queue: those that name it, else those that serve what nobody names, unless
    /// it is kept for the former.
    fn of(&self, queue: &str) -> impl Iterator<Item = (SessionId, &Taken)> {
        let named =
            |seat: &Seat| matches!(&seat.queues, Queues::Named(names) if names.contains(queue));
        let by_name =
            self.kept.contains(queue) || self.taken.values().any(|taken| named(&taken.seat));
        self.taken
            .iter()
            .filter(move |(_, taken)| match &taken.seat.queues {
                Queues::Named(names) => by_name && names.contains(queue),
                Queues::Others => !by_name,
            })
            .map(|(session, taken)| (*session, taken))
    }

    /// True if a worker serves the queue, even if it has no room now.
    pub(super) fn serve(&self, queue: &str) -> bool {
        self.of(queue).next().is_some()
    }

    /// What the workers of a queue have room for.
    pub(super) fn room(&self, queue: &str) -> Room {
        Room {
            seats: self
                .of(queue)
                .map(|(session, taken)| taken.free(session))
                .collect(),
            ..Room::default()
        }
    }

    /// An attempt takes its place.
    pub(super) fn take(&mut self, grant: &Grant) {
        self.quotas.take(grant);
        if let Some(taken) = self.taken.get_mut(&grant.session) {
            if grant.light {
                taken.lights += 1;
            } else {
                taken.processes += 1;
                taken.used = std::mem::take(&mut taken.used).more(&grant.needs);
            }
        }
    }

    /// True for the session of a worker that can be taken away.
    pub(super) fn is_spot(&self, session: SessionId) -> bool {
        let taken = self.taken.get(&session);
        taken.is_some_and(|taken| taken.seat.spot)
    }

    /// A task goes to its worker, which installs what it needs and keeps it.
    pub(super) fn warms(&mut self, task: &Task) {
        let Some(environment) = environment(&task.work) else {
            return;
        };
        let Some(taken) = self.taken.get_mut(&task.session) else {
            return;
        };
        if taken.warm.last() == Some(&environment) {
            return;
        }
        taken.warm.retain(|other| *other != environment);
        if taken.warm.len() == WARM {
            taken.warm.remove(0);
        }
        taken.warm.push(environment);
        taken.warm_set = Arc::new(taken.warm.iter().copied().collect());
    }

    /// An attempt gives its place back.
    pub(super) fn give_back(&mut self, grant: &Grant) {
        self.quotas.give_back(grant);
        if let Some(taken) = self.taken.get_mut(&grant.session) {
            if grant.light {
                taken.lights = taken.lights.saturating_sub(1);
            } else {
                taken.processes = taken.processes.saturating_sub(1);
                taken.used = std::mem::take(&mut taken.used).less(&grant.needs);
            }
        }
    }

    /// An attempt has ended.
    pub(super) fn landed(&mut self, grant: &Grant) {
        if let Some(taken) = self.taken.get_mut(&grant.session) {
            taken.landed += usize::from(!grant.light);
        }
    }

    /// A commit begins: what ended since the one before says how much may be handed out ahead.
    pub(super) fn commit_begins(&mut self) {
        for taken in self.taken.values_mut() {
            taken.ahead = (taken.landed * 2).max(taken.ahead * 3 / 4).min(AHEAD);
            taken.landed = 0;
        }
    }
}
