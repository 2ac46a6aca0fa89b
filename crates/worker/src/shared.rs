//! What all threads of a worker share.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kapell_api::task::{Blobs, Place, Report, Task, TaskError};
use kapell_expr::Value;
use kapell_model::{Offer, RunId, Time};
use parking_lot::{Condvar, Mutex};
use rustix::event::epoll::{self, EventData, EventFlags};

use crate::admission::{Admission, Admitted};
use crate::bundle::Bundles;
use crate::cgroup::Cgroups;
use crate::dirs::Dirs;
use crate::input::{BaseEnv, Secrets};
use crate::launch::{Job, Launched, Prepared, Programs};
use crate::mask::Masker;
use crate::os;
use crate::output::Keeping;
use crate::python::{Environments, HostPlan, HostProcess, Ready};
use crate::runtime::http::Client;
use crate::slots::{Record, Slots};
use crate::threads::Pool;

/// What all threads of a worker share.
pub(crate) struct Shared {
    pub(crate) clock: fn() -> Time,
    pub(crate) secrets: Arc<Secrets>,
    /// The server, which has more secrets.
    pub(crate) far: Option<Arc<dyn Far>>,
    /// Where log lines are written.
    pub(crate) log_place: LogPlace,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) reports: Box<dyn Fn(Vec<Report>) + Send + Sync>,
    pub(crate) env: BaseEnv,
    pub(crate) logs: PathBuf,
    pub(crate) cache: PathBuf,
    pub(crate) keep_failed: Duration,
    pub(crate) python: Option<PathBuf>,
    pub(crate) uv: Option<PathBuf>,
    pub(crate) environments: Environments,
    pub(crate) client: Client,
    pub(crate) has_gpus: bool,
    pub(crate) most_hosts: usize,
    /// Names the data directory in marks and groups.
    pub(crate) id: String,
    pub(crate) dirs: Dirs,
    pub(crate) bundles: Bundles,
    pub(crate) slots: Slots,
    pub(crate) cgroups: Cgroups,
    pub(crate) programs: Programs,
    /// `/dev/null`.
    pub(crate) nothing: File,
    pub(crate) admission: Mutex<Admission>,
    pub(crate) next_key: AtomicU64,
    pub(crate) inbox: Inbox,
    /// What the event loop waits on.
    pub(crate) epoll: OwnedFd,
    pub(crate) starts: Starts,
    /// Slow work of attempts: artifacts, bundles, big outputs, environments.
    pub(crate) errands: Pool,
    /// HTTP requests.
    pub(crate) requests: Pool,
}

/// Where log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogPlace {
    /// Into files of this directory.
    Here,
    /// By the server, into files of its own.
    Far,
}

/// What a worker asks of its server.
pub(crate) trait Far: Send + Sync {
    /// A secret that a task names; none if there is no such secret. Blocks.
    fn secret(&self, task: &Task, name: &str) -> Result<Option<String>, String>;
    /// Log lines of a task, of whose log `offset` bytes came before. Does not block.
    fn log(&self, task: &Task, offset: u64, text: &[u8]);
}

/// What the event loop is told.
pub(crate) enum Message {
    /// Tasks were admitted; known before their start is reported.
    Admitted(Vec<Arc<Job>>),
    /// A process was started, or not.
    Launched(Arc<Job>, Result<Box<Launched>, Box<TaskError>>),
    /// A `python` task is ready for a host, or never will be.
    Ready(Arc<Job>, Result<Box<Ready>, Box<TaskError>>),
    /// A host was started, or not.
    Host(u64, Result<Box<HostProcess>, Box<TaskError>>),
    /// The output of an attempt that ended well, or an HTTP response.
    Collected(u64, Result<Value, Box<TaskError>>),
    /// A line for an attempt's log.
    Note(u64, String),
    /// These are not wanted any more.
    Cancel(Vec<(RunId, Place, Offer)>),
    /// End what is here as lost, and go on.
    Abandon,
    /// End everything, at the latest after this long.
    Stop(Duration),
}

/// The event loop's inbox.
pub(crate) struct Inbox {
    messages: Mutex<Vec<Message>>,
    signalled: AtomicBool,
    /// Readable once there is a message.
    pub(crate) event: OwnedFd,
}

impl Inbox {
    /// An empty one around an eventfd.
    pub(crate) fn new(event: OwnedFd) -> Self {
        Self {
            messages: Mutex::default(),
            signalled: AtomicBool::new(false),
            event,
        }
    }

    /// Adds a message and wakes the loop.
    pub(crate) fn send(&self, message: Message) {
        self.leave(message);
        self.wake();
    }

    /// Adds a message that the loop finds when it wakes for something else.
    pub(crate) fn leave(&self, message: Message) {
        self.messages.lock().push(message);
    }

    /// Wakes the loop.
    pub(crate) fn wake(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel) {
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }

    /// Everything that has come.
    pub(crate) fn take(&self) -> Vec<Message> {
        if self.signalled.swap(false, Ordering::AcqRel) {
            let _ = rustix::io::read(&self.event, &mut [0_u8; 8]);
        }
        std::mem::take(&mut *self.messages.lock())
    }
}

/// What the starting threads do next.
pub(crate) enum Start {
    /// Prepare and start.
    Job(Arc<Job>),
    /// Start what an errand prepared.
    Prepared(Arc<Job>, Box<Prepared>),
    /// Start a host.
    Host(u64, Box<HostPlan>),
}

/// The queue of the starting threads.
#[derive(Default)]
pub(crate) struct Starts {
    queue: Mutex<(VecDeque<Start>, bool)>,
    wake: Condvar,
}

impl Starts {
    /// Adds one.
    pub(crate) fn push(&self, start: Start) {
        self.queue.lock().0.push_back(start);
        self.wake.notify_one();
    }

    /// The next one; none once closed.
    pub(crate) fn next(&self) -> Option<Start> {
        let mut queue = self.queue.lock();
        loop {
            if queue.1 {
                return None;
            }
            if let Some(start) = queue.0.pop_front() {
                return Some(start);
            }
            self.wake.wait(&mut queue);
        }
    }

    /// Ends the threads.
    pub(crate) fn close(&self) {
        self.queue.lock().1 = true;
        self.wake.notify_all();
    }
}

/// What an epoll event speaks of.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    Inbox = 0,
    Stdout = 1,
    Stderr = 2,
    Process = 3,
    Frames = 4,
}

impl Source {
    /// What the event of this token speaks of.
    pub(crate) fn of(token: u64) -> Option<Self> {
        [
            Self::Inbox,
            Self::Stdout,
            Self::Stderr,
            Self::Process,
            Self::Frames,
        ]
        .into_iter()
        .find(|source| *source as u64 == token & 7)
    }
}

impl Shared {
    /// Who writes log lines, if not this worker itself.
    pub(crate) fn far_log(&self) -> Option<Arc<dyn Far>> {
        let sends = self.log_place == LogPlace::Far;
        self.far.clone().filter(|_| sends)
    }

    /// Keeps the output of an attempt, away from the event loop.
    pub(crate) fn keeping<T>(
        &self,
        key: u64,
        masker: &Masker,
        keep: impl FnOnce(&Keeping<'_>) -> T,
    ) -> T {
        keep(&Keeping {
            blobs: &*self.blobs,
            masker,
            note: &|text| self.inbox.send(Message::Note(key, text.to_owned())),
        })
    }

    /// Lets the event loop watch a descriptor of an attempt or host. Each change is told once: a child
    /// between clone and exec holds copies of our descriptors, so one that we closed may still tell for
    /// a moment.
    pub(crate) fn watch(&self, fd: impl AsFd, key: u64, source: Source) -> io::Result<()> {
        let mut flags = EventFlags::IN;
        flags.set(EventFlags::ET, !matches!(source, Source::Inbox));
        flags.set(EventFlags::OUT, matches!(source, Source::Frames));
        let token = EventData::new_u64(key << 3 | source as u64);
        Ok(epoll::add(&self.epoll, fd, token, flags)?)
    }

    /// The mark of a task's processes.
    pub(crate) fn mark(&self, task: &Task) -> String {
        format!(
            "{}/{}/{}.{}",
            self.id, task.run, task.offer.epoch, task.offer.counter
        )
    }

    /// The mark of a host's processes.
    pub(crate) fn host_mark(&self, number: u64) -> String {
        format!("{}/host/{number}", self.id)
    }

    /// Makes jobs of admitted tasks and writes down that they are held: the first in the slot of an
    /// attempt that is over, if there is one.
    pub(crate) fn jobs(&self, admitted: Vec<Admitted>, mut over: Option<u32>) -> Vec<Arc<Job>> {
        let jobs = admitted
            .into_iter()
            .map(|(task, devices)| {
                let slot = over.take().unwrap_or_else(|| self.slots.take());
                let attempt = Some((task.run, task.place, task.offer, task.attempt));
                self.slots.set(
                    slot,
                    &Record {
                        attempt,
                        ..Record::default()
                    },
                );
                let key = self.next_key.fetch_add(1, Ordering::Relaxed);
                Arc::new(Job {
                    key,
                    task,
                    slot,
                    admitted: os::boot_ticks(),
                    devices,
                    cancelled: AtomicBool::new(false),
                    awaited: AtomicBool::new(false),
                })
            })
            .collect();
        if let Some(slot) = over {
            self.slots.give_back(slot);
        }
        jobs
    }
}
