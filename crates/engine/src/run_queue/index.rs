//! What a run queue looks up, so that it never walks its lines: which of them may start a run, whose
//! burst ends next, whom a failed run blocks. All of it follows from the lines, and is not stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kapell_model::spec::StrategyMode;
use kapell_model::{RunId, Time};

use super::Line;
use super::hold::Holds;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// Lines whose first run only `total` can keep from starting: by that, then by the run's turn.
    ready: BTreeMap<u32, BTreeMap<u64, Arc<str>>>,
    bursts: BTreeSet<(Time, Arc<str>)>,
    blocking: BTreeMap<RunId, Arc<str>>,
    marks: BTreeMap<Arc<str>, Marks>,
}

/// What is looked up of one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// `total` and turn of its first run, if its own line lets that start.
    ready: Option<(u32, u64)>,
    burst: Option<Time>,
    blocked: Option<RunId>,
}

impl Index {
    /// A line is so now.
    pub(super) fn set(&mut self, key: &Arc<str>, marks: Marks) {
        let before = self.marks.get(key).copied().unwrap_or_default();
        if before == marks {
            return;
        }
        if let Some((total, turn)) = before.ready
            && let Some(lines) = self.ready.get_mut(&total)
        {
            lines.remove(&turn);
            if lines.is_empty() {
                self.ready.remove(&total);
            }
        }
        if let Some(until) = before.burst {
            self.bursts.remove(&(until, key.clone()));
        }
        if let Some(run) = before.blocked {
            self.blocking.remove(&run);
        }
        if let Some((total, turn)) = marks.ready {
            let lines = self.ready.entry(total).or_default();
            lines.insert(turn, key.clone());
        }
        self.bursts
            .extend(marks.burst.map(|until| (until, key.clone())));
        self.blocking
            .extend(marks.blocked.map(|run| (run, key.clone())));
        if marks == Marks::default() {
            self.marks.remove(key);
        } else {
            self.marks.insert(key.clone(), marks);
        }
    }

    /// The line whose first run starts next while so many are active, and how many lines were looked
    /// at: one for each `total` that versions of the workflow name.
    pub(super) fn next(&self, active: u32) -> (Option<Arc<str>>, usize) {
        let free = self
            .ready
            .iter()
            .filter(|(total, _)| **total == 0 || active < **total);
        let first = free.filter_map(|(_, lines)| lines.first_key_value());
        let first = first.min_by_key(|(turn, _)| **turn);
        (first.map(|(_, key)| key.clone()), self.ready.len())
    }

    /// The burst that is over first.
    pub(super) fn burst(&self) -> Option<&(Time, Arc<str>)> {
        self.bursts.first()
    }

    /// Failed runs that block a line, and which.
    pub(super) fn blocking(&self) -> &BTreeMap<RunId, Arc<str>> {
        &self.blocking
    }
}

impl Line {
    pub(super) fn marks(&self, turns: &BTreeMap<RunId, u64>, holds: &Holds) -> Marks {
        let first = self.next(holds).filter(|entry| {
            let rule = entry.rule;
            let full = rule.limit > 0 && self.active.len() >= rule.limit as usize;
            let blocked = self.blocked.is_some_and(|run| run != entry.run);
            !(full || blocked && rule.mode == StrategyMode::StrictSequential)
        });
        Marks {
            ready: first.and_then(|entry| Some((entry.rule.total, *turns.get(&entry.run)?))),
            burst: self.burst.as_ref().map(|(_, _, until)| *until),
            blocked: self.blocked,
        }
    }
}
