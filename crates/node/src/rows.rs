//! Rows of runs, as lists show them.

use std::sync::Arc;

use kapell_engine::Run;
use kapell_model::{RunStatus, Time};
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
        scheduled_at: Some(meta.scheduled_at).filter(|at| *at != meta.created_at),
        trigger_name: Some(Arc::clone(&meta.trigger_name))
            .filter(|name| !name.is_empty() && *name != meta.trigger),
        backfill: meta.backfill.clone(),
    }
}

/// What of a run's row says whether it must be written again: what changes with every event waits
/// for a change of status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    status: RunStatus,
    started_at: Option<Time>,
    ended_at: Option<Time>,
    has_error: bool,
    counts: [u64; 3],
}

impl Shown {
    /// What the row of a run should show now.
    pub(crate) fn of(run: &Run) -> Self {
        let state = &run.state;
        Self {
            status: state.status,
            started_at: state.started_at,
            ended_at: state.ended_at,
            has_error: state.error.is_some(),
            counts: settled(state.status, state.counts),
        }
    }

    /// What a stored row shows.
    pub(crate) fn in_row(row: &RunRow) -> Self {
        Self {
            status: row.status,
            started_at: row.started_at,
            ended_at: row.ended_at,
            has_error: row.error.is_some(),
            counts: settled(row.status, row.counts),
        }
    }
}

fn settled(status: RunStatus, counts: [u64; 3]) -> [u64; 3] {
    if status.ended() { counts } else { [0; 3] }
}
