//! Logs.

use kapell_model::RunId;

use super::{Client, Result};
use crate::http::{LogPage, LogQuery};

/// What can be asked of logs.
pub trait LogCalls: Send + Sync {
    /// Log lines.
    fn logs(&self, run: RunId, query: &LogQuery) -> Result<LogPage>;
}

impl LogCalls for Client {
    fn logs(&self, run: RunId, query: &LogQuery) -> Result<LogPage> {
        self.post(&format!("/runs/{run}/logs"), query)
    }
}
