//! What runs ask people. Answers are actions on a run.

use super::{Client, Result, query};
use crate::http::{ApprovalPage, ApprovalQuery};

/// What can be asked of questions.
pub trait ApprovalCalls: Send + Sync {
    /// Questions that wait for an answer, those of the oldest run first.
    fn approvals(&self, which: &ApprovalQuery) -> Result<ApprovalPage>;
}

impl ApprovalCalls for Client {
    fn approvals(&self, which: &ApprovalQuery) -> Result<ApprovalPage> {
        self.get(&format!("/approvals{}", query(which)))
    }
}
