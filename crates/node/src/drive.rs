//! A lane on threads: one decides, one commits, one reads.
//!
//! The lane's thread takes what has come, in turns, and flushes between them: the next commit starts
//! when the one before has ended. Under load batches grow by themselves, without load each input is
//! committed at once. Nothing here decides anything.
//!
//! - **Crash**: threads die together with the process; the next start reads what was committed.
//! - **Full disk**: as the lane says; an end is not held up by what cannot be written.
//! - **Slow store**: the committing thread waits; the lane goes on with the next batch.
//! - **Clock jump**: time follows it by and by ([`clock::carried`]); the wait for the next timer is at most a
//!   second, so sleep is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use kapell_api::task::{Blobs, Place, Report, Task};
use kapell_expr::BlobRef;
use kapell_model::{Error, ErrorCode, Offer, RunId, SessionId};
use kapell_store::{Commit, RunRow, Store};

use crate::clock;
use crate::lane::{Config, Input, Lane, Output, SessionChange};
use crate::metrics::{Measured, Metrics};
use crate::perform::{self, Plans};
use crate::request::{Answer, ClientRequest, ReplyId};

/// Where attempts go. Calls must not wait.
pub trait Workers: Send + Sync {
    /// Hand out attempts.
    fn offer(&self, tasks: Vec<Task>);
    /// Stop attempts.
    fn stop(&self, attempts: &[(RunId, Place, Offer)]);
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

enum Write {
    Commit(Arc<Commit>, Vec<(BlobRef, Vec<u8>)>),
}

/// A node in this process. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    to_lane: Sender<Message>,
    waiting: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

/// The threads of a node.
pub struct Threads {
    to_lane: Sender<Message>,
    lane: Option<JoinHandle<()>>,
}

/// A node that is not started: reports may already be sent to it.
pub struct Prepared {
    node: Node,
    from: Receiver<Message>,
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
            },
            from,
        }
    }

    /// Asks; `callback` gets the answer, on the lane's thread, once what was asked is durable.
    pub fn ask(&self, request: ClientRequest, callback: Callback) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= REQUESTS {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            callback(Err(Error::new(
                ErrorCode::LimitReached,
                format!("more than {REQUESTS} requests wait for an answer"),
            )
            .hint("try again in a moment")));
            return;
        }
        if let Err(mpsc::SendError(Message::Request(_, callback))) =
            self.to_lane.send(Message::Request(request, callback))
        {
            callback(Err(stopped()));
        }
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

    /// Says that another version of some workflow may be active.
    pub fn versions_changed(&self) {
        let _ = self.to_lane.send(Message::Input(Input::VersionsChanged));
    }

    /// Calls `watcher` for each row that changes, once it is durable.
    pub fn watch(&self, watcher: Watcher) {
        let _ = self.to_lane.send(Message::Watch(watcher));
    }
}

impl Node {
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

    /// Starts its threads.
    pub fn start(
        self,
        config: Config,
        store: Arc<dyn Store>,
        blobs: Arc<dyn Blobs>,
        workers: Arc<dyn Workers>,
    ) -> std::io::Result<Threads> {
        let (to_writer, writes) = mpsc::channel();
        let (to_reader, reads) = mpsc::channel();
        let to_lane = self.node.to_lane.clone();
        let (answers, of_writer) = (to_lane.clone(), (store.clone(), blobs.clone()));
        let metrics = self.node.metrics.clone();
        std::thread::Builder::new()
            .name("kapell-commit".to_owned())
            .spawn(move || write(&writes, &answers, (&*of_writer.0, &*of_writer.1), &metrics))?;
        let answers = to_lane.clone();
        std::thread::Builder::new()
            .name("kapell-read".to_owned())
            .spawn(move || read(&reads, &answers, &*store, &*blobs))?;
        let waiting = self.node.waiting.clone();
        let metrics = self.node.metrics.clone();
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
                    callbacks: BTreeMap::new(),
                    watchers: Vec::new(),
                    commit_watchers: Vec::new(),
                    replies: 0,
                    stopping: false,
                }
                .turn(&from);
            })?;
        Ok(Threads {
            to_lane,
            lane: Some(lane),
        })
    }
}

impl Threads {
    /// Commits what is under way and ends the threads. Attempts that run are not waited for.
    pub fn stop(mut self) {
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
    callbacks: BTreeMap<ReplyId, Callback>,
    watchers: Vec<Watcher>,
    commit_watchers: Vec<CommitWatcher>,
    replies: u64,
    stopping: bool,
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
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            for message in from.try_iter().take(TAKEN) {
                self.take(message);
            }
            let now = clock::now();
            if now >= self.lane.next_tick() {
                self.lane.on(now, Input::Tick);
            }
            self.flush();
            if self.stopping && self.lane.may_stop() {
                return;
            }
        }
    }

    fn take(&mut self, message: Message) {
        let now = clock::now();
        match message {
            Message::Request(request, callback) => {
                if self.stopping {
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                    callback(Err(stopped()));
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
                Output::Commit(commit, blobs) => {
                    // A writer that is gone ends the process with the lane.
                    let _ = self.to_writer.send(Write::Commit(commit, blobs));
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
                }
                output @ (Output::Acquire(_)
                | Output::Load(..)
                | Output::LoadVersion(_)
                | Output::LoadContent(..)
                | Output::FindDue(_)
                | Output::FindActive(_)
                | Output::FindHeard
                | Output::FindMail(_)) => {
                    let _ = self.to_reader.send(output);
                }
            }
        }
    }
}

fn write(
    writes: &Receiver<Write>,
    answers: &Sender<Message>,
    (store, blobs): (&dyn Store, &dyn Blobs),
    metrics: &Metrics,
) {
    while let Ok(Write::Commit(commit, contents)) = writes.recv() {
        let watch = clock::Stopwatch::start();
        let result = perform::commit(store, blobs, &contents, &commit);
        metrics.commit.observe_duration(watch.elapsed());
        metrics
            .commit_entities
            .observe(commit.entities.len() as u64);
        if result.is_err() {
            metrics.commit_failures.fetch_add(1, Ordering::Relaxed);
        }
        if answers
            .send(Message::Input(Input::Committed(result)))
            .is_err()
        {
            return;
        }
    }
}

fn read(reads: &Receiver<Output>, answers: &Sender<Message>, store: &dyn Store, blobs: &dyn Blobs) {
    let mut plans = Plans::default();
    while let Ok(output) = reads.recv() {
        let Some(input) = perform::read(store, blobs, &mut plans, output) else {
            continue;
        };
        if answers.send(Message::Input(input)).is_err() {
            return;
        }
    }
}
