//! Breakpoints of workflows, and what expressions give in a run. Breakpoints of a run, and going on from
//! one, are actions on it.

use hyper::Method;
use kapell_model::RunId;

use super::{Client, Result, encoded, query};
use crate::http::{
    AddBreakpoint, BreakpointQuery, Evaluate, Evaluated, RemoveBreakpoints, WorkflowBreakpoints,
};

/// What can be asked while debugging.
pub trait DebugCalls: Send + Sync {
    /// Breakpoints of all new runs of a workflow, or of one version alone.
    fn breakpoints(&self, workflow: &str, version: Option<u32>) -> Result<WorkflowBreakpoints>;
    /// Replaces them.
    fn set_breakpoints(
        &self,
        workflow: &str,
        all: &WorkflowBreakpoints,
    ) -> Result<WorkflowBreakpoints>;
    /// Sets one more. Gives all that there are then.
    fn add_breakpoint(&self, workflow: &str, of: &AddBreakpoint) -> Result<WorkflowBreakpoints>;
    /// Removes some. Gives all that there are then.
    fn remove_breakpoints(
        &self,
        workflow: &str,
        which: &RemoveBreakpoints,
    ) -> Result<WorkflowBreakpoints>;
    /// What an expression gives over what a step sees.
    fn evaluate(&self, run: RunId, of: &Evaluate) -> Result<Evaluated>;
}

impl DebugCalls for Client {
    fn breakpoints(&self, workflow: &str, version: Option<u32>) -> Result<WorkflowBreakpoints> {
        let query = query(&BreakpointQuery { version });
        self.get(&format!(
            "/workflows/{}/breakpoints{query}",
            encoded(workflow)
        ))
    }

    fn set_breakpoints(
        &self,
        workflow: &str,
        all: &WorkflowBreakpoints,
    ) -> Result<WorkflowBreakpoints> {
        self.send(
            Method::PUT,
            &format!("/workflows/{}/breakpoints", encoded(workflow)),
            all,
        )
    }

    fn add_breakpoint(&self, workflow: &str, of: &AddBreakpoint) -> Result<WorkflowBreakpoints> {
        let workflow = encoded(workflow);
        self.post(&format!("/workflows/{workflow}/breakpoints/add"), of)
    }

    fn remove_breakpoints(
        &self,
        workflow: &str,
        which: &RemoveBreakpoints,
    ) -> Result<WorkflowBreakpoints> {
        let workflow = encoded(workflow);
        self.post(&format!("/workflows/{workflow}/breakpoints/remove"), which)
    }

    fn evaluate(&self, run: RunId, of: &Evaluate) -> Result<Evaluated> {
        self.post(&format!("/runs/{run}/evaluate"), of)
    }
}
