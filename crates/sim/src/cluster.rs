//! Several nodes over one store, on virtual time in one thread: of each its membership, its lane and its
//! relay, as [`kapell_node`] has them; and links between them, workers with homes, people who ask any node.
//!
//! Threads and sockets are not simulated, but what they promise is: what a relay says to the lane arrives in
//! order, and reads are done one after another; a connection carries what is said in order until it ends, and
//! whoever speaks notices after a while; requests go to whoever owns what they are about, as
//! `node::drive::route` sends them. Start reading at [`Cluster::happen`]; then `node` (a process), `store`,
//! `link`, `route`, `homes` and `workers` (the two sides of a connection), `faults`.
//!
//! - **Crash** of a node: all that it knew is gone; a commit under way may still land.
//! - **Pause** of a node: whatever comes to it waits until it goes on, also past its lease.
//! - **Slow or failing store**: for all, or for one node; commits are made whose answer is lost.
//! - **Clocks** of walls differ, and jump; leases count on clocks that do not.

mod faults;
pub mod grow;
mod homes;
mod link;
mod membership;
mod node;
mod owners;
mod route;
mod store;
mod workers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kapell_expr::BlobRef;
use kapell_model::{NodeId, Offer, RunId, SessionId, ShardSet, Time};
use kapell_store::{Commit, MemoryStore, Store};

use crate::asks::Asker;
use crate::blobs::MemoryBlobs;
use crate::check::Checks;
use crate::far::{Far, Name};
use crate::rng::{Rng, mix};
use crate::scenario::{Ask, Fate, Nodes, Scenario};
use crate::versions::version_row;
use crate::worker::{Act, Alarm, Around, Worker};
use crate::world::brief::micros;
use crate::world::{BEGINNING, Failure, Outcome, Sabotage, Sink};

use node::{Node, Step};

/// After the last request and fault everything must have ended within so long.
const PATIENCE: i64 = 24 * 3_600 * 1_000_000;

/// Things that happen in one simulation at most.
const HAPPENINGS: u64 = 20_000_000;

/// After the last request and fault people resume and dismiss so often.
const CARE: i64 = 30 * 1_000_000;

/// The same once that has gone on for a while: some workflows ask people a hundred things.
const CARE_LATER: i64 = 3 * 1_000_000;
const LATER: i64 = 900 * 1_000_000;

/// How often it is looked whether all is over.
const LOOK: i64 = 1_000_000;

enum Happening {
    Ask(usize),
    AskAgain(Ask),
    Fault(usize),
    Start(usize),
    /// A process that is to go does, in this life of it.
    Goes(usize, u64),
    /// Something comes to a node, in this life of it.
    At(usize, u64, Box<Step>),
    Land(
        usize,
        u64,
        Arc<Commit>,
        Vec<(BlobRef, Vec<u8>)>,
        Option<Fate>,
    ),
    LateLand(usize, u64, Arc<Commit>, Vec<(BlobRef, Vec<u8>)>),
    Alarm(u64, Alarm),
    Far(usize, workers::Step),
    Route(u64),
    Look,
}

struct Cluster<'a> {
    scenario: &'a Scenario,
    about: &'a Nodes,
    sink: Option<Sink<'a>>,
    rng: Rng,
    now: i64,
    queue: BTreeMap<(i64, u64), Happening>,
    turn: u64,
    happenings: u64,
    commits: u64,
    hash: u64,
    store: MemoryStore,
    blobs: MemoryBlobs,
    nodes: Vec<Node>,
    /// Where each process is, by its id.
    places: BTreeMap<NodeId, (usize, u64)>,
    /// What is said from one node to another is lost until then.
    parted: BTreeMap<(usize, usize), i64>,
    worker: Worker,
    /// Handed out by a lane, and not at a worker yet; with the locks that it holds.
    sent: BTreeMap<Name, Vec<Arc<str>>>,
    tasks: BTreeMap<Name, kapell_api::task::Task>,
    far: Vec<Far>,
    lines: Vec<workers::Line>,
    /// Rows of sessions in the store: whose, and where.
    rows: BTreeMap<SessionId, (usize, (NodeId, u64))>,
    last_session: u64,
    last_link: u64,
    owners: owners::Owners,
    checks: Checks,
    asks: BTreeMap<u64, route::Asked>,
    last_ask: u64,
    replies: u64,
    fates: VecDeque<Fate>,
    stalled_until: i64,
    /// Counts failovers of the store.
    store_life: u64,
    down_until: i64,
    slow_until: i64,
    slow: i64,
    last_plan: i64,
    care_at: i64,
    sabotage: Option<Sabotage>,
    failure: Option<Failure>,
    counts: Counts,
    /// A node that starts at another time than the others.
    late: Option<(usize, i64)>,
    /// When counts are noted, and those that were.
    marks: Vec<i64>,
    marked: Vec<(Counts, u64)>,
}

/// Work of a cluster, as counts.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Messages between nodes, and how much they name, by kind.
    pub words: BTreeMap<&'static str, (u64, u64)>,
    /// Shards that were taken.
    pub shards: u64,
    /// Times that shards were taken.
    pub takes: u64,
    /// Attempts that were handed out.
    pub offers: u64,
    /// When the last of them was.
    pub last_offer_at: i64,
}

/// Plays a scenario to its end, or to the first thing that must not be.
pub(crate) fn play<'a>(
    scenario: &'a Scenario,
    sink: Option<Sink<'a>>,
    sabotage: Option<Sabotage>,
) -> Outcome {
    let Some(about) = &scenario.cluster else {
        return Outcome::default();
    };
    let mut cluster = Cluster::new(scenario, about, sink);
    cluster.sabotage = sabotage;
    crate::panics::note();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cluster.go()));
    if result.is_err() {
        cluster.failure = Some(Failure {
            what: "panic",
            detail: crate::panics::last(),
        });
    }
    Outcome {
        hash: cluster.hash,
        failure: cluster.failure,
        happenings: cluster.happenings,
        runs: cluster.checks.runs.len(),
        commits: cluster.commits,
        counts: cluster.counts,
    }
}

impl<'a> Cluster<'a> {
    fn new(scenario: &'a Scenario, about: &'a Nodes, sink: Option<Sink<'a>>) -> Self {
        let requests = scenario.requests.iter().map(|planned| planned.at);
        let faults = scenario.faults.iter().map(|planned| planned.at);
        let last_plan = requests.chain(faults).max().unwrap_or(0);
        let mut rng = Rng::new(scenario.seed);
        let nodes = (0..about.count)
            .map(|_| Node::new(rng.between(-about.skew, about.skew)))
            .collect();
        Self {
            scenario,
            about,
            sink,
            rng,
            now: 0,
            queue: BTreeMap::new(),
            turn: 0,
            happenings: 0,
            commits: 0,
            hash: 0,
            store: MemoryStore::new(),
            blobs: MemoryBlobs::default(),
            nodes,
            places: BTreeMap::new(),
            parted: BTreeMap::new(),
            worker: Worker::default(),
            sent: BTreeMap::new(),
            tasks: BTreeMap::new(),
            far: Vec::new(),
            lines: Vec::new(),
            rows: BTreeMap::new(),
            last_session: 0,
            last_link: 0,
            owners: owners::Owners::default(),
            checks: Checks::spread(),
            asks: BTreeMap::new(),
            last_ask: 0,
            replies: 0,
            fates: VecDeque::new(),
            stalled_until: 0,
            store_life: 0,
            down_until: 0,
            slow_until: 0,
            slow: 1,
            last_plan,
            care_at: last_plan + CARE,
            sabotage: None,
            failure: None,
            counts: Counts::default(),
            late: None,
            marks: Vec::new(),
            marked: Vec::new(),
        }
    }

    /// The time of day, without any node's error.
    fn wall(&self) -> Time {
        Time(self.now + BEGINNING)
    }

    fn fail(&mut self, what: &'static str, detail: impl Into<String>) {
        if self.failure.is_none() {
            let failure = Failure {
                what,
                detail: detail.into(),
            };
            self.note(|| format!("FAILED {}: {}", failure.what, failure.detail));
            self.failure = Some(failure);
        }
    }

    fn judge(&mut self, verdict: Result<(), Failure>) {
        if let Err(failure) = verdict {
            self.fail(failure.what, failure.detail);
        }
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(sink) = &mut self.sink {
            sink(&format!("{:>14.6} {}", micros(now), line()));
        }
    }

    /// Everything that happens goes into one number.
    fn trace(&mut self, kind: u64, bytes: &[u8]) {
        let mut hash = self.hash ^ mix(kind ^ u64::try_from(self.now).unwrap_or(0).rotate_left(8));
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.hash = mix(hash);
    }

    fn plan(&mut self, after: i64, what: Happening) {
        self.turn += 1;
        self.queue
            .insert((self.now + after.max(0), self.turn), what);
    }

    fn go(&mut self) {
        let mut names = BTreeSet::new();
        for index in 0..self.scenario.workflows.len() {
            let name = self.scenario.workflows[index].get("workflow");
            if !names.insert(name.and_then(serde_json::Value::as_str)) {
                continue;
            }
            if let Err(error) = self.register(index) {
                self.fail("generator", error);
                return;
            }
        }
        for (index, planned) in self.scenario.requests.iter().enumerate() {
            self.plan(planned.at, Happening::Ask(index));
        }
        for (index, planned) in self.scenario.faults.iter().enumerate() {
            self.plan(planned.at, Happening::Fault(index));
        }
        for node in 0..self.nodes.len() {
            let after = self.rng.magnitude(1_000, 10_000_000);
            let late = self.late.filter(|(late, _)| *late == node);
            self.plan(late.map_or(after, |(_, at)| at), Happening::Start(node));
        }
        self.far_begin();
        self.plan(LOOK, Happening::Look);
        while let Some(((at, _), what)) = self.queue.pop_first() {
            self.now = at;
            self.happenings += 1;
            let looks = matches!(what, Happening::Look);
            self.happen(what);
            if self.failure.is_some() || looks && self.is_over() {
                break;
            }
        }
        if self.failure.is_none() {
            let verdict = self.checks.finish(&self.store);
            self.judge(verdict);
        }
    }

    fn register(&mut self, index: usize) -> Result<(), String> {
        let Some(definition) = self.scenario.workflows.get(index) else {
            return Ok(());
        };
        let row = version_row(definition, self.wall())?;
        let version = self
            .store
            .register(&row)
            .map_err(|error| error.to_string())?;
        let read = kapell_node::perform::Version::read(&row).map_err(|error| error.to_string())?;
        self.checks
            .plans
            .insert((row.workflow.clone(), version), read.plan);
        Ok(())
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Ask(index) => {
                let ask = self.scenario.requests[index].what.clone();
                self.ask(&ask);
            }
            Happening::AskAgain(ask) => self.ask(&ask),
            Happening::Fault(index) => {
                let fault = self.scenario.faults[index].what.clone();
                self.fault(&fault);
            }
            Happening::Start(node) => self.start(node),
            Happening::Goes(node, life) => {
                if self.nodes[node].life == life {
                    self.goes(node);
                }
            }
            Happening::At(node, life, step) => self.at(node, life, step),
            Happening::Land(node, life, commit, contents, fate) => {
                self.land((node, life), commit, contents, fate);
            }
            Happening::LateLand(node, life, commit, contents) => {
                let result = self.commit((node, life), &commit, &contents);
                self.note(|| format!("a commit lands late: {result:?}"));
            }
            Happening::Alarm(id, alarm) => {
                let acts = self.with_worker(|worker, around| worker.ring(id, alarm, around));
                self.act(acts);
            }
            Happening::Far(worker, step) => self.far_step(worker, step),
            Happening::Route(ask) => self.route(ask),
            Happening::Look => self.look(),
        }
    }

    fn ask(&mut self, ask: &Ask) {
        if let Ask::Register { workflow } = *ask {
            match self.register(workflow) {
                Ok(()) => self.versions_changed(),
                Err(error) => self.fail("generator", error),
            }
            return;
        }
        let asker = Asker {
            checks: &self.checks,
            workflows: &self.scenario.workflows,
            wall: self.wall(),
            by: format!("sim-{}", self.last_ask + 1),
        };
        if let Some(request) = asker.request(ask)
            && !self.send(request)
        {
            self.plan(1_000_000, Happening::AskAgain(ask.clone()));
        }
    }

    fn with_worker(
        &mut self,
        call: impl FnOnce(&mut Worker, &mut Around<'_>) -> Vec<Act>,
    ) -> Vec<Act> {
        let wall = self.wall();
        let mut around = Around {
            rng: &mut self.rng,
            knobs: &self.scenario.knobs,
            blobs: &self.blobs,
            wall,
            now: self.now,
        };
        call(&mut self.worker, &mut around)
    }

    fn act(&mut self, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Alarm(after, id, alarm) => self.plan(after, Happening::Alarm(id, alarm)),
                Act::Report(after, host, report) => {
                    // What is said twice on a connection is numbered, and so is one.
                    if after == 0 {
                        self.far_reports(host - 1, report);
                    }
                }
            }
        }
    }

    /// What can be seen now and then; and the care of people after all is over.
    fn look(&mut self) {
        self.plan(LOOK, Happening::Look);
        while self
            .marks
            .get(self.marked.len())
            .is_some_and(|at| *at <= self.now)
        {
            self.marked.push((self.counts.clone(), self.commits));
        }
        if self.happenings > HAPPENINGS {
            let open = self.checks.open();
            self.fail("endless", format!("too much happens; open: {open}"));
        }
        if self.now > self.last_plan + PATIENCE {
            let open = self.checks.open();
            let left = self.left();
            self.fail("liveness", format!("still open: {open}; {left}"));
        }
        if let Some(overdue) = self.overdue() {
            self.fail("unanswered", overdue);
        }
        if self.is_settled() {
            let verdict = self.checks.settled();
            self.judge(verdict);
        }
        if self.now >= self.care_at {
            let later = self.now > self.last_plan + LATER;
            self.care_at = self.now + if later { CARE_LATER } else { CARE };
            for request in self.checks.care() {
                self.send(request);
            }
        }
    }

    /// True if no message is under way between entities.
    fn is_settled(&self) -> bool {
        let processes = self.nodes.iter().map(|node| node.process.as_ref());
        let quiet = processes.flatten().all(|process| process.lane.is_quiet());
        let mail = self.store.mail(&ShardSet::all(), 1);
        quiet && mail.is_ok_and(|mail| mail.is_empty())
    }

    fn is_over(&self) -> bool {
        self.now > self.last_plan
            && self.marked.len() == self.marks.len()
            && self.checks.all_ended()
            && self.asks.is_empty()
            && self.worker.is_empty()
            && self.are_workers_idle()
            && self.nodes.iter().all(Node::is_idle)
            && self.is_settled()
    }

    /// What keeps it from being over, for people.
    fn left(&self) -> String {
        let sessions = self.nodes.iter().filter_map(|node| node.process.as_ref());
        let sessions: Vec<_> = sessions
            .map(|process| {
                let held = process.sessions.values().map(|session| session.held.len());
                (
                    process.id,
                    process.lane.is_quiet(),
                    process.lane.held().take(3).collect::<Vec<_>>(),
                    held.sum::<usize>(),
                    process.members.may_act(),
                    process.lane.owned().len(),
                )
            })
            .collect();
        let asks: Vec<_> = self.asks.values().take(3).collect();
        format!(
            "asks {asks:?}; attempts {}; idle {}; nodes (quiet, in flight, told, acts, shards) {sessions:?}; settled {}",
            self.worker.live().count(),
            self.are_workers_idle(),
            self.is_settled()
        )
    }
}

fn named(task: &kapell_api::task::Task) -> (RunId, kapell_api::task::Place, Offer) {
    (task.run, task.place, task.offer)
}
