//! What is done now and then, in small steps: runs that are kept no longer are dropped with their
//! logs, blobs that nothing refers to are removed, and the store tidies up.
//!
//! Start reading at [`Upkeep::step`]. A blob is removed only if the store knows of nothing that refers
//! to it and it was last put, or let go by a run that was dropped, more than [`GRACE`] ago. So what a
//! worker has put and not yet reported stays, and so does what a run in memory hands to a new one while
//! the row of the first is dropped.
//!
//! - **Crash**: a run whose logs are gone is still there and is dropped by the next step; a sweep
//!   begins anew, at another folder.
//! - **Slow store**: nobody waits for a step.
//! - **Clock jump**: one far ahead makes blobs old that were just put; it takes a clock that is wrong
//!   by a day to lose what is not yet referred to, and nothing else is lost by it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use kapell_engine::run_queue::Settings;
use kapell_model::spec::{Retention, Spec};
use kapell_model::{EntityKey, RunId, Time, limits};
use kapell_store::{BlobStore, Error, Order, Result, RunFilter, Store, Sweep, VersionRow};

use crate::entity::Entity;
use crate::perform::{self, Plans};

/// Runs dropped in one go, so that nothing waits long behind it.
const STEP: usize = 200;

/// How long a blob stays that nothing refers to.
pub const GRACE: SignedDuration = SignedDuration::from_hours(24);

/// Until the next step if there is nothing to do.
const IDLE: SignedDuration = SignedDuration::from_mins(10);

/// Until all workflows are looked at again if runs were dropped: more may wait.
const SOON: SignedDuration = SignedDuration::from_secs(5);

/// Between two steps of a workflow that has more to drop: as fast as a server starts runs, and with room
/// for its commits between them.
const AGAIN: SignedDuration = SignedDuration::from_millis(20);

/// Between two steps of a sweep.
const BETWEEN: SignedDuration = SignedDuration::from_millis(100);

/// Between two times that the store tidies up.
const TIDY: SignedDuration = SignedDuration::from_hours(1);

/// From the end of a sweep to the next.
const SWEEP: SignedDuration = SignedDuration::from_hours(1);

/// What has the logs of runs.
pub trait DropLogs: Send {
    /// Drops what a run printed, if it did.
    ///
    /// # Errors
    /// Those of where it lies.
    fn drop_logs(&self, run: RunId) -> io::Result<()>;
}

/// A folder with one for each run that printed something.
impl DropLogs for PathBuf {
    fn drop_logs(&self, run: RunId) -> io::Result<()> {
        match std::fs::remove_dir_all(self.join(run.to_string())) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The upkeep of a data directory, by the one process that works on it.
pub struct Upkeep {
    store: Arc<dyn Store>,
    blobs: Arc<dyn BlobStore>,
    logs: Box<dyn DropLogs>,
    namespace: String,
    retention: Retention,
    sweep: Option<Sweep>,
    sweep_at: Time,
    tidy_at: Time,
    /// When all workflows are looked at.
    all_at: Time,
    drop_at: Time,
    /// Workflows that had more to drop than one step takes.
    full: Vec<Arc<str>>,
}

impl Upkeep {
    /// Upkeep of a namespace.
    pub fn new(
        store: Arc<dyn Store>,
        blobs: Arc<dyn BlobStore>,
        logs: impl DropLogs + 'static,
        namespace: &str,
    ) -> Self {
        Self {
            store,
            blobs,
            logs: Box::new(logs),
            namespace: namespace.to_owned(),
            retention: Retention::default(),
            sweep: None,
            sweep_at: Time::ZERO,
            tidy_at: Time::ZERO,
            all_at: Time::ZERO,
            drop_at: Time::ZERO,
            full: Vec::new(),
        }
    }

    /// What holds for workflows that say nothing of it themselves.
    #[must_use]
    pub fn keeping(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Does the next small step. Returns how long to wait for the one after it.
    ///
    /// # Errors
    /// Those of the store; what was done before stays done, and the rest is done by a later step.
    pub fn step(&mut self, now: Time) -> Result<SignedDuration> {
        if now >= self.drop_at {
            let all = now >= self.all_at;
            let full = std::mem::take(&mut self.full);
            let dropped = self.drop_expired(now, (!all).then_some(&full))?;
            if all {
                self.all_at = now.plus(if dropped == 0 { IDLE } else { SOON });
            }
            let again = if self.full.is_empty() { IDLE } else { AGAIN };
            self.drop_at = self.all_at.min(now.plus(again));
        }
        if now >= self.sweep_at {
            // Where a sweep begins need only differ from one process to the next.
            let first = u8::try_from(now.0 / 1_000_000 % 256).unwrap_or(0);
            let sweep = self.sweep.get_or_insert_with(|| Sweep::beginning_at(first));
            let grace = Duration::try_from(GRACE).unwrap_or_default();
            let swept = self.blobs.sweep(sweep, &*self.store, now, grace)?;
            if swept.files > 0 {
                tracing::debug!(
                    swept.files,
                    swept.bytes,
                    "removed blobs that nothing refers to"
                );
            }
            self.sweep_at = now.plus(if swept.done { SWEEP } else { BETWEEN });
            if swept.done {
                self.sweep = None;
            }
        }
        if now >= self.tidy_at {
            self.tidy_at = now.plus(TIDY);
            self.store.tidy()?;
        }
        let next = self.drop_at.min(self.sweep_at).min(self.tidy_at);
        Ok(next.since(now).min(IDLE))
    }

    /// Drops ended runs that are kept no longer, at most a small step of each workflow, or of these.
    /// Returns how many.
    fn drop_expired(&mut self, now: Time, of: Option<&Vec<Arc<str>>>) -> Result<u64> {
        let mut ended: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        for (workflow, status, runs) in self.store.run_counts(&self.namespace)? {
            if status.ended() && of.is_none_or(|of| of.contains(&workflow)) {
                *ended.entry(workflow).or_default() += runs;
            }
        }
        let mut dropped = 0;
        // Counts name every workflow that has runs, those too of which no version is left in force.
        for (workflow, ended) in ended {
            let retention = self.retention_of(&workflow)?;
            let of = (self.namespace.as_str(), &*workflow);
            let step = (ended, STEP);
            let mut found = expired(&*self.store, of, retention, step, now)?;
            if found.is_empty() {
                continue;
            }
            // Read after the runs: one that ended and blocks is known to do so.
            let blocking = self.blocking(&workflow)?;
            if found.iter().any(|run| blocking.contains(run)) {
                let step = (ended, STEP + blocking.len());
                found = expired(&*self.store, of, retention, step, now)?;
                found.retain(|run| !blocking.contains(run));
            }
            dropped += self.drop_runs(&found)?;
            if found.len() >= STEP {
                self.full.push(workflow);
            }
        }
        Ok(dropped)
    }

    /// Failed runs that others wait for: they are kept until they are retried or dismissed.
    fn blocking(&self, workflow: &Arc<str>) -> Result<BTreeSet<RunId>> {
        let key = self.queue_key(workflow);
        let found = perform::load(&*self.store, &mut Plans::default(), &key)?;
        Ok(match found.map(|found| found.entity) {
            Some(Entity::Queue(queue)) => queue.blocking().collect(),
            _ => BTreeSet::new(),
        })
    }

    fn queue_key(&self, workflow: &Arc<str>) -> EntityKey {
        EntityKey::RunQueue {
            namespace: self.namespace.as_str().into(),
            workflow: Arc::clone(workflow),
            key: "".into(),
        }
    }

    /// How long runs of a workflow are kept: as its settings say, else the version that is in force or
    /// ran last, else what holds for all.
    fn retention_of(&self, workflow: &Arc<str>) -> Result<Retention> {
        let set = self.settings(workflow)?.retention;
        if let Some(set) = set.filter(|set| !set.age_of_version && !set.runs_of_version) {
            return Ok(set.over(Retention::default()));
        }
        let active = self.store.version(&self.namespace, workflow, None)?;
        let row = match active {
            Some(row) => Some(row),
            None => self.last_run_version(workflow)?,
        };
        let spec = row.and_then(|row| serde_json::from_str::<Spec>(&row.spec).ok());
        let own = spec.map(|spec| spec.retention);
        let own = own
            .filter(|own| *own != Retention::default())
            .unwrap_or(self.retention);
        Ok(set.map_or(own, |set| set.over(own)))
    }

    fn settings(&self, workflow: &Arc<str>) -> Result<Settings> {
        let key = self.queue_key(workflow).to_bytes();
        let found = self.store.documents(&key, None, Order::Forward, 1)?;
        let own = found.iter().find(|(found, _)| *found == key);
        Ok(own
            .and_then(|(_, body)| serde_json::from_str(body).ok())
            .unwrap_or_default())
    }

    fn last_run_version(&self, workflow: &Arc<str>) -> Result<Option<VersionRow>> {
        let filter = RunFilter {
            namespace: Some(self.namespace.as_str().into()),
            workflow: Some(Arc::clone(workflow)),
            ..RunFilter::default()
        };
        match self.store.list_runs(&filter, 1)?.first() {
            Some(row) => self
                .store
                .version(&self.namespace, workflow, Some(row.version)),
            None => Ok(None),
        }
    }

    /// Drops ended runs. Their logs go first: a run without logs is found again, logs without a run
    /// are not. Their blobs are let go now, so that their time of grace begins.
    fn drop_runs(&self, runs: &[RunId]) -> Result<u64> {
        for run in runs {
            if let Err(error) = self.logs.drop_logs(*run) {
                tracing::warn!(%error, %run, "the logs of a run were not removed");
            }
            let mut after: Arc<str> = "".into();
            loop {
                let page = self
                    .store
                    .blobs_of(&(*run).into(), &after, limits::LIST_PAGE)?;
                let Some(last) = page.last().cloned() else {
                    break;
                };
                self.blobs
                    .touch(&page)
                    .map_err(|error| Error::Unavailable(format!("blobs: {error}")))?;
                after = last;
            }
        }
        self.store.delete_runs(runs)
    }
}

/// Some of the ended runs of a workflow that are kept no longer: those that ended first, at most `step`.
fn expired(
    store: &dyn Store,
    workflow: (&str, &str),
    retention: Retention,
    (ended, step): (u64, usize),
    now: Time,
) -> Result<Vec<RunId>> {
    if let Some(age) = retention.age {
        let expired = store.expired_runs(Some(workflow), now.plus(-age), step)?;
        if !expired.is_empty() {
            return Ok(expired);
        }
    }
    let surplus = retention
        .runs
        .map_or(0, |kept| ended.saturating_sub(kept.into()));
    let surplus = usize::try_from(surplus).unwrap_or(usize::MAX).min(step);
    if surplus == 0 {
        return Ok(Vec::new());
    }
    store.expired_runs(Some(workflow), Time(i64::MAX), surplus)
}
