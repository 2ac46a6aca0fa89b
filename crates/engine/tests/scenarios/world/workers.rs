//! Workers that do what the script says.

use super::{BEGIN, Flying, Happening, World};
use crate::script::{Attempt, Stop};
use jiff::SignedDuration;
use kapell_api::task::{Outcome, Place, Report, Task, TaskError, TaskEvent, Work};
use kapell_engine::Input;
use kapell_expr::Value;
use kapell_model::{FailureKind, Offer, RunId, Time, limits};
use std::sync::Arc;

impl World {
    pub(super) fn begin(&mut self, index: usize, task: &Task) {
        let run = &self.runs[index].run;
        let path = run.state.path(&run.plan, task.place);
        let number = index + 1;
        let nth = self.tries.entry((task.run, path.clone())).or_default();
        let mut attempt = self.script.attempt(number, &path, *nth);
        *nth += 1;
        match &task.work {
            Work::Noop => attempt = Attempt::default(),
            Work::Fail { message } => {
                let error = TaskError {
                    reason: "fail".into(),
                    message: message.clone(),
                    ..TaskError::default()
                };
                attempt = Attempt {
                    outcome: Outcome::Failed(Box::new(error)),
                    ..Attempt::default()
                };
            }
            Work::Shell { .. } | Work::Exec { .. } | Work::Python { .. } | Work::Http { .. } => {}
        }
        if let Outcome::Succeeded(value) = &attempt.outcome
            && value.size() > limits::INLINE_OUTPUT_BYTES
        {
            attempt.outcome = Outcome::Succeeded(self.keep(value));
        }
        let run = &self.runs[index].run;
        let timeout = task.work.process().and_then(|process| process.timeout);
        if let Some(timeout) = timeout.and_then(|span| SignedDuration::try_from(span).ok())
            && attempt.takes.is_none_or(|takes| takes > timeout)
        {
            attempt.takes = Some(timeout);
            attempt.outcome = Outcome::Failed(Box::new(TaskError {
                kind: FailureKind::Timeout,
                reason: "timeout".into(),
                message: "the attempt took too long".into(),
                ..TaskError::default()
            }));
        }
        let tried = run.state.unit(task.place).map_or(0, |unit| unit.attempts);
        let text = match (tried, task.alone) {
            (0, _) => "running".into(),
            (_, false) => format!("running (try {})", tried + 1),
            (_, true) => format!("running (try {}, alone)", tried + 1),
        };
        self.timeline
            .note(self.now.since(BEGIN), task.run, &path, text);
        let started_at = self.now;
        let recorded = SignedDuration::try_from(limits::RECORD_START_AFTER).unwrap_or_default();
        if attempt.takes.is_none_or(|takes| takes > recorded) {
            self.report_at(
                started_at.plus(recorded),
                task,
                TaskEvent::Started { at: started_at },
            );
        }
        if let Some(takes) = attempt.takes {
            let at = started_at.plus(takes);
            let ended = ended(started_at, at, attempt.outcome.clone());
            self.report_at(at, task, ended);
        }
        let takes_worker = !matches!(task.work, Work::Noop | Work::Fail { .. });
        let flying = Flying {
            offer: task.offer,
            number: task.attempt,
            path,
            started_at,
            attempt,
            takes_worker,
        };
        self.flying.insert((task.run, task.place), flying);
    }

    /// A worker keeps a big output and reports where it is.
    pub(super) fn keep(&mut self, value: &Value) -> Value {
        let bytes = value.to_json().to_string().into_bytes();
        let hash: Arc<str> = format!("worker-{}", self.blobs.len()).into();
        let size = bytes.len() as u64;
        self.blobs.insert(hash.clone(), bytes);
        Value::Blob(kapell_expr::BlobRef { hash, size })
    }

    pub(super) fn report_at(&mut self, at: Time, task: &Task, event: TaskEvent) {
        let report = Report {
            run: task.run,
            place: task.place,
            offer: task.offer,
            worker: std::sync::Arc::default(),
            event,
        };
        self.plan_for(at, Happening::Report(report));
    }

    pub(super) fn stop(&mut self, key: (RunId, Place), offer: Offer) {
        let Some(flying) = self.flying.get(&key).filter(|flying| flying.offer == offer) else {
            return;
        };
        let (after, outcome) = match flying.attempt.stop {
            Stop::Never => return,
            Stop::After(span) => (span, Outcome::Cancelled),
            Stop::TooLate => (SignedDuration::ZERO, flying.attempt.outcome.clone()),
        };
        let at = self.now.plus(after);
        let event = ended(flying.started_at, at, outcome);
        self.plan_for(
            at,
            Happening::Report(Report {
                run: key.0,
                place: key.1,
                offer,
                worker: std::sync::Arc::default(),
                event,
            }),
        );
    }

    pub(super) fn report(&mut self, report: Report) -> Result<(), String> {
        let key = (report.run, report.place);
        if self
            .flying
            .get(&key)
            .is_none_or(|flying| flying.offer != report.offer)
        {
            return Ok(());
        }
        if matches!(report.event, TaskEvent::Ended { .. }) {
            self.flying.remove(&key);
        }
        let index = self.index(report.run).ok_or("a report of no run")?;
        let _ = self.input(index, Input::Report(report))?;
        Ok(())
    }
}

pub(super) fn ended(started_at: Time, ended_at: Time, outcome: Outcome) -> TaskEvent {
    TaskEvent::Ended {
        started_at,
        ended_at,
        outcome,
        usage: None,
    }
}
