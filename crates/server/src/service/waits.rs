//! What runs and steps wait for elsewhere: run queues, locks, and runs that they made.

use std::collections::BTreeMap;
use std::sync::Arc;

use kapell_api::client::Result;
use kapell_api::http::{BackfillView, RunSummary, RunView, StepView};
use kapell_api::words::{commands, short};
use kapell_engine::Ask;
use kapell_expr::Value;
use kapell_model::{EntityKey, RunId, RunStatus, StepStatus};
use kapell_node::Entity;
use kapell_node::perform::{self, Plans};

use super::Service;
use crate::register::NAMESPACE;
use crate::rows::failure;

/// Runs that one view of a run asks what they wait for.
const ASKED: usize = 10;

/// True if something in the view is better said by others.
pub(super) fn elsewhere(view: &RunView) -> bool {
    let of_step = |step: &StepView| step.lock.is_some() || step.child.is_some();
    let of_items = |step: &StepView| {
        let mut waiting = step.items.iter().flat_map(|items| &items.waiting);
        waiting.any(|of| of.lock.is_some() || of.child.is_some())
    };
    view.steps
        .iter()
        .any(|step| !step.status.ended() && (of_step(step) || of_items(step)))
}

impl Service {
    /// Says of steps that wait for a lock who holds it, and of those that wait for a run what that one
    /// waits for.
    pub(super) fn name_what_is_elsewhere(&self, view: &mut RunView) {
        if !elsewhere(view) {
            return;
        }
        self.name_holders(view);
        let waits = |step: &&mut StepView| {
            let items = step.items.iter().flat_map(|items| &items.waiting);
            let mut children = items.filter_map(|of| of.child).chain(step.child);
            children.next().is_some() && !step.status.ended()
        };
        for step in view.steps.iter_mut().filter(waits).take(ASKED) {
            // What is not known is left out: the run's id is there anyway.
            if let Some(child) = step.child
                && let Ok(Some(why)) = self.why_child(child)
            {
                step.waits_for = Some(why.text());
            }
            let items = step.items.iter_mut();
            for items in items {
                // A run that does what it is to do is only counted.
                items.waiting.retain_mut(|of| match of.child {
                    None => true,
                    Some(child) => match self.why_child(child) {
                        Ok(Some(why)) if why.reason.is_some() => {
                            of.waits_for = why.text();
                            true
                        }
                        _ => false,
                    },
                });
            }
        }
    }

    /// Says of runs in a list that are queued why they wait, as their run queues know it. What is not
    /// known is left out.
    pub(super) fn say_why_queued(&self, runs: &mut [RunSummary]) {
        let mut queued: BTreeMap<Arc<str>, Vec<RunId>> = BTreeMap::new();
        for run in runs.iter().filter(|run| run.status == RunStatus::Queued) {
            let of = queued.entry(run.workflow.as_str().into()).or_default();
            of.push(run.run);
        }
        if queued.is_empty() {
            return;
        }
        let mut known: BTreeMap<RunId, String> = BTreeMap::new();
        for (workflow, of) in queued {
            known.extend(self.whys(&workflow, of).unwrap_or_default());
        }
        for run in runs {
            if run.status == RunStatus::Queued {
                run.waits_for = known.remove(&run.run);
            }
        }
    }

    /// Says of the runs of backfills that wait in their run queues why they do. What is not known is left
    /// out.
    pub(super) fn say_why_backfills(&self, backfills: &mut [BackfillView]) {
        let mut active: BTreeMap<Arc<str>, Vec<RunId>> = BTreeMap::new();
        for view in backfills.iter().filter(|view| !view.active.is_empty()) {
            let of = active.entry(view.workflow.as_str().into()).or_default();
            of.extend(view.active.iter().map(|of| of.run));
        }
        for (workflow, of) in active {
            let found = self.whys(&workflow, of).unwrap_or_default();
            let mut known: BTreeMap<RunId, String> = found.into_iter().collect();
            let views = backfills
                .iter_mut()
                .filter(|view| *view.workflow == *workflow);
            for of in views.flat_map(|view| &mut view.active) {
                of.waits_for = known.remove(&of.run);
            }
        }
    }

    fn whys(&self, workflow: &Arc<str>, runs: Vec<RunId>) -> Result<Vec<(RunId, String)>> {
        let key = EntityKey::RunQueue {
            namespace: NAMESPACE.into(),
            workflow: workflow.clone(),
            key: "".into(),
        };
        if !self.has_memory() {
            let found = perform::load(&*self.store, &mut Plans::default(), &key);
            return Ok(match found.map_err(failure)?.map(|found| found.entity) {
                Some(Entity::Queue(queue)) => queue.whys(workflow, &runs),
                _ => Vec::new(),
            });
        }
        let answer = self.ask_small(key, Ask::Whys(runs))?;
        let Some(found) = answer.as_map() else {
            return Ok(Vec::new());
        };
        let of = |(run, why): (&Arc<str>, &Value)| Some((run.parse().ok()?, why.text()));
        Ok(found.iter().filter_map(of).collect())
    }

    /// A run that a step waits for, with the first thing that it waits for itself; none if it has ended.
    fn why_child(&self, child: RunId) -> Result<Option<WhyChild>> {
        let Some(row) = self.store.run(child).map_err(failure)? else {
            return Ok(None);
        };
        if row.status.ended() {
            return Ok(None);
        }
        let mut view = self.plain_view(child)?;
        let reason = if view.summary.status == RunStatus::Queued || view.summary.waits_for.is_some()
        {
            let what = view.summary.waits_for.as_deref().unwrap_or("its turn");
            let what = commands(what, child, None);
            Some(match what.strip_prefix("the run waits") {
                Some(rest) => format!("which waits{rest}"),
                None => format!("which waits for {what}"),
            })
        } else {
            self.name_holders(&mut view);
            first_reason(&view).map(|(step, what)| {
                let what = commands(what, child, Some(step));
                format!("in which `{step}` waits for {what}")
            })
        };
        let workflow = row.workflow.to_string();
        Ok(Some(WhyChild {
            child,
            workflow,
            reason,
        }))
    }
}

/// A run that is waited for.
struct WhyChild {
    child: RunId,
    workflow: String,
    /// What it waits for itself, as a clause.
    reason: Option<String>,
}

impl WhyChild {
    fn text(&self) -> String {
        let text = format!("run {} of `{}` to end", short(self.child), self.workflow);
        let reason = self.reason.as_ref().map(|reason| format!(", {reason}"));
        text + &reason.unwrap_or_default()
    }
}

/// The first step that waits for something that is no other step of its run, and for what.
fn first_reason(view: &RunView) -> Option<(&str, &str)> {
    let waits =
        |step: &&StepView| !step.status.ended() && !matches!(step.status, StepStatus::Pending);
    view.steps.iter().filter(waits).find_map(|step| {
        let items = step.items.as_ref().and_then(|items| items.waiting.first());
        let what = step.waits_for.as_deref();
        let what = what.or_else(|| items.map(|of| of.waits_for.as_str()));
        what.map(|what| (step.path.as_str(), what))
    })
}
