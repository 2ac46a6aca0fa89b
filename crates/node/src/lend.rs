//! How much of its workers' room a node lends to each node of its cluster.
//!
//! A worker is connected to one node, its home, and takes attempts of runs whatever node owns them. The home lends
//! the slots of its workers to the nodes, and each grants within what it was lent: nobody asks before each attempt.
//! A slot is lent to one node at a time; what nobody was lent is the home's own.
//!
//! - **Who gets how much** is counted over all workers that are alike ([`Kind`]). A node has what it has in flight
//!   there, and claims besides as much as waits with it. The most urgent work is served first, and of equally
//!   urgent the node that has least: so all come to an even share as attempts end. Where slots are fewer than nodes
//!   they go in turn, to whoever waited longest ([`fill`]). Where all have several, one more or less stays as it
//!   is ([`EVEN`]).
//! - **Which slots** a node has stays as it is: one moves only from a node that has more than its part to one that
//!   has less, and only if it lies idle. So what is said follows what moves, whatever number of nodes and workers
//!   there is, and where nobody waits nothing is said. A node gets slots at the workers where it has fewest.
//! - **What was in use a moment ago** counts as claimed ([`HOLD`]), so that the next step of a node finds the slot
//!   of the one before, and what was lent a moment ago is not given to others before it can be used. More urgent
//!   work takes both all the same.
//! - **What a node does not use** although it waits ([`PATIENCE`]) does not fit what waits: others may have it, and
//!   the node gets others, more each time. A worker that did not fit is tried again later.
//! - **Room for what starts nothing** is only a bound on what is under way. Each node has an even part of it always.
//! - **Resources** of a worker that are in use by others are said to nodes that have a slot there. One that has none
//!   is told once what the worker has in all, which says what would fit.
//!
//! Counts are exact here, since attempts go out and come back through the home. What a node was lent a moment ago it
//! may still use while less is said: the worker itself then lets the attempt wait, and it counts as in flight. Where
//! attempts end so fast that more are handed out ahead than there are slots, what a node was lent can be withdrawn
//! at once.
//!
//! - **Crash** of a home: nothing is kept here; the next home of a worker begins with all of its room. **Of a node**
//!   that was lent room: what it has in flight counts as its own until somebody takes it over.
//! - **Full disk, slow store**: attempts end later; nothing else.
//! - **Slow link**: what is withdrawn is used a little longer.
//! - **Clock jump**: times are given, on a clock that does not jump.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kapell_api::task::{Custom, TaskResources};
use kapell_api::worker::Queues;
use kapell_engine::run::room::Labels;
use kapell_model::{NodeId, SessionId};

use crate::lane::Seat;
use crate::members::Instant;
use part::Part;

mod fill;
mod part;
mod share;
#[cfg(test)]
mod tests;

/// What a node has waiting: how many attempts by queue and priority, roughly.
pub type Wants = BTreeMap<(Arc<str>, u8), u32>;

/// What was in use so long ago at most counts as claimed: the report of an end, its commit and the offer of the
/// next step fit in it, and nobody else waits long for what is used no more.
const HOLD: Duration = Duration::from_millis(200);

/// Of those that have so many nobody gives one to another that has one less: it would be words for little.
const EVEN: usize = 4;

/// What a node that waits has not used for so long does not fit what waits: an offer takes less, but for stores
/// and links that are very slow.
const PATIENCE: Duration = Duration::from_millis(500);

/// A worker that did not fit is tried again after so long at first, and at last.
const UNFIT: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(16)];

/// The priority of what a node runs that never said what it wants.
const USUAL: u8 = 50;

/// What an attempt takes at a worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Takes {
    /// It starts nothing.
    pub light: bool,
    /// What it asks for.
    pub needs: TaskResources,
}

/// What workers have in common whose slots are as good as each other's.
#[derive(Clone, Debug, PartialEq)]
struct Kind {
    queues: Queues,
    labels: Labels,
    spot: bool,
    gpus: u32,
    custom: Custom,
}

impl Kind {
    fn of(seat: &Seat) -> Self {
        Self {
            queues: seat.queues.clone(),
            labels: Arc::clone(&seat.labels),
            spot: seat.spot,
            gpus: seat.total.gpus,
            custom: seat.total.custom.clone(),
        }
    }
}

/// A worker.
#[derive(Debug)]
struct Lent {
    seat: Seat,
    class: u64,
    parts: BTreeMap<NodeId, Part>,
    told: BTreeMap<NodeId, Seat>,
}

/// A node, as workers of one kind know it.
#[derive(Debug, Default)]
struct Standing {
    used: usize,
    /// The most that it used in this span of [`HOLD`] and in the one before, and when this one began.
    peaks: [usize; 2],
    since: Instant,
    /// Orders those that have the same: the lowest has waited longest for its turn. And since when it has it.
    turn: u64,
    turn_at: Option<Instant>,
    /// When it was lent a slot of others.
    gained_at: Option<Instant>,
    /// Of what it wanted last.
    priority: Option<u8>,
}

impl Standing {
    fn uses(&mut self, used: usize, now: Instant) {
        self.pass(now);
        self.used = used;
        self.peaks[0] = self.peaks[0].max(used);
    }

    /// It was lent a slot of others.
    fn gains(&mut self, number: u64, now: Instant) {
        self.gained_at = Some(now);
        self.turn = number;
        self.turn_at = Some(now);
    }

    /// An attempt of its begins, which is another turn if it has this one for long.
    fn takes(&mut self, number: u64, now: Instant) {
        if self.turn_at.is_none_or(|at| at.plus(HOLD) <= now) {
            self.turn = number;
            self.turn_at = Some(now);
        }
        self.uses(self.used + 1, now);
    }

    fn pass(&mut self, now: Instant) {
        if self.since.plus(HOLD) <= now {
            let recent = self.since.plus(HOLD * 2) > now;
            self.peaks[1] = if recent { self.peaks[0] } else { self.used };
            self.peaks[0] = self.used;
            self.since = now;
        }
    }

    /// The most that it used lately.
    fn recent(&self) -> usize {
        self.peaks[0].max(self.peaks[1])
    }
}

/// Workers of one kind.
#[derive(Debug)]
struct Class {
    kind: Kind,
    sessions: BTreeSet<SessionId>,
    standings: BTreeMap<NodeId, Standing>,
    /// Something changed by which slots may move.
    stirred: bool,
}

/// What waits in one queue with one priority.
#[derive(Debug)]
struct Wanting {
    waits: u32,
    since: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct Lender {
    home: NodeId,
    now: Instant,
    nodes: BTreeSet<NodeId>,
    sessions: BTreeMap<SessionId, Lent>,
    classes: BTreeMap<u64, Class>,
    /// Counts classes that were made, and turns.
    made: u64,
    turns: u64,
    wants: BTreeMap<NodeId, BTreeMap<(Arc<str>, u8), Wanting>>,
    /// Queues that are for workers which name them.
    named: BTreeSet<Arc<str>>,
    /// Who may have to be told something of which worker.
    unsaid: BTreeSet<(SessionId, NodeId)>,
}

impl Lender {
    /// That of a node without workers.
    pub fn new(home: NodeId) -> Self {
        Self {
            home,
            now: Instant::default(),
            nodes: BTreeSet::from([home]),
            sessions: BTreeMap::new(),
            classes: BTreeMap::new(),
            made: 0,
            turns: 0,
            wants: BTreeMap::new(),
            named: BTreeSet::new(),
            unsaid: BTreeSet::new(),
        }
    }

    /// Time passes.
    pub fn pass(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// It is time to look whether slots are used no more, or were never.
    pub fn tick(&mut self) {
        if self.wants.is_empty() {
            return;
        }
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.balance(id);
        }
        for class in self.classes.values_mut() {
            class.stirred = true;
        }
    }

    /// What a worker has room for from now on.
    pub fn set(&mut self, session: SessionId, seat: Seat) {
        let kind = Kind::of(&seat);
        let class = self.class_of(kind);
        match self.sessions.get_mut(&session) {
            Some(lent) if lent.class == class => lent.seat = seat,
            Some(_) => {
                let before = self.remove_from_class(session);
                if let Some(before) = before {
                    self.put(
                        session,
                        Lent {
                            seat,
                            class,
                            ..before
                        },
                    );
                }
            }
            None => {
                let lent = Lent {
                    seat,
                    class,
                    parts: BTreeMap::new(),
                    told: BTreeMap::new(),
                };
                self.put(session, lent);
            }
        }
        self.say_anew(session);
        self.balance(session);
    }

    fn class_of(&mut self, kind: Kind) -> u64 {
        let mut classes = self.classes.iter();
        if let Some((id, _)) = classes.find(|(_, class)| class.kind == kind) {
            return *id;
        }
        self.made += 1;
        let class = Class {
            kind,
            sessions: BTreeSet::new(),
            standings: BTreeMap::new(),
            stirred: true,
        };
        self.classes.insert(self.made, class);
        self.made
    }

    fn put(&mut self, session: SessionId, lent: Lent) {
        if let Some(class) = self.classes.get_mut(&lent.class) {
            class.sessions.insert(session);
            for (node, part) in &lent.parts {
                let standing = class.standings.entry(*node).or_default();
                standing.uses(standing.used + part.used, self.now);
            }
        }
        self.sessions.insert(session, lent);
    }

    fn remove_from_class(&mut self, session: SessionId) -> Option<Lent> {
        let lent = self.sessions.remove(&session)?;
        if let Some(class) = self.classes.get_mut(&lent.class) {
            class.sessions.remove(&session);
            for (node, part) in &lent.parts {
                if let Some(standing) = class.standings.get_mut(node) {
                    standing.uses(standing.used.saturating_sub(part.used), self.now);
                }
            }
            if class.sessions.is_empty() {
                self.classes.remove(&lent.class);
            }
        }
        Some(lent)
    }

    /// A worker is gone.
    pub fn remove(&mut self, session: SessionId) {
        self.remove_from_class(session);
    }

    /// Queues that are for workers which name them, wherever those are.
    pub fn name(&mut self, queues: BTreeSet<Arc<str>>) {
        if self.named != queues {
            self.named = queues;
            self.stir();
        }
    }

    fn stir(&mut self) {
        for class in self.classes.values_mut() {
            class.stirred = true;
        }
    }

    /// What a node has waiting.
    pub fn wants(&mut self, node: NodeId, wants: Wants) {
        let mut before = self.wants.remove(&node).unwrap_or_default();
        let now = self.now;
        let wants = wants.into_iter().map(|(what, waits)| {
            let since = before.remove(&what).map_or(now, |before| before.since);
            (what, Wanting { waits, since })
        });
        let wants: BTreeMap<_, _> = wants.collect();
        if !wants.is_empty() {
            self.wants.insert(node, wants);
        }
        self.stir();
    }

    /// A node is no longer there: it wants nothing until it says so, is lent nothing, and is told everything again.
    pub fn forget(&mut self, node: NodeId) {
        self.wants.remove(&node);
        self.untold_node(node);
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            let part = self.sessions.get_mut(&id);
            if let Some(part) = part.and_then(|lent| lent.parts.get_mut(&node)) {
                part.lent = 0;
                self.balance(id);
            }
        }
    }

    /// A node may have missed what it was told: it is told everything again.
    pub fn untold_node(&mut self, node: NodeId) {
        for (id, lent) in &mut self.sessions {
            lent.told.remove(&node);
            self.unsaid.insert((*id, node));
        }
    }

    /// A node was told of a worker anew, and that it has no room.
    pub fn untold(&mut self, session: SessionId, node: NodeId) {
        if let Some(lent) = self.sessions.get_mut(&session) {
            lent.told.remove(&node);
            self.unsaid.insert((session, node));
        }
    }

    /// An attempt of a node's goes to a worker.
    pub fn takes(&mut self, session: SessionId, node: NodeId, takes: &Takes) {
        if takes.light {
            return;
        }
        self.turns += 1;
        let (now, turn) = (self.now, self.turns);
        self.change(session, node, |part, standing| {
            part.used += 1;
            part.unfit = None;
            part.moved_at = now;
            part.resources = std::mem::take(&mut part.resources).more(&takes.needs);
            standing.takes(turn, now);
        });
        self.resources_changed(session, &takes.needs);
        self.balance(session);
    }

    /// An attempt of a node's has left a worker.
    pub fn gives_back(&mut self, session: SessionId, node: NodeId, takes: &Takes) {
        if takes.light {
            return;
        }
        let now = self.now;
        self.change(session, node, |part, standing| {
            part.used = part.used.saturating_sub(1);
            part.moved_at = now;
            part.gained_at = None;
            part.ends(now);
            part.resources = std::mem::take(&mut part.resources).less(&takes.needs);
            standing.uses(standing.used.saturating_sub(1), now);
        });
        self.resources_changed(session, &takes.needs);
        self.balance(session);
    }

    /// An attempt is another node's from now on.
    pub fn passes_on(&mut self, session: SessionId, (from, to): (NodeId, NodeId), takes: &Takes) {
        if takes.light {
            return;
        }
        let now = self.now;
        self.change(session, from, |part, standing| {
            part.used = part.used.saturating_sub(1);
            part.resources = std::mem::take(&mut part.resources).less(&takes.needs);
            standing.uses(standing.used.saturating_sub(1), now);
        });
        self.change(session, to, |part, standing| {
            part.used += 1;
            part.resources = std::mem::take(&mut part.resources).more(&takes.needs);
            standing.uses(standing.used + 1, now);
        });
        self.resources_changed(session, &takes.needs);
        self.balance(session);
    }

    fn change(
        &mut self,
        session: SessionId,
        node: NodeId,
        change: impl FnOnce(&mut Part, &mut Standing),
    ) {
        let Some(lent) = self.sessions.get_mut(&session) else {
            return;
        };
        let Some(class) = self.classes.get_mut(&lent.class) else {
            return;
        };
        let part = lent.parts.entry(node).or_default();
        change(part, class.standings.entry(node).or_default());
    }

    /// What others may take of a worker has changed.
    fn resources_changed(&mut self, session: SessionId, needs: &TaskResources) {
        if *needs == TaskResources::default() {
            return;
        }
        if let Some(lent) = self.sessions.get(&session) {
            let parts = lent.parts.iter().filter(|(_, part)| part.lent > 0);
            self.unsaid.extend(parts.map(|(node, _)| (session, *node)));
        }
    }

    fn say_anew(&mut self, session: SessionId) {
        let all = self.nodes.iter().map(|node| (session, *node));
        self.unsaid.extend(all);
    }

    /// What is to be said to whom: for each of these nodes what it may use of each worker, where that is
    /// other than it was told last.
    pub fn settle(&mut self, nodes: &BTreeSet<NodeId>) -> Vec<(NodeId, SessionId, Seat)> {
        if self.nodes != *nodes {
            self.nodes.clone_from(nodes);
            for (id, lent) in &mut self.sessions {
                lent.told.retain(|node, _| nodes.contains(node));
                self.unsaid.extend(nodes.iter().map(|node| (*id, *node)));
            }
            for class in self.classes.values_mut() {
                let standings = &mut class.standings;
                standings.retain(|node, standing| nodes.contains(node) || standing.used > 0);
            }
            self.stir();
        }
        let stirred = self.classes.iter().filter(|(_, class)| class.stirred);
        for id in stirred.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.share_out(id);
        }
        let mut words = Vec::new();
        for (session, node) in std::mem::take(&mut self.unsaid) {
            let Some(lent) = self.sessions.get_mut(&session) else {
                continue;
            };
            if !nodes.contains(&node) {
                continue;
            }
            let seat = lent.seat_of(node, nodes.len());
            if lent.told.get(&node) != Some(&seat) {
                lent.told.insert(node, seat.clone());
                words.push((node, session, seat));
            }
        }
        words
    }
}

impl Lent {
    /// What a node may have in flight at the worker, as one of so many.
    fn seat_of(&self, node: NodeId, nodes: usize) -> Seat {
        let lent = self.parts.get(&node).map_or(0, |part| part.lent);
        Seat {
            process_window: lent,
            light_window: light(self.seat.light_window, nodes),
            share: if lent == 0 {
                self.seat.total.clone()
            } else {
                self.left_by_others(node)
            },
            ..self.seat.clone()
        }
    }

    fn left_by_others(&self, node: NodeId) -> TaskResources {
        let mut resources = self.seat.total.clone();
        for (_, part) in self.parts.iter().filter(|(other, _)| **other != node) {
            resources = resources.less(&part.resources);
        }
        if self.seat.total.is_all() {
            TaskResources::all_with(resources.custom)
        } else {
            resources
        }
    }
}

/// The part of each of so many nodes. It changes where their number passes a power of two: few are told anew
/// when one comes or goes.
fn light(window: usize, nodes: usize) -> usize {
    let part = window / nodes.next_power_of_two();
    part.max(usize::from(window > 0))
}
