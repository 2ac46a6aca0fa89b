//! From what was folded to the tree of steps.

use kapell_api::record::{ItemsRecord, Part, StepRecord};
use kapell_api::task::Place;
use kapell_model::StepStatus;
use kapell_model::spec::Verb;

use super::Fold;
use super::unit::{ItemsFold, ScopeFold, UnitFold};
use crate::event::ScopeKind;
use crate::plan::StepPlan;

/// Scopes inside each other: more than a definition can hold.
const DEEPEST: usize = 256;

/// The steps of the workflow, then those of `finally`.
pub(super) fn steps(fold: &Fold<'_>) -> Vec<StepRecord> {
    let mut steps = Vec::new();
    let roots = fold.scopes.iter();
    for (number, scope) in roots.filter(|(_, scope)| scope.parent.is_none()) {
        scope_steps(fold, (*number, scope), "", 0, &mut steps);
    }
    if fold.scopes.is_empty() {
        // Not started: its steps are known all the same.
        let root = fold.fresh_scope(0, ScopeKind::Root, None, 0);
        scope_steps(fold, (0, &root), "", 0, &mut steps);
    }
    steps
}

fn scope_steps(
    fold: &Fold<'_>,
    (number, scope): (u32, &ScopeFold),
    prefix: &str,
    depth: usize,
    into: &mut Vec<StepRecord>,
) {
    let Some(graph) = fold.plan.graphs.get(scope.graph as usize) else {
        return;
    };
    if depth > DEEPEST {
        return;
    }
    let prefix = scope.prefix(prefix);
    for ((index, plan), step) in (0..).zip(&graph.steps).zip(&scope.steps) {
        let path = format!("{prefix}{}", plan.step.id);
        let mut record = unit(fold, plan, &step.unit, path, depth);
        record.needs = plan
            .step
            .needs
            .iter()
            .filter_map(|need| graph.steps.get(usize::from(*need)))
            .map(|need| need.step.id.to_string())
            .collect();
        record.iteration = (scope.kind == ScopeKind::Iteration).then_some(scope.iteration);
        record.part = match scope.kind {
            ScopeKind::Finally => Some(Part::Finally),
            ScopeKind::Handler => Some(Part::Handler),
            ScopeKind::Root | ScopeKind::Body | ScopeKind::Iteration => None,
        };
        record.items = step.items.as_ref().map(|found| {
            let place = Place {
                scope: number,
                step: index,
                item: Place::NO_ITEM,
            };
            items(fold, (plan, place), found, &record.path, depth)
        });
        into.push(record);
    }
}

fn unit(
    fold: &Fold<'_>,
    plan: &StepPlan,
    unit: &UnitFold,
    path: String,
    depth: usize,
) -> StepRecord {
    let mut children = Vec::new();
    for scope in unit
        .inner
        .iter()
        .filter_map(|number| Some((*number, fold.scopes.get(number)?)))
    {
        scope_steps(fold, scope, &path, depth + 1, &mut children);
    }
    StepRecord {
        id: plan.step.id.to_string(),
        verb: verb(&plan.step.verb).to_owned(),
        status: unit.status,
        ready_at: unit.ready_at,
        started_at: unit.started_at,
        ended_at: unit.ended_at,
        attempts: unit.attempts.iter().cloned().collect(),
        output: (!unit.output.is_null()).then(|| unit.output.clone()),
        output_bytes: unit.output_bytes,
        error: unit.error.as_deref().cloned(),
        child: unit.child,
        until: unit.until,
        lock: unit.lock.clone(),
        waits_for: unit.waits_for.clone(),
        sent: unit.sent.clone(),
        by: unit.by.clone(),
        tolerated: unit.tolerated,
        children,
        left_out: unit.left_out,
        path,
        ..StepRecord::default()
    }
}

fn items(
    fold: &Fold<'_>,
    (plan, place): (&StepPlan, Place),
    found: &ItemsFold,
    path: &str,
    depth: usize,
) -> ItemsRecord {
    let mut record = ItemsRecord {
        count: u32::try_from(found.statuses.len()).unwrap_or(u32::MAX),
        ..ItemsRecord::default()
    };
    for number in &found.statuses {
        match StepStatus::from_number(*number).unwrap_or_default() {
            status if status.good() => record.succeeded += 1,
            StepStatus::Failed | StepStatus::TimedOut => record.failed += 1,
            status if status.ended() => record.other += 1,
            _ => {}
        }
    }
    record.shown = found
        .kept
        .iter()
        .map(|(item, kept)| StepRecord {
            label: fold.label(Place {
                item: *item,
                ..place
            }),
            ..unit(fold, plan, kept, format!("{path}[{item}]"), depth)
        })
        .collect();
    record
}

fn verb(verb: &Verb) -> &'static str {
    match verb {
        Verb::Shell { .. } => "shell",
        Verb::Exec { .. } => "exec",
        Verb::Python { .. } => "python",
        Verb::Http(_) => "http",
        Verb::Workflow { .. } => "workflow",
        Verb::Steps { .. } => "steps",
        Verb::Switch { .. } => "switch",
        Verb::Loop(_) => "loop",
        Verb::Wait(_) => "wait",
        Verb::Await(_) => "await",
        Verb::Approval(_) => "approval",
        Verb::Set { .. } => "set",
        Verb::Noop => "noop",
        Verb::Fail { .. } => "fail",
    }
}
