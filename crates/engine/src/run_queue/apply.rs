//! Facts become the state of a run queue.

use std::sync::Arc;

use kapell_model::spec::StrategyMode;
use kapell_model::{RunId, Time, limits};

use super::event::{QueueEvent, entry_of};
use super::{Discard, Entry, Hold, Kind, Line, Rule, RunQueue, Success};
use crate::message::StartClass;

const SUCCEEDED: u32 = Kind::Succeeded as u32;
const SET: u32 = Kind::Set as u32;
const COUNTED: u32 = Kind::Counted as u32;
const HELD: u32 = Kind::Held as u32;
const FREED: u32 = Kind::Freed as u32;
const OUTCOME: u32 = Kind::Outcome as u32;

impl RunQueue {
    /// Makes the state that the event says.
    pub fn apply(&mut self, event: &QueueEvent) {
        self.last_at = Time(event.at);
        let run = crate::event::run_id(&event.run);
        let key: Arc<str> = event.key.as_str().into();
        match event.kind {
            SUCCEEDED => self.remember(Success {
                run,
                key,
                scheduled_at: Time(event.scheduled_at),
                ended_at: Time(event.at),
                params: event.params.clone(),
                outputs: event.outputs.clone(),
            }),
            OUTCOME => self.paces.apply(event),
            SET => self.apply_settings(event),
            COUNTED => self.counted = true,
            HELD | FREED => self.apply_hold(event),
            _ => {
                self.apply_to_line(event, run, &key);
                self.settle(&key);
            }
        }
    }

    fn apply_settings(&mut self, event: &QueueEvent) {
        self.settings = serde_json::from_slice(&event.settings).unwrap_or_default();
        if !event.rules {
            return;
        }
        let rule = entry_of(event, RunId::default(), &"".into()).rule;
        // From now on starts may go past the queue again.
        self.counted &= rule.is_bounded();
        for line in self.lines.values_mut() {
            line.ruled(rule);
        }
        self.settle_all();
    }

    fn apply_hold(&mut self, event: &QueueEvent) {
        let backfill: Arc<str> = event.backfill.as_str().into();
        if event.kind == HELD {
            let hold = Hold::read(&event.run, &event.by);
            self.holds.insert(backfill, hold);
        } else {
            self.holds.remove(&backfill);
        }
        self.settle_all();
    }

    fn settle_all(&mut self) {
        let keys: Vec<Arc<str>> = self.lines.keys().cloned().collect();
        for key in keys {
            self.settle(&key);
        }
    }

    fn apply_to_line(&mut self, event: &QueueEvent, run: RunId, key: &Arc<str>) {
        let leaves = matches!(event.kind, 2..=4);
        let waited = leaves && self.turns.remove(&run).is_some();
        let line = self.lines.entry(key.clone()).or_default();
        match event.kind {
            1 => {
                line.burst.take_if(|(entry, _, _)| entry.run == run);
                line.line_up(entry_of(event, run, key));
                self.turns.insert(run, self.next_turn);
                self.next_turn += 1;
                self.runs.insert(run, key.clone());
            }
            2 => {
                let mut class = StartClass::from_number(event.class);
                if let Some(entry) = line.take(run) {
                    line.mode = entry.rule.mode;
                    class = entry.class;
                }
                if class != StartClass::Regular {
                    line.kept.insert(run, class);
                }
                line.blocked.take_if(|blocked| *blocked == run);
                self.active += u32::from(line.active.insert(run));
                self.runs.insert(run, key.clone());
            }
            3 | 4 => {
                line.burst.take_if(|(entry, _, _)| entry.run == run);
                line.kept.remove(&run);
                if line.active.remove(&run) {
                    self.active -= 1;
                } else if waited {
                    line.take(run);
                }
                self.runs.remove(&run);
                if !event.reason.is_empty() {
                    self.discards.push_back(Discard {
                        run,
                        key: key.clone(),
                        reason: event.reason.as_str().into(),
                        at: Time(event.at),
                    });
                    if self.discards.len() > limits::QUEUE_DISCARDS {
                        self.discards.pop_front();
                    }
                }
            }
            5 => {
                line.blocked = Some(run);
                line.timed_out = event.timed_out;
            }
            6 => line.blocked = None,
            7 => {
                let at = Time(event.at);
                let began = line.burst.as_ref().map_or(at, |(_, began, _)| *began);
                let mut until = at.0.saturating_add(event.quiet);
                if event.longest > 0 {
                    until = until.min(began.0.saturating_add(event.longest));
                }
                line.burst = Some((entry_of(event, run, key), began, Time(until)));
                self.runs.insert(run, key.clone());
            }
            10 => {
                self.active += u32::from(line.active.insert(run));
                self.runs.insert(run, key.clone());
            }
            _ => {}
        }
    }

    /// What is looked up in a line is as the line is.
    pub(super) fn settle(&mut self, key: &Arc<str>) {
        if self.lines.get(key).is_some_and(Line::is_empty) {
            self.lines.remove(key);
        }
        let marks = self
            .lines
            .get(key)
            .map(|line| line.marks(&self.turns, &self.holds));
        self.index.set(key, marks.unwrap_or_default());
    }

    fn remember(&mut self, success: Success) {
        self.successes.insert(success.key.clone(), success);
        if self.successes.len() > limits::LAST_SUCCESSES {
            let oldest = self
                .successes
                .values()
                .min_by_key(|success| (success.ended_at, success.key.clone()))
                .map(|success| success.key.clone());
            if let Some(oldest) = oldest {
                self.successes.remove(&oldest);
            }
        }
    }
}

impl Line {
    /// Takes a run out of those that wait: mostly the first of them.
    fn take(&mut self, run: RunId) -> Option<Entry> {
        if self.waiting.front().is_some_and(|entry| entry.run == run) {
            return self.waiting.pop_front();
        }
        let place = self.waiting.iter().position(|entry| entry.run == run)?;
        self.waiting.remove(place)
    }

    /// Puts a start where it belongs among those that wait: each behind what came before it, but
    /// catch-up among its kind by due time, and backfill behind all others. Under modes that discard,
    /// regular starts go before both, which start when nothing else is there. A run that starts again
    /// under `strict_sequential` takes its old place: the very first, if the others wait for it.
    fn line_up(&mut self, entry: Entry) {
        let discards = entry.rule.discards();
        let old = entry.again && entry.rule.mode == StrategyMode::StrictSequential;
        let first = old && self.blocked == Some(entry.run);
        let behind = |other: &Entry| match (entry.class, other.class) {
            _ if first => true,
            (StartClass::Backfill, StartClass::Backfill) if old => {
                other.created_at > entry.created_at
            }
            (StartClass::Backfill, _) => false,
            (_, StartClass::Backfill) => true,
            _ if old => other.created_at > entry.created_at,
            (StartClass::Regular, StartClass::Regular) => false,
            (StartClass::Regular, _) => discards,
            (StartClass::Catchup, StartClass::Catchup) => other.scheduled_at > entry.scheduled_at,
            (StartClass::Catchup, _) => false,
        };
        let before = self.waiting.iter().rev().take_while(|other| behind(other));
        let place = self.waiting.len() - before.count();
        self.waiting.insert(place, entry);
    }

    /// Another rule counts for what has not started.
    fn ruled(&mut self, rule: Rule) {
        for entry in &mut self.waiting {
            entry.rule = rule;
        }
        if let Some((entry, _, _)) = &mut self.burst {
            entry.rule = Rule {
                quiet: entry.rule.quiet,
                longest: entry.rule.longest,
                ..rule
            };
        }
        if rule.discards() {
            self.waiting
                .make_contiguous()
                .sort_by_key(|entry| entry.class);
        }
        // What is active blocks nobody where no failure does.
        if rule.mode != StrategyMode::StrictSequential
            && self.mode == StrategyMode::StrictSequential
        {
            self.mode = rule.mode;
        }
    }

    fn is_empty(&self) -> bool {
        self.active.is_empty()
            && self.waiting.is_empty()
            && self.blocked.is_none()
            && self.burst.is_none()
    }
}
