//! A node: its process, what comes to that, and what its lane, relay and membership want done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kapell_api::task::Task;
use kapell_model::{NodeId, SessionId, Shard, Time, limits};
use kapell_node::lane::{Config, Input, Lane, Output, Own};
use kapell_node::members::{self, Instant, Members};
use kapell_node::perform::Plans;
use kapell_node::relay::{self, Relay, Word};
use kapell_node::{DispatchSettings, ReplyId};
use kapell_store::{Beat, Lease, NodeAbout};
use parking_lot::Mutex;

use super::link::Link;
use super::{Cluster, Happening, named, route};
use crate::far::{Session, Up};
use crate::world::BEGINNING;
use crate::world::brief::{brief_input, brief_output};
use crate::writer::{Write, Writer};

/// Heartbeats in a lease.
const BEATS: u32 = 5;

/// How often a relay is told that time passes.
const TICK: i64 = 100_000;

/// Turns without progress after which a lane turns in circles.
const SPINS: u32 = 1_000;

/// A place where processes are started, one after another.
pub(super) struct Node {
    pub(super) process: Option<Process>,
    /// Counts its processes.
    pub(super) life: u64,
    /// Its process stands still until then.
    pub(super) paused_until: i64,
    /// It is to stand still for so long once its lane wants something done.
    pub(super) torn: Option<i64>,
    /// It does not reach the store until then.
    pub(super) away_until: i64,
    /// How wrong its clock is.
    pub(super) skew: i64,
    /// It is to go.
    pub(super) leaves: Option<i64>,
}

/// Who owns which shard, as a node knows it.
type Known = Arc<Mutex<Vec<Option<NodeId>>>>;

pub(super) struct Process {
    pub(super) id: NodeId,
    pub(super) lane: Lane,
    pub(super) writer: Writer,
    pub(super) members: Members,
    pub(super) relay: Relay,
    pub(super) plans: Plans,
    /// The nodes that are there, and who owns what by that.
    pub(super) rows: Vec<NodeAbout>,
    pub(super) known: Known,
    /// Of workers whose home this is.
    pub(super) sessions: BTreeMap<SessionId, Session>,
    pub(super) links: BTreeMap<NodeId, Link>,
    /// The last connection of each node.
    pub(super) last: BTreeMap<NodeId, u64>,
    pub(super) replies: BTreeMap<ReplyId, route::From>,
    pub(super) reader_free: i64,
    pub(super) answers_at: i64,
    lane_free: i64,
    flush_at: Option<i64>,
    wake_at: Option<i64>,
    pub(super) members_at: Option<i64>,
    spins: u32,
}

/// What comes to a node.
pub(super) enum Step {
    /// To its lane.
    Lane(Input),
    /// The lane's batch is looked at.
    Flush,
    Wake,
    /// What the lane wanted done before the process stood still.
    Torn(Vec<Output>),
    /// The store does something.
    Read(Output),
    Beat(NodeAbout),
    Leave,
    /// And its answer comes, if it is of this life of the store.
    Answer(u64, Input),
    Committed(u64, kapell_store::Result<()>),
    Beaten(u64, kapell_store::Result<Beat>),
    /// The lane has heard that it owns these.
    Asks(Vec<Lease>),
    Members(members::Input),
    MembersTick,
    RelayTick,
    /// Something for its workers.
    Job(relay::Output),
    /// It looks at the lease of a session.
    Lease(SessionId),
    /// A worker speaks.
    Up(usize, u64, Up),
    /// Of links: see `link`.
    Connect(NodeId),
    Comes(NodeId, u64),
    Opened(NodeId, u64),
    Close(NodeId, u64),
    Word(NodeId, u64, Word),
    Asked(NodeId, u64, u64, Vec<u8>),
    Told(NodeId, u64, u64, Vec<u8>),
    Rang,
    VersionsChanged,
}

impl Step {
    /// False for what is done although the process stands still: by the store.
    fn waits(&self) -> bool {
        !matches!(self, Self::Read(_) | Self::Beat(_) | Self::Leave)
    }
}

impl Node {
    pub(super) fn new(skew: i64) -> Self {
        Self {
            process: None,
            life: 0,
            paused_until: 0,
            torn: None,
            away_until: 0,
            skew,
            leaves: None,
        }
    }

    /// True if nothing is in flight there.
    pub(super) fn is_idle(&self) -> bool {
        self.process.as_ref().is_none_or(|process| {
            let mut sessions = process.sessions.values();
            process.lane.in_flight() == 0 && sessions.all(|of| of.held.is_empty())
        })
    }
}

impl Process {
    /// Who owns a shard, or soon will.
    pub(super) fn owner(&self, shard: Shard) -> Option<NodeId> {
        self.known
            .lock()
            .get(usize::from(shard.0))
            .copied()
            .flatten()
    }

    /// The other nodes.
    pub(super) fn others(&self) -> BTreeSet<NodeId> {
        let ids = self.rows.iter().map(|about| about.id);
        ids.filter(|id| *id != self.id).collect()
    }
}

impl Cluster<'_> {
    /// What the clock on the wall of a node says.
    pub(super) fn wall_at(&self, at: usize) -> Time {
        Time(self.now + BEGINNING + self.nodes[at].skew)
    }

    pub(super) fn steady(&self) -> Instant {
        Instant(u64::try_from(self.now).unwrap_or(0) + 1_000_000)
    }

    pub(super) fn process(&mut self, at: usize) -> Option<&mut Process> {
        self.nodes.get_mut(at)?.process.as_mut()
    }

    /// Something comes to a node, in this life of it.
    pub(super) fn later(&mut self, at: usize, after: i64, step: Step) {
        let life = self.nodes[at].life;
        self.plan(after, Happening::At(at, life, Box::new(step)));
    }

    /// A process begins.
    pub(super) fn start(&mut self, at: usize) {
        if self.nodes[at].process.is_some() {
            return;
        }
        let id = NodeId(self.rng.bits());
        let (wall, steady) = (self.wall_at(at), self.steady());
        let lease = Duration::from_micros(u64::try_from(self.about.lease).unwrap_or(1));
        let known = Known::default();
        let owners = Arc::clone(&known);
        let owner = move |shard: Shard| owners.lock().get(usize::from(shard.0)).copied().flatten();
        let config = Config {
            alone: false,
            seed: self.rng.bits(),
            idle_micros: self.scenario.knobs.idle,
            keeps: kapell_engine::topic::Keeps::default(),
            dispatch: DispatchSettings::default(),
        };
        let about = NodeAbout {
            id,
            address: format!("http://node-{at}"),
            version: "sim".to_owned(),
            leaving: false,
        };
        let beat = lease / BEATS;
        let mut lane = Lane::new(config, wall);
        if self.scenario.knobs.follow > 0 {
            lane.follow_after(self.scenario.knobs.follow);
        }
        let process = Process {
            id,
            lane,
            writer: Writer::default(),
            members: Members::new(members::Config { about, lease, beat }, steady),
            relay: Relay::new(id, limits::SESSION_LEASE, Box::new(owner)),
            plans: Plans::default(),
            rows: Vec::new(),
            known,
            sessions: BTreeMap::new(),
            links: BTreeMap::new(),
            last: BTreeMap::new(),
            replies: BTreeMap::new(),
            reader_free: 0,
            answers_at: 0,
            lane_free: 0,
            flush_at: None,
            wake_at: None,
            members_at: None,
            spins: 0,
        };
        let node = &mut self.nodes[at];
        node.life += 1;
        node.process = Some(process);
        node.paused_until = 0;
        node.torn = None;
        node.leaves = None;
        self.places.insert(id, (at, self.nodes[at].life));
        self.note(|| format!("node {at} starts as {id}"));
        self.knows_sessions(at);
        self.flush(at);
        self.members(at, members::Input::Tick);
        self.later(at, TICK, Step::RelayTick);
    }

    /// Something has come.
    pub(super) fn at(&mut self, at: usize, life: u64, step: Box<Step>) {
        let node = &self.nodes[at];
        if node.life != life || node.process.is_none() {
            return;
        }
        if node.paused_until > self.now && step.waits() {
            let after = node.paused_until - self.now;
            self.plan(after, Happening::At(at, life, step));
            return;
        }
        match *step {
            Step::Lane(input) => self.give_lane(at, input),
            Step::Flush => self.flush_due(at, false),
            Step::Wake => self.flush_due(at, true),
            Step::Torn(outputs) => self.outputs(at, outputs),
            Step::Read(output) => self.read(at, output),
            Step::Beat(about) => self.beat(at, &about),
            Step::Leave => self.left_store(at),
            Step::Answer(of, input) => self.store_answers(at, of, input),
            Step::Committed(of, result) => {
                let lost = of != self.store_life;
                let result = if lost {
                    Err(super::store::lost())
                } else {
                    result
                };
                let Some(process) = self.process(at) else {
                    return;
                };
                let next = process.writer.ended(result.is_err());
                self.give_lane(at, Input::Committed(result));
                self.write(at, next);
            }
            Step::Beaten(of, result) => {
                let lost = of != self.store_life;
                let result = if lost {
                    Err(super::store::lost())
                } else {
                    result
                };
                self.members(at, members::Input::Beaten(result));
            }
            Step::Asks(leases) => self.with_relay(at, |relay| relay.ask(&leases)),
            Step::Members(input) => self.members(at, input),
            Step::MembersTick => {
                let now = self.now;
                let own = self.process(at).and_then(|own| own.members_at);
                // Of a process that stood still it is over.
                if own.is_some_and(|due| due <= now) {
                    self.members(at, members::Input::Tick);
                }
            }
            Step::RelayTick => {
                self.with_relay(at, Relay::tick);
                self.later(at, TICK, Step::RelayTick);
            }
            Step::Job(job) => self.job(at, job),
            Step::Lease(session) => self.look_at_lease(at, session),
            Step::Up(worker, link, up) => self.server_hears(at, worker, link, up),
            Step::Connect(to) => self.connect_link(at, to),
            Step::Comes(from, number) => self.link_comes(at, from, number),
            Step::Opened(to, number) => self.link_opened(at, to, number),
            Step::Close(to, number) => self.close_link(at, to, Some(number)),
            Step::Word(from, number, word) => self.hears_word(at, from, number, word),
            Step::Asked(from, number, ask, bytes) => self.is_asked(at, (from, number, ask), &bytes),
            Step::Told(from, number, ask, bytes) => self.is_told(at, (from, number, ask), &bytes),
            Step::Rang => self.give_lane(at, Input::Rang),
            Step::VersionsChanged => self.give_lane(at, Input::VersionsChanged),
        }
        self.look_at(at);
    }

    /// What can be seen of a node when nothing is under way there.
    fn look_at(&mut self, at: usize) {
        let life = self.nodes[at].life;
        let Some(process) = self.nodes[at].process.as_ref() else {
            return;
        };
        if process.lane.is_quiet() && self.failure.is_none() {
            let owners = &self.owners;
            let owns = |shard| owners.is_of(shard, (at, life));
            let verdict = self.checks.quiet_of(&process.lane, &owns);
            self.judge(verdict);
        }
        let process = self.nodes[at].process.as_ref();
        let broken = process.and_then(|process| process.lane.quarantined().next().cloned());
        if let Some(key) = broken {
            let detail = format!("{key:?} is quarantined: {}", crate::panics::last());
            self.fail("panic", detail);
        }
    }

    // The lane.

    /// Something for the lane, after all that is on its way there.
    pub(super) fn tell_lane(&mut self, at: usize, input: Input) {
        let after = self.rng.between(0, 50);
        let now = self.now;
        let Some(process) = self.process(at) else {
            return;
        };
        process.lane_free = process.lane_free.max(now + after);
        process.answers_at = process.answers_at.max(process.lane_free);
        let after = process.lane_free - now;
        self.later(at, after, Step::Lane(input));
    }

    pub(super) fn give_lane(&mut self, at: usize, input: Input) {
        let wall = self.wall_at(at);
        self.note(|| format!("{at} -> {}", brief_input(&input)));
        self.trace(1, brief_input(&input).as_bytes());
        let (lump, now) = (self.scenario.knobs.lump, self.now);
        let Some(process) = self.process(at) else {
            return;
        };
        process.lane.on(wall, input);
        if lump == 0 {
            self.flush(at);
        } else if process.flush_at.is_none() {
            let after = self.rng.between(0, lump);
            if let Some(process) = self.process(at) {
                process.flush_at = Some(now + after);
            }
            self.later(at, after, Step::Flush);
        }
    }

    fn flush_due(&mut self, at: usize, wakes: bool) {
        let now = self.now;
        let Some(process) = self.process(at) else {
            return;
        };
        let due = if wakes {
            &mut process.wake_at
        } else {
            &mut process.flush_at
        };
        // Of a process that stood still it is over.
        if due.is_some_and(|due| due <= now) {
            *due = None;
            self.flush(at);
        }
    }

    pub(super) fn flush(&mut self, at: usize) {
        let (wall, steady, now) = (self.wall_at(at), self.steady(), self.now);
        let Some(process) = self.process(at) else {
            return;
        };
        let over = process.members.until().is_none_or(|until| until <= steady);
        if over && !process.lane.owned().is_empty() {
            let stop = Input::Own(Box::new(Own::Stop));
            process.lane.on(wall, stop);
        }
        if wall >= process.lane.next_tick() {
            process.lane.on(wall, Input::Tick);
        }
        let outputs = process.lane.flush(wall);
        let next = process.lane.next_tick();
        process.spins = if next <= wall && outputs.is_empty() {
            process.spins + 1
        } else {
            0
        };
        let spins = process.spins > SPINS;
        let after = (next.0 - wall.0).clamp(1_000, 5_000_000);
        let wakes = process
            .wake_at
            .is_none_or(|wake_at| wake_at > now + after || wake_at <= now);
        if wakes {
            process.wake_at = Some(now + after);
            self.later(at, after, Step::Wake);
        }
        if spins {
            self.fail(
                "spins",
                format!("node {at} is to be ticked at {next} and it is {wall}"),
            );
        }
        if !outputs.is_empty()
            && let Some(span) = self.nodes[at].torn.take()
        {
            self.stands_still(at, span);
            self.later(at, span, Step::Torn(outputs));
            return;
        }
        self.outputs(at, outputs);
    }

    fn outputs(&mut self, at: usize, outputs: Vec<Output>) {
        for output in outputs {
            self.output(at, output);
        }
    }

    fn output(&mut self, at: usize, output: Output) {
        let Some(output) = self.spoil_output(output) else {
            return;
        };
        self.note(|| format!("{at} <- {}", brief_output(&output)));
        match output {
            Output::Commit {
                commit,
                contents,
                follows,
            } => {
                for write in &commit.entities {
                    self.trace(2, &write.chunk);
                }
                let write = Write {
                    commit,
                    contents,
                    follows,
                };
                if let Some(process) = self.process(at) {
                    let next = process.writer.push(write);
                    self.write(at, next);
                }
            }
            Output::Offer(tasks) => self.offers(at, tasks),
            Output::Stop(names) => self.with_relay(at, |relay| relay.stop(&names)),
            Output::Taken(names) => self.with_relay(at, |relay| relay.taken(&names)),
            Output::Wants(wants) => self.with_relay(at, |relay| relay.wants(wants)),
            Output::Reply(reply, answer) => self.lane_replies(at, reply, answer),
            Output::Holds(shards) => {
                self.later(at, 0, Step::Members(members::Input::Holds(shards)));
            }
            Output::RowsChanged(commit, _) => {
                for row in &commit.runs {
                    let verdict = self.checks.row_shown(row);
                    self.judge(verdict);
                }
                let shards = commit.mail.iter().map(|mail| mail.to.shard());
                let shards: BTreeSet<Shard> = shards.collect();
                self.ring(at, &shards);
            }
            output => self.plan_read(at, output),
        }
    }

    /// Attempts are handed out.
    fn offers(&mut self, at: usize, tasks: Vec<Task>) {
        let life = self.nodes[at].life;
        for task in &tasks {
            self.trace(3, &task.offer.counter.to_le_bytes());
            self.counts.offers += 1;
            self.counts.last_offer_at = self.now;
            let shard = task.run.shard();
            if !self.owners.is_of(shard, (at, life))
                || !self.checks.is_epoch(shard, task.offer.epoch)
            {
                // By a process that stood still, and that others have followed since.
                self.checks.offered_late(task);
                continue;
            }
            match self.checks.offered(task, &self.worker) {
                Ok(locks) => drop(self.sent.insert(named(task), locks)),
                Err(failure) => self.fail(failure.what, failure.detail),
            }
        }
        self.with_relay(at, |relay| relay.offer(tasks));
    }

    // The relay.

    /// Says something to a relay, and does what comes of it.
    pub(super) fn with_relay(&mut self, at: usize, says: impl FnOnce(&mut Relay)) {
        let (steady, wall) = (self.steady(), self.wall_at(at));
        let Some(process) = self.process(at) else {
            return;
        };
        process.relay.pass(steady, wall);
        says(&mut process.relay);
        for output in process.relay.outputs() {
            match output {
                relay::Output::Reports(reports) => self.tell_lane(at, Input::Reports(reports)),
                relay::Output::Session(id, change) => {
                    self.tell_lane(at, Input::Session(id, change));
                }
                relay::Output::Tell(node, word) => self.tell(at, node, word),
                job => self.later(at, 1, Step::Job(job)),
            }
        }
    }

    /// Its process ends: all that it knew is gone.
    pub(super) fn end_process(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(process) = node.process.take() else {
            return;
        };
        node.life += 1;
        self.forget_asks(at, process.replies);
        self.links_end(at, process.id);
        self.workers_lose(at);
    }
}
