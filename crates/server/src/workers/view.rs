//! Workers as they are listed, and as they are meant.

use std::fmt;

use kapell_api::http::{WorkerAttempt, WorkerView};
use kapell_api::worker::Queues;
use kapell_model::SessionId;
use serde::{Deserialize, Serialize};

use super::session::{About, Session};

/// Attempts of one worker that are listed, and of all together; some of each in any case.
const LISTED: usize = 100;
const LISTED_OF_ALL: usize = 10_000;
pub(super) const LISTED_AT_LEAST: usize = 5;

/// Attempts of each worker that are listed of so many workers.
pub(super) fn listed_of(workers: usize) -> usize {
    (LISTED_OF_ALL / workers.max(1)).clamp(LISTED_AT_LEAST, LISTED)
}

/// Workers that are meant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Whom {
    /// Those of this name, or of this session.
    Worker(String),
    /// Those of this pool.
    Pool(String),
}

impl Whom {
    pub(super) fn is(&self, id: SessionId, about: &About) -> bool {
        match self {
            Self::Worker(worker) => about.name == *worker || id.to_string() == *worker,
            Self::Pool(pool) => about.pool.as_ref() == Some(pool),
        }
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker(worker) => write!(f, "worker `{worker}`"),
            Self::Pool(pool) => write!(f, "worker of the pool `{pool}`"),
        }
    }
}

/// A worker as it is now, with so many of its attempts.
pub(super) fn view(id: SessionId, session: &Session, listed: usize) -> WorkerView {
    let about = &session.about;
    let taken = session.taken_now();
    let mut attempts: Vec<WorkerAttempt> = session
        .held
        .iter()
        .filter(|(_, held)| !held.light)
        .map(|((run, _, _), held)| WorkerAttempt {
            run: *run,
            workflow: held.workflow.to_string(),
            step: held.path.to_string(),
            attempt: held.attempt,
            queue: held.queue.to_string(),
            granted_at: held.granted_at,
        })
        .collect();
    attempts.sort_by(|a, b| (a.granted_at, a.run, &a.step).cmp(&(b.granted_at, b.run, &b.step)));
    let count = attempts.len();
    attempts.truncate(listed);
    WorkerView {
        session: id.to_string(),
        name: about.name.clone(),
        // Whoever asks the node knows which it is.
        node: String::new(),
        pool: about.pool.clone(),
        version: about.version.clone(),
        labels: about.labels.clone(),
        queues: match &about.queues {
            Queues::Named(names) => names.iter().map(ToString::to_string).collect(),
            Queues::Others => Vec::new(),
        },
        capacity: about.capacity.clone(),
        spot: about.spot,
        slots: about.slots,
        free_slots: about.slots.saturating_sub(taken.slots),
        free: about.capacity.clone().less(&taken.resources),
        waste: session.usage.waste(about.slots, &about.capacity),
        runtimes: about.runtimes.clone(),
        opened_at: about.opened_at,
        inside: about.inside,
        connected: session.is_connected(),
        draining: session.draining.is_some(),
        attempts,
        count,
    }
}
