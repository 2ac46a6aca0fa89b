//! Breakpoints of workflows, one or all, and what expressions give in a run.

use kapell_api::client::{DebugCalls, Result};
use kapell_api::http::{
    AddBreakpoint, BreakAt, Breakpoint, Evaluate, Evaluated, RemoveBreakpoints, WorkflowBreakpoints,
};
use kapell_engine::Ask;
use kapell_engine::run::{Break, Breaks};
use kapell_engine::run_queue::Change;
use kapell_model::{Error, ErrorCode, RunId, limits};
use kapell_node::perform::{self, Plans};
use kapell_node::{Answer, ClientRequest, Entity, clock};

use super::{Service, no_run, no_version, unexpected};
use crate::register::NAMESPACE;
use crate::rows::{self, failure};

/// Breakpoints as a run takes them.
///
/// # Errors
/// `limit-reached` for too many, `bad-request` for a condition that is none.
pub(super) fn breaks(all: &[Breakpoint]) -> Result<Vec<Break>> {
    if all.len() > limits::BREAKPOINTS {
        return Err(Breaks::too_many(all.len()));
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

/// Which breakpoints are meant.
pub(super) fn gone(step: Option<&str>, at: Option<BreakAt>) -> Breaks {
    Breaks {
        step: step.map(Into::into),
        at: at.map(rows::stop_of),
    }
}

impl Service {
    /// Refuses breakpoints of a version or a step that there is not. Without a version steps are those
    /// of the active one.
    fn check_breaks(&self, workflow: &str, version: Option<u32>, wanted: &[Break]) -> Result<()> {
        self.known(workflow)?;
        let mut plans = Plans::default();
        let (namespace, name) = (NAMESPACE.into(), workflow.into());
        let found = plans.version(&*self.store, &namespace, &name, version);
        let Some(found) = found.map_err(failure)? else {
            return match version {
                Some(_) => Err(no_version(workflow, version)),
                None => Ok(()),
            };
        };
        let steps = wanted.iter().filter_map(|of| of.step.as_deref());
        for step in steps {
            if !found.plan.has_step(step) {
                let mut error = found.plan.no_step(step);
                error.message = format!(
                    "version {} of workflow `{workflow}` has no step `{step}`",
                    found.version
                );
                return Err(error);
            }
        }
        Ok(())
    }

    /// Breakpoints of new runs of a workflow, of one version or of all; without one, of every workflow.
    fn breaks_of(&self, workflow: Option<&str>, version: Option<u32>) -> Result<Vec<Break>> {
        let Some(workflow) = workflow else {
            return match version {
                None => Ok(self.of_all()?.breaks),
                Some(_) => Err(version_of_all()),
            };
        };
        self.known(workflow)?;
        let mut settings = self.settings(workflow)?;
        Ok(match version {
            None => settings.breaks,
            Some(version) => settings.breaks_of.remove(&version).unwrap_or_default(),
        })
    }

    /// Changes those of one workflow.
    fn change_breaks(
        &self,
        workflow: &str,
        version: Option<u32>,
        change: Change,
    ) -> Result<WorkflowBreakpoints> {
        let path = format!("/workflows/{workflow}/breakpoints");
        self.audited(&path, || {
            let ask = Ask::Change(Box::new(change));
            let asks = vec![(Self::queue_key(workflow), ask)];
            self.ask(ClientRequest::AskTogether(asks))?;
            self.breakpoints(Some(workflow), version)
        })
    }

    /// Changes those of every workflow, what is not there yet too.
    fn change_breaks_of_all(
        &self,
        version: Option<u32>,
        change: impl FnOnce(&mut Vec<Break>) -> Result<()>,
    ) -> Result<WorkflowBreakpoints> {
        if version.is_some() {
            return Err(version_of_all());
        }
        self.audited("/breakpoints", || {
            self.change_all(|of_all| change(&mut of_all.breaks))?;
            self.breakpoints(None, None)
        })
    }

    fn audited(
        &self,
        path: &str,
        change: impl FnOnce() -> Result<WorkflowBreakpoints>,
    ) -> Result<WorkflowBreakpoints> {
        let what = |all: Option<&WorkflowBreakpoints>| match all {
            Some(all) => format!("{} of them now", all.breakpoints.len()),
            None => String::new(),
        };
        self.audit.change("PUT", path, what, change)
    }
}

fn version_of_all() -> Error {
    let message = "a version is one of a workflow, and these are of every workflow";
    Error::new(ErrorCode::BadRequest, message).hint("name the workflow, or leave the version out")
}

/// Breakpoints that somebody sets.
fn set_by(by: &str, all: Vec<Break>) -> impl Iterator<Item = Break> {
    let by: Option<std::sync::Arc<str>> = (!by.is_empty()).then(|| by.into());
    all.into_iter().map(move |of| Break {
        by: by.clone(),
        ..of
    })
}

impl DebugCalls for Service {
    fn breakpoints(
        &self,
        workflow: Option<&str>,
        version: Option<u32>,
    ) -> Result<WorkflowBreakpoints> {
        let found = self.breaks_of(workflow, version)?;
        Ok(WorkflowBreakpoints {
            version,
            breakpoints: found.iter().map(rows::breakpoint).collect(),
            by: String::new(),
        })
    }

    fn set_breakpoints(
        &self,
        workflow: Option<&str>,
        all: &WorkflowBreakpoints,
    ) -> Result<WorkflowBreakpoints> {
        let wanted = breaks(&all.breakpoints)?;
        let Some(workflow) = workflow else {
            let wanted = set_by(&all.by, wanted).collect();
            return self.change_breaks_of_all(all.version, |breaks| {
                *breaks = wanted;
                Ok(())
            });
        };
        self.check_breaks(workflow, all.version, &wanted)?;
        let wanted = set_by(&all.by, wanted).collect();
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
        self.change_breaks(workflow, all.version, change)
    }

    fn add_breakpoint(
        &self,
        workflow: Option<&str>,
        of: &AddBreakpoint,
    ) -> Result<WorkflowBreakpoints> {
        let wanted = breaks(std::slice::from_ref(&of.breakpoint))?;
        let Some(workflow) = workflow else {
            let mut add = set_by(&of.by, wanted);
            return self.change_breaks_of_all(of.version, |breaks| {
                add.try_for_each(|add| Breaks::add(breaks, add))
            });
        };
        self.check_breaks(workflow, of.version, &wanted)?;
        let there = self.breaks_of(Some(workflow), of.version)?.len();
        if there >= limits::BREAKPOINTS {
            return Err(Breaks::too_many(there + 1));
        }
        let mut add = set_by(&of.by, wanted);
        let change = Change {
            add_break: add.next().map(|add| (of.version, add)),
            ..Change::default()
        };
        self.change_breaks(workflow, of.version, change)
    }

    fn remove_breakpoints(
        &self,
        workflow: Option<&str>,
        which: &RemoveBreakpoints,
    ) -> Result<WorkflowBreakpoints> {
        let gone = gone(which.step.as_deref(), which.at);
        let there = self.breaks_of(workflow, which.version)?;
        if let Some(step) = &which.step
            && !there.iter().any(|of| gone.has(of))
        {
            let whose = workflow.map_or_else(
                || "every workflow".to_owned(),
                |workflow| format!("`{workflow}`"),
            );
            let message = format!("new runs of {whose} have no such breakpoint at `{step}`");
            return Err(Error::new(ErrorCode::BadRequest, message)
                .hint("`kapell breakpoint list` lists them; those of the definition stay"));
        }
        let Some(workflow) = workflow else {
            return self.change_breaks_of_all(which.version, |breaks| {
                breaks.retain(|of| !gone.has(of));
                Ok(())
            });
        };
        let change = Change {
            remove_breaks: Some((which.version, gone)),
            ..Change::default()
        };
        self.change_breaks(workflow, which.version, change)
    }

    fn evaluate(&self, run: RunId, of: &Evaluate) -> Result<Evaluated> {
        let row = self.row(run)?;
        let Evaluate { step, expression } = of.clone();
        let value = if self.has_memory() {
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
            let found = perform::load(&*self.store, &mut Plans::default(), &row.id.into());
            match found.map_err(failure)?.map(|found| found.entity) {
                Some(Entity::Run(run)) => run.evaluate(&step, &expression, clock::now())?,
                _ => return Err(no_run(&run.to_string())),
            }
        };
        Ok(Evaluated {
            value: value.to_json(),
        })
    }
}
