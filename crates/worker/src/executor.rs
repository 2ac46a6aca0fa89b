//! The event loop: one thread that watches every process, pipe, host and deadline.
//!
//! It owns all attempts; other threads prepare and start them, run requests and collect big outputs,
//! and tell it by [`Message`]. It never blocks but in `epoll`. An attempt goes
//! `Preparing -> Running -> (Collecting) -> ended` for processes, `Preparing -> Waiting -> InHost ->
//! ended` for `python`, `Request -> ended` for `http`.
//!
//! If this process dies, the kernel kills the children (parent-death signal) and the next worker of
//! the directory finds the rest. If the clock jumps, deadlines move with it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kapell_api::log::{self, Stream};
use kapell_api::task::{Outcome, Place, Report, Task, TaskEvent, Usage, Work};
use kapell_expr::Value;
use kapell_model::{Offer, RunId, Time, limits};
use rustix::event::epoll;

use crate::attempt::{Attempt, Phase, Proc, Stop, exit_error};
use crate::ending;
use crate::failure;
use crate::launch::{self, Job, Launched, Running};
use crate::os;
use crate::output::{self, Keeping, Left};
use crate::python::Hosts;
use crate::runtime::http;
use crate::shared::{Message, Shared, Source, Start};
use crate::timers::{Due, Timers};

/// How long output is awaited that somebody else than the process may still write.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);
/// How often at most a start is looked for, whatever its deadline.
const LEAST_WAIT: Duration = Duration::from_millis(10);
/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;
/// Reads of one pipe before others have their turn.
const READS: usize = 4;
/// Bytes of standard error in an error's message.
const LAST_WORDS_BYTES: usize = 4096;

/// The event loop.
pub(crate) struct Executor {
    pub(crate) shared: Arc<Shared>,
    pub(crate) attempts: HashMap<u64, Attempt>,
    pub(crate) offers: HashMap<(RunId, Place, Offer), u64>,
    pub(crate) timers: Timers,
    pub(crate) hosts: Hosts,
    pub(crate) reports: Vec<Report>,
    pub(crate) buffer: Vec<u8>,
    pub(crate) now: Time,
    pub(crate) stopping: bool,
    /// Pipes that had their turn and hold more.
    pub(crate) unread: Vec<u64>,
    /// Word of a start came to be awaited: it may have been left in the inbox a moment before.
    pub(crate) recheck: bool,
}

impl Executor {
    /// Nothing to do yet.
    pub(crate) fn new(shared: Arc<Shared>) -> io::Result<Self> {
        shared.watch(&shared.inbox.event, 0, Source::Inbox)?;
        Ok(Self {
            now: (shared.clock)(),
            shared,
            attempts: HashMap::new(),
            offers: HashMap::new(),
            timers: Timers::default(),
            hosts: Hosts::default(),
            reports: Vec::new(),
            buffer: vec![0; READ_BYTES],
            stopping: false,
            unread: Vec::new(),
            recheck: false,
        })
    }

    /// Runs until it is told to stop and everything has ended.
    pub(crate) fn run(mut self) {
        let mut events = Vec::with_capacity(256);
        loop {
            self.flush();
            if self.stopping && self.attempts.is_empty() && self.hosts.is_empty() {
                return;
            }
            let unread = std::mem::take(&mut self.unread);
            let recheck = std::mem::take(&mut self.recheck);
            let wait = if unread.is_empty() && !recheck {
                self.timers.wait(self.now)
            } else {
                Some(Duration::ZERO)
            };
            let wait = wait.and_then(|wait| wait.try_into().ok());
            events.clear();
            // An interrupted wait is a wait that was short.
            let _ = epoll::wait(
                &self.shared.epoll,
                rustix::buffer::spare_capacity(&mut events),
                wait.as_ref(),
            );
            self.now = (self.shared.clock)();
            for message in self.shared.inbox.take() {
                self.message(message);
            }
            for token in events.iter().map(|event| event.data.u64()).chain(unread) {
                self.event(token >> 3, token);
            }
            while let Some(due) = self.timers.pop(self.now) {
                self.due(due);
            }
        }
    }

    fn flush(&mut self) {
        if !self.reports.is_empty() {
            (self.shared.reports)(std::mem::take(&mut self.reports));
        }
    }

    /// Watches a descriptor of a host.
    pub(crate) fn watch(&self, fd: impl AsFd, key: u64, source: Source) {
        if let Err(error) = self.shared.watch(fd, key, source) {
            tracing::error!(%error, "cannot watch a process");
        }
    }

    fn event(&mut self, key: u64, token: u64) {
        let is_host = self.hosts.contains(key);
        if let Some(attempt) = self.attempts.get_mut(&key)
            && matches!(attempt.phase, Phase::Preparing)
        {
            // Word of its start comes in a moment.
            attempt.early.push(token);
            attempt.job.awaited.store(true, Ordering::Release);
            self.recheck = true;
            return;
        }
        match Source::of(token) {
            None | Some(Source::Inbox) => {}
            Some(Source::Stdout) if is_host => self.read_host_output(key, Stream::Stdout),
            Some(Source::Stderr) if is_host => self.read_host_output(key, Stream::Stderr),
            Some(Source::Process) if is_host => self.host_ended(key),
            Some(Source::Frames) => self.read_frames(key),
            Some(Source::Stdout) => self.read_output(key, Stream::Stdout),
            Some(Source::Stderr) => self.read_output(key, Stream::Stderr),
            Some(Source::Process) => self.process_ended(key),
        }
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Admitted(jobs) => jobs.into_iter().for_each(|job| self.begin(job)),
            Message::Launched(job, Ok(launched)) => self.launched(&job, *launched),
            Message::Ready(job, Ok(ready)) => self.ready(&job, ready),
            Message::Launched(job, Err(error)) | Message::Ready(job, Err(error)) => {
                self.end_with(job.key, Err(error));
            }
            Message::Host(host, result) => self.host_started(host, result),
            Message::Collected(key, result) => self.end_with(key, result),
            Message::Note(key, text) => {
                if let Some(attempt) = self.attempts.get_mut(&key) {
                    attempt.log.note(self.now, &text);
                }
            }
            Message::Cancel(offers) => offers.iter().for_each(|offer| self.cancel(*offer)),
            Message::Abandon => self.abandon(),
            Message::Stop(grace) => self.stop(grace),
        }
    }

    fn due(&mut self, due: Due) {
        match due {
            Due::Awaited(key) => self.await_start(key),
            Due::Started(key) => {
                if let Some(attempt) = self.attempts.get(&key)
                    && let Some(at) = attempt.started_at
                {
                    let report = report(&attempt.job.task, TaskEvent::Started { at });
                    self.reports.push(report);
                }
            }
            Due::Timeout(key) => self.end_from_outside(key, Stop::Timeout),
            Due::Kill(key) => self.kill(key),
            Due::Drained(key) => self.drained(key),
            Due::Idle(host) => self.host_idle(host),
            Due::Shutdown => {
                let keys: Vec<u64> = self.attempts.keys().copied().collect();
                for key in keys {
                    self.end_from_outside(key, Stop::Shutdown);
                }
            }
        }
    }

    /// Sends an admitted task on its way.
    pub(crate) fn begin(&mut self, job: Arc<Job>) {
        let (key, task) = (job.key, &job.task);
        let path = job.process().map_or("", |process| &*process.path);
        let log = log::file(&self.shared.logs, task.run, path, task.attempt);
        self.offers.insert((task.run, task.place, task.offer), key);
        let far = self.shared.far_log();
        self.attempts
            .insert(key, Attempt::new(Arc::clone(&job), log, far));
        match &job.task.work {
            Work::Shell { .. } | Work::Exec { .. } => {
                self.await_start(key);
                if job
                    .process()
                    .is_some_and(|process| launch::is_long(&self.shared, process))
                {
                    let shared = Arc::clone(&self.shared);
                    self.shared
                        .errands
                        .run(move || match launch::prepare(&shared, &job) {
                            Ok(prepared) => {
                                shared.starts.push(Start::Prepared(job, Box::new(prepared)));
                            }
                            Err(error) => shared.inbox.send(Message::Launched(job, Err(error))),
                        });
                } else {
                    self.shared.starts.push(Start::Job(job));
                }
            }
            Work::Python { .. } => self.begin_python(job),
            Work::Http { .. } => {
                self.started(key);
                if let Some(attempt) = self.attempts.get_mut(&key) {
                    attempt.phase = Phase::Request;
                }
                let shared = Arc::clone(&self.shared);
                self.shared.requests.run(move || {
                    let result = http::run(&shared, &job);
                    shared.inbox.send(Message::Collected(job.key, result));
                });
            }
            Work::Noop | Work::Fail { .. } => self.end_with(key, Ok(Value::Null)),
        }
    }

    /// Looks again for word of its start no later than the first deadline it may have then.
    fn await_start(&mut self, key: u64) {
        let Some(attempt) = self.attempts.get_mut(&key) else {
            return;
        };
        if matches!(attempt.phase, Phase::Preparing) {
            let timeout = attempt.job.process().and_then(|process| process.timeout);
            let soon = timeout.map_or(limits::RECORD_START_AFTER, |timeout| {
                timeout.min(limits::RECORD_START_AFTER)
            });
            attempt.timers.push(
                self.timers
                    .set(self.now, soon.max(LEAST_WAIT), Due::Awaited(key)),
            );
        }
    }

    /// The attempt's own time begins now.
    pub(crate) fn started(&mut self, key: u64) {
        self.started_at(key, self.now);
    }

    fn started_at(&mut self, key: u64, at: Time) {
        let Some(attempt) = self.attempts.get_mut(&key) else {
            return;
        };
        attempt.started_at = Some(at);
        attempt.timers.push(
            self.timers
                .set(at, limits::RECORD_START_AFTER, Due::Started(key)),
        );
        if let Some(timeout) = attempt.job.process().and_then(|process| process.timeout) {
            attempt
                .timers
                .push(self.timers.set(at, timeout, Due::Timeout(key)));
        }
    }

    fn launched(&mut self, job: &Job, launched: Launched) {
        let key = job.key;
        let Launched {
            dir,
            made,
            masker,
            running,
        } = launched;
        let Running {
            child,
            stdout,
            stderr,
            group,
            started_at,
            ..
        } = running;
        let proc = Proc {
            child,
            stdout: Some(stdout),
            stderr: Some(stderr),
            group,
            exit: None,
        };
        self.started_at(key, started_at);
        let Some(attempt) = self.attempts.get_mut(&key) else {
            return;
        };
        attempt.dir = Some(dir);
        attempt.made = made;
        attempt.made.push("output");
        attempt.log.mask_with(Arc::clone(&masker));
        attempt.masker = masker;
        attempt.phase = Phase::Running(Box::new(proc));
        let early = std::mem::take(&mut attempt.early);
        if let Some(why) = attempt.stop {
            self.terminate(key, why);
        }
        for token in early {
            self.event(key, token);
        }
    }

    fn read_output(&mut self, key: u64, stream: Stream) {
        let Some(attempt) = self.attempts.get_mut(&key) else {
            return;
        };
        let Phase::Running(proc) = &mut attempt.phase else {
            return;
        };
        let pipe = if stream == Stream::Stdout {
            &mut proc.stdout
        } else {
            &mut proc.stderr
        };
        let log = &mut attempt.log;
        if read(pipe, &mut self.buffer, READS, |bytes| {
            log.feed(self.now, stream, bytes);
        }) {
            self.unread.push(token(key, stream));
        } else if proc.is_over() {
            self.settle(key);
        }
    }

    /// Since when the other processes run, in clock ticks since boot, where somebody needs to know.
    pub(crate) fn oldest_but(&self, key: u64) -> Option<u64> {
        if self.shared.cgroups.contains() {
            return None;
        }
        let attempts = self.attempts.iter().filter(|(other, _)| **other != key);
        let processes = attempts.filter_map(|(_, attempt)| match &attempt.phase {
            Phase::Running(proc) => Some(proc.child.born.0),
            // Word of its start may be waiting.
            Phase::Preparing => Some(attempt.job.admitted),
            Phase::Waiting | Phase::InHost(_) | Phase::Request | Phase::Collecting => None,
        });
        processes.chain(self.hosts.births(key)).min()
    }

    /// The main process is gone: so must be all it started.
    fn process_ended(&mut self, key: u64) {
        let oldest = self.oldest_but(key);
        let Some(attempt) = self.attempts.get_mut(&key) else {
            return;
        };
        let Phase::Running(proc) = &mut attempt.phase else {
            return;
        };
        if proc.exit.is_some() {
            return;
        }
        let mark = self.shared.mark(&attempt.job.task);
        ending::end_descendants(&self.shared, proc, &mark, oldest);
        match os::reap(proc.child.pid) {
            Ok(None) => return,
            Ok(Some(exit)) => proc.exit = Some(exit),
            Err(error) => {
                tracing::error!(%error, pid = proc.child.pid, "cannot wait for a child");
                proc.exit = Some(os::Exit {
                    status: 0xff00,
                    cpu_millis: 0,
                    memory_bytes: 0,
                });
            }
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            let pipe = if stream == Stream::Stdout {
                &mut proc.stdout
            } else {
                &mut proc.stderr
            };
            let log = &mut attempt.log;
            let _ = read(pipe, &mut self.buffer, usize::MAX, |bytes| {
                log.feed(self.now, stream, bytes);
            });
        }
        if proc.is_over() {
            self.settle(key);
        } else {
            attempt
                .timers
                .push(self.timers.set(self.now, DRAIN, Due::Drained(key)));
        }
    }

    fn drained(&mut self, key: u64) {
        if let Some(attempt) = self.attempts.get_mut(&key)
            && let Phase::Running(proc) = &mut attempt.phase
        {
            (proc.stdout, proc.stderr) = (None, None);
            self.settle(key);
        } else {
            self.host_drained(key);
        }
    }

    /// The process is over and read: what did it come to?
    fn settle(&mut self, key: u64) {
        let Some(attempt) = self.attempts.get_mut(&key) else {
            return;
        };
        let Phase::Running(proc) = std::mem::replace(&mut attempt.phase, Phase::Collecting) else {
            return;
        };
        attempt.log.finish(self.now);
        attempt.usage = Some(proc.usage());
        let words = last_words(attempt);
        let error = proc
            .exit
            .as_ref()
            .and_then(|exit| exit_error(exit, &proc.group, &attempt.job.task.work, &words));
        self.shared.cgroups.give_back(proc.group);
        if let (None, None) = (attempt.stop, &error) {
            self.collect(key);
        } else {
            let result = error.map_or(Ok(Value::Null), Err);
            self.end_with(key, result);
        }
    }

    fn collect(&mut self, key: u64) {
        let Some(attempt) = self.attempts.get_mut(&key) else {
            return;
        };
        let (Some(process), Some(dir)) = (attempt.job.process(), &attempt.dir) else {
            return;
        };
        let output = attempt.job.io_path(&self.shared, "output");
        let written = fs::symlink_metadata(&output).ok();
        if written.is_none() {
            attempt.made.retain(|kind| *kind != "output");
        }
        let left = Left {
            files: dir.files.clone(),
            output: written.is_some().then_some(output),
            lines: std::mem::take(&mut attempt.log.outputs),
            lines_over: attempt.log.outputs_over,
        };
        if output::is_long(process, written.as_ref()) || left.lines.len() > 100 {
            let (shared, job) = (Arc::clone(&self.shared), Arc::clone(&attempt.job));
            let masker = Arc::clone(&attempt.masker);
            self.shared.errands.run(move || {
                let result = match job.process() {
                    Some(process) => shared.keeping(job.key, &masker, |keeping| {
                        output::collect(process, &left, keeping)
                    }),
                    None => Ok(Value::Null),
                };
                shared.inbox.send(Message::Collected(job.key, result));
            });
        } else {
            let job = Arc::clone(&attempt.job);
            let (now, log) = (self.now, std::cell::RefCell::new(&mut attempt.log));
            let keeping = Keeping {
                blobs: &*self.shared.blobs,
                masker: &attempt.masker,
                note: &|text| log.borrow_mut().note(now, text),
            };
            let result = match job.process() {
                Some(process) => output::collect(process, &left, &keeping),
                None => Ok(Value::Null),
            };
            self.end_with(key, result);
        }
    }
}

/// The event of an output pipe.
pub(crate) fn token(key: u64, stream: Stream) -> u64 {
    key << 3
        | if stream == Stream::Stdout {
            Source::Stdout
        } else {
            Source::Stderr
        } as u64
}

/// Reads what is there, at most `reads` buffers; closes the pipe at its end. True if there may be more.
pub(crate) fn read(
    pipe: &mut Option<OwnedFd>,
    buffer: &mut [u8],
    reads: usize,
    mut each: impl FnMut(&[u8]),
) -> bool {
    for _ in 0..reads {
        let Some(open) = pipe else { return false };
        match rustix::io::read(open, &mut *buffer) {
            Ok(0) => *pipe = None,
            Ok(count) => each(&buffer[..count]),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return false,
            Err(_) => *pipe = None,
        }
    }
    pipe.is_some()
}

/// The last lines of standard error, for an error's message.
pub(crate) fn last_words(attempt: &Attempt) -> String {
    let lines: Vec<&str> = attempt.log.stderr_tail().collect();
    let text = lines.join("\n");
    let from = text.ceil_char_boundary(text.len().saturating_sub(LAST_WORDS_BYTES));
    text[from..].to_owned()
}

/// What a worker says of a task.
pub(crate) fn report(task: &Task, event: TaskEvent) -> Report {
    Report {
        run: task.run,
        place: task.place,
        offer: task.offer,
        worker: std::sync::Arc::default(),
        event,
    }
}

/// The end of a task that started nothing.
pub(crate) fn ended(task: &Task, at: Time, outcome: Outcome) -> Report {
    report(
        task,
        TaskEvent::Ended {
            started_at: at,
            ended_at: at,
            outcome,
            usage: None::<Usage>,
        },
    )
}

/// The outcome of a task that never fits.
pub(crate) fn too_big(task: &Task, total: crate::config::Capacity) -> Outcome {
    let needs = task
        .work
        .process()
        .map(|process| process.resources.clone())
        .unwrap_or_default();
    let mut lacks = Vec::new();
    if needs.cpu_millis > total.cpu_millis {
        lacks.push(format!(
            "{} cores, and this worker has {}",
            cores(needs.cpu_millis),
            cores(total.cpu_millis)
        ));
    }
    if needs.memory_bytes > total.memory_bytes {
        lacks.push(format!(
            "{} of memory, and this worker has {}",
            size(needs.memory_bytes),
            size(total.memory_bytes)
        ));
    }
    if needs.gpus > total.gpus {
        lacks.push(format!(
            "{} GPUs, and this worker has {}",
            needs.gpus, total.gpus
        ));
    }
    let lacks = lacks.join("; it asks for ");
    Outcome::Failed(failure::permanent(
        "resources",
        format!("it can never start here: it asks for {lacks}"),
    ))
}

/// Thousandths of a core as a number of cores: `2`, `0.5`.
fn cores(millis: u64) -> String {
    let whole = format!("{}.{:03}", millis / 1000, millis % 1000);
    whole.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Bytes in the unit that people write: `512 MiB`.
fn size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{bytes} bytes"),
        0x10_0000..0x1_0000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}
