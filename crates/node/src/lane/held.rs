//! Attempts handed out whose end was not taken: they outlive the lane's memory.

use std::sync::Arc;

use kapell_api::task::{Place, Report, Task, TaskResources};
use kapell_api::worker;
use kapell_engine::PlaceMap;
use kapell_engine::run::Holding;
use kapell_model::{Offer, RunId, SessionId, ShardSet};

use super::seats::Seats;

/// An attempt handed out.
#[derive(Clone, Debug)]
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
    /// That worker can be taken away.
    pub spot: bool,
    /// Its namespace, if that has a quota that it counts on.
    pub namespace: Option<Arc<str>>,
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
            needs: process
                .map(|process| process.resources.clone())
                .unwrap_or_default(),
            spot: seats.is_spot(task.session),
            namespace: process.and_then(|process| seats.quotas.bounded(&process.namespace)),
        };
        seats.warms(task);
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
            needs: holding.needs.clone(),
            spot: seats.is_spot(session),
            namespace: None,
        };
        self.insert(holding.run, holding.place, grant, seats);
        true
    }

    /// The namespace of a run is known: what workers said that they hold of it counts on its quota.
    pub(super) fn name(&mut self, run: RunId, namespace: &Arc<str>, seats: &mut Seats) {
        let Some(namespace) = seats.quotas.bounded(namespace) else {
            return;
        };
        let held = self.places.of(run);
        let unnamed = held.filter(|(_, grant)| !grant.light && grant.namespace.is_none());
        let unnamed: Vec<(Place, Grant)> = unnamed
            .map(|(place, grant)| (place, grant.clone()))
            .collect();
        for (place, grant) in unnamed {
            let namespace = Some(namespace.clone());
            self.insert(run, place, Grant { namespace, ..grant }, seats);
        }
    }

    /// The run of each attempt that is held of a namespace with a quota.
    pub(super) fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = RunId> {
        let held = self.places.iter();
        held.filter(move |(_, _, grant)| grant.namespace.as_deref() == Some(namespace))
            .map(|(run, _, _)| run)
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
            spot: grant.spot,
        })
        .collect()
    }

    /// What a session holds.
    pub(super) fn at(&self, session: SessionId) -> impl Iterator<Item = (RunId, Place, Offer)> {
        let held = self.places.iter();
        held.filter(move |(_, _, grant)| grant.session == session)
            .map(|(run, place, grant)| (run, place, grant.offer))
    }

    /// All that are held.
    pub(super) fn iter(&self) -> impl Iterator<Item = (RunId, Place, Offer, SessionId)> {
        let held = self.places.iter();
        held.map(|(run, place, grant)| (run, place, grant.offer, grant.session))
    }

    /// How many are held.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }
}
