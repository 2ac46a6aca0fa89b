//! What people see of a trigger.

use kapell_model::Time;
use kapell_model::spec::{Timing, TriggerKind};
use serde_json::{Value, json};

use super::state::Pending;
use super::{Made, Trigger};
use crate::event::run_id;

/// Signals that wait that are shown.
const SHOWN: usize = 100;

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
        let room = state.room.as_ref();
        let problem = match (&made.calendar, room) {
            (Some(Err(error)), _) => Some(json!({ "message": error })),
            (_, Some(room)) => Some(json!({
                "message": format!("starts wait for room, and are tried in order: {}", room.message),
                "at": Time(room.since).to_string(),
            })),
            _ => state.problem.as_ref().map(|problem| {
                let run = Some(&problem.run).filter(|run| !run.is_empty());
                json!({
                    "message": problem.message,
                    "at": Time(problem.at).to_string(),
                    "run": run.map(|run| run_id(run).to_string()),
                })
            }),
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
            "address": state.address,
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
            "waiting_starts": room.map_or(0, |room| {
                room.held.len() + usize::from(room.trying.is_some())
            }),
            "waiting_signals": state.pending.len(),
            "waiting": state
                .pending
                .iter()
                .take(SHOWN)
                .map(|pending| waiting(made, pending))
                .collect::<Vec<_>>(),
            "problem": problem,
        }))
    }
}

/// A signal that waits for others, as people see it.
fn waiting(made: &Made, pending: &Pending) -> Value {
    let sources = match &made.spec.kind {
        TriggerKind::Signal(of) => of.sources.as_slice(),
        TriggerKind::Schedule(_) | TriggerKind::Webhook(_) => &[],
    };
    let alias = |place: usize| sources.get(place).map(|source| &source.alias);
    let key = kapell_expr::Value::from_stored(&pending.key).unwrap_or_default();
    json!({
        "source": alias(pending.source as usize),
        "signal": pending.signal.name,
        "id": pending.signal.id,
        "key": key.to_json(),
        "sent_at": Time(pending.signal.sent_at).to_string(),
    })
}
