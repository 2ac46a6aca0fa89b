//! What people see of a run that is in memory: where it stands, and why it waits.

use kapell_api::task::{Place, TaskError};
use kapell_model::spec::Verb;
use kapell_model::{RunId, RunStatus, StepStatus, Time, limits};
use serde::{Deserialize, Serialize};

use super::state::{ForeachState, Inner, Page, StepState, TimerKind, Unit, split};
use super::waiting::Break;
use super::{Flight, Run};
use crate::event::ScopeKind;
use crate::plan::StepPlan;

mod document;
mod items;
mod settings;
#[cfg(test)]
mod tests;
mod waits;

pub use items::{ItemCounts, ItemsWait, ItemsWaiting};
pub use waits::{ApprovalView, GivenView, InputView, StoppedView};

/// Where a run stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunView {
    /// Its id.
    pub id: RunId,
    /// Namespace of the workflow.
    pub namespace: String,
    /// Name of the workflow.
    pub workflow: String,
    /// Version.
    pub version: u32,
    /// Status.
    pub status: RunStatus,
    /// When it was made.
    pub created_at: Time,
    /// When its steps could start.
    pub started_at: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// Units that ended well, that ended otherwise, and all that are known.
    pub counts: [u64; 3],
    /// Parameters.
    pub params: serde_json::Value,
    /// Outputs, once it has succeeded.
    pub outputs: serde_json::Value,
    /// The step of the first error, and the error.
    pub error: Option<(String, TaskError)>,
    /// When it should have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_at: Option<Time>,
    /// What is to be said of that: it was missed, probably will be, or cannot be worked out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<String>,
    /// What the whole run waits for, if it does.
    pub waits_for: Option<String>,
    /// Breakpoints that somebody set, beside those of the definition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breakpoints: Vec<Break>,
    /// Every step stops before it starts.
    #[serde(default)]
    pub stepping: bool,
    /// Its steps in order, inner ones after the step they are in.
    pub steps: Vec<StepView>,
}

/// Where a step stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepView {
    /// Path in the run.
    pub path: String,
    /// The label of the item that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// How deep it is inside other steps.
    pub depth: u32,
    /// Status.
    pub status: StepStatus,
    /// Tries that have ended.
    pub attempts: u32,
    /// When it could start.
    pub ready_at: Option<Time>,
    /// When its last attempt started.
    pub started_at: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// Items of a foreach.
    pub items: Option<ItemCounts>,
    /// What it waits for, if it does.
    pub waits_for: Option<String>,
    /// Its error, or why it did not run.
    pub error: Option<TaskError>,
    /// The run that it waits for.
    pub child: Option<RunId>,
    /// The lock that it asked for and did not get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// What it asks people, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalView>,
    /// What it shows at the breakpoint where it stopped, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<StoppedView>,
}

/// Inner steps that a view shows; a foreach over groups shows its first items.
const VIEW_STEPS: usize = 2_000;

/// Items of a foreach whose insides a view shows.
const VIEW_ITEMS: usize = 20;

impl Run {
    /// Where the run stands at `now`.
    pub fn view(&self, now: Time) -> RunView {
        let mut steps = Vec::new();
        for (number, scope) in &self.state.scopes {
            if scope.parent.is_none() {
                self.view_scope(*number, 0, now, &mut steps);
            }
        }
        self.view_with(steps)
    }

    /// Where the run stands at `now`, with one step or item alone: with none if there is no such
    /// place, or if it is an item that has ended and left memory.
    pub fn view_of(&self, path: &str, now: Time) -> RunView {
        self.view_with(self.view_path(path, now).into_iter().collect())
    }

    fn view_path(&self, path: &str, now: Time) -> Option<StepView> {
        let place = self.state.find(&self.plan, path)?;
        let step = self.state.step(place.scope, place.step)?;
        if place.item == Place::NO_ITEM {
            let items = self.items_view(place, step, now);
            return Some(self.view_unit(place, 0, &step.unit, items, now));
        }
        let foreach = step.foreach.as_ref().filter(|of| place.item < of.count)?;
        let fresh = Unit {
            status: match foreach.tail {
                Some((from, status)) if place.item >= from => status,
                _ => StepStatus::Pending,
            },
            ..Unit::default()
        };
        let unit = match foreach.pages.get(split(place.item).0) {
            Some(Page::Closed(_)) => return None,
            _ => foreach.unit(place.item).unwrap_or(&fresh),
        };
        Some(self.view_unit(place, 0, unit, None, now))
    }

    fn view_with(&self, steps: Vec<StepView>) -> RunView {
        let state = &self.state;
        RunView {
            id: state.meta.id,
            namespace: state.meta.namespace.to_string(),
            workflow: state.meta.workflow.to_string(),
            version: state.meta.version,
            status: state.status,
            created_at: state.meta.created_at,
            started_at: state.started_at,
            ended_at: state.ended_at,
            counts: state.counts,
            params: state.meta.params.to_json(),
            outputs: state.outputs.to_json(),
            error: state
                .error
                .as_ref()
                .map(|error| (error.step.clone(), error.error.clone())),
            deadline_at: state.deadline.as_ref().map(|deadline| deadline.at),
            late: self.late(),
            waits_for: self.run_waits_for(),
            breakpoints: state.breaks.clone(),
            stepping: state.stepping,
            steps,
        }
    }

    fn late(&self) -> Option<String> {
        if let Some(error) = &self.state.deadline_error {
            return Some(format!("no deadline: {error}"));
        }
        let deadline = self.state.deadline.as_ref()?;
        let said = match (deadline.missed, deadline.at_risk) {
            (true, _) => "missed its deadline",
            (false, true) => "will probably miss its deadline",
            (false, false) => return None,
        };
        Some(said.to_owned())
    }

    fn run_waits_for(&self) -> Option<String> {
        match self.state.status {
            RunStatus::Queued => Some("its turn in the workflow's run queue".to_owned()),
            RunStatus::Paused => {
                let since = self.state.paused_at.map(|at| format!(" at {at}"));
                let since = since.unwrap_or_default();
                let by = &self.state.paused_by;
                Some(format!(
                    "somebody to resume it: {by} paused it{since}: `kapell resume`"
                ))
            }
            _ if !self.live.needs.is_empty() => Some("a stored value to be loaded".to_owned()),
            _ => None,
        }
    }

    fn view_scope(&self, number: u32, depth: u32, now: Time, into: &mut Vec<StepView>) {
        let Some(scope) = self.state.scopes.get(&number) else {
            return;
        };
        for (index, step) in scope.steps.iter().enumerate() {
            if into.len() >= VIEW_STEPS {
                return;
            }
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            let place = Place {
                scope: number,
                step: index,
                item: Place::NO_ITEM,
            };
            let items = self.items_view(place, step, now);
            into.push(self.view_unit(place, depth, &step.unit, items, now));
            self.view_inner(&step.unit.inner, depth, now, into);
            if let Some(foreach) = &step.foreach {
                self.view_items(place, foreach, depth, now, into);
            }
        }
    }

    /// The first items that wait for signals or people, and the insides of the first that have some.
    fn view_items(
        &self,
        place: Place,
        foreach: &ForeachState,
        depth: u32,
        now: Time,
        into: &mut Vec<StepView>,
    ) {
        let item = |item| Place { item, ..place };
        let waiting = item(0)..=item(Place::NO_ITEM - 1);
        for (place, _) in self.state.waits.range(waiting).take(VIEW_ITEMS) {
            if let Some(unit) = self.state.unit(*place) {
                into.push(self.view_unit(*place, depth + 1, unit, None, now));
            }
        }
        if self.plans_a_task(place) {
            return;
        }
        let pages = foreach.pages.iter().filter_map(|page| match page {
            Page::Open { units, left } if *left > 0 => Some(units),
            Page::Open { .. } | Page::Untouched | Page::Closed(_) => None,
        });
        let inner = pages
            .flatten()
            .map(|unit| &unit.inner)
            .filter(|inner| matches!(inner, Inner::Scope(_) | Inner::Handler(..)));
        for inner in inner.take(VIEW_ITEMS) {
            self.view_inner(inner, depth, now, into);
        }
    }

    fn items_view(&self, place: Place, step: &StepState, now: Time) -> Option<ItemCounts> {
        let foreach = step.foreach.as_ref()?;
        Some(self.item_counts(place, foreach, now))
    }

    fn view_inner(&self, inner: &Inner, depth: u32, now: Time, into: &mut Vec<StepView>) {
        if let Inner::Scope(scope) | Inner::Handler(scope, _) = inner {
            self.view_scope(*scope, depth + 1, now, into);
        }
    }

    fn view_unit(
        &self,
        place: Place,
        depth: u32,
        unit: &Unit,
        items: Option<ItemCounts>,
        now: Time,
    ) -> StepView {
        let time = |at: Time| (at != Time::ZERO).then_some(at);
        let flight = self
            .flight(place)
            .filter(|flight| !self.waits_in_worker(place, *flight, now));
        // Items that are tasks stand in no queue of their own: they wait as one, with their foreach.
        let queued = unit.status == StepStatus::Queued
            || unit.status == StepStatus::Pending && place.item != Place::NO_ITEM;
        let running = flight.is_some() && queued;
        StepView {
            path: self.state.path(&self.plan, place),
            label: self.own_label(place, now).map(|label| label.to_string()),
            depth,
            status: if running {
                StepStatus::Running
            } else {
                unit.status
            },
            attempts: unit.attempts,
            ready_at: time(unit.ready_at),
            started_at: time(unit.started_at).or(flight.map(|flight| flight.granted_at)),
            ended_at: time(unit.ended_at),
            items,
            waits_for: if running {
                None
            } else {
                self.waits_for(place, unit, now)
            },
            error: unit.error.as_deref().cloned(),
            child: match unit.inner {
                Inner::Child(child) => Some(child),
                _ => None,
            },
            lock: self.lock_of(place),
            approval: self.approval_view(place),
            stopped: self.stopped_view(place, now),
        }
    }

    /// The lock that a unit asked for and did not get.
    fn lock_of(&self, place: Place) -> Option<String> {
        let asked = self.state.locks.get(&place)?.asked.as_ref();
        asked.map(ToString::to_string)
    }

    fn plans_a_task(&self, place: Place) -> bool {
        self.state
            .plan_step(&self.plan, place)
            .is_some_and(StepPlan::is_task)
    }

    /// True for an attempt that its worker holds and, by all that is known, has no room for: one that
    /// runs says so after a second.
    fn waits_in_worker(&self, place: Place, flight: Flight, now: Time) -> bool {
        let light = self
            .state
            .plan_step(&self.plan, place)
            .is_some_and(|step| matches!(step.step.verb, Verb::Noop | Verb::Fail { .. }));
        let patience = 2 * i64::try_from(limits::RECORD_START_AFTER.as_micros()).unwrap_or(0);
        !light
            && !self.state.started.contains_key(&place)
            && now.0.saturating_sub(flight.granted_at.0) > patience
    }

    /// What a unit waits for, in one sentence with the names involved; none if it does not wait.
    fn waits_for(&self, place: Place, unit: &Unit, now: Time) -> Option<String> {
        let state = &self.state;
        let timer = |kind| state.timers.get(place, kind);
        match unit.status {
            StepStatus::Pending if place.item != Place::NO_ITEM => self.item_turn(place),
            StepStatus::Pending => self.needs_of(place),
            StepStatus::Retrying if state.status == RunStatus::Paused => {
                Some("the run to be resumed".to_owned())
            }
            StepStatus::Retrying => {
                let error = unit.error.as_ref().map_or("", |error| &error.message);
                timer(TimerKind::Retry)
                    .map(|at| format!("try {} at {at}, after: {error}", unit.attempts + 1))
            }
            StepStatus::Waiting if state.waits.contains_key(&place) => self.waits_for_others(place),
            StepStatus::Waiting => {
                if let Some(name) = state
                    .locks
                    .get(&place)
                    .and_then(|locks| locks.asked.as_ref())
                {
                    return Some(format!("the lock `{name}`"));
                }
                if let Some(at) = timer(TimerKind::NotBefore) {
                    return Some(self.held_reason(place, at));
                }
                if let Some(at) = timer(TimerKind::Iteration) {
                    return Some(format!("the loop's delay, until {at}"));
                }
                if let Some(at) = timer(TimerKind::Wait) {
                    return Some(format!("the time {at}"));
                }
                let returned = state.locks.contains_key(&place);
                returned.then(|| "the run to be resumed".to_owned())
            }
            StepStatus::Queued
                if self
                    .flight(place)
                    .is_none_or(|flight| self.waits_in_worker(place, flight, now)) =>
            {
                self.hours_reason(place, now)
                    .or_else(|| Some(self.worker_reason(place).1))
            }
            StepStatus::Running => match unit.inner {
                Inner::Child(child) => Some(format!("run {child} to end")),
                _ => None,
            },
            StepStatus::Cancelling => Some("its attempt to stop".to_owned()),
            _ => None,
        }
    }

    /// What an item waits for that has not begun.
    fn item_turn(&self, place: Place) -> Option<String> {
        let step = self.state.step(place.scope, place.step)?;
        let foreach = step.foreach.as_ref()?;
        if step.unit.status.ended() || foreach.stopped {
            return None;
        }
        let flying = self.live.items.get(&(place.scope, place.step));
        let in_turn = if self.state.items_open(&self.plan, place) {
            foreach.open
        } else {
            flying.map_or(0, |items| items.count)
        };
        if self.flight(place).is_some() {
            return Some(self.worker_reason(place).1);
        }
        let (_, what) = self.turn_reason(place, foreach, in_turn);
        Some(match what.strip_prefix("their turn") {
            Some(how) => format!("its turn{how}"),
            None => what,
        })
    }

    fn needs_of(&self, place: Place) -> Option<String> {
        let scope = self.state.scopes.get(&place.scope)?;
        let plan = self.state.plan_step(&self.plan, place)?;
        let open: Vec<String> = plan
            .step
            .needs
            .iter()
            .filter(|need| {
                scope
                    .steps
                    .get(usize::from(**need))
                    .is_some_and(|step| !step.unit.status.ended())
            })
            .map(|need| {
                let needed = Place {
                    step: *need,
                    ..place
                };
                let status = match scope.steps[usize::from(*need)].unit.status {
                    StepStatus::Queued if self.flight(needed).is_some() => StepStatus::Running,
                    status => status,
                };
                format!(
                    "`{}` ({status})",
                    self.plan.graph(scope.graph).steps[usize::from(*need)]
                        .step
                        .id
                )
            })
            .collect();
        if open.is_empty() {
            return (scope.kind == ScopeKind::Root && self.state.status == RunStatus::Queued)
                .then(|| "the run to start".to_owned());
        }
        Some(format!("{} to end", open.join(", ")))
    }
}
