//! What must hold whatever happens.

use super::{BEGIN, Slot, World};
use kapell_engine::run::Holding;
use kapell_engine::run::waiting::Waiting;
use kapell_engine::topic::Topic;
use kapell_engine::{Input, Run};
use kapell_model::Offer;

impl World {
    /// Another owner goes on from history. True if that made something happen.
    pub(super) fn take_over(&mut self) -> Result<bool, String> {
        let next = self.now;
        self.offers.next = Offer {
            epoch: self.offers.next.epoch + 1,
            counter: 1,
        };
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
                .map(|((_, place), flying)| Holding {
                    place: *place,
                    offer: flying.offer,
                    attempt: flying.number,
                    spot: false,
                })
                .collect();
            let _ = self.input(
                index,
                Input::SessionsEnded {
                    epoch,
                    held,
                    unheard: Vec::new(),
                },
            )?;
            let _ = self.input(index, Input::Wake)?;
        }
        for (lock, replayed) in self.locks.values_mut() {
            *lock = replayed.clone();
        }
        for (queue, replayed) in self.queues.values_mut() {
            *queue = replayed.clone();
        }
        for (topic, replayed) in self.topics.values_mut() {
            *topic = replayed.clone();
        }
        for (trigger, replayed) in self.triggers.values_mut() {
            *trigger = replayed.clone();
        }
        let due = !self.messages.is_empty()
            || self
                .agenda
                .first_key_value()
                .is_some_and(|((at, _), _)| *at <= next)
            || self.runs.iter().any(|slot| slot.run.unsettled());
        Ok(due)
    }

    pub(super) fn say_what_waits(&mut self) {
        for index in 0..self.runs.len() {
            let run = &self.runs[index].run;
            if !run.state.ended() {
                let (id, status) = (run.state.meta.id, run.state.status);
                self.timeline
                    .say(self.now.since(BEGIN), id, "run", format!("stays {status}"));
                self.why(index);
            }
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        for (index, slot) in self.runs.iter().enumerate() {
            let run = &slot.run;
            // What is to be decided next may hold entries of which deciding found nothing to do.
            let (mut live, mut replayed) = (run.state.clone(), slot.replayed.clone());
            live.todo.clear();
            replayed.todo.clear();
            if live.snapshot() != replayed.snapshot() {
                return Err(format!(
                    "run #{}: replaying its events gives another state\n{}",
                    index + 1,
                    first_difference(&format!("{live:#?}"), &format!("{replayed:#?}"))
                ));
            }
            let unopened = slot.replayed.snapshot();
            let again = kapell_engine::run::State::from_snapshot(&unopened)?;
            if again.snapshot() != unopened {
                return Err(format!(
                    "run #{}: its snapshot does not survive a round trip",
                    index + 1
                ));
            }
            if run.state.ended() && !run.state.waits.is_empty() {
                return Err(format!("run #{} has ended and still waits", index + 1));
            }
            if run.state.ended() && !(run.state.locks.is_empty() && run.state.ready.is_empty()) {
                return Err(format!(
                    "run #{} has ended and still holds something",
                    index + 1
                ));
            }
        }
        for (name, (lock, replayed)) in &self.locks {
            if lock != replayed {
                return Err(format!(
                    "lock `{name}`: {lock:?} and, replayed, {replayed:?}"
                ));
            }
        }
        for (name, (topic, replayed)) in &self.topics {
            if topic.snapshot() != replayed.snapshot() {
                return Err(format!(
                    "topic `{name}`: {topic:?} and, replayed, {replayed:?}"
                ));
            }
            self.check_listeners(name, topic)?;
        }
        for (key, (trigger, replayed)) in &self.triggers {
            if trigger.to_bytes() != replayed.to_bytes() {
                return Err(format!("{key:?}: {trigger:?} and, replayed, {replayed:?}"));
            }
        }
        for (name, (queue, replayed)) in &self.queues {
            if queue != replayed {
                return Err(format!(
                    "run queue of `{name}`: {queue:?} and, replayed, {replayed:?}"
                ));
            }
        }
        Ok(())
    }
}

impl World {
    /// Who listens to a topic is who waits for its signals, and nobody waits for one that is kept.
    fn check_listeners(&self, name: &str, topic: &Topic) -> Result<(), String> {
        let mut waiting = 0;
        for slot in &self.runs {
            let state = &slot.run.state;
            for (place, waits) in &state.waits {
                if matches!(waits, Waiting::Signal { signal, .. } if **signal == *name) {
                    waiting += 1;
                    if !topic.tells(&state.meta.id.into(), Some(*place)) {
                        return Err(format!("`{name}` does not tell {}", state.meta.id));
                    }
                }
            }
        }
        let triggers = self.triggers.keys();
        waiting += triggers.filter(|key| topic.tells(key, None)).count();
        let listeners = topic.listeners();
        if listeners != waiting {
            return Err(format!(
                "{listeners} listen to `{name}` and {waiting} wait for it"
            ));
        }
        Ok(())
    }
}

fn first_difference(live: &str, replayed: &str) -> String {
    let lines: Vec<(&str, &str)> = live.lines().zip(replayed.lines()).collect();
    match lines.iter().position(|(a, b)| a != b) {
        Some(place) => {
            let from = place.saturating_sub(12);
            let to = (place + 4).min(lines.len());
            let before: Vec<String> = lines[from..place]
                .iter()
                .map(|(a, _)| format!("    {a}"))
                .collect();
            let after: Vec<String> = lines[place..to]
                .iter()
                .map(|(a, b)| format!("  live {a}\n  then {b}"))
                .collect();
            format!("{}\n{}", before.join("\n"), after.join("\n"))
        }
        None => "one is longer".to_owned(),
    }
}
