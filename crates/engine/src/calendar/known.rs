//! What was found out last about a calendar: a schedule asks for the same few due times again and again, and each
//! search of a cron expression costs more than all else of a start.

use std::sync::{Mutex, PoisonError};

use kapell_model::Time;

/// No due time lies between these, both left out.
#[derive(Clone, Copy, Debug, Default)]
struct Gap {
    from: Time,
    from_is_due: bool,
    to: Time,
    to_is_due: bool,
}

impl Gap {
    /// Where one ends and the next begins, both know whether something is due.
    fn meets(&mut self, next: &mut Self) {
        if self.to == next.from {
            self.to_is_due |= next.from_is_due;
            next.from_is_due = self.to_is_due;
        }
    }

    /// Both in one, if they overlap.
    fn with(self, other: Self) -> Option<Self> {
        if self.from.max(other.from) >= self.to.min(other.to) {
            return None;
        }
        let (first, second) = if self.from <= other.from {
            (self, other)
        } else {
            (other, self)
        };
        let (last, before) = if self.to >= other.to {
            (self, other)
        } else {
            (other, self)
        };
        Some(Self {
            from: first.from,
            from_is_due: first.from_is_due || first.from == second.from && second.from_is_due,
            to: last.to,
            to_is_due: last.to_is_due || last.to == before.to && before.to_is_due,
        })
    }
}

/// The gap before the due time that matters now, and the one after.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<[Gap; 2]>);

impl Known {
    /// The first due time after an instant, searched if it is not known.
    pub(super) fn next(&self, after: Time, search: impl FnOnce() -> Option<Time>) -> Option<Time> {
        let known = self.find(|gap| gap.to_is_due && gap.from <= after && after < gap.to);
        if let Some(gap) = known {
            return Some(gap.to);
        }
        let due = search()?;
        self.learn(Gap {
            from: after,
            from_is_due: false,
            to: due,
            to_is_due: true,
        });
        Some(due)
    }

    /// The last due time before an instant, searched if it is not known.
    pub(super) fn previous(
        &self,
        before: Time,
        search: impl FnOnce() -> Option<Time>,
    ) -> Option<Time> {
        let known = self.find(|gap| gap.from_is_due && gap.from < before && before <= gap.to);
        if let Some(gap) = known {
            return Some(gap.from);
        }
        let due = search()?;
        self.learn(Gap {
            from: due,
            from_is_due: true,
            to: before,
            to_is_due: false,
        });
        Some(due)
    }

    /// A search has found that there is nothing in between.
    fn learn(&self, mut gap: Gap) {
        let mut gaps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut other = None;
        for known in *gaps {
            match gap.with(known) {
                Some(both) => gap = both,
                None => other = other.or(Some(known)),
            }
        }
        let mut other = other.unwrap_or_default();
        gap.meets(&mut other);
        other.meets(&mut gap);
        *gaps = [gap, other];
    }

    fn find(&self, fits: impl Fn(&Gap) -> bool) -> Option<Gap> {
        let gaps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gaps.iter().copied().find(fits)
    }
}

/// A copy finds out for itself.
impl Clone for Known {
    fn clone(&self) -> Self {
        Self::default()
    }
}
