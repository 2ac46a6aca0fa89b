//! Starts, as a node makes them.

use super::triggers::made_by;
use super::{BEGIN, Slot, World};
use kapell_engine::event::{Fork, Interval, Parent, RunCreated, RunQueueRef, Stored};
use kapell_engine::message::{StartChild, StartTriggered};
use kapell_engine::run::state::ParentUnit;
use kapell_engine::run_queue::Entry;
use kapell_engine::start::Start;
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
    pub(super) root_by: Arc<str>,
    pub(super) depth: u32,
    pub(super) priority: Option<u8>,
    pub(super) held_queues: Vec<(Arc<str>, Arc<str>, Arc<str>)>,
    pub(super) fork: Option<Fork>,
    pub(super) by_trigger: Option<Box<StartTriggered>>,
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
            root_by: child.root_by,
            depth: child.depth,
            priority: Some(child.priority),
            held_queues: child.held_queues,
            fork: None,
            by_trigger: None,
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
    #[expect(
        clippy::too_many_lines,
        reason = "one thing after another, as the node does them"
    )]
    pub(super) fn start(&mut self, making: Making) -> Result<Option<String>, String> {
        let Some(plan) = self.plans.get(&making.workflow).cloned() else {
            return Ok(Some(format!("there is no workflow `{}`", making.workflow)));
        };
        let spec = plan.spec.clone();
        let namespace: Arc<str> = "default".into();
        let trigger = making.by_trigger.as_deref();
        let scheduled_at = trigger.map_or(self.now, |start| start.scheduled_at);
        let last = plan.calendar.as_ref();
        let last = last.and_then(|calendar| calendar.last_interval(scheduled_at));
        let interval = match trigger {
            Some(start) => start.interval,
            None => last.unwrap_or((scheduled_at, scheduled_at)),
        };
        let timezone = trigger.map_or(&spec.timezone, |start| &start.timezone);
        let start = Start {
            namespace: &namespace,
            workflow: &making.workflow,
            kind: trigger.map_or("manual", |start| start.kind),
            name: trigger.map_or("manual", |start| &start.name),
            by: trigger.map_or("ann", |start| &start.by),
            created_at: self.now,
            scheduled_at,
            interval,
            timezone,
        };
        let run_value = start.value(Value::Null);
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
            trigger: start.kind.to_owned(),
            by: match &making.parent {
                Some(parent) => format!("run {}", parent.run),
                None => start.by.to_owned(),
            },
            root_by: making.root_by.to_string(),
            scheduled_at: scheduled_at.0,
            timezone: timezone.to_string(),
            trigger_name: trigger.map_or(String::new(), |start| start.name.to_string()),
            interval: (interval != (scheduled_at, scheduled_at)).then_some(Interval {
                start: interval.0.0,
                end: interval.1.0,
            }),
            hops: trigger.map_or(0, |start| start.hops),
            class: trigger.map_or(0, |start| start.class as u32),
            backfill: trigger
                .and_then(|start| start.backfill.as_deref())
                .unwrap_or_default()
                .to_owned(),
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
        if let Some(start) = trigger {
            self.timeline
                .say(self.now.since(BEGIN), id, "run", made_by(start));
        }
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
                backfill: making
                    .by_trigger
                    .as_ref()
                    .and_then(|start| start.backfill.clone()),
                class: making
                    .by_trigger
                    .map(|start| start.class)
                    .unwrap_or_default(),
                scheduled_at,
                created_at: self.now,
                again: false,
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
