//! Workers whose home another node is, and what is said to a node that may have missed something.

use std::collections::{BTreeMap, BTreeSet};

use kapell_api::task::{Outcome, Report, Task, TaskEvent};
use kapell_api::worker::{Holding, Queues};
use kapell_model::{NodeId, SessionId, Shard};

use super::{Far, Name, Output, Relay, Word, nothing};
use crate::lane::SessionChange;
use crate::members::Instant;

/// Why an attempt was lost that its worker does not hold.
const ON_THE_WAY: &str = "it did not arrive at its worker";

/// Attempts of runs that are owned here, at workers of other homes.
#[derive(Debug, Default)]
pub(super) struct Given {
    sessions: BTreeMap<Name, SessionId>,
    at: BTreeMap<SessionId, BTreeSet<Name>>,
}

impl Given {
    pub(super) fn insert(&mut self, name: Name, session: SessionId) {
        self.remove(&name);
        self.sessions.insert(name, session);
        self.at.entry(session).or_default().insert(name);
    }

    pub(super) fn session(&self, name: &Name) -> Option<SessionId> {
        self.sessions.get(name).copied()
    }

    fn remove(&mut self, name: &Name) {
        let Some(session) = self.sessions.remove(name) else {
            return;
        };
        if let Some(names) = self.at.get_mut(&session) {
            names.remove(name);
            if names.is_empty() {
                self.at.remove(&session);
            }
        }
    }

    /// What a session had, which is forgotten.
    fn take_of(&mut self, session: SessionId) -> BTreeSet<Name> {
        let names = self.at.remove(&session).unwrap_or_default();
        for name in &names {
            self.sessions.remove(name);
        }
        names
    }

    /// Runs in these shards are owned here no more.
    pub(super) fn forget(&mut self, shards: &BTreeSet<Shard>) {
        let gone = self.sessions.keys();
        let gone = gone.filter(|name| shards.contains(&name.0.shard()));
        for name in gone.copied().collect::<Vec<_>>() {
            self.remove(&name);
        }
    }
}

impl Relay {
    /// The store has the row of a session: its worker said hello at this home with that number. It may hold
    /// attempts. What was heard of a later hello counts more, and of an earlier one nothing: its home may not know
    /// that it is one no more.
    pub fn known(&mut self, id: SessionId, (home, hello): (NodeId, u64), queues: Queues) {
        if let Some(here) = self.homes.get(&id) {
            if home != self.me && hello > here.hello {
                self.moved(id, (home, hello));
            }
            return;
        }
        let heard = |far: &Far| far.home == home || hello <= far.hello;
        if self.far.get(&id).is_some_and(heard) {
            return;
        }
        // Its row may outlive a session that was over here.
        let gone = self.knows_nodes && !self.nodes.contains(&home);
        let far = Far {
            home,
            queues: queues.clone(),
            hello,
            until: gone.then(|| self.now.plus(self.lease)),
        };
        self.far.insert(id, far);
        self.name_queues();
        self.out
            .push(Output::Session(id, SessionChange::Unheard(queues)));
    }

    /// True if the home of a session is this node.
    pub fn is_here(&self, id: SessionId) -> bool {
        self.homes.contains_key(&id)
    }

    /// True if a node is there.
    pub fn is_there(&self, node: NodeId) -> bool {
        node == self.me || self.nodes.contains(&node)
    }

    /// Where an attempt of a run is that is owned here, if that is another node.
    pub(super) fn home_of(&self, name: &Name) -> Option<NodeId> {
        let session = self.given.session(name)?;
        self.far.get(&session).map(|far| far.home)
    }

    /// All that matters is said to a node.
    pub(super) fn say_all_to(&mut self, node: NodeId) {
        self.lender.untold_node(node);
        self.list(node);
        let homes: Vec<(SessionId, Queues, bool)> = self
            .homes
            .iter()
            .map(|(id, home)| (*id, home.queues.clone(), home.unheard))
            .collect();
        for (id, queues, unheard) in homes {
            if unheard {
                self.say(node, id, SessionChange::Unheard(queues));
            } else {
                self.say_open(node, id, &queues);
            }
        }
        let owns = self.owns.iter().map(|(shard, epoch)| (*shard, *epoch));
        let took = Word::Took(self.told, owns.collect());
        self.out.push(Output::Tell(node, took));
        self.out
            .push(Output::Tell(node, Word::Wants(self.asking.said())));
        if let Some(sent) = self.sent.get_mut(&node) {
            // A home that was asked since takes none that were granted before: they are lost on the way.
            let owns = &self.owns;
            sent.retain(|(run, _, offer), _| {
                owns.get(&run.shard())
                    .is_some_and(|epoch| offer.epoch >= *epoch)
            });
            let again: Vec<Task> = sent.values().cloned().collect();
            if !again.is_empty() {
                self.out.push(Output::Tell(node, Word::Offer(again)));
            }
        }
        let stops: Vec<Name> = self
            .stops
            .iter()
            .filter(|name| self.home_of(name) == Some(node))
            .copied()
            .collect();
        if !stops.is_empty() {
            self.out.push(Output::Tell(node, Word::Stop(stops)));
        }
        for (_, held) in self.held.iter_mut() {
            if let Some((_, said_at)) = &mut held.end {
                // With the next tick.
                *said_at = Instant::default();
            }
        }
        self.settle();
    }

    /// Says which sessions are here.
    pub(super) fn list(&mut self, node: NodeId) {
        let here = self.homes.keys().copied().collect();
        self.out.push(Output::Tell(node, Word::Sessions(here)));
    }

    /// The home of a session is gone, or does not know it: another is waited for.
    pub(super) fn away(&mut self, id: SessionId) {
        let until = self.now.plus(self.lease);
        let Some(far) = self.far.get_mut(&id) else {
            return;
        };
        if far.until.is_none() {
            far.until = Some(until);
            let nothing = SessionChange::Seat(nothing(&far.queues));
            self.out.push(Output::Session(id, nothing));
        }
    }

    /// A session elsewhere is over.
    pub(super) fn far_over(&mut self, id: SessionId) {
        self.far.remove(&id);
        for name in self.given.take_of(id) {
            self.stops.remove(&name);
        }
        for sent in self.sent.values_mut() {
            sent.retain(|_, task| task.session != id);
        }
        self.name_queues();
        self.out.push(Output::Session(id, SessionChange::Over));
    }

    /// A session that was elsewhere is here from now on, with what it holds.
    pub(super) fn comes_here(&mut self, id: SessionId, holds: &[Holding]) {
        if self.far.remove(&id).is_none() {
            return;
        }
        for sent in self.sent.values_mut() {
            sent.retain(|_, task| task.session != id);
        }
        let there: BTreeSet<Name> = holds.iter().map(named).collect();
        let given = self.given.take_of(id);
        let stops: Vec<Name> = there.intersection(&self.stops).copied().collect();
        self.stops.retain(|name| !given.contains(name));
        self.lose(given.difference(&there).copied().collect());
        if !stops.is_empty() {
            // After it was told what the worker holds.
            self.out.push(Output::Stop(stops));
        }
    }

    /// Another node says something of a session whose home it is.
    pub(super) fn far_session(&mut self, node: NodeId, id: SessionId, change: SessionChange) {
        let is_home = self.far.get(&id).is_some_and(|far| far.home == node);
        match change {
            SessionChange::Open { seat, holds, hello } => {
                if self.is_outdated(node, id, hello) {
                    return;
                }
                self.far_open(node, id, (seat, holds, hello));
            }
            SessionChange::Unheard(queues) => {
                self.homes.remove(&id);
                let far = Far {
                    home: node,
                    queues: queues.clone(),
                    hello: 0,
                    until: None,
                };
                self.far.insert(id, far);
                self.name_queues();
                self.out
                    .push(Output::Session(id, SessionChange::Unheard(queues)));
            }
            SessionChange::Over if is_home => self.far_over(id),
            SessionChange::Seat(seat) if is_home => {
                self.out
                    .push(Output::Session(id, SessionChange::Seat(seat)));
            }
            // From a home before: the session has moved. What is held is said by a word of its own.
            SessionChange::Over | SessionChange::Seat(_) | SessionChange::Holds(_) => {}
        }
    }

    /// True if a node says that a session is there which was at another home since. That node has not heard
    /// of it: if the home is this one it says so.
    fn is_outdated(&mut self, node: NodeId, id: SessionId, hello: u64) -> bool {
        if let Some(home) = self.homes.get(&id) {
            let outdated = hello != 0 && hello < home.hello;
            let queues = home.queues.clone();
            if outdated {
                self.say_open(node, id, &queues);
                self.lender.untold(id, node);
                self.settle();
            }
            return outdated;
        }
        let far = self.far.get(&id).filter(|far| far.home != node);
        far.is_some_and(|far| hello != 0 && hello < far.hello)
    }

    /// A session is at another node, as the store says, and that has not been heard.
    pub fn moved(&mut self, id: SessionId, (home, hello): (NodeId, u64)) {
        let Some(here) = self.homes.get(&id) else {
            return;
        };
        let far = Far {
            home,
            queues: here.queues.clone(),
            hello: hello.max(here.hello),
            until: None,
        };
        let nothing = SessionChange::Seat(nothing(&far.queues));
        self.leaves(id);
        self.far.insert(id, far);
        self.name_queues();
        self.out.push(Output::Session(id, nothing));
        if !self.nodes.contains(&home) && self.knows_nodes {
            self.away(id);
        }
    }

    /// A session has another home: what it holds of runs that are owned here is there.
    fn leaves(&mut self, id: SessionId) {
        if self.homes.remove(&id).is_none() {
            return;
        }
        self.lender.remove(id);
        for name in self.held.take_open_at(id) {
            if self.owns.contains_key(&name.0.shard()) {
                self.given.insert(name, id);
            }
        }
        self.out.push(Output::Forget(id));
    }

    fn far_open(
        &mut self,
        node: NodeId,
        id: SessionId,
        (seat, holds, hello): (crate::lane::Seat, Vec<Holding>, u64),
    ) {
        self.leaves(id);
        let far = Far {
            home: node,
            queues: seat.queues.clone(),
            hello,
            until: None,
        };
        let before = self.far.insert(id, far).map(|far| far.home);
        self.name_queues();
        for (home, sent) in &mut self.sent {
            if *home != node {
                sent.retain(|_, task| task.session != id);
            }
        }
        // What is held counts only once the last question is answered: a node before may have handed out more.
        let answered = self.has_answered(node);
        let lost = self.compare(node, id, &holds);
        self.out.push(Output::Session(
            id,
            if answered {
                SessionChange::Open { seat, holds, hello }
            } else {
                SessionChange::Seat(seat)
            },
        ));
        self.lose(lost);
        if before == Some(node) {
            return;
        }
        let stops: Vec<Name> = self
            .stops
            .iter()
            .filter(|name| self.given.session(name) == Some(id))
            .copied()
            .collect();
        if !stops.is_empty() {
            self.out.push(Output::Tell(node, Word::Stop(stops)));
        }
    }

    /// The home of a session says what that holds, in answer to a question.
    pub(super) fn far_holds(
        &mut self,
        node: NodeId,
        number: u64,
        id: SessionId,
        holds: Vec<Holding>,
    ) {
        let is_home = self.far.get(&id).is_some_and(|far| far.home == node);
        if number != self.asked || !is_home {
            return;
        }
        let lost = self.compare(node, id, &holds);
        self.out
            .push(Output::Session(id, SessionChange::Holds(holds)));
        self.lose(lost);
    }

    /// What a session should hold of runs that are owned here, and neither does nor will.
    fn compare(&mut self, node: NodeId, id: SessionId, holds: &[Holding]) -> Vec<Name> {
        for holding in holds {
            if self.owns.contains_key(&holding.run.shard()) {
                self.given.insert(named(holding), id);
            }
        }
        let there: BTreeSet<Name> = holds.iter().map(named).collect();
        let sent = self.sent.get(&node);
        let comes = |name: &Name| sent.is_some_and(|sent| sent.contains_key(name));
        let given = self.given.at.get(&id).into_iter().flatten();
        let lost: Vec<Name> = given
            .filter(|name| !there.contains(name) && !comes(name))
            .copied()
            .collect();
        for name in &lost {
            self.given.remove(name);
            self.stops.remove(name);
        }
        lost
    }

    fn lose(&mut self, names: Vec<Name>) {
        if !names.is_empty() {
            let lost = names.into_iter().map(|name| self.lost(name, ON_THE_WAY));
            let lost = lost.collect();
            self.out.push(Output::Reports(lost));
        }
    }

    /// These sessions are at a node, and no others.
    pub(super) fn far_sessions(&mut self, node: NodeId, sessions: &[SessionId]) {
        let here: BTreeSet<SessionId> = sessions.iter().copied().collect();
        let gone: Vec<SessionId> = self
            .far
            .iter()
            .filter(|(id, far)| far.home == node && !here.contains(id))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.away(id);
        }
    }

    /// True if a node has answered the last question.
    fn has_answered(&self, node: NodeId) -> bool {
        self.answered.get(&node).copied().unwrap_or(0) == self.asked
    }

    /// True if a node says that an attempt is lost whose worker has another home by now: that one knows.
    fn is_lost_elsewhere(&self, node: NodeId, report: &Report) -> bool {
        let lost = matches!(
            report.event,
            TaskEvent::Ended {
                outcome: Outcome::Lost { .. },
                ..
            }
        );
        let name = (report.run, report.place, report.offer);
        let here = || {
            let held = self.held.get(&name);
            held.is_some_and(|held| held.end.is_none() && self.homes.contains_key(&held.session))
        };
        lost && (self.home_of(&name).is_some_and(|home| home != node) || here())
    }

    /// Another node says what its workers report. Ends mean nothing to the lane before it has heard what is held:
    /// they are said again after that.
    pub(super) fn far_reports(&mut self, node: NodeId, mut reports: Vec<Report>) {
        if !self.has_answered(node) {
            reports.retain(|report| !matches!(report.event, TaskEvent::Ended { .. }));
        }
        let stale: Vec<Name> = reports
            .iter()
            .filter(|report| self.is_lost_elsewhere(node, report))
            .map(|report| (report.run, report.place, report.offer))
            .collect();
        if !stale.is_empty() {
            reports.retain(|report| !stale.contains(&(report.run, report.place, report.offer)));
            self.out.push(Output::Tell(node, Word::Taken(stale)));
        }
        for report in &reports {
            let name = (report.run, report.place, report.offer);
            if let Some(sent) = self.sent.get_mut(&node) {
                sent.remove(&name);
            }
            if matches!(report.event, TaskEvent::Ended { .. }) {
                if self.owns.contains_key(&name.0.shard()) {
                    self.reported.insert(name, node);
                }
                self.given.remove(&name);
                self.stops.remove(&name);
            }
        }
        if !reports.is_empty() {
            self.out.push(Output::Reports(reports));
        }
    }
}

fn named(holding: &Holding) -> Name {
    (holding.run, holding.place, holding.offer)
}
