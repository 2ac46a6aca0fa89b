//! Attempts at workers of other nodes: what goes where, and what is said again.
//!
//! A worker is connected to one node, its home. Runs are owned by any node. Between the lane of this node, the
//! workers whose home it is and the other nodes stands this machine:
//!
//! ```text
//! lane --tasks--> relay --> workers here            workers here --reports--> relay --> lane
//!                   \--> the home of the session                               \--> the owner of the run
//! ```
//!
//! The home knows of each attempt at its workers which node handed it out ([`crate::lend`] counts by that), and
//! keeps the report of its end until the run's owner has taken it, whoever that is by then. The owner keeps what it
//! handed out until the home has it. So whatever a link loses is said again once it is open: attempts by name, so
//! that twice is once.
//!
//! A node that takes over shards asks every home what its workers hold of them, and until it has heard of a session
//! nothing that stood ready in its queues is granted. A home that was asked hands out nothing more of those shards
//! that an owner before had granted.
//!
//! - **Crash** of a home: its workers go to other nodes with what they hold; what a worker does not hold then was
//!   lost on the way. One that comes nowhere within its lease is over.
//! - **Crash** of an owner: the next one asks; reports wait here meanwhile.
//! - **Slow link**: bounded by what workers have room for, since nothing else is in flight.
//! - **Clock jump**: times are given, on a clock that does not jump.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kapell_api::task::{Outcome, Place, Report, Task, TaskEvent, TaskResources};
use kapell_api::worker::Queues;
use kapell_engine::run::room::Labels;
use kapell_model::{NodeId, Offer, RunId, SessionId, Shard, Time};
use kapell_store::Lease;

use crate::lane::{Seat, SessionChange};
use crate::lend::{Lender, Takes, Wants};
use crate::members::Instant;

mod home;
#[cfg(test)]
mod tests;

/// Names an attempt that was handed out.
pub type Name = (RunId, Place, Offer);

/// What nodes say to each other of workers.
#[derive(Clone, Debug)]
pub enum Word {
    /// Attempts for workers whose home the other is.
    Offer(Vec<Task>),
    /// These arrived.
    Got(Vec<Name>),
    /// These are to be stopped, wherever they are.
    Stop(Vec<Name>),
    /// What was reported of the ends of these is durable.
    Taken(Vec<Name>),
    /// What workers report of runs that the other owns.
    Reports(Vec<Report>),
    /// Something of a session whose home is who speaks.
    Session(SessionId, SessionChange),
    /// What waits for workers at who speaks.
    Wants(Wants),
    /// Who speaks owns these shards from now on: what do the other's workers hold of them?
    Took(Vec<(Shard, u64)>),
}

/// What is to be done.
#[derive(Debug)]
pub enum Output {
    /// Reports for the lane of this node.
    Reports(Vec<Report>),
    /// Something of a session for it.
    Session(SessionId, SessionChange),
    /// Attempts for the workers here.
    Offer(Vec<Task>),
    /// Attempts to be stopped there.
    Stop(Vec<Name>),
    /// Ends that need not be said again there.
    Taken(Vec<Name>),
    /// The session has another home now.
    Forget(SessionId),
    /// The session is over, and whoever keeps its row may remove it.
    Over(SessionId),
    /// Something for another node.
    Tell(NodeId, Word),
}

/// A session whose home this is.
#[derive(Debug)]
struct Home {
    queues: Queues,
    /// It has not said what it holds since the process began.
    unheard: bool,
}

/// A session whose home another is.
#[derive(Debug)]
struct Far {
    home: NodeId,
    queues: Queues,
    /// Its home is gone: it is over then, unless it comes to another.
    until: Option<Instant>,
}

/// An attempt at a worker whose home this is.
#[derive(Debug)]
struct Held {
    session: SessionId,
    /// Who handed it out, or owns its run by now.
    from: NodeId,
    attempt: u32,
    takes: Takes,
    /// How it ended, as long as its owner has not taken that, and when it was said last.
    end: Option<(Report, Instant)>,
}

/// Between two times that an end is said.
const AGAIN: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub struct Relay {
    me: NodeId,
    lease: Duration,
    now: Instant,
    wall: Time,
    /// The other nodes.
    nodes: BTreeSet<NodeId>,
    lender: Lender,
    homes: BTreeMap<SessionId, Home>,
    held: BTreeMap<Name, Held>,
    /// The epochs below which nothing of these shards is handed out any more.
    floors: BTreeMap<Shard, u64>,
    far: BTreeMap<SessionId, Far>,
    /// Handed out to workers of other homes, which have not said that it arrived.
    sent: BTreeMap<NodeId, BTreeMap<Name, Task>>,
    /// Ends that other homes reported and that are not taken yet.
    reported: BTreeMap<Name, NodeId>,
    /// What this node owns, with the epochs.
    owns: BTreeMap<Shard, u64>,
    wants: Wants,
    /// Who owns a shard.
    owner: Owners,
    out: Vec<Output>,
}

/// Says who owns a shard, or soon will.
struct Owners(Box<dyn Fn(Shard) -> Option<NodeId> + Send>);

impl fmt::Debug for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Owners")
    }
}

impl Relay {
    /// That of a node which knows of no other and has no workers. `lease` is that of workers' sessions.
    pub fn new(
        me: NodeId,
        lease: Duration,
        owner: Box<dyn Fn(Shard) -> Option<NodeId> + Send>,
    ) -> Self {
        Self {
            me,
            lease,
            now: Instant::default(),
            wall: Time(0),
            nodes: BTreeSet::new(),
            lender: Lender::new(me),
            homes: BTreeMap::new(),
            held: BTreeMap::new(),
            floors: BTreeMap::new(),
            far: BTreeMap::new(),
            sent: BTreeMap::new(),
            reported: BTreeMap::new(),
            owns: BTreeMap::new(),
            wants: Wants::new(),
            owner: Owners(owner),
            out: Vec::new(),
        }
    }

    /// What is to be done since this was asked last.
    pub fn outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }

    /// Time passes: on the steady clock, and the time of day.
    pub fn pass(&mut self, now: Instant, wall: Time) {
        self.now = self.now.max(now);
        self.wall = wall;
    }

    /// Ends that nobody took are said again; sessions that came nowhere are over.
    pub fn tick(&mut self) {
        let (now, again) = (self.now, AGAIN);
        let mut late: BTreeMap<NodeId, Vec<Report>> = BTreeMap::new();
        for (name, held) in &mut self.held {
            let Some((report, said_at)) = &mut held.end else {
                continue;
            };
            if said_at.plus(again) <= now {
                *said_at = now;
                let owner = (self.owner.0)(name.0.shard());
                late.entry(owner.unwrap_or(self.me))
                    .or_default()
                    .push(report.clone());
            }
        }
        for (node, reports) in late {
            self.report(node, reports);
        }
        let over: Vec<SessionId> = self
            .far
            .iter()
            .filter(|(_, far)| far.until.is_some_and(|until| until <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.far.remove(&id);
            self.out.push(Output::Session(id, SessionChange::Over));
            self.out.push(Output::Over(id));
        }
    }

    /// Which other nodes there are.
    pub fn nodes(&mut self, nodes: BTreeSet<NodeId>) {
        let gone: Vec<NodeId> = self.nodes.difference(&nodes).copied().collect();
        self.nodes = nodes;
        for node in gone {
            self.lender.forget(node);
            self.sent.remove(&node);
            let until = self.now.plus(self.lease);
            for (id, far) in self.far.iter_mut().filter(|(_, far)| far.home == node) {
                far.until = Some(until);
                let nothing = SessionChange::Seat(nothing(&far.queues));
                self.out.push(Output::Session(*id, nothing));
            }
        }
        self.settle();
    }

    /// The way to a node is open again: what it may have missed is said.
    pub fn opened(&mut self, node: NodeId) {
        self.lender.forget(node);
        let said = self.homes.iter().map(|(id, home)| {
            let change = if home.unheard {
                SessionChange::Unheard(home.queues.clone())
            } else {
                SessionChange::Open {
                    seat: nothing(&home.queues),
                    holds: self.holds_of(*id, node),
                    whole: false,
                }
            };
            Output::Tell(node, Word::Session(*id, change))
        });
        self.out.extend(said.collect::<Vec<_>>());
        let owns: Vec<(Shard, u64)> = self
            .owns
            .iter()
            .map(|(shard, epoch)| (*shard, *epoch))
            .collect();
        if !owns.is_empty() {
            self.out.push(Output::Tell(node, Word::Took(owns)));
        }
        self.out
            .push(Output::Tell(node, Word::Wants(self.wants.clone())));
        let sent = self.sent.get(&node).into_iter().flatten();
        let sent: Vec<Task> = sent.map(|(_, task)| task.clone()).collect();
        if !sent.is_empty() {
            self.out.push(Output::Tell(node, Word::Offer(sent)));
        }
        for held in self.held.values_mut() {
            if let Some((_, said_at)) = &mut held.end {
                // With the next tick.
                *said_at = Instant::default();
            }
        }
        self.settle();
    }

    // What the lane says.

    /// Attempts are handed out.
    pub fn offer(&mut self, tasks: Vec<Task>) {
        let mut here = Vec::new();
        let mut there: BTreeMap<NodeId, Vec<Task>> = BTreeMap::new();
        let mut lost = Vec::new();
        for task in tasks {
            if self.homes.contains_key(&task.session) {
                here.push(task);
                continue;
            }
            match self.far.get(&task.session) {
                Some(far) => {
                    let sent = self.sent.entry(far.home).or_default();
                    sent.insert((task.run, task.place, task.offer), task.clone());
                    there.entry(far.home).or_default().push(task);
                }
                None => lost.push(self.lost(&task)),
            }
        }
        self.hand_out(self.me, here);
        for (node, tasks) in there {
            self.out.push(Output::Tell(node, Word::Offer(tasks)));
        }
        if !lost.is_empty() {
            self.out.push(Output::Reports(lost));
        }
    }

    /// Attempts are to be stopped.
    pub fn stop(&mut self, names: &[Name]) {
        self.out.push(Output::Stop(names.to_vec()));
        let homes: BTreeSet<NodeId> = self.far.values().map(|far| far.home).collect();
        for node in homes {
            self.out
                .push(Output::Tell(node, Word::Stop(names.to_vec())));
        }
    }

    /// Ends that were reported are durable.
    pub fn taken(&mut self, names: &[Name]) {
        let mut here = Vec::new();
        let mut there: BTreeMap<NodeId, Vec<Name>> = BTreeMap::new();
        for name in names {
            match self.reported.remove(name) {
                Some(node) => there.entry(node).or_default().push(*name),
                None => here.push(*name),
            }
        }
        self.over(&here);
        for (node, names) in there {
            self.out.push(Output::Tell(node, Word::Taken(names)));
        }
    }

    /// The lane owns these from now on: every session may hold attempts of them, until it has said which.
    pub fn took(&mut self, leases: &[Lease]) {
        for lease in leases {
            self.owns.insert(lease.shard, lease.epoch);
        }
        let shards: Vec<(Shard, u64)> = leases
            .iter()
            .map(|lease| (lease.shard, lease.epoch))
            .collect();
        for (id, far) in &self.far {
            let change = SessionChange::Unheard(far.queues.clone());
            self.out.push(Output::Session(*id, change));
        }
        self.taken_over(self.me, &shards);
        for node in self.nodes.clone() {
            self.out
                .push(Output::Tell(node, Word::Took(shards.clone())));
        }
    }

    /// The lane owns these no more.
    pub fn gave(&mut self, shards: &[Shard]) {
        for shard in shards {
            self.owns.remove(shard);
        }
        self.reported
            .retain(|(run, ..), _| !shards.contains(&run.shard()));
    }

    /// What waits for workers here.
    pub fn wants(&mut self, wants: Wants) {
        self.wants = wants.clone();
        for node in self.nodes.clone() {
            self.out
                .push(Output::Tell(node, Word::Wants(wants.clone())));
        }
        self.lender.wants(self.me, wants);
        self.settle();
    }

    // What other nodes say.

    /// Another node speaks.
    pub fn hear(&mut self, node: NodeId, word: Word) {
        match word {
            Word::Offer(tasks) => {
                let names = tasks
                    .iter()
                    .map(|task| (task.run, task.place, task.offer))
                    .collect();
                self.out.push(Output::Tell(node, Word::Got(names)));
                self.hand_out(node, tasks);
            }
            Word::Got(names) => {
                if let Some(sent) = self.sent.get_mut(&node) {
                    for name in names {
                        sent.remove(&name);
                    }
                }
            }
            Word::Stop(names) => {
                let here = names
                    .into_iter()
                    .filter(|name| self.held.contains_key(name));
                let here: Vec<Name> = here.collect();
                if !here.is_empty() {
                    self.out.push(Output::Stop(here));
                }
            }
            Word::Taken(names) => self.over(&names),
            Word::Reports(reports) => {
                for report in &reports {
                    let name = (report.run, report.place, report.offer);
                    if matches!(report.event, TaskEvent::Ended { .. }) {
                        self.reported.insert(name, node);
                    }
                    if let Some(sent) = self.sent.get_mut(&node) {
                        sent.remove(&name);
                    }
                }
                self.out.push(Output::Reports(reports));
            }
            Word::Session(id, change) => self.far_session(node, id, change),
            Word::Wants(wants) => {
                self.lender.wants(node, wants);
                self.settle();
            }
            Word::Took(shards) => self.taken_over(node, &shards),
        }
    }

    fn far_session(&mut self, node: NodeId, id: SessionId, change: SessionChange) {
        let change = match change {
            SessionChange::Open { seat, holds, whole } => {
                if self.homes.remove(&id).is_some() {
                    self.lender.remove(id);
                    self.held.retain(|_, held| held.session != id);
                    self.out.push(Output::Forget(id));
                }
                let far = Far {
                    home: node,
                    queues: seat.queues.clone(),
                    until: None,
                };
                let before = self.far.insert(id, far).map(|far| far.home);
                // What went to its home before and does not come with it was lost on the way.
                let moved = before.is_none_or(|before| before != node);
                if let Some(sent) = before
                    .filter(|_| moved)
                    .and_then(|home| self.sent.get_mut(&home))
                {
                    sent.retain(|_, task| task.session != id);
                }
                SessionChange::Open {
                    seat,
                    holds,
                    whole: whole || moved,
                }
            }
            SessionChange::Unheard(queues) => {
                let far = Far {
                    home: node,
                    queues: queues.clone(),
                    until: None,
                };
                self.far.insert(id, far);
                SessionChange::Unheard(queues)
            }
            SessionChange::Over => {
                self.far.remove(&id);
                SessionChange::Over
            }
            change => {
                if self.far.get(&id).is_none_or(|far| far.home != node) {
                    // From a home before: the session has moved.
                    return;
                }
                change
            }
        };
        self.out.push(Output::Session(id, change));
    }

    fn report(&mut self, to: NodeId, reports: Vec<Report>) {
        if reports.is_empty() {
            return;
        }
        self.out.push(if to == self.me {
            Output::Reports(reports)
        } else {
            Output::Tell(to, Word::Reports(reports))
        });
    }

    fn say(&mut self, node: NodeId, id: SessionId, change: SessionChange) {
        self.out.push(if node == self.me {
            Output::Session(id, change)
        } else {
            Output::Tell(node, Word::Session(id, change))
        });
    }

    fn say_all(&mut self, id: SessionId, change: &SessionChange) {
        let all: Vec<NodeId> = self.nodes.iter().copied().chain([self.me]).collect();
        for node in all {
            self.say(node, id, change.clone());
        }
    }

    /// Says what is lent to whom, where that is new.
    fn settle(&mut self) {
        let all: BTreeSet<NodeId> = self.nodes.iter().copied().chain([self.me]).collect();
        for (node, id, seat) in self.lender.settle(&all) {
            self.say(node, id, SessionChange::Seat(seat));
        }
    }

    /// An attempt whose worker was gone before it began.
    fn lost(&self, task: &Task) -> Report {
        Report {
            run: task.run,
            place: task.place,
            offer: task.offer,
            worker: Arc::default(),
            event: TaskEvent::Ended {
                started_at: self.wall,
                ended_at: self.wall,
                outcome: Outcome::Lost {
                    reason: "its worker was gone before it began".to_owned(),
                    explained: true,
                },
                usage: None,
            },
        }
    }
}

/// A seat with room for nothing.
fn nothing(queues: &Queues) -> Seat {
    Seat {
        queues: queues.clone(),
        process_window: 0,
        light_window: 0,
        total: TaskResources::ALL,
        share: TaskResources::ALL,
        labels: Labels::default(),
        spot: false,
    }
}
