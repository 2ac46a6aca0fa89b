//! What people see of a trigger.

use kapell_model::Time;
use kapell_model::spec::{Timing, TriggerKind};
use serde::Serialize;
use serde_json::{Value, json};

use super::state::Pending;
use super::{Made, Trigger};
use crate::event::run_id;

/// Signals that wait that are shown.
const SHOWN: usize = 100;

/// All that lists show of a trigger.
#[derive(Debug, Serialize)]
pub(super) struct Shown<'a> {
    kind: &'static str,
    on: On<'a>,
    timezone: &'a str,
    version: u32,
    generation: u32,
    address: u32,
    paused_by: Option<&'a str>,
    workflow_paused: bool,
    next_at: Option<String>,
    catching_up: bool,
    last: Option<Last>,
    started: u64,
    missed: u64,
    declined: u64,
    refused: u64,
    duplicates: u64,
    waiting_starts: usize,
    waiting_signals: usize,
    waiting: Vec<Value>,
    problem: Option<Value>,
}

/// What it starts runs on.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum On<'a> {
    Cron(&'a str),
    Every(String),
    Signals(Vec<&'a str>),
    Path(&'a str),
}

/// Its last start.
#[derive(Debug, Serialize)]
struct Last {
    run: String,
    scheduled_at: String,
    started_at: String,
    late_ms: Option<i64>,
}

impl Trigger {
    /// All that lists show; none of one that the active version does not have.
    pub(super) fn shown(&self) -> Option<Shown<'_>> {
        let state = &self.state;
        let made = self.made.as_ref()?;
        let (kind, starts_by) = match &made.spec.kind {
            TriggerKind::Schedule(schedule) => (
                "schedule",
                match &schedule.timing {
                    Timing::Cron(text) => On::Cron(text),
                    Timing::Every(span) => On::Every(kapell_expr::format_duration(*span)),
                },
            ),
            TriggerKind::Signal(signal) => {
                let sources = signal.sources.iter().map(|source| &*source.signal);
                ("signal", On::Signals(sources.collect()))
            }
            TriggerKind::Webhook(webhook) => ("webhook", On::Path(&webhook.path)),
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
        let last = state.last.as_ref().map(|last| Last {
            run: run_id(&last.run).to_string(),
            scheduled_at: Time(last.scheduled_at).to_string(),
            started_at: Time(state.last_started_at).to_string(),
            late_ms: last
                .due
                .then(|| (state.last_started_at - last.scheduled_at) / 1000),
        });
        let pending = state.pending.iter().take(SHOWN);
        Some(Shown {
            kind,
            on: starts_by,
            timezone: timezone.unwrap_or(&state.timezone),
            version: state.version,
            generation: state.generation,
            address: state.address,
            paused_by: state.paused_by.as_deref(),
            workflow_paused: state.workflow_paused,
            next_at: self.next_start().map(|at| at.to_string()),
            catching_up: state.watermark < state.catching_up,
            last,
            started: state.started,
            missed: state.missed,
            declined: state.declined,
            refused: state.refused,
            duplicates: state.duplicates,
            waiting_starts: room.map_or(0, |room| {
                room.held.len() + usize::from(room.trying.is_some())
            }),
            waiting_signals: state.pending.len(),
            waiting: pending.map(|pending| waiting(made, pending)).collect(),
            problem,
        })
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
