//! The world: one queue of what happens, by true time.
//!
//! The lane sees the wall clock, which a fault may set; everything else goes by true time. Reads are
//! done one after another, commits too, each with a latency before and after it.
//!
//! - **Crash**: the lane and the worker die; what was on its way to them is gone; a commit under way
//!   may still land until somebody takes the shards over.
//! - **Restart**: the worker's losses are reported first, as slot files say.

mod asks;
pub(crate) mod brief;
mod far;
mod faults;
mod lane;
mod sabotage;
mod store;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kapell_api::task::{Place, Report};
use kapell_expr::BlobRef;
use kapell_model::{Offer, RunId, Time};
use kapell_node::lane::{Input, Output};
use kapell_node::perform::{self, Plans};
use kapell_node::{ClientRequest, Lane, ReplyId};
use kapell_store::{Commit, MemoryStore, Store};

use brief::micros;
pub use sabotage::Sabotage;

use crate::blobs::MemoryBlobs;
use crate::check::Checks;
use crate::rng::{Rng, mix};
use crate::scenario::{Ask, Fate, Scenario};
use crate::versions::version_row;
use crate::worker::{Act, Alarm, Around, Worker};
use crate::writer::Writer;

/// The namespace of every workflow.
pub const NAMESPACE: &str = "sim";

/// When the world begins, in microseconds since 1970.
pub(crate) const BEGINNING: i64 = 1_800_000_000_000_000;

/// After the last request and fault everything must have ended within so long.
const PATIENCE: i64 = 72 * 3_600 * 1_000_000;

/// Things that happen in one simulation at most.
const HAPPENINGS: u64 = 4_000_000;

/// After the last request and fault people resume and dismiss so often.
const CARE: i64 = 1_200 * 1_000_000;

/// The longest that a late report takes.
const LATEST: i64 = 120 * 1_000_000;

/// Turns without progress after which a lane turns in circles.
const SPINS: u32 = 1_000;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which checker, a stable word.
    pub what: &'static str,
    /// What it saw.
    pub detail: String,
}

/// How a simulation went.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Everything that happened, as one number.
    pub hash: u64,
    /// What must not be, if something was.
    pub failure: Option<Failure>,
    /// Things that happened.
    pub happenings: u64,
    /// Runs that were made.
    pub runs: usize,
    /// Commits that landed.
    pub commits: u64,
    /// What several nodes did.
    pub counts: crate::cluster::Counts,
}

enum Happening {
    Ask(usize),
    AskAgain(Ask),
    Fault(usize),
    Restart,
    Read(u64, Box<Output>),
    Land(u64, Arc<Commit>, Vec<(BlobRef, Vec<u8>)>, Option<Fate>),
    LateLand(Arc<Commit>, Vec<(BlobRef, Vec<u8>)>),
    ToLane(u64, Box<Input>),
    Committed(u64, kapell_store::Result<()>),
    Tasks(u64, Vec<(RunId, Place, Offer)>),
    Stops(u64, Vec<(RunId, Place, Offer)>),
    Alarm(u64, Alarm),
    Far(usize, far::Step),
    Flush,
    Wake,
}

impl Happening {
    /// True if it says nothing of whether all is over.
    fn only_passes(&self) -> bool {
        matches!(self, Self::Wake | Self::Flush | Self::Far(..))
    }
}

/// Where lines of a trace go.
pub type Sink<'a> = &'a mut (dyn FnMut(&str) + 'a);

struct World<'a> {
    scenario: &'a Scenario,
    sink: Option<Sink<'a>>,
    rng: Rng,
    now: i64,
    offset: i64,
    queue: BTreeMap<(i64, u64), Happening>,
    turn: u64,
    /// Happenings in the queue that are not mere passing of time.
    pending: usize,
    happenings: u64,
    commits: u64,
    hash: u64,
    store: MemoryStore,
    blobs: MemoryBlobs,
    plans: Plans,
    lane: Option<Lane>,
    writer: Writer,
    life: u64,
    flush_at: Option<i64>,
    wake_at: Option<i64>,
    spins: u32,
    reader_free: i64,
    answers_at: i64,
    worker: Worker,
    far: far::FarSide,
    lost: Vec<Report>,
    checks: Checks,
    replies: u64,
    asked: BTreeMap<ReplyId, Asked>,
    fates: VecDeque<Fate>,
    full_until: i64,
    reads_until: i64,
    slow_until: i64,
    slow: i64,
    last_plan: i64,
    care_at: i64,
    sabotage: Option<Sabotage>,
    failure: Option<Failure>,
}

/// A request that waits for its answer.
#[derive(Debug)]
struct Asked {
    request: ClientRequest,
    at: i64,
}

/// Plays a scenario to its end, or to the first thing that must not be.
pub fn play<'a>(scenario: &'a Scenario, sink: Option<Sink<'a>>) -> Outcome {
    play_broken(scenario, sink, None)
}

/// Plays a scenario in a world that breaks a promise: a checker that lets it pass is none.
pub fn play_broken<'a>(
    scenario: &'a Scenario,
    sink: Option<Sink<'a>>,
    sabotage: Option<Sabotage>,
) -> Outcome {
    if scenario.cluster.is_some() {
        return crate::cluster::play(scenario, sink, sabotage);
    }
    let mut world = World::new(scenario, sink);
    world.sabotage = sabotage;
    crate::panics::note();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.go()));
    if result.is_err() {
        world.failure = Some(Failure {
            what: "panic",
            detail: crate::panics::last(),
        });
    }
    Outcome {
        hash: world.hash,
        failure: world.failure,
        happenings: world.happenings,
        runs: world.checks.runs.len(),
        commits: world.commits,
        counts: crate::cluster::Counts::default(),
    }
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, sink: Option<Sink<'a>>) -> Self {
        let last_plan = scenario
            .requests
            .iter()
            .map(|planned| planned.at)
            .chain(scenario.faults.iter().map(|planned| planned.at))
            .max()
            .unwrap_or(0);
        Self {
            scenario,
            sink,
            rng: Rng::new(scenario.seed),
            now: 0,
            offset: BEGINNING,
            queue: BTreeMap::new(),
            turn: 0,
            pending: 0,
            happenings: 0,
            commits: 0,
            hash: 0,
            store: MemoryStore::new(),
            blobs: MemoryBlobs::default(),
            plans: Plans::default(),
            lane: None,
            writer: Writer::default(),
            life: 0,
            flush_at: None,
            wake_at: None,
            spins: 0,
            reader_free: 0,
            answers_at: 0,
            worker: Worker::default(),
            far: far::FarSide::default(),
            lost: Vec::new(),
            checks: Checks::default(),
            replies: 0,
            asked: BTreeMap::new(),
            fates: VecDeque::new(),
            full_until: 0,
            reads_until: 0,
            slow_until: 0,
            slow: 1,
            last_plan,
            care_at: last_plan + CARE,
            sabotage: None,
            failure: None,
        }
    }

    fn wall(&self) -> Time {
        Time(self.now + self.offset)
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
        if !what.only_passes() {
            self.pending += 1;
        }
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
        self.far_begin();
        self.restart();
        while let Some(((at, _), what)) = self.queue.pop_first() {
            self.now = at;
            self.happenings += 1;
            if !what.only_passes() {
                self.pending -= 1;
            }
            self.happen(what);
            self.look();
            if self.failure.is_some() || self.is_over() {
                break;
            }
        }
        if self.failure.is_none() {
            let verdict = self.checks.finish(&self.store);
            self.judge(verdict);
            if let Some((_, asked)) = self.asked.first_key_value() {
                let detail = format!(
                    "nobody answered {:?}, asked at {}",
                    asked.request,
                    micros(asked.at)
                );
                self.fail("unanswered", detail);
            }
        }
    }

    fn register(&mut self, index: usize) -> Result<(), String> {
        let Some(definition) = self.scenario.workflows.get(index) else {
            return Ok(());
        };
        let row = version_row(definition, self.wall())?;
        let stored = self.other_definition(definition, &row)?;
        let version = self
            .store
            .register(&stored)
            .map_err(|error| error.to_string())?;
        let read = perform::Version::read(&row).map_err(|error| error.to_string())?;
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
            Happening::Restart => self.restart(),
            Happening::Read(life, output) => self.read(life, *output),
            Happening::Land(life, commit, contents, fate) => {
                self.land(life, commit, contents, fate);
            }
            Happening::LateLand(commit, contents) => {
                let result = self.commit(&commit, &contents);
                self.note(|| format!("a commit lands late: {result:?}"));
            }
            Happening::ToLane(life, input) => {
                if life == self.life {
                    self.give_lane(*input);
                }
            }
            Happening::Committed(life, result) => {
                if life == self.life && self.lane.is_some() {
                    let next = self.writer.ended(result.is_err());
                    self.give_lane(Input::Committed(result));
                    self.write(next);
                }
            }
            Happening::Tasks(life, tasks) => {
                if life == self.life {
                    let acts = self.with_worker(|worker, around| worker.take(&tasks, around));
                    self.act(acts);
                }
            }
            Happening::Stops(life, stops) => {
                if life == self.life {
                    let acts = self.with_worker(|worker, around| worker.stop(&stops, around));
                    self.act(acts);
                }
            }
            Happening::Alarm(id, alarm) => {
                let acts = self.with_worker(|worker, around| worker.ring(id, alarm, around));
                self.act(acts);
            }
            Happening::Far(worker, step) => self.far_step(worker, step),
            Happening::Flush => {
                if self.flush_at == Some(self.now) {
                    self.flush_at = None;
                    self.flush();
                }
            }
            Happening::Wake => {
                if self.wake_at == Some(self.now) {
                    self.wake_at = None;
                    self.flush();
                }
            }
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

    /// What can be seen only when nothing is under way; and the care of people after all is over.
    fn look(&mut self) {
        if let Some(lane) = &self.lane
            && lane.is_quiet()
            && self.failure.is_none()
        {
            let verdict = self.checks.quiet(lane);
            self.judge(verdict);
        }
        let quarantined = self
            .lane
            .as_ref()
            .and_then(|lane| lane.quarantined().next().cloned());
        if let Some(key) = quarantined {
            let detail = format!("{key:?} is quarantined: {}", crate::panics::last());
            self.fail("panic", detail);
        }
        if self.happenings > HAPPENINGS {
            let open = self.checks.open();
            self.fail("endless", format!("too much happens; open: {open}"));
        }
        if self.now > self.last_plan + PATIENCE {
            let open = self.checks.open();
            self.fail(
                "liveness",
                format!("after {} h still open: {open}", PATIENCE / 3_600_000_000),
            );
        }
        if self.now >= self.care_at && self.lane.is_some() {
            self.care_at = self.now + CARE;
            for request in self.checks.care() {
                self.send(request);
            }
        }
    }

    fn is_over(&mut self) -> bool {
        let settled = self.pending == 0
            && self.flush_at.is_none()
            && self.worker.is_empty()
            && self.far.is_idle()
            && self
                .lane
                .as_ref()
                .is_some_and(|lane| lane.is_quiet() && lane.in_flight() == 0);
        settled && self.checks.all_ended()
    }
}
