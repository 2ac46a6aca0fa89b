//! The home of workers: what they report, and what they hold for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kapell_api::task::{Report, Task, TaskEvent};
use kapell_api::worker::{Holding, Queues};
use kapell_model::{NodeId, SessionId, Shard};

use super::held::Held;
use super::{GONE, Home, Name, Output, Relay, Word, nothing};
use crate::lane::SessionChange;
use crate::lend::Takes;

impl Relay {
    /// Workers report.
    pub fn reports(&mut self, reports: Vec<Report>) {
        let mut to: BTreeMap<NodeId, Vec<Report>> = BTreeMap::new();
        for mut report in reports {
            let name = (report.run, report.place, report.offer);
            let owner = (self.owner.0)(report.run.shard()).unwrap_or(self.me);
            if let TaskEvent::Ended { .. } = report.event {
                // An end of which nothing else is known is kept as well, until it is taken.
                if !self.held.knows(&name) {
                    let held = Held {
                        session: SessionId(0),
                        from: owner,
                        attempt: 0,
                        takes: Takes::default(),
                        end: None,
                    };
                    self.held.insert(name, held);
                }
                let held = self.held.get_mut(&name);
                // The first word of it counts.
                if let Some(held) = held {
                    if let Some((first, _)) = &held.end {
                        report = first.clone();
                    } else {
                        self.lender.gives_back(held.session, held.from, &held.takes);
                        held.end = Some((report.clone(), self.now));
                    }
                }
            }
            to.entry(owner).or_default().push(report);
        }
        // First: who hears that an attempt of its ended would use its slot again, if that is another's now.
        self.settle();
        for (node, reports) in to {
            self.report(node, reports);
        }
    }

    /// Something is said of a session of a worker here.
    pub fn session(&mut self, id: SessionId, change: SessionChange) {
        match change {
            SessionChange::Open { seat, holds, hello } => {
                self.comes_here(id, &holds);
                let home = Home {
                    queues: seat.queues.clone(),
                    unheard: false,
                    hello,
                };
                self.homes.insert(id, home);
                self.lender.set(id, seat.clone());
                for holding in &holds {
                    self.holds(id, holding);
                }
                self.name_queues();
                let all: Vec<NodeId> = self.nodes.iter().copied().chain([self.me]).collect();
                for node in all {
                    self.say_open(node, id, &seat.queues);
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
                    hello: 0,
                };
                self.homes.insert(id, home);
                self.say_all(id, &SessionChange::Unheard(queues));
            }
            SessionChange::Over => {
                let far = self.far.get(&id).map(|far| (far.queues.clone(), far.hello));
                if let Some((queues, hello)) = far {
                    // It ends where it came last.
                    self.comes_here(id, &[]);
                    let open = SessionChange::Open {
                        seat: nothing(&queues),
                        holds: Vec::new(),
                        hello,
                    };
                    self.say_all(id, &open);
                }
                self.homes.remove(&id);
                self.lender.remove(id);
                // Ends are kept until they are taken.
                self.held.take_open_at(id);
                self.name_queues();
                self.say_all(id, &SessionChange::Over);
            }
            // Of one node alone.
            change @ SessionChange::Holds(_) => self.out.push(Output::Session(id, change)),
        }
    }

    /// It is said to a node that a session is here, and what it holds. The room that is lent comes after that.
    pub(super) fn say_open(&mut self, node: NodeId, id: SessionId, queues: &Queues) {
        let open = SessionChange::Open {
            seat: nothing(queues),
            holds: self.held.holdings_at(id),
            hello: self.homes.get(&id).map_or(0, |home| home.hello),
        };
        self.say(node, id, open);
        self.say_ends(node, Some(id));
    }

    /// Ends that are not taken are said again, after what is held: an owner that took one meanwhile would else
    /// count it as held.
    fn say_ends(&mut self, node: NodeId, of: Option<SessionId>) {
        let (owner, me, now) = (&self.owner.0, self.me, self.now);
        let say = |(name, held): (&Name, &mut Held)| {
            let (report, said_at) = held.end.as_mut()?;
            let its = owner(name.0.shard()).unwrap_or(me) == node;
            its.then(|| {
                *said_at = now;
                report.clone()
            })
        };
        let ends: Vec<Report> = match of {
            None => self.held.iter_mut().filter_map(say).collect(),
            Some(id) => {
                let names = self.held.names_at(id);
                let ends = names
                    .iter()
                    .filter_map(|name| say((name, self.held.get_mut(name)?)));
                ends.collect()
            }
        };
        self.report(node, ends);
    }

    /// A node has taken over shards: nothing that was granted before goes out, and it hears what is held.
    pub(super) fn taken_over(&mut self, node: NodeId, number: u64, shards: &[(Shard, u64)]) {
        let mut new = BTreeSet::new();
        for (shard, epoch) in shards {
            let floor = self.floors.entry(*shard).or_default();
            if *floor <= *epoch {
                *floor = *epoch;
                new.insert(*shard);
            }
        }
        for (name, held) in self.held.iter_mut() {
            if held.from == node || !new.contains(&name.0.shard()) {
                continue;
            }
            if held.end.is_none() {
                let pass = (held.from, node);
                self.lender.passes_on(held.session, pass, &held.takes);
            }
            held.from = node;
        }
        let heard = self.homes.iter().filter(|(_, home)| !home.unheard);
        for id in heard.map(|(id, _)| *id).collect::<Vec<_>>() {
            let holds = self.held.holdings_at(id);
            self.out.push(if node == self.me {
                Output::Session(id, SessionChange::Holds(holds))
            } else {
                Output::Tell(node, Word::Holds(number, id, holds))
            });
        }
        if node != self.me {
            self.out.push(Output::Tell(node, Word::Told(number)));
        }
        self.say_ends(node, None);
        self.settle();
    }

    /// Attempts go to workers here, unless they are there already or come from an owner of before.
    pub(super) fn hand_out(&mut self, from: NodeId, tasks: Vec<Task>) {
        let mut here = Vec::new();
        let mut lost = Vec::new();
        for task in tasks {
            let name = (task.run, task.place, task.offer);
            let floor = self.floors.get(&task.run.shard()).copied().unwrap_or(0);
            if task.offer.epoch < floor || self.held.knows(&name) {
                continue;
            }
            if !self.homes.contains_key(&task.session) {
                lost.push(self.lost(name, GONE));
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
    fn holds(&mut self, session: SessionId, holding: &Holding) {
        let name = (holding.run, holding.place, holding.offer);
        let from = (self.owner.0)(holding.run.shard()).unwrap_or(self.me);
        let takes = Takes {
            light: holding.light,
            needs: holding.needs.clone(),
        };
        if !self.held.knows(&name) {
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

    /// Ends here that were taken.
    pub(super) fn over(&mut self, names: &[Name]) {
        for name in names {
            self.held.remove(name);
        }
        if !names.is_empty() {
            self.out.push(Output::Taken(names.to_vec()));
        }
    }

    /// These queues are for workers that name them, also while none is there.
    pub fn keep_queues(&mut self, names: BTreeSet<Arc<str>>) {
        self.kept = names;
        self.name_queues();
        self.settle();
    }

    /// Queues that are kept, or that a worker names which is there.
    pub(super) fn name_queues(&mut self) {
        let homes = self.homes.values().map(|home| &home.queues);
        let mut names = self.kept.clone();
        for queues in homes.chain(self.far.values().map(|far| &far.queues)) {
            if let Queues::Named(named) = queues {
                names.extend(named.iter().cloned());
            }
        }
        self.lender.name(names);
    }
}
