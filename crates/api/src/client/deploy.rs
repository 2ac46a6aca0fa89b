//! Putting workflows in force, and what is said of them beside their versions.

use hyper::Method;

use super::{Client, Result, encoded};
use crate::http::{
    Deploy, DeployPlan, Dismissal, Held, Hold, QueueQuery, QueueView, VersionDiff, WorkflowChange,
    WorkflowView,
};

/// What can be asked of workflows as they are in force.
pub trait DeployCalls: Send + Sync {
    /// Puts workflows in force, all or none.
    fn deploy(&self, deploy: &Deploy) -> Result<DeployPlan>;
    /// A workflow as it is in force.
    fn workflow(&self, name: &str) -> Result<WorkflowView>;
    /// Changes what is not versioned, or which version is active.
    fn change(&self, name: &str, change: &WorkflowChange) -> Result<WorkflowView>;
    /// Deletes a workflow; its history stays.
    fn delete(&self, name: &str) -> Result<WorkflowView>;
    /// What differs between two versions.
    fn diff(&self, name: &str, from: u32, to: u32) -> Result<VersionDiff>;
    /// Who is active in its run queue, and who waits.
    fn queue(&self, name: &str, query: &QueueQuery) -> Result<QueueView>;
    /// Frees a line of its run queue that a failed run blocks.
    fn dismiss(&self, name: &str, dismissal: &Dismissal) -> Result<QueueView>;
    /// Pauses all workflows, or lets them go on.
    fn hold(&self, hold: &Hold) -> Result<Held>;
}

impl DeployCalls for Client {
    fn deploy(&self, deploy: &Deploy) -> Result<DeployPlan> {
        self.post("/deploy", deploy)
    }

    fn workflow(&self, name: &str) -> Result<WorkflowView> {
        self.get(&format!("/workflows/{}", encoded(name)))
    }

    fn change(&self, name: &str, change: &WorkflowChange) -> Result<WorkflowView> {
        self.send(
            Method::PATCH,
            &format!("/workflows/{}", encoded(name)),
            change,
        )
    }

    fn delete(&self, name: &str) -> Result<WorkflowView> {
        self.send(
            Method::DELETE,
            &format!("/workflows/{}", encoded(name)),
            &(),
        )
    }

    fn diff(&self, name: &str, from: u32, to: u32) -> Result<VersionDiff> {
        self.get(&format!(
            "/workflows/{}/diff?from={from}&to={to}",
            encoded(name)
        ))
    }

    fn queue(&self, name: &str, query: &QueueQuery) -> Result<QueueView> {
        let mut path = format!("/workflows/{}/queue?", encoded(name));
        for (field, value) in [("key", &query.key), ("after", &query.after)] {
            if let Some(value) = value {
                path += &format!("{field}={}&", encoded(value));
            }
        }
        self.get(path.trim_end_matches(['?', '&']))
    }

    fn dismiss(&self, name: &str, dismissal: &Dismissal) -> Result<QueueView> {
        self.post(
            &format!("/workflows/{}/queue/dismiss", encoded(name)),
            dismissal,
        )
    }

    fn hold(&self, hold: &Hold) -> Result<Held> {
        self.post("/workflows/hold", hold)
    }
}
