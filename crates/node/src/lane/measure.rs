//! How much waits, for whoever watches from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use kapell_model::Time;

use crate::entity::Entity;
use crate::metrics::Measured;

use super::Lane;

impl Lane {
    /// Walks over what is in memory: work that waits is. Asked for now and then, not with each input.
    pub(crate) fn measure(&self) -> Measured {
        let mut queues: BTreeMap<Arc<str>, (u64, Option<Time>)> = BTreeMap::new();
        let mut in_flight = 0;
        for slot in self.slots.values() {
            let Entity::Run(run) = &slot.entity else {
                continue;
            };
            in_flight += run.in_flight() as u64;
            for queue in run.demand() {
                let (count, since) = run.waiting_in(queue);
                if count > 0 {
                    let (waiting, oldest) = queues.entry(Arc::clone(queue)).or_default();
                    *waiting += count;
                    *oldest = (*oldest).into_iter().chain(since).min();
                }
            }
        }
        let queues = queues.into_iter();
        Measured {
            queues: queues
                .map(|(queue, (waiting, oldest))| (queue, waiting, oldest))
                .collect(),
            in_flight,
            entities: self.slots.len() as u64,
        }
    }
}
