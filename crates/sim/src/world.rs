//! The world: one queue of what happens, by true time.
//!
//! The lane sees the wall clock, which a fault may set; everything else goes by true time. Reads are
//! done one after another, commits too, each with a latency before and after it.
//!
//! - **Crash**: the lane and the worker die; what was on its way to them is gone; a commit under way
//!   may still land until somebody takes the shards over.
//! - **Restart**: the worker's losses are reported first, as slot files say.

mod asks;
mod brief;
mod faults;
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
use kapell_store::{Commit, MemoryStore, Store, VersionRow};

use brief::{brief_input, brief_output, micros};
pub use sabotage::Sabotage;

use crate::blobs::MemoryBlobs;
use crate::check::Checks;
use crate::rng::{Rng, mix};
use crate::scenario::{Ask, Fate, Scenario};
use crate::worker::{Act, Alarm, Around, Worker};

/// The namespace of every workflow.
pub const NAMESPACE: &str = "sim";

/// When the world begins, in microseconds since 1970.
const BEGINNING: i64 = 1_800_000_000_000_000;

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
#[derive(Clone, Debug)]
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
}

enum Happening {
    Ask(usize),
    AskAgain(Ask),
    Fault(usize),
    Restart,
    Read(u64, Output),
    Land(u64, Arc<Commit>, Vec<(BlobRef, Vec<u8>)>, Option<Fate>),
    LateLand(Arc<Commit>, Vec<(BlobRef, Vec<u8>)>),
    ToLane(u64, Input),
    Tasks(u64, Vec<(RunId, Place, Offer)>),
    Stops(u64, Vec<(RunId, Place, Offer)>),
    Alarm(u64, u64, Alarm),
    Flush,
    Wake,
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
    life: u64,
    flush_at: Option<i64>,
    wake_at: Option<i64>,
    spins: u32,
    reader_free: i64,
    answers_at: i64,
    worker: Worker,
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
            life: 0,
            flush_at: None,
            wake_at: None,
            spins: 0,
            reader_free: 0,
            answers_at: 0,
            worker: Worker::default(),
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
        if !matches!(what, Happening::Wake | Happening::Flush) {
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
        self.restart();
        while let Some(((at, _), what)) = self.queue.pop_first() {
            self.now = at;
            self.happenings += 1;
            if !matches!(what, Happening::Wake | Happening::Flush) {
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
        let row = self.row(definition)?;
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

    fn row(&self, definition: &serde_json::Value) -> Result<VersionRow, String> {
        let text = definition.to_string();
        let parsed = kapell_model::parse("sim.yaml", &text);
        let Some(spec) = parsed.spec else {
            let problems: Vec<String> = parsed
                .diagnostics
                .iter()
                .map(|problem| {
                    let around = text.get(problem.span.clone()).unwrap_or("");
                    format!("{} `{around}`", problem.message)
                })
                .collect();
            return Err(format!("{}\n{text}", problems.join("\n")));
        };
        let stored = serde_json::to_string(&*spec).map_err(|error| error.to_string())?;
        Ok(VersionRow {
            namespace: NAMESPACE.into(),
            workflow: spec.workflow.clone(),
            version: 1,
            hash: blake3::hash(text.as_bytes()).to_hex().as_str().into(),
            spec: stored.into(),
            source: text.into(),
            bundle: None,
            created_at: self.wall(),
            author: "".into(),
        })
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
            Happening::Read(life, output) => self.read(life, output),
            Happening::Land(life, commit, contents, fate) => {
                self.land(life, commit, contents, fate);
            }
            Happening::LateLand(commit, contents) => {
                let result = self.commit(&commit, &contents);
                self.note(|| format!("a commit lands late: {result:?}"));
            }
            Happening::ToLane(life, input) => {
                if life == self.life {
                    self.give_lane(input);
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
            Happening::Alarm(life, id, alarm) => {
                if life == self.life {
                    let acts = self.with_worker(|worker, around| worker.ring(id, alarm, around));
                    self.act(acts);
                }
            }
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

    fn act(&mut self, acts: Vec<Act>) {
        let life = self.life;
        for act in acts {
            match act {
                Act::Alarm(after, id, alarm) => self.plan(after, Happening::Alarm(life, id, alarm)),
                Act::Report(after, report) => {
                    let mut wire = self.rng.between(1, self.scenario.knobs.wire);
                    if self.rng.chance(self.scenario.knobs.late) {
                        wire += self.rng.magnitude(1_000, LATEST);
                    }
                    self.plan(
                        after + wire,
                        Happening::ToLane(life, Input::Reports(vec![report])),
                    );
                }
            }
        }
    }

    fn give_lane(&mut self, input: Input) {
        let input = self.spoil_input(input);
        let wall = self.wall();
        self.note(|| format!("-> {}", brief_input(&input)));
        self.trace(1, brief_input(&input).as_bytes());
        let Some(lane) = &mut self.lane else { return };
        lane.on(wall, input);
        if self.scenario.knobs.lump == 0 {
            self.flush();
        } else if self.flush_at.is_none() {
            let after = self.rng.between(0, self.scenario.knobs.lump);
            self.flush_at = Some(self.now + after);
            self.plan(after, Happening::Flush);
        }
    }

    fn flush(&mut self) {
        let wall = self.wall();
        let Some(lane) = &mut self.lane else { return };
        if wall >= lane.next_tick() {
            lane.on(wall, Input::Tick);
        }
        let outputs = lane.flush(wall);
        let next = lane.next_tick();
        let idle = outputs.is_empty();
        for output in outputs {
            self.output(output);
        }
        if next <= wall && idle {
            self.spins += 1;
            if self.spins > SPINS {
                self.fail(
                    "spins",
                    format!("the next tick stays at {next} while it is {wall}"),
                );
            }
        } else {
            self.spins = 0;
        }
        let after = (next.0 - wall.0).clamp(1_000, 5_000_000);
        let at = self.now + after;
        if self
            .wake_at
            .is_none_or(|wake_at| wake_at > at || wake_at <= self.now)
        {
            self.wake_at = Some(at);
            self.plan(after, Happening::Wake);
        }
    }

    fn output(&mut self, output: Output) {
        let Some(output) = self.spoil_output(output) else {
            return;
        };
        let life = self.life;
        self.note(|| format!("<- {}", brief_output(&output)));
        match output {
            Output::Commit(commit, contents) => {
                for write in &commit.entities {
                    self.trace(2, &write.chunk);
                }
                let fate = self.fates.pop_front();
                let after = self.store_micros(self.scenario.knobs.commit);
                self.plan(after, Happening::Land(life, commit, contents, fate));
            }
            Output::Offer(tasks) => {
                let mut sent = Vec::new();
                for task in tasks {
                    self.trace(3, &task.offer.counter.to_le_bytes());
                    match self.checks.offered(&task, &self.worker) {
                        Ok(locks) => self.worker.expect(&task, locks),
                        Err(failure) => self.fail(failure.what, failure.detail),
                    }
                    sent.push((task.run, task.place, task.offer));
                }
                let wire = self.rng.between(1, self.scenario.knobs.wire);
                self.plan(wire, Happening::Tasks(life, sent));
            }
            Output::Stop(stops) => {
                let wire = self.rng.between(1, self.scenario.knobs.wire);
                self.plan(
                    wire + self.scenario.knobs.wire,
                    Happening::Stops(life, stops),
                );
            }
            // The simulated worker keeps no results: what it reports arrives.
            Output::Taken(_) => {}
            Output::Reply(reply, answer) => self.answered(reply, answer),
            Output::RowsChanged(commit) => {
                for row in &commit.runs {
                    let verdict = self.checks.row_shown(row);
                    self.judge(verdict);
                }
            }
            output => {
                let after = self.store_micros(self.scenario.knobs.read);
                self.reader_free = self.reader_free.max(self.now) + after;
                let after = self.reader_free - self.now;
                self.plan(after, Happening::Read(life, output));
            }
        }
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
            && self
                .lane
                .as_ref()
                .is_some_and(|lane| lane.is_quiet() && lane.in_flight() == 0);
        settled && self.checks.all_ended()
    }
}
