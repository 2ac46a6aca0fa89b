//! Starts, as a node makes them.

use super::{Slot, World};
use kapell_engine::event::{Fork, Parent, RunCreated, RunQueueRef, Stored};
use kapell_engine::message::StartChild;
use kapell_engine::run::state::ParentUnit;
use kapell_engine::run_queue::Entry;
use kapell_engine::{Input, Message, Run};
use kapell_expr::{Budget, Map, MapScope, Value};
use kapell_model::params::{Source, bind};
use kapell_model::{EntityKey, RunId, RunStatus, Shard};
use std::sync::Arc;

/// A run that is about to be made.
#[derive(Default)]
pub(super) struct Making {
    pub(super) id: Option<RunId>,
    pub(super) workflow: Arc<str>,
    pub(super) params: Value,
    pub(super) text: bool,
    pub(super) parent: Option<ParentUnit>,
    pub(super) depth: u32,
    pub(super) priority: Option<u8>,
    pub(super) held_queues: Vec<(Arc<str>, Arc<str>, Arc<str>)>,
    pub(super) fork: Option<Fork>,
}

impl World {
    pub(super) fn start_child(&mut self, child: StartChild) -> Result<(), String> {
        let (id, parent) = (child.id, child.parent);
        let refused = self.start(Making {
            id: Some(id),
            workflow: child.workflow,
            params: child.params,
            text: false,
            parent: Some(parent),
            depth: child.depth,
            priority: Some(child.priority),
            held_queues: child.held_queues,
            fork: None,
        })?;
        if let Some(error) = refused.filter(|_| parent.waits) {
            let message = Message::ChildEnded {
                place: parent.place,
                run: id,
                status: RunStatus::Discarded,
                outputs: Value::Null,
                error,
            };
            self.messages.push_back((parent.run.into(), message));
        }
        Ok(())
    }

    /// What the node does for a start. `Some` is why it was refused.
    pub(super) fn start(&mut self, making: Making) -> Result<Option<String>, String> {
        let Some(plan) = self.plans.get(&making.workflow).cloned() else {
            return Ok(Some(format!("there is no workflow `{}`", making.workflow)));
        };
        let spec = plan.spec.clone();
        let begin = Value::Timestamp(self.now.timestamp());
        let run_value = Value::map([("scheduled_at", begin.clone()), ("created_at", begin)]);
        let supplied = making
            .params
            .as_map()
            .map(|map| (**map).clone())
            .unwrap_or_default();
        let source = if making.text {
            Source::Text
        } else {
            Source::Typed
        };
        let params = match bind(&spec, &supplied, source, &run_value) {
            Ok(params) => Value::Map(params.into()),
            Err(problems) => return Ok(problems.first().map(|problem| problem.message.clone())),
        };
        let scope = MapScope(Map::from([
            ("params".into(), params.clone()),
            ("run".into(), run_value),
        ]));
        let namespace: Arc<str> = "default".into();
        let line: Arc<str> = match &spec.strategy.key {
            None => "".into(),
            Some(key) => key
                .eval(&scope, Budget::default())
                .map_err(|e| e.to_string())?
                .text()
                .into(),
        };
        let queue = plan.rule.map(|rule| {
            (
                rule,
                (namespace.clone(), making.workflow.clone(), line.clone()),
            )
        });
        let unique = self.runs.len() as u128 + 1;
        let id = making
            .id
            .unwrap_or_else(|| RunId::new(self.now, Shard(0), unique));
        let created = RunCreated {
            id: id.to_bytes().to_vec(),
            namespace: namespace.to_string(),
            workflow: making.workflow.to_string(),
            version: 1,
            params: Some(Stored::new(&params)),
            trigger: "manual".to_owned(),
            by: "ann".to_owned(),
            scheduled_at: self.now.0,
            timezone: spec.timezone.to_string(),
            parent: making.parent.map(|parent| Parent {
                run: parent.run.to_bytes().to_vec(),
                unit: parent.place.into(),
                waits: parent.waits,
            }),
            depth: making.depth,
            priority: u32::from(making.priority.unwrap_or(spec.priority)),
            queue: queue.as_ref().map(|(_, queue)| reference(queue)),
            fork: making.fork,
            held_queues: making.held_queues.iter().map(reference).collect(),
            ..RunCreated::default()
        };
        self.timeline.numbers.insert(id, self.runs.len() + 1);
        self.runs.push(Slot {
            run: Run::new(plan),
            replayed: kapell_engine::run::State::default(),
        });
        let index = self.runs.len() - 1;
        let _ = self.input(index, Input::Create(Box::new(created)))?;
        if let Some((rule, queue)) = queue {
            let inside = making.held_queues.contains(&queue);
            let (namespace, workflow, key) = queue;
            let entry = Entry {
                run: id,
                key,
                rule,
                inside,
                ..Entry::default()
            };
            let to = EntityKey::RunQueue {
                namespace,
                workflow,
                key: "".into(),
            };
            self.messages
                .push_back((to, Message::Enqueue(Box::new(entry))));
        }
        Ok(None)
    }
}

fn reference((namespace, workflow, key): &(Arc<str>, Arc<str>, Arc<str>)) -> RunQueueRef {
    RunQueueRef {
        namespace: namespace.to_string(),
        workflow: workflow.to_string(),
        key: key.to_string(),
    }
}
