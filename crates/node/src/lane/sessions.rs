//! What is said of workers' sessions: what they have to give, what they hold, that they are over.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use kapell_api::task::Report;
use kapell_api::worker::{Holding, Queues};
use kapell_model::{EntityKey, RunId, SessionId};

use super::{Lane, Seat, Slot, ToEntity};
use crate::entity::Entity;

/// What is said of a session.
#[derive(Clone, Debug)]
pub enum SessionChange {
    /// It may hold attempts of an owner before this one, in these queues, and has not said which.
    Unheard(Queues),
    /// What it has to give from now on, and what it holds that this owner may not know of: taken
    /// over if the run still waits for it, else stopped.
    Open {
        /// What it has to give.
        seat: Seat,
        /// What it holds.
        holds: Vec<Holding>,
        /// Which hello of its worker that was: of two homes the one with the later is. 0 where workers do not
        /// count.
        hello: u64,
    },
    /// What it has to give from now on.
    Seat(Seat),
    /// It holds these attempts, and no others, of runs that are owned here.
    Holds(Vec<Holding>),
    /// It is gone. Of what it held nothing else comes: what was not reported lost is so by this.
    Over,
}

impl Lane {
    pub(super) fn session(&mut self, session: SessionId, change: SessionChange) {
        let unheard = self.seats.not_heard();
        let look = match change {
            SessionChange::Unheard(queues) => {
                self.seats.expect(session, queues);
                false
            }
            SessionChange::Open { seat, holds, .. } => {
                let fits = self.seats.set(session, seat);
                self.holds(session, holds) || fits
            }
            SessionChange::Seat(seat) => self.seats.set(session, seat),
            SessionChange::Holds(holds) => self.holds(session, holds),
            SessionChange::Over => {
                self.seats.remove(session);
                self.lose_all_of(session);
                true
            }
        };
        if self.seats.not_heard() < unheard {
            self.heard_of_one();
        }
        // Where only the room lent here changes, nothing else fits: if it were looked at again it would want
        // room and give it back for ever.
        if look {
            self.look_again();
        }
    }

    /// These queues are left to workers that name them.
    pub(super) fn keep_queues(&mut self, names: BTreeSet<Arc<str>>) {
        self.seats.keep(names);
        self.look_again();
    }

    /// What nobody had room for may find a worker now.
    fn look_again(&mut self) {
        for id in std::mem::take(&mut self.parked) {
            self.wants(id);
        }
    }

    /// A session has said which attempts it holds. True if that was not known.
    fn holds(&mut self, session: SessionId, holds: Vec<Holding>) -> bool {
        let new = self.seats.hear(session);
        self.attach(session, holds);
        new
    }

    /// Attempts that a session has are taken over.
    fn attach(&mut self, session: SessionId, holds: Vec<Holding>) {
        let mut runs = BTreeSet::new();
        for holding in holds {
            if !self.owned().contains(holding.run.shard()) {
                // Another node's run, which hears of it there.
                continue;
            }
            if self.held.attach(session, &holding, &mut self.seats) {
                runs.insert(holding.run);
            } else {
                let attempt = (holding.run, holding.place, holding.offer);
                self.open.stops.push(attempt);
            }
        }
        for run in runs {
            self.submit(run.into(), ToEntity::Join, false);
        }
    }

    /// A session is gone, and with it what it held. What was granted since the last commit was sealed is not
    /// even sent: it is over before it is durable.
    fn lose_all_of(&mut self, session: SessionId) {
        let now = self.now;
        self.open.offers.retain(|task| task.session != session);
        let lost = |name| Report::lost(name, (now, now), ("its worker is gone", false));
        let lost: VecDeque<Report> = self.held.at(session).map(lost).collect();
        if !lost.is_empty() {
            // After what was reported of them.
            self.reports.push_back(lost);
        }
    }

    /// One session less is unheard of: attempts that none of the others may hold are gone, and what
    /// stood ready may be granted.
    fn heard_of_one(&mut self) {
        let all = self.seats.all_heard();
        let mut waiting = Vec::new();
        for (key, slot) in self.slots.iter_mut().filter(|(_, slot)| slot.stood_before) {
            slot.stood_before = !all;
            waiting.push(key.clone());
        }
        for key in waiting {
            self.submit(key, ToEntity::Join, false);
        }
        self.look_at_early();
    }

    /// A run's demand is looked at again.
    pub(super) fn wants(&mut self, id: RunId) {
        if let Some(Slot {
            entity: Entity::Run(run),
            ..
        }) = self.slots.get(&id.into())
        {
            self.demand.update(id, run, self.now);
        }
    }

    /// A run has come into memory, or workers have said what they hold of it: attempts that they
    /// still hold are attached, those of owners before that nobody can hold are lost, and those that
    /// the run does not wait for are stopped.
    pub(super) fn join_run(&mut self, id: RunId) {
        let held = self.held.of(id);
        let epoch = self.leases.get(&id.shard()).map_or(0, |lease| lease.epoch);
        let input = kapell_engine::Input::SessionsEnded {
            epoch,
            held: held.clone(),
            unheard: self.seats.unheard(),
        };
        let key = EntityKey::Run(id);
        self.deliver(&key, ToEntity::Run(Box::new(input)), false);
        if let Some(namespace) = self.namespace_of(id).cloned() {
            self.held.name(id, &namespace, &mut self.seats);
        }
        let Some(Slot {
            entity: Entity::Run(run),
            ..
        }) = self.slots.get(&key)
        else {
            return;
        };
        let unwanted: Vec<_> = held
            .iter()
            .filter(|held| {
                let flight = run.flight(held.place);
                flight.is_none_or(|flight| flight.offer != held.offer)
            })
            .map(|held| (held.place, held.offer))
            .collect();
        for (place, offer) in unwanted {
            self.open.stops.push((id, place, offer));
        }
    }

    /// There is no such run: what workers hold of it is stopped.
    pub(super) fn stop_all_of(&mut self, id: RunId) {
        for held in self.held.of(id) {
            self.open.stops.push((id, held.place, held.offer));
        }
    }

    /// Tells a run in which of its queues nobody takes its work: it says so to whoever looks.
    pub(super) fn tell_held_up(&mut self, key: &EntityKey) {
        let Some(Slot {
            entity: Entity::Run(run),
            stood_before,
            ..
        }) = self.slots.get_mut(key)
        else {
            return;
        };
        let (seats, demand, now) = (&self.seats, &self.demand, self.now);
        let held_up = run.demand().filter_map(|queue| {
            let why = if *stood_before && seats.is_unheard(queue) {
                format!("workers of queue `{queue}` that were there before the restart to say what they run")
            } else if seats.serve(queue) {
                return None;
            } else {
                format!("a worker that serves queue `{queue}`: there is none now")
            };
            Some((queue.clone(), why))
        });
        let held_up = held_up.collect();
        let EntityKey::Run(id) = key else { return };
        let risen = run.demand().filter_map(|queue| {
            let (own, risen) = demand.priority(*id, queue, now)?;
            (risen > own).then(|| (queue.clone(), risen))
        });
        run.live.risen = risen.collect();
        let namespace = &run.state.meta.namespace;
        let waits = demand.is_blocked(namespace)
            || self
                .over
                .get(namespace)
                .is_some_and(|runs| runs.contains(id));
        let why = || {
            let held = self.held.of_namespace(namespace);
            seats.quotas.why(namespace, self.config.alone, held)
        };
        run.live.quota = waits.then(why).flatten();
        run.live.held_up = held_up;
    }
}
