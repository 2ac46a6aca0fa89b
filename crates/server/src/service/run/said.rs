//! What the audit log says of runs.

use kapell_api::http::{Action, Started};
use kapell_model::RunId;

/// Of a start.
pub(super) fn start(workflow: &str, made: Option<&Started>) -> String {
    match made {
        Some(made) => format!("workflow `{workflow}`, run {}", made.run),
        None => format!("workflow `{workflow}`"),
    }
}

/// Of an action: the run by its whole id, and what in it is meant.
pub(super) fn action(run: RunId, action: &Action) -> String {
    let more = match action {
        Action::Restart { from: step, .. }
        | Action::Fork { from: step, .. }
        | Action::Skip { step, .. }
        | Action::SetOutput { step, .. }
        | Action::Approve { step, .. }
        | Action::Reject { step, .. }
        | Action::Continue {
            step: Some(step), ..
        } => format!(", step `{step}`"),
        Action::SetParam { name, .. } => format!(", parameter `{name}`"),
        Action::Priority { priority, .. } => format!(", {priority}"),
        Action::Cancel { now: true, .. } => ", without `finally`".to_owned(),
        Action::Cancel { .. }
        | Action::Pause { .. }
        | Action::Resume { .. }
        | Action::Retry { .. }
        | Action::Dismiss { .. }
        | Action::Continue { .. }
        | Action::Breakpoints { .. }
        | Action::AddBreakpoint { .. }
        | Action::RemoveBreakpoints { .. } => String::new(),
    };
    format!("run {run}{more}")
}
