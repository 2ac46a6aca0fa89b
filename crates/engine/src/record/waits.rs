//! Steps that wait for signals, people and breakpoints, and what they send, as a record shows them.

use kapell_api::task::Place;
use kapell_model::{StepStatus, Time};

use super::{Fold, error, status};
use crate::event::{BreakAt, Event, Fact};

/// Characters of a question that are shown in a note.
const QUESTION: usize = 200;

impl Fold<'_> {
    /// Facts about what steps wait for that others decide.
    pub(super) fn wait_fact(&mut self, event: &Event, fact: &Fact) {
        let at = Time(event.at);
        match fact {
            Fact::AwaitStarted(wait) => {
                let until = (wait.timeout > 0).then(|| event.time(wait.timeout));
                self.unit(wait.unit.into(), StepStatus::Waiting, |unit| {
                    unit.begin(at);
                    unit.until = until;
                    unit.waits_for = Some(format!("a signal `{}`", wait.signal));
                });
            }
            Fact::ApprovalAsked(asked) => {
                let until = (asked.timeout > 0).then(|| event.time(asked.timeout));
                let question: String = asked.message.chars().take(QUESTION).collect();
                self.unit(asked.unit.into(), StepStatus::Waiting, |unit| {
                    unit.begin(at);
                    unit.until = until;
                    unit.waits_for = Some(if question.is_empty() {
                        "people to approve it".to_owned()
                    } else {
                        format!("people to approve it: {question}")
                    });
                });
            }
            Fact::ApprovalGiven(given) => {
                self.unit(given.unit.into(), StepStatus::Waiting, |_| {});
                self.note(
                    at,
                    format!("`{}` said yes to a step that asks for more", given.by),
                );
            }
            Fact::SignalsSent(sent) => {
                let failed = error(sent.error.as_ref());
                let names = sent.sent.iter().map(|sent| sent.signal.clone());
                let ended = self.unit_of(sent.unit.into()).map(|unit| unit.status);
                let fails = failed.is_some() && ended.is_some_and(StepStatus::good);
                let status = if fails {
                    StepStatus::Failed
                } else {
                    ended.unwrap_or_default()
                };
                if let Some(error) = failed.as_ref().filter(|_| !fails) {
                    self.note(at, format!("of a step that has failed, {}", error.message));
                }
                self.unit(sent.unit.into(), status, |unit| {
                    unit.sent.extend(names);
                    if fails {
                        unit.error = failed;
                    }
                });
            }
            Fact::BreakReached(reached) => {
                let stopped = BreakAt::from_number(reached.at);
                let ends = (stopped != BreakAt::Before).then(|| status(reached.status));
                let place: Place = reached.unit.into();
                let output = reached.output.as_ref();
                let output = output.map(|output| self.shown(output, place.item));
                self.unit(place, StepStatus::Waiting, |unit| {
                    unit.ready_at.get_or_insert(at);
                    let how = ends.map_or(String::new(), |ends| format!(" ({ends})"));
                    let why = if reached.why.is_empty() {
                        String::new()
                    } else {
                        format!(" at a breakpoint {}", reached.why)
                    };
                    unit.waits_for = Some(format!(
                        "somebody to let it go on: it stopped {}{how}{why}",
                        stopped.name()
                    ));
                    unit.error = error(reached.error.as_ref());
                    if let Some((output, bytes)) = output {
                        (unit.output, unit.output_bytes) = (output, bytes);
                    }
                });
            }
            Fact::BreakPassed(passed) => {
                self.unit(passed.unit.into(), StepStatus::Pending, |unit| {
                    unit.waits_for = None;
                });
                self.note(at, format!("a breakpoint passed by {}", passed.by));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
