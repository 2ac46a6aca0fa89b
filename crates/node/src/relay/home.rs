//! The home of workers: what they report, and what they hold for whom.

use std::collections::BTreeMap;

use kapell_api::task::{Report, Task, TaskEvent};
use kapell_api::worker::{Holding, Queues};
use kapell_model::{NodeId, SessionId, Shard};

use super::{Held, Home, Name, Output, Relay, nothing};
use crate::lane::SessionChange;
use crate::lend::Takes;
use crate::members::Instant;

impl Relay {
    /// Workers report.
    pub fn reports(&mut self, reports: Vec<Report>) {
        let mut to: BTreeMap<NodeId, Vec<Report>> = BTreeMap::new();
        for report in reports {
            let name = (report.run, report.place, report.offer);
            let owner = (self.owner.0)(report.run.shard()).unwrap_or(self.me);
            if let TaskEvent::Ended { .. } = report.event
                && let Some(held) = self.held.get_mut(&name)
            {
                if held.end.is_none() {
                    self.lender.gives_back(held.session, held.from, &held.takes);
                }
                held.end = Some((report.clone(), self.now));
            }
            to.entry(owner).or_default().push(report);
        }
        for (node, reports) in to {
            self.report(node, reports);
        }
        self.settle();
    }

    /// Something is said of a session of a worker here.
    pub fn session(&mut self, id: SessionId, change: SessionChange) {
        match change {
            SessionChange::Open { seat, holds, whole } => {
                self.far.remove(&id);
                let whole = whole || !self.homes.contains_key(&id);
                let home = Home {
                    queues: seat.queues.clone(),
                    unheard: false,
                };
                self.homes.insert(id, home);
                self.lender.set(id, seat.clone());
                for holding in &holds {
                    self.holds(id, holding);
                }
                let all: Vec<NodeId> = self.nodes.iter().copied().chain([self.me]).collect();
                for node in all {
                    let change = SessionChange::Open {
                        seat: nothing(&seat.queues),
                        holds: self.holds_of(id, node),
                        whole,
                    };
                    self.say(node, id, change);
                    self.lender.untold(id, node);
                }
                self.settle();
            }
            SessionChange::Seat(seat) => {
                self.lender.set(id, seat);
                self.settle();
            }
            SessionChange::Unheard(queues) => {
                let home = Home {
                    queues: queues.clone(),
                    unheard: true,
                };
                self.homes.insert(id, home);
                self.say_all(id, &SessionChange::Unheard(queues));
            }
            SessionChange::Over => {
                self.homes.remove(&id);
                self.lender.remove(id);
                self.held.retain(|_, held| held.session != id);
                self.say_all(id, &SessionChange::Over);
            }
            // Of one node alone.
            change @ SessionChange::Holds(_) => self.out.push(Output::Session(id, change)),
        }
    }

    /// A node has taken over shards: nothing that was granted before goes out, and it hears what is held.
    pub(super) fn taken_over(&mut self, node: NodeId, shards: &[(Shard, u64)]) {
        let new: BTreeMap<Shard, u64> = shards.iter().copied().collect();
        for (shard, epoch) in shards {
            let floor = self.floors.entry(*shard).or_default();
            *floor = (*floor).max(*epoch);
        }
        for (name, held) in &mut self.held {
            if held.from == node || !new.contains_key(&name.0.shard()) {
                continue;
            }
            if held.end.is_none() {
                self.lender.gives_back(held.session, held.from, &held.takes);
                self.lender.takes(held.session, node, &held.takes);
            }
            held.from = node;
            if let Some((_, said_at)) = &mut held.end {
                *said_at = Instant::default();
            }
        }
        let sessions: Vec<(SessionId, Queues, bool)> = self
            .homes
            .iter()
            .map(|(id, home)| (*id, home.queues.clone(), home.unheard))
            .collect();
        for (id, queues, unheard) in sessions {
            if node == self.me {
                self.out
                    .push(Output::Session(id, SessionChange::Unheard(queues)));
            }
            if !unheard {
                let holds = self.holds_of(id, node);
                self.say(node, id, SessionChange::Holds(holds));
            }
        }
        self.settle();
    }

    /// Attempts go to workers here, unless they are there already or come from an owner of before.
    pub(super) fn hand_out(&mut self, from: NodeId, tasks: Vec<Task>) {
        let mut here = Vec::new();
        let mut lost = Vec::new();
        for task in tasks {
            let name = (task.run, task.place, task.offer);
            let floor = self.floors.get(&task.run.shard()).copied().unwrap_or(0);
            if task.offer.epoch < floor || self.held.contains_key(&name) {
                continue;
            }
            if !self.homes.contains_key(&task.session) {
                lost.push(self.lost(&task));
                continue;
            }
            let process = task.work.process();
            let takes = Takes {
                light: process.is_none(),
                needs: process
                    .map(|process| process.resources.clone())
                    .unwrap_or_default(),
            };
            self.lender.takes(task.session, from, &takes);
            let held = Held {
                session: task.session,
                from,
                attempt: task.attempt,
                takes,
                end: None,
            };
            self.held.insert(name, held);
            here.push(task);
        }
        if !here.is_empty() {
            self.out.push(Output::Offer(here));
        }
        self.report(from, lost);
        self.settle();
    }

    /// A worker that came here holds an attempt.
    pub(super) fn holds(&mut self, session: SessionId, holding: &Holding) {
        let name = (holding.run, holding.place, holding.offer);
        let from = (self.owner.0)(holding.run.shard()).unwrap_or(self.me);
        let takes = Takes {
            light: holding.light,
            needs: holding.needs.clone(),
        };
        if !self.held.contains_key(&name) {
            self.lender.takes(session, from, &takes);
            let held = Held {
                session,
                from,
                attempt: holding.attempt,
                takes,
                end: None,
            };
            self.held.insert(name, held);
        }
    }

    /// What a session here holds of runs that a node owns.
    pub(super) fn holds_of(&self, id: SessionId, node: NodeId) -> Vec<Holding> {
        let held = self.held.iter().filter(|(name, held)| {
            held.session == id && (self.owner.0)(name.0.shard()).unwrap_or(self.me) == node
        });
        let holding = |(name, held): (&Name, &Held)| Holding {
            run: name.0,
            place: name.1,
            offer: name.2,
            attempt: held.attempt,
            light: held.takes.light,
            needs: held.takes.needs.clone(),
        };
        held.map(holding).collect()
    }

    /// Ends here that were taken.
    pub(super) fn over(&mut self, names: &[Name]) {
        for name in names {
            self.held.remove(name);
        }
        if !names.is_empty() {
            self.out.push(Output::Taken(names.to_vec()));
        }
    }
}
