//! What lists show of a run beside its row: what it asks people, and where it stopped; and what an
//! expression gives at one of its steps.

use kapell_expr::{Budget, EvalError, Program, Value};
use kapell_model::{Error, ErrorCode, Time};
use serde_json::json;

use super::super::Run;
use super::super::names::{At, error_value};
use super::super::waiting::Waiting;

/// Questions and stops of one run that lists show.
const SHOWN: usize = 100;

/// Waits that are looked through for them.
const SEEN: usize = 10_000;

impl Run {
    /// What lists show beside its row; none if it asks nobody anything and has not stopped.
    pub fn document(&self) -> Option<String> {
        if self.state.waits.is_empty() || self.state.ended() {
            return None;
        }
        let mut approvals = Vec::new();
        let mut stopped = Vec::new();
        for (place, waiting) in self.state.waits.iter().take(SEEN) {
            let path = || self.state.path(&self.plan, *place);
            match waiting {
                Waiting::Approval { .. } if approvals.len() < SHOWN => {
                    let Some(view) = self.approval_view(*place) else {
                        continue;
                    };
                    let unit = self.state.unit(*place);
                    let asked_at = unit.map_or(Time::ZERO, |unit| unit.ready_at);
                    approvals.push(json!({
                        "step": path(),
                        "label": self.own_label(*place, asked_at),
                        "asked_at": unit.map(|unit| unit.ready_at.to_string()),
                        "approval": view,
                    }));
                }
                Waiting::Break { at, .. } if stopped.len() < SHOWN => {
                    stopped.push(json!({ "step": path(), "at": at }));
                }
                Waiting::Signal { .. } | Waiting::Approval { .. } | Waiting::Break { .. } => {}
            }
        }
        if approvals.is_empty() && stopped.is_empty() {
            return None;
        }
        let meta = &self.state.meta;
        let document = json!({
            "namespace": meta.namespace,
            "workflow": meta.workflow,
            "version": meta.version,
            "approvals": approvals,
            "stopped": stopped,
        });
        Some(document.to_string())
    }

    /// What an expression gives over what a step sees: a path, or nothing for the run as a whole.
    ///
    /// # Errors
    /// `step-not-found`; `bad-request` for what is no expression or cannot be evaluated; `limit-reached`
    /// for one that looks into a large value which is not in memory.
    pub fn evaluate(&self, step: &str, expression: &str, now: Time) -> Result<Value, Error> {
        let bad = |why: String| {
            let message = format!("`{expression}`: {why}");
            Err(Error::new(ErrorCode::BadRequest, message)
                .hint("write it as in `if`, without `${{` and `}}`"))
        };
        let program = match Program::parse(expression) {
            Ok(program) => program,
            Err(problems) => {
                let why = problems.first().map(|problem| problem.message.clone());
                return bad(why.unwrap_or_else(|| "it is empty".to_owned()));
            }
        };
        let names = if step.is_empty() {
            At::scope(self, 0, now)
        } else {
            let place = self.state.find(&self.plan, step).ok_or_else(|| {
                let run = self.state.meta.id;
                let message = format!("run {run} has no step `{step}`");
                Error::new(ErrorCode::StepNotFound, message)
                    .hint("`kapell show RUN` lists the steps")
            })?;
            let unit = self.state.unit(place);
            let error = unit.and_then(|unit| unit.error.as_deref());
            At::unit(self, place, now).with("error", error.map_or(Value::Null, error_value))
        };
        match program.eval(&names, Budget::default()) {
            Ok(value) => Ok(value),
            Err(EvalError::Need(blob)) => {
                let message = format!("`{expression}` looks into a value of {} bytes", blob.size);
                Err(Error::new(ErrorCode::LimitReached, message)
                    .hint("`kapell show RUN STEP` shows where it is kept"))
            }
            Err(error) => bad(error.to_string()),
        }
    }
}
