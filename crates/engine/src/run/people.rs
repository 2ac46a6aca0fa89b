//! What people ask for.

use kapell_api::task::Place;
use kapell_expr::Value;
use kapell_model::spec::Approval;
use kapell_model::{Error, ErrorCode, RunId, RunStatus, StepStatus};

use super::input::Taken;
use super::state::Inner;
use super::waiting::Waiting;
use super::{Decider, Refusal, Request};
use crate::event::{ByPerson, Fact, PriorityChanged, RunReopened, UnitEnded, UnitRef};
use crate::message::Message;

pub(super) fn not_now(message: impl Into<String>, hint: &str) -> Refusal {
    Refusal::Reject(Error::new(ErrorCode::NotAllowedNow, message).hint(hint))
}

/// Whoever ends a step by hand.
pub(super) struct Hand {
    pub(super) by: String,
    pub(super) groups: Vec<String>,
    /// May end an approval that they may not answer.
    pub(super) admin: bool,
    /// Approvals in runs that the step makes.
    pub(super) below: Vec<Approval>,
}

/// True if the numbers of iterations in a path that somebody gave are those of the step it leads to: an
/// answer to a question of an iteration that is over is none to the next one's.
fn same_iterations(given: &str, found: &str) -> bool {
    let number = |part: &str| part.split_once('#').map(|(_, number)| number.to_owned());
    let mut pairs = given.split('.').zip(found.split('.'));
    pairs.all(|(given, found)| number(given).is_none_or(|given| number(found) == Some(given)))
}

impl Decider<'_> {
    pub(super) fn request(&mut self, request: Request) -> Taken {
        match request {
            Request::Cancel { by, reason, now } => self.request_cancel(&by, &reason, now),
            Request::Pause { by } => match self.run.state.status {
                RunStatus::Running => {
                    self.emit(Fact::RunPaused(ByPerson { by }));
                    self.return_locks();
                    self.pause_children(true);
                    Ok(())
                }
                RunStatus::Paused => Ok(()),
                status => Err(not_now(
                    format!("the run is {status} and cannot be paused"),
                    "only a running run can be paused",
                )),
            },
            Request::Resume { by } => match self.run.state.status {
                RunStatus::Paused => {
                    self.emit(Fact::RunResumed(ByPerson { by }));
                    self.pause_children(false);
                    Ok(())
                }
                RunStatus::Running => Ok(()),
                status => Err(not_now(
                    format!("the run is {status}, not paused"),
                    "`kapell retry` starts an ended run again",
                )),
            },
            Request::Retry { by } => self.retry(by),
            Request::Restart { by, from } => self.restart(by, &from),
            Request::Skip {
                by,
                groups,
                admin,
                step,
                below,
            } => {
                let hand = Hand {
                    by,
                    groups,
                    admin,
                    below,
                };
                self.by_hand(hand, &step, None)
            }
            Request::SetOutput {
                by,
                groups,
                admin,
                step,
                below,
                output,
            } => {
                let hand = Hand {
                    by,
                    groups,
                    admin,
                    below,
                };
                self.by_hand(hand, &step, Some(output))
            }
            Request::Priority { by, priority } => {
                if self.run.state.ended() {
                    return Err(not_now("the run has ended", "an ended run has no priority"));
                }
                self.emit(Fact::PriorityChanged(PriorityChanged {
                    priority: u32::from(priority.min(100)),
                    by,
                }));
                Ok(())
            }
            Request::Answer(answer) => self.answer(answer),
            Request::Continue { by, step, stepping } => {
                self.request_continue(&by, step.as_deref(), stepping)
            }
            Request::Breakpoints {
                by,
                breakpoints,
                stepping,
            } => self.request_breakpoints(&by, &breakpoints, stepping),
            Request::AddBreakpoint { by, breakpoint } => self.request_break(&by, breakpoint),
            Request::RemoveBreakpoints { by, which } => self.request_no_break(&by, &which),
            Request::SetParam {
                by,
                name,
                value,
                text,
            } => self.request_param(&by, &name, &value, text),
        }
    }

    fn request_cancel(&mut self, by: &str, reason: &str, now: bool) -> Taken {
        let state = &self.run.state;
        if state.ended() {
            return Err(not_now(
                format!("the run has already ended {}", state.status),
                "there is nothing left to cancel",
            ));
        }
        let again = state.cancel.is_some();
        self.cancel(by, reason, now || again, false);
        Ok(())
    }

    /// A newer run takes its place. One that is ending already goes on with that, `finally` included.
    pub(super) fn superseded(&mut self, by: RunId) -> Taken {
        let state = &self.run.state;
        if state.ended() || state.cancel.is_some() {
            return Err(Refusal::Stale);
        }
        let reason = format!("superseded by run {by}");
        self.cancel("its run queue", &reason, false, false);
        Ok(())
    }

    fn pause_children(&mut self, paused: bool) {
        let children: Vec<_> = self.run.state.open_children();
        for child in children {
            self.send(child.into(), Message::PauseChild { paused });
        }
    }

    fn retry(&mut self, by: String) -> Taken {
        let state = &self.run.state;
        match state.status {
            RunStatus::Failed | RunStatus::TimedOut | RunStatus::Cancelled => {}
            status => {
                return Err(not_now(
                    format!("the run is {status}: there is nothing to retry"),
                    "`kapell restart --from STEP` repeats steps that succeeded",
                ));
            }
        }
        self.reopen(by, Vec::new());
        Ok(())
    }

    /// The parent starts its step again: what did not succeed is done again. An end that the parent
    /// has forgotten is told once more.
    pub(super) fn retry_child(&mut self) -> Taken {
        let state = &self.run.state;
        match state.status {
            RunStatus::Failed | RunStatus::TimedOut | RunStatus::Cancelled => {
                self.reopen("its parent".to_owned(), Vec::new());
            }
            RunStatus::Succeeded | RunStatus::Discarded => {
                let (status, outputs) = (state.status, state.outputs.clone());
                let error = state
                    .error
                    .as_ref()
                    .map(|error| error.error.message.clone());
                self.tell_parent(status, outputs, error.unwrap_or_default());
            }
            RunStatus::Queued | RunStatus::Running | RunStatus::Paused | RunStatus::Cancelling => {}
        }
        Ok(())
    }

    fn reopen(&mut self, by: String, again: Vec<UnitRef>) {
        let timeout = self.run.plan.spec.timeout.map_or(0, Self::micros);
        self.run.live.flights.clear();
        self.run.live.items.clear();
        self.emit(Fact::RunReopened(RunReopened {
            by,
            again,
            timeout,
            queued: true,
            keeps_skipped: true,
        }));
        self.tell_trigger_it_goes_on();
        // Also if it went past its queue before: another rule may count by now.
        let queue = self.run.state.run_queue();
        let entry = self.run.queue_entry();
        self.send(queue, Message::Reenter(Box::new(entry)));
    }

    fn restart(&mut self, by: String, from: &str) -> Taken {
        if !self.run.state.ended() || self.run.state.status == RunStatus::Discarded {
            return Err(not_now(
                format!("the run is {}", self.run.state.status),
                "wait for its end, or cancel it first",
            ));
        }
        let place = self.find(from)?;
        if place.item != Place::NO_ITEM || place.scope != 0 {
            return Err(not_now(
                format!("`{from}` is inside another step"),
                "restart from a step of the workflow itself",
            ));
        }
        let again = self.run.plan.graph(0).downstream(place.step);
        let again = again
            .into_iter()
            .map(|step| {
                UnitRef::from(Place {
                    scope: 0,
                    step,
                    item: Place::NO_ITEM,
                })
            })
            .collect();
        self.reopen(by, again);
        Ok(())
    }

    pub(super) fn find(&self, path: &str) -> Result<Place, Refusal> {
        let found = self.run.state.find(&self.run.plan, path);
        let open = found.map(|place| self.run.state.path(&self.run.plan, place));
        if let Some(open) = open.filter(|open| !same_iterations(path, open)) {
            return Err(not_now(
                format!("`{path}` is over: the loop is at `{open}`"),
                "without a number the iteration that is open is meant",
            ));
        }
        found.ok_or_else(|| {
            Refusal::Reject(
                Error::new(
                    ErrorCode::StepNotFound,
                    format!("there is no step `{path}` in the run"),
                )
                .hint("`kapell show RUN` lists the steps"),
            )
        })
    }

    /// Ends a step by hand: skipped, or with an output.
    fn by_hand(&mut self, hand: Hand, path: &str, output: Option<Value>) -> Taken {
        let place = self.find(path)?;
        let Some(unit) = self.run.state.unit(place) else {
            return Err(not_now(
                format!("`{path}` has not started"),
                "skip its foreach as a whole",
            ));
        };
        // A skip is final too: what needs the step has gone on, and would not see an output.
        if unit.status.good() || unit.status == StepStatus::Skipped {
            return Err(not_now(
                format!("`{path}` has already ended {}", unit.status),
                "`kapell restart --from` repeats it",
            ));
        }
        if unit.status.ended() && !self.run.state.ended() {
            return Err(not_now(
                format!("`{path}` has ended {} and the run goes on", unit.status),
                "wait for the end of the run, or cancel it first",
            ));
        }
        if place.item != Place::NO_ITEM
            && let Some(step) = self.run.state.step(place.scope, place.step)
        {
            let over = step.unit.status.good() || step.unit.status == StepStatus::Skipped;
            let tail = step.foreach.as_ref().and_then(|foreach| foreach.tail);
            let dropped =
                !self.run.state.ended() && tail.is_some_and(|(from, _)| place.item >= from);
            if over || dropped {
                return Err(not_now(
                    format!("the foreach of `{path}` starts no more items"),
                    "`kapell restart --from` repeats it",
                ));
            }
        }
        let items = place.item == Place::NO_ITEM
            && self
                .run
                .state
                .step(place.scope, place.step)
                .and_then(|step| step.foreach.as_ref())
                .is_some_and(|foreach| !foreach.ended());
        let stopped = matches!(
            self.run.state.waits.get(&place),
            Some(Waiting::Break { .. })
        );
        let active = (unit.inner != Inner::None || items) && !unit.status.ended() && !stopped;
        if self.run.flight(place).is_some() || active {
            return Err(not_now(
                format!("`{path}` is {}", unit.status),
                "cancel the run first, then skip the step",
            ));
        }
        let output = self.approval_by_hand(place, path, &hand, output)?;
        let by = hand.by;
        if self.run.state.ended() {
            self.reopen(by.clone(), Vec::new());
        }
        let status = if output.is_some() {
            StepStatus::Succeeded
        } else {
            StepStatus::Skipped
        };
        let output = output.map(|output| self.stored(&output));
        self.release(place);
        self.emit(Fact::UnitEnded(UnitEnded {
            unit: place.into(),
            status: u32::from(status.number()),
            output,
            as_success: true,
            by,
            ..UnitEnded::default()
        }));
        Ok(())
    }
}
