//! Runs that share everything before a step with another.

use kapell_engine::Refusal;
use kapell_engine::message::StartClass;
use kapell_expr::Value;
use kapell_model::{EntityKey, RunId};

use super::start::{Making, Origin, derived_id};
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
    /// That of the run to make, if a key says it.
    pub id: Option<RunId>,
}

impl Forking {
    /// The id under which the same key forks the same run.
    pub(super) fn id(run: RunId, key: Option<&str>) -> Option<RunId> {
        let key = key.filter(|key| !key.is_empty())?;
        let name = format!("fork\0{run}\0{key}");
        Some(derived_id(run.shard(), name.as_bytes()))
    }
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
                    self.ahead
                        .version(&key, self.now)
                        .map(|version| version.plan),
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
        match run.fork(&plan, &forking.from, &forking.params, forking.text) {
            Ok((fork, params)) => {
                let meta = &run.state.meta;
                let making = Making {
                    origin: Origin::Client(reply),
                    id: forking.id,
                    namespace: meta.namespace.clone(),
                    workflow: meta.workflow.clone(),
                    version: Some(version),
                    params,
                    text: forking.text,
                    by: forking.by.clone(),
                    root_by: "".into(),
                    trigger: "fork",
                    trigger_name: None,
                    scheduled_at: Some(meta.scheduled_at),
                    interval: Some(meta.interval),
                    timezone: Some(meta.timezone.clone()),
                    priority: Some(meta.priority),
                    depth: meta.depth,
                    held_queues: Vec::new(),
                    fork: Some(fork),
                    hops: meta.hops,
                    class: StartClass::Regular,
                    backfill: None,
                    waited: false,
                    ready: None,
                    refused: None,
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
