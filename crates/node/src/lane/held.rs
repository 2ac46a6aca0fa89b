//! Attempts handed out and not reported as ended: they outlive the lane's memory.

use kapell_api::task::{Place, Report, Task};
use kapell_engine::PlaceMap;
use kapell_model::{Offer, RunId};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The grant, and whether it starts nothing.
    pub places: PlaceMap<RunId, (Offer, bool)>,
    /// How many start a process or a request.
    pub processes: usize,
    /// How many start nothing.
    pub lights: usize,
}

impl Held {
    /// An attempt is handed out.
    pub(super) fn hand_out(&mut self, task: &Task) {
        let light = task.work.process().is_none();
        self.insert(task.run, task.place, (task.offer, light));
    }

    /// A report that will be taken again holds its attempt until then.
    pub(super) fn keep(&mut self, report: &Report) {
        if !self.places.contains(report.run, report.place) {
            self.insert(report.run, report.place, (report.offer, false));
        }
    }

    fn insert(&mut self, run: RunId, place: Place, (offer, light): (Offer, bool)) {
        let before = self.places.insert(run, place, (offer, light));
        *self.count(light) += 1;
        if let Some((_, light)) = before {
            *self.count(light) -= 1;
        }
    }

    fn count(&mut self, light: bool) -> &mut usize {
        if light {
            &mut self.lights
        } else {
            &mut self.processes
        }
    }

    /// An attempt is over; true if it was handed out and started something.
    pub(super) fn land(&mut self, run: RunId, place: Place, offer: Offer) -> bool {
        let held = self
            .places
            .remove_if(run, place, |(held, _)| *held == offer);
        let Some((_, light)) = held else { return false };
        *self.count(light) -= 1;
        !light
    }
}
