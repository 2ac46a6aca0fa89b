//! A commit lane: owns entities, decides their inputs, commits in batches.
//!
//! ```text
//! inputs -> decide and apply in memory -> one commit for all of it -> effects
//!           (the next batch is decided while this one commits)
//! ```
//!
//! Under load a second commit waits at the store for the end of the first, so that the store is never idle: it
//! *follows* it, and whoever commits refuses it if that one failed.
//!
//! [`Lane::on`] takes one [`Input`] and returns nothing; [`Lane::flush`] grants work, seals the open
//! batch if no commit is under way, and gives all [`Output`]s gathered since.
//!
//! - **Crash**: memory is lost; everything committed is loaded again by `wake_at`.
//! - **Slow store**: the open batch grows to its bounds, then inputs wait in order.
//! - **Unknown outcome or conflict**: all memory is dropped, shards are acquired anew under higher
//!   epochs, attempts that the worker still holds are attached again, reports of batches that did
//!   not land are taken again, and clients of those batches are told that the outcome is unknown.
//! - **Full disk**: the commit did not land: whoever waits for it is refused, and what they asked never
//!   takes effect. New requests are refused at once; reports of workers and what is due wait, and are
//!   tried again each second (see `full`).
//! - **Clock jump**: an entity's time never goes back; a jump forward fires timers early once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kapell_api::task::{Place, Report, Task};
use kapell_engine::topic::Keeps;
use kapell_engine::{Message, Ref, Run};
use kapell_expr::BlobRef;
use kapell_model::{
    EntityKey, Error, ErrorCode, NodeId, Offer, RunId, RunStatus, SessionId, Shard, ShardSet, Time,
    limits,
};
use kapell_store::{Commit, Lease, Mail};

use crate::batch::Batch;
use crate::dispatch::{self, Demand};
use crate::entity::Entity;
use crate::lend::Wants;
use crate::perform::{Found, Size, Version};
use crate::request::{Answer, ClientRequest, ReplyId};
use crate::rows::Shown;

use ahead::Ahead;
pub(crate) use commit::unconfirmed;
use count::Counting;
use heard::Heard;
pub use held::Grant;
use held::Held;
pub use own::Own;
use own::Owns;
use post::Post;
pub(crate) use post::{MAIL, not_here};
pub use seats::Seat;
use seats::Seats;
pub use sessions::SessionChange;
use slots::Slots;
use to_entity::{ToEntity, looks_at_queue};

mod ahead;
mod commit;
mod count;
mod deliver;
mod fork;
mod full;
mod heard;
mod held;
mod intake;
mod measure;
mod own;
mod post;
mod quotas;
mod read;
mod report;
mod seats;
mod sessions;
mod slots;
mod start;
mod timers;
mod to_entity;

/// What a lane is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Makes ids unique: from the system's randomness, or a simulation's seed.
    pub seed: u64,
    /// It owns every shard from its start, as nobody else uses the store. Else it owns none until it is told
    /// to ([`Own`]).
    pub alone: bool,
    /// Idle entities leave memory after so long.
    pub idle_micros: i64,
    /// How much topics keep.
    pub keeps: Keeps,
    /// In which order work is granted.
    pub dispatch: dispatch::Settings,
}

/// What comes to a lane.
#[derive(Debug)]
pub enum Input {
    /// A client asks.
    Request(ReplyId, ClientRequest),
    /// A worker reports.
    Reports(Vec<Report>),
    /// Something is said of a worker's session.
    Session(SessionId, SessionChange),
    /// Other shards are to be owned.
    Own(Box<Own>),
    /// Shards were given away, or not.
    Released(Vec<Lease>, kapell_store::Result<()>),
    /// Queues that are done by workers who name them alone, whether one is there now or not.
    KeptQueues(BTreeSet<Arc<str>>),
    /// Shards are held.
    Acquired(kapell_store::Result<Vec<Lease>>),
    /// An entity was read.
    Loaded(EntityKey, kapell_store::Result<Option<Box<Found>>>),
    /// A version was read.
    Version(VersionKey, kapell_store::Result<Option<Version>>),
    /// A stored value was read.
    Content(EntityKey, Ref, Result<Vec<u8>, String>),
    /// Entities that must be in memory.
    Due(kapell_store::Result<Vec<EntityKey>>),
    /// Runs of the workflow of a run queue that are active, as their rows say.
    Active(EntityKey, kapell_store::Result<Vec<RunId>>),
    /// Topics that tell how runs end and that somebody ever listened to.
    Heard(kapell_store::Result<Vec<EntityKey>>),
    /// Messages from other shards that wait.
    Mail(kapell_store::Result<Vec<Mail>>),
    /// Messages from other shards may have come.
    Rang,
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
            Self::Acquired(_)
                | Self::Loaded(..)
                | Self::Version(..)
                | Self::Content(..)
                | Self::Due(_)
                | Self::Active(..)
                | Self::Heard(_)
                | Self::Mail(_)
        )
    }
}

/// Namespace, workflow, version.
pub type VersionKey = (Arc<str>, Arc<str>, Option<u32>);

/// What a lane asks for.
#[derive(Debug)]
pub enum Output {
    /// Acquire shards, also from these dead nodes; answer [`Input::Acquired`].
    Acquire(ShardSet, Vec<NodeId>),
    /// Give these shards away; answer [`Input::Released`].
    Release(Vec<Lease>),
    /// These shards are owned now.
    Holds(ShardSet),
    /// Read an entity; answer [`Input::Loaded`].
    Load(EntityKey),
    /// Read a version; answer [`Input::Version`].
    LoadVersion(VersionKey),
    /// Read a stored value; answer [`Input::Content`].
    LoadContent(EntityKey, Ref),
    /// Find entities of these shards that must be in memory by this time; answer [`Input::Due`].
    FindDue(Time, ShardSet),
    /// Find the active runs of the workflow of this run queue; answer [`Input::Active`].
    FindActive(EntityKey),
    /// Find topics that tell how runs end; answer [`Input::Heard`].
    FindHeard,
    /// Find messages to entities of these shards; answer [`Input::Mail`].
    FindMail(ShardSet),
    /// Store contents and commit, after the commit before has ended; answer [`Input::Committed`], in order.
    Commit {
        /// What to commit.
        commit: Arc<Commit>,
        /// What to store before.
        contents: Vec<(BlobRef, Vec<u8>)>,
        /// It is made on top of the one before: if that one failed, for whatever reason, it must not be tried
        /// and fails too.
        follows: bool,
    },
    /// Hand out attempts.
    Offer(Vec<Task>),
    /// Stop attempts.
    Stop(Vec<(RunId, Place, Offer)>),
    /// What was said of the ends of these attempts is durable, or refused for good: nobody needs to
    /// say it again.
    Taken(Vec<(RunId, Place, Offer)>),
    /// What waits for workers, where others own some: the highest priority in each queue.
    Wants(Wants),
    /// Answer a client.
    Reply(ReplyId, Result<Answer, Error>),
    /// What this commit changed is durable, rows of runs among it; and how many steps and items ended in
    /// it, by workflow: well, otherwise.
    RowsChanged(Arc<Commit>, Vec<StepsEnded>),
}

/// The workflow of a run, with how many of its steps and items ended well and otherwise.
pub type StepsEnded = (Arc<str>, [u64; 2]);

impl Output {
    /// True for what asks for a read, which one answer follows; answers come in the order asked.
    fn reads(&self) -> bool {
        matches!(
            self,
            Self::Acquire(..)
                | Self::Load(..)
                | Self::LoadVersion(_)
                | Self::LoadContent(..)
                | Self::FindDue(..)
                | Self::FindActive(_)
                | Self::FindHeard
                | Self::FindMail(_)
        )
    }
}

/// An input that waits, and whether the open batch must not be sealed before it is taken.
type Waiting = (ToEntity, bool);

/// An entity in memory with what the lane knows of it.
#[derive(Debug)]
struct Slot {
    entity: Entity,
    seq: u64,
    /// What is stored of it.
    size: Size,
    /// What the stored row of a run shows.
    shown: Option<Shown>,
    /// Ends of a run's steps and items, good ones and others, that need not be told any more.
    told: [u64; 2],
    /// What lists show of an entity that is no run.
    document: Option<String>,
    /// When it wakes by itself, and which of the timers that is.
    timer: Option<(Time, u64)>,
    /// Inputs that wait for a stored value.
    waiting: VecDeque<Waiting>,
    /// Stored values asked for.
    asked: Vec<Ref>,
    touched_at: Time,
    /// It was read while workers were unheard of: what stood ready in it waits for them.
    stood_before: bool,
}

/// Runs that want what there is no room for are looked at so many at a time.
const SHORT_RUNS: usize = 64;

/// What failed is tried again after so long.
const RETRY_MICROS: i64 = 1_000_000;

/// How far ahead entities with timers are read into memory, and how often they are looked for.
const HORIZON_MICROS: i64 = 10_000_000;

/// See the module.
#[derive(Debug)]
pub struct Lane {
    config: Config,
    now: Time,
    owns: Owns,
    leases: BTreeMap<Shard, Lease>,
    slots: Slots,
    loading: BTreeMap<EntityKey, VecDeque<Waiting>>,
    ahead: Ahead,
    making: BTreeMap<VersionKey, Vec<start::Making>>,
    /// Versions that are being read, and that may be others by now.
    outdated: BTreeSet<VersionKey>,
    /// Forks of a run that wait for another version.
    forks: BTreeMap<VersionKey, Vec<(EntityKey, ReplyId, Box<fork::Forking>)>>,
    /// Run queues that wait to hear which runs are active.
    counting: BTreeMap<EntityKey, Counting>,
    /// In the order in which they were set, where they are at the same time.
    timers: BTreeMap<(Time, u64), EntityKey>,
    timers_set: u64,
    again: VecDeque<EntityKey>,
    /// Messages that were sent and not taken yet.
    outbox: VecDeque<(Shard, EntityKey, Message)>,
    post: Post,
    demand: Demand,
    /// What was last said of it.
    wants: Wants,
    /// Runs with work that no worker can take: looked at again when workers change.
    parked: BTreeSet<RunId>,
    /// Runs that wait for the quota of their namespace, where [`Demand`] does not tell those apart.
    over: BTreeMap<Arc<str>, BTreeSet<RunId>>,
    /// Which queue is looked at first.
    turn: usize,
    seats: Seats,
    offers: u64,
    ids: u64,
    heard: Heard,
    held: Held,
    open: Batch,
    /// Inputs that must be taken before the open batch may be sealed.
    holds: usize,
    /// Commits under way, the first of them at the store.
    committing: VecDeque<Committing>,
    /// Inputs that make a second commit while one is under way.
    follow_inputs: usize,
    /// Reports that wait for the next batch.
    reports: VecDeque<VecDeque<Report>>,
    /// Reports of ends that the run cannot know yet; see [`Lane::comes_early`].
    early: BTreeMap<(RunId, Place, Offer), Report>,
    /// Requests that wait: what is under way goes before what is new.
    requests: VecDeque<(ReplyId, ClientRequest)>,
    /// Reports taken while requests wait, less what requests had in return.
    passed: usize,
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
    /// Since when the store has had no room for a write.
    full_since: Option<Time>,
    /// Entities whose deciding broke a rule of its own: nothing is given to them any more.
    quarantined: BTreeSet<EntityKey>,
    /// Memory may be half changed: it is dropped as soon as no commit is under way.
    broken: bool,
}

/// A commit under way.
#[derive(Debug)]
struct Committing {
    batch: Batch,
    commit: Arc<Commit>,
    steps: Vec<StepsEnded>,
    ended: Vec<EntityKey>,
}

impl Lane {
    /// A lane that holds nothing yet: its first outputs ask for shards and for what is due.
    pub fn new(config: Config, now: Time) -> Self {
        let seats = Seats::new(config.dispatch.quotas.clone());
        let mut lane = Self {
            owns: Owns::new(config.alone),
            over: BTreeMap::new(),
            demand: Demand::new(config.dispatch.clone()),
            slots: Slots::new(config.seed),
            config,
            now,
            leases: BTreeMap::new(),
            loading: BTreeMap::new(),
            ahead: Ahead::default(),
            making: BTreeMap::new(),
            outdated: BTreeSet::new(),
            forks: BTreeMap::new(),
            counting: BTreeMap::new(),
            timers: BTreeMap::new(),
            timers_set: 0,
            again: VecDeque::new(),
            outbox: VecDeque::new(),
            post: Post::default(),
            wants: Wants::new(),
            parked: BTreeSet::new(),
            turn: 0,
            seats,
            offers: 0,
            ids: 0,
            heard: Heard::default(),
            held: Held::default(),
            open: Batch::default(),
            holds: 0,
            committing: VecDeque::new(),
            follow_inputs: limits::COMMIT_FOLLOWS,
            reports: VecDeque::new(),
            early: BTreeMap::new(),
            requests: VecDeque::new(),
            passed: 0,
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
            broken: false,
        };
        lane.recover();
        lane
    }

    /// A second commit is made once it has so many inputs, at least 1, and as many as the one under way:
    /// simulations, which have few, ask for fewer than [`limits::COMMIT_FOLLOWS`].
    pub fn follow_after(&mut self, inputs: usize) {
        self.follow_inputs = inputs.max(1);
    }

    /// Everything is asked for anew.
    fn recover(&mut self) {
        self.recovering = true;
        self.due_asked_at = Some(self.now);
        // Without room that is tried again only after a while.
        if !self.store_is_full() {
            self.acquire_all();
        }
        if !self.heard.is_known() {
            self.out.push(Output::FindHeard);
        }
    }

    /// Takes one input at a time. Time never goes back for an entity.
    pub fn on(&mut self, now: Time, input: Input) {
        if now < self.now {
            // The clock was set back: nothing waits longer for that.
            self.due_asked_at = self.due_asked_at.map(|at| at.min(now));
            self.read_again_at = self.read_again_at.map(|_| now);
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
            Input::Own(change) => self.own(*change),
            Input::Released(leases, result) => self.released(leases, result),
            Input::Acquired(result) => self.acquired(result),
            Input::Loaded(key, result) => self.loaded(key, result),
            Input::Version(key, result) => self.version_read(key, result),
            Input::Content(key, reference, result) => self.content(&key, &reference, result),
            Input::Due(result) => self.due(result),
            Input::Active(key, result) => self.active(&key, result),
            Input::Heard(result) => self.heard(result),
            Input::Mail(result) => self.mail(result),
            Input::Rang => self.look_for_mail(),
            Input::VersionsChanged => {
                self.ahead.versions_changed();
                let read = self.making.keys().filter(|key| key.2.is_none());
                self.outdated.extend(read.cloned());
            }
            Input::Tick => self.tick(),
            Input::Session(session, change) => self.session(session, change),
            Input::KeptQueues(names) => self.keep_queues(names),
            Input::Request(reply, _) if self.store_is_full() => self.refuse_for_room(reply),
            Input::Request(reply, request) => {
                self.requests.push_back((reply, request));
                self.take_waiting();
            }
            Input::Reports(reports) => {
                self.reports.push_back(reports.into());
                self.take_waiting();
            }
        }
        self.run_again();
    }

    /// Gives an input to an entity: at once if it is in memory and waits for nothing.
    fn submit(&mut self, key: EntityKey, input: ToEntity, holds: bool) {
        if self.quarantined.contains(&key) {
            let error = Error::new(
                ErrorCode::Internal,
                "Kapell broke a rule of its own on this run",
            )
            .hint("it is left as it is; please report the log line that names it");
            self.refuse(input, &error);
            return;
        }
        if !self.leases.contains_key(&key.shard()) {
            self.elsewhere(input);
            return;
        }
        if let Some(slot) = self.slots.get_mut(&key) {
            if slot.asked.is_empty() && !self.counting.contains_key(&key) {
                self.deliver(&key, input, holds);
            } else {
                self.holds += usize::from(holds);
                slot.waiting.push_back((input, holds));
            }
            return;
        }
        self.holds += usize::from(holds);
        // Somebody may have asked for it ahead, with nothing that waits.
        let first = !self.loading.contains_key(&key);
        let waiting = self.loading.entry(key.clone()).or_default();
        waiting.push_back((input, holds));
        if first {
            self.out.push(Output::Load(key));
        }
    }

    /// True if nothing is under way or waits: for tests and for a clean stop.
    pub fn is_quiet(&self) -> bool {
        self.committing.is_empty()
            && self.open.is_empty()
            && self.reports.is_empty()
            && self.requests.is_empty()
            && self.loading.is_empty()
            && self.counting.is_empty()
            && self.again.is_empty()
            && !self.recovering
    }

    /// Attempts handed out and not ended.
    pub fn in_flight(&self) -> usize {
        self.held.len()
    }

    /// What these are, and at which workers.
    pub fn held(&self) -> impl Iterator<Item = (RunId, Place, Offer, SessionId)> {
        self.held.iter()
    }

    /// Entities that are left as they are after a bug showed on them.
    pub fn quarantined(&self) -> impl Iterator<Item = &EntityKey> {
        self.quarantined.iter()
    }

    /// Runs in memory.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.slots
            .iter()
            .filter_map(|(_, slot)| match &slot.entity {
                Entity::Run(run) => Some(&**run),
                _ => None,
            })
    }

    /// Entities in memory.
    pub fn entities(&self) -> impl Iterator<Item = (&EntityKey, &Entity)> {
        self.slots.iter().map(|(key, slot)| (key, &slot.entity))
    }
}

/// A number's bits well mixed (the finaliser of `SplitMix64`).
pub(crate) fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests;
