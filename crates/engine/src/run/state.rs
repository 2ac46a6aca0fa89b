//! What is remembered of a run while it is in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kapell_api::task::{Place, TaskError};
use kapell_expr::Value;
use kapell_model::spec::StepIndex;
use kapell_model::{EntityKey, Offer, RunId, RunStatus, StepStatus, Time, limits};
use serde::{Deserialize, Serialize};

use super::ready::Ready;
mod meta;
mod timers;

pub use meta::{Deadline, Kept, KeptItems, Meta, ParentUnit};
pub use timers::{TimerKind, Timers};

use super::waiting::{Break, Waiting};
use crate::event::{BreakAt, ScopeKind};
use crate::plan::{GraphId, Plan};

/// The durable state of a run: events alone make it, so replaying its history gives the same.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// What it was made with.
    pub meta: Meta,
    /// Where it stands.
    pub status: RunStatus,
    /// When its steps could start.
    pub started_at: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// How its steps ended, once they have.
    pub outcome: Option<RunStatus>,
    /// Its outputs, a map.
    pub outputs: Value,
    /// Its first error.
    pub error: Option<Box<RunError>>,
    /// Somebody asked it to end.
    pub cancel: Option<Cancel>,
    /// Since when it is paused.
    pub paused_at: Option<Time>,
    /// Who paused it last.
    pub paused_by: Arc<str>,
    /// When its timeout ends it.
    pub timeout_at: Option<Time>,
    /// It had ended and started again.
    pub reopened: bool,
    /// When it should have ended.
    pub deadline: Option<Box<Deadline>>,
    /// Why it has no deadline though its definition has one.
    pub deadline_error: Option<Box<str>>,
    /// Open graphs, and those whose failed steps may be retried. Boxed: the map makes room for eleven,
    /// and most runs that wait have one.
    pub scopes: BTreeMap<u32, Box<Scope>>,
    /// The number of the next scope.
    pub next_scope: u32,
    /// The number of the next page.
    pub next_page: u32,
    /// What must be decided next.
    pub todo: BTreeSet<Todo>,
    /// Units that wait for a worker, by queue. A foreach stands here as one.
    pub ready: BTreeMap<Arc<str>, Ready>,
    /// How often a worker that can be taken away was, of units that have not ended.
    pub preempted: BTreeMap<Place, u32>,
    /// Fairness keys of units that have one and have not ended.
    pub keys: BTreeMap<Place, Arc<str>>,
    /// What happens by itself, and when.
    pub timers: Timers,
    /// Locks that units hold or ask for.
    pub locks: BTreeMap<Place, LockState>,
    /// Attempts whose start is recorded.
    pub started: BTreeMap<Place, (Offer, Time)>,
    /// The last loss counted for a unit, so that it counts once.
    pub lost: BTreeMap<Place, Offer>,
    /// Units that ended well, that ended otherwise, and all that are known.
    pub counts: [u64; 3],
    /// When the last event happened.
    pub last_at: Time,
    /// Units that wait for what somebody else decides.
    pub waits: BTreeMap<Place, Waiting>,
    /// Breakpoints that somebody set.
    pub breaks: Vec<Break>,
    /// Every step stops before it starts.
    pub stepping: bool,
    /// Breakpoints that units have passed, until they begin or end.
    pub passed: BTreeSet<(Place, BreakAt)>,
}

/// The error of a run: the first of its steps, or its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// Path of the step; empty for the run itself.
    pub step: String,
    /// What failed.
    pub error: TaskError,
}

/// A request to end a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// Who or what asked.
    pub by: String,
    /// Why.
    pub reason: String,
    /// `finally` does not run.
    pub now: bool,
    /// Its timeout ended it.
    pub timed_out: bool,
}

/// An instance of a graph.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Scope {
    /// Which graph.
    pub graph: GraphId,
    /// What it is an instance of.
    pub kind: ScopeKind,
    /// The unit it is inside.
    pub parent: Option<Place>,
    /// From 0, of a loop.
    pub iteration: u32,
    /// Variables of a loop, a map.
    pub vars: Value,
    /// Its steps.
    pub steps: Vec<StepState>,
    /// Steps that have not ended.
    pub left: u32,
    /// The first step that failed and is not tolerated.
    pub failed: Option<StepIndex>,
    /// Nothing more starts here.
    pub stopped: bool,
}

/// A step in a scope.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StepState {
    /// The step itself; for a foreach, the whole of it.
    pub unit: Unit,
    /// Needs that have not ended.
    pub needs_left: u16,
    /// Skipped by hand: dependants go on as after success.
    pub as_success: bool,
    /// Its own priority plus one, or 0.
    pub priority: u8,
    /// Its items.
    pub foreach: Option<Box<ForeachState>>,
    /// What its items had come to in the run that this one was forked from.
    pub kept: Option<Box<KeptItems>>,
}

/// What can be tried, retried and ended: a step without foreach, or an item.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Unit {
    /// Where it stands.
    pub status: StepStatus,
    /// It is being stopped, and ends so.
    pub stop: Option<StepStatus>,
    /// Tries that have ended.
    pub attempts: u32,
    /// Retries after the user's failures, timeouts, and the platform's failures.
    pub retries: [u16; 3],
    /// Attempts that took their worker down. Only the first may have had neighbours.
    pub deliveries: u8,
    /// When it could first start; zero before.
    pub ready_at: Time,
    /// When its last attempt, or its inside, started; zero before.
    pub started_at: Time,
    /// When it ended; zero before.
    pub ended_at: Time,
    /// Its output.
    pub output: Value,
    /// Its error, or why it did not run.
    pub error: Option<Box<TaskError>>,
    /// What runs inside.
    pub inner: Inner,
}

/// What runs inside a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inner {
    /// Nothing.
    #[default]
    None,
    /// A graph.
    Scope(u32),
    /// The handler of its failure; it ends with this status.
    Handler(u32, StepStatus),
    /// Another run.
    Child(RunId),
}

/// The items of a foreach.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ForeachState {
    /// How many.
    pub count: u32,
    /// The lists of its variables.
    pub lists: Vec<Value>,
    /// Items in flight at once; 0 is no bound.
    pub concurrency: u32,
    /// How many must succeed.
    pub min_success: u32,
    /// The first item that was never started.
    pub next: u32,
    /// Items to be granted again.
    pub again: BTreeSet<u32>,
    /// Items heard of that have not ended.
    pub open: u32,
    /// Items from here on never started and have ended so.
    pub tail: Option<(u32, StepStatus)>,
    /// Items that succeeded.
    pub good: u32,
    /// Items that failed.
    pub bad: u32,
    /// Items that ended otherwise.
    pub other: u32,
    /// Those of them that were skipped one by one: by a person, or in flight as `stop_when` held.
    pub skipped: u32,
    /// No more items start.
    pub stopped: bool,
    /// `stop_when` held: what is left is skipped, and it succeeds.
    pub enough: bool,
    /// The items, page by page.
    pub pages: Vec<Page>,
    /// The fairness key that all items have.
    pub key: Option<Arc<str>>,
    /// Its items start one by one, also where neither verb nor locks ask for it.
    pub opens: bool,
}

/// Items `n * FOREACH_PAGE` and up.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum Page {
    /// None was touched.
    #[default]
    Untouched,
    /// In memory.
    Open {
        /// The items.
        units: Vec<Unit>,
        /// Those that have not ended.
        left: u32,
    },
    /// Written and gone from memory: its number among the run's stored pages.
    Closed(u32),
}

impl Unit {
    /// The run that it waits for.
    pub fn open_child(&self) -> Option<RunId> {
        match self.inner {
            Inner::Child(child) if !self.status.ended() => Some(child),
            _ => None,
        }
    }
}

impl ForeachState {
    /// True once every item has ended.
    pub fn ended(&self) -> bool {
        self.good + self.bad + self.other >= self.count
    }

    /// True if so many items succeeded as had to: one that was skipped counts, as a step does for those
    /// that need it.
    pub fn reached(&self) -> bool {
        self.enough || self.good + self.skipped >= self.min_success
    }

    /// True once so many items failed that it cannot succeed.
    pub fn out_of_reach(&self) -> bool {
        self.count.saturating_sub(self.bad) < self.min_success
    }

    /// The items of a page.
    pub fn page_len(&self, page: usize) -> usize {
        let from = page * limits::FOREACH_PAGE;
        (self.count as usize)
            .saturating_sub(from)
            .min(limits::FOREACH_PAGE)
    }

    /// An item that is in memory.
    pub fn unit(&self, item: u32) -> Option<&Unit> {
        let (page, place) = split(item);
        match self.pages.get(page)? {
            Page::Open { units, .. } => units.get(place),
            Page::Untouched | Page::Closed(_) => None,
        }
    }

    /// An item, made if its page was untouched.
    pub fn unit_mut(&mut self, item: u32) -> Option<&mut Unit> {
        let (page, place) = split(item);
        let len = self.page_len(page);
        let slot = self.pages.get_mut(page)?;
        if matches!(slot, Page::Untouched) {
            *slot = Page::Open {
                units: vec![Unit::default(); len],
                left: u32::try_from(len).unwrap_or(u32::MAX),
            };
        }
        match slot {
            Page::Open { units, .. } => units.get_mut(place),
            Page::Untouched | Page::Closed(_) => None,
        }
    }

    /// True unless nothing becomes of an item any more, whatever its page says.
    fn is_open(&self, item: u32) -> bool {
        let (page, _) = split(item);
        let in_tail = self.tail.is_some_and(|(from, _)| item >= from);
        let closed = matches!(self.pages.get(page), None | Some(Page::Closed(_)));
        item < self.count && !in_tail && !closed && !self.ended()
    }

    /// Runs that items wait for.
    pub fn children(&self) -> impl Iterator<Item = RunId> {
        let open = self.pages.iter().filter_map(|page| match page {
            Page::Open { units, .. } => Some(units),
            Page::Untouched | Page::Closed(_) => None,
        });
        open.flatten().filter_map(Unit::open_child)
    }

    /// True if another item could start, but for concurrency.
    pub fn has_more(&self) -> bool {
        !self.stopped && self.tail.is_none() && (self.next < self.count || !self.again.is_empty())
    }
}

/// The page of an item, and its place there.
pub fn split(item: u32) -> (usize, usize) {
    let item = item as usize;
    (item / limits::FOREACH_PAGE, item % limits::FOREACH_PAGE)
}

/// What must be decided, in the order in which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Todo {
    /// The step has ended and sends signals: nothing that follows from its end is decided before.
    Emit(u32, StepIndex),
    /// The scope has a failed step.
    Fail(u32),
    /// The step's needs have all ended.
    Step(u32, StepIndex),
    /// Something changed in the items of a step.
    Foreach(u32, StepIndex),
    /// A page of items has ended.
    Page(u32, StepIndex, u32),
    /// The unit holds no lock it needs next.
    Lock(Place),
    /// Every step of the scope has ended.
    Scope(u32),
}

/// Locks of a unit, taken one after another in name order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockState {
    /// Names held.
    pub held: Vec<Arc<str>>,
    /// The name it asked for and did not get yet.
    pub asked: Option<Arc<str>>,
    /// Since when it asks: names its requests.
    pub since: Time,
}

impl State {
    /// A step by place.
    pub fn step(&self, scope: u32, step: StepIndex) -> Option<&StepState> {
        self.scopes.get(&scope)?.steps.get(usize::from(step))
    }

    /// A step by place, to change.
    pub fn step_mut(&mut self, scope: u32, step: StepIndex) -> Option<&mut StepState> {
        self.scopes
            .get_mut(&scope)?
            .steps
            .get_mut(usize::from(step))
    }

    /// A unit by place, if it is in memory.
    pub fn unit(&self, place: Place) -> Option<&Unit> {
        let step = self.step(place.scope, place.step)?;
        if place.item == Place::NO_ITEM {
            Some(&step.unit)
        } else {
            step.foreach.as_ref()?.unit(place.item)
        }
    }

    /// The attempts of a unit that have ended, if it has not itself; none if there is no such unit. An item whose
    /// page was never touched is there all the same.
    pub fn attempts_of_open(&self, place: Place) -> Option<u32> {
        let step = self.step(place.scope, place.step)?;
        let untouched = Unit::default();
        let unit = match &step.foreach {
            _ if place.item == Place::NO_ITEM => &step.unit,
            Some(foreach) if foreach.is_open(place.item) => {
                foreach.unit(place.item).unwrap_or(&untouched)
            }
            _ => return None,
        };
        (!unit.status.ended()).then_some(unit.attempts)
    }

    /// A unit by place, to change; an item of an untouched page is made.
    pub fn unit_mut(&mut self, place: Place) -> Option<&mut Unit> {
        let step = self.step_mut(place.scope, place.step)?;
        if place.item == Place::NO_ITEM {
            Some(&mut step.unit)
        } else {
            step.foreach.as_mut()?.unit_mut(place.item)
        }
    }

    /// The run queue of its workflow, also if it went past that.
    pub fn run_queue(&self) -> EntityKey {
        EntityKey::RunQueue {
            namespace: self.meta.namespace.clone(),
            workflow: self.meta.workflow.clone(),
            key: "".into(),
        }
    }

    /// Namespace, workflow and key of the line in which it stands or would stand.
    pub fn line(&self) -> (Arc<str>, Arc<str>, Arc<str>) {
        let meta = &self.meta;
        let past = || (meta.namespace.clone(), meta.workflow.clone(), "".into());
        meta.queue.clone().unwrap_or_else(past)
    }

    /// Children that units wait for.
    pub fn open_children(&self) -> Vec<RunId> {
        let steps = self.scopes.values().flat_map(|scope| &scope.steps);
        let of_step = |step: &StepState| {
            let items = step.foreach.iter().flat_map(|foreach| foreach.children());
            step.unit
                .open_child()
                .into_iter()
                .chain(items)
                .collect::<Vec<_>>()
        };
        steps.flat_map(of_step).collect()
    }

    /// The place of a path as [`State::path`] gives it; an iteration may be left out for the one
    /// that is open.
    pub fn find(&self, plan: &Plan, path: &str) -> Option<Place> {
        let mut scopes: Vec<u32> = self
            .scopes
            .iter()
            .filter(|(_, scope)| scope.parent.is_none())
            .map(|(number, _)| *number)
            .collect();
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            let part = part.split('#').next()?;
            let (id, item) = match part.split_once('[') {
                Some((id, item)) => (id, item.strip_suffix(']')?.parse().ok()?),
                None => (part, Place::NO_ITEM),
            };
            let place = scopes.iter().find_map(|number| {
                let scope = self.scopes.get(number)?;
                let graph = plan.graphs.get(scope.graph as usize)?;
                Some(Place {
                    scope: *number,
                    step: *graph.by_id.get(id)?,
                    item,
                })
            })?;
            if parts.peek().is_none() {
                return Some(place);
            }
            scopes = self
                .scopes
                .iter()
                .filter(|(_, scope)| scope.parent == Some(place))
                .map(|(number, _)| *number)
                .collect();
        }
        None
    }

    /// What is to be decided next, if the run may decide anything now: while it is paused only what
    /// has ended is counted, and nothing starts.
    pub fn next_todo(&self) -> Option<Todo> {
        match self.status {
            RunStatus::Running | RunStatus::Cancelling => self.todo.first().copied(),
            RunStatus::Paused => {
                let counts = |todo: &&Todo| match todo {
                    Todo::Emit(..) | Todo::Fail(_) | Todo::Page(..) | Todo::Scope(_) => true,
                    Todo::Step(..) | Todo::Foreach(..) | Todo::Lock(_) => false,
                };
                self.todo.iter().find(counts).copied()
            }
            RunStatus::Queued
            | RunStatus::Succeeded
            | RunStatus::Failed
            | RunStatus::TimedOut
            | RunStatus::Cancelled
            | RunStatus::Discarded => None,
        }
    }

    /// True once the run has ended.
    pub fn ended(&self) -> bool {
        self.status.ended()
    }
}

impl State {
    /// The state as bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = vec![SNAPSHOT_LAYOUT];
        bytes.extend(postcard::to_stdvec(self).unwrap_or_default());
        bytes
    }

    /// Reads [`State::snapshot`]; an unknown layout is an error, and history is replayed instead.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, String> {
        match bytes.split_first() {
            Some((&SNAPSHOT_LAYOUT, rest)) => {
                postcard::from_bytes(rest).map_err(|error| error.to_string())
            }
            _ => Err("a snapshot of another layout".to_owned()),
        }
    }
}

/// Changes whenever the layout of [`State`] does.
const SNAPSHOT_LAYOUT: u8 = 7;
