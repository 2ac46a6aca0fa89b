//! What a run queue does about a message.

use std::sync::Arc;

use kapell_model::spec::StrategyMode;
use kapell_model::{RunId, RunStatus, limits};

use super::{Deciding, Entry, Kind, QueueEvent, Rule, Success, mode_number};
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
                blocks,
            }) => {
                if let Some(success) = success {
                    self.succeeded(success);
                }
                if let Some(backfill) = blocks {
                    self.hold_rest(backfill, *run);
                }
                self.ended(*run, *status, *by_person);
            }
            Some(Message::PaceAsked(run)) => self.pace_asked(*run),
            Some(Message::Outcome(outcome)) => self.outcome(outcome),
            Some(Message::Reenter(entry)) => self.reenter(&self.ruled(entry)),
            Some(Message::Active(runs)) => self.count(runs),
            Some(Message::BackfillHeld { backfill, hold }) => self.hold(backfill, hold.as_ref()),
            _ => {}
        }
    }

    /// An entry under the rule that counts for its workflow now.
    fn ruled(&self, entry: &Entry) -> Entry {
        Entry {
            rule: self.queue.settings.rule(Some(entry.rule)),
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
            created_at: entry.map_or(0, |entry| entry.created_at.0),
            again: entry.is_some_and(|entry| entry.again),
            backfill: entry
                .and_then(|entry| entry.backfill.as_deref())
                .unwrap_or_default()
                .to_owned(),
            ..QueueEvent::default()
        };
        self.happened(event);
    }

    pub(super) fn happened(&mut self, event: QueueEvent) {
        self.queue.apply(&event);
        self.out.events.push(event);
    }

    /// These are active, and no others went past the queue: from now on none does.
    fn count(&mut self, runs: &[RunId]) {
        if self.queue.counted {
            return;
        }
        for run in runs {
            if !self.queue.runs.contains_key(run) {
                self.emit(Kind::Found, *run, &"".into(), None);
            }
        }
        self.emit(Kind::Counted, RunId::default(), &"".into(), None);
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
        self.happened(QueueEvent {
            at: self.now.0,
            kind: Kind::Dropped as u32,
            run: run.to_bytes().to_vec(),
            key: key.to_string(),
            reason: reason.clone(),
            ..QueueEvent::default()
        });
        self.tell(run, Message::Discarded { reason });
    }

    pub(super) fn enqueue(&mut self, entry: &Entry) {
        if self.queue.runs.contains_key(&entry.run) {
            return;
        }
        if entry.inside {
            self.admitted(entry.run, &entry.key);
            return;
        }
        if entry.rule.quiet > 0 && entry.class == StartClass::Regular {
            let line = self.queue.lines.get(&entry.key);
            let burst = line.and_then(|line| line.burst.as_ref());
            let before = burst.map(|(before, _, _)| before.run);
            self.emit(Kind::Burst, entry.run, &entry.key, Some(entry));
            if let Some(before) = before {
                let reason = format!("debounced: run {} came after it", entry.run);
                self.discard(before, &entry.key, reason);
            }
            return;
        }
        self.arrive(entry);
    }

    /// A start that is not part of a burst, or is the last of one.
    pub(super) fn arrive(&mut self, entry: &Entry) {
        self.emit(Kind::Waits, entry.run, &entry.key, Some(entry));
        if entry.class != StartClass::Regular {
            return;
        }
        match entry.rule.mode {
            StrategyMode::Parallel
            | StrategyMode::Sequential
            | StrategyMode::StrictSequential
            | StrategyMode::SerialLatest => {}
            StrategyMode::FirstOnly => {
                let line = self.queue.lines.get(&entry.key);
                let active = line.and_then(|line| line.active.first().copied());
                if let Some(active) = active {
                    let reason = format!("first_only: run {active} is active");
                    self.discard(entry.run, &entry.key, reason);
                }
            }
            StrategyMode::LastOnly => {
                let line = self.queue.lines.get(&entry.key);
                let active: Vec<RunId> = line.map_or_else(Vec::new, |line| {
                    let free = |run: &&RunId| !line.kept.contains_key(run);
                    line.active.iter().filter(free).copied().collect()
                });
                for active in active {
                    self.tell(active, Message::Superseded { by: entry.run });
                }
            }
        }
        self.keep_one(&entry.key, entry.rule.mode);
    }

    /// Of the regular starts that wait in a line only one stays, under modes that drop the others: the
    /// newest, or under `first_only` the first. Those stand before what is never dropped.
    pub(super) fn keep_one(&mut self, key: &Arc<str>, mode: StrategyMode) {
        let Some(line) = self.queue.lines.get(key) else {
            return;
        };
        let waiting: Vec<RunId> = match mode {
            StrategyMode::Parallel | StrategyMode::Sequential | StrategyMode::StrictSequential => {
                return;
            }
            StrategyMode::FirstOnly | StrategyMode::LastOnly | StrategyMode::SerialLatest => line
                .waiting
                .iter()
                .filter(|entry| entry.class == StartClass::Regular)
                .map(|entry| entry.run)
                .collect(),
        };
        let (Some(first), Some(last)) = (waiting.first(), waiting.last()) else {
            return;
        };
        let (stays, reason) = match mode {
            StrategyMode::FirstOnly => (
                *first,
                format!("first_only: run {first} came before it, and waits"),
            ),
            StrategyMode::LastOnly => (*last, format!("last_only: run {last} is newer")),
            _ => (*last, format!("serial_latest: run {last} is newer")),
        };
        for run in waiting.iter().filter(|run| **run != stays) {
            self.discard(*run, key, reason.clone());
        }
    }

    /// Another rule counts for what has not started: of what waits it may keep less, and what failed
    /// blocks nobody where it says so.
    pub(super) fn ruled_anew(&mut self, rule: Rule) {
        if rule.mode != StrategyMode::StrictSequential {
            let blocking: Vec<_> = self.queue.index.blocking().clone().into_iter().collect();
            for (run, key) in blocking {
                self.emit(Kind::Unblocked, run, &key, None);
            }
        }
        if rule.discards() {
            let keys: Vec<Arc<str>> = self.queue.lines.keys().cloned().collect();
            for key in keys {
                self.keep_one(&key, rule.mode);
            }
        }
    }

    pub(super) fn ended(&mut self, run: RunId, status: RunStatus, by_person: bool) {
        let Some(key) = self.queue.runs.get(&run).cloned() else {
            return;
        };
        let line = self.queue.lines.get(&key);
        let strict = line.is_some_and(|line| {
            line.active.contains(&run)
                && line.mode == StrategyMode::StrictSequential
                && line.kept.get(&run) != Some(&StartClass::Backfill)
        });
        let blocks = line.is_some_and(|line| line.blocked == Some(run));
        if strict && matches!(status, RunStatus::Failed | RunStatus::TimedOut) && !by_person {
            self.happened(QueueEvent {
                at: self.now.0,
                kind: Kind::Blocks as u32,
                run: run.to_bytes().to_vec(),
                key: key.to_string(),
                timed_out: status == RunStatus::TimedOut,
                ..QueueEvent::default()
            });
        } else if blocks && by_person {
            // It was to start again, and somebody thought better of it.
            self.emit(Kind::Unblocked, run, &key, None);
        }
        self.emit(Kind::Ended, run, &key, None);
    }

    /// A retried run takes its old place under `strict_sequential`, else joins the end.
    pub(super) fn reenter(&mut self, entry: &Entry) {
        if self.queue.runs.contains_key(&entry.run) {
            return;
        }
        if entry.inside {
            self.admitted(entry.run, &entry.key);
            return;
        }
        let again = Entry {
            again: true,
            ..entry.clone()
        };
        self.emit(Kind::Waits, entry.run, &entry.key, Some(&again));
    }

    pub(super) fn bursts(&mut self) {
        while let Some((until, key)) = self.queue.index.burst()
            && *until <= self.now
        {
            self.out.looked += 1;
            let line = self.queue.lines.get(key);
            let Some((entry, _, _)) = line.and_then(|line| line.burst.clone()) else {
                return;
            };
            self.emit(Kind::Dropped, entry.run, &entry.key, None);
            self.arrive(&entry);
        }
    }

    /// Of a deleted workflow nothing starts any more: what waits is dropped, some at a time.
    pub(super) fn sweep(&mut self) {
        if !self.queue.settings.deleted {
            return;
        }
        for _ in 0..limits::QUEUE_SWEEP {
            let Some(key) = self
                .queue
                .turns
                .keys()
                .next()
                .and_then(|run| self.queue.runs.get(run))
                .cloned()
            else {
                return;
            };
            let line = self.queue.lines.get(&key);
            let Some(run) = line.and_then(|line| Some(line.waiting.front()?.run)) else {
                return;
            };
            self.discard(run, &key, "its workflow was deleted".to_owned());
        }
    }

    /// Admits what may start: in each line in order, and of several lines who came first.
    pub(super) fn admit(&mut self) {
        if self.queue.settings.stopped() || self.queue.settings.deleted {
            return;
        }
        loop {
            let (next, looked) = self.queue.index.next(self.queue.active);
            self.out.looked += looked;
            let line = next.and_then(|key| self.queue.lines.get(&key).map(|line| (key, line)));
            let Some((key, run)) =
                line.and_then(|(key, line)| Some((key, line.next(&self.queue.holds)?.run)))
            else {
                return;
            };
            self.emit(Kind::Admitted, run, &key, None);
            self.admitted(run, &key);
        }
    }
}
