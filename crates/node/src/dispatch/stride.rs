//! Turns in proportion to weights.
//!
//! Stride scheduling with members that come and go (Waldspurger and Weihl, "Stride Scheduling:
//! Deterministic Proportional-Share Resource Management", 1995). Whoever was served has its *pass* moved on
//! by what it had, divided by its weight; the lowest pass is next. The *clock* is the pass of somebody
//! who always has exactly its share: it moves on by what was had, divided by the weights of all who wait.
//! Whoever comes starts there, so that nobody saves turns up by staying away, and nobody waits for ever
//! behind others who come. Whoever leaves ahead of the clock is remembered until the clock is there, so
//! that nobody gains by leaving and coming back.
//!
//! Everything costs O(log n).

use std::collections::{BTreeMap, BTreeSet};

/// What one attempt moves the pass of a member of weight 1.
const UNIT: u64 = 1 << 20;

/// Where a member stands.
#[derive(Clone, Copy, Debug)]
struct Stand {
    pass: u64,
    /// Of two with one pass, the lower is first.
    tie: i64,
    weight: u32,
    waits: bool,
}

/// Members that wait for turns, and those that were ahead of the clock when they left.
#[derive(Debug)]
pub(super) struct Turns<K> {
    waiting: BTreeSet<(u64, i64, K)>,
    gone: BTreeSet<(u64, K)>,
    stands: BTreeMap<K, Stand>,
    clock: u64,
    /// Of all who wait.
    weights: u64,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self {
            waiting: BTreeSet::new(),
            gone: BTreeSet::new(),
            stands: BTreeMap::new(),
            clock: 0,
            weights: 0,
        }
    }
}

impl<K: Ord + Clone> Turns<K> {
    /// Nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Somebody waits from now on, if it does not yet.
    pub(super) fn enter(&mut self, who: K, weight: u32, tie: i64) {
        let weight = weight.max(1);
        let known = self.stands.get(&who).copied();
        if let Some(known) = known {
            if known.waits {
                return;
            }
            self.gone.remove(&(known.pass, who.clone()));
        }
        let pass = known.map_or(0, |known| known.pass).max(self.clock);
        let stand = Stand {
            pass,
            tie,
            weight,
            waits: true,
        };
        self.weights += u64::from(weight);
        self.waiting.insert((pass, tie, who.clone()));
        self.stands.insert(who, stand);
    }

    /// Whose turn it is.
    pub(super) fn first(&self) -> Option<&K> {
        self.waiting.first().map(|(_, _, who)| who)
    }

    /// Whose turn it is among some.
    pub(super) fn first_of(&self, which: impl Fn(&K) -> bool) -> Option<&K> {
        let mut waiting = self.waiting.iter().map(|(_, _, who)| who);
        waiting.find(|who| which(who))
    }

    /// Somebody had `cost` attempts, whether it waits for more or not.
    pub(super) fn charge(&mut self, who: &K, weight: u32, cost: u64) {
        let clock = self.clock;
        let stand = self.stands.entry(who.clone()).or_insert(Stand {
            pass: clock,
            tie: 0,
            weight: weight.max(1),
            waits: false,
        });
        let before = stand.pass;
        let moved = cost * UNIT;
        stand.pass += moved / u64::from(stand.weight);
        if stand.waits {
            self.waiting.remove(&(before, stand.tie, who.clone()));
            self.waiting.insert((stand.pass, stand.tie, who.clone()));
        } else {
            self.gone.remove(&(before, who.clone()));
            self.gone.insert((stand.pass, who.clone()));
        }
        let others = if stand.waits { 0 } else { stand.weight };
        self.clock += moved / (self.weights + u64::from(others));
        self.forget();
    }

    /// Somebody waits no longer.
    pub(super) fn leave(&mut self, who: &K) {
        let Some(stand) = self.stands.get_mut(who).filter(|stand| stand.waits) else {
            return;
        };
        stand.waits = false;
        self.weights -= u64::from(stand.weight);
        self.waiting.remove(&(stand.pass, stand.tie, who.clone()));
        self.gone.insert((stand.pass, who.clone()));
        self.forget();
    }

    /// Whoever left and would start at the clock anyway needs no memory.
    fn forget(&mut self) {
        while let Some((pass, _)) = self.gone.first()
            && *pass <= self.clock
            && let Some((_, who)) = self.gone.pop_first()
        {
            self.stands.remove(&who);
        }
    }

    /// True for whoever waits or is remembered.
    pub(super) fn knows(&self, who: &K) -> bool {
        self.stands.contains_key(who)
    }

    /// Members that wait or are remembered.
    pub(super) fn len(&self) -> usize {
        self.stands.len()
    }
}
