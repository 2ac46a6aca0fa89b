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
    /// Breakpoints of all new runs of a workflow, or of one version alone; without a workflow, of new runs
    /// of every workflow, be it there yet or not.
    fn breakpoints(
        &self,
        workflow: Option<&str>,
        version: Option<u32>,
    ) -> Result<WorkflowBreakpoints>;
    /// Replaces them.
    fn set_breakpoints(
        &self,
        workflow: Option<&str>,
        all: &WorkflowBreakpoints,
    ) -> Result<WorkflowBreakpoints>;
    /// Sets one more. Gives all that there are then.
    fn add_breakpoint(
        &self,
        workflow: Option<&str>,
        of: &AddBreakpoint,
    ) -> Result<WorkflowBreakpoints>;
    /// Removes some. Gives all that there are then.
    fn remove_breakpoints(
        &self,
        workflow: Option<&str>,
        which: &RemoveBreakpoints,
    ) -> Result<WorkflowBreakpoints>;
    /// What an expression gives over what a step sees.
    fn evaluate(&self, run: RunId, of: &Evaluate) -> Result<Evaluated>;
}

/// Where breakpoints of a workflow are, or those of every one.
fn of(workflow: Option<&str>) -> String {
    match workflow {
        None => "/breakpoints".to_owned(),
        Some(workflow) => format!("/workflows/{}/breakpoints", encoded(workflow)),
    }
}

impl DebugCalls for Client {
    fn breakpoints(
        &self,
        workflow: Option<&str>,
        version: Option<u32>,
    ) -> Result<WorkflowBreakpoints> {
        let query = query(&BreakpointQuery { version });
        self.get(&format!("{}{query}", of(workflow)))
    }

    fn set_breakpoints(
        &self,
        workflow: Option<&str>,
        all: &WorkflowBreakpoints,
    ) -> Result<WorkflowBreakpoints> {
        self.send(Method::PUT, &of(workflow), all)
    }

    fn add_breakpoint(
        &self,
        workflow: Option<&str>,
        of: &AddBreakpoint,
    ) -> Result<WorkflowBreakpoints> {
        self.post(&format!("{}/add", self::of(workflow)), of)
    }

    fn remove_breakpoints(
        &self,
        workflow: Option<&str>,
        which: &RemoveBreakpoints,
    ) -> Result<WorkflowBreakpoints> {
        self.post(&format!("{}/remove", of(workflow)), which)
    }

    fn evaluate(&self, run: RunId, of: &Evaluate) -> Result<Evaluated> {
        self.post(&format!("/runs/{run}/evaluate"), of)
    }
}
