//! The work that waits in one queue: classes of one priority each, which rise while they have nothing.
//!
//! A class is one member that rises, not each run in it: within a class nobody starves, because turns are
//! shared there. Both the rise of all classes and the time go on alike, so that which class is
//! first changes only when one is served, and no timer is needed ("time-dependent priorities", Kleinrock, 1964).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kapell_model::{RunId, Time};

use super::settings::Settings;
use super::stride::Turns;

/// Whose share a run's work counts on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Share {
    /// Its own.
    Run(RunId),
    /// That of all with this key.
    Key(Arc<str>),
}

impl Share {
    /// True for the share of work with this fairness key, or with none.
    pub(super) fn is_of(&self, key: Option<&Arc<str>>) -> bool {
        match self {
            Self::Run(_) => key.is_none(),
            Self::Key(own) => key == Some(own),
        }
    }
}

/// Where the work of a run stands in its queue.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// 0 is the highest priority.
    pub rank: u8,
    pub namespace: Arc<str>,
    pub share: Share,
    /// Of its share, beside the others of its namespace.
    pub weight: u32,
    /// When the run was made.
    pub made_at: Time,
}

/// Runs of one namespace and priority.
#[derive(Debug, Default)]
struct Space {
    shares: Turns<Share>,
    keyed: BTreeMap<Arc<str>, BTreeSet<(Time, RunId)>>,
    /// About how many attempts wait.
    waits: u64,
}

impl Space {
    fn first(&self) -> Option<(RunId, &Share)> {
        let share = self.shares.first()?;
        let id = match share {
            Share::Run(id) => *id,
            Share::Key(key) => self.keyed.get(key)?.first()?.1,
        };
        Some((id, share))
    }
}

/// Work of one priority.
#[derive(Debug, Default)]
struct Class {
    namespaces: Turns<Arc<str>>,
    spaces: BTreeMap<Arc<str>, Space>,
    /// In all of them.
    waits: u64,
    /// It rises since then.
    since: Time,
}

/// Namespaces of which nothing may start: their quotas are used up.
pub(super) type Blocked = BTreeSet<Arc<str>>;

impl Class {
    /// The namespace whose turn it is.
    fn first(&self, blocked: &Blocked) -> Option<&Arc<str>> {
        if blocked.is_empty() {
            return self.namespaces.first();
        }
        self.namespaces.first_of(|name| !blocked.contains(name))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Line {
    classes: BTreeMap<u8, Class>,
}

impl Line {
    /// A run's work waits.
    pub(super) fn enter(&mut self, id: RunId, place: &Place, settings: &Settings, now: Time) {
        let class = self.classes.entry(place.rank).or_insert_with(|| Class {
            since: now,
            ..Class::default()
        });
        let namespace = &place.namespace;
        let weight = settings.weight(namespace);
        class.namespaces.enter(namespace.clone(), weight, 0);
        let space = match class.spaces.get_mut(namespace) {
            Some(space) => space,
            None => class.spaces.entry(namespace.clone()).or_default(),
        };
        let tie = place.made_at.0;
        space.shares.enter(place.share.clone(), place.weight, tie);
        if let Share::Key(key) = &place.share {
            let runs = space.keyed.entry(key.clone()).or_default();
            runs.insert((place.made_at, id));
        }
    }

    /// A run's work waits no longer.
    pub(super) fn leave(&mut self, id: RunId, place: &Place) {
        let Some(class) = self.classes.get_mut(&place.rank) else {
            return;
        };
        let Some(space) = class.spaces.get_mut(&place.namespace) else {
            return;
        };
        if let Share::Key(key) = &place.share {
            if let Some(runs) = space.keyed.get_mut(key) {
                runs.remove(&(place.made_at, id));
                if !runs.is_empty() {
                    return;
                }
            }
            space.keyed.remove(key);
        }
        space.shares.leave(&place.share);
        if space.shares.is_empty() {
            class.namespaces.leave(&place.namespace);
        }
    }

    /// Of a run's work that waits, so many attempts did and so many do.
    pub(super) fn count(&mut self, place: &Place, (before, now): (u64, u64)) {
        let Some(class) = self.classes.get_mut(&place.rank) else {
            return;
        };
        class.waits = (class.waits + now).saturating_sub(before);
        if let Some(space) = class.spaces.get_mut(&place.namespace) {
            space.waits = (space.waits + now).saturating_sub(before);
        }
    }

    /// About how many attempts wait, by rank.
    pub(super) fn waits(&self, blocked: &Blocked) -> impl Iterator<Item = (u8, u64)> {
        let waiting = self.classes.iter();
        let waiting = waiting.filter(|(_, class)| class.first(blocked).is_some());
        waiting.map(|(rank, class)| {
            let held_up = blocked.iter().filter_map(|name| class.spaces.get(name));
            let held_up: u64 = held_up.map(|space| space.waits).sum();
            (*rank, class.waits.saturating_sub(held_up))
        })
    }

    /// The class whose turn it is: of two that rose equally high, the one of the higher priority.
    fn best(&self, settings: &Settings, blocked: &Blocked) -> Option<(u8, &Class)> {
        let waiting = self.classes.iter();
        let waiting = waiting.filter(|(_, class)| class.first(blocked).is_some());
        let (rank, class) = waiting.min_by_key(|(rank, class)| {
            let head_start = i64::from(**rank).saturating_mul(settings.aging_micros);
            match settings.aging_micros {
                0 => (0, **rank),
                _ => (class.since.0.saturating_add(head_start), **rank),
            }
        })?;
        Some((*rank, class))
    }

    /// The rank of the highest priority that waits.
    pub(super) fn highest(&self, blocked: &Blocked) -> Option<u8> {
        let mut classes = self.classes.iter();
        let waits = classes.find(|(_, class)| class.first(blocked).is_some());
        waits.map(|(rank, _)| *rank)
    }

    /// The run whose turn it is, and whose share that counts on.
    pub(super) fn first(&self, settings: &Settings, blocked: &Blocked) -> Option<(RunId, &Share)> {
        let (_, class) = self.best(settings, blocked)?;
        class.spaces.get(class.first(blocked)?)?.first()
    }

    /// Work that stood there was granted.
    pub(super) fn charge(
        &mut self,
        place: &Place,
        cost: u64,
        (settings, blocked): (&Settings, &Blocked),
        now: Time,
    ) {
        let highest = self.highest(blocked);
        let Some(class) = self.classes.get_mut(&place.rank) else {
            return;
        };
        // What only its age brought forward has one turn in each step of time from then on.
        class.since = match highest {
            Some(highest) if highest < place.rank => {
                Time(class.since.0.saturating_add(settings.aging_micros)).min(now)
            }
            _ => now,
        };
        let weight = settings.weight(&place.namespace);
        class.namespaces.charge(&place.namespace, weight, cost);
        if let Some(space) = class.spaces.get_mut(&place.namespace) {
            space.shares.charge(&place.share, place.weight, cost);
        }
    }

    /// How far the class of a priority has risen, in priorities.
    pub(super) fn risen(&self, rank: u8, settings: &Settings, now: Time) -> u8 {
        let Some(class) = self.classes.get(&rank) else {
            return 0;
        };
        let waited = now.0.saturating_sub(class.since.0).max(0);
        let steps = waited.checked_div(settings.aging_micros).unwrap_or(0);
        u8::try_from(steps).unwrap_or(u8::MAX).min(rank)
    }

    /// Forgets classes in which nothing waits; true if something does in one.
    pub(super) fn tidy(&mut self) -> bool {
        self.classes.retain(|_, class| !class.namespaces.is_empty());
        for class in self.classes.values_mut() {
            // A namespace that was forgotten in the turns has nothing that waits.
            if class.spaces.len() > class.namespaces.len() {
                class.spaces.retain(|name, _| class.namespaces.knows(name));
            }
        }
        !self.classes.is_empty()
    }
}
