//! How much of its workers' room a node lends to each node of its cluster.
//!
//! A worker is connected to one node, its home, and takes attempts of runs whatever node owns them. The home
//! splits what each of its workers has room for among the nodes that want some in a queue which the worker serves:
//! the nodes whose work has the highest priority share it evenly, whatever others have in flight there counts
//! against it, and where nobody wants anything it stays at home. A node grants within what it was lent, so of
//! two nodes that both have the most urgent work each has its half, and nobody asks before each attempt.
//!
//! Counts are exact here, since attempts go out and come back through the home. What a node was lent a moment
//! ago it may still use while less is said: the worker itself then lets the attempt wait for a place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kapell_api::task::TaskResources;
use kapell_api::worker::Queues;
use kapell_model::{NodeId, SessionId};

use crate::lane::Seat;

/// What a node has waiting: the highest priority in each queue.
pub type Wants = BTreeMap<Arc<str>, u8>;

/// What an attempt takes at a worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Takes {
    /// It starts nothing.
    pub light: bool,
    /// What it asks for.
    pub needs: TaskResources,
}

/// What a node has in flight at a worker.
#[derive(Clone, Debug, Default, PartialEq)]
struct Used {
    processes: usize,
    lights: usize,
    resources: TaskResources,
}

#[derive(Debug)]
struct Lent {
    seat: Seat,
    used: BTreeMap<NodeId, Used>,
    told: BTreeMap<NodeId, Seat>,
}

/// See the module.
#[derive(Debug)]
pub struct Lender {
    home: NodeId,
    sessions: BTreeMap<SessionId, Lent>,
    wants: BTreeMap<NodeId, Wants>,
    /// Queues that are for workers which name them.
    named: BTreeSet<Arc<str>>,
}

impl Lender {
    /// That of a node without workers.
    pub fn new(home: NodeId) -> Self {
        Self {
            home,
            sessions: BTreeMap::new(),
            wants: BTreeMap::new(),
            named: BTreeSet::new(),
        }
    }

    /// What a worker has room for from now on.
    pub fn set(&mut self, session: SessionId, seat: Seat) {
        if let Some(lent) = self.sessions.get_mut(&session) {
            lent.seat = seat;
            return;
        }
        let lent = Lent {
            seat,
            used: BTreeMap::new(),
            told: BTreeMap::new(),
        };
        self.sessions.insert(session, lent);
    }

    /// A worker is gone.
    pub fn remove(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    /// Queues that are for workers which name them, wherever those are.
    pub fn name(&mut self, queues: BTreeSet<Arc<str>>) {
        self.named = queues;
    }

    /// What a node has waiting.
    pub fn wants(&mut self, node: NodeId, wants: Wants) {
        if wants.is_empty() {
            self.wants.remove(&node);
        } else {
            self.wants.insert(node, wants);
        }
    }

    /// A node is no longer there: it wants nothing until it says so, and is told everything again.
    pub fn forget(&mut self, node: NodeId) {
        self.wants.remove(&node);
        self.untold_node(node);
    }

    /// A node may have missed what it was told: it is told everything again.
    pub fn untold_node(&mut self, node: NodeId) {
        for lent in self.sessions.values_mut() {
            lent.told.remove(&node);
        }
    }

    /// A node was told of a worker anew, and that it has no room.
    pub fn untold(&mut self, session: SessionId, node: NodeId) {
        if let Some(lent) = self.sessions.get_mut(&session) {
            lent.told.remove(&node);
        }
    }

    /// An attempt of a node's goes to a worker.
    pub fn takes(&mut self, session: SessionId, node: NodeId, takes: &Takes) {
        if let Some(lent) = self.sessions.get_mut(&session) {
            let used = lent.used.entry(node).or_default();
            if takes.light {
                used.lights += 1;
            } else {
                used.processes += 1;
                used.resources = std::mem::take(&mut used.resources).more(&takes.needs);
            }
        }
    }

    /// An attempt of a node's has left a worker.
    pub fn gives_back(&mut self, session: SessionId, node: NodeId, takes: &Takes) {
        let lent = self.sessions.get_mut(&session);
        let Some(used) = lent.and_then(|lent| lent.used.get_mut(&node)) else {
            return;
        };
        if takes.light {
            used.lights = used.lights.saturating_sub(1);
        } else {
            used.processes = used.processes.saturating_sub(1);
            used.resources = std::mem::take(&mut used.resources).less(&takes.needs);
        }
    }

    /// What is to be said to whom: for each of these nodes what it may use of each worker, where that is
    /// other than it was told last.
    pub fn settle(&mut self, nodes: &BTreeSet<NodeId>) -> Vec<(NodeId, SessionId, Seat)> {
        let mut words = Vec::new();
        for (session, lent) in &mut self.sessions {
            let group = first(&lent.seat.queues, &self.wants, &self.named, nodes);
            let group = if group.is_empty() {
                BTreeSet::from([self.home])
            } else {
                group
            };
            for node in nodes {
                let seat = lent.share(*node, &group);
                if lent.told.get(node) != Some(&seat) {
                    lent.told.insert(*node, seat.clone());
                    words.push((*node, *session, seat));
                }
            }
            lent.told.retain(|node, _| nodes.contains(node));
        }
        words
    }
}

/// The nodes whose work in queues that a worker serves has the highest priority.
fn first(
    queues: &Queues,
    wants: &BTreeMap<NodeId, Wants>,
    named: &BTreeSet<Arc<str>>,
    nodes: &BTreeSet<NodeId>,
) -> BTreeSet<NodeId> {
    let serves = |queue: &Arc<str>| match queues {
        Queues::Named(names) => names.contains(queue),
        Queues::Others => !named.contains(queue),
    };
    let mut highest = None;
    let mut group = BTreeSet::new();
    for (node, wants) in wants.iter().filter(|(node, _)| nodes.contains(node)) {
        let served = wants.iter().filter(|(queue, _)| serves(queue));
        let Some(priority) = served.map(|(_, priority)| *priority).max() else {
            continue;
        };
        if highest.is_none_or(|highest| highest < priority) {
            highest = Some(priority);
            group.clear();
        }
        if highest == Some(priority) {
            group.insert(*node);
        }
    }
    group
}

impl Lent {
    /// What a node may have in flight at the worker, if these share it.
    fn share(&self, node: NodeId, group: &BTreeSet<NodeId>) -> Seat {
        let of_others = |count: fn(&Used) -> usize| -> usize {
            let others = self.used.iter().filter(|(other, _)| **other != node);
            others.map(|(_, used)| count(used)).sum()
        };
        let part = |window: usize, count: fn(&Used) -> usize| -> usize {
            if !group.contains(&node) {
                return 0;
            }
            let outside = self.used.iter().filter(|(other, _)| !group.contains(other));
            let outside: usize = outside.map(|(_, used)| count(used)).sum();
            // The first of them have one more where it does not come out even.
            let place = group.iter().take_while(|other| **other < node).count();
            let shared = window.saturating_sub(outside);
            let even = shared / group.len() + usize::from(place < shared % group.len());
            even.min(window.saturating_sub(of_others(count)))
        };
        let mut resources = self.seat.total.clone();
        let all = resources.is_all();
        for (_, used) in self.used.iter().filter(|(other, _)| **other != node) {
            resources = resources.less(&used.resources);
        }
        if all {
            resources = TaskResources::all_with(resources.custom);
        }
        Seat {
            process_window: part(self.seat.process_window, |used| used.processes),
            light_window: part(self.seat.light_window, |used| used.lights),
            share: resources,
            ..self.seat.clone()
        }
    }
}

#[cfg(test)]
mod tests;
