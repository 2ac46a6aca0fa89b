//! Runs that share everything before a step with another.

use std::sync::Arc;

use kapell_engine::event::Fork;
use kapell_engine::{Refusal, Run};
use kapell_expr::Value;
use kapell_model::{EntityKey, Error, ErrorCode};

use super::start::{Making, Origin};
use super::{Lane, Output, Slot, ToEntity};
use crate::entity::Entity;
use crate::request::ReplyId;

/// A fork that is about to be made.
#[derive(Clone, Debug)]
pub(super) struct Forking {
    pub from: String,
    pub params: Value,
    pub text: bool,
    pub version: Option<u32>,
    pub by: String,
}

impl Lane {
    pub(super) fn fork(&mut self, reply: ReplyId, key: &EntityKey, forking: &Forking) {
        let Some(Slot {
            entity: Entity::Run(run),
            ..
        }) = self.slots.get(key)
        else {
            return;
        };
        let version = forking.version.unwrap_or(run.state.meta.version);
        let other = (version != run.state.meta.version)
            .then(|| {
                let meta = &run.state.meta;
                (meta.namespace.clone(), meta.workflow.clone(), Some(version))
            })
            .map(|key| {
                (
                    self.versions.get(&key).map(|version| version.plan.clone()),
                    key,
                )
            });
        let plan = match &other {
            None => run.plan.clone(),
            Some((Some(plan), _)) => plan.clone(),
            Some((None, version_key)) => {
                // The version is read first; the request is taken again then.
                let waiting = self.forks.entry(version_key.clone()).or_default();
                waiting.push((key.clone(), reply, Box::new(forking.clone())));
                if waiting.len() == 1 {
                    self.out.push(Output::LoadVersion(version_key.clone()));
                }
                return;
            }
        };
        match kept_by_fork(run, &plan, forking) {
            Ok((fork, params)) => {
                let meta = &run.state.meta;
                let making = Making {
                    origin: Origin::Client(reply),
                    id: None,
                    namespace: meta.namespace.clone(),
                    workflow: meta.workflow.clone(),
                    version: Some(version),
                    params,
                    text: forking.text,
                    by: forking.by.clone(),
                    trigger: "fork",
                    scheduled_at: Some(meta.scheduled_at),
                    timezone: Some(meta.timezone.clone()),
                    priority: Some(meta.priority),
                    depth: meta.depth,
                    held_queues: Vec::new(),
                    fork: Some(fork),
                    ready: None,
                };
                self.start(making);
            }
            Err(Refusal::Need(needs)) => {
                self.ask(key, needs);
                if let Some(slot) = self.slots.get_mut(key) {
                    let forking = ToEntity::Fork(reply, Box::new(forking.clone()));
                    slot.waiting.push_back((forking, false));
                }
            }
            Err(Refusal::Reject(error)) => self.reply(reply, Err(error)),
            Err(Refusal::Stale) => {}
        }
    }
}

/// What a fork keeps: every step that has ended well and does not come after `from`; and its
/// parameters, those of the run with the changed ones.
fn kept_by_fork(
    run: &Run,
    plan: &Arc<kapell_engine::Plan>,
    forking: &Forking,
) -> Result<(Fork, Value), Refusal> {
    let graph = plan.graph(0);
    let Some(from) = graph.by_id.get(forking.from.as_str()).copied() else {
        let error = Error::new(
            ErrorCode::StepNotFound,
            format!("there is no step `{}` in the workflow", forking.from),
        );
        let hint = "fork from a step of the workflow itself";
        return Err(Refusal::Reject(error.hint(hint)));
    };
    let mut again = std::collections::BTreeSet::from([from]);
    let mut walk = vec![from];
    while let Some(step) = walk.pop() {
        for dependent in &graph.steps[usize::from(step)].dependents {
            if again.insert(*dependent) {
                walk.push(*dependent);
            }
        }
    }
    let old = run.plan.graph(0);
    let mut kept = Vec::new();
    for step in &graph.steps {
        if again.contains(&step.index) {
            continue;
        }
        let Some(before) = old.by_id.get(&step.step.id) else {
            continue;
        };
        let same = serde_json::to_string(&*old.steps[usize::from(*before)].step).ok()
            == serde_json::to_string(&*step.step).ok();
        let place = kapell_api::task::Place {
            scope: 0,
            step: *before,
            item: kapell_api::task::Place::NO_ITEM,
        };
        let Some(unit) = run.state.unit(place) else {
            continue;
        };
        if !same || !(unit.status.good() || unit.status == kapell_model::StepStatus::Skipped) {
            continue;
        }
        uses_changed(step, forking).map_err(Refusal::Reject)?;
        kept.push(run.keep(place, step.index)?);
    }
    let mut params = run
        .state
        .meta
        .params
        .as_map()
        .map(|map| (**map).clone())
        .unwrap_or_default();
    if forking.text {
        // Kept values go through text again, so that all are parsed alike.
        for value in params.values_mut() {
            *value = Value::string(value.text());
        }
    }
    for (name, value) in forking
        .params
        .as_map()
        .into_iter()
        .flat_map(|map| map.iter())
    {
        params.insert(name.clone(), value.clone());
    }
    params.retain(|name, _| {
        plan.spec
            .params
            .iter()
            .any(|param| param.name == *name && !param.fixed)
            || forking
                .params
                .as_map()
                .is_some_and(|map| map.contains_key(name))
    });
    let fork = Fork {
        run: run.state.meta.id.to_bytes().to_vec(),
        from: forking.from.clone(),
        kept,
    };
    Ok((fork, Value::Map(params.into())))
}

/// A changed parameter that a kept step uses would make its kept output a lie.
fn uses_changed(step: &kapell_engine::plan::StepPlan, forking: &Forking) -> Result<(), Error> {
    let Some(changed) = forking.params.as_map() else {
        return Ok(());
    };
    let text = serde_json::to_string(&*step.step).unwrap_or_default();
    for name in changed.keys() {
        if text.contains(&format!("params.{name}")) {
            return Err(Error::new(
                ErrorCode::NotAllowedNow,
                format!(
                    "parameter `{name}` is used by step `{}`, which is kept",
                    step.step.id
                ),
            )
            .hint(format!("fork from `{}` or a step before it", step.step.id)));
        }
    }
    Ok(())
}
