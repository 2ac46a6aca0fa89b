//! What the audit log says of deploys and changes of workflows.

use kapell_api::http::{DeployAction, DeployPlan, WorkflowChange};

/// Workflows of a deploy that the audit log names.
const NAMED: usize = 20;

/// What a deploy changed.
pub(super) fn plan(plan: &DeployPlan) -> String {
    let changed = plan.changes.iter();
    let mut changed = changed.filter(|change| change.action != DeployAction::Keep);
    let named: Vec<String> = changed
        .by_ref()
        .take(NAMED)
        .map(|change| match (change.action, change.to) {
            (DeployAction::Delete, _) => format!("workflow `{}` deleted", change.workflow),
            (_, Some(version)) => format!("workflow `{}`, version {version}", change.workflow),
            (_, None) => format!("workflow `{}`", change.workflow),
        })
        .collect();
    match changed.count() {
        0 if named.is_empty() => "nothing differed".to_owned(),
        0 => named.join("; "),
        more => format!("{}; {more} more", named.join("; ")),
    }
}

/// What a change of a workflow says.
pub(super) fn change(change: &WorkflowChange) -> String {
    let mut parts = Vec::new();
    if let Some(paused) = change.paused {
        parts.push(if paused { "paused" } else { "going on" }.to_owned());
    }
    if let Some(version) = change.active {
        parts.push(format!("version {version} active"));
    }
    if change.deactivate {
        parts.push("no version active".to_owned());
    }
    match &change.owner {
        None => {}
        Some(None) => parts.push("owner as defined".to_owned()),
        Some(Some(owner)) => parts.push(format!("owner {owner}")),
    }
    if change.strategy.is_some() {
        parts.push("strategy".to_owned());
    }
    if change.retention.is_some() {
        parts.push("retention".to_owned());
    }
    parts.join(", ")
}
