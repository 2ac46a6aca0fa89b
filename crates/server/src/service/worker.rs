//! Workers.

use std::time::Duration;

use kapell_api::client::{Result, WorkerCalls};
use kapell_api::http::WorkerList;
use kapell_model::{Error, ErrorCode};

use super::Service;
use crate::auth::about;

impl WorkerCalls for Service {
    fn workers(&self) -> Result<WorkerList> {
        let workers = self.workers.get().map(|workers| workers.list());
        Ok(WorkerList {
            workers: workers.unwrap_or_default(),
        })
    }

    fn drain(&self, worker: &str, grace: Duration) -> Result<WorkerList> {
        // There are workers only where there is a server.
        about(|| format!("within {} s", grace.as_secs()));
        let Some(workers) = self.workers.get() else {
            let message = format!("there is no worker `{worker}`: no server runs here");
            return Err(Error::new(ErrorCode::WorkerNotFound, message)
                .hint("ask the server that the worker is at"));
        };
        let workers = workers.drain(worker, grace)?;
        Ok(WorkerList { workers })
    }
}
