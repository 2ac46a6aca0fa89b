//! The home of workers: their sessions at a node, what they are told, and what the relay is told of them. As
//! `server::workers` does it.

use kapell_api::task::{Report, Task};
use kapell_model::SessionId;
use kapell_node::lane::SessionChange;
use kapell_node::relay;

use super::node::Step;
use super::workers::Step as WorkerStep;
use super::{Cluster, Happening, named};
use crate::far::{Down, Name, Said, Session, Up, gone, lease, lease_margin, of};
use crate::scenario::FarFault;

impl Cluster<'_> {
    fn session_at(&mut self, at: usize, id: SessionId) -> Option<&mut Session> {
        self.process(at)?.sessions.get_mut(&id)
    }

    /// The session on a connection.
    fn session_on(&mut self, at: usize, worker: usize, link: u64) -> Option<SessionId> {
        let sessions = &self.process(at)?.sessions;
        let on = |(_, session): &(&SessionId, &Session)| {
            session.worker == worker && session.link == Some(link)
        };
        sessions.iter().find(on).map(|(id, _)| *id)
    }

    /// Says something to the worker of a session.
    fn say_to(&mut self, at: usize, id: SessionId, down: Down) {
        let known = self
            .session_at(at, id)
            .map(|known| (known.worker, known.link));
        if let Some((worker, Some(link))) = known {
            self.say_down(worker, link, down);
        }
    }

    fn report(&mut self, at: usize, reports: Vec<Report>) {
        if !reports.is_empty() {
            self.with_relay(at, |relay| relay.reports(reports));
        }
    }

    fn seat(&mut self, at: usize, id: SessionId) {
        let session = self.session_at(at, id).filter(|session| !session.unheard);
        let Some(worker) = session.map(|session| session.worker) else {
            return;
        };
        let far = &self.scenario.far[worker];
        if let Some(seat) = self.session_at(at, id).map(|session| session.seat(far)) {
            self.with_relay(at, |relay| relay.session(id, SessionChange::Seat(seat)));
        }
    }

    pub(super) fn look_at_lease(&mut self, at: usize, id: SessionId) {
        let Some(session) = self.session_at(at, id) else {
            return;
        };
        let left = session.deadline;
        let left = left - self.now;
        if left > 0 {
            self.later(at, left, Step::Lease(id));
            return;
        }
        let me = self.process(at).map(|process| process.id);
        match self.rows.get(&id).copied() {
            Some((_, home)) if Some(home.0) != me => {
                self.with_relay(at, |relay| relay.moved(id, home));
            }
            _ => self.end_session(at, id, false),
        }
    }

    /// A session is over: what it held is lost.
    fn end_session(&mut self, at: usize, id: SessionId, explained: bool) {
        let wall = self.wall_at(at);
        let session = self.process(at).and_then(|own| own.sessions.remove(&id));
        let Some(session) = session else {
            return;
        };
        let processes = session.held.values().filter(|held| !held.light).count();
        let lost = session.held.keys();
        let lost = lost.map(|name| gone(*name, wall, explained || processes > 1));
        self.report(at, lost.collect());
        self.with_relay(at, |relay| relay.session(id, SessionChange::Over));
        // The process may die before the row is removed.
        if self.rng.chance(900) {
            self.remove_row(at, id);
        }
    }

    fn remove_row(&mut self, at: usize, id: SessionId) {
        let me = self.process(at).map(|process| process.id);
        if self
            .rows
            .get(&id)
            .is_some_and(|(_, home)| Some(home.0) == me)
        {
            self.rows.remove(&id);
        }
    }

    pub(super) fn server_hears(&mut self, at: usize, worker: usize, link: u64, up: Up) {
        if link <= self.lines[worker].up.broken {
            return;
        }
        match up {
            // A connection that was given up is closed before anybody listens, mostly.
            Up::Hello { .. } if self.far[worker].link != Some(link) && self.rng.chance(700) => {}
            Up::Hello {
                session,
                same_process,
                lost,
                holds,
                received,
                draining,
            } => {
                if let Some(id) = session {
                    self.adopt(at, id, (received, link));
                }
                let known = session.filter(|id| self.session_at(at, *id).is_some());
                let stale = |known: &Session| known.link.is_some_and(|other| other > link);
                match known {
                    Some(id) if self.session_at(at, id).is_some_and(|known| stale(known)) => {}
                    Some(id) if same_process => {
                        self.resume(at, id, link, &holds, (received, draining));
                    }
                    Some(id) => {
                        self.died(at, id, &lost);
                        self.open_session(at, worker, link, draining);
                    }
                    None => self.open_session(at, worker, link, draining),
                }
            }
            Up::Say(said) => self.server_is_told(at, worker, link, said),
            Up::HangUp => {
                if let Some(id) = self.session_on(at, worker, link) {
                    if let Some(session) = self.session_at(at, id) {
                        session.link = None;
                    }
                    self.seat(at, id);
                }
            }
        }
    }

    /// A session whose home is another node, or one that is gone, has this one as its home from now on.
    fn adopt(&mut self, at: usize, id: SessionId, (received, link): (u64, u64)) {
        let now = self.now;
        let Some(row) = self.rows.get(&id).copied() else {
            return;
        };
        let Some(process) = self.process(at) else {
            return;
        };
        if process.sessions.contains_key(&id) {
            return;
        }
        let mut session = Session::new(row.0, now + lease());
        session.unheard = true;
        session.received(received);
        process.sessions.insert(id, session);
        let home = process.id;
        self.rows.insert(id, (row.0, (home, link)));
        self.later(at, lease(), Step::Lease(id));
    }

    fn open_session(&mut self, at: usize, worker: usize, link: u64, draining: bool) {
        self.last_session += 1;
        let id = SessionId(self.last_session);
        let (now, lease) = (self.now, self.lease_at_server());
        let Some(process) = self.process(at) else {
            return;
        };
        let mut session = Session::new(worker, now + lease);
        (session.link, session.draining) = (Some(link), draining.then_some(0));
        process.sessions.insert(id, session);
        // Before the first task: a process after this one must know of it.
        let home = process.id;
        self.rows.insert(id, (worker, (home, link)));
        self.later(at, lease, Step::Lease(id));
        // Its first words: tasks come after them.
        self.say_down(worker, link, Down::Welcome(id, false));
        self.open(at, id, Vec::new());
    }

    fn open(&mut self, at: usize, id: SessionId, holds: Vec<kapell_api::worker::Holding>) {
        let Some(worker) = self.session_at(at, id).map(|session| session.worker) else {
            return;
        };
        let far = &self.scenario.far[worker];
        if let Some(seat) = self.session_at(at, id).map(|session| session.seat(far)) {
            let hello = self.session_at(at, id).and_then(|session| session.link);
            let hello = hello.unwrap_or(0);
            let open = SessionChange::Open { seat, holds, hello };
            self.with_relay(at, |relay| relay.session(id, open));
        }
    }

    fn resume(
        &mut self,
        at: usize,
        id: SessionId,
        link: u64,
        holds: &[kapell_api::worker::Holding],
        (received, draining): (u64, bool),
    ) {
        let (now, wall, lease) = (self.now, self.wall_at(at), self.lease_at_server());
        let Some(session) = self.session_at(at, id) else {
            return;
        };
        let worker = session.worker;
        session.deadline = now + lease;
        session.received(received);
        if draining {
            session.draining = session.draining.or(Some(0));
        }
        let grace = session.draining.filter(|_| !draining);
        let (attached, missing, again) = session.resume(holds);
        session.link = Some(link);
        self.say_down(worker, link, Down::Welcome(id, true));
        self.open(at, id, attached);
        let lost = missing.into_iter().map(|name| gone(name, wall, true));
        self.report(at, lost.collect());
        for down in again.into_iter().chain(grace.map(Down::Drain)) {
            self.say_to(at, id, down);
        }
    }

    /// The process of a session died, and another came in its place.
    fn died(&mut self, at: usize, id: SessionId, lost: &[Name]) {
        let wall = self.wall_at(at);
        let several = lost.len() > 1;
        if let Some(session) = self.session_at(at, id) {
            for name in lost {
                session.held.remove(name);
            }
        }
        let reports = lost.iter().map(|name| gone(*name, wall, several));
        self.report(at, reports.collect());
        self.end_session(at, id, true);
    }

    fn server_is_told(&mut self, at: usize, worker: usize, link: u64, said: Said) {
        let (now, lease, steady) = (self.now, self.lease_at_server(), self.steady());
        let Some(id) = self.session_on(at, worker, link) else {
            // It is at another node, or over, and the connection is of no use.
            self.plan(1, Happening::Far(worker, WorkerStep::Ended(link)));
            return;
        };
        let may_act = self
            .process(at)
            .and_then(|process| process.members.until())
            .is_some_and(|until| until > steady);
        let Some(session) = self.session_at(at, id) else {
            return;
        };
        session.received(said.received);
        let (beat, leaving) = (said.beat, said.leaving);
        // A node whose own lease is over keeps no worker alive.
        let beat = beat.filter(|_| may_act);
        if beat.is_some() {
            session.deadline = now + lease;
        }
        let drains = said.draining && session.draining.is_none();
        if drains {
            session.draining = Some(0);
        }
        let (known, unknown) = session.reported(said);
        if let Some(beat) = beat {
            self.say_to(at, id, Down::Beat(beat));
        }
        if drains {
            self.seat(at, id);
        }
        if !unknown.is_empty() {
            self.say_to(at, id, Down::Taken(unknown));
        }
        if !known.is_empty() {
            let early: Vec<Name> = known.iter().map(of).collect();
            self.report(at, known);
            if self.acknowledges_early() {
                self.workers_taken(at, &early);
            }
        }
        if leaving {
            self.end_session(at, id, true);
        }
    }

    /// What the relay wants done with workers here.
    pub(super) fn job(&mut self, at: usize, job: relay::Output) {
        match job {
            relay::Output::Offer(tasks) => self.workers_offer(at, tasks),
            relay::Output::Stop(names) => self.workers_stop(at, &names),
            relay::Output::Taken(names) => self.workers_taken(at, &names),
            relay::Output::Forget(id) => self.forget_session(at, id),
            relay::Output::Over(id) => self.over_elsewhere(at, id),
            relay::Output::Reports(_) | relay::Output::Session(..) | relay::Output::Tell(..) => {}
        }
    }

    fn workers_offer(&mut self, at: usize, tasks: Vec<Task>) {
        let wall = self.wall_at(at);
        let mut lost = Vec::new();
        let mut of_session: std::collections::BTreeMap<SessionId, Vec<Task>> =
            std::collections::BTreeMap::new();
        for task in tasks {
            self.tasks.insert(named(&task), task.clone());
            of_session.entry(task.session).or_default().push(task);
        }
        for (id, tasks) in of_session {
            match self.session_at(at, id) {
                Some(session) => {
                    let batch = session.offer(&tasks);
                    self.say_to(at, id, batch);
                }
                None => lost.extend(tasks.iter().map(|task| gone(named(task), wall, true))),
            }
        }
        self.report(at, lost);
    }

    fn workers_stop(&mut self, at: usize, names: &[Name]) {
        for id in self.sessions_of(at) {
            let stops = self
                .session_at(at, id)
                .and_then(|session| session.stop(names));
            if let Some(stops) = stops {
                self.say_to(at, id, stops);
            }
        }
    }

    /// What was said of these ends is durable, or refused for good.
    fn workers_taken(&mut self, at: usize, names: &[Name]) {
        for id in self.sessions_of(at) {
            let Some(session) = self.session_at(at, id) else {
                continue;
            };
            let held = names.iter().filter(|name| session.held.contains_key(*name));
            let held: Vec<Name> = held.copied().collect();
            let numbers: Vec<u64> = held.iter().filter_map(|name| session.taken(name)).collect();
            for name in &held {
                let verdict = self.checks.taken(name);
                self.judge(verdict);
            }
            if !numbers.is_empty() {
                self.say_to(at, id, Down::Taken(numbers));
            }
        }
    }

    fn sessions_of(&mut self, at: usize) -> Vec<SessionId> {
        let process = self.process(at);
        process.map_or_else(Vec::new, |process| {
            process.sessions.keys().copied().collect()
        })
    }

    /// A session has another home now.
    fn forget_session(&mut self, at: usize, id: SessionId) {
        let Some(process) = self.process(at) else {
            return;
        };
        if process.relay.is_here(id) {
            // It has come back meanwhile.
            return;
        }
        let session = process.sessions.remove(&id);
        if let Some((worker, Some(link))) = session.map(|session| (session.worker, session.link)) {
            self.plan(1, Happening::Far(worker, WorkerStep::Ended(link)));
        }
    }

    /// A session came nowhere after its home was gone.
    fn over_elsewhere(&mut self, at: usize, id: SessionId) {
        let Some((_, (home, _))) = self.rows.get(&id).copied() else {
            return;
        };
        let gone = self
            .process(at)
            .is_some_and(|own| own.members.may_act() && !own.relay.is_there(home));
        if gone {
            self.rows.remove(&id);
        }
    }

    /// How long the server waits for a worker.
    fn lease_at_server(&self) -> i64 {
        if self.ends_sessions_early() {
            lease_margin() / 8
        } else {
            lease()
        }
    }

    pub(super) fn far_fault(&mut self, worker: usize, fault: &FarFault) {
        if worker >= self.far.len() {
            return;
        }
        match *fault {
            FarFault::Dies { down } => self.far_dies(worker, down),
            FarFault::Cut { up, down, span } => {
                let until = self.now + span;
                let lines = &mut self.lines[worker];
                if up {
                    lines.up.cut_until = until;
                }
                if down {
                    lines.down.cut_until = until;
                }
            }
            FarFault::Slow { span, wire } => {
                let until = self.now + span;
                let lines = &mut self.lines[worker];
                for way in [&mut lines.up, &mut lines.down] {
                    (way.slow_until, way.span) = (until, wire);
                }
            }
            FarFault::Drain { grace } => {
                let at = self.lines[worker].node;
                let link = self.lines[worker].number;
                if let Some(id) = self.session_on(at, worker, link) {
                    if let Some(session) = self.session_at(at, id) {
                        session.draining = Some(grace);
                    }
                    self.say_to(at, id, Down::Drain(grace));
                    self.seat(at, id);
                }
            }
        }
    }
}
