//! A run: one execution of a workflow, from its creation to its end.
//!
//! [`Run::decide`] takes one [`Input`] and turns it into events and effects; `apply` makes the
//! state that events say. Deciding goes in small steps, each applied before the next is decided:
//! the state holds what must be decided next in `todo`, so deciding can stop after any step (a
//! value has to be loaded, the batch is full, the process dies) and go on later from the same place.
//!
//! | file | what |
//! | --- | --- |
//! | `state` | what is remembered |
//! | `apply` | events to state |
//! | `decider` | facts are applied as they are stated; expressions |
//! | `input`, `people` | what comes from outside: reports, timers, messages; requests |
//! | `settle` | what follows by itself: needs, conditions, ends of graphs |
//! | `finish` | how units end: retries, handlers, policies |
//! | `foreach`, `cycle` | items; loops and switches |
//! | `child`, `locks` | runs that steps make; locks that they ask for |
//! | `signals`, `approval`, `breakpoint` | what steps wait for that others decide; signals they send |
//! | `fork` | what a fork keeps |
//! | `grant`, `render` | tasks for workers |
//! | `names` | what expressions see |
//! | `view` | what people see |

mod apply;
mod approval;
mod breakpoint;
mod child;
mod cycle;
mod deadline;
mod decider;
pub mod demand;
mod finish;
mod foreach;
mod fork;
pub mod grant;
mod hours;
mod input;
mod live;
mod locks;
mod names;
mod people;
pub mod ready;
mod render;
mod request;
pub mod room;
mod settle;
mod signals;
pub mod state;
mod tell;
#[cfg(test)]
mod testing;
mod told;
pub mod view;
pub mod waiting;

use std::sync::Arc;

use kapell_api::task::{Place, Report, Task};
use kapell_api::worker::Queues;
use kapell_expr::{BlobRef, Value};
use kapell_model::{EntityKey, Error, Offer, RunId, RunStatus, Time};

pub use approval::approvals_below;
pub(crate) use decider::{Decider, Stop};
pub use live::{Flight, ItemFlights, Live};
pub use request::{Answer, Request};
pub use state::State;
use state::Unit;
pub use waiting::{Break, Breaks};

use crate::event::{Event, RunCreated};
use crate::message::{LockRefusal, Message, Signal};
use crate::plan::Plan;
use crate::run_queue::Entry;
use crate::run_queue::pace::Pace;

/// A run in memory.
#[derive(Clone, Debug)]
pub struct Run {
    /// What history says.
    pub state: State,
    /// What only the owner's memory knows.
    pub live: Live,
    /// The version it keeps for life.
    pub plan: Arc<Plan>,
}

/// An attempt that a worker holds, as the owner before handed it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The unit.
    pub place: Place,
    /// Its grant.
    pub offer: Offer,
    /// From 1: one that is counted already is over.
    pub attempt: u32,
    /// Its worker can be taken away.
    pub spot: bool,
}

/// Something stored that must be in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ref {
    /// The content of a blob.
    Blob(BlobRef),
    /// A page of items of this run.
    Page(u32),
}

/// What comes to a run from outside.
#[derive(Clone, Debug)]
pub enum Input {
    /// It is made.
    Create(Box<RunCreated>),
    /// Its run queue lets it start.
    Admitted {
        /// `run.last_success`, if its definition asks for it.
        last_success: Value,
    },
    /// Its run queue drops it.
    Discarded {
        /// Why.
        reason: String,
    },
    /// A worker says something.
    Report(Report),
    /// Workers have said what they hold: attempts granted before this epoch that are not `held` are
    /// gone, but for those that may be at workers not heard of yet.
    SessionsEnded {
        /// The epoch of the owner.
        epoch: u64,
        /// Grants that a worker still holds, or whose reports are still to come.
        held: Vec<Holding>,
        /// The queues of workers that may hold more and have not said so yet.
        unheard: Vec<Queues>,
    },
    /// A child has ended.
    ChildEnded {
        /// The unit that made it.
        place: Place,
        /// The child.
        run: RunId,
        /// How it ended.
        status: RunStatus,
        /// Its outputs, or null.
        outputs: Value,
        /// Its error.
        error: String,
    },
    /// A lock is granted.
    LockGranted {
        /// The unit that asked.
        place: Place,
        /// The name.
        name: Arc<str>,
        /// When it was granted.
        at: Option<Time>,
        /// Which of its requests.
        asked: Option<Time>,
    },
    /// A lock is none that the unit can get.
    LockRefused {
        /// The unit that asked.
        place: Place,
        /// The name.
        name: Arc<str>,
        /// Why.
        why: LockRefusal,
    },
    /// Signals that a unit may wait for have come.
    Signals {
        /// The unit.
        place: Place,
        /// Newest first.
        signals: Vec<Arc<Signal>>,
        /// Where the older ones begin, if there are any.
        older: Option<u64>,
    },
    /// A unit cannot wait for a signal: too many do.
    AwaitRefused {
        /// The unit.
        place: Place,
        /// The signal's name.
        topic: Arc<str>,
    },
    /// A newer run takes its place.
    Superseded {
        /// Which.
        by: RunId,
    },
    /// Its run queue says how long such runs take.
    Pace(Pace),
    /// Its parent starts again the step that waits for it.
    RetryChild,
    /// Time has passed, or what was needed is loaded.
    Wake,
    /// Somebody wants something.
    Request(Request),
}

impl Input {
    /// What a message is to a run; none if it is not for runs.
    pub fn of(message: Message) -> Option<Self> {
        let by = || "its parent".to_owned();
        Some(match message {
            Message::ChildEnded {
                place,
                run,
                status,
                outputs,
                error,
            } => Self::ChildEnded {
                place,
                run,
                status,
                outputs,
                error,
            },
            Message::CancelChild { reason, now } => Self::Request(Request::Cancel {
                by: by(),
                reason,
                now,
            }),
            Message::CancelRun { by, reason } => Self::Request(Request::Cancel {
                by,
                reason,
                now: false,
            }),
            Message::RetryChild => Self::RetryChild,
            Message::PauseChild { paused: true } => Self::Request(Request::Pause { by: by() }),
            Message::PauseChild { paused: false } => Self::Request(Request::Resume { by: by() }),
            Message::LockGranted {
                place,
                name,
                at,
                asked,
            } => Self::LockGranted {
                place,
                name,
                at,
                asked,
            },
            Message::LockRefused { place, name, why } => Self::LockRefused { place, name, why },
            Message::Signals {
                place,
                signals,
                older,
            } => Self::Signals {
                place,
                signals,
                older,
            },
            Message::SubscriptionRefused { place, topic } => Self::AwaitRefused {
                place: place?,
                topic,
            },
            Message::Admitted { last_success } => Self::Admitted { last_success },
            Message::Pace(pace) => Self::Pace(pace),
            Message::Discarded { reason } => Self::Discarded { reason },
            Message::Superseded { by } => Self::Superseded { by },
            Message::StartChild(_)
            | Message::Acquire { .. }
            | Message::Release { .. }
            | Message::Notice(_)
            | Message::PaceAsked(_)
            | Message::Outcome(_)
            | Message::Enqueue(_)
            | Message::RunEnded { .. }
            | Message::Reenter(_)
            | Message::BackfillHeld { .. }
            | Message::Active(_)
            | Message::StartTriggered(_)
            | Message::StartRefused { .. }
            | Message::NoRoom { .. }
            | Message::StartTaken { .. }
            | Message::DueRunEnded { .. }
            | Message::DueRunReopened { .. }
            | Message::BackfillMade(_)
            | Message::TriggerSet(_)
            | Message::TriggerRemoved
            | Message::WorkflowPaused(_)
            | Message::Signal(_)
            | Message::Subscribe(_)
            | Message::Unsubscribe { .. }
            | Message::Asked(_) => return None,
        })
    }
}

/// What was decided: facts, and what to do once they are safe.
#[derive(Debug, Default)]
pub struct Decision {
    /// Facts, already applied.
    pub events: Vec<Event>,
    /// What to do after they are durable.
    pub effects: Vec<Effect>,
    /// Contents that must be stored before the events are.
    pub blobs: Vec<(BlobRef, Vec<u8>)>,
    /// Pages to store with the events.
    pub pages: Vec<(u32, Vec<u8>)>,
}

/// What to do once the facts are safe.
#[derive(Debug)]
pub enum Effect {
    /// Hand out attempts.
    Offer(Vec<Task>),
    /// Stop attempts.
    Stop(Vec<(Place, Offer)>),
    /// Tell another entity.
    Send(EntityKey, Message),
    /// The run has ended: send [`Run::end_signal`] if anybody may listen to it.
    Finished,
}

/// Why an input was not taken.
#[derive(Debug)]
pub enum Refusal {
    /// It cannot be done; nothing has changed.
    Reject(Error),
    /// Something must be loaded first; nothing has changed. Submit the input again afterwards.
    Need(Vec<Ref>),
    /// It speaks of something that is over or was never so; nothing has changed.
    Stale,
}

/// Micro-steps of deciding in one go: what is left waits in `todo` for the next [`Input::Wake`].
const SETTLE_STEPS: usize = 1_000;

impl Run {
    /// A run that is about to be made.
    pub fn new(plan: Arc<Plan>) -> Self {
        Self {
            state: State::default(),
            live: Live::default(),
            plan,
        }
    }

    /// A run as its history says, from a snapshot and the chunks after it.
    pub fn restore(
        plan: Arc<Plan>,
        snapshot: Option<&[u8]>,
        chunks: impl IntoIterator<Item = Vec<Event>>,
    ) -> Result<Self, String> {
        let mut state = match snapshot {
            Some(bytes) => State::from_snapshot(bytes)?,
            None => State::default(),
        };
        for events in chunks {
            for event in &events {
                state.apply(&plan, event);
            }
        }
        let mut run = Self {
            state,
            live: Live::default(),
            plan,
        };
        for (place, (offer, at)) in run.state.started.clone() {
            run.take_off(
                place,
                Flight {
                    offer,
                    granted_at: at,
                    spot: false,
                },
            );
        }
        Ok(run)
    }

    /// Takes one input. On success everything that follows from it at once is decided and applied.
    pub fn decide(&mut self, input: Input, now: Time) -> Result<Decision, Refusal> {
        let now = now.max(self.state.last_at);
        let mut decider = Decider {
            run: self,
            now,
            out: Decision::default(),
        };
        decider.take(input)?;
        decider.settle();
        Ok(decider.out)
    }

    /// Takes a report as [`Run::decide`] does; what is decided is added to what was decided before.
    pub fn decide_report(
        &mut self,
        report: Report,
        now: Time,
        decision: &mut Decision,
    ) -> Result<(), Refusal> {
        let now = now.max(self.state.last_at);
        let mut decider = Decider {
            run: self,
            now,
            out: std::mem::take(decision),
        };
        let taken = decider.take(Input::Report(report));
        if taken.is_ok() {
            decider.settle();
        }
        *decision = decider.out;
        taken
    }

    /// True if deciding is not finished: wake it again.
    pub fn unsettled(&self) -> bool {
        self.state.next_todo().is_some() && self.live.needs.is_empty()
    }

    /// When the run must be woken: at once if work waits, else by its first timer.
    pub fn wake_at(&self) -> Option<Time> {
        if self.state.ended() {
            return None;
        }
        if self.state.next_todo().is_some() || !self.state.started.is_empty() || self.has_ready() {
            return Some(Time::ZERO);
        }
        self.timer_at()
    }

    /// When something happens by itself, with nobody's help.
    pub fn timer_at(&self) -> Option<Time> {
        let state = &self.state;
        let first = state.timers.first_of(state.status == RunStatus::Paused);
        let timeout = state.timeout_at.filter(|_| state.paused_at.is_none());
        [first.map(|(at, _, _)| at), timeout, self.deadline_timer()]
            .into_iter()
            .flatten()
            .min()
            .filter(|_| !state.ended())
    }

    /// True if attempts are handed out or work waits for workers: it must stay in memory.
    pub fn is_busy(&self) -> bool {
        !self.live.flights.is_empty() || self.has_ready() || self.unsettled()
    }

    fn has_ready(&self) -> bool {
        self.state.status != RunStatus::Paused && !self.state.ready.is_empty()
    }

    /// Keeps what was loaded and lets deciding go on.
    pub fn loaded(&mut self, reference: &Ref, bytes: &[u8]) -> Result<(), String> {
        match reference {
            Ref::Blob(blob) => {
                let value = Value::from_stored(bytes).map_err(|error| error.to_string())?;
                self.live.blobs.insert(blob.hash.clone(), value);
            }
            Ref::Page(number) => {
                let units: Vec<Unit> =
                    postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
                self.live.pages.insert(*number, Arc::new(units));
            }
        }
        self.live.needs.retain(|need| need != reference);
        Ok(())
    }

    /// How it stands in its run queue.
    pub fn queue_entry(&self) -> Entry {
        let meta = &self.state.meta;
        Entry {
            run: meta.id,
            key: self.state.line().2,
            rule: self.plan.rule.unwrap_or_default(),
            inside: meta.held_queues.contains(&self.state.line()),
            class: meta.class,
            scheduled_at: meta.scheduled_at,
            created_at: meta.created_at,
            again: false,
            backfill: meta.backfill.clone(),
        }
    }

    /// What was needed cannot be read: whatever looks into it fails.
    pub fn unreadable(&mut self, reference: &Ref, message: &str) {
        if let Ref::Blob(blob) = reference {
            self.live
                .unreadable
                .insert(blob.hash.clone(), message.to_owned());
        }
        self.live.needs.retain(|need| need != reference);
    }

    /// The output of a step as expressions see it.
    pub fn output(&self, place: Place, now: Time) -> Result<Value, String> {
        let plan = self
            .state
            .plan_step(&self.plan, place)
            .ok_or("there is no such step")?;
        let path: [Arc<str>; 3] = ["steps".into(), plan.step.id.clone(), "output".into()];
        let names = names::At::scope(self, place.scope, now);
        match kapell_expr::Scope::resolve(&names, &path) {
            Ok(found) => Ok(found.map(|(value, _)| value).unwrap_or_default()),
            Err(error) => Err(error.to_string()),
        }
    }
}
