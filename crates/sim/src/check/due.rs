//! Each due time makes exactly one run, in the commit that moves the watermark; none is left out but by
//! what its schedule says.

use std::collections::BTreeSet;

use kapell_engine::event::{RunCreated, run_id};
use kapell_engine::trigger::{self, Fact};
use kapell_model::spec::Catchup;
use kapell_model::{EntityKey, RunId, Time};
use kapell_node::Entity;

use super::{Checks, Verdict, wrong};
use crate::world::Failure;

/// What is known of due times.
#[derive(Default)]
pub(super) struct DueTimes {
    /// Trigger, generation and due time of every start.
    started: BTreeSet<(EntityKey, u32, Time)>,
    /// Workflow, backfill and due time of every run of a backfill.
    filled: BTreeSet<(String, String, i64)>,
    /// Runs that triggers say they started in the commit that is read, and runs that were made.
    said: BTreeSet<(RunId, Time)>,
    made: BTreeSet<(RunId, Time)>,
}

impl DueTimes {
    /// A run was made.
    pub(super) fn created(&mut self, id: RunId, created: &RunCreated) -> Verdict {
        match created.trigger.as_str() {
            "schedule" => {
                self.made.insert((id, Time(created.scheduled_at)));
            }
            "backfill" => {
                let filled = (
                    created.workflow.clone(),
                    created.backfill.clone(),
                    created.scheduled_at,
                );
                if !self.filled.insert(filled) {
                    let at = Time(created.scheduled_at);
                    let detail = format!("{} makes two runs for {at}", created.backfill);
                    return wrong("due", detail);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Checks {
    pub(super) fn trigger_written(&mut self, key: &EntityKey, chunk: &[u8]) -> Verdict {
        let events = trigger::decode_chunk(chunk).map_err(|error| Failure {
            what: "history",
            detail: format!("{key:?}: {error}"),
        })?;
        let fresh = || Entity::Trigger(Box::default());
        let shadow = self.smalls.entry(key.clone()).or_insert_with(fresh);
        let Entity::Trigger(trigger) = shadow else {
            return wrong("history", format!("{key:?} is no trigger"));
        };
        for event in &events {
            let watermark = Time(trigger.state.watermark);
            match (&event.fact, trigger.schedule()) {
                (Some(Fact::Started(started)), Some((_, calendar))) => {
                    let due = Time(started.scheduled_at);
                    let next = calendar.next(watermark);
                    if next != Some(due) {
                        let detail =
                            format!("{key:?} starts {due} after {watermark}, not {next:?}");
                        return wrong("due", detail);
                    }
                    if due.0 + trigger.state.delay > event.at {
                        return wrong("due", format!("{key:?} starts {due} too early"));
                    }
                    let start = (key.clone(), trigger.state.generation, due);
                    if !self.due.started.insert(start) {
                        return wrong("due", format!("{key:?} starts {due} twice"));
                    }
                    self.due.said.insert((run_id(&started.run), due));
                }
                (Some(Fact::Missed(_)), Some((schedule, _))) => {
                    if matches!(schedule.catchup, Catchup::All { .. }) {
                        return wrong("due", format!("{key:?} misses what it is to make up for"));
                    }
                }
                _ => {}
            }
            trigger.apply(event);
            if Time(trigger.state.watermark) < watermark {
                return wrong("due", format!("the watermark of {key:?} goes back"));
            }
        }
        Ok(())
    }

    /// The commit is over: what triggers say they started was made in it, and nothing else.
    pub(super) fn due_times_made(&mut self) -> Verdict {
        let said = std::mem::take(&mut self.due.said);
        let made = std::mem::take(&mut self.due.made);
        if said != made {
            return wrong(
                "due",
                format!("triggers started {said:?}, made were {made:?}"),
            );
        }
        Ok(())
    }

    /// True if no trigger or backfill has anything to start by itself.
    pub(super) fn starts_no_more(&self) -> bool {
        let starters = self.smalls.values();
        starters
            .filter(|entity| matches!(entity, Entity::Trigger(_) | Entity::Backfill(_)))
            .all(|entity| entity.timer_at().is_none())
    }

    /// The end: every due time until the schedule's end is done with.
    pub(super) fn due_times_done(&self) -> Verdict {
        for (key, entity) in &self.smalls {
            match entity {
                Entity::Trigger(trigger) => {
                    let state = &trigger.state;
                    let idle = state.paused_by.is_some() || state.workflow_paused;
                    let next = trigger
                        .schedule()
                        .and_then(|(_, calendar)| calendar.next(Time(state.watermark)));
                    if let Some(next) = next.filter(|_| !idle) {
                        return wrong("due", format!("{key:?} never started {next}"));
                    }
                    let open = state.open.iter().map(|due| Time(*due)).next();
                    if let Some(open) = open {
                        return wrong("due", format!("{key:?} never heard of its run for {open}"));
                    }
                }
                Entity::Backfill(backfill) => {
                    let state = &backfill.state;
                    let idle = state.paused_by.is_some() || !state.exists();
                    if state.ended_at == 0 && !idle {
                        return wrong("due", format!("{key:?} never ended: {state:?}"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Triggers and backfills that there are.
    pub(crate) fn starters(&self) -> Vec<EntityKey> {
        let starter = |(key, entity): (&EntityKey, &Entity)| {
            matches!(entity, Entity::Trigger(_) | Entity::Backfill(_)).then(|| key.clone())
        };
        self.smalls.iter().filter_map(starter).collect()
    }
}
