//! A commit lane: owns entities, decides their inputs, commits in batches.
//!
//! ```text
//! inputs -> decide and apply in memory -> one commit for all of it -> effects
//!           (the next batch is decided while this one commits)
//! ```
//!
//! [`Lane::on`] takes one [`Input`] and returns nothing; [`Lane::flush`] grants work, seals the open
//! batch if no commit is under way, and gives all [`Output`]s gathered since.
//!
//! - **Crash**: memory is lost; everything committed is loaded again by `wake_at`.
//! - **Slow store**: the open batch grows to its bounds, then inputs wait in order.
//! - **Unknown outcome or conflict**: all memory is dropped, shards are acquired anew under higher
//!   epochs, attempts that the worker still holds are attached again, reports of batches that did
//!   not land are taken again, and clients of those batches are told that the outcome is unknown.
//! - **Full disk**: the commit did not land; the same batch is tried again each second, and new runs
//!   are refused meanwhile.
//! - **Clock jump**: an entity's time never goes back; a jump forward fires timers early once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kapell_api::task::{Place, Report, Task, TaskEvent};
use kapell_engine::event::{RunCreated, Stored, StoredBlob};
use kapell_engine::run::grant::{Offers, Room};
use kapell_engine::run_queue::Rule;
use kapell_engine::{Decision, Effect, Message, Ref, Refusal, Request, Run};
use kapell_expr::BlobRef;
use kapell_model::{EntityKey, Error, ErrorCode, Offer, RunId, RunStatus, Shard, Time, limits};
use kapell_store::{Commit, EntityWrite, Lease, RunRow};

use crate::batch::Batch;
use crate::dispatch::{Demand, SHARE};
use crate::entity::Entity;
use crate::perform::{Found, Version};
use crate::request::{Answer, ClientRequest, ReplyId};
use crate::rows;

mod start;

/// What a lane is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Makes ids unique: from the system's randomness, or a simulation's seed.
    pub seed: u64,
    /// Attempts in flight that start a process or a request; while they end faster than commits, as
    /// many more are handed out ahead as end during two commits. 0 hands out none.
    pub process_window: usize,
    /// Attempts in flight that start nothing.
    pub light_window: usize,
    /// Idle entities leave memory after so long.
    pub idle_micros: i64,
}

/// What comes to a lane.
#[derive(Debug)]
pub enum Input {
    /// A client asks.
    Request(ReplyId, ClientRequest),
    /// A worker reports.
    Reports(Vec<Report>),
    /// Shards are held.
    Acquired(kapell_store::Result<Vec<Lease>>),
    /// An entity was read.
    Loaded(EntityKey, kapell_store::Result<(Option<Lease>, Option<Box<Found>>)>),
    /// A version was read.
    Version(VersionKey, kapell_store::Result<Option<Version>>),
    /// A stored value was read.
    Content(EntityKey, Ref, Result<Vec<u8>, String>),
    /// Entities that must be in memory.
    Due(kapell_store::Result<Vec<EntityKey>>),
    /// The commit under way has ended.
    Committed(kapell_store::Result<()>),
    /// Another version of some workflow may be active.
    VersionsChanged,
    /// Time has passed.
    Tick,
}

impl Input {
    /// True for the answer to a read.
    fn answers_read(&self) -> bool {
        matches!(
            self,
            Self::Acquired(_) | Self::Loaded(..) | Self::Version(..) | Self::Content(..) | Self::Due(_)
        )
    }
}

/// Namespace, workflow, version.
pub type VersionKey = (Arc<str>, Arc<str>, Option<u32>);

/// What a lane asks for.
#[derive(Debug)]
pub enum Output {
    /// Acquire shards; answer [`Input::Acquired`].
    Acquire(Vec<Shard>),
    /// Read an entity, acquiring its shard if named; answer [`Input::Loaded`].
    Load(EntityKey, Option<Shard>),
    /// Read a version; answer [`Input::Version`].
    LoadVersion(VersionKey),
    /// Read a stored value; answer [`Input::Content`].
    LoadContent(EntityKey, Ref),
    /// Find entities that must be in memory by this time; answer [`Input::Due`].
    FindDue(Time),
    /// Commit; answer [`Input::Committed`].
    Commit(Arc<Commit>, Vec<(BlobRef, Vec<u8>)>),
    /// Hand out attempts.
    Offer(Vec<Task>),
    /// Stop attempts.
    Stop(Vec<(RunId, Place, Offer)>),
    /// Answer a client.
    Reply(ReplyId, Result<Answer, Error>),
    /// A run's row has changed and is durable.
    RowChanged(Box<RunRow>),
}

impl Output {
    /// True for what asks for a read, which one answer follows; answers come in the order asked.
    fn reads(&self) -> bool {
        matches!(
            self,
            Self::Acquire(_)
                | Self::Load(..)
                | Self::LoadVersion(_)
                | Self::LoadContent(..)
                | Self::FindDue(_)
        )
    }
}

/// An input to one entity.
#[derive(Clone, Debug)]
enum ToEntity {
    /// A report, request or wake for a run.
    Run(Box<kapell_engine::Input>),
    /// A message from another entity.
    Message(Box<Message>),
    /// A client's request: the answer goes to it.
    Request(ReplyId, Request),
    /// A client looks.
    View(ReplyId),
    /// A run is made here.
    Create(Box<start::Making>),
    /// A fork of this run is to be made.
    Fork(ReplyId, Box<start::Forking>),
    /// The strict queue of this run is to be freed.
    Dismiss(ReplyId),
    /// Time has passed, or nothing in particular.
    Wake,
    /// This entity is in memory now: the input goes on to the one that it is for.
    Then(EntityKey, Box<ToEntity>),
}

impl ToEntity {
    /// The client that waits for its answer.
    fn reply(&self) -> Option<ReplyId> {
        match self {
            Self::Request(reply, _) | Self::View(reply) | Self::Fork(reply, _) | Self::Dismiss(reply) => {
                Some(*reply)
            }
            Self::Create(making) => making.reply(),
            Self::Then(_, input) => input.reply(),
            Self::Run(_) | Self::Message(_) | Self::Wake => None,
        }
    }
}

impl ToEntity {
    /// True if a worker reports that an attempt is lost.
    fn is_loss(&self) -> bool {
        let Self::Run(input) = self else { return false };
        match &**input {
            kapell_engine::Input::Report(report) => matches!(
                report.event,
                TaskEvent::Ended { outcome: kapell_api::task::Outcome::Lost { .. }, .. }
            ),
            _ => false,
        }
    }
}

/// An input that waits, and whether the open batch must not be sealed before it is taken.
type Waiting = (ToEntity, bool);

/// An entity in memory with what the lane knows of it.
#[derive(Debug)]
struct Slot {
    entity: Entity,
    seq: u64,
    since_snapshot: usize,
    row: Option<RunRow>,
    timer: Option<Time>,
    /// Inputs that wait for a stored value.
    waiting: VecDeque<Waiting>,
    /// Stored values asked for.
    asked: Vec<Ref>,
    touched_at: Time,
}

/// Bytes of chunks after which a snapshot is written.
const SNAPSHOT_BYTES: usize = 4 << 20;

/// Chunks of a lock or run queue after which a snapshot replaces them.
const FORGET_CHUNKS: u64 = 64;

/// Runs that want what there is no room for are looked at so many at a time.
const SHORT_RUNS: usize = 64;

/// Requests in one batch.
const REQUESTS: usize = 1_024;

/// Attempts handed out ahead at most.
const AHEAD: usize = 1_024;

/// Shards that new runs go to, changed with every batch.
const HOME_SHARDS: u16 = 16;

/// How far ahead entities with timers are read into memory, and how often they are looked for.
const HORIZON_MICROS: i64 = 10_000_000;

/// See the module.
#[derive(Debug)]
pub struct Lane {
    config: Config,
    now: Time,
    leases: BTreeMap<Shard, Lease>,
    home: Vec<Shard>,
    slots: BTreeMap<EntityKey, Slot>,
    loading: BTreeMap<EntityKey, VecDeque<Waiting>>,
    versions: BTreeMap<VersionKey, Version>,
    making: BTreeMap<VersionKey, Vec<start::Making>>,
    /// Forks of a run that wait for another version.
    forks: BTreeMap<VersionKey, Vec<(EntityKey, ReplyId, Box<start::Forking>)>>,
    timers: BTreeSet<(Time, EntityKey)>,
    again: VecDeque<EntityKey>,
    demand: Demand,
    offers: u64,
    ids: u64,
    /// Attempts handed out and not reported as ended: they outlive the lane's memory.
    held: BTreeMap<(RunId, Place), (Offer, bool)>,
    processes: usize,
    lights: usize,
    open: Batch,
    /// Inputs that must be taken before the open batch may be sealed.
    holds: usize,
    committing: Option<Committing>,
    /// Reports that wait for the next batch.
    reports: VecDeque<Vec<Report>>,
    /// Requests that wait: what is under way goes before what is new.
    requests: VecDeque<(ReplyId, ClientRequest)>,
    out: Vec<Output>,
    due_asked_at: Option<Time>,
    /// Reads asked for and not answered, and those of them whose answers are void.
    reads: usize,
    stale_reads: usize,
    /// Reads to be done again, and when.
    failed_reads: Vec<Output>,
    read_again_at: Option<Time>,
    looked_due: bool,
    recovering: bool,
    full_since: Option<Time>,
    /// Entities whose deciding broke a rule of its own: nothing is given to them any more.
    quarantined: BTreeSet<EntityKey>,
    /// Attempts with processes that ended since the last commit began.
    landed: usize,
    /// Attempts handed out ahead of the worker's room, so that it does not wait for commits.
    ahead: usize,
    /// Memory may be half changed: it is dropped as soon as no commit is under way.
    broken: bool,
}

/// A commit under way.
#[derive(Debug)]
struct Committing {
    batch: Batch,
    commit: Arc<Commit>,
    retry_at: Option<Time>,
    ended: Vec<EntityKey>,
}

impl Lane {
    /// A lane that holds nothing yet: its first outputs ask for shards and for what is due.
    pub fn new(config: Config, now: Time) -> Self {
        let mut lane = Self {
            config,
            now,
            leases: BTreeMap::new(),
            home: Vec::new(),
            slots: BTreeMap::new(),
            loading: BTreeMap::new(),
            versions: BTreeMap::new(),
            making: BTreeMap::new(),
            forks: BTreeMap::new(),
            timers: BTreeSet::new(),
            again: VecDeque::new(),
            demand: Demand::default(),
            offers: 0,
            ids: 0,
            held: BTreeMap::new(),
            processes: 0,
            lights: 0,
            open: Batch::default(),
            holds: 0,
            committing: None,
            reports: VecDeque::new(),
            requests: VecDeque::new(),
            out: Vec::new(),
            due_asked_at: None,
            reads: 0,
            stale_reads: 0,
            failed_reads: Vec::new(),
            read_again_at: None,
            looked_due: false,
            recovering: true,
            full_since: None,
            quarantined: BTreeSet::new(),
            landed: 0,
            ahead: 0,
            broken: false,
        };
        lane.recover();
        lane
    }

    /// Everything is asked for anew.
    fn recover(&mut self) {
        self.recovering = true;
        let first = mix(self.config.seed) % u64::from(kapell_model::SHARDS);
        self.home = (0..HOME_SHARDS)
            .map(|place| {
                let shard = (first + u64::from(place) * 257) % u64::from(kapell_model::SHARDS);
                Shard(u16::try_from(shard).unwrap_or(0))
            })
            .collect();
        self.home.sort_unstable();
        self.out.push(Output::Acquire(self.home.clone()));
    }

    /// Takes one input at a time. Time never goes back for an entity.
    pub fn on(&mut self, now: Time, input: Input) {
        if now < self.now {
            // The clock was set back: nothing waits longer for that.
            self.due_asked_at = self.due_asked_at.map(|at| at.min(now));
            self.read_again_at = self.read_again_at.map(|_| now);
            if let Some(committing) = &mut self.committing {
                committing.retry_at = committing.retry_at.map(|_| now);
            }
        }
        self.now = now;
        if input.answers_read() {
            self.reads = self.reads.saturating_sub(1);
            if self.stale_reads > 0 {
                // It was asked before all memory was dropped.
                self.stale_reads -= 1;
                return;
            }
        }
        match input {
            Input::Committed(result) => self.committed(result),
            Input::Acquired(result) => self.acquired(result),
            Input::Loaded(key, result) => self.loaded(key, result),
            Input::Version(key, result) => self.version_read(key, result),
            Input::Content(key, reference, result) => self.content(&key, &reference, result),
            Input::Due(result) => self.due(result),
            Input::VersionsChanged => self.versions.retain(|(_, _, version), _| version.is_some()),
            Input::Tick => self.tick(),
            Input::Request(reply, request) => {
                self.requests.push_back((reply, request));
                self.take_waiting();
            }
            Input::Reports(reports) => {
                self.reports.push_back(reports);
                self.take_waiting();
            }
        }
        self.run_again();
    }

    /// True if the open batch takes no more.
    fn is_full(&self) -> bool {
        self.open.inputs >= limits::COMMIT_INPUTS || self.open.bytes >= limits::COMMIT_BYTES
    }

    /// Takes what waits, as much as fits the open batch: reports first, so that work under way ends
    /// and leaves memory before new work comes.
    fn take_waiting(&mut self) {
        while !self.recovering && !self.broken && !self.is_full() {
            if let Some(reports) = self.reports.pop_front() {
                self.open.inputs += reports.len();
                for report in reports {
                    self.report(report);
                }
            } else if self.open.requests < REQUESTS
                && let Some((reply, request)) = self.requests.pop_front()
            {
                self.open.inputs += 1;
                self.open.requests += 1;
                self.request(reply, request);
            } else {
                return;
            }
            self.run_again();
        }
    }

    fn report(&mut self, report: Report) {
        if matches!(report.event, TaskEvent::Ended { .. }) {
            self.landed(&report);
        }
        let key = EntityKey::Run(report.run);
        self.open.reports.push(report.clone());
        self.submit(key, ToEntity::Run(Box::new(kapell_engine::Input::Report(report))), false);
    }

    fn landed(&mut self, report: &Report) {
        let at = (report.run, report.place);
        if let Some((offer, light)) = self.held.get(&at).copied()
            && offer == report.offer
        {
            self.held.remove(&at);
            if light {
                self.lights -= 1;
            } else {
                self.processes -= 1;
                self.landed += 1;
            }
        }
    }

    fn request(&mut self, reply: ReplyId, request: ClientRequest) {
        match request {
            ClientRequest::Start(start) => {
                if self.full_since.is_some() {
                    let error = Error::new(ErrorCode::DiskFull, "the disk is full: no new runs start")
                        .hint("make room; what is under way goes on by itself then");
                    self.reply(reply, Err(error));
                    return;
                }
                self.start(start::Making::from_client(reply, *start));
            }
            ClientRequest::Run { run, request } => {
                self.submit(run.into(), ToEntity::Request(reply, request), false);
            }
            ClientRequest::View { run } => self.submit(run.into(), ToEntity::View(reply), false),
            ClientRequest::Fork { run, from, params, text, version, by } => {
                let forking = start::Forking { from, params, text, version, by };
                self.submit(run.into(), ToEntity::Fork(reply, Box::new(forking)), false);
            }
            ClientRequest::Dismiss { run } => self.submit(run.into(), ToEntity::Dismiss(reply), false),
        }
    }

    fn reply(&mut self, reply: ReplyId, answer: Result<Answer, Error>) {
        self.open.replies.push((reply, answer));
    }

    /// Gives an input to an entity: at once if it is in memory and waits for nothing.
    fn submit(&mut self, key: EntityKey, input: ToEntity, holds: bool) {
        if self.quarantined.contains(&key) {
            let error = Error::new(ErrorCode::Internal, "Kapell broke a rule of its own on this run")
                .hint("it is left as it is; please report the log line that names it");
            self.refuse(input, &error);
            return;
        }
        if let Some(slot) = self.slots.get_mut(&key) {
            if slot.asked.is_empty() {
                self.deliver(&key, input, holds);
            } else {
                self.holds += usize::from(holds);
                slot.waiting.push_back((input, holds));
            }
            return;
        }
        self.holds += usize::from(holds);
        let shard = key.shard();
        let acquire = (!self.leases.contains_key(&shard)).then_some(shard);
        let waiting = self.loading.entry(key.clone()).or_default();
        if waiting.is_empty() {
            self.out.push(Output::Load(key, acquire));
        }
        waiting.push_back((input, holds));
    }

    fn acquired(&mut self, result: kapell_store::Result<Vec<Lease>>) {
        match result {
            Ok(leases) => {
                self.leases.extend(leases.into_iter().map(|lease| (lease.shard, lease)));
                self.find_due();
            }
            Err(error) => {
                tracing::error!(%error, "shards could not be acquired; trying again");
                self.due_asked_at = Some(self.now);
            }
        }
    }

    fn find_due(&mut self) {
        self.due_asked_at = Some(self.now);
        self.out.push(Output::FindDue(Time(self.now.0.saturating_add(HORIZON_MICROS))));
    }

    fn due(&mut self, result: kapell_store::Result<Vec<EntityKey>>) {
        match result {
            Ok(keys) => {
                for key in keys {
                    if !self.slots.contains_key(&key) && !self.loading.contains_key(&key) {
                        self.submit(key, ToEntity::Wake, false);
                    }
                }
                self.looked_due = true;
                if self.recovering {
                    self.recovering = false;
                    self.take_waiting();
                }
            }
            Err(error) => tracing::error!(%error, "what is due could not be read; trying again"),
        }
    }

    fn loaded(
        &mut self,
        key: EntityKey,
        result: kapell_store::Result<(Option<Lease>, Option<Box<Found>>)>,
    ) {
        let mut waiting = self.loading.remove(&key).unwrap_or_default();
        self.holds -= waiting.iter().filter(|(_, holds)| *holds).count();
        let found = match result {
            Ok((lease, found)) => {
                if let Some(lease) = lease {
                    let held = self.leases.entry(lease.shard).or_insert(lease);
                    if held.epoch < lease.epoch {
                        *held = lease;
                    }
                }
                found
            }
            Err(error) => {
                tracing::error!(?key, %error, "an entity could not be read; trying again");
                self.not_loaded(key, waiting, &error);
                return;
            }
        };
        let slot = match found {
            Some(found) => Some(Slot::new(found.entity, found.seq, found.row, self.now)),
            None => Entity::fresh(&key).map(|entity| Slot::new(entity, 0, None, self.now)),
        };
        if let Some(slot) = slot {
            self.slots.insert(key.clone(), slot);
            // Losses that say more than that the worker is gone are heard first.
            waiting.retain(|(input, _)| {
                let loss = input.is_loss();
                if loss {
                    self.deliver(&key, input.clone(), false);
                }
                !loss
            });
            self.join(&key);
        }
        for (input, holds) in waiting {
            if self.slots.contains_key(&key) {
                self.submit(key.clone(), input, holds);
            } else if let ToEntity::Create(making) = input {
                self.create(&key, *making);
            } else {
                let error = Error::new(ErrorCode::RunNotFound, "there is no such run")
                    .hint("`kapell list` lists runs");
                self.refuse(input, &error);
            }
        }
    }

    /// An entity could not be read. Clients are told; what workers and other entities say waits for
    /// the next try.
    fn not_loaded(&mut self, key: EntityKey, waiting: VecDeque<Waiting>, error: &kapell_store::Error) {
        let error = Error::new(ErrorCode::StoreUnavailable, error.to_string());
        let mut kept = VecDeque::new();
        for (input, holds) in waiting {
            if input.reply().is_some() {
                self.refuse(input, &error);
            } else {
                self.holds += usize::from(holds);
                kept.push_back((input, holds));
            }
        }
        if !kept.is_empty() {
            let acquire = (!self.leases.contains_key(&key.shard())).then_some(key.shard());
            self.loading.insert(key.clone(), kept);
            self.read_again(Output::Load(key, acquire));
        }
    }

    /// A read that failed is done again in a second.
    fn read_again(&mut self, read: Output) {
        self.failed_reads.push(read);
        self.read_again_at = self.read_again_at.or(Some(Time(self.now.0 + 1_000_000)));
    }

    /// An entity has come into memory: attempts that the worker still holds are attached, those of
    /// owners before are lost, and its timers count.
    fn join(&mut self, key: &EntityKey) {
        if let EntityKey::Run(id) = key {
            let held: Vec<(Place, Offer)> = self
                .held
                .range((*id, Place::default())..=(*id, PLACE_MAX))
                .map(|((_, place), (offer, _))| (*place, *offer))
                .collect();
            let epoch = self.leases.get(&id.shard()).map_or(0, |lease| lease.epoch);
            let input = kapell_engine::Input::SessionsEnded { epoch, held };
            self.deliver(key, ToEntity::Run(Box::new(input)), false);
        }
        self.deliver(key, ToEntity::Wake, false);
    }

    fn refuse(&mut self, input: ToEntity, error: &Error) {
        match input {
            ToEntity::Create(making) => self.make_failed(*making, error.clone()),
            input => {
                if let Some(reply) = input.reply() {
                    self.reply(reply, Err(error.clone()));
                }
            }
        }
    }

    fn content(&mut self, key: &EntityKey, reference: &Ref, result: Result<Vec<u8>, String>) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.asked.retain(|asked| asked != reference);
        let Entity::Run(run) = &mut slot.entity else { return };
        let read = result.and_then(|bytes| run.loaded(reference, &bytes));
        if let Err(error) = read {
            tracing::error!(?key, %error, "a stored value could not be read");
            run.unreadable(reference, &error);
        }
        if slot.asked.is_empty() {
            let waiting = std::mem::take(&mut slot.waiting);
            self.holds -= waiting.iter().filter(|(_, holds)| *holds).count();
            self.deliver(key, ToEntity::Wake, false);
            for (input, holds) in waiting {
                self.submit(key.clone(), input, holds);
            }
        }
    }

    /// Lets an entity in memory decide.
    fn deliver(&mut self, key: &EntityKey, input: ToEntity, holds: bool) {
        let now = self.now;
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.touched_at = now;
        match (&mut slot.entity, input) {
            (Entity::Run(_), input) => self.deliver_run(key, input, holds),
            (Entity::Queue(_), ToEntity::Then(key, input)) => self.submit(key, *input, holds),
            (Entity::Queue(queue), ToEntity::Message(message)) => {
                let decided = queue.decide(Some(&message), now);
                self.queue_decided(key, decided);
            }
            (Entity::Queue(queue), _) => {
                let decided = queue.decide(None, now);
                self.queue_decided(key, decided);
            }
            (Entity::Lock(name, lock), input) => {
                let name = name.clone();
                let message = match &input {
                    ToEntity::Message(message) => Some(&**message),
                    _ => None,
                };
                let decided = lock.decide(&name, message, now);
                if !decided.events.is_empty() {
                    let chunk = kapell_engine::lock::encode_chunk(&decided.events);
                    self.append(key, &chunk);
                }
                self.settle_timer(key);
                self.send_all(decided.messages);
            }
        }
    }

    fn queue_decided(&mut self, key: &EntityKey, decided: kapell_engine::run_queue::QueueDecision) {
        if !decided.events.is_empty() {
            let chunk = kapell_engine::run_queue::encode_chunk(&decided.events);
            self.append(key, &chunk);
        }
        self.settle_timer(key);
        self.send_all(decided.messages);
    }

    fn send_all(&mut self, messages: Vec<(EntityKey, Message)>) {
        for (to, message) in messages {
            self.send(to, message);
        }
    }

    /// Messages between entities of this lane become part of the same commit.
    fn send(&mut self, to: EntityKey, message: Message) {
        match message {
            Message::StartChild(child) => self.start(start::Making::from_parent(*child)),
            message => self.submit(to, ToEntity::Message(Box::new(message)), true),
        }
    }

    fn append(&mut self, key: &EntityKey, chunk: &[u8]) {
        self.open.bytes += chunk.len();
        let touched = self.open.touched.entry(key.clone()).or_default();
        touched.chunk.extend_from_slice(chunk);
    }

    fn deliver_run(&mut self, key: &EntityKey, input: ToEntity, holds: bool) {
        let now = self.now;
        let Some(Slot { entity: Entity::Run(run), .. }) = self.slots.get(key) else { return };
        if let Some(queue) = looks_at_queue(run, &input)
            && !self.slots.contains_key(&queue)
        {
            self.submit(queue, ToEntity::Then(key.clone(), Box::new(input)), holds);
            return;
        }
        let Some(Slot { entity: Entity::Run(run), .. }) = self.slots.get_mut(key) else { return };
        let mut reply = None;
        let kept = input.clone();
        let input = match input {
            ToEntity::Run(input) => *input,
            ToEntity::Wake => kapell_engine::Input::Wake,
            ToEntity::Request(id, request) => {
                reply = Some(id);
                if let Err(error) = self.may_retry(key, &request) {
                    self.reply(id, Err(error));
                    return;
                }
                kapell_engine::Input::Request(request)
            }
            ToEntity::View(id) => {
                let view = Box::new(run.view());
                self.reply(id, Ok(Answer::View(self.with_queue(view))));
                return;
            }
            ToEntity::Message(message) => match run_input(*message) {
                Some(input) => input,
                None => return,
            },
            ToEntity::Create(making) => {
                // The run is there already: the same request came twice.
                self.made(&making, key);
                return;
            }
            ToEntity::Fork(id, forking) => {
                self.fork(id, key, &forking);
                return;
            }
            ToEntity::Dismiss(id) => {
                self.dismiss(id, key);
                return;
            }
            ToEntity::Then(..) => return,
        };
        let Some(Slot { entity: Entity::Run(run), .. }) = self.slots.get_mut(key) else { return };
        // A panic is a bug on this one entity: all others go on, from what is durable.
        let decided =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.decide(input, now)));
        let Ok(decided) = decided else {
            tracing::error!(?key, "deciding an input broke a rule of its own; left as it is");
            self.quarantined.insert(key.clone());
            self.broken = true;
            if let Some(reply) = reply {
                let error = Error::new(ErrorCode::Internal, "Kapell broke a rule of its own");
                self.reply(reply, Err(error));
            }
            return;
        };
        match decided {
            Ok(decision) => {
                if let Some(reply) = reply {
                    self.reply(reply, Ok(Answer::Done));
                }
                self.absorb(key, decision);
            }
            Err(Refusal::Reject(error)) => {
                if let Some(reply) = reply {
                    self.reply(reply, Err(error));
                }
            }
            Err(Refusal::Need(needs)) => {
                self.ask(key, needs);
                if let Some(slot) = self.slots.get_mut(key) {
                    self.holds += usize::from(holds);
                    slot.waiting.push_front((kept, holds));
                }
            }
            Err(Refusal::Stale) => {}
        }
    }

    fn ask(&mut self, key: &EntityKey, needs: Vec<Ref>) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        for need in needs {
            if !slot.asked.contains(&need) {
                slot.asked.push(need.clone());
                self.out.push(Output::LoadContent(key.clone(), need));
            }
        }
    }

    /// Makes a run's decision part of the open batch.
    fn absorb(&mut self, key: &EntityKey, decision: Decision) {
        let EntityKey::Run(id) = *key else { return };
        if !decision.events.is_empty() || !decision.pages.is_empty() {
            let chunk = kapell_engine::event::encode_chunk(&decision.events);
            self.append(key, &chunk);
            if let Some(touched) = self.open.touched.get_mut(key) {
                touched.pages.extend(decision.pages);
            }
        }
        self.open.blobs.extend(decision.blobs);
        for effect in decision.effects {
            match effect {
                Effect::Offer(tasks) => {
                    for task in &tasks {
                        let light = task.work.process().is_none();
                        self.held.insert((id, task.place), (task.offer, light));
                        if light {
                            self.lights += 1;
                        } else {
                            self.processes += 1;
                        }
                    }
                    self.open.offers.extend(tasks);
                }
                Effect::Stop(stops) => {
                    self.open.stops.extend(stops.into_iter().map(|(place, offer)| (id, place, offer)));
                }
                Effect::Send(to, message) => self.send(to, message),
            }
        }
        let Some(slot) = self.slots.get(key) else { return };
        let Entity::Run(run) = &slot.entity else { return };
        let needs = run.live.needs.clone();
        let unsettled = run.unsettled();
        self.demand.update(id, run);
        if !needs.is_empty() {
            self.ask(key, needs);
        } else if unsettled {
            self.again.push_back(key.clone());
        }
        self.settle_timer(key);
    }

    fn settle_timer(&mut self, key: &EntityKey) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let timer = slot.entity.timer_at();
        if timer == slot.timer {
            return;
        }
        if let Some(old) = slot.timer {
            self.timers.remove(&(old, key.clone()));
        }
        if let Some(new) = timer {
            self.timers.insert((new, key.clone()));
        }
        slot.timer = timer;
    }

    /// Goes on with entities whose deciding stopped at its bound.
    fn run_again(&mut self) {
        while !self.is_full() {
            let Some(key) = self.again.pop_front() else { return };
            self.submit(key, ToEntity::Wake, false);
        }
    }

    fn tick(&mut self) {
        let now = self.now;
        while !self.is_full() {
            let Some((at, key)) = self.timers.first().cloned() else { break };
            if at > now {
                break;
            }
            self.timers.remove(&(at, key.clone()));
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.timer = None;
            }
            self.submit(key.clone(), ToEntity::Wake, false);
            self.settle_timer(&key);
        }
        if let Some(committing) = &mut self.committing
            && committing.retry_at.is_some_and(|at| at <= now)
        {
            committing.retry_at = None;
            let (commit, blobs) = (committing.commit.clone(), committing.batch.blobs.clone());
            self.out.push(Output::Commit(commit, blobs));
        }
        if self.read_again_at.is_some_and(|at| at <= now) {
            self.read_again_at = None;
            self.out.append(&mut self.failed_reads);
        }
        let looked = self.due_asked_at.map_or(0, |at| at.0);
        if self.recovering && now.0 - looked > 1_000_000 {
            self.due_asked_at = Some(now);
            self.out.push(Output::Acquire(self.home.clone()));
        } else if self.looked_due && now.0 - looked > HORIZON_MICROS / 2 {
            self.find_due();
            self.evict();
        }
    }

    /// Idle entities leave memory; the store knows when they must come back.
    fn evict(&mut self) {
        if self.committing.is_some() || !self.open.is_empty() {
            return;
        }
        let before = self.now.0 - self.config.idle_micros;
        let horizon = Time(self.now.0 + 2 * HORIZON_MICROS);
        let idle: Vec<EntityKey> = self
            .slots
            .iter()
            .filter(|(_, slot)| {
                slot.touched_at.0 < before
                    && slot.asked.is_empty()
                    && !slot.entity.is_busy()
                    && slot.timer.is_none_or(|at| at > horizon)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in idle {
            self.drop_slot(&key);
        }
    }

    fn drop_slot(&mut self, key: &EntityKey) {
        if let Some(slot) = self.slots.remove(key)
            && let Some(at) = slot.timer
        {
            self.timers.remove(&(at, key.clone()));
        }
        if let EntityKey::Run(id) = key {
            self.demand.remove(*id);
        }
    }

    /// When the lane should be ticked at the latest.
    pub fn next_tick(&self) -> Time {
        let poll = self.due_asked_at.map_or(self.now, |at| Time(at.0 + HORIZON_MICROS / 2 + 1));
        let timer = self.timers.first().map_or(poll, |(at, _)| (*at).min(poll));
        let timer = self.read_again_at.map_or(timer, |at| at.min(timer));
        match self.committing.as_ref().and_then(|committing| committing.retry_at) {
            Some(at) => timer.min(at),
            None if self.recovering => Time(self.now.0 + 1_000_000).min(timer),
            None => timer,
        }
    }

    /// Grants what there is room for, seals the open batch if nothing is being committed, and
    /// returns what is to be done.
    pub fn flush(&mut self, now: Time) -> Vec<Output> {
        self.now = now;
        if self.broken && self.committing.is_none() {
            self.broken = false;
            self.reset(Batch::default());
        }
        while self.committing.is_none() && self.holds == 0 && !self.broken {
            self.dispatch();
            if self.holds > 0 || self.open.is_empty() {
                break;
            }
            // A batch that writes nothing is over at once, and the next may wait already.
            self.seal();
        }
        self.reads += self.out.iter().filter(|output| output.reads()).count();
        std::mem::take(&mut self.out)
    }

    fn dispatch(&mut self) {
        if self.recovering {
            return;
        }
        for queue in self.demand.queues() {
            let mut short = Vec::new();
            while !self.is_full() && short.len() < SHORT_RUNS {
                let mut room = Room {
                    process: self.process_window().saturating_sub(self.processes),
                    light: self.config.light_window.saturating_sub(self.lights),
                    short: false,
                };
                if room.is_empty() {
                    break;
                }
                let Some(id) = self.demand.first(&queue) else { break };
                let granted = self.grant(id, &queue, &mut room);
                if granted == SHARE {
                    self.demand.next_turn(id, &queue);
                } else {
                    self.demand.leave(id, &queue);
                    if room.short {
                        short.push(id);
                    }
                }
            }
            for id in short {
                if let Some(Slot { entity: Entity::Run(run), .. }) = self.slots.get(&id.into()) {
                    self.demand.update(id, run);
                }
            }
        }
    }

    fn process_window(&self) -> usize {
        match self.config.process_window {
            0 => 0,
            window => window + self.ahead,
        }
    }

    /// Grants a run its share of a queue's work; returns how many attempts.
    fn grant(&mut self, id: RunId, queue: &Arc<str>, room: &mut Room) -> usize {
        let key = EntityKey::Run(id);
        let epoch = self.leases.get(&id.shard()).map_or(0, |lease| lease.epoch);
        let Some(slot) = self.slots.get_mut(&key) else { return 0 };
        let Entity::Run(run) = &mut slot.entity else { return 0 };
        slot.touched_at = self.now;
        let mut offers = Offers { next: Offer { epoch, counter: self.offers } };
        let (granted, decision) = run.grant(queue, SHARE, room, self.now, &mut offers);
        self.offers = offers.next.counter;
        self.absorb(&key, decision);
        granted
    }

    /// Makes the open batch one commit.
    fn seal(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.open);
        if batch.is_read_only() {
            self.release(batch, &[]);
            self.take_waiting();
            return;
        }
        let mut batch = batch;
        self.ahead = (self.landed * 2).max(self.ahead * 3 / 4).min(AHEAD);
        self.landed = 0;
        let (commit, ended) = self.commit_of(&mut batch);
        let commit = Arc::new(commit);
        self.out.push(Output::Commit(commit.clone(), batch.blobs.clone()));
        self.committing = Some(Committing { batch, commit, retry_at: None, ended });
        self.take_waiting();
    }

    fn commit_of(&mut self, batch: &mut Batch) -> (Commit, Vec<EntityKey>) {
        let mut commit = Commit::default();
        let mut ended = Vec::new();
        let mut shards = BTreeSet::new();
        for (key, touched) in &mut batch.touched {
            shards.insert(key.shard());
            let Some(slot) = self.slots.get_mut(key) else { continue };
            slot.seq += 1;
            slot.since_snapshot += touched.chunk.len();
            let forgets = slot.entity.forgets();
            let snapshot = if forgets {
                slot.seq.is_multiple_of(FORGET_CHUNKS)
            } else {
                slot.since_snapshot > SNAPSHOT_BYTES
            };
            if let Entity::Run(run) = &slot.entity {
                let row = rows::row(run);
                if slot.row.as_ref().is_none_or(|old| rows::changed(old, &row)) {
                    commit.runs.push(row.clone());
                    slot.row = Some(row);
                }
                if run.state.ended() {
                    ended.push(key.clone());
                }
            }
            commit.entities.push(EntityWrite {
                key: key.clone(),
                seq: slot.seq,
                chunk: std::mem::take(&mut touched.chunk),
                wake_at: slot.entity.wake_at(),
                snapshot: snapshot.then(|| slot.entity.snapshot()),
                forget: snapshot && forgets,
                pages: std::mem::take(&mut touched.pages),
            });
            if snapshot {
                slot.since_snapshot = 0;
            }
        }
        for shard in shards {
            if let Some(lease) = self.leases.get_mut(&shard) {
                commit.shards.push(*lease);
                lease.seq += 1;
            }
        }
        (commit, ended)
    }

    /// The batch is durable: what follows from it goes out.
    fn release(&mut self, batch: Batch, rows: &[RunRow]) {
        if !batch.offers.is_empty() {
            self.out.push(Output::Offer(batch.offers));
        }
        if !batch.stops.is_empty() {
            self.out.push(Output::Stop(batch.stops));
        }
        for (reply, answer) in batch.replies {
            self.out.push(Output::Reply(reply, answer));
        }
        for row in rows {
            self.out.push(Output::RowChanged(Box::new(row.clone())));
        }
    }

    fn committed(&mut self, result: kapell_store::Result<()>) {
        let Some(mut committing) = self.committing.take() else { return };
        match result {
            Ok(()) => {
                self.full_since = None;
                self.release(committing.batch, &committing.commit.runs);
                for key in committing.ended {
                    let over = self.slots.get(&key).is_some_and(|slot| {
                        matches!(&slot.entity, Entity::Run(run) if run.state.ended())
                            && slot.asked.is_empty()
                    });
                    if over && !self.open.touched.contains_key(&key) {
                        self.drop_slot(&key);
                    }
                }
                self.take_waiting();
            }
            Err(kapell_store::Error::Full(error)) => {
                if self.full_since.is_none() {
                    tracing::error!(%error, "the disk is full; trying again each second");
                }
                self.full_since = self.full_since.or(Some(self.now));
                committing.retry_at = Some(Time(self.now.0 + 1_000_000));
                self.committing = Some(committing);
            }
            Err(error) => {
                tracing::error!(%error, "a commit failed; reading everything again");
                self.reset(committing.batch);
            }
        }
    }

    /// Drops all memory: what was decided on top of a commit that may not have landed is void.
    fn reset(&mut self, failed: Batch) {
        let open = std::mem::take(&mut self.open);
        let error = Error::new(
            ErrorCode::StoreUnavailable,
            "the store did not confirm the change: it may or may not have been made",
        )
        .hint("look before you try again");
        let mut reports = Vec::new();
        for batch in [failed, open] {
            for (reply, _) in batch.replies {
                self.out.push(Output::Reply(reply, Err(error.clone())));
            }
            for task in &batch.offers {
                self.landed(&Report {
                    run: task.run,
                    place: task.place,
                    offer: task.offer,
                    event: TaskEvent::Started { at: self.now },
                });
            }
            for report in &batch.reports {
                reports.push(report.clone());
            }
        }
        let waiting: Vec<ToEntity> = self
            .loading
            .values_mut()
            .flat_map(std::mem::take)
            .chain(self.slots.values_mut().flat_map(|slot| std::mem::take(&mut slot.waiting)))
            .map(|(input, _)| input)
            .collect();
        for reply in waiting.iter().filter_map(ToEntity::reply) {
            self.out.push(Output::Reply(reply, Err(error.clone())));
        }
        for (_, reply, _) in std::mem::take(&mut self.forks).into_values().flatten() {
            self.out.push(Output::Reply(reply, Err(error.clone())));
        }
        for making in std::mem::take(&mut self.making).into_values().flatten() {
            if let Some(reply) = making.reply() {
                self.out.push(Output::Reply(reply, Err(error.clone())));
            }
        }
        // Reports that will be taken again still hold their attempts until then.
        for report in &reports {
            self.held.entry((report.run, report.place)).or_insert_with(|| {
                self.processes += 1;
                (report.offer, false)
            });
        }
        self.out.retain(|output| !output.reads());
        self.stale_reads = self.reads;
        self.failed_reads.clear();
        self.read_again_at = None;
        self.slots.clear();
        self.loading.clear();
        self.leases.clear();
        self.timers.clear();
        self.again.clear();
        self.demand.clear();
        self.holds = 0;
        self.looked_due = false;
        self.reports.push_front(reports);
        self.recover();
    }

    /// True if nothing is under way or waits: for tests and for a clean stop.
    pub fn is_quiet(&self) -> bool {
        self.committing.is_none()
            && self.open.is_empty()
            && self.reports.is_empty()
            && self.requests.is_empty()
            && self.loading.is_empty()
            && self.again.is_empty()
            && !self.recovering
    }

    /// Attempts handed out and not ended.
    pub fn in_flight(&self) -> usize {
        self.held.len()
    }

    /// Entities that are left as they are after a bug showed on them.
    pub fn quarantined(&self) -> impl Iterator<Item = &EntityKey> {
        self.quarantined.iter()
    }

    /// Runs in memory.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.slots.values().filter_map(|slot| match &slot.entity {
            Entity::Run(run) => Some(&**run),
            Entity::Queue(_) | Entity::Lock(..) => None,
        })
    }

    /// Entities in memory.
    pub fn entities(&self) -> impl Iterator<Item = (&EntityKey, &Entity)> {
        self.slots.iter().map(|(key, slot)| (key, &slot.entity))
    }
}

impl Slot {
    fn new(entity: Entity, seq: u64, row: Option<RunRow>, now: Time) -> Self {
        Self {
            entity,
            seq,
            since_snapshot: 0,
            row,
            timer: None,
            waiting: VecDeque::new(),
            asked: Vec::new(),
            touched_at: now,
        }
    }
}

/// The run queue that must be in memory before a run takes this input.
fn looks_at_queue(run: &Run, input: &ToEntity) -> Option<EntityKey> {
    let looks = match input {
        ToEntity::Dismiss(_) | ToEntity::Request(_, Request::Retry { .. } | Request::Restart { .. }) => true,
        ToEntity::View(_) => run.state.status == RunStatus::Queued,
        _ => false,
    };
    run.state.run_queue().filter(|_| looks)
}

const PLACE_MAX: Place = Place { scope: u32::MAX, step: u16::MAX, item: u32::MAX };

/// What a message is to a run; none if it is not for runs.
fn run_input(message: Message) -> Option<kapell_engine::Input> {
    use kapell_engine::Input as Run;
    let by = || "its parent".to_owned();
    Some(match message {
        Message::ChildEnded { place, run, status, outputs, error } => {
            Run::ChildEnded { place, run, status, outputs, error }
        }
        Message::CancelChild { reason, now } => {
            Run::Request(Request::Cancel { by: by(), reason, now })
        }
        Message::RetryChild => Run::RetryChild,
        Message::PauseChild { paused: true } => Run::Request(Request::Pause { by: by() }),
        Message::PauseChild { paused: false } => Run::Request(Request::Resume { by: by() }),
        Message::LockGranted { place, name } => Run::LockGranted { place, name },
        Message::Admitted => Run::Admitted,
        Message::Discarded { reason } => Run::Discarded { reason },
        Message::Superseded { by } => Run::Request(Request::Cancel {
            by: "its run queue".to_owned(),
            reason: format!("superseded by run {by}"),
            now: false,
        }),
        Message::StartChild(_)
        | Message::Acquire { .. }
        | Message::Release { .. }
        | Message::Enqueue(_)
        | Message::RunEnded { .. }
        | Message::Reenter(_) => return None,
    })
}

/// A number's bits well mixed (the finaliser of SplitMix64).
fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}
