//! The smallest world an engine can live in: runs, run queues and locks that pass messages, workers
//! that do what the script says, and a clock that jumps to whatever happens next.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::SignedDuration;
use kapell_api::task::{Outcome, Place, Report, Task, TaskError, TaskEvent, Work};
use kapell_engine::event::{
    Event, Fork, KeptStep, Parent, RunCreated, RunQueueRef, Stored, decode_chunk, encode_chunk,
};
use kapell_engine::lock::Lock;
use kapell_engine::message::StartChild;
use kapell_engine::run::grant::{Offers, Room};
use kapell_engine::run::state::ParentUnit;
use kapell_engine::run_queue::{Entry, Rule, RunQueue};
use kapell_engine::{Decision, Effect, Input, Message, Plan, Ref, Refusal, Request, Run};
use kapell_expr::{Budget, Map, MapScope, Value};
use kapell_model::params::{Source, bind};
use kapell_model::{
    EntityKey, FailureKind, Offer, RunId, RunStatus, Shard, StepStatus, Time, limits,
};

use crate::page::Scenario;
use crate::script::{Attempt, Command, Script, Stop, What};
use crate::timeline::{After, Timeline};

/// When a scenario begins: 2026-01-01T00:00:00Z.
pub(crate) const BEGIN: Time = Time(1_767_225_600_000_000);

/// Things that may happen in one instant before the world must be turning in circles.
const INSTANT: usize = 30_000;

/// What becomes of the owner's memory.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Memory {
    /// It stays.
    Kept,
    /// It is lost at each instant: another owner goes on from history.
    LostAtEachInstant,
}

/// The world.
pub(crate) struct World {
    now: Time,
    memory: Memory,
    script: Script,
    plans: BTreeMap<Arc<str>, Arc<Plan>>,
    first: Arc<str>,
    runs: Vec<Slot>,
    locks: BTreeMap<Arc<str>, (Lock, Lock)>,
    queues: BTreeMap<Arc<str>, (RunQueue, RunQueue)>,
    messages: VecDeque<(EntityKey, Message)>,
    agenda: BTreeMap<(Time, u64), Happening>,
    order: u64,
    flying: BTreeMap<(RunId, Place), Flying>,
    tries: BTreeMap<(RunId, String), usize>,
    blobs: BTreeMap<Arc<str>, Vec<u8>>,
    pages: BTreeMap<(RunId, u32), Vec<u8>>,
    offers: Offers,
    workers: Option<usize>,
    timeline: Timeline,
}

/// A run, and the state that its history gives.
struct Slot {
    run: Run,
    replayed: kapell_engine::run::State,
}

/// What is due.
#[derive(Clone, Debug)]
enum Happening {
    Command(Command),
    Report(Report),
}

/// An attempt at work.
struct Flying {
    offer: Offer,
    path: String,
    started_at: Time,
    attempt: Attempt,
    takes_worker: bool,
}

impl World {
    /// Runs a scenario to its end and gives its timeline.
    pub(crate) fn run(scenario: &Scenario, memory: Memory) -> Result<String, String> {
        let script = Script::read(&scenario.script)?;
        let mut plans = BTreeMap::new();
        let mut first = None;
        for (number, text) in scenario.workflows.iter().enumerate() {
            let file = format!("workflow {}", number + 1);
            let parsed = kapell_model::parse(&file, text);
            let Some(spec) = parsed.spec else {
                let color = kapell_model::Color::Never;
                return Err(kapell_model::render(&file, text, &parsed.diagnostics, color));
            };
            let name = spec.workflow.clone();
            first.get_or_insert(name.clone());
            plans.insert(name, Arc::new(Plan::new(spec)));
        }
        let mut world = Self {
            now: BEGIN,
            memory,
            workers: script.workers,
            plans,
            first: first.ok_or("a scenario needs a workflow")?,
            runs: Vec::new(),
            locks: BTreeMap::new(),
            queues: BTreeMap::new(),
            messages: VecDeque::new(),
            agenda: BTreeMap::new(),
            order: 0,
            flying: BTreeMap::new(),
            tries: BTreeMap::new(),
            blobs: BTreeMap::new(),
            pages: BTreeMap::new(),
            offers: Offers { next: Offer { epoch: 1, counter: 1 } },
            timeline: Timeline::default(),
            script,
        };
        for command in world.script.commands.clone() {
            world.plan_for(BEGIN.plus(command.at), Happening::Command(command));
        }
        world.live()?;
        world.check()?;
        Ok(world.timeline.text())
    }

    fn live(&mut self) -> Result<(), String> {
        loop {
            let mut turns = 0;
            while self.turn()? {
                turns += 1;
                if turns > INSTANT {
                    return Err(format!(
                        "something turns in circles at {}s\n{}",
                        self.at().as_secs(),
                        self.timeline.text()
                    ));
                }
            }
            if self.memory == Memory::LostAtEachInstant && self.take_over()? {
                continue;
            }
            let timers = self.runs.iter().filter_map(|slot| slot.run.timer_at());
            let locks = self.locks.values().filter_map(|(lock, _)| lock.wake_at());
            let queues = self.queues.values().filter_map(|(queue, _)| queue.wake_at());
            let agenda = self.agenda.keys().next().map(|(at, _)| *at);
            let Some(next) = timers.chain(locks).chain(queues).chain(agenda).min() else {
                break;
            };
            self.now = self.now.max(next);
        }
        self.say_what_waits();
        Ok(())
    }

    /// Does one thing that is due. False if nothing is.
    fn turn(&mut self) -> Result<bool, String> {
        if let Some((to, message)) = self.messages.pop_front() {
            self.deliver(to, message)?;
            return Ok(true);
        }
        if let Some(index) = self.runs.iter().position(|slot| slot.run.unsettled()) {
            self.input(index, Input::Wake)?;
            return Ok(true);
        }
        if self.grant()? {
            return Ok(true);
        }
        if let Some((key, _)) = self.agenda.first_key_value().filter(|((at, _), _)| *at <= self.now) {
            let key = *key;
            match self.agenda.remove(&key) {
                Some(Happening::Command(command)) => self.command(&command)?,
                Some(Happening::Report(report)) => self.report(report)?,
                None => {}
            }
            return Ok(true);
        }
        let due = |at: Option<Time>| at.is_some_and(|at| at <= self.now);
        if let Some(index) = self.runs.iter().position(|slot| due(slot.run.timer_at())) {
            self.input(index, Input::Wake)?;
            return Ok(true);
        }
        let lock = self.locks.iter().find(|(_, (lock, _))| due(lock.wake_at()));
        if let Some(name) = lock.map(|(name, _)| name.clone()) {
            self.lock(&name, None);
            return Ok(true);
        }
        let queue = self.queues.iter().find(|(_, (queue, _))| due(queue.wake_at()));
        if let Some(name) = queue.map(|(name, _)| name.clone()) {
            self.queue(&name, None);
            return Ok(true);
        }
        Ok(false)
    }

    fn at(&self) -> SignedDuration {
        self.now.since(BEGIN)
    }

    fn plan_for(&mut self, at: Time, what: Happening) {
        self.order += 1;
        self.agenda.insert((at, self.order), what);
    }

    fn index(&self, id: RunId) -> Option<usize> {
        self.runs.iter().position(|slot| slot.run.state.meta.id == id)
    }

    // ---- messages ----

    fn deliver(&mut self, to: EntityKey, message: Message) -> Result<(), String> {
        if let Message::StartChild(child) = message {
            return self.start_child(*child);
        }
        match to {
            EntityKey::Lock { name, .. } => self.lock(&name, Some(&message)),
            EntityKey::RunQueue { workflow, .. } => self.queue(&workflow, Some(&message)),
            EntityKey::Run(id) => {
                let index = self.index(id).ok_or_else(|| format!("no run hears {message:?}"))?;
                if let Some(input) = input_of(message) {
                    // What comes too late is refused; nobody asks again.
                    let _ = self.input(index, input)?;
                }
            }
        }
        Ok(())
    }

    fn lock(&mut self, name: &Arc<str>, message: Option<&Message>) {
        let (lock, replayed) = self.locks.entry(name.clone()).or_default();
        let decided = lock.decide(name, message, self.now);
        let chunk = kapell_engine::lock::encode_chunk(&decided.events);
        for event in kapell_engine::lock::decode_chunk(&chunk).unwrap_or_default() {
            replayed.apply(&event);
        }
        self.messages.extend(decided.messages);
    }

    fn queue(&mut self, name: &Arc<str>, message: Option<&Message>) {
        let (queue, replayed) = self.queues.entry(name.clone()).or_default();
        let decided = queue.decide(message, self.now);
        let chunk = kapell_engine::run_queue::encode_chunk(&decided.events);
        for event in kapell_engine::run_queue::decode_chunk(&chunk).unwrap_or_default() {
            replayed.apply(&event);
        }
        self.messages.extend(decided.messages);
    }

    // ---- runs ----

    /// Gives a run an input. `Some` is the text of a refusal.
    fn input(&mut self, index: usize, input: Input) -> Result<Option<String>, String> {
        let mut input = input;
        for _ in 0..100 {
            let run = &mut self.runs[index].run;
            match run.decide(input.clone(), self.now) {
                Ok(decision) => {
                    self.absorb(index, decision)?;
                    if self.runs[index].run.live.needs.is_empty() {
                        return Ok(None);
                    }
                    self.load(index, self.runs[index].run.live.needs.clone())?;
                    input = Input::Wake;
                }
                Err(Refusal::Need(needs)) => self.load(index, needs)?,
                Err(Refusal::Stale) => return Ok(None),
                Err(Refusal::Reject(error)) => {
                    let hint = error.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
                    return Ok(Some(format!("{}{hint}", error.message)));
                }
            }
        }
        Err(format!("{input:?} needs more and more"))
    }

    fn load(&mut self, index: usize, needs: Vec<Ref>) -> Result<(), String> {
        let run = &mut self.runs[index].run;
        for need in needs {
            let bytes = match &need {
                Ref::Blob(blob) => self.blobs.get(&blob.hash),
                Ref::Page(page) => self.pages.get(&(run.state.meta.id, *page)),
            };
            run.loaded(&need, bytes.ok_or_else(|| format!("{need:?} was never stored"))?)?;
        }
        Ok(())
    }

    fn absorb(&mut self, index: usize, decision: Decision) -> Result<(), String> {
        let id = self.runs[index].run.state.meta.id;
        for (blob, bytes) in decision.blobs {
            self.blobs.insert(blob.hash, bytes);
        }
        for (page, bytes) in decision.pages {
            self.pages.insert((id, page), bytes);
        }
        let events: Vec<Event> =
            decode_chunk(&encode_chunk(&decision.events)).map_err(|error| error.to_string())?;
        let at = self.now.since(BEGIN);
        let Slot { run, replayed } = &mut self.runs[index];
        for event in events {
            replayed.apply(&run.plan, &event);
            let after = After { run: id, state: replayed, plan: &run.plan };
            self.timeline.event(at, &event, &after);
        }
        for effect in decision.effects {
            match effect {
                Effect::Offer(tasks) => tasks.into_iter().for_each(|task| self.begin(index, task)),
                Effect::Stop(attempts) => {
                    for (place, offer) in attempts {
                        self.stop((id, place), offer);
                    }
                }
                Effect::Send(to, message) => self.messages.push_back((to, message)),
            }
        }
        Ok(())
    }

    /// Grants what fits. False if nothing was.
    fn grant(&mut self) -> Result<bool, String> {
        let mut order: Vec<(u8, usize, Arc<str>)> = Vec::new();
        for (index, slot) in self.runs.iter().enumerate() {
            for queue in slot.run.demand() {
                let priority = slot.run.demand_priority(queue).unwrap_or(0);
                order.push((100 - priority, index, queue.clone()));
            }
        }
        order.sort();
        for (_, index, queue) in order {
            let busy = self.flying.values().filter(|flying| flying.takes_worker).count();
            let process = self.workers.map_or(usize::MAX, |workers| workers.saturating_sub(busy));
            let mut room = Room { process, light: usize::MAX, short: false };
            let run = &mut self.runs[index].run;
            let (granted, decision) =
                run.grant(&queue, limits::GRANT_BATCH, &mut room, self.now, &mut self.offers);
            let changed = granted > 0 || !decision.events.is_empty();
            let needs = run.live.needs.clone();
            self.absorb(index, decision)?;
            if !needs.is_empty() {
                self.load(index, needs)?;
                let _ = self.input(index, Input::Wake)?;
                return Ok(true);
            }
            if changed {
                return Ok(true);
            }
        }
        Ok(false)
    }

    // ---- workers ----

    fn begin(&mut self, index: usize, task: Task) {
        let run = &self.runs[index].run;
        let path = run.state.path(&run.plan, task.place);
        let number = index + 1;
        let nth = self.tries.entry((task.run, path.clone())).or_default();
        let mut attempt = self.script.attempt(number, &path, *nth);
        *nth += 1;
        match &task.work {
            Work::Noop => attempt = Attempt::default(),
            Work::Fail { message } => {
                let error = TaskError {
                    reason: "fail".into(),
                    message: message.clone(),
                    ..TaskError::default()
                };
                attempt = Attempt { outcome: Outcome::Failed(Box::new(error)), ..Attempt::default() };
            }
            Work::Shell { .. } | Work::Exec { .. } | Work::Python { .. } | Work::Http { .. } => {}
        }
        if let Outcome::Succeeded(value) = &attempt.outcome
            && value.size() > limits::INLINE_OUTPUT_BYTES
        {
            attempt.outcome = Outcome::Succeeded(self.keep(value));
        }
        let run = &self.runs[index].run;
        let timeout = task.work.process().and_then(|process| process.timeout);
        if let Some(timeout) = timeout.and_then(|span| SignedDuration::try_from(span).ok())
            && attempt.takes.is_none_or(|takes| takes > timeout)
        {
            attempt.takes = Some(timeout);
            attempt.outcome = Outcome::Failed(Box::new(TaskError {
                kind: FailureKind::Timeout,
                reason: "timeout".into(),
                message: "the attempt took too long".into(),
                ..TaskError::default()
            }));
        }
        let tried = run.state.unit(task.place).map_or(0, |unit| unit.attempts);
        let text = if tried > 0 { format!("running (try {})", tried + 1) } else { "running".into() };
        self.timeline.note(self.now.since(BEGIN), task.run, &path, text);
        let started_at = self.now;
        let recorded = SignedDuration::try_from(limits::RECORD_START_AFTER).unwrap_or_default();
        if attempt.takes.is_none_or(|takes| takes > recorded) {
            self.report_at(started_at.plus(recorded), &task, TaskEvent::Started { at: started_at });
        }
        if let Some(takes) = attempt.takes {
            let at = started_at.plus(takes);
            let ended = ended(started_at, at, attempt.outcome.clone());
            self.report_at(at, &task, ended);
        }
        let takes_worker = !matches!(task.work, Work::Noop | Work::Fail { .. });
        let flying = Flying { offer: task.offer, path, started_at, attempt, takes_worker };
        self.flying.insert((task.run, task.place), flying);
    }

    /// A worker keeps a big output and reports where it is.
    fn keep(&mut self, value: &Value) -> Value {
        let bytes = value.to_json().to_string().into_bytes();
        let hash: Arc<str> = format!("worker-{}", self.blobs.len()).into();
        let size = bytes.len() as u64;
        self.blobs.insert(hash.clone(), bytes);
        Value::Blob(kapell_expr::BlobRef { hash, size })
    }

    fn report_at(&mut self, at: Time, task: &Task, event: TaskEvent) {
        let report = Report { run: task.run, place: task.place, offer: task.offer, event };
        self.plan_for(at, Happening::Report(report));
    }

    fn stop(&mut self, key: (RunId, Place), offer: Offer) {
        let Some(flying) = self.flying.get(&key).filter(|flying| flying.offer == offer) else {
            return;
        };
        let (after, outcome) = match flying.attempt.stop {
            Stop::Never => return,
            Stop::After(span) => (span, Outcome::Cancelled),
            Stop::TooLate => (SignedDuration::ZERO, flying.attempt.outcome.clone()),
        };
        let at = self.now.plus(after);
        let event = ended(flying.started_at, at, outcome);
        self.plan_for(at, Happening::Report(Report { run: key.0, place: key.1, offer, event }));
    }

    fn report(&mut self, report: Report) -> Result<(), String> {
        let key = (report.run, report.place);
        if self.flying.get(&key).is_none_or(|flying| flying.offer != report.offer) {
            return Ok(());
        }
        if matches!(report.event, TaskEvent::Ended { .. }) {
            self.flying.remove(&key);
        }
        let index = self.index(report.run).ok_or("a report of no run")?;
        let _ = self.input(index, Input::Report(report))?;
        Ok(())
    }

    // ---- people ----

    fn command(&mut self, command: &Command) -> Result<(), String> {
        if let What::Start(workflow, params) = &command.what {
            let workflow: Arc<str> = workflow.as_deref().map_or(self.first.clone(), Into::into);
            let params = params.iter().map(|(name, value)| (name, Value::string(value)));
            let refused = self.start(Making {
                workflow,
                params: Value::map(params),
                text: true,
                ..Making::default()
            })?;
            if let Some(refused) = refused {
                self.timeline.say(self.at(), RunId::default(), "start", format!("refused: {refused}"));
            }
            return Ok(());
        }
        if let What::Workers(count) = command.what {
            self.workers = Some(count);
            return Ok(());
        }
        let index = command.run - 1;
        let id = self.runs.get(index).ok_or("there is no such run yet")?.run.state.meta.id;
        let by = "ann".to_owned();
        let request = match command.what.clone() {
            What::Start(..) | What::Workers(_) => return Ok(()),
            What::Why => {
                self.why(index);
                return Ok(());
            }
            What::Lose(path) => return self.lose(index, &path),
            What::Dismiss => return self.dismiss(index),
            What::Fork(from, params) => return self.fork(index, &from, &params),
            What::Cancel { now } => {
                Request::Cancel { by, reason: "ann asked for it".to_owned(), now }
            }
            What::Pause => Request::Pause { by },
            What::Resume => Request::Resume { by },
            What::Retry => Request::Retry { by },
            What::Restart(from) => Request::Restart { by, from },
            What::Skip(step) => Request::Skip { by, step },
            What::Set(step, output) => Request::SetOutput { by, step, output },
            What::Priority(priority) => Request::Priority { by, priority },
        };
        let refused = match self.may_reenter(index, &request) {
            Some(refused) => Some(refused),
            None => self.input(index, Input::Request(request))?,
        };
        if let Some(refused) = refused {
            self.timeline.say(self.at(), id, "run", format!("refuses: {refused}"));
        }
        Ok(())
    }

    /// The strategy may refuse a retry.
    fn may_reenter(&self, index: usize, request: &Request) -> Option<String> {
        if !matches!(request, Request::Retry { .. } | Request::Restart { .. }) {
            return None;
        }
        let run = &self.runs[index].run;
        let (_, workflow, key) = run.state.meta.queue.as_ref()?;
        let (queue, _) = self.queues.get(workflow)?;
        let mode = run.plan.spec.strategy.mode;
        queue.may_reenter(run.state.meta.id, key, mode).err().map(|error| error.message)
    }

    fn why(&mut self, index: usize) {
        let at = self.at();
        let view = self.runs[index].run.view();
        if view.status == RunStatus::Queued {
            let (queue, _) = self.queues.entry(view.workflow.as_str().into()).or_default();
            let why = queue.why(view.id).or(view.waits_for).unwrap_or_default();
            self.timeline.say(at, view.id, "run", format!("waits: {why}"));
        }
        for step in view.steps {
            if let Some(why) = step.waits_for {
                self.timeline.say(at, view.id, &step.path, format!("waits: {why}"));
            }
        }
    }

    fn lose(&mut self, index: usize, path: &str) -> Result<(), String> {
        let id = self.runs[index].run.state.meta.id;
        let found =
            self.flying.iter().find(|((run, _), flying)| *run == id && flying.path == path);
        let ((_, place), flying) = found.ok_or_else(|| format!("no attempt of `{path}` runs"))?;
        let outcome = Outcome::Lost { reason: "its worker is gone".to_owned() };
        let event = ended(flying.started_at, self.now, outcome);
        let report = Report { run: id, place: *place, offer: flying.offer, event };
        self.report(report)
    }

    fn dismiss(&mut self, index: usize) -> Result<(), String> {
        let run = &self.runs[index].run;
        let id = run.state.meta.id;
        let workflow = run.state.meta.workflow.clone();
        let (queue, replayed) = self.queues.get_mut(&workflow).ok_or("it has no run queue")?;
        let decided = queue.dismiss(id, self.now).ok_or("it blocks nothing")?;
        decided.events.iter().for_each(|event| replayed.apply(event));
        self.messages.extend(decided.messages);
        self.timeline.say(self.now.since(BEGIN), id, "run", "dismissed");
        Ok(())
    }

    /// What the node does for a fork: what ended well and does not come after the step is kept.
    fn fork(&mut self, index: usize, from: &str, changed: &[(String, String)]) -> Result<(), String> {
        let run = &self.runs[index].run;
        let graph = run.plan.graph(0);
        let mut again = vec![*graph.by_id.get(from).ok_or("no such step")?];
        let mut seen = 0;
        while let Some(step) = again.get(seen).copied() {
            again.extend(&graph.steps[usize::from(step)].dependents);
            seen += 1;
        }
        let mut kept = Vec::new();
        for step in graph.steps.iter().filter(|step| !again.contains(&step.index)) {
            let place = Place { scope: 0, step: step.index, item: Place::NO_ITEM };
            let Some(unit) = run.state.unit(place) else { continue };
            if unit.status.good() || unit.status == StepStatus::Skipped {
                kept.push(KeptStep {
                    step: u32::from(step.index),
                    status: u32::from(unit.status.number()),
                    output: Some(Stored::new(&run.output(place, self.now)?)),
                });
            }
        }
        let mut params = run.state.meta.params.as_map().map(|map| (**map).clone()).unwrap_or_default();
        params.values_mut().for_each(|value| *value = Value::string(value.text()));
        for (name, value) in changed {
            params.insert(name.as_str().into(), Value::string(value));
        }
        let id = run.state.meta.id.to_bytes().to_vec();
        let refused = self.start(Making {
            workflow: run.state.meta.workflow.clone(),
            params: Value::Map(params.into()),
            text: true,
            fork: Some(Fork { run: id, from: from.to_owned(), kept }),
            ..Making::default()
        })?;
        refused.map_or(Ok(()), Err)
    }

    // ---- starts ----

    fn start_child(&mut self, child: StartChild) -> Result<(), String> {
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
                status: RunStatus::Failed,
                outputs: Value::Null,
                error,
            };
            self.messages.push_back((parent.run.into(), message));
        }
        Ok(())
    }

    /// What the node does for a start. `Some` is why it was refused.
    fn start(&mut self, making: Making) -> Result<Option<String>, String> {
        let Some(plan) = self.plans.get(&making.workflow).cloned() else {
            return Ok(Some(format!("there is no workflow `{}`", making.workflow)));
        };
        let spec = plan.spec.clone();
        let begin = Value::Timestamp(self.now.timestamp());
        let run_value = Value::map([("scheduled_at", begin.clone()), ("created_at", begin)]);
        let supplied = making.params.as_map().map(|map| (**map).clone()).unwrap_or_default();
        let source = if making.text { Source::Text } else { Source::Typed };
        let params = match bind(&spec, &supplied, source, &run_value) {
            Ok(params) => Value::Map(params.into()),
            Err(problems) => return Ok(problems.first().map(|problem| problem.message.clone())),
        };
        let scope = MapScope(Map::from([("params".into(), params.clone()), ("run".into(), run_value)]));
        let namespace: Arc<str> = "default".into();
        let line: Arc<str> = match &spec.strategy.key {
            None => "".into(),
            Some(key) => key.eval(&scope, Budget::default()).map_err(|e| e.to_string())?.text().into(),
        };
        let queue = Rule::of(&spec.strategy)
            .map(|rule| (rule, (namespace.clone(), making.workflow.clone(), line.clone())));
        let unique = self.runs.len() as u128 + 1;
        let id = making.id.unwrap_or_else(|| RunId::new(self.now, Shard(0), unique));
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
        self.runs.push(Slot { run: Run::new(plan), replayed: kapell_engine::run::State::default() });
        let index = self.runs.len() - 1;
        let _ = self.input(index, Input::Create(Box::new(created)))?;
        if let Some((rule, queue)) = queue {
            let inside = making.held_queues.contains(&queue);
            let (namespace, workflow, key) = queue;
            let entry = Entry { run: id, key, rule, inside };
            let to = EntityKey::RunQueue { namespace, workflow, key: "".into() };
            self.messages.push_back((to, Message::Enqueue(Box::new(entry))));
        }
        Ok(None)
    }

    // ---- what must hold ----

    /// Another owner goes on from history. True if that made something happen.
    fn take_over(&mut self) -> Result<bool, String> {
        let next = self.now;
        self.offers.next = Offer { epoch: self.offers.next.epoch + 1, counter: 1 };
        let epoch = self.offers.next.epoch;
        for index in 0..self.runs.len() {
            let Slot { run, replayed } = &self.runs[index];
            if run.state.ended() {
                continue;
            }
            let id = run.state.meta.id;
            let plan = run.plan.clone();
            let snapshot = replayed.snapshot();
            self.runs[index].run = Run::restore(plan, Some(&snapshot), [])?;
            let held = self
                .flying
                .iter()
                .filter(|((run, _), _)| *run == id)
                .map(|((_, place), flying)| (*place, flying.offer))
                .collect();
            let _ = self.input(index, Input::SessionsEnded { epoch, held })?;
            let _ = self.input(index, Input::Wake)?;
        }
        for (lock, replayed) in self.locks.values_mut() {
            *lock = replayed.clone();
        }
        for (queue, replayed) in self.queues.values_mut() {
            *queue = replayed.clone();
        }
        let due = !self.messages.is_empty()
            || self.agenda.first_key_value().is_some_and(|((at, _), _)| *at <= next)
            || self.runs.iter().any(|slot| slot.run.unsettled());
        Ok(due)
    }

    fn say_what_waits(&mut self) {
        for index in 0..self.runs.len() {
            let run = &self.runs[index].run;
            if !run.state.ended() {
                let (id, status) = (run.state.meta.id, run.state.status);
                self.timeline.say(self.now.since(BEGIN), id, "run", format!("stays {status}"));
                self.why(index);
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        for (index, slot) in self.runs.iter().enumerate() {
            let run = &slot.run;
            if run.state.snapshot() != slot.replayed.snapshot() {
                return Err(format!(
                    "run #{}: replaying its events gives another state\n{}",
                    index + 1,
                    first_difference(&format!("{:#?}", run.state), &format!("{:#?}", slot.replayed))
                ));
            }
            let unopened = slot.replayed.snapshot();
            let again = kapell_engine::run::State::from_snapshot(&unopened)?;
            if again.snapshot() != unopened {
                return Err(format!("run #{}: its snapshot does not survive a round trip", index + 1));
            }
            if run.state.ended() && !(run.state.locks.is_empty() && run.state.ready.is_empty()) {
                return Err(format!("run #{} has ended and still holds something", index + 1));
            }
        }
        for (name, (lock, replayed)) in &self.locks {
            if lock != replayed {
                return Err(format!("lock `{name}`: {lock:?} and, replayed, {replayed:?}"));
            }
        }
        for (name, (queue, replayed)) in &self.queues {
            if queue != replayed {
                return Err(format!("run queue of `{name}`: {queue:?} and, replayed, {replayed:?}"));
            }
        }
        Ok(())
    }
}

/// A run that is about to be made.
#[derive(Default)]
struct Making {
    id: Option<RunId>,
    workflow: Arc<str>,
    params: Value,
    text: bool,
    parent: Option<ParentUnit>,
    depth: u32,
    priority: Option<u8>,
    held_queues: Vec<(Arc<str>, Arc<str>, Arc<str>)>,
    fork: Option<Fork>,
}

fn reference((namespace, workflow, key): &(Arc<str>, Arc<str>, Arc<str>)) -> RunQueueRef {
    RunQueueRef {
        namespace: namespace.to_string(),
        workflow: workflow.to_string(),
        key: key.to_string(),
    }
}

fn ended(started_at: Time, ended_at: Time, outcome: Outcome) -> TaskEvent {
    TaskEvent::Ended { started_at, ended_at, outcome, usage: None }
}

/// What a message is to a run.
fn input_of(message: Message) -> Option<Input> {
    let by = "its parent".to_owned();
    Some(match message {
        Message::ChildEnded { place, run, status, outputs, error } => {
            Input::ChildEnded { place, run, status, outputs, error }
        }
        Message::CancelChild { reason, now } => Input::Request(Request::Cancel { by, reason, now }),
        Message::RetryChild => Input::Request(Request::Retry { by }),
        Message::PauseChild { paused: true } => Input::Request(Request::Pause { by }),
        Message::PauseChild { paused: false } => Input::Request(Request::Resume { by }),
        Message::LockGranted { place, name } => Input::LockGranted { place, name },
        Message::Admitted => Input::Admitted,
        Message::Discarded { reason } => Input::Discarded { reason },
        Message::Superseded { by } => Input::Request(Request::Cancel {
            by: "its run queue".to_owned(),
            reason: format!("superseded by run {by}"),
            now: false,
        }),
        Message::StartChild(_)
        | Message::Acquire { .. }
        | Message::Release { .. }
        | Message::Enqueue(_)
        | Message::RunEnded { .. }
        | Message::Reenter(_) => return None,
    })
}

fn first_difference(live: &str, replayed: &str) -> String {
    let lines: Vec<(&str, &str)> = live.lines().zip(replayed.lines()).collect();
    match lines.iter().position(|(a, b)| a != b) {
        Some(place) => {
            let from = place.saturating_sub(12);
            let to = (place + 4).min(lines.len());
            let before: Vec<String> = lines[from..place].iter().map(|(a, _)| format!("    {a}")).collect();
            let after: Vec<String> =
                lines[place..to].iter().map(|(a, b)| format!("  live {a}\n  then {b}")).collect();
            format!("{}\n{}", before.join("\n"), after.join("\n"))
        }
        None => "one is longer".to_owned(),
    }
}
