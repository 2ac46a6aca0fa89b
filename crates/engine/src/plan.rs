//! A spec made ready to run: its graphs in one list, with their edges both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kapell_model::spec::{
    FailurePolicy, Graph, NotifyOn, OnFailure, Spec, Step, StepIndex, TriggerKind, Verb,
};
use kapell_model::{Error, ErrorCode, nearest};

use crate::calendar::Calendar;
use crate::run_queue::Rule;

/// Steps that are named where one is not found.
const STEPS_NAMED: usize = 20;

/// The number of a graph in a [`Plan`]. Stored in history: the order in which graphs are numbered
/// never changes (each graph, then for each of its steps the verb's graphs and its handler, depth
/// first; `finally` last).
pub type GraphId = u32;

/// What defaults of parameters, labels and `strategy.key` ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Early {
    /// Nothing of the run.
    Nothing,
    /// `run`, without its last success.
    Run,
    /// `run.last_success`.
    LastSuccess,
}

/// A spec made ready to run.
#[derive(Debug)]
pub struct Plan {
    /// What it was made from.
    pub spec: Arc<Spec>,
    /// Every graph; the workflow's own is the first.
    pub graphs: Vec<GraphPlan>,
    /// The graph of `finally`.
    pub finally: Option<GraphId>,
    /// How its runs stand in the workflow's run queue; none if they need none.
    pub rule: Option<Rule>,
    /// It asks for `run.last_success`, which the run queue remembers.
    pub watermark: bool,
    /// Its run queue keeps how long its runs take and whether the last one failed.
    pub paced: bool,
    /// What is evaluated before a run is made.
    pub early: Early,
    /// Due times of its first schedule: a start by hand stands for the last interval of it.
    pub calendar: Option<Calendar>,
}

impl Plan {
    /// True if a step is meant: by its id or its path, with or without numbers.
    pub fn has_step(&self, step: &str) -> bool {
        let step = without_numbers(step);
        let id = step.rsplit('.').next().unwrap_or_default();
        self.graphs.iter().any(|graph| graph.by_id.contains_key(id))
    }

    /// The step at a path, with or without numbers.
    pub fn step_at(&self, path: &str) -> Option<&Arc<Step>> {
        let path = without_numbers(path);
        let mut graphs: Vec<GraphId> = [0].into_iter().chain(self.finally).collect();
        let mut found = None;
        for id in path.split('.') {
            let of = graphs.iter().find_map(|graph| {
                let graph = self.graphs.get(*graph as usize)?;
                graph.steps.get(usize::from(*graph.by_id.get(id)?))
            })?;
            graphs = of.inner.iter().copied().chain(of.handler).collect();
            found = Some(&of.step);
        }
        found
    }

    /// The refusal of a step that there is not.
    pub fn no_step(&self, step: &str) -> Error {
        let ids = self.graphs.iter().flat_map(|graph| graph.by_id.keys());
        let ids: BTreeSet<&str> = ids.map(|id| &**id).collect();
        let id = step.rsplit('.').next().unwrap_or(step);
        let hint = if let Some(near) = nearest(id, ids.iter().copied()) {
            format!("did you mean `{near}`?")
        } else {
            let first: Vec<&str> = ids.iter().copied().take(STEPS_NAMED).collect();
            let more = if ids.len() > first.len() { ", …" } else { "" };
            format!("its steps are {}{more}", first.join(", "))
        };
        let message = format!("there is no step `{step}` in the workflow");
        Error::new(ErrorCode::StepNotFound, message).hint(hint)
    }
}

/// A path without the numbers of items and iterations.
pub(crate) fn without_numbers(path: &str) -> String {
    let part = |part: &str| part.split(['[', '#']).next().unwrap_or_default().to_owned();
    path.split('.').map(part).collect::<Vec<_>>().join(".")
}

/// One graph.
#[derive(Debug)]
pub struct GraphPlan {
    /// Its steps in the order of the spec.
    pub steps: Vec<StepPlan>,
    /// Steps by id.
    pub by_id: BTreeMap<Arc<str>, StepIndex>,
}

impl GraphPlan {
    /// A step and every step after it.
    pub fn downstream(&self, step: StepIndex) -> BTreeSet<StepIndex> {
        let mut found = BTreeSet::from([step]);
        let mut walk = vec![step];
        while let Some(step) = walk.pop() {
            let dependents = &self.steps[usize::from(step)].dependents;
            walk.extend(
                dependents
                    .iter()
                    .filter(|dependent| found.insert(**dependent)),
            );
        }
        found
    }
}

/// One step of a graph.
#[derive(Debug)]
pub struct StepPlan {
    /// Its definition.
    pub step: Arc<Step>,
    /// Steps that need it.
    pub dependents: Vec<StepIndex>,
    /// The graphs of its verb: one of a group or loop, one for each branch of a switch.
    pub inner: Vec<GraphId>,
    /// The graph of its `on_failure`.
    pub handler: Option<GraphId>,
    /// Keeps its index beside its definition.
    pub index: StepIndex,
}

impl StepPlan {
    /// True if its units run a graph inside.
    pub fn is_container(&self) -> bool {
        !self.inner.is_empty()
    }

    /// True if its attempts run on a worker.
    pub fn is_task(&self) -> bool {
        matches!(
            self.step.verb,
            Verb::Shell { .. }
                | Verb::Exec { .. }
                | Verb::Python { .. }
                | Verb::Http(_)
                | Verb::Noop
                | Verb::Fail { .. }
        )
    }
}

impl Plan {
    /// Numbers the graphs of a checked spec.
    pub fn new(spec: Arc<Spec>) -> Self {
        let mut graphs = Vec::new();
        number(&spec.graph, &mut graphs);
        let finally = spec
            .finally
            .as_ref()
            .map(|graph| number(graph, &mut graphs));
        let graphs = graphs.into_iter().flatten().collect();
        let watermark = asks_for(LAST_SUCCESS, &*spec);
        let early = (&spec.params, &spec.labels, &spec.strategy.key);
        Self {
            rule: Rule::of(&spec.strategy).or(watermark.then(Rule::default)),
            watermark,
            paced: spec.deadline.is_some()
                || spec
                    .notify
                    .iter()
                    .any(|notify| notify.on.contains(&NotifyOn::Recovered)),
            early: if asks_for(LAST_SUCCESS, &early) {
                Early::LastSuccess
            } else if asks_for("run", &early) {
                Early::Run
            } else {
                Early::Nothing
            },
            calendar: spec
                .triggers
                .iter()
                .find_map(|trigger| match &trigger.kind {
                    TriggerKind::Schedule(schedule) => Calendar::new(schedule, &spec.timezone).ok(),
                    TriggerKind::Signal(_) | TriggerKind::Webhook(_) => None,
                }),
            spec,
            graphs,
            finally,
        }
    }

    /// What a failed step does to the rest of any graph.
    pub fn policy(&self) -> FailurePolicy {
        self.spec.on_step_failure
    }

    /// A graph by its number.
    pub fn graph(&self, id: GraphId) -> &GraphPlan {
        &self.graphs[id as usize]
    }
}

const LAST_SUCCESS: &str = "last_success";

/// True if its text names that, if only in passing.
fn asks_for(name: &str, definition: &impl serde::Serialize) -> bool {
    serde_json::to_string(definition).is_ok_and(|text| text.contains(name))
}

fn number(graph: &Graph, graphs: &mut Vec<Option<GraphPlan>>) -> GraphId {
    let id = graphs.len();
    graphs.push(None);
    let mut steps: Vec<StepPlan> = Vec::with_capacity(graph.steps.len());
    for (index, step) in graph.steps.iter().enumerate() {
        let inner = step.verb.graphs();
        let inner = inner
            .into_iter()
            .map(|graph| number(graph, graphs))
            .collect();
        let handler = match &step.on_failure {
            OnFailure::Handle { graph, .. } => Some(number(graph, graphs)),
            OnFailure::Policy | OnFailure::Continue => None,
        };
        steps.push(StepPlan {
            step: step.clone(),
            dependents: Vec::new(),
            inner,
            handler,
            index: StepIndex::try_from(index).unwrap_or(StepIndex::MAX),
        });
    }
    for (index, step) in graph.steps.iter().enumerate() {
        for need in &step.needs {
            if let (Some(needed), Ok(index)) = (
                steps.get_mut(usize::from(*need)),
                StepIndex::try_from(index),
            ) {
                needed.dependents.push(index);
            }
        }
    }
    let by_id = steps
        .iter()
        .map(|plan| (plan.step.id.clone(), plan.index))
        .collect();
    graphs[id] = Some(GraphPlan { steps, by_id });
    u32::try_from(id).unwrap_or(u32::MAX)
}
