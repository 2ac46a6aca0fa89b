//! Attempts handed out whose end was not taken: they outlive the lane's memory.

use kapell_api::task::{Place, Report, Task};
use kapell_engine::PlaceMap;
use kapell_engine::run::Holding;
use kapell_model::{Offer, RunId};

/// An attempt handed out.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    /// Names this handing-out.
    pub offer: Offer,
    /// From 1.
    pub attempt: u32,
    /// It starts nothing.
    pub light: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Held {
    places: PlaceMap<RunId, Grant>,
    /// How many start a process or a request.
    pub processes: usize,
    /// How many start nothing.
    pub lights: usize,
}

impl Held {
    /// An attempt is handed out.
    pub(super) fn hand_out(&mut self, task: &Task) {
        let grant = Grant {
            offer: task.offer,
            attempt: task.attempt,
            light: task.work.process().is_none(),
        };
        self.insert(task.run, task.place, grant);
    }

    /// The report of its end will be taken again: until then it is held as before.
    pub(super) fn take_back(&mut self, report: &Report, grant: Grant) {
        if !self.places.contains(report.run, report.place) {
            self.insert(report.run, report.place, grant);
        }
    }

    fn insert(&mut self, run: RunId, place: Place, grant: Grant) {
        let before = self.places.insert(run, place, grant);
        *self.count(grant.light) += 1;
        if let Some(before) = before {
            *self.count(before.light) -= 1;
        }
    }

    fn count(&mut self, light: bool) -> &mut usize {
        if light {
            &mut self.lights
        } else {
            &mut self.processes
        }
    }

    /// An attempt is over; returns it if it was handed out.
    pub(super) fn land(&mut self, run: RunId, place: Place, offer: Offer) -> Option<Grant> {
        let held = self
            .places
            .remove_if(run, place, |held| held.offer == offer)?;
        *self.count(held.light) -= 1;
        Some(held)
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

    /// How many are held.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }
}
