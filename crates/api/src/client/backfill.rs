//! Backfills: due times of a schedule that are made up for on request.

use super::{Client, Result, encoded, query};
use crate::http::{BackfillPage, BackfillQuery, BackfillView, ByPerson, NewBackfill};

/// What can be asked of backfills.
pub trait BackfillCalls: Send + Sync {
    /// Starts one.
    fn start_backfill(&self, workflow: &str, new: &NewBackfill) -> Result<BackfillView>;
    /// Backfills by workflow and id.
    fn backfills(&self, which: &BackfillQuery) -> Result<BackfillPage>;
    /// One of them.
    fn backfill(&self, workflow: &str, id: &str) -> Result<BackfillView>;
    /// It starts nothing more until it is resumed.
    fn pause_backfill(&self, workflow: &str, id: &str, by: &str) -> Result<BackfillView>;
    /// It goes on; one that a failed run blocks goes on without it.
    fn resume_backfill(&self, workflow: &str, id: &str, by: &str) -> Result<BackfillView>;
    /// It starts nothing more, and what runs is cancelled.
    fn cancel_backfill(&self, workflow: &str, id: &str, by: &str) -> Result<BackfillView>;
}

impl Client {
    fn set_backfill(&self, workflow: &str, id: &str, verb: &str, by: &str) -> Result<BackfillView> {
        let by = ByPerson { by: by.to_owned() };
        self.post(&format!("{}/{verb}", address(workflow, id)), &by)
    }
}

fn address(workflow: &str, id: &str) -> String {
    format!("/workflows/{}/backfills/{}", encoded(workflow), encoded(id))
}

impl BackfillCalls for Client {
    fn start_backfill(&self, workflow: &str, new: &NewBackfill) -> Result<BackfillView> {
        self.post(&format!("/workflows/{}/backfills", encoded(workflow)), new)
    }

    fn backfills(&self, which: &BackfillQuery) -> Result<BackfillPage> {
        self.get(&format!("/backfills{}", query(which)))
    }

    fn backfill(&self, workflow: &str, id: &str) -> Result<BackfillView> {
        self.get(&address(workflow, id))
    }

    fn pause_backfill(&self, workflow: &str, id: &str, by: &str) -> Result<BackfillView> {
        self.set_backfill(workflow, id, "pause", by)
    }

    fn resume_backfill(&self, workflow: &str, id: &str, by: &str) -> Result<BackfillView> {
        self.set_backfill(workflow, id, "resume", by)
    }

    fn cancel_backfill(&self, workflow: &str, id: &str, by: &str) -> Result<BackfillView> {
        self.set_backfill(workflow, id, "cancel", by)
    }
}
