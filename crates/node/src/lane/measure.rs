//! How much waits, for whoever watches from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use kapell_engine::Run;
use kapell_model::{EntityKey, RunId, SessionId, Time};

use crate::entity::Entity;
use crate::metrics::Measured;

use super::{Lane, Slot};

/// Attempts whose start is not known so long after they were handed out wait at their worker: workers say
/// so of those that have run for a second.
const START_MICROS: i64 = 2_000_000;

/// How many wait in a queue, and since when the first could start.
type Waiting = (u64, Option<Time>);

impl Lane {
    /// Walks over what is in memory: work that waits is. Asked for now and then, not with each input.
    pub(crate) fn measure(&self) -> Measured {
        let mut queues: BTreeMap<Arc<str>, Waiting> = BTreeMap::new();
        let mut busy: BTreeMap<SessionId, u64> = BTreeMap::new();
        for (key, slot) in &self.slots {
            let (EntityKey::Run(id), Entity::Run(run)) = (key, &slot.entity) else {
                continue;
            };
            for queue in run.demand() {
                let (count, since) = run.waiting_in(queue);
                if count > 0 {
                    wait(&mut queues, queue, count, since);
                }
            }
            self.measure_flights(*id, run, &mut queues, &mut busy);
        }
        let queues = queues.into_iter();
        Measured {
            queues: queues
                .map(|(queue, (waiting, oldest))| (queue, waiting, oldest))
                .collect(),
            busy: busy.into_iter().collect(),
            entities: self.slots.len() as u64,
        }
    }

    /// Attempts that were handed out run, or wait at a worker that was given more than it has room for.
    fn measure_flights(
        &self,
        id: RunId,
        run: &Run,
        queues: &mut BTreeMap<Arc<str>, Waiting>,
        busy: &mut BTreeMap<SessionId, u64>,
    ) {
        for (place, flight) in run.live.flights.of(()) {
            let Some(grant) = self.held.get(id, place).filter(|grant| !grant.light) else {
                continue;
            };
            let fresh = self.now.0 - flight.granted_at.0 < START_MICROS;
            if fresh || run.state.started.contains_key(&place) {
                *busy.entry(grant.session).or_default() += 1;
            } else if let Some((queue, since)) = run.queue_of(place) {
                wait(queues, queue, 1, Some(since));
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

fn wait(
    queues: &mut BTreeMap<Arc<str>, Waiting>,
    queue: &Arc<str>,
    count: u64,
    since: Option<Time>,
) {
    let (waiting, oldest) = queues.entry(Arc::clone(queue)).or_default();
    *waiting += count;
    *oldest = (*oldest).into_iter().chain(since).min();
}
