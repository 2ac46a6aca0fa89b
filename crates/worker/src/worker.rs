//! The public face: starting, offering, cancelling, stopping.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use kapell_api::task::{Blobs, Outcome, Place, Report, Task, TaskError, Work};
use kapell_expr::Value;
use kapell_model::{Offer, RunId};
use parking_lot::Mutex;
use rustix::event::EventfdFlags;
use rustix::event::epoll::CreateFlags;

use crate::admission::Admission;
use crate::bundle::Bundles;
use crate::cgroup::Cgroups;
use crate::config::{Capacity, Config, Error, LostAttempt};
use crate::dirs::Dirs;
use crate::executor::{self, Executor};
use crate::failure;
use crate::input::BaseEnv;
use crate::launch::{self, Job, Launched};
use crate::os::{self, Spawner};
use crate::runtime::http::Client;
use crate::shared::{Far, Inbox, LogPlace, Message, Shared, Start, Starts};
use crate::slots::{Record, Slots};
use crate::survivors;
use crate::threads::Pool;

/// Threads that start children.
const STARTERS: usize = 2;
/// Threads for work that blocks.
const ERRANDS: usize = 8;
/// HTTP requests at a time.
const REQUESTS: usize = 32;

/// Runs tasks. Dropping it ends everything at once; [`Worker::stop`] gives running attempts time.
pub struct Worker {
    shared: Arc<Shared>,
    total: Capacity,
    threads: Vec<JoinHandle<()>>,
    event_loop: Option<JoinHandle<()>>,
}

impl Worker {
    /// Cleans up after a worker of this directory that died, then starts.
    ///
    /// Returns the attempts that one held: they are to be reported lost before anything is offered.
    /// `reports` is called from the worker's threads and must not block for long.
    pub fn start(
        config: Config,
        blobs: Arc<dyn Blobs>,
        reports: Box<dyn Fn(Vec<Report>) + Send + Sync>,
    ) -> Result<(Self, Vec<LostAttempt>), Error> {
        Self::start_with(config, blobs, reports, Containment::Cgroups)
    }

    /// The same for a server that is asked for secrets, and maybe given log lines.
    pub(crate) fn start_for(
        config: Config,
        blobs: Arc<dyn Blobs>,
        reports: Box<dyn Fn(Vec<Report>) + Send + Sync>,
        server: (Arc<dyn Far>, LogPlace),
    ) -> Result<(Self, Vec<LostAttempt>), Error> {
        Self::begin(config, blobs, reports, Containment::Cgroups, Some(server))
    }

    pub(crate) fn start_with(
        config: Config,
        blobs: Arc<dyn Blobs>,
        reports: Box<dyn Fn(Vec<Report>) + Send + Sync>,
        containment: Containment,
    ) -> Result<(Self, Vec<LostAttempt>), Error> {
        Self::begin(config, blobs, reports, containment, None)
    }

    fn begin(
        config: Config,
        blobs: Arc<dyn Blobs>,
        reports: Box<dyn Fn(Vec<Report>) + Send + Sync>,
        containment: Containment,
        server: Option<(Arc<dyn Far>, LogPlace)>,
    ) -> Result<(Self, Vec<LostAttempt>), Error> {
        let id = data_id(&config.data_dir)?;
        let slot_dir = directory(&config.data_dir, "slots")?;
        let (slots, held, same_boot) =
            Slots::open(&slot_dir).map_err(|source| Error::Directory {
                path: slot_dir,
                source,
            })?;
        let cgroups = match containment {
            Containment::Cgroups => Cgroups::open(&id),
            Containment::Marks => Cgroups::none(),
        };
        if !cgroups.contains() {
            os::become_subreaper();
        }
        end_survivors(&id, &held, same_boot);
        let (far, log_place) = server.unzip();
        let shared = Arc::new(Shared {
            far,
            log_place: log_place.unwrap_or(LogPlace::Here),
            ..shared(config, blobs, reports, id, slots, cgroups)?
        });
        let total = shared.admission.lock().free();
        let mut worker = Self {
            shared,
            total,
            threads: Vec::new(),
            event_loop: None,
        };
        worker.start_threads()?;
        let lost = held.iter().filter_map(|record| lost(record, !same_boot));
        Ok((worker, lost.collect()))
    }

    fn start_threads(&mut self) -> Result<(), Error> {
        let system = |what| move |source| Error::System { what, source };
        let executor =
            Executor::new(Arc::clone(&self.shared)).map_err(system("watch processes"))?;
        for number in 0..STARTERS {
            let shared = Arc::clone(&self.shared);
            let thread = Builder::new()
                .name(format!("kapell-start-{number}"))
                .spawn(move || start_children(&shared));
            self.threads.push(thread.map_err(system("start a thread"))?);
        }
        let thread = Builder::new()
            .name("kapell-events".into())
            .spawn(move || executor.run());
        self.event_loop = Some(thread.map_err(system("start a thread"))?);
        Ok(())
    }

    /// Takes tasks: starts what fits at once and the rest in order as room appears. `noop` and `fail`
    /// are answered before this returns.
    pub fn offer(&self, tasks: Vec<Task>) {
        let now = (self.shared.clock)();
        let mut answers = Vec::new();
        let mut rest = Vec::new();
        for task in tasks {
            let outcome = match &task.work {
                Work::Noop => Outcome::Succeeded(Value::Null),
                Work::Fail { message } => Outcome::Failed(failure::user("fail", message.clone())),
                Work::Shell { .. }
                | Work::Exec { .. }
                | Work::Python { .. }
                | Work::Http { .. } => {
                    rest.push(task);
                    continue;
                }
            };
            answers.push(executor::ended(&task, now, outcome));
        }
        if !rest.is_empty() {
            let mut admission = self.shared.admission.lock();
            for task in rest {
                if admission.possible(&task) {
                    admission.push(task);
                } else {
                    let outcome = executor::too_big(&task, self.total);
                    answers.push(executor::ended(&task, now, outcome));
                }
            }
            let jobs = self.shared.jobs(admission.admit(), None);
            drop(admission);
            if !jobs.is_empty() {
                self.shared.inbox.send(Message::Admitted(jobs));
            }
        }
        if !answers.is_empty() {
            (self.shared.reports)(answers);
        }
    }

    /// Ends attempts: TERM, their grace, KILL. Each is reported once it is gone; those that have ended
    /// already are not reported again.
    pub fn cancel(&self, offers: &[(RunId, Place, Offer)]) {
        self.shared.inbox.send(Message::Cancel(offers.to_vec()));
    }

    /// Ends attempts also once the worker itself is being stopped.
    pub(crate) fn canceller(&self) -> Canceller {
        Canceller(Arc::clone(&self.shared))
    }

    /// What is free once everything offered so far has started.
    pub fn usage(&self) -> Capacity {
        self.shared.admission.lock().free()
    }

    /// Starts nothing more, gives running attempts `grace` to end, then ends them as lost.
    pub fn stop(mut self, grace: Duration) {
        self.shut_down(grace);
    }

    fn shut_down(&mut self, grace: Duration) {
        let Some(event_loop) = self.event_loop.take() else {
            return;
        };
        let waiting = self.shared.admission.lock().close();
        let now = (self.shared.clock)();
        let lost = |task: &Task| {
            let reason = "its worker was stopped before it began".to_owned();
            executor::ended(
                task,
                now,
                Outcome::Lost {
                    reason,
                    explained: true,
                },
            )
        };
        if !waiting.is_empty() {
            (self.shared.reports)(waiting.iter().map(lost).collect());
        }
        self.shared.inbox.send(Message::Stop(grace));
        let _ = event_loop.join();
        self.shared.starts.close();
        self.shared.errands.close();
        self.shared.requests.close();
        self.shared.client.cancel_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.shared.errands.join();
        self.shared.dirs.close();
        self.shared.cgroups.close();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shut_down(Duration::ZERO);
    }
}

/// Ends attempts of a worker.
pub(crate) struct Canceller(Arc<Shared>);

impl Canceller {
    /// As [`Worker::cancel`].
    pub(crate) fn cancel(&self, offers: &[(RunId, Place, Offer)]) {
        self.0.inbox.send(Message::Cancel(offers.to_vec()));
    }

    /// Gives what is here so long to end, also if it was given longer before.
    pub(crate) fn stop(&self, grace: Duration) {
        self.0.inbox.send(Message::Stop(grace));
    }

    /// Ends what is here as lost; the worker goes on.
    pub(crate) fn abandon(&self) {
        self.0.inbox.send(Message::Abandon);
    }
}

/// What finds descendants that left their process group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Containment {
    /// Cgroups where they are writable, else marks.
    Cgroups,
    /// Marks in the environment.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "chosen by tests; elsewhere it is what remains without cgroups"
        )
    )]
    Marks,
}

/// One of the permanent threads that make children.
fn start_children(shared: &Shared) {
    let mut spawner = match Spawner::new() {
        Ok(spawner) => spawner,
        Err(error) => {
            tracing::error!(%error, "cannot start processes");
            return;
        }
    };
    while let Some(start) = shared.starts.next() {
        let (job, launched) = match start {
            Start::Job(job) => {
                let launched = start_job(shared, &mut spawner, &job);
                (job, launched)
            }
            Start::Prepared(job, prepared) => {
                let launched = launch::launch(shared, &mut spawner, &job, *prepared);
                (job, launched)
            }
            Start::Host(host, plan) => {
                let started = crate::python::start_host(shared, &mut spawner, &plan);
                shared
                    .inbox
                    .send(Message::Host(host, started.map(Box::new)));
                continue;
            }
        };
        tell(shared, &job, launched);
    }
}

/// Tells the event loop. Of a start it learns when something happens to the process, or a deadline
/// nears: most are over before, and a wake costs as much as a tenth of a start.
fn tell(shared: &Shared, job: &Arc<Job>, launched: Result<Launched, Box<TaskError>>) {
    let quietly = launched.is_ok();
    let message = Message::Launched(Arc::clone(job), launched.map(Box::new));
    shared.inbox.leave(message);
    if !quietly || job.awaited.load(Ordering::Acquire) {
        shared.inbox.wake();
    }
}

fn start_job(
    shared: &Shared,
    spawner: &mut Spawner,
    job: &Job,
) -> Result<Launched, Box<TaskError>> {
    if job.cancelled.load(Ordering::Relaxed) {
        return Err(failure::platform("lost", "cancelled before it began"));
    }
    launch::launch(shared, spawner, job, launch::prepare(shared, job)?)
}

fn shared(
    config: Config,
    blobs: Arc<dyn Blobs>,
    reports: Box<dyn Fn(Vec<Report>) + Send + Sync>,
    id: String,
    slots: Slots,
    cgroups: Cgroups,
) -> Result<Shared, Error> {
    let logs = directory(&config.data_dir, "logs")?;
    let cache = directory(&config.data_dir, "cache")?;
    let work = directory(&config.data_dir, "work")?;
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Directory { path, source }
    };
    let dirs = Dirs::open(work.clone(), config.clock, config.keep_failed).map_err(at(&work))?;
    let bundles = cache.join("bundles");
    let bundles = Bundles::open(bundles.clone()).map_err(at(&bundles))?;
    let nothing =
        File::open("/dev/null").and_then(|file| Ok(File::from(launch::high(file.into())?)));
    let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let env = BaseEnv::new(&config.inherit_env);
    Ok(Shared {
        client: Client::new(&env, config.http),
        clock: config.clock,
        secrets: config.secrets,
        far: None,
        log_place: LogPlace::Here,
        blobs,
        reports,
        env,
        logs,
        cache,
        keep_failed: config.keep_failed,
        python: config.python,
        uv: config.uv,
        environments: crate::python::Environments::default(),
        has_gpus: config.capacity.gpus > 0,
        most_hosts: config.capacity.slots.max(1),
        id,
        dirs,
        bundles,
        slots,
        cgroups,
        programs: launch::Programs::default(),
        nothing: nothing.map_err(|source| Error::System {
            what: "open /dev/null",
            source,
        })?,
        admission: Mutex::new(Admission::new(config.capacity)),
        next_key: AtomicU64::new(1),
        inbox: Inbox::new(event.map_err(|source| Error::System {
            what: "make an eventfd",
            source: source.into(),
        })?),
        epoll: rustix::event::epoll::create(CreateFlags::CLOEXEC).map_err(|source| {
            Error::System {
                what: "watch processes",
                source: source.into(),
            }
        })?,
        starts: Starts::default(),
        errands: Pool::new("kapell-errand", ERRANDS),
        requests: Pool::new("kapell-request", REQUESTS),
    })
}

fn directory(data_dir: &Path, name: &str) -> Result<PathBuf, Error> {
    let path = data_dir.join(name);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)
        .and_then(|()| fs::canonicalize(&path))
        .map_err(|source| Error::Directory { path, source })
}

/// The name of a data directory: chosen at random once, kept in it.
fn data_id(data_dir: &Path) -> Result<String, Error> {
    let path = directory(data_dir, "slots")?.join("id");
    let read = || -> io::Result<String> {
        match fs::read_to_string(&path) {
            Ok(id) if id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                return Ok(id);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        let id: String = uuid
            .chars()
            .filter(char::is_ascii_hexdigit)
            .take(16)
            .collect();
        let mut file = File::create(&path)?;
        file.write_all(id.as_bytes())?;
        file.sync_all()?;
        Ok(id)
    };
    read().map_err(|source| Error::Directory {
        path: path.clone(),
        source,
    })
}

fn end_survivors(id: &str, held: &[Record], same_boot: bool) {
    if same_boot {
        survivors::kill_groups(held);
    }
    survivors::kill_marked(&format!("{id}/"), &HashSet::new());
}

fn lost(record: &Record, explained: bool) -> Option<LostAttempt> {
    let (run, place, offer, attempt) = record.attempt?;
    Some(LostAttempt {
        run,
        place,
        offer,
        attempt,
        explained,
    })
}
