//! What people see of a trigger.

use kapell_model::Time;
use kapell_model::spec::{Timing, TriggerKind};
use serde_json::{Value, json};

use super::Trigger;
use crate::event::run_id;

impl Trigger {
    /// All that lists show; none of one that the active version does not have.
    pub(super) fn shown(&self) -> Option<Value> {
        let state = &self.state;
        let made = self.made.as_ref()?;
        let (kind, starts_by) = match &made.spec.kind {
            TriggerKind::Schedule(schedule) => (
                "schedule",
                match &schedule.timing {
                    Timing::Cron(text) => json!({ "cron": text }),
                    Timing::Every(span) => json!({ "every": kapell_expr::format_duration(*span) }),
                },
            ),
            TriggerKind::Signal(signal) => {
                let sources = signal.sources.iter().map(|source| &source.signal);
                ("signal", json!({ "signals": sources.collect::<Vec<_>>() }))
            }
            TriggerKind::Webhook(webhook) => ("webhook", json!({ "path": webhook.path })),
        };
        let timezone = match made.schedule() {
            Some((schedule, _)) => schedule.timezone.as_deref(),
            None => None,
        };
        let problem = match &made.calendar {
            Some(Err(error)) => Some(json!({ "message": error })),
            _ => state.problem.as_ref().map(
                |problem| json!({ "message": problem.message, "at": Time(problem.at).to_string() }),
            ),
        };
        let last = state.last.as_ref().map(|last| {
            let late = last
                .due
                .then(|| (state.last_started_at - last.scheduled_at) / 1000);
            json!({
                "run": run_id(&last.run).to_string(),
                "scheduled_at": Time(last.scheduled_at).to_string(),
                "started_at": Time(state.last_started_at).to_string(),
                "late_ms": late,
            })
        });
        Some(json!({
            "kind": kind,
            "on": starts_by,
            "timezone": timezone.unwrap_or(&state.timezone),
            "version": state.version,
            "generation": state.generation,
            "paused_by": state.paused_by,
            "workflow_paused": state.workflow_paused,
            "next_at": self.next_start().map(|at| at.to_string()),
            "catching_up": state.watermark < state.catching_up,
            "last": last,
            "started": state.started,
            "missed": state.missed,
            "declined": state.declined,
            "refused": state.refused,
            "duplicates": state.duplicates,
            "waiting_signals": state.pending.len(),
            "problem": problem,
        }))
    }
}
