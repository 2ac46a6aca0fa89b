//! What people do to runs.

use super::starts::Making;
use super::workers::ended;
use super::{BEGIN, World};
use crate::script::{Command, What};
use kapell_api::task::{Outcome, Report};
use kapell_engine::run::{Answer, approvals_below};
use kapell_engine::{Input, Refusal, Request};
use kapell_expr::Value;
use kapell_model::spec::Approval;
use kapell_model::{RunId, RunStatus};
use std::sync::Arc;

/// `bob/leads` is somebody with a group.
fn named(who: &str) -> (String, Vec<String>) {
    match who.split_once('/') {
        Some((by, group)) => (by.to_owned(), vec![group.to_owned()]),
        None => (who.to_owned(), Vec::new()),
    }
}

/// A step, and who does something to it: `ann` unless it is said.
fn somebody(step: &str) -> (String, String, Vec<String>) {
    let (step, who) = step.split_once(" by ").unwrap_or((step, "ann"));
    let (by, groups) = named(who);
    (step.to_owned(), by, groups)
}

/// What follows the step and the person fills in a map, or is said with it.
fn answer(step: String, who: &str, approved: bool, rest: String) -> Result<Request, String> {
    let (by, groups) = named(who);
    let (input, comment) = if rest.starts_with('{') {
        let json: serde_json::Value = serde_json::from_str(&rest).map_err(|e| e.to_string())?;
        (Value::from_json(&json), String::new())
    } else {
        (Value::Null, rest)
    };
    Ok(Request::Answer(Answer {
        by,
        groups,
        step,
        approved,
        comment,
        input,
        text: false,
    }))
}

impl World {
    /// Approvals in the runs that a step makes, as a server finds them.
    fn approvals_below(&self, index: usize, step: &str) -> Vec<Approval> {
        let plan = &self.runs[index].run.plan;
        plan.step_at(step).map_or_else(Vec::new, |step| {
            let spec = |name: &Arc<str>| Some(Arc::clone(&self.plans.get(name)?.spec));
            approvals_below(step, |name, _| spec(name))
        })
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each command")]
    pub(super) fn command(&mut self, command: &Command) -> Result<(), String> {
        if let What::Start(workflow, params) = &command.what {
            let workflow: Arc<str> = workflow.as_deref().map_or(self.first.clone(), Into::into);
            let params = params
                .iter()
                .map(|(name, value)| (name, Value::string(value)));
            let refused = self.start(Making {
                workflow,
                params: Value::map(params),
                text: true,
                ..Making::default()
            })?;
            if let Some(refused) = refused {
                self.timeline.say(
                    self.at(),
                    RunId::default(),
                    "start",
                    format!("refused: {refused}"),
                );
            }
            return Ok(());
        }
        if let What::Workers(count) = command.what {
            self.workers = Some(count);
            return Ok(());
        }
        if let What::Send(name, id, payload) = &command.what {
            self.send(name, id, payload);
            return Ok(());
        }
        if self.steers_triggers(&command.what)? {
            return Ok(());
        }
        let index = command.run - 1;
        let id = self
            .runs
            .get(index)
            .ok_or("there is no such run yet")?
            .run
            .state
            .meta
            .id;
        let by = "ann".to_owned();
        let request = match command.what.clone() {
            What::Start(..)
            | What::Workers(_)
            | What::Send(..)
            | What::Deploy
            | What::Away(_)
            | What::Trigger(..)
            | What::HoldBackfill(..)
            | What::Backfill(..) => return Ok(()),
            What::Why => {
                self.why(index);
                return Ok(());
            }
            What::Lose(path) => return self.lose(index, &path),
            What::Dismiss => return self.dismiss(index),
            What::Fork(from, params) => return self.fork(index, &from, &params),
            What::Cancel { now } => Request::Cancel {
                by,
                reason: "ann asked for it".to_owned(),
                now,
            },
            What::Pause => Request::Pause { by },
            What::Resume => Request::Resume { by },
            What::Retry => Request::Retry { by },
            What::Restart(from) => Request::Restart { by, from },
            What::Skip(step) => {
                let (step, by, groups) = somebody(&step);
                Request::Skip {
                    by,
                    groups,
                    admin: false,
                    below: self.approvals_below(index, &step),
                    step,
                }
            }
            What::Set(step, output) => {
                let (step, by, groups) = somebody(&step);
                Request::SetOutput {
                    by,
                    groups,
                    admin: false,
                    below: self.approvals_below(index, &step),
                    step,
                    output,
                }
            }
            What::Priority(priority) => Request::Priority { by, priority },
            What::Answer(step, who, approved, rest) => answer(step, &who, approved, rest)?,
            What::Break(of) => {
                let state = &self.runs[index].run.state;
                let mut breakpoints = state.breaks.clone();
                breakpoints.push(of);
                Request::Breakpoints {
                    by,
                    breakpoints,
                    stepping: state.stepping,
                }
            }
            What::Continue(step, stepping) => Request::Continue { by, step, stepping },
            What::Param(name, value) => Request::SetParam {
                by,
                name: name.into(),
                value: Value::string(value),
                text: true,
            },
        };
        let refused = match self.may_reenter(index, &request) {
            Some(refused) => Some(refused),
            None => self.input(index, Input::Request(request))?,
        };
        if let Some(refused) = refused {
            self.timeline
                .say(self.at(), id, "run", format!("refuses: {refused}"));
        }
        Ok(())
    }

    /// The strategy may refuse a retry.
    pub(super) fn may_reenter(&self, index: usize, request: &Request) -> Option<String> {
        if !matches!(request, Request::Retry { .. } | Request::Restart { .. }) {
            return None;
        }
        let run = &self.runs[index].run;
        let (_, workflow, key) = run.state.line();
        let (queue, _) = self.queues.get(&workflow)?;
        queue
            .may_reenter(run.state.meta.id, &key, run.plan.rule)
            .err()
            .map(|error| error.message)
    }

    pub(super) fn why(&mut self, index: usize) {
        let at = self.at();
        let view = self.runs[index].run.view(self.now);
        if view.status == RunStatus::Queued {
            let (queue, _) = self
                .queues
                .entry(view.workflow.as_str().into())
                .or_default();
            let why = queue
                .why(&view.workflow, view.id)
                .or(view.waits_for)
                .unwrap_or_default();
            self.timeline
                .say(at, view.id, "run", format!("waits: {why}"));
        }
        for step in view.steps {
            if let Some(why) = step.waits_for {
                self.timeline
                    .say(at, view.id, &step.path, format!("waits: {why}"));
            }
        }
    }

    pub(super) fn lose(&mut self, index: usize, path: &str) -> Result<(), String> {
        let id = self.runs[index].run.state.meta.id;
        let found = self
            .flying
            .iter()
            .find(|((run, _), flying)| *run == id && flying.path == path);
        let ((_, place), flying) = found.ok_or_else(|| format!("no attempt of `{path}` runs"))?;
        let outcome = Outcome::Lost {
            reason: "its worker is gone".to_owned(),
            explained: false,
        };
        let event = ended(flying.started_at, self.now, outcome);
        let report = Report {
            run: id,
            place: *place,
            offer: flying.offer,
            worker: std::sync::Arc::default(),
            event,
        };
        self.report(report)
    }

    pub(super) fn dismiss(&mut self, index: usize) -> Result<(), String> {
        let run = &self.runs[index].run;
        let id = run.state.meta.id;
        let workflow = run.state.meta.workflow.clone();
        let (queue, replayed) = self
            .queues
            .get_mut(&workflow)
            .ok_or("it has no run queue")?;
        let decided = queue.dismiss(id, self.now).ok_or("it blocks nothing")?;
        for event in &decided.events {
            replayed.apply(event);
        }
        self.messages.extend(decided.messages);
        self.timeline
            .say(self.now.since(BEGIN), id, "run", "dismissed");
        Ok(())
    }

    /// What the node does for a fork.
    pub(super) fn fork(
        &mut self,
        index: usize,
        from: &str,
        changed: &[(String, String)],
    ) -> Result<(), String> {
        let run = &self.runs[index].run;
        let changed = changed
            .iter()
            .map(|(name, value)| (name, Value::string(value)));
        let (fork, params) = match run.fork(&run.plan, from, &Value::map(changed), true) {
            Ok(forked) => forked,
            Err(Refusal::Reject(error)) => {
                let (at, id) = (self.at(), run.state.meta.id);
                let refused = format!("refuses: {}", super::refused(&error));
                self.timeline.say(at, id, "run", refused);
                return Ok(());
            }
            Err(refusal) => return Err(format!("{refusal:?}")),
        };
        let refused = self.start(Making {
            workflow: run.state.meta.workflow.clone(),
            params,
            text: true,
            fork: Some(fork),
            ..Making::default()
        })?;
        refused.map_or(Ok(()), Err)
    }
}
