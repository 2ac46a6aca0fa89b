//! What is said of workers' sessions: what they have to give, what they hold, that they are over.

use std::collections::BTreeSet;
use std::sync::Arc;

use kapell_api::worker::{Holding, Queues};
use kapell_model::{EntityKey, RunId, SessionId};

use super::{Lane, Seat, Slot, ToEntity};
use crate::entity::Entity;

/// What is said of a session.
#[derive(Debug)]
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
    },
    /// It holds nothing more, or what it held was reported lost.
    Over,
    /// It serves these queues from now on.
    Serves(Queues),
    /// Queues that are done by workers who name them alone, whether one is there now or not.
    Kept(BTreeSet<Arc<str>>),
}

impl Lane {
    pub(super) fn session(&mut self, session: SessionId, change: SessionChange) {
        let heard = self.seats.all_heard();
        match change {
            SessionChange::Unheard(queues) => self.seats.expect(session, queues),
            SessionChange::Open { seat, holds } => {
                self.seats.set(session, seat);
                let mut runs = BTreeSet::new();
                for holding in holds {
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
            SessionChange::Over => self.seats.remove(session),
            SessionChange::Serves(queues) => self.seats.serves(session, queues),
            SessionChange::Kept(names) => self.seats.keep(names),
        }
        if !heard {
            self.heard_of_one();
        }
        for id in std::mem::take(&mut self.parked) {
            self.wants(id);
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
            if self.held.is_remote(id, place, offer) {
                self.open.stops.push((id, place, offer));
            }
        }
    }

    /// There is no such run: what workers hold of it is stopped.
    pub(super) fn stop_all_of(&mut self, id: RunId) {
        for held in self.held.of(id) {
            if self.held.is_remote(id, held.place, held.offer) {
                self.open.stops.push((id, held.place, held.offer));
            }
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
        run.live.held_up = held_up;
    }
}
