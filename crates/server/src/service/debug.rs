//! Breakpoints of workflows, and what expressions give in a run.

use kapell_api::client::{DebugCalls, Result};
use kapell_api::http::{Breakpoint, Evaluate, Evaluated, WorkflowBreakpoints};
use kapell_engine::Ask;
use kapell_engine::run::waiting::Break;
use kapell_engine::run_queue::Change;
use kapell_model::{Error, ErrorCode, RunId, limits};
use kapell_node::perform::{self, Plans};
use kapell_node::{Answer, ClientRequest, Entity, clock};

use super::{Service, no_run, unexpected};
use crate::rows::{self, failure};

/// Breakpoints as a run takes them.
///
/// # Errors
/// `limit-reached` for too many, `bad-request` for a condition that is none.
pub(super) fn breaks(all: &[Breakpoint]) -> Result<Vec<Break>> {
    if all.len() > limits::BREAKPOINTS {
        let message = format!("{} breakpoints are too many", all.len());
        return Err(Error::new(ErrorCode::LimitReached, message).hint(format!(
            "at most {}; one without a step stops at every step",
            limits::BREAKPOINTS
        )));
    }
    for when in all.iter().filter_map(|of| of.when.as_deref()) {
        if let Err(problems) = kapell_expr::Program::parse(when) {
            let why = problems.first().map(|problem| problem.message.clone());
            let why = why.unwrap_or_else(|| "it is empty".to_owned());
            let message = format!("`{when}` is no condition: {why}");
            return Err(Error::new(ErrorCode::BadRequest, message)
                .hint("write it as in `if`, without `${{` and `}}`"));
        }
    }
    Ok(all.iter().map(rows::break_of).collect())
}

impl DebugCalls for Service {
    fn breakpoints(&self, workflow: &str, version: Option<u32>) -> Result<WorkflowBreakpoints> {
        self.known(workflow)?;
        let settings = self.settings(workflow)?;
        let found = match version {
            None => settings.breaks,
            Some(version) => settings
                .breaks_of
                .get(&version)
                .cloned()
                .unwrap_or_default(),
        };
        Ok(WorkflowBreakpoints {
            version,
            breakpoints: found.iter().map(rows::breakpoint).collect(),
            by: String::new(),
        })
    }

    fn set_breakpoints(
        &self,
        workflow: &str,
        all: &WorkflowBreakpoints,
    ) -> Result<WorkflowBreakpoints> {
        let path = format!("/workflows/{workflow}/breakpoints");
        let what = |_: Option<&WorkflowBreakpoints>| format!("{} of them", all.breakpoints.len());
        self.audit.change("PUT", &path, what, || {
            self.known(workflow)?;
            let wanted = breaks(&all.breakpoints)?;
            let change = match all.version {
                None => Change {
                    breaks: Some(wanted),
                    ..Change::default()
                },
                Some(version) => Change {
                    breaks_of: Some((version, wanted)),
                    ..Change::default()
                },
            };
            let ask = Ask::Change(Box::new(change));
            let asks = vec![(Self::queue_key(workflow), ask)];
            self.ask(ClientRequest::AskTogether(asks))?;
            self.breakpoints(workflow, all.version)
        })
    }

    fn evaluate(&self, run: RunId, of: &Evaluate) -> Result<Evaluated> {
        let row = self.row(run)?;
        let Evaluate { step, expression } = of.clone();
        let value = if self.node.is_some() {
            let request = ClientRequest::Evaluate {
                run,
                step,
                expression,
            };
            match self.ask(request)? {
                Answer::Value(value) => value,
                _ => return Err(unexpected()),
            }
        } else {
            let found = perform::load(&*self.store, &mut Plans::default(), &row.id.into(), None);
            match found.map_err(failure)?.1.map(|found| found.entity) {
                Some(Entity::Run(run)) => run.evaluate(&step, &expression, clock::now())?,
                _ => return Err(no_run(&run.to_string())),
            }
        };
        Ok(Evaluated {
            value: value.to_json(),
        })
    }
}
