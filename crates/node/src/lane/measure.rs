//! How much waits, for whoever watches from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use kapell_engine::Run;
use kapell_engine::run::demand::Startable;
use kapell_engine::run::room::Allowance;
use kapell_model::{EntityKey, RunId, Time};

use crate::entity::Entity;
use crate::metrics::{Backlog, Measured};

use super::{Lane, Slot};

/// Attempts whose start is not known so long after they were handed out wait at their worker: workers say
/// so of those that have run for a second.
const START_MICROS: i64 = 2_000_000;

/// What is known so far.
#[derive(Default)]
struct Measuring {
    queues: BTreeMap<Arc<str>, Backlog>,
    /// What namespaces may still have in flight, as work that waits is counted.
    left: BTreeMap<Arc<str>, Option<Allowance>>,
}

impl Measuring {
    fn of(&mut self, queue: &Arc<str>) -> &mut Backlog {
        self.queues
            .entry(Arc::clone(queue))
            .or_insert_with(|| Backlog {
                queue: Arc::clone(queue),
                ..Backlog::default()
            })
    }

    fn waits(&mut self, queue: &Arc<str>, count: u64, since: Option<Time>) {
        let backlog = self.of(queue);
        backlog.waiting += count;
        backlog.since = backlog.since.into_iter().chain(since).min();
    }
}

impl Lane {
    /// Walks over what is in memory: work that waits is. Asked for now and then, not with each input.
    pub(crate) fn measure(&self) -> Measured {
        let mut measuring = Measuring::default();
        for (key, slot) in self.slots.iter() {
            let (EntityKey::Run(id), Entity::Run(run)) = (key, &slot.entity) else {
                continue;
            };
            for queue in run.demand() {
                let (count, since) = run.waiting_in(queue);
                if count > 0 {
                    measuring.waits(queue, count, since);
                    self.measure_startable(run, queue, &mut measuring);
                }
            }
            self.measure_flights(*id, run, &mut measuring);
        }
        Measured {
            queues: measuring.queues.into_values().collect(),
            entities: self.slots.len() as u64,
        }
    }

    /// What of a run could start, within the quota of its namespace.
    fn measure_startable(&self, run: &Run, queue: &Arc<str>, measuring: &mut Measuring) {
        let namespace = &run.state.meta.namespace;
        let startable = run.startable_in(queue, self.now);
        for mut startable in startable {
            let left = measuring
                .left
                .entry(Arc::clone(namespace))
                .or_insert_with(|| {
                    let quotas = &self.seats.quotas;
                    quotas.allowance(namespace, self.leases.len())
                });
            if let Some(allowance) = left.as_mut().filter(|_| !startable.light) {
                let fits = within(allowance, &startable);
                startable.attempts = fits;
                allowance.left = allowance.left.less_times(&startable.needs, fits);
                allowance.idle &= fits == 0;
            }
            if startable.attempts > 0 {
                startable.add(&mut measuring.of(queue).startable);
            }
        }
    }

    /// Attempts that were handed out run, or wait at a worker that was given more than it has room for.
    fn measure_flights(&self, id: RunId, run: &Run, measuring: &mut Measuring) {
        for (place, flight) in run.live.flights.of(()) {
            let grant = self.held.get(id, place);
            if grant.is_none_or(|grant| grant.light) {
                continue;
            }
            let Some((queue, since)) = run.queue_of(place) else {
                continue;
            };
            measuring.of(queue).in_flight += 1;
            let fresh = self.now.0 - flight.granted_at.0 < START_MICROS;
            if !fresh && !run.state.started.contains_key(&place) {
                measuring.waits(queue, 1, Some(since));
            }
        }
    }

    /// The workflow of a run that is in memory.
    pub(crate) fn workflow_of(&self, run: RunId) -> Option<&str> {
        match self.slots.get(&run.into()) {
            Some(Slot {
                entity: Entity::Run(run),
                ..
            }) => Some(&run.state.meta.workflow),
            _ => None,
        }
    }
}

/// How many of these a quota lets start.
fn within(allowance: &Allowance, startable: &Startable) -> u64 {
    let fits = allowance.left.times(&startable.needs);
    // One may start where the part of the quota that is here is too small for it.
    let one = allowance.idle && allowance.quota.covers(&startable.needs);
    startable.attempts.min(fits.max(u64::from(one)))
}
