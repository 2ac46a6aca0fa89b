//! Attempts handed out whose end was not taken: they outlive the lane's memory.

use kapell_api::task::{Place, Report, Task, TaskResources};
use kapell_api::worker;
use kapell_engine::PlaceMap;
use kapell_engine::run::Holding;
use kapell_model::{Offer, RunId, SessionId, ShardSet};

use super::seats::Seats;

/// An attempt handed out.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    /// Names this handing-out.
    pub offer: Offer,
    /// From 1.
    pub attempt: u32,
    /// It starts nothing.
    pub light: bool,
    /// Whose worker has it.
    pub session: SessionId,
    /// What it takes of that.
    pub needs: TaskResources,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Held {
    places: PlaceMap<RunId, Grant>,
}

impl Held {
    /// An attempt is handed out.
    pub(super) fn hand_out(&mut self, task: &Task, seats: &mut Seats) {
        let process = task.work.process();
        let grant = Grant {
            offer: task.offer,
            attempt: task.attempt,
            light: process.is_none(),
            session: task.session,
            needs: process.map(|process| process.resources).unwrap_or_default(),
        };
        self.insert(task.run, task.place, grant, seats);
    }

    /// A worker says that it holds an attempt; false if the place is another's by now.
    pub(super) fn attach(
        &mut self,
        session: SessionId,
        holding: &worker::Holding,
        seats: &mut Seats,
    ) -> bool {
        if let Some(known) = self.places.get(holding.run, holding.place) {
            return known.offer == holding.offer;
        }
        let grant = Grant {
            offer: holding.offer,
            attempt: holding.attempt,
            light: holding.light,
            session,
            needs: holding.needs,
        };
        self.insert(holding.run, holding.place, grant, seats);
        true
    }

    /// The report of its end will be taken again: until then it is held as before.
    pub(super) fn take_back(&mut self, report: &Report, grant: Grant, seats: &mut Seats) {
        if !self.places.contains(report.run, report.place) {
            self.insert(report.run, report.place, grant, seats);
        }
    }

    fn insert(&mut self, run: RunId, place: Place, grant: Grant, seats: &mut Seats) {
        seats.take(&grant);
        if let Some(before) = self.places.insert(run, place, grant) {
            seats.give_back(&before);
        }
    }

    /// An attempt is over; returns it if it was handed out.
    pub(super) fn land(
        &mut self,
        run: RunId,
        place: Place,
        offer: Offer,
        seats: &mut Seats,
    ) -> Option<Grant> {
        let held = self
            .places
            .remove_if(run, place, |held| held.offer == offer)?;
        seats.give_back(&held);
        Some(held)
    }

    /// Forgets what is held of runs in these shards: their next owner is told of it anew.
    pub(super) fn forget(&mut self, shards: &ShardSet, seats: &mut Seats) {
        for grant in self.places.take_of(|run| shards.contains(run.shard())) {
            seats.give_back(&grant);
        }
    }

    /// An attempt that is held.
    pub(super) fn get(&self, run: RunId, place: Place) -> Option<&Grant> {
        self.places.get(run, place)
    }

    /// What is held of a run.
    pub(super) fn of(&self, run: RunId) -> Vec<Holding> {
        let held = self.places.of(run);
        held.map(|(place, grant)| Holding {
            place,
            offer: grant.offer,
            attempt: grant.attempt,
        })
        .collect()
    }

    /// What a session holds.
    pub(super) fn at(&self, session: SessionId) -> impl Iterator<Item = (RunId, Place, Offer)> {
        let held = self.places.iter();
        held.filter(move |(_, _, grant)| grant.session == session)
            .map(|(run, place, grant)| (run, place, grant.offer))
    }

    /// How many are held.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }
}
