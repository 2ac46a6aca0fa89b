//! Logs of runs.

use kapell_api::client::{LogCalls, Result};
use kapell_api::http::{LogPage, LogQuery};
use kapell_model::RunId;

use super::Service;
use crate::logs;

impl LogCalls for Service {
    fn logs(&self, run: RunId, query: &LogQuery) -> Result<LogPage> {
        self.row(run)?;
        logs::read(&self.logs, run, query)
    }
}
