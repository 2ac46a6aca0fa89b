//! `run.last_success` is a success of the same workflow and key, never an older one than was known.

use std::collections::BTreeMap;
use std::sync::Arc;

use kapell_engine::Plan;
use kapell_engine::event::{Event, Fact, Stored};
use kapell_engine::run::state::State;
use kapell_expr::Value;
use kapell_model::{RunId, RunStatus, Time};

use super::{Verdict, wrong};

/// Workflow and key.
type Line = (Arc<str>, Arc<str>);

/// Successes by line, and what one commit says of them.
#[derive(Default)]
pub(super) struct Watermarks {
    known: BTreeMap<Line, BTreeMap<RunId, Success>>,
    started: Vec<(Line, RunId, Value)>,
    ended: Vec<(Line, RunId, Success)>,
}

struct Success {
    scheduled_at: Time,
    params: Value,
}

impl Watermarks {
    /// Notes an event that was applied.
    pub(super) fn event(&mut self, state: &State, plan: &Plan, event: &Event) {
        let meta = &state.meta;
        let due = matches!(&*meta.trigger, "schedule" | "backfill");
        let key = match &meta.queue {
            Some((_, _, key)) => key.clone(),
            // Remembered for a later version that asks.
            None if due && plan.spec.strategy.key.is_none() => "".into(),
            None => return,
        };
        let line = (meta.workflow.clone(), key);
        match &event.fact {
            Some(Fact::RunStarted(started)) if plan.watermark => {
                let value = started.last_success.as_ref().map(Stored::value);
                self.started
                    .push((line, meta.id, value.unwrap_or_default()));
            }
            Some(Fact::RunEnded(_)) if state.status == RunStatus::Succeeded => {
                let success = Success {
                    scheduled_at: meta.scheduled_at,
                    params: meta.params.clone(),
                };
                self.ended.push((line, meta.id, success));
            }
            _ => {}
        }
    }

    /// The commit is over: whoever started in it has seen what was known before it, or became known
    /// in it.
    pub(super) fn landed(&mut self) -> Verdict {
        let best: Vec<Option<Time>> = self
            .started
            .iter()
            .map(|(line, _, _)| {
                let known = self.known.get(line)?.values();
                known.map(|success| success.scheduled_at).max()
            })
            .collect();
        for (line, run, success) in self.ended.drain(..) {
            self.known.entry(line).or_default().insert(run, success);
        }
        for ((line, run, shown), best) in std::mem::take(&mut self.started).into_iter().zip(best) {
            let known = self.known.get(&line);
            let shown_run = field(&shown, "id").and_then(|id| id.as_str()?.parse::<RunId>().ok());
            let success = shown_run.and_then(|shown| known?.get(&shown));
            let fits = match (success, best) {
                (None, None) => shown.is_null(),
                (None, Some(_)) => false,
                (Some(success), best) => {
                    best.is_none_or(|best| success.scheduled_at >= best)
                        && field(&shown, "scheduled_at")
                            == Some(&Value::Timestamp(success.scheduled_at.timestamp()))
                        && field(&shown, "params").is_some_and(|params| {
                            *params == success.params
                                || matches!(params, Value::Blob(_) | Value::Null)
                        })
                }
            };
            if !fits {
                let detail = format!("{run} of {line:?} starts after {shown:?}, known {best:?}");
                return wrong("last_success", detail);
            }
        }
        Ok(())
    }
}

fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.as_map()?.get(name)
}
