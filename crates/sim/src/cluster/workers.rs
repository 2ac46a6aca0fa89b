//! Workers, as their processes know themselves: each is connected to one node, and goes to another when it
//! hears nothing, with what it holds.

use kapell_api::task::Report;
use kapell_api::worker::Holding;

use super::node::Step as NodeStep;
use super::{Cluster, Happening};
use crate::far::{Down, Far, LAST_WORDS, Name, PATIENCE, PULSE, Said, Up, gone, name, of};

/// What comes to a worker.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A process of it begins.
    Begin,
    /// It connects.
    Connect(u64),
    /// It looks at its lease and its connection.
    Pulse(u64),
    /// It hears something on a connection.
    Down(u64, Down),
    /// The other side has ended a connection.
    Ended(u64),
}

/// One way of a worker's connection.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// What is said before then is lost.
    pub(super) cut_until: i64,
    pub(super) slow_until: i64,
    /// How long the slow way takes.
    pub(super) span: i64,
    free: i64,
    /// Connections up to this one carry nothing more.
    pub(super) broken: u64,
}

/// The connections of a worker.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// The number of the last one.
    pub(super) number: u64,
    /// Where that goes.
    pub(super) node: usize,
    pub(super) up: Way,
    pub(super) down: Way,
}

impl Cluster<'_> {
    /// True if no worker has anything, or has anything to say.
    pub(super) fn are_workers_idle(&self) -> bool {
        self.far
            .iter()
            .all(|far| far.held.is_empty() && far.ends.is_empty())
    }

    /// All workers begin.
    pub(super) fn far_begin(&mut self) {
        for (worker, far) in self.scenario.far.iter().enumerate() {
            self.far.push(Far::default());
            self.lines.push(Line::default());
            self.worker.hire(worker + 1, far.slots);
            let after = self.rng.magnitude(1_000, 30_000_000);
            self.plan(after, Happening::Far(worker, Step::Begin));
        }
    }

    pub(super) fn far_step(&mut self, worker: usize, step: Step) {
        let process = self.far[worker].process;
        self.note(|| {
            let step = format!("{step:?}");
            let step: String = step.chars().take(400).collect();
            format!("worker {worker}: {step}")
        });
        match step {
            Step::Begin => {
                let far = &mut self.far[worker];
                if !far.is_up {
                    far.is_up = true;
                    self.plan(0, Happening::Far(worker, Step::Connect(process)));
                    self.plan(PULSE, Happening::Far(worker, Step::Pulse(process)));
                }
            }
            Step::Connect(by) if by == process => self.connect(worker),
            Step::Pulse(by) if by == process => self.pulse(worker),
            Step::Connect(_) | Step::Pulse(_) => {}
            Step::Down(link, down) => {
                let far = &self.far[worker];
                if far.is_up && far.link == Some(link) && link > self.lines[worker].down.broken {
                    self.worker_hears(worker, down);
                }
            }
            Step::Ended(link) => {
                if self.far[worker].link == Some(link) {
                    self.hang_up(worker);
                }
            }
        }
    }

    /// How long what is said takes; none if it is lost.
    fn line(&mut self, worker: usize, link: u64, up: bool) -> Option<i64> {
        let wire = self.rng.between(1, self.scenario.knobs.wire);
        let now = self.now;
        let lines = &mut self.lines[worker];
        let way = if up { &mut lines.up } else { &mut lines.down };
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
        let Some(link) = self.far[worker].link else {
            return;
        };
        if let Some(after) = self.line(worker, link, true) {
            let node = self.lines[worker].node;
            self.later(node, after, NodeStep::Up(worker, link, up));
        }
    }

    /// Something goes to a worker on this connection.
    pub(super) fn say_down(&mut self, worker: usize, link: u64, down: Down) {
        if let Some(after) = self.line(worker, link, false) {
            self.plan(after, Happening::Far(worker, Step::Down(link, down)));
        }
    }

    fn connect(&mut self, worker: usize) {
        let far = &self.far[worker];
        if !far.is_up || far.link.is_some() {
            return;
        }
        let line = &mut self.lines[worker];
        // Where it was, or anywhere.
        if self.rng.chance(600) {
            line.node = self.rng.place(self.nodes.len());
        }
        let node = &self.nodes[line.node];
        let cut = self.now < line.up.cut_until || self.now < line.down.cut_until;
        if node.process.is_none() || node.paused_until > self.now || cut && self.rng.chance(500) {
            line.node = self.rng.place(self.nodes.len());
            // The cut is the way to one node.
            (line.up.cut_until, line.down.cut_until) = (0, 0);
            self.connect_later(worker);
            return;
        }
        line.number += 1;
        let link = line.number;
        line.up.free = self.now;
        line.down.free = self.now;
        let hello = self.far[worker].hello(link, self.now);
        self.say_up(worker, hello);
    }

    fn connect_later(&mut self, worker: usize) {
        let process = self.far[worker].process;
        let after = self.rng.magnitude(100_000, 5_000_000);
        self.plan(after, Happening::Far(worker, Step::Connect(process)));
    }

    fn hang_up(&mut self, worker: usize) {
        self.say_up(worker, Up::HangUp);
        let far = &mut self.far[worker];
        far.link = None;
        far.is_welcome = false;
        self.connect_later(worker);
    }

    /// A node's process is gone: connections to it end, which some notice at once.
    pub(super) fn workers_lose(&mut self, at: usize) {
        for worker in 0..self.far.len() {
            let line = &mut self.lines[worker];
            if line.node != at {
                continue;
            }
            (line.up.broken, line.down.broken) = (line.number, line.number);
            let far = &mut self.far[worker];
            if far.link.is_some() && self.rng.chance(700) {
                far.link = None;
                far.is_welcome = false;
                self.connect_later(worker);
            }
        }
    }

    /// Says what there is to say.
    fn flush_up(&mut self, worker: usize) {
        let far = &mut self.far[worker];
        if far.is_welcome {
            let said = far.say();
            self.say_up(worker, Up::Say(said));
        }
    }

    fn pulse(&mut self, worker: usize) {
        let (now, wall) = (self.now, self.wall());
        let far = &mut self.far[worker];
        let process = far.process;
        if far.lease_from.is_some() && !far.may_run(now) {
            far.lease_from = None;
            self.far_abandons(worker);
        }
        let far = &mut self.far[worker];
        if let Some(until) = far.draining {
            if now >= until {
                for back in self.worker.die(worker + 1, true, wall) {
                    let back = gone(of(&back), wall, true);
                    self.far[worker].report(back);
                }
            }
            let heard = self.far[worker].held.is_empty();
            if heard || now >= until + LAST_WORDS {
                return self.leave(worker);
            }
        }
        let far = &mut self.far[worker];
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
        let far = &mut self.far[worker];
        if far.is_welcome {
            let said = Said {
                leaving: true,
                ..far.say()
            };
            self.say_up(worker, Up::Say(said));
        }
        self.far[worker].ends(Vec::new());
        let after = self.rng.magnitude(1_000_000, 120_000_000);
        self.plan(after, Happening::Far(worker, Step::Begin));
    }

    /// What is here ends as lost, and is said if anybody hears it.
    fn far_abandons(&mut self, worker: usize) {
        let wall = self.wall();
        for report in self.worker.die(worker + 1, true, wall) {
            let lost = gone(of(&report), wall, true);
            self.far[worker].report(lost);
        }
        self.flush_up(worker);
    }

    /// The process of a worker dies.
    pub(super) fn far_dies(&mut self, worker: usize, down: i64) {
        if self.far[worker].is_up {
            let wall = self.wall();
            let lost = self.worker.die(worker + 1, false, wall);
            let lost = lost.iter().map(of).collect();
            self.say_up(worker, Up::HangUp);
            self.far[worker].ends(lost);
            self.plan(down, Happening::Far(worker, Step::Begin));
        }
    }

    fn worker_hears(&mut self, worker: usize, down: Down) {
        let now = self.now;
        let far = &mut self.far[worker];
        far.heard_at = now;
        match down {
            Down::Welcome(session, resumed) => {
                if !resumed {
                    if far.same_process {
                        // Its session was over, so what is here runs elsewhere by now.
                        let wall = self.wall();
                        self.worker.die(worker + 1, true, wall);
                    }
                    self.far[worker].forget();
                }
                self.far[worker].enter(session);
                self.flush_up(worker);
            }
            Down::Tasks(batch, tasks) => self.worker_gets(worker, batch, tasks),
            Down::Stops(names) => {
                let own = |name: &Name| self.worker.host_of(name) == Some(worker + 1);
                let names: Vec<Name> = names.into_iter().filter(own).collect();
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

    fn worker_gets(&mut self, worker: usize, batch: u64, tasks: Vec<Holding>) {
        let now = self.now;
        let far = &mut self.far[worker];
        let is_new = |held: &Holding| !far.held.contains_key(&name(held));
        let new: Vec<Holding> = tasks.into_iter().filter(is_new).collect();
        far.received = far.received.max(batch);
        far.held
            .extend(new.iter().map(|held| (name(held), held.clone())));
        let may_run = far.may_run(now) && far.draining.is_none();
        let names: Vec<Name> = new.iter().map(name).collect();
        if may_run {
            for name in &names {
                self.arrives(worker, name);
            }
            let acts = self.with_worker(|all, around| all.take(&names, around));
            self.act(acts);
        } else {
            let wall = self.wall();
            for name in names {
                self.far[worker].report(gone(name, wall, true));
            }
        }
        self.flush_up(worker);
    }

    /// An attempt is at a worker, where no other of its unit is at work.
    fn arrives(&mut self, worker: usize, name: &Name) {
        let Some(task) = self.tasks.get(name).cloned() else {
            return self.fail("arrives", format!("{name:?} was never handed out"));
        };
        let verdict = self.checks.arrives(&task, &self.worker);
        self.judge(verdict);
        let locks = self.sent.remove(name).unwrap_or_default();
        self.worker.expect(&task, locks, worker + 1);
    }

    /// What runs at a worker reports.
    pub(super) fn far_reports(&mut self, worker: usize, report: Report) {
        self.far[worker].report(report);
        self.flush_up(worker);
    }
}
