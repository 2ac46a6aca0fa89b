//! Workers in other processes, and what the server knows of them: two sides that only talk over
//! connections which break.
//!
//! Neither side is the real one, which has threads and sockets; both keep what the real ones promise to
//! the lane. What is said of ends and of tasks is numbered, kept until it is acknowledged, and said again
//! on the next connection. A worker stops what it runs before its lease ends, and takes nothing without
//! one; the server says that what a session held is lost only after that. Of sessions that were there
//! before it a server that starts says so, until they have said what they hold or their leases have
//! passed. `world/far.rs` moves what both say.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kapell_api::task::{Place, Report, Task, TaskEvent, TaskResources};
use kapell_api::worker::{Holding, Queues};
use kapell_engine::run::room::Labels;
use kapell_model::{Offer, RunId, SessionId, Time, limits};
use kapell_node::lane::Seat;

use crate::scenario::FarWorker;

/// Between two renewals.
pub const PULSE: i64 = 5_000_000;

/// A connection on which nothing is heard for so long is of no use.
pub const PATIENCE: i64 = 12_000_000;

/// How long the last words of a worker that goes may take.
pub const LAST_WORDS: i64 = 10_000_000;

/// Names one handing-out.
pub type Name = (RunId, Place, Offer);

/// How long a lease lasts, in microseconds.
pub fn lease() -> i64 {
    i64::try_from(limits::SESSION_LEASE.as_micros()).unwrap_or(i64::MAX)
}

/// From when on after its renewal nothing may run under a lease any more.
pub fn lease_margin() -> i64 {
    lease() * 3 / 4
}

/// What a worker says.
#[derive(Clone, Debug)]
pub enum Up {
    /// Its first words on a connection.
    Hello {
        /// The session that it, or the process before it, was in.
        session: Option<SessionId>,
        /// It was this process.
        same_process: bool,
        /// What the process before was running.
        lost: Vec<Name>,
        /// What it has.
        holds: Vec<Holding>,
        /// The last batch that came.
        received: u64,
        /// It takes nothing more.
        draining: bool,
    },
    /// What it has to say.
    Say(Said),
    /// It ends the connection.
    HangUp,
}

/// See [`Up::Say`].
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// The last batch that came.
    pub received: u64,
    /// It asks for a renewal, at this time.
    pub beat: Option<i64>,
    /// Attempts that began.
    pub starts: Vec<Report>,
    /// Attempts that ended, numbered.
    pub ends: Vec<(u64, Report)>,
    /// It takes nothing more.
    pub draining: bool,
    /// These are its last words.
    pub leaving: bool,
}

/// What the server says.
#[derive(Clone, Debug)]
pub enum Down {
    /// The worker is in this session; true if it was before.
    Welcome(SessionId, bool),
    /// A batch of tasks, numbered.
    Tasks(u64, Vec<Holding>),
    /// Attempts to stop.
    Stops(Vec<Name>),
    /// Ends that need not be said again.
    Taken(Vec<u64>),
    /// The renewal that was asked for at this time is granted.
    Beat(i64),
    /// Go, and end what runs within so long.
    Drain(i64),
}

/// A task as its worker names it.
pub fn holding(task: &Task) -> Holding {
    let process = task.work.process();
    Holding {
        run: task.run,
        place: task.place,
        offer: task.offer,
        attempt: task.attempt,
        light: process.is_none(),
        needs: process
            .map(|process| process.resources.clone())
            .unwrap_or_default(),
    }
}

/// The name of what is held.
pub fn name(held: &Holding) -> Name {
    (held.run, held.place, held.offer)
}

/// An attempt whose worker is gone.
pub fn gone(name: Name, at: Time, explained: bool) -> Report {
    Report::lost(name, (at, at), ("its worker is gone", explained))
}

/// One session, as the server knows it.
#[derive(Debug, Default)]
pub struct Session {
    /// Place of its worker among all.
    pub worker: usize,
    /// When it is over unless it is heard of.
    pub deadline: i64,
    /// The connection.
    pub link: Option<u64>,
    /// What it has.
    pub held: BTreeMap<Name, Holding>,
    numbers: BTreeMap<Name, u64>,
    batch: u64,
    unreceived: VecDeque<(u64, Vec<Holding>)>,
    stops: Vec<Name>,
    /// It takes nothing more, and may take so long to end what runs.
    pub draining: Option<i64>,
    /// It was there before this process and has not said what it holds.
    pub unheard: bool,
}

impl Session {
    /// Of this worker, until then at least.
    pub fn new(worker: usize, deadline: i64) -> Self {
        Self {
            worker,
            deadline,
            ..Self::default()
        }
    }

    /// Hands out tasks; the batch as it is sent.
    pub fn offer(&mut self, tasks: &[Task]) -> Down {
        let tasks: Vec<Holding> = tasks.iter().map(holding).collect();
        self.held
            .extend(tasks.iter().map(|held| (name(held), held.clone())));
        self.batch += 1;
        self.unreceived.push_back((self.batch, tasks.clone()));
        Down::Tasks(self.batch, tasks)
    }

    /// The worker has everything up to this batch, also where a process before this one sent it.
    pub fn received(&mut self, batch: u64) {
        self.batch = self.batch.max(batch);
        self.unreceived.retain(|(number, _)| *number > batch);
    }

    /// Stops attempts; what is sent of that now.
    pub fn stop(&mut self, names: &[Name]) -> Option<Down> {
        let may_hold = |name: &&Name| self.unheard || self.held.contains_key(*name);
        let names: Vec<Name> = names.iter().filter(may_hold).copied().collect();
        if names.is_empty() {
            return None;
        }
        if self.link.is_some() {
            return Some(Down::Stops(names));
        }
        self.stops.extend(names);
        None
    }

    /// It connects again, with what it holds: what it holds and was not known to, what was handed out
    /// and is not there, and what is sent again.
    pub fn resume(&mut self, holds: &[Holding]) -> (Vec<Holding>, Vec<Name>, Vec<Down>) {
        let mut there: BTreeSet<Name> = holds.iter().map(name).collect();
        let on_the_way = self.unreceived.iter().flat_map(|(_, tasks)| tasks);
        there.extend(on_the_way.map(name));
        let held = self.held.keys();
        let missing: Vec<Name> = held
            .filter(|name| !there.contains(*name))
            .copied()
            .collect();
        let mut attached = Vec::new();
        for held in holds {
            if self.held.insert(name(held), held.clone()).is_none() {
                attached.push(held.clone());
            }
        }
        self.unheard = false;
        let mut again = Vec::new();
        let stops = std::mem::take(&mut self.stops);
        if !stops.is_empty() {
            again.push(Down::Stops(stops));
        }
        let batches = self.unreceived.iter().cloned();
        again.extend(batches.map(|(number, tasks)| Down::Tasks(number, tasks)));
        (attached, missing, again)
    }

    /// Ends that are said: those that the lane is to hear, and numbers of those that it has heard.
    pub fn reported(&mut self, said: Said) -> (Vec<Report>, Vec<u64>) {
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        let starts = said.starts.into_iter();
        known.extend(starts.filter(|report| self.held.contains_key(&of(report))));
        for (number, report) in said.ends {
            if self.held.contains_key(&of(&report)) {
                self.numbers.insert(of(&report), number);
                known.push(report);
            } else {
                unknown.push(number);
            }
        }
        (known, unknown)
    }

    /// What was said of an end is durable; the number of that report.
    pub fn taken(&mut self, name: &Name) -> Option<u64> {
        self.held.remove(name)?;
        self.numbers.remove(name)
    }

    /// What it has to give: nothing while it is away or drains.
    pub fn seat(&self, of: &FarWorker) -> Seat {
        let open = self.link.is_some() && self.draining.is_none();
        Seat {
            queues: of.queues(),
            process_window: if open {
                of.slots + of.slots.div_ceil(4)
            } else {
                0
            },
            light_window: if open { 64 } else { 0 },
            total: TaskResources::ALL,
            share: TaskResources::ALL,
            labels: Labels::default(),
            spot: false,
        }
    }
}

/// The name of what a report is about.
pub fn of(report: &Report) -> Name {
    (report.run, report.place, report.offer)
}

/// A worker, as its process knows itself.
#[derive(Debug, Default)]
pub struct Far {
    /// Counts its processes; nothing of one before is heard.
    pub process: u64,
    /// There is a process.
    pub is_up: bool,
    /// The session that it, or the process before it, was in.
    pub session: Option<SessionId>,
    /// It was this process.
    pub same_process: bool,
    /// What the process before was running.
    pub lost: Vec<Name>,
    /// The connection, and whether a welcome came on it.
    pub link: Option<u64>,
    /// See [`Far::link`].
    pub is_welcome: bool,
    /// When the server was last heard.
    pub heard_at: i64,
    /// When it said its first words on the connection: whatever they grant is granted later.
    asked_at: i64,
    /// When the last renewal that was granted was asked for; none: it has no lease.
    pub lease_from: Option<i64>,
    /// What is here.
    pub held: BTreeMap<Name, Holding>,
    /// Ends that are not acknowledged.
    pub ends: BTreeMap<u64, Report>,
    last_end: u64,
    said: u64,
    starts: Vec<Report>,
    /// The last batch that came.
    pub received: u64,
    /// It takes nothing more, and ends what runs by then.
    pub draining: Option<i64>,
}

impl Far {
    /// True if it may run something.
    pub fn may_run(&self, now: i64) -> bool {
        self.lease_from
            .is_some_and(|from| now < from.saturating_add(lease_margin()))
    }

    /// Its process has ended; what it ran is known to the next one.
    pub fn ends(&mut self, lost: Vec<Name>) {
        let before = std::mem::take(self);
        self.process = before.process + 1;
        self.session = before.session;
        self.lost = lost;
    }

    /// Its first words.
    pub fn hello(&mut self, link: u64, now: i64) -> Up {
        self.link = Some(link);
        self.is_welcome = false;
        (self.heard_at, self.asked_at) = (now, now);
        Up::Hello {
            session: self.session,
            same_process: self.same_process,
            lost: self.lost.clone(),
            holds: self.held.values().cloned().collect(),
            received: self.received,
            draining: self.draining.is_some(),
        }
    }

    /// Another session: what was of the one before nobody wants to hear.
    pub fn forget(&mut self) {
        self.held.clear();
        self.ends.clear();
        self.starts.clear();
        self.received = 0;
    }

    /// It is in this session from now on.
    pub fn enter(&mut self, session: SessionId) {
        self.session = Some(session);
        self.same_process = true;
        self.lost.clear();
        self.is_welcome = true;
        self.lease_from = Some(self.asked_at);
        self.said = 0;
    }

    /// What runs here reports. Of attempts that are not held nobody wants to hear.
    pub fn report(&mut self, report: Report) {
        if !self.held.contains_key(&of(&report)) {
            return;
        }
        if matches!(report.event, TaskEvent::Ended { .. }) {
            self.last_end += 1;
            self.ends.insert(self.last_end, report);
        } else {
            self.starts.push(report);
        }
    }

    /// The server has these ends.
    pub fn taken(&mut self, numbers: &[u64]) {
        for number in numbers {
            if let Some(report) = self.ends.remove(number) {
                self.held.remove(&of(&report));
            }
        }
    }

    /// What was not said on this connection.
    pub fn say(&mut self) -> Said {
        let ends: Vec<_> = self.ends.range(self.said + 1..).collect();
        let ends: Vec<_> = ends
            .into_iter()
            .map(|(number, report)| (*number, report.clone()))
            .collect();
        self.said = self.last_end;
        Said {
            received: self.received,
            starts: std::mem::take(&mut self.starts),
            ends,
            draining: self.draining.is_some(),
            ..Said::default()
        }
    }
}

impl FarWorker {
    /// Which queues it serves.
    pub fn queues(&self) -> Queues {
        if self.queues.is_empty() {
            return Queues::Others;
        }
        Queues::Named(
            self.queues
                .iter()
                .map(|queue| queue.as_str().into())
                .collect(),
        )
    }
}
