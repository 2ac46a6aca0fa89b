//! Rows of runs, as lists show them.

use std::sync::Arc;

use kapell_engine::Run;
use kapell_store::RunRow;

/// Bytes of an error in a row.
const ERROR_BYTES: usize = 1024;

/// The row of a run.
pub(crate) fn row(run: &Run) -> RunRow {
    let state = &run.state;
    let meta = &state.meta;
    RunRow {
        id: meta.id,
        namespace: meta.namespace.clone(),
        workflow: meta.workflow.clone(),
        version: meta.version,
        status: state.status,
        created_at: meta.created_at,
        started_at: state.started_at,
        ended_at: state.ended_at,
        parent: meta.parent.map(|parent| parent.run),
        trigger: Arc::clone(&meta.trigger),
        counts: state.counts,
        error: state.error.as_ref().map(|error| {
            let mut text = if error.step.is_empty() {
                error.error.message.clone()
            } else {
                format!("{}: {}", error.step, error.error.message)
            };
            if text.len() > ERROR_BYTES {
                let end = (0..=ERROR_BYTES)
                    .rev()
                    .find(|end| text.is_char_boundary(*end));
                text.truncate(end.unwrap_or(0));
            }
            text
        }),
        labels: if meta.labels.is_null() {
            "{}".to_owned()
        } else {
            meta.labels.to_json().to_string()
        },
    }
}

/// True if a row must be written again: what changes with every event waits for a change of status.
pub(crate) fn changed(old: &RunRow, new: &RunRow) -> bool {
    old.status != new.status
        || old.error != new.error
        || old.started_at != new.started_at
        || old.ended_at != new.ended_at
        || new.status.ended() && old.counts != new.counts
}
