//! What strategies and locks promise, checked from their histories alone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use kapell_engine::lock::{Lock, LockEvent};
use kapell_engine::message::StartClass;
use kapell_engine::run_queue::{Entry, QueueEvent, Rule, RunQueue};
use kapell_model::spec::{Strategy, StrategyMode};
use kapell_model::{EntityKey, RunId, RunStatus, Time};

use super::{Checks, Verdict, wrong};

/// The order in which runs of a queue came, by line.
#[derive(Debug, Default)]
pub(super) struct Order {
    waiting: BTreeMap<Arc<str>, VecDeque<Waits>>,
    newest: BTreeMap<Arc<str>, RunId>,
    /// Another strategy went before that of its versions, or it was deleted: what was to wait by one
    /// rule may be dropped by another.
    changed: bool,
    /// A run came under `strict_sequential`, or what waited was to go by it.
    strict: bool,
}

/// The number of `strict_sequential` in events.
const STRICT: u32 = 2;

/// A run that waits, with what says when its turn is.
#[derive(Debug)]
struct Waits {
    run: RunId,
    class: StartClass,
    scheduled_at: i64,
    created_at: i64,
}

/// Puts a start in its place. Of a backfill it comes after all others. One that was missed comes after
/// regular ones where those would be discarded, and among its like in the order of due times.
fn line_up(waiting: &mut VecDeque<Waits>, new: Waits, discards: bool) {
    let before = |other: &Waits| match (new.class, other.class) {
        (StartClass::Backfill, _)
        | (StartClass::Regular | StartClass::Catchup, StartClass::Regular) => true,
        (_, StartClass::Backfill) => false,
        (StartClass::Regular, StartClass::Catchup) => !discards,
        (StartClass::Catchup, StartClass::Catchup) => other.scheduled_at <= new.scheduled_at,
    };
    let place = waiting.iter().rposition(before).map_or(0, |last| last + 1);
    waiting.insert(place, new);
}

/// Of the numbers of modes, as the run queue stores them, the last three discard.
fn discards(mode: u32) -> bool {
    mode >= 3
}

impl Order {
    /// True if a failed run may ever have blocked others.
    pub(super) fn was_strict(&self) -> bool {
        self.strict
    }

    /// Looks at an event before it is applied.
    /// With `several` versions the strategy of a newer one may drop runs of an older.
    pub(super) fn before(
        &mut self,
        queue: &RunQueue,
        event: &QueueEvent,
        several: bool,
    ) -> Verdict {
        let bytes: [u8; 16] = event.run.as_slice().try_into().unwrap_or_default();
        let run = RunId::from_bytes(bytes);
        let key: Arc<str> = event.key.as_str().into();
        let line = queue.lines.get(&key);
        let waiting = self.waiting.entry(key.clone()).or_default();
        self.strict |= event.mode == STRICT && (event.kind == 1 || event.rules);
        match event.kind {
            1 => {
                let class = StartClass::from_number(event.class);
                let new = Waits {
                    run,
                    class,
                    scheduled_at: event.scheduled_at,
                    created_at: event.created_at,
                };
                let blocks = line.is_some_and(|line| line.blocked == Some(run));
                if !event.again || event.mode != STRICT {
                    line_up(waiting, new, discards(event.mode));
                } else if blocks {
                    waiting.push_front(new);
                } else {
                    let made_later = |other: &&Waits| other.created_at > event.created_at;
                    let later = waiting.iter().rev().take_while(made_later).count();
                    waiting.insert(waiting.len() - later, new);
                }
                if class == StartClass::Regular {
                    self.newest.insert(key, run);
                }
            }
            2 => {
                let settings = &queue.settings;
                if settings.stopped() || settings.deleted {
                    let detail = format!("{run} starts although nothing may: {settings:?}");
                    return wrong("paused", detail);
                }
                let blocked = line.and_then(|line| line.blocked);
                if let Some(blocked) = blocked.filter(|blocked| *blocked != run) {
                    let strict = line
                        .and_then(|line| line.waiting.iter().find(|entry| entry.run == run))
                        .is_some_and(|entry| entry.rule.mode == StrategyMode::StrictSequential);
                    if strict {
                        return wrong(
                            "strict",
                            format!("{run} starts although {blocked} blocks its line"),
                        );
                    }
                }
                // Those of a backfill that starts nothing stand still, and others go past them.
                let next = waiting.iter().position(|next| !queue.is_held(next.run));
                let first = next.and_then(|next| waiting.get(next));
                if first.map(|first| first.run) != Some(run) {
                    return wrong("order", format!("{run} starts before {first:?}"));
                }
                waiting.remove(next.unwrap_or_default());
                let active = line.map_or(0, |line| line.active.len());
                let entry =
                    line.and_then(|line| line.waiting.iter().find(|entry| entry.run == run));
                let Some(entry) = entry else {
                    return wrong("order", format!("{run} starts without having waited"));
                };
                let limit = settings.rule(Some(entry.rule)).limit as usize;
                if limit > 0 && active >= limit {
                    return wrong("limit", format!("{run} starts beside {active} of {limit}"));
                }
            }
            3 | 4 => waiting.retain(|other| other.run != run),
            9 => {
                self.changed |= event.rules || queue.settings.deleted;
                if event.rules && discards(event.mode) {
                    for waiting in self.waiting.values_mut() {
                        waiting.make_contiguous().sort_by_key(|other| other.class);
                    }
                }
            }
            _ => {}
        }
        self.changed |= queue.settings.deleted;
        if event.kind == 3 && !several && !self.changed {
            return self.dropped(queue, run, &event.key);
        }
        Ok(())
    }

    /// Under modes that keep the newest, the newest is never dropped; `first_only` drops only beside
    /// another.
    fn dropped(&self, queue: &RunQueue, run: RunId, key: &str) -> Verdict {
        let Some(line) = queue.lines.get(key) else {
            return Ok(());
        };
        let Some(entry) = line.waiting.iter().find(|entry| entry.run == run) else {
            return Ok(());
        };
        if entry.class != StartClass::Regular {
            return wrong("dropped", format!("{run} is dropped and never to be"));
        }
        let newest = self.newest.get(key) == Some(&run);
        let keeps = matches!(
            entry.rule.mode,
            StrategyMode::LastOnly | StrategyMode::SerialLatest
        );
        let never = matches!(
            entry.rule.mode,
            StrategyMode::Parallel | StrategyMode::Sequential | StrategyMode::StrictSequential
        );
        if never {
            return wrong(
                "dropped",
                format!("{run} is dropped under {:?}", entry.rule.mode),
            );
        }
        // The newer one is enqueued by the next event of the same decision.
        let regular = |entry: &&Entry| entry.class == StartClass::Regular;
        if keeps && newest && line.waiting.iter().filter(regular).count() > 1 {
            return wrong("dropped", format!("{run} is the newest and is dropped"));
        }
        Ok(())
    }
}

/// A lock is never held by more than its bound; a rate never gives more in any period.
pub(super) fn bound_of_lock(
    key: &EntityKey,
    lock: &Lock,
    event: &LockEvent,
    grants: &mut VecDeque<Time>,
) -> Verdict {
    let max = lock.max.max(1) as usize;
    if lock.period == 0 && lock.holders.len() > max {
        return wrong(
            "lock",
            format!("{key:?} is held {} times of {max}", lock.holders.len()),
        );
    }
    if let Some(unused) = grants.iter().position(|at| at.0 == event.unused) {
        // Nothing started with it.
        grants.remove(unused);
    }
    if event.kind == 2 && lock.period > 0 {
        let at = Time(event.at);
        grants.push_back(at);
        while grants
            .front()
            .is_some_and(|first| first.0 <= at.0 - lock.period)
        {
            grants.pop_front();
        }
        if grants.len() > max {
            return wrong(
                "rate",
                format!("{key:?} gave {} of {max} in its period", grants.len()),
            );
        }
    }
    Ok(())
}

impl Checks {
    /// Active runs of one line are never more than their strategy allows.
    pub(super) fn bounds_of_run(&self, id: RunId) -> Verdict {
        let Some(shadow) = self.runs.get(&id) else {
            return Ok(());
        };
        let state = &shadow.state;
        let active = is_active;
        let (Some(queue), true) = (&state.meta.queue, active(state.status)) else {
            return Ok(());
        };
        let holders = |line: bool| {
            self.runs.iter().filter(move |(_, other)| {
                let meta = &other.state.meta;
                meta.workflow == state.meta.workflow
                    && meta.queue.as_ref().is_some_and(|other| {
                        !meta.held_queues.contains(other) && (!line || other == queue)
                    })
                    && active(other.state.status)
            })
        };
        let queue_key = state.run_queue();
        if self
            .orders
            .get(&queue_key)
            .is_some_and(|order| order.changed)
        {
            // What is in force then is looked at when each starts.
            return Ok(());
        }
        // Where several versions are active, each was admitted by its own rule.
        let limit = holders(true)
            .map(|(_, other)| limit_of(&other.plan.spec.strategy))
            .max();
        if limit.is_some_and(|limit| holders(true).count() > limit as usize) {
            let others: Vec<String> = holders(true)
                .map(|(run, other)| stands_short(*run, other.state.status))
                .collect();
            let detail = format!("at once of {limit:?}: {others:?}");
            return wrong("strategy", detail);
        }
        let total = holders(false)
            .map(|(_, other)| other.plan.spec.strategy.total.unwrap_or(u32::MAX))
            .max();
        let all = holders(false).count();
        if total.is_some_and(|total| all > total as usize) {
            return wrong("strategy", format!("{all} run at once of {total:?}"));
        }
        Ok(())
    }

    /// Whoever is admitted starts beside fewer than the strategy in force allows: of all runs of its
    /// line, those too that its queue has not heard of. Runs of this commit are as it leaves them.
    pub(super) fn keeps_strategy(&self, admitted: &[(RunId, Rule)]) -> Verdict {
        for (place, (run, rule)) in admitted.iter().enumerate() {
            if rule.limit == 0 {
                continue;
            }
            // Whoever came after it in this commit did so by a rule of its own.
            let came_later = |other: &RunId| {
                let mut later = admitted[place + 1..].iter();
                later.any(|(run, _)| run == other)
            };
            let Some(started) = self.runs.get(run) else {
                continue;
            };
            let line = started.state.line();
            let beside: Vec<String> = self
                .runs
                .iter()
                .filter(|(other, shadow)| {
                    let state = &shadow.state;
                    *other != run
                        && !came_later(other)
                        && is_active(state.status)
                        && state.line() == line
                        && !state.meta.held_queues.contains(&line)
                })
                .map(|(run, shadow)| stands_short(*run, shadow.state.status))
                .collect();
            if is_active(started.state.status) && beside.len() >= rule.limit as usize {
                let detail = format!("{run} starts beside {beside:?} under {rule:?}");
                return wrong("strategy", detail);
            }
        }
        Ok(())
    }

    /// Nothing is under way: every run that waits in a queue is known there.
    pub(super) fn explained(&self) -> Verdict {
        for (id, shadow) in &self.runs {
            let state = &shadow.state;
            if state.status != RunStatus::Queued {
                continue;
            }
            let queue = state.run_queue();
            let inside = state.meta.held_queues.contains(&state.line());
            let known = self
                .queues
                .get(&queue)
                .is_some_and(|queue| queue.runs.contains_key(id));
            if !known && !inside {
                return wrong(
                    "queued",
                    format!("{id} waits in a queue that does not know it"),
                );
            }
        }
        Ok(())
    }

    /// Everything has ended: nobody holds or waits.
    pub(super) fn lines_empty(&self) -> Verdict {
        for (key, lock) in &self.locks {
            if !lock.holders.is_empty() || !lock.waiting.is_empty() {
                return wrong(
                    "lock",
                    format!("{key:?} is still held or asked for: {lock:?}"),
                );
            }
        }
        for (key, queue) in &self.queues {
            let left = queue.lines.values().any(|line| {
                !line.active.is_empty() || !line.waiting.is_empty() || line.burst.is_some()
            });
            if left {
                return wrong("queue", format!("{key:?} still holds {queue:?}"));
            }
        }
        Ok(())
    }
}

/// The run that an event lets start, and by which rule; looked at before the event is applied.
pub(super) fn admission(queue: &RunQueue, event: &QueueEvent) -> Option<(RunId, Rule)> {
    let line = queue.lines.get(event.key.as_str())?;
    let bytes: [u8; 16] = event.run.as_slice().try_into().ok()?;
    let run = RunId::from_bytes(bytes);
    let mut waiting = line.waiting.iter().filter(|_| event.kind == 2);
    let entry = waiting.find(|entry| entry.run == run)?;
    Some((run, queue.settings.rule(Some(entry.rule))))
}

fn is_active(status: RunStatus) -> bool {
    matches!(
        status,
        RunStatus::Running | RunStatus::Paused | RunStatus::Cancelling
    )
}

/// Active runs of one line; the greatest number where there is no bound.
fn limit_of(strategy: &Strategy) -> u32 {
    match strategy.mode {
        StrategyMode::Parallel => strategy.limit.unwrap_or(u32::MAX),
        _ => 1,
    }
}

fn stands_short(run: RunId, status: RunStatus) -> String {
    format!("{run} {status}")
}
