//! A worker in a session of a server: in another process, or inside the server's own ([`Inside`]).
//!
//! Start reading at [`Remote`], then `connection` (one connection, and what follows its end), `outbox`
//! (what the server must still hear) and `lease`. Both kinds speak the same messages and keep the same
//! promises. The one inside has no connection under its calls and may need no lease, and reads and writes
//! contents and logs as files of the directory that it shares with the server.
//!
//! ```text
//! connect -> hello -> welcome -> tasks, stops, acknowledgements <-> logs, reports, beats
//!    ^                   |                                                  |
//!    +--- a pause <------+------------------ the connection ends <----------+
//! ```
//!
//! - **Crash**: children die with it; the next process of the directory says what was lost.
//! - **Slow or dead server**: results and log lines are kept, within bounds, and said again. Before the
//!   lease ends what runs is stopped, so that it never runs beside its next try.
//! - **Clock jump**: the lease counts on a clock that does not jump, and that goes on while the machine
//!   sleeps.

mod blobs;
mod connection;
mod inside;
mod lease;
mod link;
mod outbox;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use kapell_api::client::Target;
use kapell_api::task::{Blobs, Outcome, Report, Task};
use kapell_api::worker;
use kapell_model::SessionId;
use parking_lot::Mutex;

use crate::config::{Config, Error, LostAttempt};
use crate::executor;
use crate::shared::LogPlace;
use crate::worker::{Canceller, Worker};

pub use inside::Inside;

use blobs::Contents;
use lease::Lease;
use outbox::Outbox;

/// How long the last words of a worker that goes may take.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// The same inside the server: what was said has arrived there, whether it is acknowledged or not.
const LAST_WORDS_INSIDE: Duration = Duration::from_secs(1);

/// Where a worker's server is.
pub enum Server {
    /// In another process. Contents and log lines go over the connection too.
    At(Target),
    /// In this one, over the same directory.
    Inside {
        /// Answers the worker's calls.
        calls: worker::Inside,
        /// Contents, of both.
        blobs: Arc<dyn Blobs>,
        /// Logs are files of both; else lines go to the server as from afar.
        logs_here: bool,
    },
}

/// How a worker presents itself, and to whom.
pub struct RemoteConfig {
    /// The server.
    pub server: Server,
    /// What its owner calls it.
    pub name: String,
    /// What its owner says of it.
    pub labels: BTreeMap<String, String>,
    /// What it offers under names of its owner's.
    pub resources: BTreeMap<String, u64>,
    /// It can be taken away at any time.
    pub spot: bool,
    /// The pool that it is one of.
    pub pool: Option<String>,
    /// The queues that it serves; none is every queue that no worker names.
    pub queues: Vec<String>,
    /// Its Kapell.
    pub version: String,
}

/// What happens to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is in this session now; `true` if it was before.
    Welcome(SessionId, bool),
    /// The server cannot be reached, for this reason; it tries again.
    Away(String),
    /// The server asks it to go, and what runs may take so long to end.
    Drain(Duration),
    /// The server refuses it for good.
    Refused(String),
}

/// A worker in a session of a server.
pub struct Remote {
    inner: Arc<Inner>,
    events: Mutex<Receiver<Event>>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads of a remote worker share.
pub(crate) struct Inner {
    pub(crate) config: RemoteConfig,
    pub(crate) capacity: crate::config::Capacity,
    pub(crate) runtimes: Vec<String>,
    pub(crate) outbox: Outbox,
    pub(crate) lease: Lease,
    pub(crate) contents: Arc<Contents>,
    pub(crate) clock: fn() -> kapell_model::Time,
    worker: Mutex<Option<Worker>>,
    canceller: Canceller,
    pub(crate) session: Mutex<Session>,
    /// How often it said hello.
    pub(crate) hellos: AtomicU64,
    pub(crate) events: Sender<Event>,
}

/// The session that a worker is or was in.
pub(crate) struct Session {
    pub(crate) id: SessionId,
    /// It was this process that was in it.
    pub(crate) same_process: bool,
    /// What the process before left.
    pub(crate) lost: Vec<LostAttempt>,
    /// Where its name is kept.
    file: PathBuf,
}

impl Remote {
    /// Starts a worker over its own directory; it connects, and connects again, by itself.
    ///
    /// # Errors
    /// What a [`Worker`] cannot do without.
    pub fn start(config: Config, remote: RemoteConfig) -> Result<Self, Error> {
        let clock = config.clock;
        let capacity = config.capacity;
        let file = config.data_dir.join("slots/session");
        let system = |what| move |source| Error::System { what, source };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(system("make a runtime"))?;
        let contents = Arc::new(Contents::new(runtime.handle().clone()));
        let (events, received) = channel();
        // The worker reports from its first moment on, when nobody is there to hear.
        let (to, reports) = channel::<Vec<Report>>();
        let far = Arc::new(connection::FarSide::default());
        let (blobs, logs) = match &remote.server {
            Server::At(_) => (Arc::clone(&contents) as Arc<dyn Blobs>, LogPlace::Far),
            Server::Inside {
                blobs, logs_here, ..
            } => {
                let place = if *logs_here {
                    LogPlace::Here
                } else {
                    LogPlace::Far
                };
                (Arc::clone(blobs), place)
            }
        };
        let is_far = matches!(remote.server, Server::At(_));
        let (worker, lost) = Worker::start_for(
            config,
            blobs,
            Box::new({
                let far = Arc::clone(&far);
                move |reports| match far.inner() {
                    Some(inner) => inner.outbox.report(reports),
                    None => drop(to.send(reports)),
                }
            }),
            (Arc::clone(&far) as _, logs),
        )?;
        let inner = Arc::new(Inner {
            capacity,
            runtimes: ["noop", "fail", "shell", "exec", "python", "http"]
                .map(str::to_owned)
                .to_vec(),
            config: remote,
            outbox: Outbox::default(),
            lease: Lease::default(),
            contents,
            clock,
            canceller: worker.canceller(),
            worker: Mutex::new(Some(worker)),
            session: Mutex::new(Session::read(file, lost)),
            hellos: AtomicU64::new(0),
            events,
        });
        far.set(&inner);
        for early in reports.try_iter() {
            inner.outbox.report(early);
        }
        let mut threads = Vec::new();
        if is_far {
            let watched = Arc::clone(&inner);
            let thread = std::thread::Builder::new()
                .name("kapell-lease".to_owned())
                .spawn(move || {
                    let watched = &watched;
                    watched.lease.watch(|| watched.abandon());
                });
            threads.push(thread.map_err(system("start a thread"))?);
        }
        let connecting = Arc::clone(&inner);
        let thread = std::thread::Builder::new()
            .name("kapell-remote".to_owned())
            .spawn(move || runtime.block_on(connection::keep(&connecting)));
        threads.push(thread.map_err(system("start a thread"))?);
        Ok(Self {
            inner,
            events: Mutex::new(received),
            threads,
        })
    }

    /// What happens next; none if nothing does within the time.
    pub fn next(&self, patience: Duration) -> Option<Event> {
        self.events.lock().recv_timeout(patience).ok()
    }

    /// Takes nothing more, gives running attempts `grace` to end, hands back the rest, and goes once
    /// the server has heard of it.
    pub fn leave(mut self, grace: Duration) {
        self.go(grace);
    }

    fn go(&mut self, grace: Duration) {
        if self.threads.is_empty() {
            return;
        }
        self.inner.outbox.drain();
        let worker = self.inner.worker.lock().take();
        if let Some(worker) = worker {
            worker.stop(grace);
        }
        let patience = match self.inner.config.server {
            Server::At(_) => LAST_WORDS,
            Server::Inside { .. } => LAST_WORDS_INSIDE,
        };
        self.inner.outbox.leave(patience);
        self.inner.lease.close();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.go(Duration::ZERO);
    }
}

impl Inner {
    /// Takes tasks; hands them back if the worker goes, or if its lease is over: what came that late may
    /// run elsewhere by now.
    pub(crate) fn offer(&self, tasks: Vec<Task>) {
        self.outbox.hold(&tasks);
        let allowed = self.lease.allows();
        if allowed && let Some(worker) = &*self.worker.lock() {
            worker.offer(tasks);
            return;
        }
        let why = if allowed {
            "its worker takes nothing more"
        } else {
            "it came after the lease of its worker"
        };
        let now = (self.clock)();
        let back = tasks.iter().map(|task| {
            let outcome = Outcome::Lost {
                reason: why.to_owned(),
                explained: true,
            };
            executor::ended(task, now, outcome)
        });
        self.outbox.report(back.collect());
    }

    pub(crate) fn cancel(&self, offers: &[outbox::Name]) {
        self.canceller.cancel(offers);
    }

    /// The lease is about to end, or has: what is here ends as lost.
    pub(crate) fn abandon(&self) {
        self.canceller.abandon();
    }
}

impl Session {
    fn read(file: PathBuf, lost: Vec<LostAttempt>) -> Self {
        let before = fs::read_to_string(&file).ok();
        let id = before.and_then(|text| text.trim().parse().ok());
        Self {
            id: id.unwrap_or(SessionId(0)),
            same_process: false,
            lost,
            file,
        }
    }

    /// It is in this session from now on.
    pub(crate) fn enter(&mut self, id: SessionId) {
        self.same_process = true;
        self.lost.clear();
        if self.id != id {
            self.id = id;
            if let Err(error) = write(&self.file, id) {
                tracing::warn!(%error, "the name of the session is not kept");
            }
        }
    }
}

fn write(file: &Path, id: SessionId) -> std::io::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, id.to_string())?;
    fs::rename(new, file)
}
