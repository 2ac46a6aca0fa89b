//! Workers of one node among several: sessions come from other nodes and go to them.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use kapell_api::task::Report;
use kapell_api::worker::{Queues, proto};
use kapell_model::{Error, ErrorCode, SessionId, limits};
use kapell_node::drive::Node;
use kapell_node::lane::SessionChange;

use super::opening::deadline;
use super::session::{About, Session, named};
use super::{OwnQueues, Workers, stored};
use crate::relaying::Relaying;

impl Workers {
    /// Says something of a session to the node, or to all.
    pub(super) fn say(&self, id: SessionId, change: SessionChange) {
        match &self.relaying {
            Some(relaying) => relaying.session(id, change),
            None => self.node.session(id, change),
        }
    }

    /// Reports to the node, or to whoever owns the runs.
    pub(super) fn report(&self, reports: Vec<Report>) {
        match &self.relaying {
            Some(relaying) => relaying.reports(reports),
            None => self.node.reports(reports),
        }
    }

    /// A session whose home is another node, or one that is gone, has this one as its home from now on: its
    /// worker is here. Nothing changes for any other session.
    pub(super) fn adopt(
        &self,
        id: SessionId,
        about: &About,
        hello: &proto::Hello,
    ) -> Result<(), Error> {
        if self.relaying.is_none() || id.0 == 0 || self.sessions.lock().contains_key(&id) {
            return Ok(());
        }
        let Some(before) = stored::find(&*self.store, id)? else {
            return Ok(());
        };
        // Its worker has come to another node since.
        let outdated = hello.same_process && hello.number < before.hello;
        if before.inside != about.inside || outdated {
            return Ok(());
        }
        let about = About {
            opened_at: before.opened_at,
            ..about.clone()
        };
        // Before the first task: nodes after this one must know where it is.
        stored::write(&*self.store, id, &about)?;
        let mut sessions = self.sessions.lock();
        if let Entry::Vacant(place) = sessions.entry(id) {
            let lease = self.lease_of(&about);
            let mut session = Session::new(about, deadline(lease), true);
            session.follows(hello.received);
            place.insert(session);
        }
        Ok(())
    }

    /// A worker names queues, or will: from now on they are for workers that do.
    pub(crate) fn names(&self, queues: &Queues) -> Result<(), Error> {
        let (Queues::Named(queues), OwnQueues::NeverNamed) = (queues, &self.settings.own) else {
            return Ok(());
        };
        let mut named = self.named.lock();
        if named.is_superset(queues) {
            return Ok(());
        }
        let mut all: BTreeSet<Arc<str>> = named.union(queues).cloned().collect();
        if self.relaying.is_some() {
            // Other nodes name some too.
            all.extend(stored::queues(&*self.store)?);
        }
        if all.len() > limits::WORKER_QUEUES {
            let message = format!("workers named {} queues", limits::WORKER_QUEUES);
            return Err(Error::new(ErrorCode::LimitReached, message)
                .hint("let workers share queues, and tell their steps apart by `resources`"));
        }
        stored::keep_queues(&*self.store, &all)?;
        keep_queues(&self.node, self.relaying.as_deref(), &all);
        *named = all;
        Ok(())
    }

    /// A worker of some node names queues.
    pub(crate) fn named_elsewhere(&self, queues: &Queues) {
        if let Err(error) = self.names(queues) {
            tracing::error!(%error, "queues that workers of other nodes name are not kept for them");
        }
    }

    /// True if the store says that a session has another home than this node, which may not have been heard yet.
    pub(super) fn has_moved(&self, id: SessionId) -> bool {
        let Some(relaying) = &self.relaying else {
            return false;
        };
        match stored::find(&*self.store, id) {
            Ok(Some(about)) => about.home != relaying.me(),
            Ok(None) => false,
            Err(error) => {
                tracing::warn!(%error, session = %id, "where a session is cannot be read");
                false
            }
        }
    }

    /// A session has another home now: whatever is said of it is said there.
    pub(crate) fn forget(&self, id: SessionId) {
        let mut sessions = self.sessions.lock();
        if self
            .relaying
            .as_ref()
            .is_some_and(|relaying| relaying.is_here(id))
        {
            // It has come back meanwhile.
            return;
        }
        if let Some(session) = sessions.remove(&id) {
            let worker = named(id, &session.about);
            tracing::info!(worker, "a worker is at another node now");
        }
    }

    /// A session came nowhere after its home was gone. A node that does not reach the store does not know who is
    /// there: the row stays, for the next one that takes over what it may hold.
    pub(crate) fn over_elsewhere(&self, id: SessionId) {
        let Some(relaying) = self.relaying.as_ref().filter(|_| self.node.may_act()) else {
            return;
        };
        let removed = match stored::find(&*self.store, id) {
            // It came to a node after all.
            Ok(Some(about)) if relaying.is_there(about.home) => Ok(()),
            Ok(None) => Ok(()),
            Ok(Some(about)) => {
                let worker = named(id, &about);
                tracing::warn!(worker, "the session of a worker is over with its node");
                stored::remove(&*self.store, id)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::error!(%error, session = %id, "the row of a session was not removed");
        }
    }
}

/// These queues are for workers that name them.
pub(super) fn keep_queues(node: &Node, relaying: Option<&Relaying>, names: &BTreeSet<Arc<str>>) {
    node.keep_queues(names.clone());
    if let Some(relaying) = relaying {
        relaying.keep_queues(names.clone());
    }
}
