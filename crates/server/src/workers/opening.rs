//! How a session begins, goes on after a break, and hears what its worker says.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kapell_api::task::{Report, TaskEvent};
use kapell_api::worker::{Holding, PROTOCOL, Queues, decode, proto};
use kapell_model::{Error, ErrorCode, SessionId, Time, limits};
use kapell_node::clock;
use kapell_node::lane::SessionChange;

use super::session::{About, HeldTask, LinkEnd, Name, Session, ToWorker, named};
use super::{Workers, gone, stored};

/// Where a worker is that says hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// In this process.
    Inside,
    /// In another.
    Outside,
}

/// A worker's place once it is welcome.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Its session.
    pub(crate) session: SessionId,
    /// True if it was in this session before.
    pub(crate) resumed: bool,
    /// Which connection of the session this is.
    pub(crate) link: u64,
    /// Log lines that need not be said again.
    pub(crate) logs_taken: u64,
    /// How long it is not looked for; none: it cannot be lost while this process lives.
    pub(crate) lease: Option<Duration>,
    /// What goes to it.
    pub(crate) end: LinkEnd,
}

impl Workers {
    /// A worker says hello. Blocks.
    ///
    /// # Errors
    /// `bad-request` for a hello that makes no sense, `limit-reached` if there are too many sessions,
    /// those of the store.
    pub(crate) fn hello(&self, hello: proto::Hello, from: From) -> Result<Opened, Error> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(
                Error::new(ErrorCode::StoreUnavailable, "the server is ending")
                    .hint("connect again after its restart"),
            );
        }
        let relaying = self.relaying.as_ref();
        let about = About {
            inside: from == From::Inside,
            home: relaying.map(|relaying| relaying.me()).unwrap_or_default(),
            ..about(&hello)?
        };
        let holds = holds(&hello)?;
        let previous = SessionId(hello.session);
        self.adopt(previous, &about, &hello)?;
        if hello.same_process {
            if let Some(opened) = self.resume(previous, &about, &hello, &holds)? {
                return Ok(opened);
            }
        } else if about.inside && relaying.is_none() {
            self.died(&self.inside(), &hello, &about)?;
        } else if about.inside {
            // Those of other nodes live.
            let before = self.inside().into_iter().filter(|id| *id == previous);
            self.died(&before.collect::<Vec<_>>(), &hello, &about)?;
        } else if self.is_outside(previous) {
            self.died(&[previous], &hello, &about)?;
        }
        let id = SessionId(getrandom::u64().unwrap_or(0).max(1));
        if !about.inside && self.sessions.lock().len() >= limits::SESSIONS {
            let message = format!("there are {} workers already", limits::SESSIONS);
            return Err(Error::new(ErrorCode::LimitReached, message)
                .hint("let some go with `kapell workers --drain NAME`"));
        }
        self.names(&about.queues)?;
        // Before the first task: a process after this one must know of it.
        if let Err(error) = stored::write(&*self.store, id, &about) {
            // The slots of the worker inside say what a process after this one must know.
            if !about.inside {
                return Err(error);
            }
            tracing::warn!(%error, "the row of the session of the worker inside was not written");
        }
        if !about.inside {
            tracing::info!(worker = named(id, &about), "a worker is here");
        }
        let mut sessions = self.sessions.lock();
        let lease = self.lease_of(&about);
        let session = sessions
            .entry(id)
            .or_insert_with(|| Session::new(about, deadline(lease), false));
        session.is_next(hello.number);
        session.draining = hello.draining.then_some(Duration::ZERO);
        let end = session.connect();
        // Without a connection before this it held nothing.
        let open = SessionChange::Open {
            seat: self.seat_of(session),
            holds: Vec::new(),
            hello: hello.number,
        };
        self.say(id, open);
        Ok(Opened {
            session: id,
            resumed: false,
            link: session.links,
            logs_taken: 0,
            lease,
            end,
        })
    }

    /// A worker goes on with its session; none if that is over.
    ///
    /// # Errors
    /// `not-allowed-now` for what was said before a connection that is there: it knows less than that one.
    fn resume(
        &self,
        id: SessionId,
        about: &About,
        hello: &proto::Hello,
        holds: &[(Holding, HeldTask)],
    ) -> Result<Option<Opened>, Error> {
        let mut sessions = self.sessions.lock();
        let session = sessions.get_mut(&id);
        // Nobody from outside goes on for the worker inside.
        let Some(session) = session.filter(|session| session.about.inside == about.inside) else {
            return Ok(None);
        };
        if !session.is_next(hello.number) {
            let message = format!("{} connected again meanwhile", named(id, about));
            return Err(Error::new(ErrorCode::NotAllowedNow, message)
                .hint("nothing is to be done: its newer connection counts"));
        }
        session.about = About {
            opened_at: session.about.opened_at,
            ..about.clone()
        };
        let lease = self.lease_of(about);
        session.deadline = deadline(lease);
        session.received(hello.received);
        if hello.draining && session.draining.is_none() {
            session.draining = Some(Duration::ZERO);
        }
        let list: Vec<Holding> = holds.iter().map(|(held, _)| held.clone()).collect();
        let missing = session.missing(&list);
        let mut attached = Vec::new();
        for (held, task) in holds {
            let name = (held.run, held.place, held.offer);
            if let Entry::Vacant(place) = session.held.entry(name) {
                place.insert(task.clone());
                attached.push(held.clone());
            }
        }
        session.unheard = false;
        let end = session.connect();
        let seat = self.seat_of(session);
        let open = SessionChange::Open {
            seat,
            holds: attached,
            hello: hello.number,
        };
        self.say(id, open);
        let now = clock::now();
        let lost = |name| gone(name, now, ("it did not arrive at its worker", true));
        self.report(missing.into_iter().map(lost).collect());
        session.say_again();
        if let Some(grace) = session.draining.filter(|_| !hello.draining) {
            session.send(ToWorker::Drain(grace));
        }
        tracing::info!(worker = named(id, &session.about), "a worker is here again");
        Ok(Some(Opened {
            session: id,
            resumed: true,
            link: session.links,
            logs_taken: session.logs_taken,
            lease,
            end,
        }))
    }

    /// How long a session lasts that is not heard of. The worker inside needs no lease where nobody else would
    /// do again what it does: among several nodes others do, once this one is cut off.
    pub(super) fn lease_of(&self, about: &About) -> Option<Duration> {
        let needs = !about.inside || self.relaying.is_some();
        needs.then_some(self.settings.lease)
    }

    /// The sessions of workers inside: of processes before this one, until its own worker says hello.
    fn inside(&self) -> Vec<SessionId> {
        let sessions = self.sessions.lock();
        let inside = sessions.iter().filter(|(_, session)| session.about.inside);
        inside.map(|(id, _)| *id).collect()
    }

    /// The process of these sessions died, and another came in its place: what it says of attempts is
    /// heard first, the rest is lost without being to blame.
    fn died(&self, ids: &[SessionId], hello: &proto::Hello, about: &About) -> Result<(), Error> {
        let several = hello.lost.len() > 1;
        let mut lost = Vec::new();
        for attempt in hello.lost.iter().take(limits::SESSION_HELD) {
            let name = decode::attempt(attempt.attempt.as_ref()).map_err(|error| bad(&error))?;
            lost.push((name, attempt.explained || several));
        }
        let now = clock::now();
        let mut reports = Vec::with_capacity(lost.len());
        {
            let mut sessions = self.sessions.lock();
            for (name, explained) in lost {
                let held = ids
                    .iter()
                    .find_map(|id| sessions.get_mut(id)?.held.remove(&name));
                let granted_at = held.map_or(now, |held| held.granted_at);
                reports.push(Report {
                    worker: self.recorded_as(about),
                    ..gone(name, granted_at, ("its worker died", explained))
                });
            }
        }
        if !reports.is_empty() {
            let lost = reports.len();
            tracing::warn!(lost, "attempts were lost with the worker before this one");
            self.report(reports);
        }
        for id in ids {
            self.end(*id, "its worker died", true);
        }
        Ok(())
    }

    /// A connection says something. False: the connection is of no use any more.
    ///
    /// # Errors
    /// `bad-request` if it makes no sense.
    pub(crate) fn heard(
        &self,
        id: SessionId,
        link: u64,
        message: proto::FromWorker,
    ) -> Result<bool, Error> {
        let mut reports = decoded(message.reports)?;
        let mut sessions = self.sessions.lock();
        let Some(session) = sessions
            .get_mut(&id)
            .filter(|session| session.links == link)
        else {
            return Ok(false);
        };
        session.received(message.received);
        let mut open = true;
        // A node whose own lease is over keeps no worker alive: others wait for its workers' leases to end.
        if message.beat > 0 && self.node.may_act() {
            session.deadline = deadline(self.lease_of(&session.about));
            open &= session.send(ToWorker::Beat(message.beat));
        }
        if message.draining && session.draining.is_none() {
            session.draining = Some(Duration::ZERO);
            self.seat(id, session);
        }
        let worker = self.recorded_as(&session.about);
        for (_, report) in &mut reports {
            report.worker = Arc::clone(&worker);
        }
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        let at = self.since.elapsed();
        for (number, report) in reports {
            let name: Name = (report.run, report.place, report.offer);
            let ended = matches!(report.event, TaskEvent::Ended { .. });
            if !ended {
                if session.held.contains_key(&name) {
                    known.push(report);
                }
            } else if session.reported(name, number) {
                session.measured(&report, at);
                known.push(report);
            } else {
                // It was taken, or refused for good: an attempt is held until then.
                unknown.push(number);
            }
        }
        if !unknown.is_empty() {
            open &= session.send(ToWorker::Taken(unknown));
        }
        if !open {
            self.seat(id, session);
        }
        // Under the lock, so that they come before word of the session's end.
        if !known.is_empty() {
            self.report(known);
            if let Some(rows) = self.log_rows.get() {
                rows.write_soon();
            }
        }
        drop(sessions);
        if message.leaving {
            self.end(id, "its worker has gone", true);
            return Ok(false);
        }
        Ok(open)
    }

    /// Writes log lines. Blocks.
    pub(crate) fn logged(
        self: &Arc<Self>,
        id: SessionId,
        link: u64,
        number: u64,
        parts: &[proto::LogPart],
    ) {
        let mut files = {
            let mut sessions = self.sessions.lock();
            let session = sessions
                .get_mut(&id)
                .filter(|session| session.links == link);
            let Some(files) = session.and_then(|session| session.logs.take()) else {
                return;
            };
            files
        };
        for part in parts {
            let Ok(name) = decode::attempt(part.attempt.as_ref()) else {
                continue;
            };
            let of = self.sessions.lock().get(&id).and_then(|session| {
                let held = session.held.get(&name)?;
                Some((held.path.clone(), held.attempt))
            });
            // A late line of an attempt whose end was taken has no place any more.
            let Some((path, attempt)) = of else { continue };
            let of = (name.0, &*path, attempt);
            if let Some(rows) = self.log_rows.get() {
                rows.append(of, part.offset, &part.text);
                continue;
            }
            let now = clock::now();
            if let Err(error) = files.append(&self.logs(), of, (part.offset, &part.text), now) {
                tracing::warn!(%error, "log lines of a worker were not written");
            }
        }
        if let Some(session) = self.sessions.lock().get_mut(&id) {
            session.logs = Some(files);
        }
        if let Some(rows) = self.log_rows.get() {
            let workers = Arc::downgrade(self);
            rows.then(move || {
                if let Some(workers) = workers.upgrade() {
                    workers.logs_taken(id, number);
                }
            });
        } else {
            self.logs_taken(id, number);
        }
    }

    /// Log lines up to this number are written.
    fn logs_taken(&self, id: SessionId, number: u64) {
        let mut sessions = self.sessions.lock();
        if let Some(session) = sessions.get_mut(&id) {
            session.logs_taken = session.logs_taken.max(number);
            let taken = session.logs_taken;
            if !session.send(ToWorker::LogsTaken(taken)) {
                self.seat(id, session);
            }
        }
    }

    /// A connection has ended.
    pub(crate) fn hung_up(&self, id: SessionId, link: u64) {
        let mut sessions = self.sessions.lock();
        let session = sessions
            .get_mut(&id)
            .filter(|session| session.links == link);
        if let Some(session) = session {
            session.disconnect();
            self.seat(id, session);
            tracing::info!(worker = named(id, &session.about), "a worker is away");
        }
    }
}

fn bad(error: &decode::Malformed) -> Error {
    Error::new(ErrorCode::BadRequest, error.to_string())
}

fn decoded(reports: Vec<proto::Report>) -> Result<Vec<(u64, Report)>, Error> {
    let reports = reports.into_iter().map(decode::report);
    reports
        .collect::<Result<_, _>>()
        .map_err(|error| bad(&error))
}

/// When a lease is over that begins now.
pub(super) fn deadline(lease: Option<Duration>) -> Option<Instant> {
    lease.map(|lease| clock::steady() + lease)
}

/// What a worker says of itself, checked.
fn about(hello: &proto::Hello) -> Result<About, Error> {
    let refused = |what: String| Err(Error::new(ErrorCode::BadRequest, what));
    if hello.protocol != PROTOCOL {
        return refused(format!(
            "the worker `{}` speaks version {} of the protocol, this server version {PROTOCOL}",
            hello.name, hello.protocol
        ));
    }
    let is_name = |name: &str| {
        !name.is_empty() && name.len() <= limits::NAME_CHARS && !name.contains(char::is_control)
    };
    if !is_name(&hello.name) {
        return refused(format!("`{}` is no name of a worker", hello.name));
    }
    if !hello.pool.is_empty() && !is_name(&hello.pool) {
        return refused(format!("`{}` is no name of a pool", hello.pool));
    }
    if let Some(queue) = hello.queues.iter().find(|queue| !is_name(queue)) {
        return refused(format!("`{queue}` is no name of a queue"));
    }
    let mut texts = hello.labels.iter().flat_map(|(name, value)| [name, value]);
    if texts.any(|text| text.len() > limits::NAME_CHARS) {
        return refused(format!(
            "a label of the worker `{}` is longer than {} bytes",
            hello.name,
            limits::NAME_CHARS
        ));
    }
    let custom = hello.capacity.as_ref().map(|capacity| &capacity.custom);
    let custom_names = || custom.into_iter().flat_map(|custom| custom.keys());
    if let Some(name) = custom_names().find(|name| !is_name(name)) {
        return refused(format!("`{name}` is no name of a resource"));
    }
    let names = [
        hello.queues.len(),
        hello.labels.len(),
        hello.runtimes.len(),
        custom_names().count(),
    ];
    if names.iter().any(|count| *count > limits::SESSION_NAMES) {
        return refused(format!(
            "the worker `{}` has more than {} queues, labels, runtimes or resources",
            hello.name,
            limits::SESSION_NAMES
        ));
    }
    if hello.slots == 0 || hello.slots > limits::SESSION_SLOTS {
        return refused(format!(
            "the worker `{}` has {} slots: a number from 1 to {}",
            hello.name,
            hello.slots,
            limits::SESSION_SLOTS
        ));
    }
    let queues: BTreeSet<_> = hello
        .queues
        .iter()
        .map(|name| name.as_str().into())
        .collect();
    Ok(About {
        name: hello.name.clone(),
        version: hello.version.clone(),
        labels: hello.labels.clone().into_iter().collect(),
        queues: if queues.is_empty() {
            Queues::Others
        } else {
            Queues::Named(queues)
        },
        capacity: decode::resources(hello.capacity.clone()),
        slots: hello.slots,
        runtimes: hello.runtimes.clone(),
        opened_at: clock::now(),
        inside: false,
        home: kapell_model::NodeId::default(),
        hello: hello.number,
        spot: hello.spot,
        pool: Some(hello.pool.clone()).filter(|pool| !pool.is_empty()),
    })
}

/// What a worker says that it holds.
fn holds(hello: &proto::Hello) -> Result<Vec<(Holding, HeldTask)>, Error> {
    if hello.holds.len() > limits::SESSION_HELD {
        let message = format!(
            "the worker `{}` holds more than {} attempts",
            hello.name,
            limits::SESSION_HELD
        );
        return Err(Error::new(ErrorCode::LimitReached, message));
    }
    let now: Time = clock::now();
    let holds = hello.holds.iter().map(|message| {
        let held = decode::holding(message).map_err(|error| bad(&error))?;
        let task = HeldTask {
            path: message.path.as_str().into(),
            namespace: "".into(),
            workflow: message.workflow.as_str().into(),
            queue: message.queue.as_str().into(),
            attempt: held.attempt,
            light: held.light,
            needs: held.needs.clone(),
            granted_at: now,
            report: 0,
            secrets: None,
        };
        Ok((held, task))
    });
    holds.collect()
}
