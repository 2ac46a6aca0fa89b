//! Which workers run what: known while it runs, before history says it.

use std::collections::BTreeMap;
use std::time::Duration;

use kapell_api::http::{RunView, StepWorker};
use kapell_api::record::{AttemptRecord, AttemptResult, Record, StepRecord};
use kapell_model::{RunId, RunStatus, StepStatus, Time};

use crate::peers::question::{PATIENCE, Question, RunsAt, Told};
use crate::service::Service;

/// How long other nodes have to name workers where one looks at a run again and again.
const GLANCE: Duration = Duration::from_millis(500);

impl Service {
    /// Says which workers at this node run steps, and of one that is away what is to come of it.
    pub(super) fn say_who_runs_here(&self, view: &mut RunView) {
        name(view, self.who_runs_here(view.summary.run));
    }

    /// Says the same of workers at other nodes, if a step runs and nobody here has it.
    pub(super) fn say_who_runs_elsewhere(&self, view: &mut RunView) {
        if self.others_may_run(view) {
            name(view, self.who_runs_elsewhere(view.summary.run, GLANCE));
        }
    }

    /// True if workers at other nodes may run steps of a view: one runs that nobody here has, and it is not made
    /// of others.
    pub(super) fn others_may_run(&self, view: &RunView) -> bool {
        if self.nodes().is_none() {
            return false;
        }
        let steps = view.steps.iter();
        let inner = view.steps.iter().skip(1).map(|step| step.depth).chain([0]);
        steps.zip(inner).any(|(step, next)| {
            let whole = step.child.is_none() && step.items.is_none() && next <= step.depth;
            whole && step.status == StepStatus::Running && step.worker.is_none()
        })
    }

    /// Steps of a run, by path, and the workers at this node that run them.
    pub(crate) fn who_runs_here(&self, run: RunId) -> BTreeMap<String, RunsAt> {
        let workers = self.workers().map(|workers| workers.who_runs(run));
        let steps = workers.into_iter().flatten();
        steps
            .map(|(path, worker)| (path.to_string(), worker))
            .collect()
    }

    /// The same of the other nodes that answer within a time. A worker that moves may be known at two: at
    /// both it is the same.
    fn who_runs_elsewhere(&self, run: RunId, patience: Duration) -> BTreeMap<String, RunsAt> {
        let mut steps = BTreeMap::new();
        if let Some(nodes) = self.nodes() {
            let (told, _) = nodes.ask_all_within(&Question::WhoRuns(run), patience);
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
        let mut runs = self.who_runs_here(record.run);
        runs.extend(self.who_runs_elsewhere(record.run, PATIENCE));
        if runs.is_empty() {
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
            let open_here = step.status == StepStatus::Running || live.is_some();
            if open_here
                && !step.status.ended()
                && let Some(RunsAt { worker, .. }) = runs.remove(&step.path)
            {
                let since = live.copied().flatten().unwrap_or(worker.since);
                runs_at(step, StepWorker { since, ..worker });
            }
            open.extend(&mut step.children);
            open.extend(step.items.iter_mut().flat_map(|items| &mut items.shown));
        }
    }
}

/// Names workers in a view.
fn name(view: &mut RunView, mut runs: BTreeMap<String, RunsAt>) {
    if runs.is_empty() {
        return;
    }
    for step in &mut view.steps {
        if step.status == StepStatus::Running
            && let Some(at) = runs.remove(&step.path)
        {
            step.worker = Some(at.worker);
            step.waits_for = step.waits_for.take().or(at.away);
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
