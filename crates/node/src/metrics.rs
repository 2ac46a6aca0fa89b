//! What a node counts while it works, for whoever watches it from outside.
//!
//! Plain atomics: the threads that decide and commit never wait for a reader, and a reader may see a
//! count that is a moment ahead of another. What costs a walk (how much waits in queues) is measured
//! only when somebody asks, by [`crate::drive::Node::measure`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use kapell_api::task::{Outcome, Report, TaskEvent};
use kapell_engine::run::demand::Startable;
use kapell_model::{EntityKey, RunId, RunStatus, Time, limits};
use kapell_store::{Commit, RunRow};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::lane::StepsEnded;

/// Kinds of what makes runs that are told apart; more are counted together.
const KINDS: usize = 32;

/// Upper ends of the classes of a histogram, in microseconds; greater values have a class of their own.
type Ends = &'static [u64];

/// Of commits and requests: from a tenth of a millisecond to ten seconds.
pub const SHORT: Ends = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000,
];

/// Of runs and attempts: from ten milliseconds to a day.
pub const LONG: Ends = &[
    10_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    15_000_000,
    60_000_000,
    300_000_000,
    900_000_000,
    3_600_000_000,
    14_400_000_000,
    86_400_000_000,
];

/// Of numbers: entities in a commit.
pub const SIZES: Ends = &[1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 4_096];

/// How often values fell in which class.
#[derive(Debug)]
pub struct Histogram {
    ends: Ends,
    counts: Vec<AtomicU64>,
    sum: AtomicU64,
}

impl Histogram {
    /// An empty one with these classes.
    pub fn new(ends: Ends) -> Self {
        Self {
            ends,
            counts: (0..=ends.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    /// Counts a value: microseconds, or a number.
    pub fn observe(&self, value: u64) {
        let class = self.ends.partition_point(|end| *end < value);
        self.counts[class].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts a span; one below zero is zero.
    pub fn observe_span(&self, span: SignedDuration) {
        self.observe(u64::try_from(span.as_micros()).unwrap_or(0));
    }

    /// Counts a duration.
    pub fn observe_duration(&self, duration: Duration) {
        self.observe(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// Ends of classes with how many values were no greater, then the number of all and their sum.
    pub fn read(&self) -> (Vec<(u64, u64)>, u64, u64) {
        let mut so_far = 0;
        let mut classes = Vec::with_capacity(self.ends.len());
        for (end, count) in self.ends.iter().zip(&self.counts) {
            so_far += count.load(Ordering::Relaxed);
            classes.push((*end, so_far));
        }
        let above = self.counts.last();
        let all = so_far + above.map_or(0, |count| count.load(Ordering::Relaxed));
        (classes, all, self.sum.load(Ordering::Relaxed))
    }
}

/// How attempts ended, in the order of [`Metrics::attempts`].
pub const ATTEMPT_ENDS: [&str; 4] = ["succeeded", "failed", "cancelled", "lost"];

/// How steps ended, in the order of [`OfWorkflow::steps`].
pub const STEP_ENDS: [&str; 2] = ["succeeded", "other"];

/// The workflow that stands for those beyond the bound, and for what is of a run that is unknown.
const OTHERS: &str = "(others)";

/// What is counted of one workflow.
#[derive(Debug)]
pub struct OfWorkflow {
    /// Runs that ended, by status as [`RunStatus::ALL`] has them.
    pub run_ends: [AtomicU64; RunStatus::ALL.len()],
    /// From a run's making to its end.
    pub run_duration: Histogram,
    /// Steps and items that ended, as [`STEP_ENDS`].
    pub steps: [AtomicU64; STEP_ENDS.len()],
    /// Attempts that ended, as [`ATTEMPT_ENDS`].
    pub attempts: [AtomicU64; ATTEMPT_ENDS.len()],
    /// From an attempt's start to its end.
    pub attempt_duration: Histogram,
}

impl Default for OfWorkflow {
    fn default() -> Self {
        Self {
            run_ends: <[AtomicU64; RunStatus::ALL.len()]>::default(),
            run_duration: Histogram::new(LONG),
            steps: <[AtomicU64; STEP_ENDS.len()]>::default(),
            attempts: <[AtomicU64; ATTEMPT_ENDS.len()]>::default(),
            attempt_duration: Histogram::new(LONG),
        }
    }
}

impl OfWorkflow {
    fn run_ended(&self, row: &RunRow) {
        let place = RunStatus::ALL
            .iter()
            .position(|status| *status == row.status);
        if let Some(ends) = place.and_then(|place| self.run_ends.get(place)) {
            ends.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(end) = row.ended_at {
            self.run_duration.observe_span(end.since(row.created_at));
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Metrics {
    /// Seconds that a commit took, of the store alone, in microseconds.
    pub commit: Histogram,
    /// Entities that one commit wrote.
    pub commit_entities: Histogram,
    /// Commits that failed.
    pub commit_failures: AtomicU64,
    /// The disk has no room.
    pub store_full: AtomicBool,
    /// Runs that were made, by what made them.
    made: Mutex<BTreeMap<Arc<str>, u64>>,
    /// By workflow, the first ones that were heard of.
    workflows: Mutex<BTreeMap<Arc<str>, Arc<OfWorkflow>>>,
    /// Between the due time of a run that a schedule made and its making.
    pub lateness: Histogram,
    /// Attempts that were handed out.
    pub offers: AtomicU64,
    /// Requests to the node.
    pub requests: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            commit: Histogram::new(SHORT),
            commit_entities: Histogram::new(SIZES),
            commit_failures: AtomicU64::default(),
            store_full: AtomicBool::default(),
            made: Mutex::default(),
            workflows: Mutex::default(),
            lateness: Histogram::new(SHORT),
            offers: AtomicU64::default(),
            requests: AtomicU64::default(),
        }
    }
}

impl Metrics {
    /// Runs that were made, by what made them.
    pub fn made(&self) -> Vec<(Arc<str>, u64)> {
        let made = self.made.lock();
        made.iter()
            .map(|(kind, runs)| (Arc::clone(kind), *runs))
            .collect()
    }

    /// What is counted by workflow.
    pub fn workflows(&self) -> Vec<(Arc<str>, Arc<OfWorkflow>)> {
        let workflows = self.workflows.lock();
        workflows
            .iter()
            .map(|(name, of)| (Arc::clone(name), Arc::clone(of)))
            .collect()
    }

    fn workflow(&self, name: Option<&str>) -> Arc<OfWorkflow> {
        let mut workflows = self.workflows.lock();
        let name = name.unwrap_or(OTHERS);
        if let Some(known) = workflows.get(name) {
            return Arc::clone(known);
        }
        let room = workflows.len() < limits::METRIC_WORKFLOWS;
        let name = if room { name } else { OTHERS };
        Arc::clone(workflows.entry(name.into()).or_default())
    }

    /// Takes what a worker reports, of runs of these workflows.
    pub(crate) fn reported<'l>(
        &self,
        reports: &[Report],
        workflow: impl Fn(RunId) -> Option<&'l str>,
    ) {
        for report in reports {
            let TaskEvent::Ended {
                started_at,
                ended_at,
                outcome,
                ..
            } = &report.event
            else {
                continue;
            };
            let end = match outcome {
                Outcome::Succeeded(_) => 0,
                Outcome::Failed(_) => 1,
                Outcome::Cancelled => 2,
                Outcome::Lost { .. } => 3,
            };
            let of = self.workflow(workflow(report.run));
            of.attempts[end].fetch_add(1, Ordering::Relaxed);
            of.attempt_duration
                .observe_span(ended_at.since(*started_at));
        }
    }

    /// Takes ends of steps and items that are durable now.
    pub(crate) fn steps_ended(&self, ended: &[StepsEnded]) {
        for (workflow, ends) in ended {
            let of = self.workflow(Some(workflow));
            for (steps, ended) in of.steps.iter().zip(ends) {
                steps.fetch_add(*ended, Ordering::Relaxed);
            }
        }
    }

    /// Takes rows that are durable now.
    pub(crate) fn committed(&self, commit: &Commit) {
        // Both go by key, so one walk finds whose first event is in it.
        let mut entities = commit.entities.iter();
        let mut made: Vec<&RunRow> = Vec::new();
        for row in &commit.runs {
            let write = entities
                .by_ref()
                .find(|write| write.key == EntityKey::Run(row.id));
            if write.is_some_and(|write| write.seq == 1) {
                made.push(row);
                if let Some(due) = row.scheduled_at.filter(|_| is_schedule(&row.trigger)) {
                    self.lateness.observe_span(row.created_at.since(due));
                }
            }
            if row.status.ended() {
                self.workflow(Some(&row.workflow)).run_ended(row);
            }
        }
        if made.is_empty() {
            return;
        }
        let mut counts = self.made.lock();
        for row in made {
            let known = counts.contains_key(&row.trigger) || counts.len() < KINDS;
            let kind = if known {
                Arc::clone(&row.trigger)
            } else {
                "other".into()
            };
            *counts.entry(kind).or_default() += 1;
        }
    }
}

/// True for what makes runs at due times as they come.
fn is_schedule(trigger: &str) -> bool {
    matches!(trigger, "schedule" | "cron" | "every")
}

/// What is to be done in one queue, of the runs of one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Backlog {
    /// The queue.
    pub queue: Arc<str>,
    /// Attempts that wait, at a worker too.
    pub waiting: u64,
    /// Since when the first of them could start.
    pub since: Option<Time>,
    /// Attempts with a process or request that workers have, also those that wait there.
    pub in_flight: u64,
    /// Attempts that could start now if workers had room, by what they ask for.
    pub startable: Vec<Startable>,
}

impl Backlog {
    /// Adds what another node has of the same queue.
    pub fn add(&mut self, other: Self) {
        self.waiting += other.waiting;
        self.since = self.since.into_iter().chain(other.since).min();
        self.in_flight += other.in_flight;
        for startable in other.startable {
            startable.add(&mut self.startable);
        }
    }
}

/// How much waits, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Queues in which attempts wait or of which some are at workers, by name.
    pub queues: Vec<Backlog>,
    /// Entities in memory.
    pub entities: u64,
}

#[cfg(test)]
mod tests;
