//! Workers.

use std::time::Duration;

use super::{Client, Result, encoded, query};
use crate::http::{DrainWorker, WorkerList, WorkerQuery};

/// What can be asked of workers.
pub trait WorkerCalls: Send + Sync {
    /// Those of all nodes that are asked for.
    fn workers(&self, which: &WorkerQuery) -> Result<WorkerList>;
    /// Lets those of a name, or the one of a session, take nothing more, end what they run within
    /// the grace, and go.
    fn drain(&self, worker: &str, grace: Duration) -> Result<WorkerList>;
    /// The same for all workers of a pool.
    fn drain_pool(&self, pool: &str, grace: Duration) -> Result<WorkerList>;
}

impl WorkerCalls for Client {
    fn workers(&self, which: &WorkerQuery) -> Result<WorkerList> {
        self.get(&format!("/workers{}", query(which)))
    }

    fn drain(&self, worker: &str, grace: Duration) -> Result<WorkerList> {
        let path = format!("/workers/{}/drain", encoded(worker));
        self.post(&path, &within(grace))
    }

    fn drain_pool(&self, pool: &str, grace: Duration) -> Result<WorkerList> {
        let path = format!("/pools/{}/drain", encoded(pool));
        self.post(&path, &within(grace))
    }
}

fn within(grace: Duration) -> DrainWorker {
    DrainWorker {
        grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
    }
}
