//! What is done now and then: runs that are kept no longer are dropped, in small steps.

use kapell_model::spec::{Retention, Spec};
use kapell_model::{RunId, RunStatus, Time, limits};
use kapell_store::{Result, RunFilter, Store};

/// Runs dropped in one go, so that nothing waits long behind it.
const STEP: usize = 200;

/// Drops ended runs that their workflow's `retention` keeps no longer, at most a small step of each
/// workflow. Returns which, so that what belongs to them elsewhere (logs) can go too.
///
/// # Errors
/// Those of the store; what was dropped before stays dropped.
pub fn drop_expired(store: &dyn Store, namespace: &str, now: Time) -> Result<Vec<RunId>> {
    let mut dropped = Vec::new();
    let mut after = String::new();
    loop {
        let page = store.list_workflows(namespace, &after, limits::LIST_PAGE)?;
        let Some((last, _)) = page.last() else {
            return Ok(dropped);
        };
        after = last.to_string();
        for (workflow, version) in &page {
            let Some(row) = store.version(namespace, workflow, Some(*version))? else {
                continue;
            };
            let Ok(spec) = serde_json::from_str::<Spec>(&row.spec) else {
                continue;
            };
            let expired = expired(store, (namespace, workflow), spec.retention, now)?;
            if !expired.is_empty() {
                store.delete_runs(&expired)?;
                dropped.extend(expired);
            }
        }
    }
}

fn expired(
    store: &dyn Store,
    workflow: (&str, &str),
    retention: Retention,
    now: Time,
) -> Result<Vec<RunId>> {
    if let Some(age) = retention.age {
        let expired = store.expired_runs(Some(workflow), now.plus(-age), STEP)?;
        if !expired.is_empty() {
            return Ok(expired);
        }
    }
    match retention.runs {
        Some(runs) => beyond(store, workflow, runs as usize),
        None => Ok(Vec::new()),
    }
}

/// Ended runs of a workflow beyond the newest `keep`.
fn beyond(
    store: &dyn Store,
    (namespace, workflow): (&str, &str),
    keep: usize,
) -> Result<Vec<RunId>> {
    let mut filter = RunFilter {
        namespace: Some(namespace.into()),
        workflow: Some(workflow.into()),
        statuses: RunStatus::ALL
            .into_iter()
            .filter(|status| status.ended())
            .collect(),
        ..RunFilter::default()
    };
    let mut passed = 0;
    let mut expired = Vec::new();
    loop {
        let page = store.list_runs(&filter, limits::LIST_PAGE)?;
        let Some(last) = page.last() else {
            return Ok(expired);
        };
        filter.before = Some(last.id);
        for row in &page {
            passed += 1;
            if passed > keep {
                expired.push(row.id);
            }
        }
        if expired.len() >= STEP {
            // The oldest go first with the next steps; which of the surplus goes now is the same.
            expired.truncate(STEP);
            return Ok(expired);
        }
    }
}
