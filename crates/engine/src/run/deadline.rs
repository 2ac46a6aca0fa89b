//! Deadlines: when a run should have ended, and whether it will have.
//!
//! The deadline is worked out when the run is made, so that one which waits for its turn misses it too.
//! Its run queue, which knows how long such runs take, tells once, in the same commit. A run is at risk
//! - before it starts, when it could no longer end in time if it were as slow as one in ten is;
//! - when it starts, if that is so already;
//! - while it runs, a tenth of its usual duration before the deadline, unless it is not yet slow then.

use jiff::SignedDuration;
use kapell_expr::Value;
use kapell_model::Time;
use kapell_model::spec::{Dyn, NotifyOn};

use super::names::At;
use super::state::Deadline;
use super::{Decider, Run, Stop};
use crate::event::{DeadlineEstimated, DeadlineSet, Fact};
use crate::message::Message;
use crate::run_queue::pace::Pace;

impl Decider<'_> {
    /// Works out when the run should have ended. An expression that fails leaves it without a deadline:
    /// missing one stops nothing, so lacking one does not either.
    pub(super) fn set_deadline(&mut self) {
        let Some(deadline) = self.run.plan.spec.deadline.clone() else {
            return;
        };
        let set = match self.deadline_at(&deadline) {
            Ok(at) => DeadlineSet {
                at: at.0,
                error: String::new(),
            },
            Err(error) => DeadlineSet { at: 0, error },
        };
        let known = set.error.is_empty();
        self.emit(Fact::DeadlineSet(set));
        if known {
            let run = self.run.state.meta.id;
            let queue = self.run.state.run_queue();
            self.send(queue, Message::PaceAsked(run));
        }
    }

    fn deadline_at(&self, deadline: &Dyn<SignedDuration>) -> Result<Time, String> {
        let scheduled_at = self.run.state.meta.scheduled_at;
        let program = match deadline {
            Dyn::Fixed(after) => return Ok(scheduled_at.plus(*after)),
            Dyn::Expr(program) => program,
        };
        let value = match self.eval(program, &At::scope(self.run, 0, self.now)) {
            Ok(value) => value,
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::Need(_)) => return Err("it looks into a value that is too large".to_owned()),
        };
        match value {
            Value::Timestamp(at) => Ok(at.into()),
            Value::Duration(after) => Ok(scheduled_at.plus(after)),
            Value::String(text) => match (
                text.parse::<jiff::Timestamp>(),
                kapell_expr::parse_duration(&text),
            ) {
                (Ok(at), _) => Ok(at.into()),
                (_, Ok(after)) => Ok(scheduled_at.plus(after)),
                _ => Err(format!("`{text}` is neither a timestamp nor a duration")),
            },
            other => Err(format!(
                "expected a timestamp or a duration, found {}",
                other.type_name()
            )),
        }
    }

    /// The run queue says how long such runs take.
    pub(super) fn paced(&mut self, pace: Pace) {
        self.estimate(pace);
        self.deadline_due();
    }

    /// The same again once the run has started.
    pub(super) fn estimate_again(&mut self) {
        let known = self.run.state.deadline.as_ref();
        if let Some(pace) = known.and_then(|deadline| deadline.pace()) {
            self.estimate(pace);
            self.deadline_due();
        }
    }

    fn estimate(&mut self, pace: Pace) {
        let state = &self.run.state;
        let Some(deadline) = &state.deadline else {
            return;
        };
        if deadline.at_risk || deadline.missed || state.ended() {
            return;
        }
        let risk_at = risk_at(deadline.at, state.started_at, pace, self.now);
        let micros = |span: SignedDuration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        self.emit(Fact::DeadlineEstimated(DeadlineEstimated {
            risk_at: risk_at.map_or(0, |at| at.0),
            usual: micros(pace.usual),
            slow: micros(pace.slow),
        }));
    }

    /// Says once that the run will probably miss its deadline, and once that it has.
    pub(super) fn deadline_due(&mut self) {
        let Some(deadline) = self.run.state.deadline.clone() else {
            return;
        };
        if self.run.state.ended() {
            return;
        }
        if deadline.at <= self.now {
            if !deadline.missed {
                self.emit(Fact::DeadlineMissed(crate::event::Nothing {}));
                let text = format!("has not ended at its deadline {}", deadline.at);
                self.tell(NotifyOn::Deadline, &text, [("missed", Value::Bool(true))]);
            }
        } else if !deadline.at_risk && deadline.risk_at.is_some_and(|at| at <= self.now) {
            self.emit(Fact::DeadlineAtRisk(crate::event::Nothing {}));
            let text = self.risk_text(&deadline);
            self.tell(NotifyOn::Deadline, &text, [("missed", Value::Bool(false))]);
        }
    }

    fn risk_text(&self, deadline: &Deadline) -> String {
        let short =
            |micros| kapell_expr::format_duration(rounded(SignedDuration::from_micros(micros)));
        let stands = match self.run.state.started_at {
            Some(at) => format!("it started at {at}"),
            None => "it has not started".to_owned(),
        };
        format!(
            "will probably miss its deadline {}: it usually takes {}, one in ten longer than {}, and {stands}",
            deadline.at,
            short(deadline.usual),
            short(deadline.slow),
        )
    }
}

/// Whole seconds, but for what is shorter.
fn rounded(span: SignedDuration) -> SignedDuration {
    if span < SignedDuration::from_secs(1) {
        return span;
    }
    SignedDuration::from_secs(span.as_secs())
}

/// When a run with this deadline is at risk; none if only missing it can tell.
fn risk_at(deadline: Time, started_at: Option<Time>, pace: Pace, now: Time) -> Option<Time> {
    let Some(started_at) = started_at else {
        return Some(deadline.plus(-pace.slow));
    };
    let slow_at = started_at.plus(pace.slow);
    if slow_at > deadline {
        return Some(now);
    }
    let last = deadline.plus(-(pace.usual / 10));
    Some(slow_at.max(last)).filter(|at| *at < deadline)
}

impl Run {
    /// When its deadline has something to say.
    pub(super) fn deadline_timer(&self) -> Option<Time> {
        let deadline = self.state.deadline.as_ref()?;
        if deadline.missed || self.state.ended() {
            return None;
        }
        let risk = deadline.risk_at.filter(|_| !deadline.at_risk);
        Some(risk.map_or(deadline.at, |at| at.min(deadline.at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time(seconds * 1_000_000)
    }

    const PACE: Pace = Pace {
        usual: SignedDuration::from_secs(100),
        slow: SignedDuration::from_secs(150),
    };

    #[test]
    fn a_run_that_waits_is_at_risk_when_a_slow_one_would_be_late() {
        assert_eq!(risk_at(at(1_000), None, PACE, at(0)), Some(at(850)));
    }

    #[test]
    fn a_run_that_starts_too_late_is_at_risk_at_once() {
        assert_eq!(
            risk_at(at(1_000), Some(at(851)), PACE, at(851)),
            Some(at(851))
        );
    }

    #[test]
    fn a_run_that_started_in_time_is_at_risk_shortly_before_the_deadline() {
        assert_eq!(
            risk_at(at(1_000), Some(at(100)), PACE, at(100)),
            Some(at(990))
        );
        assert_eq!(
            risk_at(at(1_000), Some(at(845)), PACE, at(845)),
            Some(at(995))
        );
        assert_eq!(risk_at(at(1_000), Some(at(850)), PACE, at(850)), None);
    }
}
