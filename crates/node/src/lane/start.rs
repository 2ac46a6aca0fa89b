//! Making runs: from a client, from a parent, as a fork.

use super::{
    Answer, Arc, Entity, EntityKey, Error, ErrorCode, Lane, Message, Output, ReplyId, Run, RunId,
    RunStatus, Shard, Slot, ToEntity, Version, VersionKey, mix,
};
use kapell_engine::Plan;
use kapell_engine::event::{RunCreated, StoredBreak};
use kapell_engine::message::{StartClass, StartTriggered};
use kapell_engine::plan::Early;
use kapell_engine::run_queue::Entry;
use kapell_expr::Value;
use kapell_model::limits;

mod making;

pub(super) use making::{Making, Origin, Ready, derived_id};
use making::{created, ready, run_value};

/// Runs that start each other by signals in a circle end here.
fn too_many_hops() -> Error {
    let message = format!(
        "{} runs in a row were each started by a signal of the one before",
        limits::HOPS
    );
    Error::new(ErrorCode::LimitReached, message)
        .hint("the workflows start each other in a circle: give a trigger a `when` that ends it")
}

impl Lane {
    /// Finds the version, then makes the run. The run queue, which knows what is said of the workflow
    /// beside its versions, is in memory first.
    pub(super) fn start(&mut self, mut making: Making) {
        let queue = making.run_queue();
        let Some(Slot {
            entity: Entity::Queue(queue),
            ..
        }) = self.slots.get(&queue)
        else {
            let holds = making.holds();
            self.submit(queue, ToEntity::Create(Box::new(making)), holds);
            return;
        };
        let settings = &queue.settings;
        if settings.deleted || settings.active == Some(0) && making.version.is_none() {
            let error = switched_off(&making.workflow, settings.deleted);
            self.make_failed(making, error);
            return;
        }
        making.version = making.version.or(settings.active);
        let key = making.version_key();
        if let Some(version) = self.ahead.version(&key, self.now) {
            self.prepare(making, version);
            return;
        }
        self.holds += usize::from(making.holds());
        let first = !self.making.contains_key(&key);
        self.making.entry(key.clone()).or_default().push(making);
        if first {
            self.out.push(Output::LoadVersion(key));
        }
    }

    pub(super) fn version_read(
        &mut self,
        key: VersionKey,
        result: kapell_store::Result<Option<Version>>,
    ) {
        if self.outdated.remove(&key) {
            // Another version was registered after it was asked for.
            self.out.push(Output::LoadVersion(key));
            return;
        }
        let forks = self.forks.remove(&key).unwrap_or_default();
        let mut waiting = self.making.remove(&key).unwrap_or_default();
        let version = match result {
            Ok(Some(version)) => Ok(version),
            Ok(None) => Err(not_found(&key)),
            Err(error) => {
                // Clients are told; what other entities want waits for the next try.
                let children = waiting
                    .extract_if(.., |making| making.holds())
                    .collect::<Vec<_>>();
                if !children.is_empty() {
                    self.making.insert(key.clone(), children);
                    self.read_again(Output::LoadVersion(key.clone()));
                }
                Err(Error::new(ErrorCode::StoreUnavailable, error.to_string()))
            }
        };
        self.holds -= waiting.iter().filter(|making| making.holds()).count();
        if let Ok(version) = &version {
            self.ahead.keep(key, version.clone(), self.now);
        }
        for (run, reply, forking) in forks {
            match &version {
                Ok(_) => self.submit(run, ToEntity::Fork(reply, forking), false),
                Err(error) => self.reply(reply, Err(error.clone())),
            }
        }
        for making in waiting {
            match &version {
                Ok(version) => self.prepare(making, version.clone()),
                Err(error) => self.make_failed(making, error.clone()),
            }
        }
    }

    /// Checks everything that can refuse a start, then creates the run.
    fn prepare(&mut self, mut making: Making, version: Version) {
        let now = self.now;
        let plan = version.plan.clone();
        let queue = making.run_queue();
        let Some(Slot {
            entity: Entity::Queue(line),
            ..
        }) = self.slots.get(&queue)
        else {
            // It left memory while the version was read.
            self.start(making);
            return;
        };
        let rule = line.rule(plan.rule);
        if making.hops > limits::HOPS {
            self.make_failed(making, too_many_hops());
            return;
        }
        if making.interval.is_none() {
            let at = making.scheduled_at.unwrap_or(now);
            let calendar = plan.calendar.as_ref();
            let last = calendar.and_then(|calendar| calendar.last_interval(at));
            making.interval = Some(last.unwrap_or((at, at)));
        }
        let last_success = self.last_success(&making, &plan, &queue);
        let run = if plan.early > Early::Nothing {
            run_value(&making, &plan.spec, last_success, now)
        } else {
            Value::Null
        };
        let ready = ready(&making, &plan.spec, rule, &run).map(|(params, labels, queue)| Ready {
            version,
            params,
            labels,
            queue,
        });
        match ready {
            Ok(ready) => making.ready = Some(Box::new(ready)),
            Err(error) => {
                self.make_failed(making, error);
                return;
            }
        }
        if let Some(id) = making.id {
            // A derived id may be there already.
            let holds = making.holds();
            if self.ahead.take_absent(id) && !self.slots.contains_key(&id.into()) {
                self.create(&id.into(), making);
            } else {
                self.submit(id.into(), ToEntity::Create(Box::new(making)), holds);
            }
        } else {
            let id = self.new_id(queue.shard());
            self.create(&id.into(), making);
        }
    }

    /// `run.last_success` as defaults of parameters and labels see it. The line is that of a start
    /// which sees null: `strategy.key` cannot depend on what is looked up by it.
    fn last_success(&self, making: &Making, plan: &Plan, queue: &EntityKey) -> Value {
        let Some(Slot {
            entity: Entity::Queue(queue),
            ..
        }) = self
            .slots
            .get(queue)
            .filter(|_| plan.early == Early::LastSuccess)
        else {
            return Value::Null;
        };
        let run = run_value(making, &plan.spec, Value::Null, self.now);
        let line = match plan.spec.strategy.key {
            None => Some("".into()),
            Some(_) => ready(making, &plan.spec, plan.rule, &run)
                .ok()
                .and_then(|(_, _, queue)| queue)
                .map(|(line, _)| line),
        };
        line.map_or(Value::Null, |line: Arc<str>| queue.last_success(&line))
    }

    fn new_id(&mut self, shard: Shard) -> RunId {
        self.ids += 1;
        let unique = u128::from(mix(self.config.seed ^ self.ids.rotate_left(32))) << 64
            | u128::from(mix(self.config.seed.wrapping_add(self.ids)));
        RunId::new(self.now, shard, unique)
    }

    pub(super) fn create(&mut self, key: &EntityKey, making: Making) {
        let EntityKey::Run(id) = *key else { return };
        if let (Some(error), Some(reply)) = (&making.refused, making.reply()) {
            self.reply(reply, Err(error.clone()));
            return;
        }
        let Some(ready) = &making.ready else { return };
        let making_queue = making.run_queue();
        let Some(Slot {
            entity: Entity::Queue(line),
            ..
        }) = self.slots.get(&making_queue)
        else {
            // It left memory while it was looked whether the run is there.
            self.start(making);
            return;
        };
        let places = line.rule(ready.version.plan.rule).is_some();
        if places != ready.queue.is_some() {
            // Another rule counts by now.
            self.start(making);
            return;
        }
        if line.is_full() && places && making.class == StartClass::Regular {
            self.put_off(making);
            return;
        }
        let queue = ready.queue.as_ref().map(|(line, _)| {
            (
                making.namespace.clone(),
                making.workflow.clone(),
                line.clone(),
            )
        });
        let breakpoints = line.settings.breakpoints(ready.version.version);
        let created = RunCreated {
            // Of all runs of its workflow or version, as they are now.
            breakpoints: breakpoints.iter().map(StoredBreak::from).collect(),
            ..created(id, &making, ready, self.now)
        };
        let plan = ready.version.plan.clone();
        let entry = ready.queue.as_ref().map(|(line, rule)| Entry {
            run: id,
            key: line.clone(),
            rule: *rule,
            inside: queue
                .as_ref()
                .is_some_and(|queue| making.held_queues.contains(queue)),
            class: making.class,
            scheduled_at: making.scheduled_at.unwrap_or(self.now),
            created_at: self.now,
            again: false,
            backfill: making.backfill.clone(),
        });
        if entry.is_none() {
            self.goes_past(&making_queue, id);
        }
        let run = Run::new(plan);
        self.slots.insert(
            key.clone(),
            Slot::new(Entity::Run(Box::new(run)), 0, None, self.now),
        );
        self.made(&making, key);
        let input = kapell_engine::Input::Create(Box::new(created));
        self.deliver(key, ToEntity::Run(Box::new(input)), false);
        if let Some(entry) = entry {
            self.send(id.shard(), making_queue, Message::Enqueue(Box::new(entry)));
        }
    }

    /// The run is there already: the same request came twice, or another one under its key.
    pub(super) fn met(&mut self, making: &Making, key: &EntityKey) {
        let differs = match (making.reply(), self.slots.get(key).map(|slot| &slot.entity)) {
            (Some(reply), Some(Entity::Run(run))) => {
                differing(making, run).map(|name| (reply, key_reused(run, &name)))
            }
            _ => None,
        };
        match differs {
            Some((reply, error)) => self.reply(reply, Err(error)),
            None => self.made(making, key),
        }
    }

    /// The run is there.
    pub(super) fn made(&mut self, making: &Making, key: &EntityKey) {
        let EntityKey::Run(id) = *key else { return };
        match &making.origin {
            Origin::Client(reply) => self.reply(*reply, Ok(Answer::Started(id))),
            Origin::Trigger(from) if making.waited => {
                self.send(id.shard(), from.clone(), Message::StartTaken { run: id });
            }
            Origin::Trigger(_) | Origin::Parent(_) => {}
        }
    }

    /// The run queue is full. A trigger keeps its start and comes again.
    fn put_off(&mut self, making: Making) {
        let error = no_room(&making.workflow);
        match making.origin {
            Origin::Trigger(from @ EntityKey::Trigger { .. }) => {
                let start = Box::new(StartTriggered {
                    id: making.id.unwrap_or_default(),
                    from: from.clone(),
                    namespace: making.namespace,
                    workflow: making.workflow,
                    version: making.version,
                    params: making.params,
                    kind: making.trigger,
                    name: making.trigger_name.unwrap_or_default(),
                    by: making.by,
                    scheduled_at: making.scheduled_at.unwrap_or(self.now),
                    interval: making.interval.unwrap_or_default(),
                    timezone: making.timezone.unwrap_or_default(),
                    hops: making.hops,
                    class: making.class,
                    backfill: making.backfill,
                    waited: making.waited,
                });
                self.send(from.shard(), from, Message::NoRoom { start, error });
            }
            Origin::Client(_) | Origin::Parent(_) | Origin::Trigger(_) => {
                self.make_failed(making, error);
            }
        }
    }

    /// The run cannot be made: who wanted it is told.
    pub(super) fn make_failed(&mut self, mut making: Making, error: Error) {
        let answered = matches!(
            error.code,
            ErrorCode::WorkflowNotFound | ErrorCode::NotAllowedNow | ErrorCode::BadParams
        );
        if let (Origin::Client(_), Some(id), None, true) =
            (&making.origin, making.id, &making.refused, answered)
        {
            // What cannot be made any more may have been made when the same request came first.
            making.refused = Some(error);
            self.submit(id.into(), ToEntity::Create(Box::new(making)), false);
            return;
        }
        let own = making.run_queue().shard();
        match making.origin {
            Origin::Client(reply) => self.reply(reply, Err(error)),
            Origin::Parent(parent) => {
                let message = Message::ChildEnded {
                    place: parent.place,
                    run: making.id.unwrap_or_default(),
                    status: RunStatus::Discarded,
                    outputs: Value::Null,
                    error: error.message,
                };
                if parent.waits {
                    self.send(own, parent.run.into(), message);
                }
            }
            Origin::Trigger(from) => {
                tracing::warn!(
                    workflow = %making.workflow,
                    trigger = making.trigger_name.as_deref(),
                    due = making.scheduled_at.map(|at| at.to_string()),
                    error = error.message,
                    "a trigger's start was refused"
                );
                let message = Message::StartRefused {
                    run: making.id.unwrap_or_default(),
                    scheduled_at: making.scheduled_at.unwrap_or(self.now),
                    error,
                };
                self.send(own, from, message);
            }
        }
    }

    /// Retries that a strategy refuses are refused before anything changes.
    pub(super) fn may_retry(
        &self,
        key: &EntityKey,
        request: &kapell_engine::Request,
    ) -> Result<(), Error> {
        let retries = matches!(
            request,
            kapell_engine::Request::Retry { .. } | kapell_engine::Request::Restart { .. }
        );
        let Some(Slot {
            entity: Entity::Run(run),
            ..
        }) = self.slots.get(key)
        else {
            return Ok(());
        };
        if !retries {
            return Ok(());
        }
        let Some(Slot {
            entity: Entity::Queue(queue),
            ..
        }) = self.slots.get(&run.state.run_queue())
        else {
            return Ok(());
        };
        let (_, _, line) = run.state.line();
        queue.may_reenter(run.state.meta.id, &line, run.plan.rule)
    }

    /// A view of a run that waits in its queue says what for.
    pub(super) fn with_queue(
        &self,
        mut view: Box<kapell_engine::run::view::RunView>,
    ) -> Box<kapell_engine::run::view::RunView> {
        if view.status == RunStatus::Queued {
            let key = EntityKey::RunQueue {
                namespace: view.namespace.as_str().into(),
                workflow: view.workflow.as_str().into(),
                key: "".into(),
            };
            if let Some(Slot {
                entity: Entity::Queue(queue),
                ..
            }) = self.slots.get(&key)
                && let Some(why) = queue.why(&view.workflow, view.id)
            {
                view.waits_for = Some(why);
            }
        }
        view
    }

    pub(super) fn dismiss(&mut self, reply: ReplyId, key: &EntityKey) {
        let now = self.now;
        let EntityKey::Run(id) = *key else { return };
        let run = match self.slots.get(key).map(|slot| &slot.entity) {
            Some(Entity::Run(run)) => Some(&run.state),
            _ => None,
        };
        let queue = run.map(kapell_engine::run::State::run_queue);
        let backfill = run.and_then(|run| {
            let id = run.meta.backfill.as_ref()?;
            let workflow = &run.meta.workflow;
            Some(format!(
                "`kapell backfill resume {workflow} {id}` lets its backfill go on"
            ))
        });
        let decided = queue
            .as_ref()
            .and_then(|queue| match self.slots.get_mut(queue) {
                Some(Slot {
                    entity: Entity::Queue(queue),
                    ..
                }) => queue.dismiss(id, now),
                _ => None,
            });
        if let (Some(queue), Some(decided)) = (queue, decided) {
            self.small_decided(&queue, decided.into(), None);
            self.reply(reply, Ok(Answer::Done));
        } else {
            let error = Error::new(
                ErrorCode::NotAllowedNow,
                format!("run {id} blocks no run queue"),
            );
            let error = match backfill {
                Some(hint) => error.hint(hint),
                None => error,
            };
            self.reply(reply, Err(error));
        }
    }
}

/// A parameter with which the same key asks for something else than it did first. What a request leaves
/// out is compared where the definition alone says what it is.
fn differing(making: &Making, run: &Run) -> Option<Arc<str>> {
    let known = run.state.meta.params.as_map()?;
    let given = making.params.as_map().into_iter();
    let mut unknown =
        given.flat_map(|given| given.keys().filter(|name| !known.contains_key(*name)));
    if let Some(name) = unknown.next() {
        return Some(name.clone());
    }
    let ready = making.ready.as_ref()?;
    let same_version = ready.version.version == run.state.meta.version;
    let (now, then) = (ready.params.as_map()?, run.state.meta.params.as_map()?);
    let given = making.params.as_map();
    let mut params = ready.version.plan.spec.params.iter();
    let differs = params.find(|param| {
        let said = given.is_some_and(|given| given.contains_key(&*param.name));
        let default = param.default.as_ref();
        let constant = default.is_none_or(|default| default.programs().is_empty());
        let (now, then) = (now.get(&*param.name), then.get(&*param.name));
        (said || same_version && constant) && now != then && then.is_some()
    });
    differs.map(|param| param.name.clone())
}

fn key_reused(run: &Run, name: &str) -> Error {
    let id = run.state.meta.id;
    let message = format!("run {id} was made under this key, with another value of `{name}`");
    Error::new(ErrorCode::KeyReused, message).hint("take a new key for what is another request")
}

fn switched_off(workflow: &str, deleted: bool) -> Error {
    if deleted {
        Error::new(
            ErrorCode::WorkflowNotFound,
            format!("the workflow `{workflow}` was deleted"),
        )
        .hint("`kapell deploy` brings it back")
    } else {
        Error::new(
            ErrorCode::NotAllowedNow,
            format!("no version of the workflow `{workflow}` is active"),
        )
        .hint(format!(
            "`kapell workflow activate {workflow} VERSION` makes one active, `--version` names one"
        ))
    }
}

fn no_room(workflow: &str) -> Error {
    let message = format!(
        "the run queue of `{workflow}` holds {} runs, active and waiting, and takes no more",
        limits::RUN_QUEUE
    );
    Error::new(ErrorCode::LimitReached, message).hint(format!(
        "`kapell workflow queue {workflow}` shows what they wait for"
    ))
}

fn not_found((_, workflow, version): &VersionKey) -> Error {
    let what = match version {
        Some(version) => format!("there is no version {version} of workflow `{workflow}`"),
        None => format!("there is no workflow `{workflow}`"),
    };
    Error::new(ErrorCode::WorkflowNotFound, what)
        .hint("`kapell run FILE` registers the file and the workflows beside it that it names")
}
