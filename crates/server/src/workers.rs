//! The workers of a server, by their sessions: those of other processes, and the one in its own.
//!
//! Start reading at [`Workers`], which is what the node hands tasks to; then `service`, the gRPC face
//! that workers call, over a connection or inside the process, and `session`, one of them.
//!
//! A session begins when a worker says hello, and is over when the worker goes, or when it was not
//! heard of for its lease; then what it held is reported lost, and what it says later is refused. A
//! worker that connects again within the lease goes on with its session. The one inside has no lease
//! where the node is alone: its session is over when it goes, or when the worker of the next process says hello.
//!
//! Where there are several nodes each session has one of them as its home, and what is handed out and reported
//! goes through [`Relaying`]. A worker that comes to another node goes on with its session there.
//!
//! - **Crash**: the sessions' rows say which workers may hold attempts. What stood ready in their
//!   queues is not handed out again until each has said what it holds, or a whole lease has passed.
//!   What the worker inside held the next process reads from its slots, and says with its first word.
//! - **Slow store**: reports are acknowledged later; workers keep them until then.
//! - **Slow worker**: what waits for it is bounded; then its connection ends, and it may come again.
//! - **Clock jump**: leases count on a clock that does not jump.

mod among;
mod contents;
mod logs;
mod opening;
mod service;
mod session;
pub(crate) mod stored;
#[cfg(test)]
mod tests;
mod usage;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::time::{Duration, Instant};

use kapell_api::http::{StepWorker, WorkerView};
use kapell_api::task::{Blobs, Place, Report, Task, TaskResources};
use kapell_api::worker;
use kapell_model::{Error, ErrorCode, Offer, RunId, SessionId, Time, limits};
use kapell_node::clock::{self, Stopwatch};
use kapell_node::drive::Node;
use kapell_node::lane::{Seat, SessionChange};
use kapell_store::Store;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::logs::RowLogs;
use crate::peers::question::RunsAt;
use crate::relaying::Relaying;
use among::keep_queues;
use service::inside;

pub use service::routes;
pub(crate) use session::About;
use session::{HeldTask, Name, Session, ToWorker, named};
pub(crate) use view::Whom;
use view::view;

/// How often leases are looked at, and what workers have.
const LOOK: Duration = Duration::from_millis(500);

/// Gives a secret by its namespace and name.
pub type Secrets = Box<dyn Fn(&str, &str) -> Option<String> + Send + Sync>;

/// Starts the worker in this process: it calls the server by the first, and shares the server's contents.
/// Where the third is true it writes logs as files that the server reads, else it sends them. It is in a session
/// once this returns.
pub type Hire =
    Box<dyn FnOnce(worker::Inside, Arc<dyn Blobs>, bool) -> Result<Leave, Error> + Send + Sync>;

/// Lets that worker go: it takes nothing more, and what it runs may take so long to end.
pub type Leave = Box<dyn FnOnce(Duration) + Send>;

/// Which queues the worker in this process serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OwnQueues {
    /// Every queue that no worker names which is there now.
    #[default]
    Free,
    /// Every queue that no worker ever named. One that was is for its workers, also while none is there:
    /// what needs their machine is not done on this one.
    NeverNamed,
    /// These, beside whoever else names them.
    Named(BTreeSet<Arc<str>>),
}

/// What is asked of workers.
pub struct Settings {
    /// Which queues the worker in this process serves.
    pub own: OwnQueues,
    /// How long one of another process that is not heard of keeps its session.
    pub lease: Duration,
    /// Secrets that their attempts may ask for.
    pub secrets: Secrets,
    /// Starts the worker in this process; none: there is none.
    pub hire: Option<Hire>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            own: OwnQueues::default(),
            lease: limits::SESSION_LEASE,
            secrets: Box::new(|_, _| None),
            hire: None,
        }
    }
}

/// See the module.
pub struct Workers {
    node: Node,
    /// What stands between the node and its workers where there are several nodes.
    relaying: Option<Arc<Relaying>>,
    store: Arc<dyn Store>,
    blobs: Arc<dyn Blobs>,
    data_dir: PathBuf,
    settings: Settings,
    hire: Mutex<Option<Hire>>,
    leave: Mutex<Option<Leave>>,
    /// Queues that the worker inside leaves to those that ever named them.
    named: Mutex<BTreeSet<Arc<str>>>,
    sessions: Mutex<BTreeMap<SessionId, Session>>,
    /// What is measured of them counts from here.
    since: Stopwatch,
    /// Where log lines go, if not to files.
    log_rows: OnceLock<Arc<RowLogs>>,
    /// Contents on their way, of all sessions.
    contents: Arc<Semaphore>,
    /// No worker is let in any more.
    closed: AtomicBool,
    /// Dropped with it: ends the thread that looks at leases.
    stop: Mutex<Option<mpsc::Sender<()>>>,
}

impl Workers {
    /// Workers of a node that is not started yet: it is told of sessions that may hold attempts.
    ///
    /// # Errors
    /// `store-unavailable` and others of the store, if the sessions cannot be read.
    pub(crate) fn open(
        data_dir: &Path,
        (node, relaying): (Node, Option<Arc<Relaying>>),
        store: Arc<dyn Store>,
        blobs: Arc<dyn Blobs>,
        mut settings: Settings,
    ) -> Result<Arc<Self>, Error> {
        let mut sessions = BTreeMap::new();
        for (id, about) in stored::read(&*store)? {
            if let Some(relaying) = &relaying {
                // Its home is another node, or one that is gone.
                relaying.known(id, about);
                continue;
            }
            if about.inside && settings.hire.is_none() {
                // It died with its process, and the next worker inside says what it held.
                continue;
            }
            let lease = (!about.inside).then_some(settings.lease);
            node.session(id, SessionChange::Unheard(about.queues.clone()));
            sessions.insert(id, Session::new(about, opening::deadline(lease), true));
        }
        let mut named = BTreeSet::new();
        if settings.own == OwnQueues::NeverNamed {
            named = stored::queues(&*store)?;
            keep_queues(&node, relaying.as_deref(), &named);
        }
        let (stop, stopped) = mpsc::channel();
        let workers = Arc::new(Self {
            named: Mutex::new(named),
            node,
            relaying,
            store,
            blobs,
            data_dir: data_dir.to_owned(),
            hire: Mutex::new(settings.hire.take()),
            settings,
            leave: Mutex::default(),
            sessions: Mutex::new(sessions),
            since: Stopwatch::start(),
            log_rows: OnceLock::new(),
            contents: Arc::new(Semaphore::new(limits::CONTENTS)),
            closed: AtomicBool::new(false),
            stop: Mutex::new(Some(stop)),
        });
        let watched = Arc::downgrade(&workers);
        std::thread::Builder::new()
            .name("kapell-leases".to_owned())
            .spawn(move || watch(&watched, &stopped))
            .map_err(|error| {
                let message = format!("no thread for the leases of workers: {error}");
                Error::new(ErrorCode::Internal, message)
            })?;
        Ok(workers)
    }

    /// Log lines go there instead of to files of the data directory.
    pub(crate) fn write_logs_to(&self, rows: Option<&Arc<RowLogs>>) {
        if let Some(rows) = rows {
            // It is told once.
            let _ = self.log_rows.set(Arc::clone(rows));
        }
    }

    /// Starts the worker in this process, if there is to be one: it is in a session then.
    ///
    /// # Errors
    /// Those of the worker.
    pub(crate) fn hire(self: &Arc<Self>) -> Result<(), Error> {
        let hire = self.hire.lock().take();
        if let Some(hire) = hire {
            let logs_here = self.log_rows.get().is_none();
            let leave = hire(inside(Arc::clone(self)), Arc::clone(&self.blobs), logs_here)?;
            *self.leave.lock() = Some(leave);
        }
        Ok(())
    }

    /// Lets the worker in this process go: it takes nothing more, and what it runs may take so long to
    /// end.
    pub(crate) fn dismiss(&self, grace: Duration) {
        let leave = self.leave.lock().take();
        if let Some(leave) = leave {
            leave(grace);
        }
    }

    /// True for the worker of a process that others do not come to.
    fn is_alone(&self, about: &About) -> bool {
        about.inside && self.settings.own == OwnQueues::Free
    }

    /// The name of a worker in history. One that is alone needs none.
    fn recorded_as(&self, about: &About) -> Arc<str> {
        if self.is_alone(about) {
            Arc::default()
        } else {
            about.name.as_str().into()
        }
    }

    /// Queues that are for workers that name them, also while none of them is there.
    pub(crate) fn kept_queues(&self) -> BTreeSet<Arc<str>> {
        self.named.lock().clone()
    }

    /// Ends all connections; sessions stay, for the next process.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.stop.lock().take();
        for session in self.sessions.lock().values_mut() {
            session.disconnect();
        }
        if self.relaying.is_some() {
            // Other nodes go on handing out, and to nobody here.
            for (id, session) in self.sessions.lock().iter() {
                self.seat(*id, session);
            }
        }
    }

    /// The workers, by name.
    pub fn list(&self) -> Vec<WorkerView> {
        let sessions = self.sessions.lock();
        let listed = view::listed_of(sessions.len());
        let mut views: Vec<WorkerView> = sessions
            .iter()
            .map(|(id, session)| view(*id, session, listed))
            .collect();
        views.sort_by(|a, b| (&a.name, &a.session).cmp(&(&b.name, &b.session)));
        views
    }

    /// Steps of a run that workers have, with who has them; of none where there is only one worker.
    pub(crate) fn who_runs(&self, run: RunId) -> BTreeMap<Arc<str>, RunsAt> {
        let mut steps = BTreeMap::new();
        let now = clock::steady();
        let sessions = self.sessions.lock();
        let named = sessions.values();
        for session in named.filter(|session| !self.is_alone(&session.about)) {
            let held = session.held.iter();
            for (_, held) in held.filter(|(name, held)| name.0 == run && !held.light) {
                let worker = StepWorker {
                    name: session.about.name.clone(),
                    attempt: held.attempt,
                    since: held.granted_at,
                };
                let away = self.away(session, now);
                steps.insert(Arc::clone(&held.path), RunsAt { worker, away });
            }
        }
        steps
    }

    /// What steps of a worker that is not connected wait for.
    fn away(&self, session: &Session, now: Instant) -> Option<String> {
        let deadline = session.deadline.filter(|_| !session.is_connected())?;
        let lease = self.settings.lease;
        let left = deadline.saturating_duration_since(now).min(lease);
        Some(format!(
            "its worker `{}`, which was not heard of for {} s; it is tried elsewhere in {} s",
            session.about.name,
            lease.saturating_sub(left).as_secs(),
            left.as_secs() + 1
        ))
    }

    /// Lets workers here take nothing more, end what they run within the grace, and go. What is not over by
    /// then is done elsewhere. None of them may be here.
    pub(crate) fn drain(&self, whom: &Whom, grace: Duration) -> Vec<WorkerView> {
        let mut sessions = self.sessions.lock();
        let mut drained = Vec::new();
        for (id, session) in sessions.iter_mut() {
            if whom.is(*id, &session.about) {
                session.draining = Some(grace);
                session.send(ToWorker::Drain(grace));
                self.seat(*id, session);
                drained.push(view(*id, session, view::LISTED_AT_LEAST));
            }
        }
        drained
    }

    /// A secret that an attempt of a session names.
    fn secret(
        &self,
        session: SessionId,
        name: &Name,
        secret: &str,
    ) -> Result<Option<String>, Error> {
        let sessions = self.sessions.lock();
        let held = sessions
            .get(&session)
            .and_then(|session| session.held.get(name));
        let refused = |why: &str| {
            let message = format!("the secret `{secret}` is not given: {why}");
            Err(Error::new(ErrorCode::NotAllowedNow, message))
        };
        let Some(held) = held else {
            return refused("the session does not hold this attempt");
        };
        match &held.secrets {
            None => refused("the attempt was handed out before the server's restart"),
            Some(names) if names.iter().any(|name| **name == *secret) => {
                let namespace = held.namespace.clone();
                drop(sessions);
                Ok((self.settings.secrets)(&namespace, secret))
            }
            Some(_) => refused("the step does not name it"),
        }
    }

    /// True for the session of a worker in another process.
    fn is_outside(&self, session: SessionId) -> bool {
        let sessions = self.sessions.lock();
        let session = sessions.get(&session);
        session.is_some_and(|session| !session.about.inside)
    }

    /// Places for contents of a session, if there is one.
    fn contents_of(&self, session: SessionId) -> Option<Arc<Semaphore>> {
        let sessions = self.sessions.lock();
        sessions
            .get(&session)
            .map(|session| Arc::clone(&session.contents))
    }

    /// Tells the node what a session has to give now.
    fn seat(&self, id: SessionId, session: &Session) {
        if !session.unheard {
            self.say(id, SessionChange::Seat(self.seat_of(session)));
        }
    }

    /// What a session has to give now. A worker that is alone refuses what is too big for it: nobody will
    /// come who has more.
    fn seat_of(&self, session: &Session) -> Seat {
        let seat = session.seat();
        if self.is_alone(&session.about) {
            return Seat {
                total: TaskResources::all_with(seat.total.custom),
                share: TaskResources::all_with(seat.share.custom),
                ..seat
            };
        }
        seat
    }

    /// A session is over: what it held is lost.
    fn end(&self, id: SessionId, reason: &str, explained: bool) {
        {
            let mut sessions = self.sessions.lock();
            let Some(mut session) = sessions.remove(&id) else {
                return;
            };
            // What is lost is not granted to it again before the node hears that it is over.
            session.draining.get_or_insert(Duration::ZERO);
            self.seat(id, &session);
            // If it ran several attempts, its end says nothing of any of them.
            let processes = session.held.values().filter(|held| !held.light).count();
            let lost = |(name, held): (&Name, &HeldTask)| Report {
                worker: self.recorded_as(&session.about),
                ..gone(*name, held.granted_at, (reason, explained || processes > 1))
            };
            let lost: Vec<Report> = session.held.iter().map(lost).collect();
            let worker = named(id, &session.about);
            if lost.is_empty() && session.about.inside {
                // It goes with the server, which says so.
            } else if lost.is_empty() {
                tracing::info!(worker, reason, "the session of a worker is over");
            } else {
                let lost = lost.len();
                tracing::warn!(worker, lost, reason, "the session of a worker is over");
            }
            // Under the lock: nothing of this session is told to the node afterwards.
            self.report(lost);
            self.say(id, SessionChange::Over);
        }
        if self.has_moved(id) {
            // The row is that of its new home.
            return;
        }
        if let Err(error) = stored::remove(&*self.store, id) {
            tracing::error!(%error, session = %id, "the row of a session was not removed");
        }
    }

    /// Looks at what is taken of workers.
    fn look_at_usage(&self) {
        let now = self.since.elapsed();
        for session in self.sessions.lock().values_mut() {
            // Of one that is away nobody knows.
            if session.is_connected() {
                let taken = session.taken_now();
                session.usage.look(now, &taken);
            }
        }
    }

    /// Ends sessions whose lease has passed.
    fn look_at_leases(&self) {
        let now = clock::steady();
        let passed: Vec<SessionId> = {
            let sessions = self.sessions.lock();
            let passed = sessions
                .iter()
                .filter(|(_, session)| session.deadline.is_some_and(|at| at <= now));
            passed.map(|(id, _)| *id).collect()
        };
        for id in passed {
            if self.has_moved(id) {
                if let Some(relaying) = &self.relaying {
                    relaying.moved(id, &*self.store);
                }
                continue;
            }
            let reason = format!(
                "its worker was not heard of for {} seconds",
                self.settings.lease.as_secs()
            );
            self.end(id, &reason, false);
        }
    }

    fn logs(&self) -> PathBuf {
        self.data_dir.join("logs")
    }
}

fn watch(workers: &Weak<Workers>, stopped: &mpsc::Receiver<()>) {
    let mut looks = 0_u32;
    while stopped.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
        let Some(workers) = workers.upgrade() else {
            return;
        };
        workers.look_at_leases();
        looks = looks.wrapping_add(1);
        if looks.is_multiple_of(2) {
            workers.look_at_usage();
        }
    }
}

impl kapell_node::drive::Workers for Workers {
    fn offer(&self, tasks: Vec<Task>) {
        let mut by_session: BTreeMap<SessionId, Vec<Task>> = BTreeMap::new();
        for task in tasks {
            by_session.entry(task.session).or_default().push(task);
        }
        let now = clock::now();
        let mut sessions = self.sessions.lock();
        for (id, tasks) in by_session {
            if let Some(session) = sessions.get_mut(&id) {
                if !session.offer(tasks, now) {
                    self.seat(id, session);
                }
            } else {
                let lost = tasks.iter().map(|task| {
                    let name = (task.run, task.place, task.offer);
                    gone(name, now, ("its worker was gone before it began", true))
                });
                self.report(lost.collect());
            }
        }
    }

    fn stop(&self, attempts: &[(RunId, Place, Offer)]) {
        for (id, session) in self.sessions.lock().iter_mut() {
            let stops: Vec<Name> = attempts
                .iter()
                .filter(|name| session.may_hold(name))
                .copied()
                .collect();
            if !stops.is_empty() && !session.stop(stops) {
                self.seat(*id, session);
            }
        }
    }

    fn taken(&self, attempts: &[(RunId, Place, Offer)]) {
        for (id, session) in self.sessions.lock().iter_mut() {
            if session.held.is_empty() {
                continue;
            }
            let numbers: Vec<u64> = attempts
                .iter()
                .filter_map(|name| session.taken(name))
                .collect();
            if !numbers.is_empty() && !session.send(ToWorker::Taken(numbers)) {
                self.seat(*id, session);
            }
        }
    }
}

/// An attempt whose worker is gone, with when it was handed out, if that is known: what its run recorded of
/// its start goes before that.
fn gone(name: Name, started_at: Time, why: (&str, bool)) -> Report {
    Report::lost(name, (started_at, clock::now()), why)
}
