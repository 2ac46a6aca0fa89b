//! What people see of a backfill.

use kapell_model::Time;
use serde_json::{Value, json};

use super::{Backfill, Only};
use crate::event::run_id;

/// Runs that are named, of each kind.
const NAMED: usize = 100;

impl Backfill {
    /// All that lists show.
    pub(super) fn shown(&self) -> Option<Value> {
        let state = &self.state;
        if !state.exists() {
            return None;
        }
        let time = |at: i64| (at > 0).then(|| Time(at).to_string());
        let runs = |runs: &[super::Started], without: &[Vec<u8>]| -> Vec<Value> {
            let runs = runs.iter().filter(|run| !without.contains(&run.run));
            runs.take(NAMED)
                .map(|run| {
                    json!({
                        "run": run_id(&run.run).to_string(),
                        "scheduled_at": Time(run.due).to_string(),
                    })
                })
                .collect()
        };
        let status = if state.cancelled_by.is_some() {
            "cancelled"
        } else if state.ended_at > 0 {
            "ended"
        } else if state.paused_by.is_some() {
            "paused"
        } else if state.blocked_by.is_some() {
            "blocked"
        } else {
            "running"
        };
        // Nothing holds up what is over.
        let over = state.cancelled_by.is_some() || state.ended_at > 0;
        let blocked = state.blocked_by.as_deref().filter(|_| !over);
        Some(json!({
            "trigger": state.trigger,
            "version": state.version,
            "status": status,
            "from": Time(state.from).to_string(),
            "until": Time(state.until).to_string(),
            "only": Only::from_number(state.only).name(),
            "order": if state.newest_first { "newest_first" } else { "oldest_first" },
            "concurrency": state.concurrency,
            "by": state.by,
            "created_at": time(state.created_at),
            "ended_at": time(state.ended_at),
            "total": state.total,
            "found": state.found,
            "ahead": time(state.ahead),
            "succeeded": state.succeeded,
            "failed": state.failed.len() - state.cancelled.len(),
            "cancelled": state.cancelled.len(),
            "refused": state.refused,
            "declined": state.declined,
            "active": runs(&state.active, &[]),
            "failed_runs": runs(&state.failed, &state.cancelled),
            "paused_by": state.paused_by.as_ref().filter(|_| !over),
            "cancelled_by": state.cancelled_by,
            "blocked_by": blocked.map(|run| run_id(run).to_string()),
            "problem": (!state.problem.is_empty()).then_some(&state.problem),
        }))
    }
}
