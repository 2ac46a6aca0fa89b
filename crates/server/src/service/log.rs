//! Logs of runs.

use std::time::Duration;

use kapell_api::client::{LogCalls, Result};
use kapell_api::http::{LogPage, LogQuery};
use kapell_model::RunId;
use kapell_node::clock;

use super::Service;
use crate::logs::SETTLES;

impl LogCalls for Service {
    fn logs(&self, run: RunId, query: &LogQuery) -> Result<LogPage> {
        let row = self.row(run)?;
        if let Some(ended_at) = row.ended_at.filter(|_| self.logs.rows().is_some()) {
            // Its last lines may be on their way from another node.
            let since = Duration::try_from(clock::now().since(ended_at)).unwrap_or_default();
            if let Some(left) = SETTLES.checked_sub(since) {
                std::thread::park_timeout(left);
            }
        }
        self.logs.read(run, query)
    }
}
