//! One worker's session, as the server knows it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashMapExt};
use kapell_api::task::{Place, Report, SecretText, Task, TaskEvent, TaskResources, TextPart, Work};
use kapell_api::worker::{Holding, Queues};
use kapell_model::{NodeId, Offer, RunId, SessionId, Time, limits};
use kapell_node::lane::Seat;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::logs::LogFiles;
use super::usage::{Taken, Usage};

/// Names one handing-out.
pub(crate) type Name = (RunId, Place, Offer);

/// Attempts that start nothing, in flight at one worker.
const LIGHT_WINDOW: usize = 16_384;

/// What a worker says of itself. Kept in the store under [`super::stored`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct About {
    /// What its owner calls it.
    pub name: String,
    /// Its Kapell.
    pub version: String,
    /// What its owner says of it.
    pub labels: std::collections::BTreeMap<String, String>,
    /// What it serves.
    pub queues: Queues,
    /// What it has to give.
    pub capacity: TaskResources,
    /// Attempts at a time.
    pub slots: u32,
    /// Verbs that it can do.
    pub runtimes: Vec<String>,
    /// Since when.
    pub opened_at: Time,
    /// It is in the server's process, and cannot be lost while that lives.
    #[serde(default)]
    pub inside: bool,
    /// The node that it is connected to; 0 for one that is alone.
    #[serde(default)]
    pub home: NodeId,
    /// The number of the hello that it was for.
    #[serde(default)]
    pub hello: u64,
    /// It can be taken away at any time.
    #[serde(default)]
    pub spot: bool,
    /// The pool that it is one of.
    #[serde(default)]
    pub pool: Option<String>,
}

/// An attempt that the worker has.
#[derive(Clone, Debug)]
pub(crate) struct HeldTask {
    pub(crate) path: Arc<str>,
    pub(crate) namespace: Arc<str>,
    pub(crate) workflow: Arc<str>,
    pub(crate) queue: Arc<str>,
    pub(crate) attempt: u32,
    pub(crate) light: bool,
    /// What it takes of the worker.
    pub(crate) needs: TaskResources,
    pub(crate) granted_at: Time,
    /// The number of the report of its end, which waits for its commit; 0: there is none.
    pub(crate) report: u64,
    /// Secrets that it names. None if it was handed out before this process began.
    pub(crate) secrets: Option<Vec<Arc<str>>>,
}

impl HeldTask {
    /// Of a task that is handed out now.
    pub(crate) fn of(task: &Task, now: Time) -> Self {
        let nothing = Arc::<str>::default;
        let process = task.work.process();
        Self {
            path: process.map_or_else(nothing, |process| process.path.clone()),
            namespace: process.map_or_else(nothing, |process| process.namespace.clone()),
            workflow: process.map_or_else(nothing, |process| process.workflow.clone()),
            queue: task.queue.clone(),
            attempt: task.attempt,
            light: process.is_none(),
            needs: process.map_or_else(TaskResources::default, |process| process.resources.clone()),
            granted_at: now,
            report: 0,
            secrets: Some(secrets_of(&task.work)),
        }
    }
}

/// The names of the secrets that a task is given.
fn secrets_of(work: &Work) -> Vec<Arc<str>> {
    let Some(process) = work.process() else {
        return Vec::new();
    };
    let mut texts: Vec<&SecretText> = process.env.iter().flat_map(|(_, text)| text).collect();
    texts.extend(process.with.secrets.iter().map(|(_, text)| text));
    if let Work::Http { request, .. } = work {
        use kapell_api::task::HttpCredentials::{Basic, Bearer};
        texts.extend(request.headers.iter().map(|(_, text)| text));
        match &request.auth {
            None => {}
            Some(Bearer(token)) => texts.push(token),
            Some(Basic { user, password }) => texts.extend([user, password]),
        }
    }
    let parts = texts.into_iter().flat_map(|text| &text.0);
    let names = parts.filter_map(|part| match part {
        TextPart::Secret(name) => Some(name.clone()),
        TextPart::Text(_) => None,
    });
    names.collect()
}

/// What goes to a worker.
#[derive(Debug)]
pub(crate) enum ToWorker {
    /// A batch of tasks, with its number.
    Tasks(u64, Arc<Vec<Task>>),
    /// Attempts to stop.
    Stops(Vec<Name>),
    /// Reports that need not be said again.
    Taken(Vec<u64>),
    /// Log lines that need not be said again.
    LogsTaken(u64),
    /// The lease is renewed.
    Beat(u64),
    /// It is to go.
    Drain(Duration),
}

/// A connection of a worker. Dropping it ends the connection.
#[derive(Debug)]
pub(crate) struct Link {
    to: mpsc::Sender<ToWorker>,
    _open: oneshot::Sender<()>,
}

/// The other end of a [`Link`].
#[derive(Debug)]
pub(crate) struct LinkEnd {
    /// What goes to the worker.
    pub(crate) messages: mpsc::Receiver<ToWorker>,
    /// Ends when the server ends the connection.
    pub(crate) closed: oneshot::Receiver<()>,
}

impl Link {
    fn new() -> (Self, LinkEnd) {
        let (to, messages) = mpsc::channel(limits::SESSION_OUTBOX);
        let (open, closed) = oneshot::channel();
        (Self { to, _open: open }, LinkEnd { messages, closed })
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) about: About,
    /// When it is over unless it is heard of; none: never.
    pub(crate) deadline: Option<Instant>,
    link: Option<Link>,
    /// Counts connections, so that an old one says nothing for a new one.
    pub(crate) links: u64,
    /// The number of the last hello that was heard.
    hello: u64,
    pub(crate) held: HashMap<Name, HeldTask>,
    batch: u64,
    /// Batches that the worker has not confirmed.
    unreceived: VecDeque<(u64, Arc<Vec<Task>>)>,
    /// Attempts to stop that were named while the worker was away.
    stops: Vec<Name>,
    /// It takes nothing more, and this long may be taken to end what runs.
    pub(crate) draining: Option<Duration>,
    /// It was there before this process, and has not said what it holds.
    pub(crate) unheard: bool,
    /// Taken out while lines are written.
    pub(crate) logs: Option<LogFiles>,
    pub(crate) logs_taken: u64,
    /// Places for contents on their way.
    pub(crate) contents: Arc<Semaphore>,
    /// What of it was used.
    pub(crate) usage: Usage,
}

impl Session {
    /// Without a connection.
    pub(crate) fn new(about: About, deadline: Option<Instant>, unheard: bool) -> Self {
        Self {
            about,
            deadline,
            link: None,
            links: 0,
            hello: 0,
            held: HashMap::new(),
            batch: 0,
            unreceived: VecDeque::new(),
            stops: Vec::new(),
            draining: None,
            unheard,
            logs: Some(LogFiles::default()),
            logs_taken: 0,
            contents: Arc::new(Semaphore::new(limits::SESSION_CONTENTS)),
            usage: Usage::default(),
        }
    }

    /// It was in this session at another node, and has batches up to this number: the next one follows it.
    pub(crate) fn follows(&mut self, received: u64) {
        self.batch = received;
    }

    /// Hears a hello with this number; false for one that was said before another that was heard.
    /// Workers that do not count say 0.
    pub(crate) fn is_next(&mut self, hello: u64) -> bool {
        let next = hello == 0 || hello > self.hello;
        if next {
            self.hello = self.hello.max(hello);
        }
        next
    }

    /// Connects, in place of a connection before.
    pub(crate) fn connect(&mut self) -> LinkEnd {
        let (link, end) = Link::new();
        self.link = Some(link);
        self.links += 1;
        end
    }

    /// Ends the connection.
    pub(crate) fn disconnect(&mut self) {
        self.link = None;
    }

    /// True if the worker is there.
    pub(crate) fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// Sends; without a connection, or if the worker does not read, it is not sent and the connection
    /// ends. False if the connection ended now.
    pub(crate) fn send(&mut self, message: ToWorker) -> bool {
        let Some(link) = &self.link else { return true };
        if link.to.try_send(message).is_err() {
            self.link = None;
            return false;
        }
        true
    }

    /// Hands out tasks. False if the connection ended now.
    pub(crate) fn offer(&mut self, tasks: Vec<Task>, now: Time) -> bool {
        for task in &tasks {
            let name = (task.run, task.place, task.offer);
            self.held.insert(name, HeldTask::of(task, now));
        }
        self.batch += 1;
        let tasks = Arc::new(tasks);
        self.unreceived.push_back((self.batch, Arc::clone(&tasks)));
        self.send(ToWorker::Tasks(self.batch, tasks))
    }

    /// The worker has everything up to this batch.
    pub(crate) fn received(&mut self, batch: u64) {
        while self
            .unreceived
            .front()
            .is_some_and(|(number, _)| *number <= batch)
        {
            self.unreceived.pop_front();
        }
    }

    /// True if the worker has the attempt, or has not said what it has.
    pub(crate) fn may_hold(&self, name: &Name) -> bool {
        self.unheard || self.held.contains_key(name)
    }

    /// Stops attempts, at the latest once the worker is here. False if the connection ended now.
    pub(crate) fn stop(&mut self, names: Vec<Name>) -> bool {
        if self.link.is_some() {
            return self.send(ToWorker::Stops(names));
        }
        let room = limits::SESSION_HELD.saturating_sub(self.stops.len());
        self.stops.extend(names.into_iter().take(room));
        true
    }

    /// Sends again what did not arrive, and what was said while the worker was away.
    pub(crate) fn say_again(&mut self) {
        let stops = std::mem::take(&mut self.stops);
        let stops: Vec<Name> = stops
            .into_iter()
            .filter(|name| self.held.contains_key(name))
            .collect();
        if !stops.is_empty() {
            self.send(ToWorker::Stops(stops));
        }
        let batches: Vec<_> = self.unreceived.iter().cloned().collect();
        for (number, tasks) in batches {
            self.send(ToWorker::Tasks(number, tasks));
        }
    }

    /// What was handed out and neither arrived nor is on its way.
    pub(crate) fn missing(&self, holds: &[Holding]) -> Vec<Name> {
        let mut there: std::collections::HashSet<Name> = holds
            .iter()
            .map(|held| (held.run, held.place, held.offer))
            .collect();
        let on_the_way = self.unreceived.iter().flat_map(|(_, tasks)| &**tasks);
        there.extend(on_the_way.map(|task| (task.run, task.place, task.offer)));
        let held = self.held.keys();
        held.filter(|name| !there.contains(*name))
            .copied()
            .collect()
    }

    /// The worker gave its report of this end a number; false if nobody waits for it.
    pub(crate) fn reported(&mut self, name: Name, number: u64) -> bool {
        let held = self.held.get_mut(&name);
        held.map(|held| held.report = number).is_some()
    }

    /// What was said of this end is durable; the number of that report.
    pub(crate) fn taken(&mut self, name: &Name) -> Option<u64> {
        let held = self.held.remove(name)?;
        if let Some(logs) = &mut self.logs {
            logs.close(name.0, &held.path, held.attempt);
        }
        (held.report > 0).then_some(held.report)
    }

    /// An attempt ended: what it asked for beside what it used, where both are known.
    pub(crate) fn measured(&mut self, report: &Report, now: Duration) {
        let TaskEvent::Ended {
            started_at,
            ended_at,
            usage: Some(usage),
            ..
        } = &report.event
        else {
            return;
        };
        let name = (report.run, report.place, report.offer);
        let Some(held) = self.held.get(&name) else {
            return;
        };
        let millis = ended_at.since(*started_at).as_millis();
        let millis = u64::try_from(millis).unwrap_or(0);
        let asked = held.needs.cpu_millis.saturating_mul(millis) / 1_000;
        if asked > 0 {
            self.usage.ended(now, asked, usage.cpu_millis);
        }
    }

    /// What of it is taken now. What it was given beyond its slots waits at it, and takes nothing yet.
    pub(crate) fn taken_now(&self) -> Taken {
        let running = self.held.values();
        let running = running.filter(|held| !held.light && held.report == 0);
        let mut taken = Taken::default();
        for held in running {
            taken.slots += 1;
            taken.resources = std::mem::take(&mut taken.resources).more(&held.needs);
        }
        taken.slots = taken.slots.min(self.about.slots);
        taken
    }

    /// What it has to give: nothing while it is away or drains.
    pub(crate) fn seat(&self) -> Seat {
        let open = self.link.is_some() && self.draining.is_none();
        let slots = usize::try_from(self.about.slots).unwrap_or(usize::MAX);
        let labels = self.about.labels.iter();
        let labels = labels.map(|(name, value)| (name.as_str().into(), value.as_str().into()));
        Seat {
            queues: self.about.queues.clone(),
            // A few more than run, so that the next one is there when a slot is free.
            process_window: if open { slots + slots.div_ceil(4) } else { 0 },
            light_window: if open { LIGHT_WINDOW } else { 0 },
            total: self.about.capacity.clone(),
            share: self.about.capacity.clone(),
            labels: Arc::new(labels.collect()),
            spot: self.about.spot,
        }
    }
}

/// A session's name and its worker's, for people.
pub(crate) fn named(session: SessionId, about: &About) -> String {
    format!("worker `{}` (session {session})", about.name)
}
