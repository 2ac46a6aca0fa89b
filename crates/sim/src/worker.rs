//! The simulated workers: they take attempts, run them for a random time, report.
//!
//! One is in the process of the owner ([`HERE`]), others are far. They behave as the real ones promise to: a result is reported until it is taken, a stopped attempt
//! ends within its grace (unless it is deaf), what died is reported as lost before anything else.

use std::collections::{BTreeMap, VecDeque};

use kapell_api::task::{Blobs, Outcome, Place, Report, Task, TaskError, TaskEvent, Work};
use kapell_expr::Value;
use kapell_model::{FailureKind, Offer, RunId, SessionId, Time, limits};

use crate::blobs::MemoryBlobs;
use crate::rng::Rng;
use crate::scenario::Knobs;

/// The worker in the owner's process; others count from 1.
pub const HERE: usize = 0;

/// The session of that worker, in each process anew.
pub const NEAR: SessionId = SessionId(0);

/// An attempt at a worker, or on its way there.
#[derive(Debug)]
pub struct Attempt {
    /// Whose.
    pub host: usize,
    /// Its run.
    pub run: RunId,
    /// Its place.
    pub place: Place,
    /// The grant.
    pub offer: Offer,
    /// Locks that the unit held when it was offered.
    pub locks: Vec<std::sync::Arc<str>>,
    /// When the worker was told to stop it, in true time.
    pub stopped_at: Option<i64>,
    arrived: bool,
    started_at: Option<Time>,
    light: bool,
    fails: Option<u64>,
    message: Option<String>,
    timeout: Option<i64>,
    ends: Ends,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ends {
    ByItself,
    TimedOut,
    Stopped,
}

/// What a timer of the worker does to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// It has run for a second.
    Record,
    /// It is over.
    End(u32),
}

/// What the worker wants to happen, after so many microseconds.
#[derive(Debug)]
pub enum Act {
    /// An alarm.
    Alarm(i64, u64, Alarm),
    /// A report of this worker goes to the node.
    Report(i64, usize, Report),
}

/// What one worker does.
#[derive(Debug, Default)]
struct Host {
    /// Attempts at a time; none are the world's.
    slots: Option<usize>,
    queue: VecDeque<u64>,
    running: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Worker {
    attempts: BTreeMap<u64, Attempt>,
    by_offer: BTreeMap<(RunId, Place, Offer), u64>,
    turns: BTreeMap<u64, u32>,
    hosts: BTreeMap<usize, Host>,
    next: u64,
    /// Outputs that attempts gave, by unit.
    pub outputs: BTreeMap<(RunId, Place), Vec<Value>>,
}

/// The surroundings of the worker for one call.
pub struct Around<'a> {
    /// Chance.
    pub rng: &'a mut Rng,
    /// How the world is.
    pub knobs: &'a Knobs,
    /// Contents.
    pub blobs: &'a MemoryBlobs,
    /// What the clock on the wall says.
    pub wall: Time,
    /// True time.
    pub now: i64,
}

impl Worker {
    /// Attempts that are here and may still do something.
    pub fn live(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.values()
    }

    /// Those of one run.
    pub fn of_run(&self, run: RunId) -> impl Iterator<Item = &Attempt> {
        let first = (run, Place::default(), Offer::default());
        self.by_offer
            .range(first..)
            .take_while(move |((other, _, _), _)| *other == run)
            .filter_map(|(_, id)| self.attempts.get(id))
    }

    /// Those of one unit.
    pub fn of_unit(&self, run: RunId, place: Place) -> impl Iterator<Item = &Attempt> {
        let first = (run, place, Offer::default());
        self.by_offer
            .range(first..)
            .take_while(move |((other, at, _), _)| *other == run && *at == place)
            .filter_map(|(_, id)| self.attempts.get(id))
    }

    /// True if nothing is here.
    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty()
    }

    /// How many attempts a worker runs at a time.
    pub fn hire(&mut self, host: usize, slots: usize) {
        self.hosts.entry(host).or_default().slots = Some(slots);
    }

    /// The worker that has an attempt, or is to have it.
    pub fn host_of(&self, name: &(RunId, Place, Offer)) -> Option<usize> {
        let id = self.by_offer.get(name)?;
        self.attempts.get(id).map(|attempt| attempt.host)
    }

    /// An attempt never arrives.
    pub fn forget(&mut self, name: &(RunId, Place, Offer)) {
        if let Some(id) = self.by_offer.get(name).copied() {
            self.remove(id);
        }
    }

    /// What is on its way to workers far away never arrives.
    pub fn forget_sent(&mut self) {
        let far = |attempt: &Attempt| attempt.host != HERE && !attempt.arrived;
        for (_, attempt) in self.attempts.extract_if(.., |_, attempt| far(attempt)) {
            self.by_offer
                .remove(&(attempt.run, attempt.place, attempt.offer));
        }
    }

    /// Notes an attempt that is on its way to a worker.
    pub fn expect(&mut self, task: &Task, locks: Vec<std::sync::Arc<str>>, host: usize) {
        let process = task.work.process();
        let text = match &task.work {
            Work::Shell { script, .. } => Some(script.to_string()),
            Work::Exec { argv, .. } => Some(argv.join(" ")),
            Work::Python {
                source: kapell_model::spec::PythonSource::Code(code),
                ..
            } => Some(code.to_string()),
            _ => None,
        };
        let fails = text.and_then(|text| {
            text.split("fails=")
                .nth(1)
                .and_then(|number| number.trim().parse().ok())
        });
        let attempt = Attempt {
            host,
            run: task.run,
            place: task.place,
            offer: task.offer,
            locks,
            stopped_at: None,
            arrived: false,
            started_at: None,
            light: process.is_none(),
            fails,
            message: match &task.work {
                Work::Fail { message } => Some(message.clone()),
                _ => None,
            },
            timeout: process
                .and_then(|process| process.timeout)
                .map(|span| i64::try_from(span.as_micros()).unwrap_or(i64::MAX)),
            ends: Ends::ByItself,
        };
        self.next += 1;
        self.by_offer
            .insert((task.run, task.place, task.offer), self.next);
        self.attempts.insert(self.next, attempt);
    }

    /// The attempts have come.
    pub fn take(&mut self, tasks: &[(RunId, Place, Offer)], around: &mut Around<'_>) -> Vec<Act> {
        let mut acts = Vec::new();
        for task in tasks {
            let Some(id) = self.by_offer.get(task).copied() else {
                continue;
            };
            let Some(attempt) = self.attempts.get_mut(&id) else {
                continue;
            };
            attempt.arrived = true;
            let host = attempt.host;
            if attempt.light {
                self.start(id, around, &mut acts);
            } else {
                self.hosts.entry(host).or_default().queue.push_back(id);
            }
            self.fill(host, around, &mut acts);
        }
        acts
    }

    fn fill(&mut self, host: usize, around: &mut Around<'_>, acts: &mut Vec<Act>) {
        while let Some(of) = self.hosts.get_mut(&host)
            && of.running < of.slots.unwrap_or(around.knobs.slots)
            && let Some(id) = of.queue.pop_front()
        {
            of.running += 1;
            self.start(id, around, acts);
        }
    }

    fn start(&mut self, id: u64, around: &mut Around<'_>, acts: &mut Vec<Act>) {
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        attempt.started_at = Some(around.wall);
        let mut span = if attempt.light {
            around.rng.between(0, 500)
        } else {
            around.rng.magnitude(1_000, around.knobs.attempt)
        };
        if let Some(timeout) = attempt.timeout
            && span >= timeout
        {
            span = timeout + around.rng.between(0, 100_000);
            attempt.ends = Ends::TimedOut;
        }
        let record = i64::try_from(limits::RECORD_START_AFTER.as_micros()).unwrap_or(i64::MAX);
        if span > record {
            acts.push(Act::Alarm(record, id, Alarm::Record));
        }
        self.turns.insert(id, 0);
        acts.push(Act::Alarm(span, id, Alarm::End(0)));
    }

    /// Attempts are to be stopped.
    pub fn stop(&mut self, stops: &[(RunId, Place, Offer)], around: &mut Around<'_>) -> Vec<Act> {
        let mut acts = Vec::new();
        for stop in stops {
            let Some(id) = self.by_offer.get(stop).copied() else {
                continue;
            };
            let Some(attempt) = self.attempts.get_mut(&id) else {
                continue;
            };
            attempt.stopped_at = attempt.stopped_at.or(Some(around.now));
            let host = attempt.host;
            let queue = &mut self.hosts.entry(host).or_default().queue;
            let waits = queue.iter().position(|other| *other == id);
            if let Some(place) = waits {
                queue.remove(place);
                attempt.ends = Ends::Stopped;
                let report = Report {
                    run: attempt.run,
                    place: attempt.place,
                    offer: attempt.offer,
                    worker: std::sync::Arc::default(),
                    event: ended(around.wall, around.wall, Outcome::Cancelled),
                };
                acts.push(Act::Report(0, host, report));
                self.remove(id);
            } else if attempt.started_at.is_some() && !around.rng.chance(around.knobs.deaf) {
                // Whichever comes first: its own end, or that by the stop.
                if around.rng.chance(800) {
                    attempt.ends = Ends::Stopped;
                    let turn = self.turns.entry(id).or_default();
                    *turn += 1;
                    let grace = i64::try_from(limits::GRACE.as_micros()).unwrap_or(0);
                    acts.push(Act::Alarm(
                        around.rng.magnitude(100, grace),
                        id,
                        Alarm::End(*turn),
                    ));
                }
            }
        }
        acts
    }

    /// An alarm rings.
    pub fn ring(&mut self, id: u64, alarm: Alarm, around: &mut Around<'_>) -> Vec<Act> {
        let mut acts = Vec::new();
        let Some(attempt) = self.attempts.get(&id) else {
            return acts;
        };
        let host = attempt.host;
        let started_at = attempt.started_at.unwrap_or(around.wall);
        let report = |event| Report {
            run: attempt.run,
            place: attempt.place,
            offer: attempt.offer,
            worker: std::sync::Arc::default(),
            event,
        };
        match alarm {
            Alarm::Record => acts.push(Act::Report(
                0,
                host,
                report(TaskEvent::Started { at: started_at }),
            )),
            Alarm::End(turn) => {
                if self.turns.get(&id) != Some(&turn) {
                    return acts;
                }
                let outcome = outcome(attempt, around);
                if let Outcome::Succeeded(value) = &outcome {
                    self.outputs
                        .entry((attempt.run, attempt.place))
                        .or_default()
                        .push(value.clone());
                }
                let report = report(ended(started_at, around.wall, outcome));
                if around.rng.chance(around.knobs.repeats) {
                    acts.push(Act::Report(
                        around.rng.magnitude(1, 60_000_000),
                        host,
                        report.clone(),
                    ));
                }
                acts.push(Act::Report(0, host, report));
                if !attempt.light {
                    self.hosts.entry(host).or_default().running -= 1;
                }
                self.remove(id);
                self.fill(host, around, &mut acts);
            }
        }
        acts
    }

    fn remove(&mut self, id: u64) {
        self.turns.remove(&id);
        if let Some(attempt) = self.attempts.remove(&id) {
            self.by_offer
                .remove(&(attempt.run, attempt.place, attempt.offer));
        }
    }

    /// Everything at a worker dies; what is on its way to a far one still arrives. Returns the losses
    /// that are known: of what had been started, and with `all` of what waited.
    pub fn die(&mut self, host: usize, all: bool, wall: Time) -> Vec<Report> {
        let mut reports = Vec::new();
        let here = self.attempts.extract_if(.., |_, attempt| {
            attempt.host == host && (host == HERE || attempt.arrived)
        });
        for (id, attempt) in here {
            self.turns.remove(&id);
            self.by_offer
                .remove(&(attempt.run, attempt.place, attempt.offer));
            if all || (attempt.started_at.is_some() && !attempt.light) {
                reports.push(lost(&attempt, wall));
            }
        }
        let of = self.hosts.entry(host).or_default();
        of.queue.clear();
        of.running = 0;
        reports
    }
}

fn lost(attempt: &Attempt, wall: Time) -> Report {
    let name = (attempt.run, attempt.place, attempt.offer);
    let since = attempt.started_at.unwrap_or(wall);
    Report::lost(name, (since, wall), ("the worker died", false))
}

fn ended(started_at: Time, ended_at: Time, outcome: Outcome) -> TaskEvent {
    TaskEvent::Ended {
        started_at,
        ended_at,
        outcome,
        usage: None,
    }
}

fn outcome(attempt: &Attempt, around: &mut Around<'_>) -> Outcome {
    let rng = &mut *around.rng;
    match attempt.ends {
        Ends::Stopped => return Outcome::Cancelled,
        Ends::TimedOut => {
            return failed(TaskError {
                kind: FailureKind::Timeout,
                reason: "timeout".into(),
                message: "it took too long".into(),
                ..TaskError::default()
            });
        }
        Ends::ByItself => {}
    }
    if let Some(message) = &attempt.message {
        return failed(TaskError {
            reason: "fail".into(),
            message: message.clone(),
            ..TaskError::default()
        });
    }
    if attempt.light {
        return Outcome::Succeeded(Value::Null);
    }
    if rng.chance(around.knobs.lost) {
        return Outcome::Lost {
            reason: "its host died".to_owned(),
            explained: false,
        };
    }
    if rng.chance(attempt.fails.unwrap_or(around.knobs.fails)) {
        return failed(match rng.below(10) {
            0 => TaskError {
                kind: FailureKind::Platform,
                reason: "http_status".into(),
                message: "busy".into(),
                http_status: Some(503),
                retry_after: Some(std::time::Duration::from_secs(rng.below(20))),
                ..TaskError::default()
            },
            1 => TaskError {
                reason: "exit_code".into(),
                message: "useless".into(),
                exit_code: Some(78),
                permanent: true,
                ..TaskError::default()
            },
            _ => TaskError {
                reason: "exit_code".into(),
                message: "exit code".into(),
                exit_code: Some(i32::try_from(1 + rng.below(4)).unwrap_or(1)),
                ..TaskError::default()
            },
        });
    }
    let count = rng.below(4);
    let xs = (0..count).map(|_| Value::Int(rng.between(0, 9))).collect();
    let mut fields = vec![
        ("n", Value::Int(rng.between(0, 100))),
        ("ok", Value::Bool(rng.chance(500))),
        ("xs", Value::list(xs)),
    ];
    if rng.chance(around.knobs.big) {
        fields.push((
            "big",
            Value::String("x".repeat(limits::INLINE_OUTPUT_BYTES).into()),
        ));
        let bytes = Value::map(fields).to_json().to_string().into_bytes();
        return match around.blobs.put(&bytes) {
            Ok(blob) => Outcome::Succeeded(Value::Blob(blob)),
            Err(error) => failed(TaskError {
                message: error.to_string(),
                ..TaskError::default()
            }),
        };
    }
    Outcome::Succeeded(Value::map(fields))
}

fn failed(error: TaskError) -> Outcome {
    Outcome::Failed(Box::new(error))
}
