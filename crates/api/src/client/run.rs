//! Runs.

use std::time::Duration;

use kapell_model::RunId;

use super::{Client, Result, encoded, query};
use crate::http::{
    Action, BulkAction, BulkResult, ItemPage, ItemQuery, RecordQuery, RunPage, RunQuery,
    RunSummary, RunView, StartRun, Started, StepQuery, StepView,
};
use crate::record::Record;

/// What can be asked of runs.
pub trait RunCalls: Send + Sync {
    /// Makes a run.
    fn start(&self, start: &StartRun) -> Result<Started>;
    /// The run that a whole id, the end of one (at least 4 characters) or `last` names.
    fn find(&self, run: &str) -> Result<RunId>;
    /// Runs, newest first.
    fn list(&self, query: &RunQuery) -> Result<RunPage>;
    /// Where a run stands.
    fn view(&self, run: RunId) -> Result<RunView>;
    /// Where one step or item of a run stands: `step-not-found` for what there is not, and for an item
    /// that has ended and is in the run's record alone.
    fn view_step(&self, run: RunId, path: &str) -> Result<StepView>;
    /// Where a run stands, in short: at once if it has ended, else after its status changed or the
    /// time is over.
    fn wait(&self, run: RunId, timeout: Duration) -> Result<RunSummary>;
    /// What became of a run, up to a moment.
    fn record(&self, run: RunId, which: &RecordQuery) -> Result<Record>;
    /// Items of a foreach of a run, with their labels.
    fn items(&self, run: RunId, which: &ItemQuery) -> Result<ItemPage>;
    /// Does something to a run; the run that was made, if one was.
    fn act(&self, run: RunId, action: &Action) -> Result<Option<RunId>>;
    /// Does something to one page of the runs that match.
    fn bulk(&self, bulk: &BulkAction) -> Result<BulkResult>;
}

impl RunCalls for Client {
    fn start(&self, start: &StartRun) -> Result<Started> {
        self.post("/runs", start)
    }

    fn find(&self, run: &str) -> Result<RunId> {
        self.get::<Started>(&format!("/runs/{}/id", encoded(run)))
            .map(|found| found.run)
    }

    fn list(&self, which: &RunQuery) -> Result<RunPage> {
        self.get(&format!("/runs{}", query(which)))
    }

    fn view(&self, run: RunId) -> Result<RunView> {
        self.get(&format!("/runs/{run}"))
    }

    fn view_step(&self, run: RunId, path: &str) -> Result<StepView> {
        let path = path.to_owned();
        self.get(&format!("/runs/{run}/step{}", query(&StepQuery { path })))
    }

    fn wait(&self, run: RunId, timeout: Duration) -> Result<RunSummary> {
        self.get(&format!(
            "/runs/{run}/wait?timeout_ms={}",
            timeout.as_millis()
        ))
    }

    fn record(&self, run: RunId, which: &RecordQuery) -> Result<Record> {
        self.get(&format!("/runs/{run}/record{}", query(which)))
    }

    fn items(&self, run: RunId, which: &ItemQuery) -> Result<ItemPage> {
        self.get(&format!("/runs/{run}/items{}", query(which)))
    }

    fn act(&self, run: RunId, action: &Action) -> Result<Option<RunId>> {
        self.post(&format!("/runs/{run}/{}", action.verb()), action)
    }

    fn bulk(&self, bulk: &BulkAction) -> Result<BulkResult> {
        self.post("/runs/bulk", bulk)
    }
}
