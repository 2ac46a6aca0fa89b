//! The event loop's side of hosts: which serves what, calls out, answers in.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use kapell_api::log::Stream;
use kapell_api::task::{Outcome, TaskError};
use kapell_expr::Value;
use kapell_model::Time;

use super::{HostKey, HostProcess, Ready, host_plan, prepare};
use crate::attempt::{Phase, Proc, exit_error};
use crate::executor::{self, Executor};
use crate::failure;
use crate::launch::{Job, Running};
use crate::os;
use crate::shared::{Message, Source, Start};
use crate::slots::Record;
use crate::timers::{Due, Timer};

/// How long a host may do nothing.
const IDLE: Duration = Duration::from_mins(1);
/// How much of a host's output is read at an answer before the next turn of others.
const READS: usize = 64;

/// All hosts and the tasks that wait for one.
#[derive(Default)]
pub(crate) struct Hosts {
    pub(super) hosts: HashMap<u64, Host>,
    groups: HashMap<Arc<HostKey>, Group>,
}

#[derive(Default)]
struct Group {
    hosts: Vec<u64>,
    waiting: VecDeque<(Arc<Job>, Box<Ready>)>,
}

pub(super) struct Host {
    pub(super) key: Arc<HostKey>,
    pub(super) slot: u32,
    pub(super) proc: Option<Proc>,
    pub(super) socket: Option<OwnedFd>,
    pub(super) incoming: Vec<u8>,
    pub(super) outgoing: Vec<u8>,
    pub(super) tasks: Vec<u64>,
    pub(super) codes: HashSet<String>,
    pub(super) variables: HashMap<&'static str, String>,
    pub(super) idle: Option<(Time, Timer)>,
    pub(super) dying: bool,
}

impl Hosts {
    /// True if this is a host.
    pub(crate) fn contains(&self, key: u64) -> bool {
        self.hosts.contains_key(&key)
    }

    /// Since when hosts other than this one run, in clock ticks since boot.
    pub(crate) fn births(&self, key: u64) -> impl Iterator<Item = u64> {
        let others = self.hosts.iter().filter(move |(other, _)| **other != key);
        others.filter_map(|(_, host)| host.proc.as_ref().map(|proc| proc.child.born.0))
    }

    /// True if there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }
}

impl Executor {
    /// Gets a task ready, here if that is quick.
    pub(crate) fn begin_python(&mut self, job: Arc<Job>) {
        let kapell_api::task::Work::Python {
            requirements,
            process,
            ..
        } = &job.task.work
        else {
            return;
        };
        if super::is_long(&self.shared, process, requirements) {
            let shared = Arc::clone(&self.shared);
            self.shared.errands.run(move || {
                let ready = prepare(&shared, &job).map(Box::new);
                shared.inbox.send(Message::Ready(job, ready));
            });
            return;
        }
        match prepare(&self.shared, &job) {
            Ok(ready) => self.ready(&job, Box::new(ready)),
            Err(error) => self.end_with(job.key, Err(error)),
        }
    }

    /// A task is ready: to a host with it, or into the line.
    pub(crate) fn ready(&mut self, job: &Arc<Job>, ready: Box<Ready>) {
        let Some(attempt) = self.attempts.get_mut(&job.key) else {
            return;
        };
        if attempt.stop.is_some() {
            self.shared.dirs.give_back(ready.dir);
            self.end_with(job.key, Ok(Value::Null));
            return;
        }
        attempt.phase = Phase::Waiting;
        let key = Arc::clone(&ready.key);
        self.hosts
            .groups
            .entry(Arc::clone(&key))
            .or_default()
            .waiting
            .push_back((Arc::clone(job), ready));
        self.pump(&key);
    }

    /// Gives waiting tasks of a key to its hosts, and starts hosts where there is room.
    pub(super) fn pump(&mut self, key: &Arc<HostKey>) {
        loop {
            let Some(group) = self.hosts.groups.get_mut(key) else {
                return;
            };
            while let Some((job, _)) = group.waiting.front()
                && !self
                    .attempts
                    .get(&job.key)
                    .is_some_and(|attempt| matches!(attempt.phase, Phase::Waiting))
            {
                // Cancelled meanwhile.
                if let Some((_, ready)) = group.waiting.pop_front() {
                    self.shared.dirs.give_back(ready.dir);
                }
            }
            if group.waiting.is_empty() {
                if group.hosts.is_empty() {
                    self.hosts.groups.remove(key);
                }
                return;
            }
            let hosts = &self.hosts.hosts;
            let most = key.concurrency as usize;
            let is_free = |host: &&u64| hosts.get(host).is_some_and(|host| host.has_room(most));
            if let Some(host) = group.hosts.iter().find(is_free).copied() {
                if let Some((job, ready)) = group.waiting.pop_front() {
                    self.call(host, &job, *ready);
                }
                continue;
            }
            let starting = group
                .hosts
                .iter()
                .filter(|host| hosts.get(host).is_some_and(|host| host.proc.is_none()))
                .count();
            if starting * most >= group.waiting.len() || !self.make_room() {
                return;
            }
            self.start_host(key);
        }
    }

    /// True if one more host may be started; stops the one idle for longest if need be.
    fn make_room(&mut self) -> bool {
        let alive = self.hosts.hosts.values().filter(|host| !host.dying).count();
        if alive < self.shared.most_hosts {
            return true;
        }
        let idle = self.hosts.hosts.iter().filter(|(_, host)| !host.dying);
        let oldest = idle
            .filter_map(|(key, host)| host.idle.map(|(since, _)| (since, *key)))
            .min();
        oldest.inspect(|(_, host)| self.kill_host(*host)).is_some()
    }

    fn start_host(&mut self, key: &Arc<HostKey>) {
        let Some((job, ready)) = self
            .hosts
            .groups
            .get(key)
            .and_then(|group| group.waiting.front())
        else {
            return;
        };
        let number = self
            .shared
            .next_key
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        match host_plan(&self.shared, ready, number) {
            Ok(plan) => {
                let slot = self.shared.slots.take();
                self.hosts
                    .hosts
                    .insert(number, Host::new(Arc::clone(key), slot));
                if let Some(group) = self.hosts.groups.get_mut(key) {
                    group.hosts.push(number);
                }
                self.shared.starts.push(Start::Host(number, Box::new(plan)));
            }
            Err(error) => {
                let failed = job.key;
                self.end_with(failed, Err(error));
            }
        }
    }

    /// A host runs, or could not be started.
    pub(crate) fn host_started(
        &mut self,
        number: u64,
        result: Result<Box<HostProcess>, Box<TaskError>>,
    ) {
        let Some(host) = self.hosts.hosts.get_mut(&number) else {
            return;
        };
        let key = Arc::clone(&host.key);
        match result {
            Ok(process) => {
                let HostProcess {
                    running:
                        Running {
                            child,
                            stdout,
                            stderr,
                            group,
                            ..
                        },
                    socket,
                } = *process;
                self.shared.slots.set(
                    host.slot,
                    &Record {
                        attempt: None,
                        pid: child.pid,
                        session: child.session,
                        born: child.born,
                    },
                );
                let proc = Proc {
                    child,
                    stdout: Some(stdout),
                    stderr: Some(stderr),
                    group,
                    exit: None,
                };
                host.proc = Some(proc);
                host.socket = Some(socket);
                self.watch_host(number);
                self.set_idle(number);
            }
            Err(error) => {
                self.forget_host(number);
                let first = self
                    .hosts
                    .groups
                    .get(&key)
                    .and_then(|group| group.waiting.front());
                if let Some(failed) = first.map(|(job, _)| job.key) {
                    self.end_with(failed, Err(error));
                }
            }
        }
        self.pump(&key);
    }

    fn watch_host(&self, number: u64) {
        let Some(host) = self.hosts.hosts.get(&number) else {
            return;
        };
        let Some(proc) = &host.proc else { return };
        proc.stdout
            .iter()
            .for_each(|pipe| self.watch(pipe, number, Source::Stdout));
        proc.stderr
            .iter()
            .for_each(|pipe| self.watch(pipe, number, Source::Stderr));
        self.watch(&proc.child.pidfd, number, Source::Process);
        host.socket
            .iter()
            .for_each(|socket| self.watch(socket, number, Source::Frames));
    }

    /// A host printed something.
    pub(crate) fn read_host_output(&mut self, number: u64, stream: Stream) {
        let Some(host) = self.hosts.hosts.get_mut(&number) else {
            return;
        };
        let task = host.tasks.first().copied();
        let Some(proc) = &mut host.proc else { return };
        let pipe = if stream == Stream::Stdout {
            &mut proc.stdout
        } else {
            &mut proc.stderr
        };
        let mut log = task
            .and_then(|task| self.attempts.get_mut(&task))
            .map(|attempt| &mut attempt.log);
        let more = executor::read(pipe, &mut self.buffer, READS, |bytes| {
            if let Some(log) = &mut log {
                log.feed(self.now, stream, bytes);
            }
        });
        if more {
            self.unread.push(executor::token(number, stream));
        } else if proc.is_over() {
            self.host_gone(number);
        }
    }

    /// A host's process is gone.
    pub(crate) fn host_ended(&mut self, number: u64) {
        // Its last answers first: they were given.
        self.read_frames(number);
        let oldest = self.oldest_but(number);
        let Some(host) = self.hosts.hosts.get_mut(&number) else {
            return;
        };
        let Some(proc) = &mut host.proc else { return };
        if proc.exit.is_some() {
            return;
        }
        host.dying = true;
        let mark = self.shared.host_mark(number);
        crate::ending::end_descendants(&self.shared, proc, &mark, oldest);
        match os::reap(proc.child.pid) {
            Ok(None) => return,
            Ok(Some(exit)) => proc.exit = Some(exit),
            Err(_) => {
                proc.exit = Some(os::Exit {
                    status: 0xff00,
                    cpu_millis: 0,
                    memory_bytes: 0,
                });
            }
        }
        self.drain_host(number);
        if self.hosts.contains(number) {
            self.timers
                .set(self.now, executor::DRAIN, Due::Drained(number));
        }
    }

    /// Nothing more comes from a host that is gone.
    pub(crate) fn host_drained(&mut self, number: u64) {
        if self.hosts.contains(number) {
            self.host_gone(number);
        }
    }

    fn host_gone(&mut self, number: u64) {
        let Some(host) = self.forget_host(number) else {
            return;
        };
        let Some(proc) = host.proc else { return };
        let usage = proc.usage();
        let alone = host.tasks.len() == 1;
        for task in host.tasks {
            let Some(attempt) = self.attempts.get_mut(&task) else {
                continue;
            };
            attempt.usage = Some(usage);
            attempt.log.finish(self.now);
            if !alone && attempt.stop.is_none() {
                let reason = "the Python process it shared with other tasks ended".to_owned();
                // Any of them may have done it: each is tried again alone, where it shows.
                let explained = false;
                self.end(task, Outcome::Lost { reason, explained });
                continue;
            }
            let words = executor::last_words(attempt);
            let ended = || {
                failure::user(
                    "exit_code",
                    "the Python process ended before the function returned",
                )
            };
            let work = &attempt.job.task.work;
            let error = proc
                .exit
                .as_ref()
                .and_then(|exit| exit_error(exit, &proc.group, work, &words))
                .unwrap_or_else(ended);
            self.end_with(task, Err(error));
        }
        self.shared.cgroups.give_back(proc.group);
        self.pump(&host.key);
        self.pump_others(&host.key);
    }

    /// There is room for a host: others than those of `key` may have waited for it.
    pub(super) fn pump_others(&mut self, key: &Arc<HostKey>) {
        if self.hosts.groups.len() < 2 {
            return;
        }
        let waiting = self
            .hosts
            .groups
            .iter()
            .filter(|(other, group)| *other != key && !group.waiting.is_empty());
        let keys: Vec<_> = waiting.map(|(other, _)| Arc::clone(other)).collect();
        for other in &keys {
            self.pump(other);
        }
    }

    fn forget_host(&mut self, number: u64) -> Option<Host> {
        let mut host = self.hosts.hosts.remove(&number)?;
        if let Some((_, timer)) = host.idle.take() {
            self.timers.clear(timer);
        }
        self.shared.slots.give_back(host.slot);
        if let Some(group) = self.hosts.groups.get_mut(&host.key) {
            group.hosts.retain(|other| *other != number);
        }
        Some(host)
    }

    pub(super) fn set_idle(&mut self, number: u64) {
        if let Some(host) = self.hosts.hosts.get_mut(&number)
            && host.idle.is_none()
        {
            host.idle = Some((self.now, self.timers.set(self.now, IDLE, Due::Idle(number))));
        }
        if self.stopping {
            self.kill_host(number);
        }
    }

    /// A host did nothing for long.
    pub(crate) fn host_idle(&mut self, number: u64) {
        self.kill_host(number);
    }

    /// Asks a host to end.
    pub(crate) fn terminate_host(&mut self, number: u64) {
        if let Some(host) = self.hosts.hosts.get_mut(&number)
            && let Some(proc) = &host.proc
        {
            host.dying = true;
            os::signal_group(proc.child.pid, libc::SIGTERM);
        }
    }

    /// Ends a host.
    pub(crate) fn kill_host(&mut self, number: u64) {
        if let Some(host) = self.hosts.hosts.get_mut(&number)
            && let Some(proc) = &mut host.proc
        {
            host.dying = true;
            os::signal_group(proc.child.pid, libc::SIGKILL);
            proc.group.kill();
        }
    }

    /// Ends hosts that run nothing.
    pub(crate) fn stop_idle_hosts(&mut self) {
        let idle = self
            .hosts
            .hosts
            .iter()
            .filter(|(_, host)| host.tasks.is_empty());
        let idle: Vec<u64> = idle.map(|(key, _)| *key).collect();
        for host in idle {
            self.kill_host(host);
        }
    }
}

impl Host {
    fn new(key: Arc<HostKey>, slot: u32) -> Self {
        Self {
            key,
            slot,
            proc: None,
            socket: None,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            tasks: Vec::new(),
            codes: HashSet::new(),
            variables: HashMap::new(),
            idle: None,
            dying: false,
        }
    }

    fn has_room(&self, most: usize) -> bool {
        self.socket.is_some() && !self.dying && self.tasks.len() < most
    }

    /// Writes what the socket takes; the rest when it says that it takes more.
    pub(super) fn write(&mut self) {
        while !self.outgoing.is_empty()
            && let Some(socket) = &self.socket
        {
            match rustix::net::send(socket, &self.outgoing, rustix::net::SendFlags::NOSIGNAL) {
                Ok(sent) if sent == self.outgoing.len() => self.outgoing.clear(),
                Ok(sent) => drop(self.outgoing.drain(..sent)),
                Err(rustix::io::Errno::INTR) => {}
                // Full: told when not. Closed: told by the process.
                Err(_) => return,
            }
        }
    }
}
