//! How a record begins.

use kapell_api::record::Record;
use kapell_api::task::Place;
use kapell_expr::Value;
use kapell_model::{RunStatus, Time};

use super::{Fold, status};
use crate::event::{RunCreated, ScopeKind, Stored, run_id};
use crate::message::StartClass;

impl Fold<'_> {
    /// The first event of every history.
    pub(super) fn created(&mut self, at: Time, created: &RunCreated) {
        self.record = Record {
            run: run_id(&created.id),
            namespace: created.namespace.clone(),
            workflow: created.workflow.clone(),
            version: created.version,
            status: RunStatus::Queued,
            trigger: created.trigger.clone(),
            trigger_name: Some(created.trigger_name.clone()).filter(|name| !name.is_empty()),
            backfill: Some(created.backfill.clone()).filter(|id| !id.is_empty()),
            catching_up: StartClass::from_number(created.class) == StartClass::Catchup,
            scheduled_at: Some(Time(created.scheduled_at)).filter(|due| *due != at),
            interval_start: created.interval.as_ref().map(|of| Time(of.start)),
            interval_end: created.interval.as_ref().map(|of| Time(of.end)),
            by: created.by.clone(),
            parent: created.parent.as_ref().map(|parent| run_id(&parent.run)),
            forked_from: created.fork.as_ref().map(|fork| run_id(&fork.run)),
            priority: u8::try_from(created.priority).unwrap_or(100),
            created_at: at,
            seen_at: at,
            params: created
                .params
                .as_ref()
                .map(Stored::value)
                .unwrap_or_default(),
            ..Record::default()
        };
        self.named = named(&self.record, created);
        if let Some(fork) = &created.fork {
            // What a fork keeps has ended when its first graph opens.
            let mut root = self.fresh_scope(0, ScopeKind::Root, None, 0);
            for kept in &fork.kept {
                let output = kept
                    .output
                    .as_ref()
                    .map(|output| self.shown(output, Place::NO_ITEM))
                    .unwrap_or_default();
                if let Some(step) = root.steps.get_mut(kept.step as usize) {
                    step.unit.status = status(kept.status);
                    step.unit.end(at, output);
                    step.unit.by = Some(format!("kept of run {}", run_id(&fork.run)));
                }
            }
            self.scopes.insert(0, root);
        }
    }
}

/// The part of `run` that stays as it is from the first event on.
fn named(record: &Record, created: &RunCreated) -> Value {
    let text = |text: &str| Value::string(text);
    let time = |micros: i64| Value::Timestamp(Time(micros).timestamp());
    let due = created.scheduled_at;
    let (start, end) = created
        .interval
        .as_ref()
        .map_or((due, due), |of| (of.start, of.end));
    Value::map([
        ("id", Value::string(record.run.to_string())),
        ("workflow", text(&created.workflow)),
        ("version", Value::Int(i64::from(created.version))),
        ("namespace", text(&created.namespace)),
        ("scheduled_at", time(due)),
        (
            "created_at",
            Value::Timestamp(record.created_at.timestamp()),
        ),
        (
            "interval",
            Value::map([("start", time(start)), ("end", time(end))]),
        ),
        (
            "trigger",
            Value::map([
                ("kind", text(&created.trigger)),
                ("name", text(&created.trigger_name)),
                ("by", text(&created.by)),
            ]),
        ),
        (
            "labels",
            created
                .labels
                .as_ref()
                .map(Stored::value)
                .unwrap_or_default(),
        ),
    ])
}
