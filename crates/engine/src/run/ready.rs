//! Units of a run that wait for workers in one queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kapell_api::task::Place;
use serde::{Deserialize, Serialize};

/// Units by priority (highest first), then by place.
type Units = BTreeSet<(u8, Place)>;

/// Which of the units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick<'a> {
    /// All.
    All,
    /// Those with this fairness key, or with none.
    Key(Option<&'a str>),
}

/// Units that wait, by their fairness keys.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ready {
    plain: Units,
    keyed: BTreeMap<Arc<str>, Units>,
}

impl Ready {
    /// A unit waits.
    pub fn insert(&mut self, key: Option<Arc<str>>, unit: (u8, Place)) {
        match key {
            None => self.plain.insert(unit),
            Some(key) => self.keyed.entry(key).or_default().insert(unit),
        };
    }

    /// A unit waits no longer.
    pub fn remove(&mut self, key: Option<&str>, unit: (u8, Place)) {
        let Some(key) = key else {
            self.plain.remove(&unit);
            return;
        };
        if let Some(units) = self.keyed.get_mut(key) {
            units.remove(&unit);
            if units.is_empty() {
                self.keyed.remove(key);
            }
        }
    }

    /// Keeps some of them.
    pub fn retain(&mut self, keep: impl Fn(Place) -> bool) {
        self.plain.retain(|(_, place)| keep(*place));
        self.keyed.retain(|_, units| {
            units.retain(|(_, place)| keep(*place));
            !units.is_empty()
        });
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.keyed.is_empty()
    }

    /// All of them, those of one key together.
    pub fn units(&self) -> impl Iterator<Item = (u8, Place)> {
        self.of(Pick::All).flatten().copied()
    }

    /// The keys that there are, each with the first of its units and how many there are.
    pub fn firsts(&self) -> impl Iterator<Item = (Option<&Arc<str>>, (u8, Place), usize)> {
        let plain = self.plain.first();
        let plain = plain.map(|first| (None, *first, self.plain.len()));
        let keyed = self.keyed.iter();
        let keyed =
            keyed.filter_map(|(key, units)| Some((Some(key), *units.first()?, units.len())));
        plain.into_iter().chain(keyed)
    }

    fn of(&self, pick: Pick<'_>) -> impl Iterator<Item = &Units> {
        let plain = matches!(pick, Pick::All | Pick::Key(None)).then_some(&self.plain);
        let one = match pick {
            Pick::Key(Some(key)) => self.keyed.get(key),
            Pick::All | Pick::Key(None) => None,
        };
        let all = (pick == Pick::All).then(|| self.keyed.values());
        plain
            .into_iter()
            .chain(one)
            .chain(all.into_iter().flatten())
    }

    /// The highest priority, as a rank, after this one.
    pub fn next_rank(&self, pick: Pick<'_>, after: Option<u8>) -> Option<u8> {
        let from = match after {
            Some(after) => after.checked_add(1)?,
            None => 0,
        };
        let from = (from, Place::default());
        let units = self.of(pick);
        let firsts = units.filter_map(|units| units.range(from..).next());
        firsts.map(|(rank, _)| *rank).min()
    }

    /// The units of a rank.
    pub fn at_rank(&self, pick: Pick<'_>, rank: u8) -> impl Iterator<Item = Place> {
        let units = self.of(pick);
        units.flat_map(move |units| {
            let units = units.range((rank, Place::default())..);
            units
                .take_while(move |(other, _)| *other == rank)
                .map(|(_, place)| *place)
        })
    }
}
