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
//! A node that takes over shards asks every home what its workers hold, and until it has heard of a session
//! nothing that stood ready in its queues is granted. A home that was asked hands out nothing more of those shards
//! that an owner before had granted. Questions have numbers, and only the answer to the last one counts.
//!
//! What was handed out to a worker elsewhere, and neither is there nor on its way when its home says what it has,
//! was lost on the way: that is decided here, where both are known, and not in the lane.
//!
//! A worker that goes from one home to another says hello there with a greater number, and of two nodes that both
//! say that it is theirs the one with the greater is believed: a home that others cut off has not heard that it is
//! one no more. What such a home says is lost is not, and before it ends a session it looks at its row.
//!
//! - **Crash** of a home: its workers go to other nodes with what they hold; what a worker does not hold then was
//!   lost on the way. One that comes nowhere within its lease is over.
//! - **Crash** of an owner: the next one asks; reports wait here meanwhile.
//! - **Slow link**: bounded by what workers have room for, since nothing else is in flight.
//! - **Lost word**: all that matters is said again when a way is open again, and each home says now and then
//!   which sessions it has. Of who is not known to be a node only ends are heard; it is asked to say all once it is.
//! - **Clock jump**: times are given, on a clock that does not jump.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kapell_api::task::{Place, Report, Task, TaskResources};
use kapell_api::worker::{Holding, Queues};
use kapell_engine::run::room::Labels;
use kapell_model::{NodeId, Offer, RunId, SessionId, Shard, Time};
use kapell_store::Lease;

use crate::lane::{Seat, SessionChange};
use crate::lend::{Lender, Wants};
use crate::members::Instant;
use asking::Asking;
use far::Given;

mod asking;
mod far;
mod held;
mod home;
#[cfg(test)]
mod tests;

/// Names an attempt that was handed out.
pub type Name = (RunId, Place, Offer);

/// What nodes say to each other of workers.
#[derive(Clone, Debug)]
pub enum Word {
    /// Who speaks has not heard what was said: all that matters is to be said again.
    Again,
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
    /// The sessions whose home is who speaks, and no others.
    Sessions(Vec<SessionId>),
    /// Something of a session whose home is who speaks.
    Session(SessionId, SessionChange),
    /// What waits for workers at who speaks.
    Wants(Wants),
    /// Who speaks owns these shards from now on: what do the other's workers hold? A question with its number.
    Took(u64, Vec<(Shard, u64)>),
    /// What a worker holds, of all runs, in answer to the question with this number.
    Holds(u64, SessionId, Vec<Holding>),
    /// That question is answered.
    Told(u64),
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
    /// The number of its worker's hello.
    hello: u64,
}

/// A session whose home another is.
#[derive(Debug)]
struct Far {
    home: NodeId,
    queues: Queues,
    /// The number of its worker's hello there; 0 if that is not known.
    hello: u64,
    /// Its home is gone, or does not know it: it is over then, unless it comes to another.
    until: Option<Instant>,
}

/// How often [`Relay::tick`] is to be called: what a node wants no more is said so late.
pub const TICK: Duration = Duration::from_millis(100);

/// Between two times that it is looked for what is late.
const LOOK: Duration = Duration::from_millis(500);

/// Between two times that an end is said.
const AGAIN: Duration = Duration::from_secs(2);

/// Between two times that a home says which sessions it has.
const SESSIONS_AGAIN: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct Relay {
    me: NodeId,
    lease: Duration,
    now: Instant,
    wall: Time,
    /// The other nodes, once that was said.
    nodes: BTreeSet<NodeId>,
    knows_nodes: bool,
    lender: Lender,
    homes: BTreeMap<SessionId, Home>,
    held: held::All,
    /// The epochs below which nothing of these shards is handed out any more.
    floors: BTreeMap<Shard, u64>,
    far: BTreeMap<SessionId, Far>,
    /// Handed out to workers of other homes, which have not said that it arrived.
    sent: BTreeMap<NodeId, BTreeMap<Name, Task>>,
    /// Attempts of runs that are owned here at workers of other homes.
    given: Given,
    /// Which of them are to be stopped.
    stops: BTreeSet<Name>,
    /// The number of the last question that this node has, that it said, and that each node has answered.
    asked: u64,
    told: u64,
    answered: BTreeMap<NodeId, u64>,
    /// When it was said last which sessions are here, and looked last for what is late.
    listed_at: Instant,
    looked_at: Instant,
    /// Queues that are for workers which name them, also while none is there.
    kept: BTreeSet<Arc<str>>,
    /// Ends that other homes reported and that are not taken yet.
    reported: BTreeMap<Name, NodeId>,
    /// What this node owns, with the epochs.
    owns: BTreeMap<Shard, u64>,
    asking: Asking,
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
            knows_nodes: false,
            lender: Lender::new(me),
            homes: BTreeMap::new(),
            held: held::All::default(),
            floors: BTreeMap::new(),
            far: BTreeMap::new(),
            sent: BTreeMap::new(),
            given: Given::default(),
            stops: BTreeSet::new(),
            asked: 0,
            told: 0,
            answered: BTreeMap::new(),
            listed_at: Instant::default(),
            looked_at: Instant::default(),
            kept: BTreeSet::new(),
            reported: BTreeMap::new(),
            owns: BTreeMap::new(),
            asking: Asking::default(),
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
        self.lender.pass(self.now);
    }

    /// What was put off is done. To be asked every [`TICK`].
    pub fn tick(&mut self) {
        if let Some(wants) = self.asking.tick() {
            self.ask_for(wants);
        }
        self.lender.tick();
        self.settle();
        if self.looked_at.plus(LOOK) <= self.now {
            self.looked_at = self.now;
            self.look();
        }
    }

    /// Ends that nobody took are said again; sessions that came nowhere are over.
    fn look(&mut self) {
        let (now, again) = (self.now, AGAIN);
        let mut late: BTreeMap<NodeId, Vec<Report>> = BTreeMap::new();
        for (name, held) in self.held.iter_mut() {
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
            self.far_over(id);
            self.out.push(Output::Over(id));
        }
        if self.listed_at.plus(SESSIONS_AGAIN) <= now {
            self.listed_at = now;
            for node in self.nodes.clone() {
                self.list(node);
            }
        }
    }

    /// Which other nodes there are.
    pub fn nodes(&mut self, nodes: BTreeSet<NodeId>) {
        let gone: Vec<NodeId> = self.nodes.difference(&nodes).copied().collect();
        let new: Vec<NodeId> = nodes.difference(&self.nodes).copied().collect();
        self.nodes = nodes;
        self.knows_nodes = true;
        for node in gone {
            self.lender.forget(node);
            self.sent.remove(&node);
            self.answered.remove(&node);
        }
        let away: Vec<SessionId> = self
            .far
            .iter()
            .filter(|(_, far)| far.until.is_none() && !self.nodes.contains(&far.home))
            .map(|(id, _)| *id)
            .collect();
        for id in away {
            self.away(id);
        }
        for node in new {
            self.opened(node);
        }
        self.settle();
    }

    /// The way to a node is open, or it was not known before: what it may have missed is said, and what it said
    /// meanwhile asked for.
    pub fn opened(&mut self, node: NodeId) {
        self.out.push(Output::Tell(node, Word::Again));
        self.say_all_to(node);
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
                    let name = (task.run, task.place, task.offer);
                    self.given.insert(name, task.session);
                    let sent = self.sent.entry(far.home).or_default();
                    sent.insert(name, task.clone());
                    there.entry(far.home).or_default().push(task);
                }
                None => lost.push(self.lost((task.run, task.place, task.offer), GONE)),
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
        let mut here = Vec::new();
        let mut there: BTreeMap<NodeId, Vec<Name>> = BTreeMap::new();
        for name in names {
            if self.given.session(name).is_none() {
                here.push(*name);
                continue;
            }
            self.stops.insert(*name);
            if let Some(home) = self.home_of(name) {
                there.entry(home).or_default().push(*name);
            }
        }
        if !here.is_empty() {
            self.out.push(Output::Stop(here));
        }
        for (node, names) in there {
            self.out.push(Output::Tell(node, Word::Stop(names)));
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

    /// The lane is about to own these: every session may hold attempts of them, until it has said which.
    pub fn took(&mut self, leases: &[Lease]) {
        self.asked += 1;
        for lease in leases {
            self.owns.insert(lease.shard, lease.epoch);
        }
        let homes = self.homes.iter().map(|(id, home)| (*id, &home.queues));
        let far = self.far.iter().map(|(id, far)| (*id, &far.queues));
        let unheard = homes
            .chain(far)
            .map(|(id, queues)| Output::Session(id, SessionChange::Unheard(queues.clone())));
        self.out.extend(unheard.collect::<Vec<_>>());
    }

    /// The lane has heard that it owns these, and takes what it is told of them: all are asked.
    pub fn ask(&mut self, leases: &[Lease]) {
        self.told = self.asked;
        let shards: Vec<(Shard, u64)> = leases
            .iter()
            .map(|lease| (lease.shard, lease.epoch))
            .collect();
        self.taken_over(self.me, self.told, &shards);
        for node in self.nodes.clone() {
            let took = Word::Took(self.told, shards.clone());
            self.out.push(Output::Tell(node, took));
        }
    }

    /// The lane owns these no more.
    pub fn gave(&mut self, shards: &BTreeSet<Shard>) {
        let gone = |name: &Name| shards.contains(&name.0.shard());
        for shard in shards {
            self.owns.remove(shard);
        }
        for sent in self.sent.values_mut() {
            sent.retain(|name, _| !gone(name));
        }
        self.given.forget(shards);
        self.stops.retain(|name| !gone(name));
        self.reported.retain(|name, _| !gone(name));
    }

    /// What waits for workers here.
    pub fn wants(&mut self, wants: Wants) {
        if let Some(wants) = self.asking.wants(wants) {
            self.ask_for(wants);
            self.settle();
        }
    }

    fn ask_for(&mut self, wants: Wants) {
        for node in self.nodes.clone() {
            self.out
                .push(Output::Tell(node, Word::Wants(wants.clone())));
        }
        self.lender.wants(self.me, wants);
    }

    // What other nodes say.

    /// Another node speaks.
    pub fn hear(&mut self, node: NodeId, word: Word) {
        if !self.nodes.contains(&node)
            && !matches!(word, Word::Reports(_) | Word::Got(_) | Word::Taken(_))
        {
            return;
        }
        match word {
            Word::Again => self.say_all_to(node),
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
                let here = names.into_iter().filter(|name| self.held.knows(name));
                let here: Vec<Name> = here.collect();
                if !here.is_empty() {
                    self.out.push(Output::Stop(here));
                }
            }
            Word::Taken(names) => self.over(&names),
            Word::Reports(reports) => self.far_reports(node, reports),
            Word::Sessions(sessions) => self.far_sessions(node, &sessions),
            Word::Session(id, change) => self.far_session(node, id, change),
            Word::Wants(wants) => {
                self.lender.wants(node, wants);
                self.settle();
            }
            Word::Took(number, shards) => self.taken_over(node, number, &shards),
            Word::Holds(number, id, holds) => self.far_holds(node, number, id, holds),
            Word::Told(number) => {
                self.answered.insert(node, number);
            }
        }
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

    /// An attempt that reached no worker.
    fn lost(&self, name: Name, reason: &str) -> Report {
        Report::lost(name, (self.wall, self.wall), (reason, true))
    }
}

/// Why an attempt was lost that was handed out to a session which is over.
const GONE: &str = "its worker was gone before it began";

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
