//! What entities tell each other.

use std::sync::Arc;

use kapell_api::task::Place;
use kapell_expr::Value;
use kapell_model::spec::Trigger;
use kapell_model::{EntityKey, Error, RunId, RunStatus, Time};
use serde::{Deserialize, Serialize};

use crate::run::state::ParentUnit;
use crate::small::Ask;

/// Why a unit does not get a lock, however long it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockRefusal {
    /// Others use it as a rate, and the unit as a lock, or the other way round.
    OtherKind,
    /// Too many wait for it.
    Full,
}

/// A message from one entity to another. Applied exactly once, in order for each pair.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Message {
    /// To a run that does not exist yet: be made. The node finds the version and binds parameters.
    StartChild(Box<StartChild>),
    /// To a run: a child has ended.
    ChildEnded {
        /// The unit that made it.
        place: Place,
        /// The child.
        run: RunId,
        /// How it ended.
        status: RunStatus,
        /// Its outputs.
        #[serde(with = "kapell_expr::stored")]
        outputs: Value,
        /// Its error.
        error: String,
    },
    /// To a run: end, your parent does.
    CancelChild {
        /// Why.
        reason: String,
        /// Without `finally`.
        now: bool,
    },
    /// To a run: do again what did not succeed.
    RetryChild,
    /// To a run: your parent is paused, or goes on.
    PauseChild {
        /// Paused, or going on.
        paused: bool,
    },
    /// To a lock: a unit asks for it.
    Acquire {
        /// The run.
        run: RunId,
        /// Its unit.
        place: Place,
        /// How many hold it at once, or how many a period.
        max: u32,
        /// A rate's period in microseconds; 0 is a lock.
        period: i64,
        /// The unit's path in its run, for people.
        path: Arc<str>,
        /// Which of its requests: since when it asks for locks. None of an earlier version.
        #[serde(default)]
        asked: Option<Time>,
    },
    /// To a lock: a unit gives it back, or takes its request back.
    Release {
        /// The run.
        run: RunId,
        /// Its unit.
        place: Place,
        /// It was granted then, and no attempt started: a rate may give it to another.
        #[serde(default)]
        unused: Option<Time>,
        /// Which of its requests: since when it asks for locks. None of an earlier version.
        #[serde(default)]
        asked: Option<Time>,
    },
    /// To a run: a lock is granted to its unit.
    LockGranted {
        /// The unit.
        place: Place,
        /// The lock's name.
        name: Arc<str>,
        /// When it was granted.
        #[serde(default)]
        at: Option<Time>,
        /// Which of its requests: since when it asks for locks. None of an earlier version.
        #[serde(default)]
        asked: Option<Time>,
    },
    /// To a run: a lock that its unit asked for is none that it can get.
    LockRefused {
        /// The unit.
        place: Place,
        /// The lock's name.
        name: Arc<str>,
        /// Why.
        why: LockRefusal,
    },
    /// To a run that does not exist yet: be made, a trigger or a backfill wants it. All three live in the
    /// shard of their workflow, so this is never on its way between two.
    #[serde(skip)]
    StartTriggered(Box<StartTriggered>),
    /// To a trigger or a backfill: a run that it wanted cannot be made.
    StartRefused {
        /// The run that was wanted.
        run: RunId,
        /// Its due time.
        scheduled_at: Time,
        /// Why not.
        error: Error,
    },
    /// To a trigger: the run queue has no room for a start by its strategy.
    #[serde(skip)]
    NoRoom {
        /// What was wanted.
        start: Box<StartTriggered>,
        /// What people are told.
        error: Error,
    },
    /// To a trigger: a start that waited for room is a run.
    StartTaken {
        /// The run.
        run: RunId,
    },
    /// To a trigger, and to a backfill: a run for a due time has ended.
    DueRunEnded {
        /// The run.
        run: RunId,
        /// Its due time.
        scheduled_at: Time,
        /// How.
        status: RunStatus,
        /// Under `strict_sequential` it keeps back those after it.
        blocks: bool,
    },
    /// To a trigger, and to a backfill: a run for a due time that had ended goes on.
    DueRunReopened {
        /// The run.
        run: RunId,
        /// Its due time.
        scheduled_at: Time,
    },
    /// To a backfill: be this. Its trigger, which says so, lives in the same shard.
    #[serde(skip)]
    BackfillMade(Box<crate::backfill::State>),
    /// To a run: somebody who started it wants it to end.
    CancelRun {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// To a trigger: this is what the active version says of you.
    TriggerSet(Box<TriggerSet>),
    /// To a trigger: the active version does not have you any more.
    TriggerRemoved,
    /// To a trigger: its workflow is paused, or goes on.
    WorkflowPaused(bool),
    /// To a topic: keep it, and tell who listens. To a trigger: it has come.
    Signal(Arc<Signal>),
    /// To a topic: tell me of signals.
    Subscribe(Box<Subscribe>),
    /// To a topic: tell me no more.
    Unsubscribe {
        /// Who.
        who: EntityKey,
        /// Its unit, if it is a run.
        place: Option<Place>,
    },
    /// To a run: signals that its unit may wait for.
    Signals {
        /// The unit.
        place: Place,
        /// Newest first.
        signals: Vec<Arc<Signal>>,
        /// There are older ones, before this number: see [`Subscribe::before`].
        older: Option<u64>,
    },
    /// To a run or a trigger: the topic takes no more subscriptions.
    SubscriptionRefused {
        /// The unit, if it is a run.
        place: Option<Place>,
        /// The topic's name.
        topic: Arc<str>,
    },
    /// To a channel: tell it.
    Notice(Box<crate::notice::Notice>),
    /// To a run queue: how long will this run take?
    PaceAsked(RunId),
    /// To a run: so long.
    Pace(crate::run_queue::pace::Pace),
    /// To a run queue: what became of a run, where its workflow asks for that.
    Outcome(Box<crate::run_queue::pace::Outcome>),
    /// To a run queue: a run wants to start.
    Enqueue(Box<crate::run_queue::Entry>),
    /// To a run queue: a run has ended.
    RunEnded {
        /// The run.
        run: RunId,
        /// How.
        status: RunStatus,
        /// A person ended it.
        by_person: bool,
        /// It succeeded, and its workflow asks for `run.last_success`.
        success: Option<Box<crate::run_queue::Success>>,
        /// The backfill that starts nothing more because of it.
        #[serde(default)]
        blocks: Option<Arc<str>>,
    },
    /// To a run queue: a backfill starts nothing now, not even runs that wait in line; or it goes on.
    BackfillHeld {
        /// Which.
        backfill: Arc<str>,
        /// Why; none: it goes on.
        hold: Option<crate::run_queue::Hold>,
    },
    /// To a run queue: an ended run wants to start again.
    Reenter(Box<crate::run_queue::Entry>),
    /// To a run queue: these runs of your workflow are active.
    Active(Vec<RunId>),
    /// To a run: your queue lets you start.
    Admitted {
        /// `run.last_success`.
        #[serde(with = "kapell_expr::stored")]
        last_success: Value,
    },
    /// To an entity that is no run: somebody asked this of it and of others at once, where another node has
    /// it. Nobody hears the answer.
    Asked(Box<Ask>),
    /// To a run: your queue drops you.
    Discarded {
        /// Why.
        reason: String,
    },
    /// To a run: a newer one takes your place.
    Superseded {
        /// By which.
        by: RunId,
    },
}

impl Message {
    /// The message as it is kept while it is on its way to another shard: JSON, in which fields and kinds
    /// may be added. None of what never leaves the shard of its workflow.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(self).ok()
    }

    /// Reads [`Message::to_bytes`].
    ///
    /// # Errors
    /// Bytes that are none, or of a kind that a later version added.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        // What it carries was bounded when it was sent, and markers may have doubled its depth.
        reader.disable_recursion_limit();
        let message = serde::Deserialize::deserialize(&mut reader)?;
        reader.end()?;
        Ok(message)
    }
}

/// A signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Unique in its topic: the same twice is one.
    pub id: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// What it is joined by; null for none.
    #[serde(with = "kapell_expr::stored")]
    pub key: Value,
    /// What it says.
    #[serde(with = "kapell_expr::stored")]
    pub payload: Value,
    /// When it was sent.
    pub sent_at: Time,
    /// How many runs, each started by a signal of the one before, led to it.
    pub hops: u32,
    /// Who sent it.
    pub by: Arc<str>,
}

/// Who listens to a topic, and to what. For the same `who` and `place` a later one replaces the one
/// before. Runs get [`Message::Signals`], all others [`Message::Signal`], each signal once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subscribe {
    /// Who.
    pub who: EntityKey,
    /// Its unit, if it is a run.
    pub place: Option<Place>,
    /// Kept signals sent at or after this count too; none: only those that are still to come. Only
    /// runs get kept signals, newest first and a page at a time.
    pub since: Option<Time>,
    /// Of kept signals only those before this number: the next page.
    pub before: Option<u64>,
    /// What a signal must have to be told: all of them. Who listens looks itself at the rest of what
    /// it asks for. Empty is told everything.
    pub equal: Vec<Equal>,
}

/// A field of a signal and what it must equal, as `==` of expressions does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Equal {
    /// Names from the signal on: `["payload", "table"]`.
    pub path: Vec<Arc<str>>,
    /// Text, a number, a bool or null.
    #[serde(with = "kapell_expr::stored")]
    pub value: Value,
}

/// What a version says of a trigger.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TriggerSet {
    /// The version that runs of it take.
    pub version: u32,
    /// What it is.
    pub trigger: Trigger,
    /// IANA name of the workflow's time zone.
    pub timezone: Arc<str>,
    /// Its workflow is paused.
    pub workflow_paused: bool,
}

/// What a run of a trigger is made of.
#[derive(Clone, Debug)]
pub struct StartTriggered {
    /// Its id, derived from what makes it unique.
    pub id: RunId,
    /// The trigger or backfill, which is told if the run cannot be made.
    pub from: EntityKey,
    /// Namespace of the workflow.
    pub namespace: Arc<str>,
    /// Name of the workflow.
    pub workflow: Arc<str>,
    /// Version; none is the active one.
    pub version: Option<u32>,
    /// Parameters as given: text is parsed by their types.
    pub params: Value,
    /// `run.trigger.kind`: `schedule`, `signal`, `webhook`, `backfill`.
    pub kind: &'static str,
    /// `run.trigger.name`.
    pub name: Arc<str>,
    /// `run.trigger.by`.
    pub by: String,
    /// Its due time.
    pub scheduled_at: Time,
    /// `run.interval`.
    pub interval: (Time, Time),
    /// IANA name.
    pub timezone: Arc<str>,
    /// How many runs, each started by a signal of the one before, led to it.
    pub hops: u32,
    /// How its run queue takes it.
    pub class: StartClass,
    /// The backfill that wants it, which is told how it ends.
    pub backfill: Option<Arc<str>>,
    /// It waited for room: the trigger hears when it is taken.
    pub waited: bool,
}

/// How a run queue takes a start. Numbers are stored.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
pub enum StartClass {
    /// By its strategy.
    #[default]
    Regular = 0,
    /// For a due time that was missed: never discarded, and stops nobody.
    Catchup = 1,
    /// The same, after every other start that waits; its failure blocks only its backfill.
    Backfill = 2,
}

impl StartClass {
    /// The class of a stored number; of one that is not known, `Regular`.
    pub fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Catchup,
            2 => Self::Backfill,
            _ => Self::Regular,
        }
    }
}

/// What a child is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StartChild {
    /// Its id.
    pub id: RunId,
    /// Namespace of the workflow.
    pub namespace: Arc<str>,
    /// Name of the workflow.
    pub workflow: Arc<str>,
    /// Version; none is the active one.
    pub version: Option<u32>,
    /// Parameters as given.
    #[serde(with = "kapell_expr::stored")]
    pub params: Value,
    /// The unit that makes it.
    pub parent: ParentUnit,
    /// Who asked for the run above all those that led to it.
    pub root_by: Arc<str>,
    /// How many runs are above it.
    pub depth: u32,
    /// 0 to 100.
    pub priority: u8,
    /// Its due time, in microseconds since 1970.
    pub scheduled_at: i64,
    /// `run.interval`.
    pub interval: (Time, Time),
    /// IANA name.
    pub timezone: Arc<str>,
    /// How many runs, each started by a signal of the one before, led to it.
    pub hops: u32,
    /// Queues that runs above it hold places in.
    pub held_queues: Vec<(Arc<str>, Arc<str>, Arc<str>)>,
}

#[cfg(test)]
mod tests;
