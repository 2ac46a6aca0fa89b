//! A lane on threads: one decides, one commits, one reads.
//!
//! The lane's thread takes what has come, in turns, and flushes between them: the next commit starts
//! when the one before has ended, and is refused if it was made on top of one that failed. Under load batches grow by themselves, without load each input is
//! committed at once. Nothing here decides anything.
//!
//! - **Crash**: threads die together with the process; the next start reads what was committed.
//! - **Full disk**: as the lane says; an end is not held up by what cannot be written.
//! - **Slow store**: the committing thread waits; the lane goes on with the next batch.
//! - **Clock jump**: time follows it by and by ([`clock::carried`]); the wait for the next timer is at most a
//!   second, so sleep is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use kapell_api::task::{Blobs, Place, Report, Task};
use kapell_model::{Error, ErrorCode, Offer, RunId, SessionId, Shard};
use kapell_store::{Commit, Lease, RunRow, Store};

use crate::clock;
use crate::lane::{Config, Input, Lane, Output, Own, SessionChange, not_here};
use crate::lend::Wants;
use crate::metrics::{Measured, Metrics};
use crate::request::{Answer, ClientRequest, ReplyId};

mod membership;
mod route;
mod stored;
#[cfg(test)]
mod tests;

pub use membership::{Heard, Join};
use membership::{Membership, ToMembers, Until};
pub use route::{FromPeer, Owner, PATIENCE, Peers, Unanswered};
use route::{Router, too_many};
use stored::{Write, read, write};

/// Where attempts go. Calls must not wait.
pub trait Workers: Send + Sync {
    /// Hand out attempts.
    fn offer(&self, tasks: Vec<Task>);
    /// Stop attempts.
    fn stop(&self, attempts: &[(RunId, Place, Offer)]);
    /// Another owner may have handed out attempts of shards that are owned here in a moment: says to the node
    /// which sessions may hold some, before this returns. Called where reads are made: it may wait for the store.
    fn took(&self, _leases: &[Lease]) {}
    /// The node has heard that it owns these shards: asks all sessions what they hold.
    fn ask(&self, _leases: &[Lease]) {}
    /// These shards are given away: said before others can take them.
    fn gave(&self, _shards: &BTreeSet<Shard>) {}
    /// What waits for workers here, for those who lend theirs.
    fn wants(&self, _wants: Wants) {}
    /// What was said of the ends of these attempts need not be said again.
    fn taken(&self, _attempts: &[(RunId, Place, Offer)]) {}
}

/// What a client is called back with.
pub type Callback = Box<dyn FnOnce(Result<Answer, Error>) + Send>;

/// Who is told of rows that changed.
pub type Watcher = Box<dyn Fn(&RunRow) + Send>;

/// Who is told of commits, once they are durable.
pub type CommitWatcher = Box<dyn Fn(&Commit) + Send>;

/// Requests that wait for an answer at once.
const REQUESTS: usize = 100_000;

/// Inputs taken before a flush.
const TAKEN: usize = 4_096;

/// How long a measure is waited for.
const MEASURE: Duration = Duration::from_secs(2);

/// The longest wait without a tick.
const TICK: Duration = Duration::from_secs(1);

enum Message {
    Request(ClientRequest, Callback),
    Input(Input),
    Watch(Watcher),
    Measure(Sender<Measured>),
    WatchCommits(CommitWatcher),
    Stop,
}

/// A node in this process. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    to_lane: Sender<Message>,
    waiting: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    /// Finds the owners of requests, where there are other nodes.
    router: Arc<OnceLock<Arc<Router>>>,
    /// Until when it may act, where there are other nodes.
    until: Arc<OnceLock<Until>>,
}

/// The threads of a node.
pub struct Threads {
    to_lane: Sender<Message>,
    lane: Option<JoinHandle<()>>,
    membership: Option<Membership>,
}

/// A node that is not started: reports may already be sent to it.
pub struct Prepared {
    node: Node,
    from: Receiver<Message>,
    join: Option<Join>,
}

impl Node {
    /// A node whose inputs wait until [`Prepared::start`].
    pub fn prepare() -> Prepared {
        let (to_lane, from) = mpsc::channel();
        Prepared {
            node: Self {
                to_lane,
                waiting: Arc::default(),
                metrics: Arc::default(),
                router: Arc::default(),
                until: Arc::default(),
            },
            from,
            join: None,
        }
    }

    /// Asks; `callback` gets the answer, on a thread that must not wait, once what was asked is durable. Where
    /// there are other nodes the one that owns what it is about does it.
    pub fn ask(&self, request: ClientRequest, callback: Callback) {
        match self.router.get() {
            Some(router) => router.ask(request, callback),
            None => self.ask_lane(request, callback),
        }
    }

    /// Asks this node alone: what it does not own it refuses as `not-here`. For what another node asks.
    pub fn ask_lane(&self, request: ClientRequest, callback: Callback) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= REQUESTS {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            callback(Err(too_many()));
            return;
        }
        if let Err(mpsc::SendError(Message::Request(_, callback))) =
            self.to_lane.send(Message::Request(request, callback))
        {
            callback(Err(self.ended()));
        }
    }

    /// What is said of a request that was not begun, as the lane is ending: of several nodes another one does it.
    fn ended(&self) -> Error {
        let elsewhere = self.router.get().map(|_| not_here());
        elsewhere.unwrap_or_else(stopped)
    }

    /// From now on there may be other nodes, which are asked for what they own. Once.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn join(&self, peers: Arc<dyn Peers>) -> std::io::Result<()> {
        let alone = Self {
            router: Arc::default(),
            ..self.clone()
        };
        // Whoever joins twice keeps the first.
        let _ = self.router.set(Router::start(alone, peers)?);
        Ok(())
    }

    /// Asks and waits for the answer.
    pub fn ask_and_wait(&self, request: ClientRequest) -> Result<Answer, Error> {
        let (send, receive) = mpsc::channel();
        self.ask(
            request,
            Box::new(move |answer| {
                // Whoever asked may have gone.
                let _ = send.send(answer);
            }),
        );
        receive.recv().unwrap_or_else(|_| Err(stopped()))
    }

    /// What it counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// True if this node does what one node is to do of a shard, beside what the lane does.
    pub fn is_mine(&self, shard: Shard) -> bool {
        let router = self.router.get();
        router.is_none_or(|router| router.peers.owner(shard) == Owner::Here)
    }

    /// False for a node among others whose lease is over: others act in its place.
    pub fn may_act(&self) -> bool {
        self.until.get().is_none_or(|until| !until.is_over())
    }

    /// Requests that wait for an answer.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// True while the disk has no room: requests are refused.
    pub fn store_is_full(&self) -> bool {
        self.metrics.store_full.load(Ordering::Relaxed)
    }

    /// How much waits in its queues; none if it does not say so within a moment.
    pub fn measure(&self) -> Option<Measured> {
        let (send, receive) = mpsc::channel();
        self.to_lane.send(Message::Measure(send)).ok()?;
        receive.recv_timeout(MEASURE).ok()
    }

    /// Takes what a worker reports.
    pub fn reports(&self, reports: Vec<Report>) {
        // A node that has stopped takes nothing: its worker is stopped next.
        let _ = self.to_lane.send(Message::Input(Input::Reports(reports)));
    }

    /// Says something of a worker's session. Heard before what is reported later.
    pub fn session(&self, session: SessionId, change: SessionChange) {
        // A node that has stopped hears nothing.
        let _ = self
            .to_lane
            .send(Message::Input(Input::Session(session, change)));
    }

    /// Leaves these queues to workers that name them.
    pub fn keep_queues(&self, names: BTreeSet<Arc<str>>) {
        // A node that has stopped hears nothing.
        let _ = self.to_lane.send(Message::Input(Input::KeptQueues(names)));
    }

    /// Says that another version of some workflow may be active, to all nodes.
    pub fn versions_changed(&self) {
        self.versions_changed_elsewhere();
        if let Some(router) = self.router.get() {
            router.peers.versions_changed();
        }
    }

    /// Another node says so.
    pub fn versions_changed_elsewhere(&self) {
        let _ = self.to_lane.send(Message::Input(Input::VersionsChanged));
    }

    /// Another node says that messages may wait for shards of this one.
    pub fn rang(&self) {
        let _ = self.to_lane.send(Message::Input(Input::Rang));
    }

    /// Calls `watcher` for each row that changes, once it is durable.
    pub fn watch(&self, watcher: Watcher) {
        let _ = self.to_lane.send(Message::Watch(watcher));
    }

    /// Calls `watcher` for each commit, once it is durable.
    pub fn watch_commits(&self, watcher: CommitWatcher) {
        let _ = self.to_lane.send(Message::WatchCommits(watcher));
    }
}

fn stopped() -> Error {
    Error::new(ErrorCode::StoreUnavailable, "the node is stopping")
        .hint("ask again after its restart")
}

impl Prepared {
    /// The node.
    pub fn node(&self) -> Node {
        self.node.clone()
    }

    /// It is to be one of several nodes that share a store, not alone.
    #[must_use]
    pub fn among(self, join: Join) -> Self {
        Self {
            join: Some(join),
            ..self
        }
    }

    /// Starts its threads.
    pub fn start(
        self,
        config: Config,
        store: Arc<dyn Store>,
        blobs: Arc<dyn Blobs>,
        workers: Arc<dyn Workers>,
    ) -> std::io::Result<Threads> {
        let join = self.join;
        let config = Config {
            alone: join.is_none(),
            ..config
        };
        let (to_writer, writes) = mpsc::channel();
        let (to_reader, reads) = mpsc::channel();
        let to_lane = self.node.to_lane.clone();
        let (answers, of_writer) = (to_lane.clone(), (store.clone(), blobs.clone()));
        let metrics = self.node.metrics.clone();
        std::thread::Builder::new()
            .name("kapell-commit".to_owned())
            .spawn(move || write(&writes, &answers, (&*of_writer.0, &*of_writer.1), &metrics))?;
        let answers = to_lane.clone();
        let of_reader = Arc::clone(&workers);
        let among = join
            .as_ref()
            .map(|join| (Arc::clone(&join.cluster), join.about.id));
        let membership = join
            .map(|join| Membership::start(join, to_lane.clone()))
            .transpose()?;
        let lease = membership
            .as_ref()
            .map(|members| (members.sender(), members.until.clone()));
        if let Some((_, until)) = &lease {
            // It is started once.
            let _ = self.node.until.set(until.clone());
        }
        std::thread::Builder::new()
            .name("kapell-read".to_owned())
            .spawn(move || {
                let among = among.as_ref().map(|among| (among, &*of_reader));
                read(&reads, &answers, among, (&*store, &*blobs));
            })?;
        let waiting = self.node.waiting.clone();
        let metrics = self.node.metrics.clone();
        let router = self.node.router.clone();
        let from = self.from;
        let lane = std::thread::Builder::new()
            .name("kapell-lane".to_owned())
            .spawn(move || {
                Loop {
                    lane: Lane::new(config, clock::now()),
                    to_writer,
                    to_reader,
                    workers,
                    waiting,
                    metrics,
                    router,
                    callbacks: BTreeMap::new(),
                    watchers: Vec::new(),
                    commit_watchers: Vec::new(),
                    replies: 0,
                    stopping: false,
                    lease,
                }
                .turn(&from);
            })?;
        Ok(Threads {
            to_lane,
            lane: Some(lane),
            membership,
        })
    }
}

impl Threads {
    /// Gives its shards to other nodes, if there are any; commits what is under way and ends the threads. Attempts that run are not waited for.
    pub fn stop(mut self) {
        if let Some(membership) = self.membership.take() {
            membership.leave();
        }
        // A lane that is gone needs no word.
        let _ = self.to_lane.send(Message::Stop);
        if let Some(lane) = self.lane.take() {
            let _ = lane.join();
        }
    }
}

struct Loop {
    lane: Lane,
    to_writer: Sender<Write>,
    to_reader: Sender<Output>,
    workers: Arc<dyn Workers>,
    waiting: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    router: Arc<OnceLock<Arc<Router>>>,
    callbacks: BTreeMap<ReplyId, Callback>,
    watchers: Vec<Watcher>,
    commit_watchers: Vec<CommitWatcher>,
    replies: u64,
    stopping: bool,
    /// Who says what to own, and until when anything may be.
    lease: Option<(ToMembers, Until)>,
}

impl Loop {
    fn turn(mut self, from: &Receiver<Message>) {
        self.flush();
        loop {
            let now = clock::now();
            let wait = self.lane.next_tick().since(now);
            let wait = Duration::try_from(wait).unwrap_or(Duration::ZERO).min(TICK);
            let first = if wait.is_zero() {
                from.try_recv().map_err(|_| RecvTimeoutError::Timeout)
            } else {
                from.recv_timeout(wait)
            };
            match first {
                Ok(message) => self.hear(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look_at_lease();
            for message in from.try_iter().take(TAKEN) {
                self.hear(message);
            }
            let now = clock::now();
            if now >= self.lane.next_tick() {
                // The store may have nothing to do, and a tick takes more of what waits.
                self.flush();
                self.lane.on(now, Input::Tick);
            }
            self.flush();
            if self.stopping && self.lane.may_stop() {
                // Who asked meanwhile hears that it was not begun.
                for message in from.try_iter() {
                    self.take(message);
                }
                return;
            }
        }
    }

    /// What is owned is dropped at once if the lease is over, whatever waits before the word of it.
    fn look_at_lease(&mut self) {
        if let Some((_, until)) = &self.lease
            && !self.lane.owned().is_empty()
            && until.is_over()
        {
            self.lane.on(clock::now(), Input::Own(Box::new(Own::Stop)));
        }
    }

    /// Takes a message. When a commit has ended the store may wait for what is decided already.
    fn hear(&mut self, message: Message) {
        let committed = matches!(message, Message::Input(Input::Committed(_)));
        self.take(message);
        if committed {
            self.flush();
        }
    }

    fn take(&mut self, message: Message) {
        let now = clock::now();
        match message {
            Message::Request(request, callback) => {
                if self.stopping {
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                    // It was not begun: of several nodes another one does it.
                    let elsewhere = self.router.get().map(|_| not_here());
                    callback(Err(elsewhere.unwrap_or_else(stopped)));
                    return;
                }
                self.metrics.requests.fetch_add(1, Ordering::Relaxed);
                self.replies += 1;
                let reply = ReplyId(self.replies);
                self.callbacks.insert(reply, callback);
                self.lane.on(now, Input::Request(reply, request));
            }
            Message::Input(input) => {
                if let Input::Reports(reports) = &input {
                    let workflow = |run| self.lane.workflow_of(run);
                    self.metrics.reported(reports, workflow);
                }
                self.lane.on(now, input);
            }
            Message::Measure(answer) => {
                // Whoever asked may have gone.
                let _ = answer.send(self.lane.measure());
            }
            Message::Watch(watcher) => self.watchers.push(watcher),
            Message::WatchCommits(watcher) => self.commit_watchers.push(watcher),
            Message::Stop => self.stopping = true,
        }
    }

    fn flush(&mut self) {
        let outputs = self.lane.flush(clock::now());
        // Before answers go out: whoever was refused sees why.
        let full = self.lane.store_is_full();
        self.metrics.store_full.store(full, Ordering::Relaxed);
        for output in outputs {
            match output {
                Output::Commit {
                    commit,
                    contents,
                    follows,
                } => {
                    // A writer that is gone ends the process with the lane.
                    let _ = self.to_writer.send(Write {
                        commit,
                        contents,
                        follows,
                    });
                }
                Output::Offer(tasks) => {
                    if !self.stopping {
                        self.metrics
                            .offers
                            .fetch_add(tasks.len() as u64, Ordering::Relaxed);
                        self.workers.offer(tasks);
                    }
                }
                Output::Stop(attempts) => self.workers.stop(&attempts),
                Output::Taken(attempts) => self.workers.taken(&attempts),
                Output::Wants(wants) => self.workers.wants(wants),
                Output::Reply(reply, answer) => {
                    if let Some(callback) = self.callbacks.remove(&reply) {
                        self.waiting.fetch_sub(1, Ordering::Relaxed);
                        callback(answer);
                    }
                }
                Output::RowsChanged(commit, steps) => {
                    self.metrics.committed(&commit);
                    self.metrics.steps_ended(&steps);
                    for watcher in &self.commit_watchers {
                        watcher(&commit);
                    }
                    for watcher in &self.watchers {
                        commit.runs.iter().for_each(watcher);
                    }
                    if let Some(router) = self.router.get().filter(|_| !commit.mail.is_empty()) {
                        let shards = commit.mail.iter().map(|mail| mail.to.shard()).collect();
                        router.peers.rang(&shards);
                    }
                }
                Output::Holds(shards) => {
                    if let Some((members, _)) = &self.lease {
                        members.holds(shards);
                    }
                }
                output @ (Output::Acquire(..)
                | Output::Release(_)
                | Output::Load(..)
                | Output::LoadVersion(_)
                | Output::LoadContent(..)
                | Output::FindDue(..)
                | Output::FindActive(_)
                | Output::FindHeard
                | Output::FindMail(_)) => {
                    let _ = self.to_reader.send(output);
                }
            }
        }
    }
}
