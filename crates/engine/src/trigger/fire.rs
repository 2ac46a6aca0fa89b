//! Due times to starts: one each, and what becomes of those that were missed.

use std::sync::Arc;

use kapell_expr::{Budget, Map, MapScope, Value};
use kapell_model::spec::{Catchup, Schedule};
use kapell_model::{EntityKey, RunId, Time, limits};

use super::fact::{Declined, Due, Fact, Missed, Started};
use super::{Deciding, Made, Names, Trigger, room};
use crate::calendar::Calendar;
use crate::message::{Message, StartClass, StartTriggered};
use crate::start::{Start, derived_id};

/// A start that comes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coming {
    /// When.
    pub at: Time,
    /// The run that it makes.
    pub run: RunId,
    /// The version that the run takes.
    pub version: u32,
}

/// What comes next of a schedule.
enum Next {
    /// Nothing now.
    Nothing,
    /// This due time.
    Start(Time, StartClass),
    /// Due times up to this one are passed over.
    Miss(Time),
    /// All up to this one are made up for.
    CatchUp(Time),
}

impl Trigger {
    /// When it starts something next; none while it starts nothing by itself.
    pub fn next_start(&self) -> Option<Time> {
        let made = self.made.as_ref().filter(|_| self.is_active())?;
        let room = self.state.room.as_ref();
        if room.is_some_and(|room| room.trying.is_some()) {
            return None;
        }
        if let Some(room) = room.filter(|room| !room.held.is_empty()) {
            return Some(Time(room.next_at));
        }
        let (schedule, calendar) = made.schedule()?;
        let due = calendar.next(Time(self.state.watermark))?;
        let at = due.0.saturating_add(self.state.delay);
        Some(Time(at.max(self.paced_until(schedule, due))))
    }

    /// The run of its next due time and when that starts, if it is a schedule that starts something by
    /// itself: what is read ahead of it is at hand then. What is missed or made up for may be another.
    pub fn coming(&self, key: &EntityKey) -> Option<Coming> {
        let of = Names::of(key)?;
        let at = self.next_start()?;
        let (_, calendar) = self.schedule()?;
        let due = calendar.next(Time(self.state.watermark))?;
        // Its start asks for its neighbours: they are found while there is time.
        let _ = (calendar.interval(due), calendar.next(due));
        let generation = self.state.generation.to_string();
        let label = calendar.label(due);
        let names = [&**of.namespace, of.workflow, of.name, &generation, &label];
        Some(Coming {
            at,
            run: derived_id(due, key.shard(), &names),
            version: self.state.version,
        })
    }

    /// Before this instant nothing is made up for, if that is what is due.
    fn paced_until(&self, schedule: &Schedule, due: Time) -> i64 {
        let pace = match schedule.catchup {
            Catchup::All { pace, .. } => pace,
            Catchup::Latest | Catchup::None => None,
        };
        match pace {
            Some(pace) if due.0 <= self.state.catching_up => Time(self.state.paced_at).plus(pace).0,
            _ => i64::MIN,
        }
    }

    /// The first due time that is not done with, if it has come.
    fn first_due(&self, now: Time) -> Option<Time> {
        let (_, calendar) = self.schedule()?;
        let horizon = Time(now.0.saturating_sub(self.state.delay));
        let first = calendar.next(Time(self.state.watermark));
        first.filter(|due| *due <= horizon)
    }

    /// Due times are done with in order, and each is decided once.
    fn next_of(&self, schedule: &Schedule, calendar: &Calendar, now: Time) -> Next {
        let state = &self.state;
        let watermark = Time(state.watermark);
        let horizon = Time(now.0.saturating_sub(state.delay));
        let Some(first) = calendar.next(watermark).filter(|due| *due <= horizon) else {
            return Next::Nothing;
        };
        if first.0 <= state.catching_up {
            return if self.paced_until(schedule, first) <= now.0 {
                Next::Start(first, StartClass::Catchup)
            } else {
                Next::Nothing
            };
        }
        let newest = calendar.previous(Time(horizon.0.saturating_add(1)));
        let newest = newest.unwrap_or(first).max(first);
        let is_late = newest.plus(limits::SCHEDULE_GRACE) < horizon;
        let class = if is_late {
            StartClass::Catchup
        } else {
            StartClass::Regular
        };
        if first == newest && !is_late {
            return Next::Start(first, class);
        }
        let before_newest = || calendar.previous(newest).unwrap_or(watermark);
        match schedule.catchup {
            Catchup::None if is_late => Next::Miss(newest),
            Catchup::Latest if first == newest => Next::Start(newest, class),
            Catchup::None | Catchup::Latest => Next::Miss(before_newest()),
            Catchup::All { max, within, .. } => {
                let oldest = within.map_or(watermark, |within| {
                    let instant = i64::try_from(within.as_micros()).unwrap_or(i64::MAX);
                    watermark.max(Time(now.0.saturating_sub(instant).saturating_sub(1)))
                });
                let max = usize::try_from(max).unwrap_or(usize::MAX);
                let kept = calendar.last(oldest, newest, max.min(limits::CATCHUP as usize));
                match kept.first() {
                    None => Next::Miss(newest),
                    Some(kept) if *kept > first => {
                        Next::Miss(calendar.previous(*kept).unwrap_or(watermark))
                    }
                    // What is due just now is a start like any other.
                    Some(_) if is_late => Next::CatchUp(newest),
                    Some(_) => Next::CatchUp(before_newest()),
                }
            }
        }
    }
}

impl Deciding<'_> {
    /// Starts what is due, up to a bound: the rest follows in the next decision, at once.
    pub(super) fn fire(&mut self) {
        for _ in 0..limits::TRIGGER_STARTS {
            let Some(made) = self.trigger.made.clone() else {
                return;
            };
            if !self.trigger.is_active() {
                return;
            }
            match self.trigger.next_in_room(self.now) {
                None => {}
                Some(room::Next::Nothing) => return,
                Some(room::Next::Again) => {
                    self.try_again();
                    continue;
                }
                Some(room::Next::DueTimes) => {
                    match self.trigger.first_due(self.now) {
                        Some(due) => self.start_due(&made, due, StartClass::Regular),
                        None => self.has_room(),
                    }
                    continue;
                }
            }
            let Some((schedule, calendar)) = made.schedule() else {
                return;
            };
            match self.trigger.next_of(schedule, calendar, self.now) {
                Next::Nothing => return,
                Next::Start(due, class) => self.start_due(&made, due, class),
                Next::Miss(until) => {
                    let from = Time(self.trigger.state.watermark);
                    let missed = calendar.first(from, until, limits::CATCHUP as usize);
                    self.emit(Fact::Missed(Missed {
                        until: until.0,
                        count: missed.len() as u64,
                    }));
                }
                Next::CatchUp(due) => self.emit(Fact::CatchingUp(Due { due: due.0 })),
            }
        }
    }

    fn start_due(&mut self, made: &Made, due: Time, class: StartClass) {
        let generation = self.trigger.state.generation.to_string();
        let of = self.of;
        let timezone = self.trigger.state.timezone.clone();
        let wanted = Wanted {
            made,
            namespace: of.namespace,
            workflow: of.workflow,
            name: of.name,
            kind: "schedule",
            by: format!("schedule {}", of.name),
            version: self.trigger.state.version,
            timezone: &timezone,
            now: self.now,
            from: of.key,
            id_at: due,
            id_from: [of.name, &generation],
            class,
            backfill: None,
        };
        let waited = self.trigger.state.room.is_some();
        let start = match wanted.start(due) {
            Ok(Some(start)) => StartTriggered { waited, ..start },
            Ok(None) => return self.decline(Some(due), String::new()),
            Err(error) => return self.decline(Some(due), error),
        };
        self.emit(Fact::Started(Started {
            scheduled_at: due.0,
            run: start.id.to_bytes().to_vec(),
            due: true,
            class: class as u32,
            waited,
            ..Started::default()
        }));
        self.messages
            .push((start.id.into(), Message::StartTriggered(Box::new(start))));
    }

    pub(super) fn decline(&mut self, due: Option<Time>, error: String) {
        self.emit(Fact::Declined(Declined {
            due: due.map(|due| due.0),
            error,
            used: Vec::new(),
        }));
    }
}

/// A start for a due time.
pub(crate) struct Wanted<'a> {
    pub made: &'a Made,
    pub namespace: &'a Arc<str>,
    pub workflow: &'a Arc<str>,
    /// Of the schedule.
    pub name: &'a Arc<str>,
    pub kind: &'static str,
    pub by: String,
    pub version: u32,
    /// Of the workflow.
    pub timezone: &'a str,
    pub now: Time,
    /// Who is told if it cannot be made.
    pub from: &'a EntityKey,
    /// The time in the run's id.
    pub id_at: Time,
    /// What makes the run unique beside workflow and due time.
    pub id_from: [&'a str; 2],
    pub class: StartClass,
    pub backfill: Option<Arc<str>>,
}

impl Wanted<'_> {
    /// The start; none if `when` does not hold.
    pub(crate) fn start(self, due: Time) -> Result<Option<StartTriggered>, String> {
        let (schedule, calendar) = self.made.schedule().ok_or("it is no schedule")?;
        let timezone = schedule.timezone.clone();
        let timezone = timezone.unwrap_or_else(|| self.timezone.into());
        let interval = calendar.interval(due);
        let run = Start {
            namespace: self.namespace,
            workflow: self.workflow,
            kind: self.kind,
            name: self.name,
            by: &self.by,
            created_at: self.now,
            scheduled_at: due,
            interval,
            timezone: &timezone,
        };
        let scope = MapScope(Map::from([("run".into(), run.value(Value::Null))]));
        let Some(params) = params(self.made, &scope)? else {
            return Ok(None);
        };
        let label = calendar.label(due);
        let [first, second] = self.id_from;
        let names = [self.namespace, self.workflow, first, second, &*label];
        Ok(Some(StartTriggered {
            id: derived_id(self.id_at, self.from.shard(), &names),
            from: self.from.clone(),
            namespace: self.namespace.clone(),
            workflow: self.workflow.clone(),
            version: Some(self.version),
            params,
            kind: self.kind,
            name: self.name.clone(),
            by: self.by,
            scheduled_at: due,
            interval,
            timezone,
            hops: 0,
            class: self.class,
            backfill: self.backfill,
            waited: false,
        }))
    }
}

/// The parameters of a start; none if `when` does not hold.
pub(super) fn params(made: &Made, scope: &MapScope) -> Result<Option<Value>, String> {
    if let Some(when) = &made.spec.when {
        match when.eval(scope, Budget::default()) {
            Ok(Value::Bool(true)) => {}
            Ok(Value::Bool(false)) => return Ok(None),
            Ok(other) => return Err(format!("`when` is {}, and not true or false", other.text())),
            Err(error) => return Err(format!("`when`: {error}")),
        }
    }
    match &made.spec.with {
        None => Ok(Some(Value::Null)),
        Some(with) => with
            .eval(scope, Budget::default())
            .map(Some)
            .map_err(|error| format!("`with`: {error}")),
    }
}
