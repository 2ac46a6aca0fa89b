//! The server's side: sessions, what they are told, and what the lane is told of them.

use kapell_api::task::Task;
use kapell_api::worker::Holding;
use kapell_model::SessionId;
use kapell_node::lane::{Input, SessionChange};

use super::Step;
use crate::far::{Down, Name, Said, Session, Up, gone, lease, lease_margin, of};
use crate::scenario::FarFault;
use crate::world::{Happening, World};

impl World<'_> {
    /// The process has ended: what it knew is gone, and connections end.
    pub(in crate::world) fn far_crashed(&mut self) {
        self.far.sessions.clear();
        self.worker.forget_sent();
        for worker in 0..self.far.workers.len() {
            let ways = &mut self.far.links[worker];
            (ways.1.broken, ways.2.broken) = (ways.0, ways.0);
            let far = &mut self.far.workers[worker];
            // Some notice at once, others only by the silence.
            if far.link.is_some() && self.rng.chance(700) {
                far.link = None;
                far.is_welcome = false;
                self.connect_later(worker);
            }
        }
    }

    /// The process starts: what the lane is told before all else.
    pub(in crate::world) fn far_restarted(&mut self) -> Vec<Input> {
        let mut told = Vec::new();
        for (id, worker) in self.far.rows.clone() {
            let mut session = Session::new(worker, self.now + lease());
            session.unheard = true;
            self.far.sessions.insert(id, session);
            self.plan(lease(), Happening::Far(worker, Step::Lease(id)));
            let queues = self.scenario.far[worker].queues();
            if !self.forgets_sessions() {
                told.push(Input::Session(id, SessionChange::Unheard(queues)));
            }
        }
        told
    }

    pub(super) fn look_at_lease(&mut self, id: SessionId) {
        let Some(session) = self.far.sessions.get(&id).filter(|_| self.lane.is_some()) else {
            return;
        };
        let (left, worker) = (session.deadline - self.now, session.worker);
        if left > 0 {
            self.plan(left, Happening::Far(worker, Step::Lease(id)));
        } else {
            self.end_session(id, false);
        }
    }

    /// A session is over: what it held is lost.
    fn end_session(&mut self, id: SessionId, explained: bool) {
        let Some(session) = self.far.sessions.remove(&id) else {
            return;
        };
        let wall = self.wall();
        let far = &self.far.workers[session.worker];
        for name in session
            .held
            .keys()
            .filter(|name| !far.held.contains_key(*name))
        {
            // It never arrived, and a worker without a lease takes nothing.
            self.worker.forget(name);
        }
        let processes = session.held.values().filter(|held| !held.light).count();
        let lost = session.held.keys();
        let lost: Vec<_> = lost
            .map(|name| gone(*name, wall, explained || processes > 1))
            .collect();
        if !lost.is_empty() {
            self.give_lane(Input::Reports(lost));
        }
        self.give_lane(Input::Session(id, SessionChange::Over));
        // The process may die before the row is removed.
        if self.rng.chance(900) {
            self.far.rows.remove(&id);
        }
    }

    fn seat(&mut self, id: SessionId, holds: Vec<Holding>) {
        let Some(session) = self
            .far
            .sessions
            .get(&id)
            .filter(|session| !session.unheard)
        else {
            return;
        };
        let seat = session.seat(&self.scenario.far[session.worker]);
        self.give_lane(Input::Session(
            id,
            SessionChange::Open {
                seat,
                holds,
                hello: 0,
            },
        ));
    }

    pub(super) fn server_hears(&mut self, worker: usize, link: u64, up: Up) {
        match up {
            // A connection that was given up is closed before anybody listens.
            Up::Hello { .. } if self.far.workers[worker].link != Some(link) => {}
            Up::Hello {
                session,
                same_process,
                lost,
                holds,
                received,
                draining,
            } => {
                let known = session.filter(|id| self.far.sessions.contains_key(id));
                match known {
                    Some(id) if same_process => {
                        self.resume(id, link, &holds, (received, draining));
                    }
                    Some(id) => {
                        self.died(id, &lost);
                        self.open_session(worker, link, draining);
                    }
                    None => self.open_session(worker, link, draining),
                }
            }
            Up::Say(said) => self.server_is_told(worker, link, said),
            Up::HangUp => {
                let on = |(_, session): &(&SessionId, &mut Session)| {
                    session.worker == worker && session.link == Some(link)
                };
                let found = self.far.sessions.iter_mut().find(on);
                if let Some((id, session)) = found {
                    session.link = None;
                    let id = *id;
                    self.seat(id, Vec::new());
                }
            }
        }
    }

    fn open_session(&mut self, worker: usize, link: u64, draining: bool) {
        self.far.last_session += 1;
        let id = SessionId(self.far.last_session);
        // Before the first task: a process after this one must know of it.
        self.far.rows.insert(id, worker);
        let mut session = Session::new(worker, self.now + self.lease_at_server());
        (session.link, session.draining) = (Some(link), draining.then_some(0));
        self.far.sessions.insert(id, session);
        self.plan(
            self.lease_at_server(),
            Happening::Far(worker, Step::Lease(id)),
        );
        // Its first words: tasks come after them.
        self.say_down(id, Down::Welcome(id, false));
        self.seat(id, Vec::new());
    }

    fn resume(
        &mut self,
        id: SessionId,
        link: u64,
        holds: &[Holding],
        (received, draining): (u64, bool),
    ) {
        let (now, wall, lease) = (self.now, self.wall(), self.lease_at_server());
        let Some(session) = self.far.sessions.get_mut(&id) else {
            return;
        };
        session.deadline = now + lease;
        session.received(received);
        if draining {
            session.draining = session.draining.or(Some(0));
        }
        let grace = session.draining.filter(|_| !draining);
        let (attached, missing, again) = session.resume(holds);
        session.link = Some(link);
        self.say_down(id, Down::Welcome(id, true));
        for down in again.into_iter().chain(grace.map(Down::Drain)) {
            self.say_down(id, down);
        }
        self.seat(id, attached);
        let lost: Vec<_> = missing
            .into_iter()
            .map(|name| gone(name, wall, true))
            .collect();
        for report in &lost {
            self.worker.forget(&of(report));
        }
        if !lost.is_empty() {
            self.give_lane(Input::Reports(lost));
        }
    }

    /// The process of a session died, and another came in its place.
    fn died(&mut self, id: SessionId, lost: &[Name]) {
        let wall = self.wall();
        let several = lost.len() > 1;
        let reports: Vec<_> = lost.iter().map(|name| gone(*name, wall, several)).collect();
        if let Some(session) = self.far.sessions.get_mut(&id) {
            for name in lost {
                session.held.remove(name);
            }
        }
        if !reports.is_empty() {
            self.give_lane(Input::Reports(reports));
        }
        self.end_session(id, true);
    }

    fn server_is_told(&mut self, worker: usize, link: u64, said: Said) {
        let on = |(_, session): &(&SessionId, &mut Session)| {
            session.worker == worker && session.link == Some(link)
        };
        let (now, lease) = (self.now, self.lease_at_server());
        let Some((id, session)) = self.far.sessions.iter_mut().find(on) else {
            return;
        };
        let id = *id;
        session.received(said.received);
        let (beat, leaving) = (said.beat, said.leaving);
        if beat.is_some() {
            session.deadline = now + lease;
        }
        let drains = said.draining && session.draining.is_none();
        if drains {
            session.draining = Some(0);
        }
        let (known, unknown) = session.reported(said);
        if drains {
            self.seat(id, Vec::new());
        }
        if let Some(beat) = beat {
            self.say_down(id, Down::Beat(beat));
        }
        if !unknown.is_empty() {
            self.say_down(id, Down::Taken(unknown));
        }
        if !known.is_empty() {
            let early: Vec<Name> = known.iter().map(of).collect();
            self.give_lane(Input::Reports(known));
            if self.acknowledges_early() {
                self.far_taken(&early);
            }
        }
        if leaving {
            self.end_session(id, true);
        }
    }

    /// Tasks for a session.
    pub(in crate::world) fn far_offer(&mut self, id: SessionId, tasks: &[Task]) {
        if let Some(session) = self.far.sessions.get_mut(&id) {
            let batch = session.offer(tasks);
            self.say_down(id, batch);
            return;
        }
        let wall = self.wall();
        let names = tasks.iter().map(|task| (task.run, task.place, task.offer));
        let lost: Vec<_> = names.map(|name| gone(name, wall, true)).collect();
        for report in &lost {
            self.worker.forget(&of(report));
        }
        // The lane is speaking: it hears of that afterwards.
        let life = self.life;
        self.plan(1, Happening::ToLane(life, Box::new(Input::Reports(lost))));
    }

    /// The worker of a session, counted as those of [`crate::worker`] are.
    pub(in crate::world) fn far_host(&self, id: SessionId) -> usize {
        let worker = self.far.rows.get(&id).copied();
        worker.map_or(usize::MAX, |worker| worker + 1)
    }

    pub(in crate::world) fn far_stop(&mut self, names: &[Name]) {
        let ids: Vec<SessionId> = self.far.sessions.keys().copied().collect();
        for id in ids {
            let session = self.far.sessions.get_mut(&id);
            if let Some(stops) = session.and_then(|session| session.stop(names)) {
                self.say_down(id, stops);
            }
        }
    }

    /// What was said of these ends is durable, or refused for good.
    pub(in crate::world) fn far_taken(&mut self, names: &[Name]) {
        let ids: Vec<SessionId> = self.far.sessions.keys().copied().collect();
        for id in ids {
            let Some(session) = self.far.sessions.get_mut(&id) else {
                continue;
            };
            let held: Vec<Name> = names
                .iter()
                .filter(|name| session.held.contains_key(*name))
                .copied()
                .collect();
            let numbers: Vec<u64> = held.iter().filter_map(|name| session.taken(name)).collect();
            for name in &held {
                let verdict = self.checks.taken(name);
                self.judge(verdict);
            }
            if !numbers.is_empty() {
                self.say_down(id, Down::Taken(numbers));
            }
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

    pub(in crate::world) fn far_fault(&mut self, worker: usize, fault: &FarFault) {
        if worker >= self.far.workers.len() {
            return;
        }
        match *fault {
            FarFault::Dies { down } => {
                if self.far.workers[worker].is_up {
                    let wall = self.wall();
                    let lost = self.worker.die(worker + 1, false, wall);
                    let lost = lost.iter().map(of).collect();
                    self.say_up(worker, Up::HangUp);
                    self.far.workers[worker].ends(lost);
                    self.plan(down, Happening::Far(worker, Step::Begin));
                }
            }
            FarFault::Cut { up, down, span } => {
                let until = self.now + span;
                let ways = &mut self.far.links[worker];
                if up {
                    ways.1.cut_until = until;
                }
                if down {
                    ways.2.cut_until = until;
                }
            }
            FarFault::Slow { span, wire } => {
                let until = self.now + span;
                let ways = &mut self.far.links[worker];
                for way in [&mut ways.1, &mut ways.2] {
                    (way.slow_until, way.span) = (until, wire);
                }
            }
            FarFault::Drain { grace } => {
                let its = |(_, session): &(&SessionId, &mut Session)| session.worker == worker;
                let found = self.far.sessions.iter_mut().find(its);
                if let Some((id, session)) = found.filter(|_| self.lane.is_some()) {
                    session.draining = Some(grace);
                    let id = *id;
                    self.say_down(id, Down::Drain(grace));
                    self.seat(id, Vec::new());
                }
            }
        }
    }
}
