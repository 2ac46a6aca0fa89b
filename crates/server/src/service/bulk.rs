//! Many runs in one call.

use kapell_api::client::{Result, RunCalls};
use kapell_api::http::{
    Action, BulkAction, BulkRefusal, BulkResult, Problem, RunSummary, StartResult, StartRun,
    StartRuns, StartedRuns,
};
use kapell_model::{Error, ErrorCode, RunStatus, limits};
use kapell_store::RunFilter;
use std::collections::BTreeSet;

use super::Service;
use crate::auth::about;
use crate::search;

/// Actions of one page under way at once.
const AT_ONCE: usize = 256;

impl Service {
    /// Makes runs, all in the order given.
    pub(crate) async fn start_all(&self, start: StartRuns) -> Result<StartedRuns> {
        let count = start.runs.len();
        if count > limits::BATCH_STARTS {
            let message = format!("{count} runs are too many for one call");
            return Err(Error::new(ErrorCode::LimitReached, message)
                .hint(format!("at most {}", limits::BATCH_STARTS)));
        }
        // All are asked for before the first answer is waited for, so that one commit holds many.
        about(|| said_of(&start));
        let mut asked = Vec::with_capacity(count);
        let has_key = |run: &StartRun| {
            run.idempotency_key
                .as_ref()
                .is_some_and(|key| !key.is_empty())
        };
        // One with a key is looked for before it is made: so that it is not overtaken, all go that way.
        let any_key = start.runs.iter().any(has_key);
        for mut run in start.runs {
            if any_key && !has_key(&run) {
                run.idempotency_key = Some(crate::auth::nonce()?);
            }
            if run.by.is_empty() {
                run.by.clone_from(&start.by);
            }
            asked.push(self.start_asked(run)?);
        }
        let mut runs = Vec::with_capacity(count);
        for answer in asked {
            runs.push(match answer.await {
                Ok(started) => StartResult {
                    run: Some(started.run),
                    error: None,
                },
                Err(error) => StartResult {
                    run: None,
                    error: Some(Problem::from(error)),
                },
            });
        }
        Ok(StartedRuns { runs })
    }

    /// See [`RunCalls::bulk`].
    pub(super) fn act_on_page(&self, bulk: &BulkAction) -> Result<BulkResult> {
        let mut filter = bulk.filter.clone();
        if !bulk.all && is_everything(&search::filter(&filter)?) {
            return Err(
                Error::new(ErrorCode::BadRequest, "the filter leaves no run out")
                    .hint("name a workflow, a status, a label; or say `\"all\": true`"),
            );
        }
        filter.limit = match filter.limit {
            0 => limits::BULK_RUNS,
            limit => limit.min(limits::BULK_RUNS),
        };
        let page = self.list(&filter)?;
        let mut result = BulkResult {
            next: page.next,
            ..BulkResult::default()
        };
        let action = by(bulk.action.clone(), &bulk.by)?;
        for runs in page.runs.chunks(AT_ONCE) {
            let done = if bulk.dry_run {
                runs.iter().map(|run| would_take(&action, run)).collect()
            } else {
                self.act_on_each(runs, &action)?
            };
            for (run, done) in runs.iter().map(|run| run.run).zip(done) {
                match done {
                    Ok(()) => result.runs.push(run),
                    Err(error) => result.refused.push(BulkRefusal {
                        run,
                        error: error.into(),
                    }),
                }
            }
        }
        about(|| {
            let runs: Vec<String> = result.runs.iter().map(ToString::to_string).collect();
            format!(
                "{} of {} runs: {}",
                action.verb(),
                runs.len(),
                runs.join(", ")
            )
        });
        Ok(result)
    }

    /// Asks for all before the first answer is waited for, so that one commit holds many.
    fn act_on_each(&self, runs: &[RunSummary], action: &Action) -> Result<Vec<Result<()>>> {
        let mut asked = Vec::with_capacity(runs.len());
        for run in runs {
            asked.push(self.act_asked(run.run, action.clone())?);
        }
        Ok(asked.into_iter().map(|answer| answer().map(drop)).collect())
    }
}

/// True if a filter leaves no run of its namespace out, whatever page of them it asks for.
fn is_everything(filter: &RunFilter) -> bool {
    let RunFilter {
        namespace: _,
        workflow,
        statuses,
        parent,
        since,
        until,
        trigger,
        backfill,
        labels,
        error,
        before: _,
    } = filter;
    workflow.is_none()
        && statuses.is_empty()
        && parent.is_none()
        && since.is_none()
        && until.is_none()
        && trigger.is_none()
        && backfill.is_none()
        && labels.is_empty()
        && error.is_none()
}

/// What a run would say to an action, as far as its status tells.
fn would_take(action: &Action, run: &RunSummary) -> Result<()> {
    if takes(action, run.status) {
        return Ok(());
    }
    let verb = action.verb();
    let message = format!("the run is {}: `{verb}` does nothing to it", run.status);
    Err(Error::new(ErrorCode::NotAllowedNow, message))
}

/// Whether a run of this status may take an action. What depends on its steps is seen when it is done.
fn takes(action: &Action, status: RunStatus) -> bool {
    match action {
        Action::Retry { .. } | Action::Dismiss { .. } => matches!(
            status,
            RunStatus::Failed | RunStatus::TimedOut | RunStatus::Cancelled
        ),
        Action::Pause { .. } | Action::Resume { .. } => {
            matches!(status, RunStatus::Running | RunStatus::Paused)
        }
        Action::Cancel { .. }
        | Action::Priority { .. }
        | Action::Approve { .. }
        | Action::Reject { .. }
        | Action::Continue { .. } => !status.ended(),
        Action::Restart { .. }
        | Action::Skip { .. }
        | Action::SetOutput { .. }
        | Action::Fork { .. }
        | Action::Breakpoints { .. }
        | Action::AddBreakpoint { .. }
        | Action::RemoveBreakpoints { .. }
        | Action::SetParam { .. } => true,
    }
}

/// What the audit log says of many starts.
fn said_of(start: &StartRuns) -> String {
    let workflows: BTreeSet<&str> = start.runs.iter().map(|run| &*run.workflow).collect();
    let workflows: Vec<&str> = workflows.into_iter().collect();
    format!(
        "{} runs of workflow {}",
        start.runs.len(),
        workflows.join(", ")
    )
}

/// The action of whoever asks, if it does not say of whom.
fn by(action: Action, by: &str) -> Result<Action> {
    let bad = |error: serde_json::Error| Error::new(ErrorCode::Internal, error.to_string());
    let mut fields = serde_json::to_value(action).map_err(bad)?;
    if let Some(said) = fields.get_mut("by")
        && said == ""
    {
        *said = by.into();
    }
    serde_json::from_value(fields).map_err(bad)
}
