//! Each due time makes exactly one run, in the commit that moves the watermark; none is left out but by
//! what its schedule says.

use std::collections::{BTreeMap, BTreeSet};

use kapell_engine::calendar::Calendar;
use kapell_engine::event::{RunCreated, run_id};
use kapell_engine::message::StartClass;
use kapell_engine::trigger::{self, Fact, Trigger};
use kapell_expr::{Budget, Map, MapScope, Value};
use kapell_model::spec::{self, Catchup, Schedule};
use kapell_model::{EntityKey, RunId, RunStatus, Time, limits};
use kapell_node::Entity;

use super::lines::Order;
use super::{Checks, Verdict, wrong};
use crate::world::Failure;

/// What is known of due times.
#[derive(Default)]
pub(super) struct DueTimes {
    /// Trigger, generation and due time of every start.
    started: BTreeSet<(EntityKey, u32, Time)>,
    /// When each trigger last made up for a due time.
    caught_up: BTreeMap<EntityKey, i64>,
    /// Runs that triggers say they started in the commit that is read, and those that were made.
    said: BTreeMap<RunId, (EntityKey, Time)>,
    made: BTreeMap<RunId, Time>,
    /// Starts of this commit that could not be made.
    refused: BTreeSet<(EntityKey, Time)>,
}

impl DueTimes {
    /// A run was made.
    pub(super) fn created(&mut self, id: RunId, created: &RunCreated) {
        if created.trigger == "schedule" {
            self.made.insert(id, Time(created.scheduled_at));
        }
    }
}

impl DueTimes {
    /// A schedule has decided something.
    fn decided(&mut self, at: &At<'_>, fact: Option<&Fact>) -> Verdict {
        let key = at.key;
        match fact {
            Some(Fact::Started(started)) => {
                let due = Time(started.scheduled_at);
                at.is_next(due)?;
                at.right_class(due, started.class)?;
                if !at.wanted(due) {
                    return wrong("due", format!("{key:?} starts {due} against its `when`"));
                }
                self.paced(at, due)?;
                let start = (key.clone(), at.trigger.state.generation, due);
                if !self.started.insert(start) {
                    return wrong("due", format!("{key:?} starts {due} twice"));
                }
                self.said.insert(run_id(&started.run), (key.clone(), due));
            }
            Some(Fact::Declined(declined)) => {
                let Some(due) = declined.due.map(Time) else {
                    return Ok(());
                };
                at.is_next(due)?;
                if declined.error.is_empty() && at.wanted(due) {
                    return wrong("due", format!("{key:?} declines {due}"));
                }
            }
            Some(Fact::Missed(missed)) => at.may_miss(Time(missed.until))?,
            Some(Fact::Refused(refused)) => {
                let start = (key.clone(), Time(refused.scheduled_at));
                self.refused.insert(start);
            }
            _ => {}
        }
        Ok(())
    }

    /// What is made up for goes no faster than its pace.
    fn paced(&mut self, at: &At<'_>, due: Time) -> Verdict {
        let Catchup::All { pace, .. } = at.schedule.catchup else {
            return Ok(());
        };
        if due.0 > at.trigger.state.catching_up {
            return Ok(());
        }
        let last = self.caught_up.insert(at.key.clone(), at.now);
        match (last, pace) {
            (Some(last), Some(pace)) if at.now - last < micros(pace) => {
                let detail = format!("{:?} makes up for {due} after {}", at.key, at.now - last);
                wrong("due", detail)
            }
            _ => Ok(()),
        }
    }
}

/// A schedule as it was when something was decided.
struct At<'a> {
    key: &'a EntityKey,
    trigger: &'a Trigger,
    schedule: &'a Schedule,
    calendar: &'a Calendar,
    now: i64,
}

impl At<'_> {
    /// The newest due time that may have started something by now.
    fn newest(&self) -> Option<Time> {
        let horizon = self.now.saturating_sub(self.trigger.state.delay);
        self.calendar.previous(Time(horizon.saturating_add(1)))
    }

    /// By how much a due time is over.
    fn late(&self, due: Time) -> i64 {
        self.now - self.trigger.state.delay - due.0
    }

    /// The next due time is done with: it is the next indeed, and not too early.
    fn is_next(&self, due: Time) -> Verdict {
        let key = self.key;
        let watermark = Time(self.trigger.state.watermark);
        let next = self.calendar.next(watermark);
        if next != Some(due) {
            let detail = format!("{key:?} decides about {due} after {watermark}, not {next:?}");
            return wrong("due", detail);
        }
        let early = self.late(due) < 0 || self.schedule.start.is_some_and(|start| due < start);
        if early || self.schedule.end.is_some_and(|end| due >= end) {
            return wrong(
                "due",
                format!("{key:?} decides about {due} at another time"),
            );
        }
        Ok(())
    }

    /// A start is a catch-up start where its due time was missed.
    fn right_class(&self, due: Time, class: u32) -> Verdict {
        let catching_up = due.0 <= self.trigger.state.catching_up;
        let late = self.late(due) > micros(limits::SCHEDULE_GRACE);
        if (class == StartClass::Catchup as u32) == (catching_up || late) {
            return Ok(());
        }
        wrong(
            "due",
            format!("{:?} starts {due} in class {class}", self.key),
        )
    }

    /// `when` holds, as far as it looks at the due time.
    fn wanted(&self, due: Time) -> bool {
        let spec = serde_json::from_str::<spec::Trigger>(&self.trigger.state.definition);
        let Some(when) = spec.ok().and_then(|spec| spec.when) else {
            return true;
        };
        let run = Value::map([("scheduled_at", Value::Timestamp(due.timestamp()))]);
        let scope = MapScope(Map::from([("run".into(), run)]));
        when.eval(&scope, Budget::default()) == Ok(Value::Bool(true))
    }

    /// Due times up to one are passed over: none of them is to be made up for.
    fn may_miss(&self, until: Time) -> Verdict {
        let key = self.key;
        let Some(newest) = self.newest() else {
            return wrong("due", format!("{key:?} misses {until}, which is not due"));
        };
        let missed = self.calendar.first(
            Time(self.trigger.state.watermark),
            until,
            limits::CATCHUP as usize,
        );
        let is_kept = |due: &Time| match self.schedule.catchup {
            // The newest is always made up for.
            Catchup::Latest => *due >= newest,
            // What is due just now is a start like any other.
            Catchup::None => *due >= newest && self.late(newest) <= micros(limits::SCHEDULE_GRACE),
            Catchup::All { max, within, .. } => {
                let newer = self.calendar.first(*due, newest, max as usize).len();
                let oldest = within.map_or(i64::MIN, |within| self.now - micros(within));
                newer < max as usize && due.0 >= oldest
            }
        };
        match missed.into_iter().find(is_kept) {
            None => Ok(()),
            Some(kept) => wrong("due", format!("{key:?} misses {kept}, up to {newest}")),
        }
    }
}

fn micros(span: jiff::SignedDuration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

impl Checks {
    pub(super) fn trigger_written(&mut self, key: &EntityKey, chunk: &[u8]) -> Verdict {
        let events =
            kapell_engine::chunk::decode::<trigger::TriggerEvent>(chunk).map_err(|error| {
                Failure {
                    what: "history",
                    detail: format!("{key:?}: {error}"),
                }
            })?;
        let fresh = || Entity::Trigger(Box::default());
        let shadow = self.smalls.entry(key.clone()).or_insert_with(fresh);
        let Entity::Trigger(trigger) = shadow else {
            return wrong("history", format!("{key:?} is no trigger"));
        };
        for event in &events {
            self.starts.note(key, trigger, event);
            let watermark = trigger.state.watermark;
            if let Some((schedule, calendar)) = trigger.schedule() {
                let at = At {
                    key,
                    trigger,
                    schedule,
                    calendar,
                    now: event.at,
                };
                self.due.decided(&at, event.fact.as_ref())?;
            }
            trigger.apply(event);
            if trigger.state.watermark < watermark {
                return wrong("due", format!("the watermark of {key:?} goes back"));
            }
        }
        Ok(())
    }

    /// The commit is over: what triggers say they started was made in it or refused, and nothing else.
    pub(super) fn due_times_made(&mut self) -> Verdict {
        let said = std::mem::take(&mut self.due.said);
        let made = std::mem::take(&mut self.due.made);
        let mut refused = std::mem::take(&mut self.due.refused);
        for (run, start) in &said {
            match made.get(run) {
                Some(due) if *due == start.1 => {}
                None if refused.remove(start) => {}
                other => {
                    let detail = format!("{:?} started {run} for {}: {other:?}", start.0, start.1);
                    return wrong("due", detail);
                }
            }
        }
        match made.keys().find(|run| !said.contains_key(run)) {
            None => Ok(()),
            Some(run) => wrong("due", format!("no trigger says that it started {run}")),
        }
    }

    /// True if no trigger or backfill has anything to start by itself.
    pub(super) fn starts_no_more(&self) -> bool {
        self.smalls.values().all(|entity| match entity {
            // Signals that wait to be joined keep nobody waiting.
            Entity::Trigger(trigger) => trigger.next_start().is_none(),
            Entity::Backfill(_) => entity.timer_at().is_none(),
            _ => true,
        })
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
                    // One that a failed run blocks waits for a person.
                    let blocked = state.blocked_by.as_deref();
                    let blocked = blocked.is_some_and(|run| self.blocks(key, run_id(run)));
                    let idle = state.paused_by.is_some() || blocked || !state.exists();
                    if state.ended_at == 0 && !idle {
                        return wrong("due", format!("{key:?} never ended: {state:?}"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// True if a backfill may wait for somebody because of this run: it is the backfill's, it has ended
    /// without success, and its strategy lets none pass that.
    fn blocks(&self, backfill: &EntityKey, run: RunId) -> bool {
        let Some(shadow) = self.runs.get(&run) else {
            return false;
        };
        let EntityKey::Backfill { workflow, .. } = backfill else {
            return false;
        };
        let state = &shadow.state;
        let order = self.orders.get(&state.run_queue());
        let strict = order.is_some_and(Order::was_strict);
        let failed = state.ended() && state.status != RunStatus::Succeeded;
        state.meta.workflow == *workflow && failed && strict
    }

    /// Triggers and backfills that there are.
    pub(crate) fn starters(&self) -> Vec<EntityKey> {
        let starter = |(key, entity): (&EntityKey, &Entity)| {
            matches!(entity, Entity::Trigger(_) | Entity::Backfill(_)).then(|| key.clone())
        };
        self.smalls.iter().filter_map(starter).collect()
    }
}
