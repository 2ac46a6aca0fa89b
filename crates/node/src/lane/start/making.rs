//! What a run is made of, from whoever wants it.

use std::sync::Arc;

use kapell_engine::event::{Fork, Interval, Parent, RunCreated, RunQueueRef, Stored, StoredBlob};
use kapell_engine::message::{StartChild, StartClass, StartTriggered};
use kapell_engine::run_queue::Rule;
use kapell_engine::start::Start;
use kapell_expr::{BlobRef, Budget, Map, MapScope, Value};
use kapell_model::spec::Spec;
use kapell_model::{EntityKey, Error, ErrorCode, RunId, Shard, Time, params};

use crate::lane::{VersionKey, mix};
use crate::perform::Version;
use crate::request::{ReplyId, StartRun};

/// A run that is about to be made.
#[derive(Clone, Debug)]
pub(in crate::lane) struct Making {
    pub(in crate::lane) origin: Origin,
    pub(in crate::lane) id: Option<RunId>,
    pub(in crate::lane) namespace: Arc<str>,
    pub(in crate::lane) workflow: Arc<str>,
    pub(in crate::lane) version: Option<u32>,
    pub(in crate::lane) params: Value,
    pub(in crate::lane) text: bool,
    pub(in crate::lane) by: String,
    /// Who is behind a child; empty is `by`.
    pub(in crate::lane) root_by: Arc<str>,
    pub(in crate::lane) trigger: &'static str,
    pub(in crate::lane) trigger_name: Option<Arc<str>>,
    pub(in crate::lane) scheduled_at: Option<Time>,
    /// None: the last one of the workflow's first schedule.
    pub(in crate::lane) interval: Option<(Time, Time)>,
    pub(in crate::lane) timezone: Option<Arc<str>>,
    pub(in crate::lane) priority: Option<u8>,
    pub(in crate::lane) depth: u32,
    pub(in crate::lane) held_queues: Vec<(Arc<str>, Arc<str>, Arc<str>)>,
    pub(in crate::lane) fork: Option<Fork>,
    pub(in crate::lane) hops: u32,
    pub(in crate::lane) class: StartClass,
    pub(in crate::lane) backfill: Option<Arc<str>>,
    /// The trigger that wants it hears when it is there.
    pub(in crate::lane) waited: bool,
    pub(in crate::lane) ready: Option<Box<Ready>>,
    /// Why it is not made, unless it is there already.
    pub(in crate::lane) refused: Option<Error>,
}

/// Who wants it.
#[derive(Clone, Debug)]
pub(in crate::lane) enum Origin {
    Client(ReplyId),
    Parent(kapell_engine::run::state::ParentUnit),
    /// A trigger or a backfill.
    Trigger(EntityKey),
}

/// Everything that is needed, found and checked.
#[derive(Clone, Debug)]
pub(in crate::lane) struct Ready {
    pub(in crate::lane) version: Version,
    pub(in crate::lane) params: Value,
    pub(in crate::lane) labels: Value,
    pub(in crate::lane) queue: Option<(Arc<str>, Rule)>,
}

impl Making {
    pub(in crate::lane) fn from_client(reply: ReplyId, start: StartRun) -> Self {
        let key = start.idempotency_key.as_ref();
        let id = key.filter(|key| !key.is_empty()).map(|key| {
            let name = format!("{}\0{}\0{key}", start.namespace, start.workflow);
            let shard = Shard::of_workflow(&start.namespace, &start.workflow);
            derived_id(shard, name.as_bytes())
        });
        Self {
            origin: Origin::Client(reply),
            id,
            namespace: start.namespace,
            workflow: start.workflow,
            version: start.version,
            params: start.params,
            text: start.text,
            by: start.by,
            root_by: "".into(),
            trigger: "manual",
            trigger_name: None,
            scheduled_at: start.scheduled_at,
            interval: None,
            timezone: None,
            priority: start.priority,
            depth: 0,
            held_queues: Vec::new(),
            fork: None,
            hops: 0,
            class: StartClass::Regular,
            backfill: None,
            waited: false,
            ready: None,
            refused: None,
        }
    }

    pub(in crate::lane) fn from_trigger(start: StartTriggered) -> Self {
        Self {
            origin: Origin::Trigger(start.from),
            id: Some(start.id),
            namespace: start.namespace,
            workflow: start.workflow,
            version: start.version,
            params: start.params,
            text: true,
            by: start.by,
            root_by: "".into(),
            trigger: start.kind,
            trigger_name: Some(start.name),
            scheduled_at: Some(start.scheduled_at),
            interval: Some(start.interval),
            timezone: Some(start.timezone),
            priority: None,
            depth: 0,
            held_queues: Vec::new(),
            fork: None,
            hops: start.hops,
            class: start.class,
            backfill: start.backfill,
            waited: start.waited,
            ready: None,
            refused: None,
        }
    }

    pub(in crate::lane) fn from_parent(child: StartChild) -> Self {
        Self {
            origin: Origin::Parent(child.parent),
            id: Some(child.id),
            namespace: child.namespace,
            workflow: child.workflow,
            version: child.version,
            params: child.params,
            text: false,
            by: format!("run {}", child.parent.run),
            root_by: child.root_by,
            trigger: "workflow",
            trigger_name: None,
            scheduled_at: Some(Time(child.scheduled_at)),
            interval: Some(child.interval),
            timezone: Some(child.timezone),
            priority: Some(child.priority),
            depth: child.depth,
            held_queues: child.held_queues,
            fork: None,
            hops: child.hops,
            class: StartClass::Regular,
            backfill: None,
            waited: false,
            ready: None,
            refused: None,
        }
    }

    /// The client to answer, if a client wants it.
    pub(in crate::lane) fn reply(&self) -> Option<ReplyId> {
        match self.origin {
            Origin::Client(reply) => Some(reply),
            Origin::Parent(_) | Origin::Trigger(_) => None,
        }
    }

    /// True if what wants it is decided in the open batch: both are committed together.
    pub(in crate::lane) fn holds(&self) -> bool {
        match self.origin {
            Origin::Client(_) => false,
            Origin::Parent(_) | Origin::Trigger(_) => true,
        }
    }

    pub(in crate::lane) fn run_queue(&self) -> EntityKey {
        EntityKey::RunQueue {
            namespace: self.namespace.clone(),
            workflow: self.workflow.clone(),
            key: "".into(),
        }
    }

    pub(in crate::lane) fn version_key(&self) -> VersionKey {
        (self.namespace.clone(), self.workflow.clone(), self.version)
    }
}

/// An id that depends on a name alone, so that a duplicate meets the same run.
pub(in crate::lane) fn derived_id(shard: Shard, name: &[u8]) -> RunId {
    let (low, high) = name.iter().fold((1_u64, 2_u64), |(low, high), byte| {
        (
            mix(low ^ u64::from(*byte)),
            mix(high.rotate_left(7) ^ u64::from(*byte)),
        )
    });
    let unique = u128::from(low) << 64 | u128::from(high);
    // The time part is derived too: a due time or key has no other moment of birth.
    RunId::new(Time(0), shard, unique)
}

/// `run` as defaults of parameters, labels and `strategy.key` see it.
pub(in crate::lane) fn run_value(
    making: &Making,
    spec: &Spec,
    last_success: Value,
    now: Time,
) -> Value {
    let scheduled_at = making.scheduled_at.unwrap_or(now);
    Start {
        namespace: &making.namespace,
        workflow: &making.workflow,
        kind: making.trigger,
        name: making.trigger_name.as_deref().unwrap_or(making.trigger),
        by: &making.by,
        created_at: now,
        scheduled_at,
        interval: making.interval.unwrap_or((scheduled_at, scheduled_at)),
        timezone: making.timezone.as_ref().unwrap_or(&spec.timezone),
    }
    .value(last_success)
}

pub(in crate::lane) type Checked = (Value, Value, Option<(Arc<str>, Rule)>);

pub(in crate::lane) fn ready(
    making: &Making,
    spec: &Spec,
    rule: Option<Rule>,
    run: &Value,
) -> Result<Checked, Error> {
    let supplied = making
        .params
        .as_map()
        .map(|map| (**map).clone())
        .unwrap_or_default();
    let source = if making.text {
        params::Source::Text
    } else {
        params::Source::Typed
    };
    let bound = params::bind(spec, &supplied, source, run).map_err(|problems| {
        let text: Vec<&str> = problems
            .iter()
            .map(|problem| problem.message.as_str())
            .collect();
        let error = Error::new(ErrorCode::BadParams, text.join("\n"));
        match problems.iter().find_map(|problem| problem.hint.clone()) {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })?;
    let params = Value::Map(Arc::new(bound));
    let scope = MapScope(Map::from([
        ("params".into(), params.clone()),
        ("run".into(), run.clone()),
    ]));
    let mut labels = Map::new();
    for (name, template) in &spec.labels {
        let value = template
            .eval(&scope, Budget::default())
            .map_err(|error| Error::new(ErrorCode::BadParams, format!("labels.{name}: {error}")))?;
        labels.insert(name.clone(), Value::string(value.text()));
    }
    let queue = match rule {
        None => None,
        Some(rule) => {
            let line: Arc<str> = match &spec.strategy.key {
                None => "".into(),
                Some(key) => match key.eval(&scope, Budget::default()) {
                    Ok(value) if !value.is_null() => value.as_key().text().into(),
                    Ok(_) => {
                        return Err(Error::new(ErrorCode::BadParams, "strategy.key is null"));
                    }
                    Err(error) => {
                        let message = format!("strategy.key: {error}");
                        return Err(Error::new(ErrorCode::BadParams, message));
                    }
                },
            };
            Some((line, rule))
        }
    };
    let labels = if labels.is_empty() {
        Value::Null
    } else {
        Value::Map(labels.into())
    };
    Ok((params, labels, queue))
}

pub(in crate::lane) fn created(id: RunId, making: &Making, ready: &Ready, now: Time) -> RunCreated {
    let spec = &ready.version.plan.spec;
    let reference = |(namespace, workflow, key): &(Arc<str>, Arc<str>, Arc<str>)| RunQueueRef {
        namespace: namespace.to_string(),
        workflow: workflow.to_string(),
        key: key.to_string(),
    };
    let scheduled_at = making.scheduled_at.unwrap_or(now);
    let bundle: Option<&BlobRef> = ready.version.bundle.as_ref();
    RunCreated {
        id: id.to_bytes().to_vec(),
        namespace: making.namespace.to_string(),
        workflow: making.workflow.to_string(),
        version: ready.version.version,
        params: Some(Stored::new(&ready.params)),
        trigger: making.trigger.to_owned(),
        by: making.by.clone(),
        root_by: making.root_by.to_string(),
        scheduled_at: scheduled_at.0,
        timezone: making
            .timezone
            .as_ref()
            .unwrap_or(&spec.timezone)
            .to_string(),
        trigger_name: making.trigger_name.as_deref().unwrap_or("").to_owned(),
        interval: making
            .interval
            .filter(|interval| *interval != (scheduled_at, scheduled_at))
            .map(|(start, end)| Interval {
                start: start.0,
                end: end.0,
            }),
        hops: making.hops,
        class: making.class as u32,
        backfill: making.backfill.as_deref().unwrap_or("").to_owned(),
        parent: match &making.origin {
            Origin::Client(_) | Origin::Trigger(_) => None,
            Origin::Parent(parent) => Some(Parent {
                run: parent.run.to_bytes().to_vec(),
                unit: parent.place.into(),
                waits: parent.waits,
            }),
        },
        depth: making.depth,
        labels: (!ready.labels.is_null()).then(|| Stored::new(&ready.labels)),
        priority: u32::from(making.priority.unwrap_or(spec.priority)),
        queue: ready.queue.as_ref().map(|(line, _)| RunQueueRef {
            namespace: making.namespace.to_string(),
            workflow: making.workflow.to_string(),
            key: line.to_string(),
        }),
        fork: making.fork.clone(),
        bundle: bundle.map(StoredBlob::from),
        held_queues: making.held_queues.iter().map(reference).collect(),
        breakpoints: Vec::new(),
    }
}
