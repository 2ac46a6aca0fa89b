//! Backfills that start nothing now: those of their runs that wait stay where they stand, and others go
//! past them.
//!
//! A backfill says so when it is paused, blocked, or goes on. That a run failed under
//! `strict_sequential` the queue hears with its end, before it admits the next one, and it does not wait
//! for the backfill to say it. A run that is to start again is held by nobody: somebody asked for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use kapell_model::RunId;
use serde::{Deserialize, Serialize};

use super::event::Kind;
use super::{Deciding, Entry, Line, QueueEvent, RunQueue};

/// Why a backfill starts nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hold {
    /// Somebody paused it.
    Paused(String),
    /// This run of it failed.
    Blocked(RunId),
}

/// Backfills that start nothing, by their ids.
pub(super) type Holds = BTreeMap<Arc<str>, Hold>;

impl Hold {
    /// Why a run of this backfill waits, and what helps, for people.
    pub(super) fn why(&self, workflow: &str, backfill: &str) -> String {
        let resume = format!("`kapell backfill resume {workflow} {backfill}`");
        match self {
            Self::Paused(by) => {
                format!(
                    "the run waits: its backfill `{backfill}` was paused by {by}; {resume} lets it go on"
                )
            }
            Self::Blocked(run) => format!(
                "the run waits: run {run} of its backfill `{backfill}` failed; `kapell retry {run}` or \
                 {resume} lets it go on"
            ),
        }
    }

    /// What is stored of it: the run, if it is one, and who.
    pub(super) fn stored(&self) -> (Vec<u8>, String) {
        match self {
            Self::Paused(by) => (Vec::new(), by.clone()),
            Self::Blocked(run) => (run.to_bytes().to_vec(), String::new()),
        }
    }

    /// Reads [`Hold::stored`].
    pub(super) fn read(run: &[u8], by: &str) -> Self {
        if run.is_empty() {
            Self::Paused(by.to_owned())
        } else {
            Self::Blocked(crate::event::run_id(run))
        }
    }
}

/// Why an entry stays where it stands.
pub(super) fn held<'a>(holds: &'a Holds, entry: &Entry) -> Option<&'a Hold> {
    holds.get(entry.backfill.as_ref()?).filter(|_| !entry.again)
}

impl Line {
    /// Who starts next.
    pub(super) fn next(&self, holds: &Holds) -> Option<&Entry> {
        let mut waiting = self.waiting.iter();
        waiting.find(|entry| held(holds, entry).is_none())
    }
}

impl RunQueue {
    /// True if a run that waits is of a backfill that starts nothing.
    pub fn is_held(&self, run: RunId) -> bool {
        let line = self.runs.get(&run).and_then(|key| self.lines.get(key));
        let entry = line.and_then(|line| line.waiting.iter().find(|entry| entry.run == run));
        entry.is_some_and(|entry| held(&self.holds, entry).is_some())
    }
}

impl Deciding<'_> {
    /// A backfill starts nothing, or goes on.
    pub(super) fn hold(&mut self, backfill: &Arc<str>, hold: Option<&Hold>) {
        if self.queue.holds.get(backfill) == hold {
            return;
        }
        let (run, by) = hold.map(Hold::stored).unwrap_or_default();
        let kind = if hold.is_some() {
            Kind::Held
        } else {
            Kind::Freed
        };
        self.happened(QueueEvent {
            at: self.now.0,
            kind: kind as u32,
            run,
            by,
            backfill: backfill.to_string(),
            ..QueueEvent::default()
        });
    }

    /// A run of a backfill failed that is to keep back those after it.
    pub(super) fn hold_rest(&mut self, backfill: &Arc<str>, failed: RunId) {
        let is = |entry: &Entry| entry.backfill.as_ref() == Some(backfill) && !entry.again;
        let waits = |line: &Line| line.waiting.iter().any(is);
        if !self.queue.holds.contains_key(backfill) && self.queue.lines.values().any(waits) {
            self.hold(backfill, Some(&Hold::Blocked(failed)));
        }
    }
}
