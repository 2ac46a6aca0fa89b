//! The smallest world an engine can live in: runs, run queues and locks that pass messages, workers
//! that do what the script says, and a clock that jumps to whatever happens next.

mod checks;
mod people;
mod starts;
mod topics;
mod triggers;
mod workers;

use crate::page::Scenario;
use crate::script::{Attempt, Command, Script};
use crate::timeline::{After, Timeline};
use jiff::SignedDuration;
use kapell_api::task::{Place, Report};
use kapell_engine::chunk;
use kapell_engine::event::Event;
use kapell_engine::lock::Lock;
use kapell_engine::run::grant::Offers;
use kapell_engine::run::ready::Pick;
use kapell_engine::run::room::{Room, Seat};
use kapell_engine::run_queue::RunQueue;
use kapell_engine::{Decision, Effect, Input, Message, Plan, Ref, Refusal, Run, SmallInput};
use kapell_expr::Value;
use kapell_model::{EntityKey, Offer, RunId, SessionId, Time, limits};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

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
    topics: BTreeMap<Arc<str>, topics::Both>,
    triggers: BTreeMap<EntityKey, triggers::Both>,
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
    /// Every chunk that was appended, with whose it is: `run ID`, `lock NAME`,
    /// `queue WORKFLOW`, `topic NAME`.
    chunks: Vec<(String, Vec<u8>)>,
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
    number: u32,
    path: String,
    started_at: Time,
    attempt: Attempt,
    takes_worker: bool,
}

impl World {
    /// Runs a scenario to its end and gives its timeline.
    pub(crate) fn run(scenario: &Scenario, memory: Memory) -> Result<String, String> {
        Self::lived(scenario, memory).map(|world| world.timeline.text())
    }

    /// Runs a scenario to its end and gives all that was appended, in order.
    #[allow(dead_code, reason = "the golden histories are made by it")]
    pub(crate) fn history(scenario: &Scenario) -> Result<Vec<(String, Vec<u8>)>, String> {
        Self::lived(scenario, Memory::Kept).map(|world| world.chunks)
    }

    fn lived(scenario: &Scenario, memory: Memory) -> Result<Self, String> {
        let script = Script::read(&scenario.script)?;
        let mut plans = BTreeMap::new();
        let mut first = None;
        for (number, text) in scenario.workflows.iter().enumerate() {
            let file = format!("workflow {}", number + 1);
            let parsed = kapell_model::parse(&file, text);
            let Some(spec) = parsed.spec else {
                let color = kapell_model::Color::Never;
                return Err(kapell_model::render(
                    &file,
                    text,
                    &parsed.diagnostics,
                    color,
                ));
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
            topics: BTreeMap::new(),
            triggers: BTreeMap::new(),
            messages: VecDeque::new(),
            agenda: BTreeMap::new(),
            order: 0,
            flying: BTreeMap::new(),
            tries: BTreeMap::new(),
            blobs: BTreeMap::new(),
            pages: BTreeMap::new(),
            offers: Offers {
                next: Offer {
                    epoch: 1,
                    counter: 1,
                },
            },
            timeline: Timeline::default(),
            chunks: Vec::new(),
            script,
        };
        for command in world.script.commands.clone() {
            world.plan_for(BEGIN.plus(command.at), Happening::Command(command));
        }
        world.live()?;
        world.check()?;
        Ok(world)
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
            let queues = self
                .queues
                .values()
                .filter_map(|(queue, _)| queue.wake_at());
            let agenda = self.agenda.keys().next().map(|(at, _)| *at);
            let triggers = self.triggers.values().filter_map(triggers::wake_at);
            let all = timers.chain(locks).chain(queues).chain(agenda);
            let Some(next) = all.chain(triggers).min() else {
                break;
            };
            if let Some(until) = self.script.until.filter(|until| next > BEGIN.plus(*until)) {
                self.now = self.now.max(BEGIN.plus(until));
                break;
            }
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
        if let Some((key, _)) = self
            .agenda
            .first_key_value()
            .filter(|((at, _), _)| *at <= self.now)
        {
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
        let queue = self
            .queues
            .iter()
            .find(|(_, (queue, _))| due(queue.wake_at()));
        if let Some(name) = queue.map(|(name, _)| name.clone()) {
            self.queue(&name, None);
            return Ok(true);
        }
        if let Some(key) = self.due_trigger() {
            let _ = self.trigger(&key, SmallInput::Wake);
            return Ok(true);
        }
        if let Some(name) = self.due_topic() {
            self.topic(&name, SmallInput::Wake);
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
        self.runs
            .iter()
            .position(|slot| slot.run.state.meta.id == id)
    }

    // ---- messages ----

    fn deliver(&mut self, to: EntityKey, message: Message) -> Result<(), String> {
        if let Message::StartChild(child) = message {
            return self.start_child(*child);
        }
        if let Message::StartTriggered(start) = message {
            return self.start_triggered(start);
        }
        match to {
            EntityKey::Lock { name, .. } => self.lock(&name, Some(&message)),
            EntityKey::RunQueue { workflow, .. } => self.queue(&workflow, Some(&message)),
            EntityKey::Channel { name, .. } => self.told(&name, &message),
            EntityKey::Topic { name, .. } => {
                self.topic(&name, SmallInput::Message(Box::new(message)));
            }
            EntityKey::Trigger { .. } | EntityKey::Backfill { .. } => {
                let _ = self.trigger(&to, SmallInput::Message(Box::new(message)));
            }
            EntityKey::Run(id) => {
                let index = self
                    .index(id)
                    .ok_or_else(|| format!("no run hears {message:?}"))?;
                if let Some(input) = Input::of(message) {
                    // What comes too late is refused; nobody asks again.
                    let _ = self.input(index, input)?;
                }
            }
        }
        Ok(())
    }

    /// Somebody outside hears of a run.
    fn told(&mut self, channel: &str, message: &Message) {
        if let Message::Notice(notice) = message
            && let Some(content) = notice.content.as_map()
        {
            let text = |name: &str| {
                content
                    .get(name)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            let run = text("run").parse().unwrap_or_default();
            let told = format!("is told: {}", text("text"));
            self.timeline.say(self.now.since(BEGIN), run, channel, told);
        }
    }

    fn lock(&mut self, name: &Arc<str>, message: Option<&Message>) {
        let (lock, replayed) = self.locks.entry(name.clone()).or_default();
        let decided = lock.decide(name, message, self.now);
        let chunk = chunk::encode(&decided.events);
        for event in chunk::decode(&chunk).unwrap_or_default() {
            replayed.apply(&event);
        }
        if !chunk.is_empty() {
            self.chunks.push((format!("lock {name}"), chunk));
        }
        self.messages.extend(decided.messages);
    }

    fn queue(&mut self, name: &Arc<str>, message: Option<&Message>) {
        let (queue, replayed) = self.queues.entry(name.clone()).or_default();
        let decided = queue.decide(message, self.now);
        let chunk = chunk::encode(&decided.events);
        for event in chunk::decode(&chunk).unwrap_or_default() {
            replayed.apply(&event);
        }
        if !chunk.is_empty() {
            self.chunks.push((format!("queue {name}"), chunk));
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
                Err(Refusal::Reject(error)) => return Ok(Some(refused(&error))),
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
            run.loaded(
                &need,
                bytes.ok_or_else(|| format!("{need:?} was never stored"))?,
            )?;
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
        let chunk = chunk::encode(&decision.events);
        let events: Vec<Event> = chunk::decode(&chunk).map_err(|error| error.to_string())?;
        if !chunk.is_empty() {
            self.chunks.push((format!("run {id}"), chunk));
        }
        let at = self.now.since(BEGIN);
        let Slot { run, replayed } = &mut self.runs[index];
        for event in events {
            replayed.apply(&run.plan, &event);
            let after = After {
                run: id,
                state: replayed,
                plan: &run.plan,
            };
            self.timeline.event(at, &event, &after);
        }
        for effect in decision.effects {
            match effect {
                Effect::Offer(tasks) => {
                    for task in &tasks {
                        self.begin(index, task);
                    }
                }
                Effect::Stop(attempts) => {
                    for (place, offer) in attempts {
                        self.stop((id, place), offer);
                    }
                }
                Effect::Send(to, message) => self.messages.push_back((to, message)),
                Effect::Finished => self.messages.extend(self.runs[index].run.end_signal()),
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
            let busy = self
                .flying
                .values()
                .filter(|flying| flying.takes_worker)
                .count();
            let process = self
                .workers
                .map_or(usize::MAX, |workers| workers.saturating_sub(busy));
            let mut room = Room {
                seats: vec![Seat::unmeasured(SessionId(1), process, usize::MAX)],
                ..Room::default()
            };
            let run = &mut self.runs[index].run;
            let (granted, decision) = run.grant(
                (&queue, Pick::All),
                limits::GRANT_BATCH,
                &mut room,
                self.now,
                &mut self.offers,
            );
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
}

/// A refusal as timelines show it.
fn refused(error: &kapell_model::Error) -> String {
    match &error.hint {
        Some(hint) => format!("{} ({hint})", error.message),
        None => error.message.clone(),
    }
}
