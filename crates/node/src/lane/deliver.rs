//! Inputs reach entities, and what they decide becomes part of the open batch.

use kapell_engine::{Decided, Decision, Effect, Ref, Refusal, SmallInput};
use kapell_model::{EntityKey, Error, ErrorCode};

use crate::entity::Entity;
use crate::request::{Answer, ReplyId};

use super::{Lane, Output, Slot, ToEntity, Waiting, looks_at_queue};

impl Lane {
    /// Lets an entity in memory decide.
    pub(super) fn deliver(&mut self, key: &EntityKey, input: ToEntity, holds: bool) {
        let now = self.now;
        if matches!(key, EntityKey::RunQueue { .. }) && self.must_count(key, &input) {
            self.count(key, input, holds);
            return;
        }
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        slot.touched_at = now;
        match (&mut slot.entity, input) {
            (Entity::Run(_), ToEntity::Join) => {
                if let EntityKey::Run(id) = key {
                    self.join_run(*id);
                }
            }
            (Entity::Run(_), ToEntity::View(reply)) => {
                self.tell_held_up(key);
                self.deliver_run(key, ToEntity::View(reply), holds);
            }
            (Entity::Run(_), input) => self.deliver_run(key, input, holds),
            (Entity::Queue(_), ToEntity::Then(key, input)) => self.submit(key, *input, holds),
            (Entity::Queue(_), ToEntity::Create(making)) => self.start(*making),
            (_, input) => self.deliver_small(key, input),
        }
    }

    /// An entity that is no run decides.
    fn deliver_small(&mut self, key: &EntityKey, input: ToEntity) {
        let now = self.now;
        let reply = input.reply();
        let input = match input {
            ToEntity::Message(message) => SmallInput::Message(message),
            ToEntity::Ask(_, ask) => SmallInput::Ask(ask),
            _ => SmallInput::Wake,
        };
        let small = self
            .slots
            .get_mut(key)
            .and_then(|slot| slot.entity.small_mut());
        let Some(small) = small else { return };
        match small.decide(key, input, now) {
            Ok(decided) => self.small_decided(key, decided, reply),
            Err(error) => {
                if let Some(reply) = reply {
                    self.reply(reply, Err(error));
                }
            }
        }
    }

    pub(super) fn small_decided(
        &mut self,
        key: &EntityKey,
        decided: Decided,
        reply: Option<ReplyId>,
    ) {
        if !decided.chunk.is_empty() {
            self.append(key, &decided.chunk);
        }
        self.open.activated.extend(decided.activated);
        self.settle_timer(key);
        for (to, message) in decided.messages {
            self.send(key.shard(), to, message);
        }
        if let Some(reply) = reply {
            self.reply(reply, Ok(Answer::Value(decided.answer)));
        }
    }

    pub(super) fn append(&mut self, key: &EntityKey, chunk: &[u8]) {
        self.open.bytes += chunk.len();
        let touched = self.open.touched.entry(key.clone()).or_default();
        touched.chunk.extend_from_slice(chunk);
    }

    pub(super) fn deliver_run(&mut self, key: &EntityKey, input: ToEntity, holds: bool) {
        let now = self.now;
        let Some(Slot {
            entity: Entity::Run(run),
            ..
        }) = self.slots.get(key)
        else {
            return;
        };
        if let Some(queue) = looks_at_queue(run, &input)
            && (!self.slots.contains_key(&queue)
                || self.counting.contains_key(&queue)
                || self.retry_must_count(&queue, key, &input))
        {
            self.submit(queue, ToEntity::Then(key.clone(), Box::new(input)), holds);
            return;
        }
        let Some(Slot {
            entity: Entity::Run(run),
            ..
        }) = self.slots.get_mut(key)
        else {
            return;
        };
        let mut reply = None;
        let kept = input.clone();
        let input = match input {
            ToEntity::Run(input) => *input,
            ToEntity::Wake => kapell_engine::Input::Wake,
            ToEntity::Request(id, request) => {
                reply = Some(id);
                if let Err(error) = self.may_retry(key, &request) {
                    self.reply(id, Err(error));
                    return;
                }
                kapell_engine::Input::Request(request)
            }
            ToEntity::View(id) => {
                let view = Box::new(run.view(now));
                self.reply(id, Ok(Answer::View(self.with_queue(view))));
                return;
            }
            ToEntity::ViewStep(id, step) => {
                let view = Box::new(run.view_of(&step, now));
                self.reply(id, Ok(Answer::View(view)));
                return;
            }
            ToEntity::Evaluate(id, step, expression) => {
                let value = run.evaluate(&step, &expression, now);
                self.reply(id, value.map(Answer::Value));
                return;
            }
            ToEntity::Message(message) => match kapell_engine::Input::of(*message) {
                Some(input) => input,
                None => return,
            },
            ToEntity::Create(making) => {
                self.met(&making, key);
                return;
            }
            ToEntity::Fork(id, forking) => {
                self.fork(id, key, &forking);
                return;
            }
            ToEntity::Dismiss(id) => {
                self.dismiss(id, key);
                return;
            }
            ToEntity::Then(..) | ToEntity::Ask(..) | ToEntity::Join => return,
        };
        self.decide_run(key, input, (kept, holds), reply);
    }

    /// Lets a run decide an input; what it was made of is given again if something must be loaded first.
    fn decide_run(
        &mut self,
        key: &EntityKey,
        input: kapell_engine::Input,
        (kept, holds): Waiting,
        reply: Option<ReplyId>,
    ) {
        let now = self.now;
        let Some(Slot {
            entity: Entity::Run(run),
            ..
        }) = self.slots.get_mut(key)
        else {
            return;
        };
        // A panic is a bug on this one entity: all others go on, from what is durable.
        let decided =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.decide(input, now)));
        if let Some(report) = kept.report()
            && !matches!(decided, Ok(Err(Refusal::Need(_))))
        {
            if matches!(decided, Ok(Err(Refusal::Stale))) && self.comes_early(report) {
                self.hold_back(report.clone());
            } else {
                self.taken(report.clone());
            }
        }
        let Ok(decided) = decided else {
            self.quarantine(key);
            if let Some(reply) = reply {
                let error = Error::new(ErrorCode::Internal, "Kapell broke a rule of its own");
                self.reply(reply, Err(error));
            }
            return;
        };
        match decided {
            Ok(decision) => {
                if let Some(reply) = reply {
                    self.reply(reply, Ok(Answer::Done));
                }
                self.absorb(key, decision);
            }
            Err(Refusal::Reject(error)) => {
                if let Some(reply) = reply {
                    self.reply(reply, Err(error));
                }
            }
            Err(Refusal::Need(needs)) => {
                self.ask(key, needs);
                if let Some(slot) = self.slots.get_mut(key) {
                    self.holds += usize::from(holds);
                    slot.waiting.push_front((kept, holds));
                }
            }
            Err(Refusal::Stale) => {}
        }
    }

    pub(super) fn ask(&mut self, key: &EntityKey, needs: Vec<Ref>) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        for need in needs {
            if !slot.asked.contains(&need) {
                slot.asked.push(need.clone());
                self.out.push(Output::LoadContent(key.clone(), need));
            }
        }
    }

    /// Makes a run's decision part of the open batch.
    pub(super) fn absorb(&mut self, key: &EntityKey, decision: Decision) {
        let EntityKey::Run(id) = *key else { return };
        if !decision.events.is_empty() || !decision.pages.is_empty() {
            let touched = self.open.touched.entry(key.clone()).or_default();
            let before = touched.chunk.len();
            kapell_engine::chunk::encode_into(&mut touched.chunk, &decision.events);
            touched.pages.extend(decision.pages);
            self.open.bytes += touched.chunk.len() - before;
        }
        self.open.blobs.extend(decision.blobs);
        for effect in decision.effects {
            match effect {
                Effect::Offer(tasks) => {
                    for task in &tasks {
                        self.held.hand_out(task, &mut self.seats);
                    }
                    self.open.offers.extend(tasks);
                }
                Effect::Stop(stops) => {
                    self.open
                        .stops
                        .extend(stops.into_iter().map(|(place, offer)| (id, place, offer)));
                }
                Effect::Send(to, message) => self.send(id.shard(), to, message),
                Effect::Finished => self.finished(key),
            }
        }
        let Some(slot) = self.slots.get(key) else {
            return;
        };
        let Entity::Run(run) = &slot.entity else {
            return;
        };
        self.demand.update(id, run, self.now);
        if !run.live.needs.is_empty() {
            let needs = run.live.needs.clone();
            self.ask(key, needs);
        } else if run.unsettled() {
            self.again.push_back(key.clone());
        }
        self.settle_timer(key);
    }

    pub(super) fn settle_timer(&mut self, key: &EntityKey) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        // While something is loaded for it its timers wait: they count again once it is there.
        let waits = !slot.asked.is_empty() || self.counting.contains_key(key);
        let timer = slot.entity.timer_at().filter(|_| !waits);
        if timer == slot.timer.map(|(at, _)| at) {
            return;
        }
        if let Some(old) = slot.timer.take() {
            self.timers.remove(&old);
        }
        if let Some(at) = timer {
            self.timers_set += 1;
            let new = (at, self.timers_set);
            slot.timer = Some(new);
            self.timers.insert(new, key.clone());
        }
    }

    /// Goes on with entities whose deciding stopped at its bound.
    pub(super) fn run_again(&mut self) {
        self.post();
        while !self.is_full() {
            let Some(key) = self.again.pop_front() else {
                return;
            };
            self.submit(key, ToEntity::Wake, false);
            self.post();
        }
    }
}
