//! Workers.

use std::time::Duration;

use super::{Client, Result, encoded};
use crate::http::{DrainWorker, WorkerList};

/// What can be asked of workers.
pub trait WorkerCalls: Send + Sync {
    /// All of them.
    fn workers(&self) -> Result<WorkerList>;
    /// Lets those of a name, or the one of a session, take nothing more, end what they run within
    /// the grace, and go.
    fn drain(&self, worker: &str, grace: Duration) -> Result<WorkerList>;
}

impl WorkerCalls for Client {
    fn workers(&self) -> Result<WorkerList> {
        self.get("/workers")
    }

    fn drain(&self, worker: &str, grace: Duration) -> Result<WorkerList> {
        let drain = DrainWorker {
            grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
        };
        self.post(&format!("/workers/{}/drain", encoded(worker)), &drain)
    }
}
