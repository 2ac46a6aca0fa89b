//! Workers in other processes: connections, what they carry, and what breaks them.
//!
//! A connection carries what is said in order, each way on its own. What is said into a cut is lost, and
//! with it all that would come after it on this connection. Whoever says something does not notice; a
//! worker that hears nothing for a while connects again.

mod server;

use std::collections::BTreeMap;

use kapell_api::task::Report;
use kapell_api::worker::Holding;
use kapell_model::SessionId;

use super::{Happening, World};
use crate::far::{Down, Far, LAST_WORDS, Name, PATIENCE, PULSE, Said, Session, Up, gone, name, of};

/// What happens between a worker and the server.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A process of the worker begins.
    Begin,
    /// The worker connects.
    Connect(u64),
    /// The worker looks at its lease and its connection.
    Pulse(u64),
    /// The server hears something on a connection.
    Up(u64, Up),
    /// The worker hears something on a connection.
    Down(u64, Down),
    /// The server looks at a lease.
    Lease(SessionId),
}

/// One way of a connection.
#[derive(Debug, Default)]
struct Way {
    /// What is said before then is lost.
    cut_until: i64,
    slow_until: i64,
    /// How long the slow way takes.
    span: i64,
    /// When the last thing said arrives.
    free: i64,
    /// Connections up to this one carry nothing more.
    broken: u64,
}

/// Everything of workers in other processes.
#[derive(Default)]
pub(super) struct FarSide {
    workers: Vec<Far>,
    /// The number of the last connection of each, and its two ways.
    links: Vec<(u64, Way, Way)>,
    /// Rows in the store.
    rows: BTreeMap<SessionId, usize>,
    /// What the server's process knows.
    sessions: BTreeMap<SessionId, Session>,
    last_session: u64,
}

impl FarSide {
    /// True if nobody has anything, or has anything to say.
    pub(super) fn is_idle(&self) -> bool {
        let silent = |far: &Far| far.held.is_empty() && far.ends.is_empty();
        self.workers.iter().all(silent)
            && self
                .sessions
                .values()
                .all(|session| session.held.is_empty())
    }
}

impl World<'_> {
    /// All workers begin.
    pub(super) fn far_begin(&mut self) {
        for (worker, far) in self.scenario.far.iter().enumerate() {
            self.far.workers.push(Far::default());
            self.far.links.push((0, Way::default(), Way::default()));
            self.worker.hire(worker + 1, far.slots);
            let after = self.rng.magnitude(1_000, 30_000_000);
            self.plan(after, Happening::Far(worker, Step::Begin));
        }
    }

    pub(super) fn far_step(&mut self, worker: usize, step: Step) {
        let process = self.far.workers[worker].process;
        self.note(|| {
            let step = format!("{step:?}");
            format!(
                "far {worker}: {}",
                step.chars().take(400).collect::<String>()
            )
        });
        match step {
            Step::Begin => {
                let far = &mut self.far.workers[worker];
                if !far.is_up {
                    far.is_up = true;
                    self.plan(0, Happening::Far(worker, Step::Connect(process)));
                    self.plan(PULSE, Happening::Far(worker, Step::Pulse(process)));
                }
            }
            Step::Connect(by) if by == process => self.connect(worker),
            Step::Pulse(by) if by == process => self.pulse(worker),
            Step::Connect(_) | Step::Pulse(_) => {}
            Step::Up(link, up) => {
                if self.lane.is_some() && link > self.far.links[worker].1.broken {
                    self.server_hears(worker, link, up);
                }
            }
            Step::Down(link, down) => {
                let far = &self.far.workers[worker];
                if far.is_up && far.link == Some(link) && link > self.far.links[worker].2.broken {
                    self.worker_hears(worker, down);
                }
            }
            Step::Lease(session) => self.look_at_lease(session),
        }
    }

    /// How long what is said takes; none if it is lost.
    fn way(&mut self, worker: usize, link: u64, up: bool) -> Option<i64> {
        let wire = self.rng.between(1, self.scenario.knobs.wire);
        let now = self.now;
        let ways = &mut self.far.links[worker];
        let way = if up { &mut ways.1 } else { &mut ways.2 };
        if now < way.cut_until {
            way.broken = way.broken.max(link);
        }
        if link <= way.broken {
            return None;
        }
        let span = if now < way.slow_until { way.span } else { wire };
        way.free = way.free.max(now + span);
        Some(way.free - now)
    }

    fn say_up(&mut self, worker: usize, up: Up) {
        let Some(link) = self.far.workers[worker].link else {
            return;
        };
        if let Some(after) = self.way(worker, link, true) {
            self.plan(after, Happening::Far(worker, Step::Up(link, up)));
        }
    }

    fn say_down(&mut self, session: SessionId, down: Down) {
        let Some(known) = self.far.sessions.get(&session) else {
            return;
        };
        let (Some(link), worker) = (known.link, known.worker) else {
            return;
        };
        if let Some(after) = self.way(worker, link, false) {
            self.plan(after, Happening::Far(worker, Step::Down(link, down)));
        }
    }
}

/// The worker's side.
impl World<'_> {
    fn connect(&mut self, worker: usize) {
        let far = &self.far.workers[worker];
        if !far.is_up || far.link.is_some() {
            return;
        }
        if self.lane.is_none() {
            // Nobody is there.
            return self.connect_later(worker);
        }
        self.far.links[worker].0 += 1;
        let link = self.far.links[worker].0;
        let hello = self.far.workers[worker].hello(link, self.now);
        self.say_up(worker, hello);
    }

    fn connect_later(&mut self, worker: usize) {
        let process = self.far.workers[worker].process;
        let after = self.rng.magnitude(100_000, 5_000_000);
        self.plan(after, Happening::Far(worker, Step::Connect(process)));
    }

    fn hang_up(&mut self, worker: usize) {
        self.say_up(worker, Up::HangUp);
        let far = &mut self.far.workers[worker];
        far.link = None;
        far.is_welcome = false;
        self.connect_later(worker);
    }

    /// Says what there is to say.
    fn flush_up(&mut self, worker: usize) {
        let far = &mut self.far.workers[worker];
        if far.is_welcome {
            let said = far.say();
            self.say_up(worker, Up::Say(said));
        }
    }

    fn pulse(&mut self, worker: usize) {
        let (now, wall) = (self.now, self.wall());
        let far = &mut self.far.workers[worker];
        let process = far.process;
        if far.lease_from.is_some() && !far.may_run(now) {
            far.lease_from = None;
            self.far_abandons(worker);
        }
        let far = &mut self.far.workers[worker];
        if let Some(until) = far.draining {
            let over = now >= until;
            if over {
                let lost = self.worker.die(worker + 1, true, wall);
                for report in lost {
                    let back = gone(of(&report), wall, true);
                    self.far.workers[worker].report(back);
                }
            }
            let heard = self.far.workers[worker].held.is_empty();
            if heard || now >= until + LAST_WORDS {
                return self.leave(worker);
            }
        }
        let far = &mut self.far.workers[worker];
        if far.link.is_some() && now - far.heard_at > PATIENCE {
            self.hang_up(worker);
        } else if far.is_welcome {
            let said = Said {
                beat: Some(now),
                ..far.say()
            };
            self.say_up(worker, Up::Say(said));
        }
        self.plan(PULSE, Happening::Far(worker, Step::Pulse(process)));
    }

    /// Says its last words and goes; another process comes later.
    fn leave(&mut self, worker: usize) {
        let far = &mut self.far.workers[worker];
        if far.is_welcome {
            let said = Said {
                leaving: true,
                ..far.say()
            };
            self.say_up(worker, Up::Say(said));
        }
        self.far.workers[worker].ends(Vec::new());
        let after = self.rng.magnitude(1_000_000, 120_000_000);
        self.plan(after, Happening::Far(worker, Step::Begin));
    }

    /// What is here ends as lost, and is said if anybody hears it.
    fn far_abandons(&mut self, worker: usize) {
        let wall = self.wall();
        for report in self.worker.die(worker + 1, true, wall) {
            let lost = gone(of(&report), wall, true);
            self.far.workers[worker].report(lost);
        }
        self.flush_up(worker);
    }

    fn worker_hears(&mut self, worker: usize, down: Down) {
        let now = self.now;
        let far = &mut self.far.workers[worker];
        far.heard_at = now;
        match down {
            Down::Welcome(session, resumed) => {
                if !resumed {
                    if far.same_process {
                        // Its session was over, so what is here runs elsewhere by now.
                        let wall = self.wall();
                        self.worker.die(worker + 1, true, wall);
                    }
                    self.far.workers[worker].forget();
                }
                self.far.workers[worker].enter(session);
                self.flush_up(worker);
            }
            Down::Tasks(batch, tasks) => {
                let is_new = |held: &Holding| !far.held.contains_key(&name(held));
                let new: Vec<Holding> = tasks.into_iter().filter(is_new).collect();
                far.received = far.received.max(batch);
                far.held
                    .extend(new.iter().map(|held| (name(held), held.clone())));
                let may_run = far.may_run(now) && far.draining.is_none();
                let names: Vec<Name> = new.iter().map(name).collect();
                if may_run {
                    let acts = self.with_worker(|all, around| all.take(&names, around));
                    self.act(acts);
                } else {
                    let wall = self.wall();
                    for name in names {
                        self.worker.forget(&name);
                        self.far.workers[worker].report(gone(name, wall, true));
                    }
                }
                self.flush_up(worker);
            }
            Down::Stops(names) => {
                let acts = self.with_worker(|all, around| all.stop(&names, around));
                self.act(acts);
            }
            Down::Taken(numbers) => far.taken(&numbers),
            Down::Beat(asked_at) => far.lease_from = far.lease_from.max(Some(asked_at)),
            Down::Drain(grace) => {
                far.draining = far.draining.or(Some(now + grace));
                self.flush_up(worker);
            }
        }
    }

    /// What runs at a worker reports.
    pub(super) fn far_reports(&mut self, worker: usize, report: Report) {
        self.far.workers[worker].report(report);
        self.flush_up(worker);
    }
}
