use kapell_api::task::{NoBlobs, Outcome, TaskEvent, TaskResources, Usage};
use kapell_api::worker::Queues;
use kapell_engine::run::room::Labels;
use kapell_expr::Value;
use kapell_model::limits;
use kapell_store::{MemoryStore, Store as _, VersionRow};

use super::*;
use crate::perform::{self, Plans};
use crate::request::StartRun;

mod fairness;
mod follows;
mod full;
mod queues;
mod quotas;
mod reset;
mod sessions;
mod signals;
mod steps;

/// What becomes of commits.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Commits {
    Land,
    /// They take for ever.
    Hang,
    /// They land, and nobody hears of it.
    LandUnheard,
    /// They do not land, and nobody knows.
    Vanish,
    /// There is no room for any write.
    Full,
}

/// A lane over a store in memory; reads and commits are done at once, but for what is held back.
struct World {
    lane: Lane,
    store: MemoryStore,
    plans: Plans,
    now: Time,
    commits: Commits,
    /// True: reads are not answered.
    deaf: bool,
    /// An entity that cannot be read.
    damaged: Option<EntityKey>,
    acquisitions: usize,
    /// The node that it is, if it is one of several.
    among: Option<perform::Among>,
    /// What it said that it owns.
    holds: Vec<ShardSet>,
    /// Shards that another lane has.
    foreign: ShardSet,
    hung: Vec<Arc<Commit>>,
    /// Which of them follow the one before.
    follows: Vec<bool>,
    unread: Vec<Output>,
    offers: Vec<Task>,
    stops: Vec<(RunId, Place, Offer)>,
    taken: Vec<(RunId, Place, Offer)>,
    steps: Vec<StepsEnded>,
    replies: Vec<(ReplyId, Result<Answer, Error>)>,
    next_reply: u64,
}

const START: Time = Time(1_800_000_000_000_000);

/// The session of a worker that serves what nobody names.
const NEAR: SessionId = SessionId(1);

/// A lane with a worker that takes so much at a time.
fn with_worker(config: Config, now: Time, window: usize) -> Lane {
    let mut lane = Lane::new(config, now);
    let seat = Seat {
        queues: Queues::Others,
        process_window: window,
        light_window: window,
        total: TaskResources::ALL,
        share: TaskResources::ALL,
        labels: Labels::default(),
        spot: false,
    };
    let holds = Vec::new();
    let change = SessionChange::Open {
        seat,
        holds,
        hello: 0,
    };
    lane.on(now, Input::Session(NEAR, change));
    lane
}

/// A store that has these workflows.
fn stored(files: &[&str]) -> MemoryStore {
    let store = MemoryStore::new();
    for file in files {
        let parsed = kapell_model::parse("w.yaml", file);
        let spec = parsed
            .spec
            .unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
        store.register(&version_row(&spec, file)).unwrap();
    }
    store
}

impl World {
    fn new(files: &[&str]) -> Self {
        let mut world = Self::of(stored(files));
        world.go();
        world
    }

    /// A lane on this store to which nothing has happened.
    fn of(store: MemoryStore) -> Self {
        let config = Config {
            seed: 7,
            alone: true,
            idle_micros: 60_000_000,
            keeps: kapell_engine::topic::Keeps::default(),
            dispatch: crate::DispatchSettings::default(),
        };
        Self {
            lane: with_worker(config, START, 10_000),
            store,
            plans: Plans::default(),
            now: START,
            commits: Commits::Land,
            deaf: false,
            damaged: None,
            acquisitions: 0,
            among: None,
            holds: Vec::new(),
            foreign: ShardSet::default(),
            hung: Vec::new(),
            follows: Vec::new(),
            unread: Vec::new(),
            offers: Vec::new(),
            stops: Vec::new(),
            taken: Vec::new(),
            steps: Vec::new(),
            replies: Vec::new(),
            next_reply: 0,
        }
    }

    /// Lets happen all that happens by itself at this instant.
    fn go(&mut self) {
        for _ in 0..1_000 {
            if self.lane.next_tick() <= self.now {
                self.lane.on(self.now, Input::Tick);
            }
            let outputs = self.lane.flush(self.now);
            if outputs.is_empty() && self.lane.next_tick() > self.now {
                return;
            }
            for output in outputs {
                self.output(output);
            }
        }
        panic!("the lane turns in circles at {}", self.now);
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Commit {
                commit,
                contents,
                follows,
            } => match self.commits {
                Commits::Hang => {
                    self.hung.push(commit);
                    self.follows.push(follows);
                }
                Commits::Land => {
                    let result = perform::commit(&self.store, &NoBlobs, &contents, &commit);
                    self.lane.on(self.now, Input::Committed(result));
                }
                Commits::LandUnheard | Commits::Vanish => {
                    if self.commits == Commits::LandUnheard {
                        perform::commit(&self.store, &NoBlobs, &contents, &commit).unwrap();
                    }
                    self.commits = Commits::Land;
                    let error = kapell_store::Error::Unavailable("no answer".to_owned());
                    self.lane.on(self.now, Input::Committed(Err(error)));
                }
                Commits::Full => self.lane.on(self.now, Input::Committed(Err(no_room()))),
            },
            Output::Offer(tasks) => self.offers.extend(tasks),
            Output::Reply(reply, answer) => self.replies.push((reply, answer)),
            Output::Stop(stops) => self.stops.extend(stops),
            Output::Taken(taken) => self.taken.extend(taken),
            Output::Holds(shards) => self.holds.push(shards),
            Output::Wants(_) => {}
            Output::RowsChanged(_, steps) => self.steps.extend(steps),
            output if self.deaf => self.unread.push(output),
            output => self.read(output),
        }
    }

    fn read(&mut self, output: Output) {
        self.acquisitions += usize::from(matches!(output, Output::Acquire(..)));
        let output = match output {
            Output::Acquire(shards, dead) => Output::Acquire(shards.without(&self.foreign), dead),
            output => output,
        };
        let damaged = match &output {
            Output::Load(key) => self.damaged.as_ref().filter(|damaged| *damaged == key),
            _ => None,
        };
        let input = match damaged {
            None if self.commits == Commits::Full && matches!(output, Output::Acquire(..)) => {
                Input::Acquired(Err(no_room()))
            }
            Some(key) => {
                let error = kapell_store::Error::Corrupt("half of it is gone".to_owned());
                Input::Loaded(key.clone(), Err(error))
            }
            None => perform::read(
                &self.store,
                &NoBlobs,
                &mut self.plans,
                self.among.as_ref(),
                output,
            )
            .unwrap(),
        };
        self.lane.on(self.now, input);
    }

    fn pass(&mut self, micros: i64) {
        self.now = Time(self.now.0 + micros);
        self.go();
    }

    /// A lane on the same store that gets these shards, for a world whose lane gets all others.
    fn beside(&mut self, shards: ShardSet) -> Self {
        let config = Config {
            seed: 77,
            alone: true,
            idle_micros: 60_000_000,
            keeps: kapell_engine::topic::Keeps::default(),
            dispatch: crate::DispatchSettings::default(),
        };
        self.foreign = shards.clone();
        let mut other = Self::of(self.store.clone());
        other.now = self.now;
        other.foreign = ShardSet::all().without(&shards);
        for world in [self, &mut other] {
            world.lane = with_worker(config.clone(), world.now, 100);
            world.go();
        }
        other
    }

    /// A lane of one of several nodes on this store, which owns nothing yet.
    fn node(store: &MemoryStore, id: u64, now: Time) -> Self {
        let config = Config {
            seed: id,
            alone: false,
            idle_micros: 60_000_000,
            keeps: kapell_engine::topic::Keeps::default(),
            dispatch: crate::DispatchSettings::default(),
        };
        let cluster: Arc<dyn kapell_store::Cluster> = Arc::new(store.clone());
        let about = kapell_store::NodeAbout {
            id: kapell_model::NodeId(id),
            address: String::new(),
            version: String::new(),
            leaving: false,
        };
        let hour = std::time::Duration::from_hours(1);
        cluster.beat(&about, hour).unwrap();
        let mut world = Self {
            now,
            lane: with_worker(config, now, 100),
            among: Some((cluster, kapell_model::NodeId(id))),
            ..Self::of(store.clone())
        };
        world.go();
        world
    }

    fn own(&mut self, change: Own) {
        self.lane.on(self.now, Input::Own(Box::new(change)));
        self.go();
    }

    /// What it said last that it owns.
    fn held(&self) -> usize {
        self.holds.last().map_or(0, ShardSet::len)
    }

    /// Seconds pass one by one.
    fn seconds(&mut self, seconds: usize) {
        for _ in 0..seconds {
            self.pass(1_000_000);
        }
    }

    fn ask(&mut self, request: ClientRequest) -> ReplyId {
        self.next_reply += 1;
        let reply = ReplyId(self.next_reply);
        self.lane.on(self.now, Input::Request(reply, request));
        reply
    }

    fn start(&mut self, workflow: &str) -> ReplyId {
        self.ask(ClientRequest::Start(Box::new(StartRun {
            namespace: "default".into(),
            workflow: workflow.into(),
            version: None,
            params: Value::Null,
            text: false,
            by: "me".to_owned(),
            scheduled_at: None,
            priority: None,
            idempotency_key: None,
        })))
    }

    fn started(&mut self, workflow: &str) -> RunId {
        let reply = self.start(workflow);
        self.go();
        match self.answer(reply) {
            Some(Ok(Answer::Started(run))) => *run,
            other => panic!("{other:?}"),
        }
    }

    fn answer(&self, reply: ReplyId) -> Option<&Result<Answer, Error>> {
        let answer = self.replies.iter().find(|(other, _)| *other == reply);
        answer.map(|(_, answer)| answer)
    }

    fn report(&self, task: &Task, outcome: Outcome) -> Report {
        Report {
            run: task.run,
            place: task.place,
            offer: task.offer,
            worker: std::sync::Arc::default(),
            event: TaskEvent::Ended {
                started_at: self.now,
                ended_at: self.now,
                outcome,
                usage: Some(Usage::default()),
            },
        }
    }

    fn succeeds(&mut self, tasks: &[Task]) {
        let succeeded = |task| self.report(task, Outcome::Succeeded(Value::Null));
        let reports = tasks.iter().map(succeeded).collect();
        self.lane.on(self.now, Input::Reports(reports));
    }

    /// Ends of steps that were told since this was asked last: good ones, others.
    fn told(&mut self) -> [u64; 2] {
        let told = self.steps.drain(..).map(|(_, ends)| ends);
        told.fold([0; 2], |sum, ends| [sum[0] + ends[0], sum[1] + ends[1]])
    }

    fn status(&self, run: RunId) -> Option<RunStatus> {
        self.store.run(run).unwrap().map(|row| row.status)
    }
}

fn no_room() -> kapell_store::Error {
    kapell_store::Error::Full("no room".to_owned())
}

fn version_row(spec: &kapell_model::spec::Spec, file: &str) -> VersionRow {
    VersionRow {
        namespace: "default".into(),
        workflow: spec.workflow.clone(),
        version: 0,
        hash: blake3_of(file),
        spec: serde_json::to_string(spec).unwrap().into(),
        source: file.into(),
        bundle: None,
        created_at: START,
        author: "".into(),
    }
}

/// Texts of tests differ in their lengths.
fn blake3_of(file: &str) -> Arc<str> {
    format!("{:064x}", file.len()).into()
}

mod deploy;
mod mail;
mod own;
mod triggers;

const ONE: &str = "workflow: w\nsteps:\n  a: { shell: 'true' }\n";

#[test]
fn a_new_lane_asks_for_its_shards_once() {
    let mut world = World::new(&[]);
    assert_eq!(world.acquisitions, 1);
    let config = Config {
        seed: 1,
        alone: true,
        idle_micros: 1,
        keeps: kapell_engine::topic::Keeps::default(),
        dispatch: crate::DispatchSettings::default(),
    };
    world.lane = Lane::new(config, world.now);
    assert!(
        world.lane.next_tick() > world.now,
        "it has nothing to do but wait"
    );
}

#[test]
fn a_bug_that_shows_when_a_timer_ends_stops_that_run_alone() {
    let mut world = World::new(&[
        "workflow: r\nsteps:\n  a: { wait: 5s }\n  b: { wait: 5s }\n",
        ONE,
    ]);
    let run = world.started("r");
    let Some(Slot {
        entity: Entity::Run(broken),
        ..
    }) = world.lane.slots.get_mut(&run.into())
    else {
        panic!("the run is in memory");
    };
    // Where overflows are checked the end of the first step panics, and the other's timer is due.
    broken.state.counts = [u64::MAX; 3];
    world.seconds(10);
    if cfg!(debug_assertions) {
        let quarantined: Vec<_> = world.lane.quarantined().cloned().collect();
        assert_eq!(quarantined, [EntityKey::Run(run)]);
    }
    let other = world.started("w");
    assert_eq!(world.status(other), Some(RunStatus::Running));
}

#[test]
fn a_full_batch_does_not_keep_the_lane_awake() {
    let mut world = World::new(&["workflow: w\nsteps:\n  a: { wait: 5s }\n"]);
    world.started("w");
    world.commits = Commits::Hang;
    world.start("w");
    world.go();
    assert_eq!(world.hung.len(), 1);
    world.lane.open.bytes = limits::COMMIT_BYTES;
    world.now = Time(world.now.0 + 6_000_000);
    for _ in 0..10 {
        world.lane.on(world.now, Input::Tick);
        world.lane.flush(world.now);
    }
    assert!(world.lane.next_tick() > world.now);
}

#[test]
fn what_is_idle_leaves_memory_though_commits_never_end() {
    let mut world = World::new(&["workflow: w\nsteps:\n  a: { wait: 10h }\n"]);
    let run = world.started("w");
    world.commits = Commits::Hang;
    let other = world.start("w");
    world.seconds(100);
    assert!(world.answer(other).is_none(), "the commit is under way");
    assert!(!world.lane.slots.contains_key(&run.into()));
    assert_eq!(world.lane.slots.len(), 1, "what is being written stays");
}

#[test]
fn a_damaged_entity_does_not_hold_up_the_others() {
    let mut world = World::new(&[
        "workflow: l\nsteps:\n  a: { noop: , locks: [{ name: db }] }\n",
        ONE,
    ]);
    world.damaged = Some(EntityKey::Lock {
        namespace: "default".into(),
        name: "db".into(),
    });
    world.start("l");
    world.go();
    world.seconds(3);
    let run = world.started("w");
    assert_eq!(world.status(run), Some(RunStatus::Running));
    assert_eq!(world.lane.quarantined().count(), 1);
}

#[test]
fn a_version_that_was_read_before_another_was_registered_is_read_again() {
    let mut world = World::new(&[ONE]);
    world.deaf = true;
    let reply = world.start("w");
    world.go();
    let read = world.unread.pop().unwrap();
    let old = perform::read(&world.store, &NoBlobs, &mut world.plans, None, read).unwrap();
    let file = "workflow: w\nsteps:\n  a: { shell: 'true' }\n  b: { noop: }\n";
    let spec = kapell_model::parse("w.yaml", file).spec.unwrap();
    world.store.register(&version_row(&spec, file)).unwrap();
    world.lane.on(world.now, Input::VersionsChanged);
    world.deaf = false;
    world.lane.on(world.now, old);
    world.go();
    assert!(matches!(world.answer(reply), Some(Ok(Answer::Started(_)))));
    let run = world.started("w");
    assert_eq!(world.store.run(run).unwrap().unwrap().version, 2);
}

#[test]
fn requests_are_taken_while_reports_pour_in() {
    let mut world = World::new(&[
        "workflow: w\nsteps:\n  a: { noop: , foreach: { i: '${{ range(5000) }}' } }\n",
    ]);
    let run = world.started("w");
    let tasks = std::mem::take(&mut world.offers);
    world.commits = Commits::Hang;
    world.start("w");
    world.go();
    world.succeeds(&tasks);
    world.ask(ClientRequest::View { run });
    world.go();
    assert!(world.lane.is_full());
    assert_eq!(world.lane.open.requests, 1);
}
