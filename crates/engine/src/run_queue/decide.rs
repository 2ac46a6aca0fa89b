//! What a run queue does about a message.

use std::collections::BTreeSet;
use std::sync::Arc;

use kapell_model::spec::StrategyMode;
use kapell_model::{RunId, RunStatus, limits};

use super::{Deciding, Entry, Kind, Line, QueueEvent, Success, mode_number};
use crate::message::{Message, StartClass};

impl Deciding<'_> {
    pub(super) fn hear(&mut self, message: Option<&Message>) {
        match message {
            Some(Message::Enqueue(entry)) => self.enqueue(&self.ruled(entry)),
            Some(Message::RunEnded {
                run,
                status,
                by_person,
                success,
            }) => {
                if let Some(success) = success {
                    self.succeeded(success);
                }
                self.ended(*run, *status, *by_person);
            }
            Some(Message::PaceAsked(run)) => self.pace_asked(*run),
            Some(Message::Outcome(outcome)) => self.outcome(outcome),
            Some(Message::Reenter(entry)) => self.reenter(&self.ruled(entry)),
            _ => {}
        }
    }

    /// An entry under the rule that counts for its workflow now.
    fn ruled(&self, entry: &Entry) -> Entry {
        let rule = self.queue.settings.rule(Some(entry.rule));
        Entry {
            rule: rule.unwrap_or(entry.rule),
            ..entry.clone()
        }
    }

    pub(super) fn emit(&mut self, kind: Kind, run: RunId, key: &Arc<str>, entry: Option<&Entry>) {
        let rule = entry.map(|entry| entry.rule).unwrap_or_default();
        let event = QueueEvent {
            at: self.now.0,
            kind: kind as u32,
            run: run.to_bytes().to_vec(),
            key: key.to_string(),
            mode: mode_number(rule.mode),
            limit: rule.limit,
            total: rule.total,
            quiet: rule.quiet,
            longest: rule.longest,
            inside: entry.is_some_and(|entry| entry.inside),
            class: entry.map_or(0, |entry| entry.class as u32),
            scheduled_at: entry
                .filter(|entry| entry.class != StartClass::Regular)
                .map_or(0, |entry| entry.scheduled_at.0),
            ..QueueEvent::default()
        };
        self.queue.apply(&event);
        self.out.events.push(event);
    }

    /// Runs of one line may end in another order than that of their due times: the watermark never
    /// goes back.
    pub(super) fn succeeded(&mut self, success: &Success) {
        let last = self.queue.successes.get(&success.key);
        if last.is_some_and(|last| last.scheduled_at > success.scheduled_at) {
            return;
        }
        let event = QueueEvent {
            at: self.now.0,
            kind: Kind::Succeeded as u32,
            run: success.run.to_bytes().to_vec(),
            key: success.key.to_string(),
            scheduled_at: success.scheduled_at.0,
            params: success.params.clone(),
            outputs: success.outputs.clone(),
            ..QueueEvent::default()
        };
        self.queue.apply(&event);
        self.out.events.push(event);
    }

    pub(super) fn admitted(&mut self, run: RunId, key: &str) {
        let last_success = self.queue.last_success(key);
        self.tell(run, Message::Admitted { last_success });
    }

    pub(super) fn tell(&mut self, run: RunId, message: Message) {
        self.out.messages.push((run.into(), message));
    }

    pub(super) fn discard(&mut self, run: RunId, key: &Arc<str>, reason: String) {
        self.emit(Kind::Dropped, run, key, None);
        self.tell(run, Message::Discarded { reason });
    }

    /// A copy: not for lines in which many wait.
    pub(super) fn line(&self, key: &str) -> Line {
        self.queue.lines.get(key).cloned().unwrap_or_default()
    }

    pub(super) fn enqueue(&mut self, entry: &Entry) {
        if self.queue.runs.contains_key(&entry.run) {
            return;
        }
        if entry.inside {
            self.admitted(entry.run, &entry.key);
            return;
        }
        if self.queue.runs.len() >= limits::RUN_QUEUE {
            let reason = format!("more than {} runs wait", limits::RUN_QUEUE);
            self.tell(entry.run, Message::Discarded { reason });
            return;
        }
        if entry.rule.quiet > 0 && entry.class == StartClass::Regular {
            let before = self
                .queue
                .lines
                .get(&entry.key)
                .and_then(|line| line.burst.clone());
            self.emit(Kind::Burst, entry.run, &entry.key, Some(entry));
            if let Some((before, _, _)) = before {
                let reason = format!("debounced: run {} came after it", entry.run);
                self.emit(Kind::Dropped, before.run, &entry.key, None);
                self.tell(before.run, Message::Discarded { reason });
            }
            return;
        }
        self.arrive(entry);
    }

    /// A start that is not part of a burst, or is the last of one.
    pub(super) fn arrive(&mut self, entry: &Entry) {
        if entry.class != StartClass::Regular {
            self.emit(Kind::Waits, entry.run, &entry.key, Some(entry));
            return;
        }
        let regular = |entry: &&Entry| entry.class == StartClass::Regular;
        match entry.rule.mode {
            StrategyMode::Parallel | StrategyMode::Sequential | StrategyMode::StrictSequential => {}
            StrategyMode::FirstOnly => {
                let line = self.line(&entry.key);
                let other = line
                    .active
                    .first()
                    .copied()
                    .or_else(|| line.waiting.iter().find(regular).map(|entry| entry.run));
                if let Some(other) = other {
                    let reason = format!("first_only: run {other} is active");
                    self.emit(Kind::Dropped, entry.run, &entry.key, None);
                    self.tell(entry.run, Message::Discarded { reason });
                    return;
                }
            }
            StrategyMode::LastOnly => {
                let line = self.line(&entry.key);
                // Whoever waits under this mode has already told the active run. Told twice it would
                // leave out its `finally`.
                let told = line
                    .waiting
                    .iter()
                    .filter(regular)
                    .any(|entry| entry.rule.mode == StrategyMode::LastOnly);
                for active in line.active.into_iter().filter(|_| !told) {
                    if !line.kept.contains_key(&active) {
                        self.tell(active, Message::Superseded { by: entry.run });
                    }
                }
                self.discard_waiting(&entry.key, "last_only", entry.run);
            }
            StrategyMode::SerialLatest => {
                self.discard_waiting(&entry.key, "serial_latest", entry.run);
            }
        }
        self.emit(Kind::Waits, entry.run, &entry.key, Some(entry));
    }

    pub(super) fn discard_waiting(&mut self, key: &Arc<str>, mode: &str, newer: RunId) {
        for waiting in self.line(key).waiting {
            if waiting.class == StartClass::Regular {
                self.discard(waiting.run, key, format!("{mode}: run {newer} is newer"));
            }
        }
    }

    pub(super) fn ended(&mut self, run: RunId, status: RunStatus, by_person: bool) {
        let Some(key) = self.queue.runs.get(&run).cloned() else {
            return;
        };
        let strict = self.queue.lines.get(&key).is_some_and(|line| {
            line.active.contains(&run)
                && line.mode == StrategyMode::StrictSequential
                && line.kept.get(&run) != Some(&StartClass::Backfill)
        });
        if strict && matches!(status, RunStatus::Failed | RunStatus::TimedOut) && !by_person {
            self.emit(Kind::Blocks, run, &key, None);
        }
        self.emit(Kind::Ended, run, &key, None);
    }

    /// A retried run takes the place that it blocks, or joins the end.
    pub(super) fn reenter(&mut self, entry: &Entry) {
        if self.queue.runs.contains_key(&entry.run) {
            return;
        }
        let line = self.queue.lines.get(&entry.key);
        let blocked = line.and_then(|line| line.blocked);
        if entry.inside || blocked == Some(entry.run) {
            if !entry.inside {
                let kept = (entry.class != StartClass::Regular).then_some(entry);
                self.emit(Kind::Admitted, entry.run, &entry.key, kept);
            }
            self.admitted(entry.run, &entry.key);
        } else {
            self.emit(Kind::Waits, entry.run, &entry.key, Some(entry));
        }
    }

    pub(super) fn bursts(&mut self) {
        let over: Vec<Entry> = self
            .queue
            .lines
            .values()
            .filter_map(|line| line.burst.as_ref())
            .filter(|(_, _, until)| *until <= self.now)
            .map(|(entry, _, _)| entry.clone())
            .collect();
        for entry in over {
            self.emit(Kind::Dropped, entry.run, &entry.key, None);
            self.arrive(&entry);
        }
    }

    /// Admits what may start: in each line in order, and of several lines who came first.
    pub(super) fn admit(&mut self) {
        if self.queue.settings.stopped() {
            return;
        }
        let queue = &*self.queue;
        let mut first: BTreeSet<(u64, Arc<str>)> = queue
            .lines
            .iter()
            .filter_map(|(key, line)| queue.turn(key, line))
            .collect();
        while let Some((_, key)) = first.pop_first() {
            let Some(line) = self.queue.lines.get(&key) else {
                continue;
            };
            let Some(entry) = line.waiting.front() else {
                continue;
            };
            let rule = entry.rule;
            let run = entry.run;
            let full = rule.limit > 0 && line.active.len() >= rule.limit as usize
                || rule.total > 0 && self.queue.active >= rule.total
                || line.blocked.is_some() && rule.mode == StrategyMode::StrictSequential;
            if full {
                continue;
            }
            self.emit(Kind::Admitted, run, &key, None);
            self.admitted(run, &key);
            first.extend(
                self.queue
                    .lines
                    .get(&key)
                    .and_then(|line| self.queue.turn(&key, line)),
            );
        }
    }
}
