//! Which workers run what: known while it runs, before history says it.

use std::collections::BTreeMap;

use kapell_api::http::{RunView, StepWorker};
use kapell_api::record::{AttemptRecord, AttemptResult, Record, StepRecord};
use kapell_model::{RunId, RunStatus, StepStatus, Time};

use crate::peers::question::{Question, Told};
use crate::service::Service;

impl Service {
    /// Says which worker runs a step, and of one that is away what is to come of it.
    pub(super) fn say_who_runs(&self, view: &mut RunView) {
        let Some(workers) = self.workers() else {
            return;
        };
        let run = view.summary.run;
        let mut here = workers.who_runs(run);
        if here.is_empty() {
            return;
        }
        let away = workers.away_of(run);
        for step in &mut view.steps {
            if step.status == StepStatus::Running {
                step.worker = here.remove(&*step.path);
                let what = || away.get(&*step.path).cloned();
                step.waits_for = step.waits_for.take().or_else(what);
            }
        }
    }

    /// Steps of a run, by path, and the workers at this node that run them.
    pub(crate) fn who_runs_here(&self, run: RunId) -> BTreeMap<String, StepWorker> {
        let workers = self.workers().map(|workers| workers.who_runs(run));
        let steps = workers.into_iter().flatten();
        steps
            .map(|(path, worker)| (path.to_string(), worker))
            .collect()
    }

    /// The same of all nodes that answer. A worker that moves may be known at two: at both it is the same.
    fn who_runs(&self, run: RunId) -> BTreeMap<String, StepWorker> {
        let mut steps = self.who_runs_here(run);
        if let Some(nodes) = self.nodes() {
            let (told, _) = nodes.ask_all(&Question::WhoRuns(run));
            for (_, told) in told {
                if let Told::Running(others) = told {
                    steps.extend(others);
                }
            }
        }
        steps
    }

    /// Says of attempts that run which worker has them, and since when: history says it once they have
    /// ended, and that they have begun a while after they did.
    pub(super) fn name_workers(&self, record: &mut Record) {
        if record.status.ended() || record.status == RunStatus::Queued {
            return;
        }
        let mut here = self.who_runs(record.run);
        if here.is_empty() {
            return;
        }
        // Without a view what history says has begun is named.
        let steps = self.plain_view(record.run).map(|view| view.steps);
        let began: BTreeMap<String, Option<Time>> = steps
            .unwrap_or_default()
            .into_iter()
            .filter(|step| step.status == StepStatus::Running)
            .map(|step| (step.path, step.started_at))
            .collect();
        let mut open: Vec<&mut StepRecord> = record.steps.iter_mut().collect();
        while let Some(step) = open.pop() {
            let live = began.get(&step.path);
            let runs = step.status == StepStatus::Running || live.is_some();
            if runs
                && !step.status.ended()
                && let Some(worker) = here.remove(&step.path)
            {
                let since = live.copied().flatten().unwrap_or(worker.since);
                runs_at(step, StepWorker { since, ..worker });
            }
            open.extend(&mut step.children);
            open.extend(step.items.iter_mut().flat_map(|items| &mut items.shown));
        }
    }
}

/// A worker runs an attempt of a step, whose start may not be recorded yet.
fn runs_at(step: &mut StepRecord, worker: StepWorker) {
    step.status = StepStatus::Running;
    step.started_at.get_or_insert(worker.since);
    let last = step.attempts.last_mut();
    match last.filter(|last| last.attempt >= worker.attempt) {
        Some(last) if last.result == AttemptResult::Running => last.worker = Some(worker.name),
        // Its end is known before its worker is.
        Some(_) => {}
        None => step.attempts.push(AttemptRecord {
            attempt: worker.attempt,
            started_at: worker.since,
            ended_at: None,
            result: AttemptResult::Running,
            error: None,
            usage: None,
            worker: Some(worker.name),
        }),
    }
}
