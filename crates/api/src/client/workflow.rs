//! Workflows and their versions.

use super::{Client, Result, encoded};
use crate::http::{RegisterWorkflow, Registered, Version, VersionPage, WorkflowPage};

/// What can be asked of workflows.
pub trait WorkflowCalls: Send + Sync {
    /// Registers a workflow; the same content again changes nothing.
    fn register(&self, workflow: &RegisterWorkflow) -> Result<Registered>;
    /// Workflows by name, after one.
    fn workflows(&self, after: &str, limit: usize) -> Result<WorkflowPage>;
    /// A version; none is the active one.
    fn version(&self, workflow: &str, version: Option<u32>) -> Result<Version>;
    /// Versions, newest first, before one.
    fn versions(&self, workflow: &str, before: Option<u32>, limit: usize) -> Result<VersionPage>;
}

impl WorkflowCalls for Client {
    fn register(&self, workflow: &RegisterWorkflow) -> Result<Registered> {
        self.post("/workflows", workflow)
    }

    fn workflows(&self, after: &str, limit: usize) -> Result<WorkflowPage> {
        self.get(&format!(
            "/workflows?after={}&limit={limit}",
            encoded(after)
        ))
    }

    fn version(&self, workflow: &str, version: Option<u32>) -> Result<Version> {
        let version = version.map_or_else(|| "active".to_owned(), |version| version.to_string());
        self.get(&format!(
            "/workflows/{}/versions/{version}",
            encoded(workflow)
        ))
    }

    fn versions(&self, workflow: &str, before: Option<u32>, limit: usize) -> Result<VersionPage> {
        let before = before.map_or_else(String::new, |before| format!("&before={before}"));
        self.get(&format!(
            "/workflows/{}/versions?limit={limit}{before}",
            encoded(workflow)
        ))
    }
}
