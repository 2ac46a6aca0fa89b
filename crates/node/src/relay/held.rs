//! Attempts at the workers whose home this is.

use std::collections::{BTreeMap, BTreeSet};

use kapell_api::task::Report;
use kapell_api::worker::Holding;
use kapell_model::{NodeId, SessionId};

use super::Name;
use crate::lend::Takes;
use crate::members::Instant;

/// An attempt at a worker whose home this is.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) session: SessionId,
    /// Who handed it out, or owns its run by now.
    pub(super) from: NodeId,
    pub(super) attempt: u32,
    pub(super) takes: Takes,
    /// How it ended, as long as its owner has not taken that, and when it was said last.
    pub(super) end: Option<(Report, Instant)>,
}

/// All of them, by name and by session.
#[derive(Debug, Default)]
pub(super) struct All {
    held: BTreeMap<Name, Held>,
    at: BTreeMap<SessionId, BTreeSet<Name>>,
}

impl All {
    pub(super) fn knows(&self, name: &Name) -> bool {
        self.held.contains_key(name)
    }

    pub(super) fn get(&self, name: &Name) -> Option<&Held> {
        self.held.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &Name) -> Option<&mut Held> {
        self.held.get_mut(name)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Name, &mut Held)> {
        self.held.iter_mut()
    }

    pub(super) fn insert(&mut self, name: Name, held: Held) {
        self.at.entry(held.session).or_default().insert(name);
        if let Some(before) = self.held.insert(name, held) {
            let session = self.held.get(&name).map(|held| held.session);
            if session != Some(before.session) {
                self.leaves(before.session, &name);
            }
        }
    }

    pub(super) fn remove(&mut self, name: &Name) {
        if let Some(held) = self.held.remove(name) {
            self.leaves(held.session, name);
        }
    }

    fn leaves(&mut self, session: SessionId, name: &Name) {
        if let Some(names) = self.at.get_mut(&session) {
            names.remove(name);
            if names.is_empty() {
                self.at.remove(&session);
            }
        }
    }

    /// What is at a session, ends that were not taken among it.
    pub(super) fn names_at(&self, session: SessionId) -> Vec<Name> {
        let names = self.at.get(&session).into_iter().flatten();
        names.copied().collect()
    }

    /// What is at a session, whoever owns the runs: who that is may just change.
    pub(super) fn holdings_at(&self, session: SessionId) -> Vec<Holding> {
        let names = self.at.get(&session).into_iter().flatten();
        let held = names.filter_map(|name| Some((name, self.held.get(name)?)));
        let holding = |(name, held): (&Name, &Held)| Holding {
            run: name.0,
            place: name.1,
            offer: name.2,
            attempt: held.attempt,
            light: held.takes.light,
            needs: held.takes.needs.clone(),
        };
        held.map(holding).collect()
    }

    /// What has not ended at a session leaves it.
    pub(super) fn take_open_at(&mut self, session: SessionId) -> Vec<Name> {
        let mut names = self.names_at(session);
        names.retain(|name| self.held.get(name).is_some_and(|held| held.end.is_none()));
        for name in &names {
            self.remove(name);
        }
        names
    }
}
