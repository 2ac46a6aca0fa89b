//! Which due times have a run that succeeded, failed, or has not ended.
//!
//! Due times are instants: what is known of them stays known when the definition changes. Those that
//! succeeded are kept as stretches, which mean every due time from the first to the last; under another
//! calendar the same stretch would mean others, so it is cut where they differ.

use kapell_model::{Time, limits};

use super::fact::Ended;
use super::state::{State, Stretch};
use crate::calendar::Calendar;

impl State {
    pub(super) fn ended(&mut self, ended: &Ended) {
        let due = ended.due;
        remove(&mut self.open, due);
        let place = self.succeeded.partition_point(|known| known.last < due);
        let known = self.succeeded.get(place);
        if known.is_some_and(|known| known.first <= due) {
            return;
        }
        if !ended.succeeded {
            insert(&mut self.failed, due, limits::DUE_FAILURES);
            return;
        }
        remove(&mut self.failed, due);
        let (mut first, mut last) = (due, due);
        let mut place = place;
        if let Some(after) = self.succeeded.get(place)
            && ended.after == Some(after.first)
        {
            last = after.last;
            self.succeeded.remove(place);
        }
        if place > 0 && ended.before == Some(self.succeeded[place - 1].last) {
            place -= 1;
            first = self.succeeded[place].first;
            self.succeeded.remove(place);
        }
        self.succeeded.insert(place, Stretch { first, last });
        if self.succeeded.len() > limits::DUE_STRETCHES {
            self.succeeded.remove(0);
        }
    }

    /// True if a run for this due time is known to have succeeded.
    pub(super) fn has_succeeded(&self, due: Time) -> bool {
        let place = self.succeeded.partition_point(|known| known.last < due.0);
        let known = self.succeeded.get(place);
        known.is_some_and(|known| known.first <= due.0)
    }

    /// True if a run for this due time has not ended.
    pub(super) fn is_open(&self, due: Time) -> bool {
        self.open.binary_search(&due.0).is_ok()
    }

    /// True if a run for this due time is known, none of which succeeded.
    pub(super) fn has_failed(&self, due: Time) -> bool {
        self.failed.binary_search(&due.0).is_ok()
    }
}

/// Puts a due time in its place; the oldest goes if there are too many.
pub(super) fn insert(times: &mut Vec<i64>, due: i64, most: usize) {
    if let Err(place) = times.binary_search(&due) {
        times.insert(place, due);
    }
    if times.len() > most {
        times.remove(0);
    }
}

pub(super) fn remove(times: &mut Vec<i64>, due: i64) -> bool {
    let place = times.binary_search(&due);
    place.is_ok_and(|place| {
        times.remove(place);
        true
    })
}

/// The same due times under another calendar: stretches within which both have the same due times, or at
/// least the new one has none that the old one has not. Without the old calendar only single ones can be
/// told. The oldest are forgotten once [`limits::DUE_CARRIED`] were looked at.
pub(super) fn carried(
    known: &[Stretch],
    old: Option<&Calendar>,
    new: Option<&Calendar>,
) -> Vec<Stretch> {
    if let (Some(old), Some(new)) = (old, new)
        && old.has_the_times_of(new)
    {
        return known.to_vec();
    }
    let (old, new) = (
        old.map(Calendar::without_bounds),
        new.map(Calendar::without_bounds),
    );
    let mut found = Vec::new();
    let mut left = limits::DUE_CARRIED;
    for stretch in known.iter().rev() {
        let (mut first, mut last) = (stretch.last, stretch.last);
        while first > stretch.first && left > 0 {
            left -= 1;
            let before = old.as_ref().and_then(|old| old.previous(Time(first)));
            let Some(before) = before.filter(|before| before.0 >= stretch.first) else {
                break;
            };
            let other = new.as_ref().map(|new| new.previous(Time(first)));
            // What only the old one has is kept by itself, in case it comes again; but not if that takes
            // the room of all the others. Without a calendar nothing can be said later.
            let alike = other.is_some_and(|other| {
                if found.len() < limits::DUE_STRETCHES / 2 {
                    other == Some(before)
                } else {
                    other.is_none_or(|other| other <= before)
                }
            });
            if !alike {
                found.push(Stretch { first, last });
                last = before.0;
            }
            first = before.0;
        }
        found.push(Stretch { first, last });
        if left == 0 {
            break;
        }
    }
    found.truncate(limits::DUE_STRETCHES);
    found.reverse();
    found
}
