//! Many runs in one call.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;
use kapell_api::client::{Result, RunCalls};
use kapell_api::http::{
    Action, BulkAction, BulkRefusal, BulkResult, Problem, StartResult, StartRuns, StartedRuns,
};
use kapell_model::{Error, ErrorCode, limits};

use super::Service;
use crate::auth::about;

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
        for mut run in start.runs {
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

    /// Does something to one page of the runs that match.
    pub(crate) async fn act_on_all(self: &Arc<Self>, bulk: BulkAction) -> Result<BulkResult> {
        let mut filter = bulk.filter;
        filter.limit = match filter.limit {
            0 => limits::BULK_RUNS,
            limit => limit.min(limits::BULK_RUNS),
        };
        let service = Arc::clone(self);
        let page = super::aside(move || service.list(&filter)).await?;
        let mut result = BulkResult {
            next: page.next,
            ..BulkResult::default()
        };
        if bulk.dry_run {
            result.runs = page.runs.iter().map(|run| run.run).collect();
            return Ok(result);
        }
        let action = &by(bulk.action, &bulk.by)?;
        let done = stream::iter(page.runs)
            .map(|run| async move { (run.run, self.act_quietly(run.run, action.clone()).await) })
            .buffered(AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        for (run, done) in done {
            match done {
                Ok(_) => result.runs.push(run),
                Err(error) => result.refused.push(BulkRefusal {
                    run,
                    error: error.into(),
                }),
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
