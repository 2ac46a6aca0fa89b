//! What has changed, told to whoever wants to know: one watcher of the node for all subscribers.
//!
//! Each change of a run's row has a number, and the newest are kept, so that a subscriber who was away
//! goes on where it stopped. Nobody waits for a subscriber: one that is too far behind is told so, and
//! looks at the store again.
//!
//! - **Crash**: numbers begin anew under another name of this process's life; who comes back with an old
//!   one is told to look again.
//! - **Other nodes** are followed while somebody subscribes, and their changes are numbered here as they come.
//!   Where some may have been missed, every subscriber looks at the store again.
//! - **Many subscribers**: those of one run or workflow hear of that alone, so a change costs what it
//!   interests.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use kapell_model::{EntityKey, Error, ErrorCode, RunId, limits};
use kapell_store::{Commit, RunRow};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};

/// A row of a run that has changed.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// Counts up in the life of this process.
    pub(crate) number: u64,
    /// The row as it is now.
    pub(crate) row: Arc<RunRow>,
}

/// What a subscriber gets first.
pub(crate) enum Missed {
    /// Nothing, or these.
    Changes(Vec<Change>),
    /// It was away too long: nobody knows any more what.
    TooMany,
}

/// All changes, as far as they are kept.
pub(crate) struct Feed {
    inner: Mutex<Inner>,
    changed: Condvar,
    places: Arc<Semaphore>,
    closing: watch::Sender<bool>,
    life: u64,
    /// Threads that wait.
    waiting: AtomicUsize,
    /// Called whenever somebody subscribes.
    wanted: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Inner {
    last: u64,
    kept: VecDeque<Change>,
    all: Option<broadcast::Sender<Change>>,
    workflows: HashMap<Arc<str>, broadcast::Sender<Change>>,
    runs: HashMap<RunId, watch::Sender<u64>>,
}

/// A subscription to rows.
pub(crate) struct Rows {
    pub(crate) changes: broadcast::Receiver<Change>,
    pub(crate) missed: Missed,
    /// The number of the last change before.
    pub(crate) last: u64,
    _place: OwnedSemaphorePermit,
}

impl Feed {
    /// `life` tells this process from those before.
    pub(crate) fn new(life: u64) -> Self {
        Self {
            inner: Mutex::default(),
            changed: Condvar::new(),
            places: Arc::new(Semaphore::new(limits::SUBSCRIBERS)),
            closing: watch::Sender::new(false),
            life,
            waiting: AtomicUsize::new(0),
            wanted: OnceLock::new(),
        }
    }

    /// Calls this whenever somebody subscribes. Once.
    pub(crate) fn when_wanted(&self, call: Box<dyn Fn() + Send + Sync>) {
        // Set once, where everything is put together.
        let _ = self.wanted.set(call);
    }

    fn want(&self) {
        if let Some(call) = self.wanted.get() {
            call();
        }
    }

    /// True while somebody subscribes or waits.
    pub(crate) fn has_subscribers(&self) -> bool {
        let runs = |inner: &Inner| inner.runs.values().any(|listeners| !listeners.is_closed());
        self.places.available_permits() < limits::SUBSCRIBERS
            || self.waiting.load(Ordering::Relaxed) > 0
            || runs(&self.inner.lock())
    }

    /// Takes what was committed.
    pub(crate) fn take(&self, commit: &Commit) {
        self.take_changes(&commit.runs, touched(commit));
    }

    /// Changes may have been missed: every subscriber looks again.
    pub(crate) fn gap(&self) {
        let mut inner = self.inner.lock();
        inner.last += 1;
        inner.kept.clear();
        inner.all = None;
        inner.workflows.clear();
        inner.runs.retain(|_, listeners| !listeners.is_closed());
        for listeners in inner.runs.values() {
            listeners.send_modify(|count| *count += 1);
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// Takes rows that changed, and runs of which something changed.
    pub(crate) fn take_changes(&self, rows: &[RunRow], touched: impl Iterator<Item = RunId>) {
        let mut inner = self.inner.lock();
        for row in rows {
            inner.changed(row);
        }
        if !inner.runs.is_empty() {
            for run in touched {
                let Some(listeners) = inner.runs.get(&run) else {
                    continue;
                };
                // Nobody listens any more.
                if listeners.is_closed() {
                    inner.runs.remove(&run);
                } else {
                    listeners.send_modify(|count| *count += 1);
                }
            }
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// How many changes there were. [`Feed::wait`] takes it.
    pub(crate) fn count(&self) -> u64 {
        self.inner.lock().last
    }

    /// Waits on this thread until there were more changes, or the time is over.
    pub(crate) fn wait(&self, seen: u64, longest: std::time::Duration) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.want();
        let mut inner = self.inner.lock();
        if inner.last == seen {
            self.changed.wait_for(&mut inner, longest);
        }
        drop(inner);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Changes of one run: the number that is seen goes up with each commit that touches it.
    pub(crate) fn run(&self, run: RunId) -> watch::Receiver<u64> {
        self.want();
        let mut inner = self.inner.lock();
        // Those of runs that nobody follows any more and that never changed again.
        if inner.runs.len() >= limits::SUBSCRIBERS {
            inner.runs.retain(|_, listeners| !listeners.is_closed());
        }
        inner
            .runs
            .entry(run)
            .or_insert_with(|| watch::Sender::new(0))
            .subscribe()
    }

    /// Changes of a workflow's runs, or of all, after the one with this id.
    pub(crate) fn rows(&self, workflow: Option<&str>, after: Option<&str>) -> Result<Rows, Error> {
        let place = self.place()?;
        self.want();
        let mut inner = self.inner.lock();
        let sender = match workflow {
            None => inner
                .all
                .get_or_insert_with(|| broadcast::Sender::new(limits::FEED_BEHIND)),
            Some(name) => {
                if inner.workflows.len() >= limits::SUBSCRIBERS {
                    inner
                        .workflows
                        .retain(|_, sender| sender.receiver_count() > 0);
                }
                inner
                    .workflows
                    .entry(name.into())
                    .or_insert_with(|| broadcast::Sender::new(limits::FEED_BEHIND))
            }
        };
        let changes = sender.subscribe();
        let missed = match after {
            None => Missed::Changes(Vec::new()),
            Some(id) => match self.number(id) {
                Some(number) => inner.after(number, workflow),
                None => Missed::TooMany,
            },
        };
        Ok(Rows {
            changes,
            missed,
            last: inner.last,
            _place: place,
        })
    }

    /// What came after a number, for a subscriber that fell behind.
    pub(crate) fn after(&self, number: u64, workflow: Option<&str>) -> Missed {
        self.inner.lock().after(number, workflow)
    }

    /// A place among the subscribers.
    pub(crate) fn place(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let message = format!("there are {} subscribers to events", limits::SUBSCRIBERS);
            Error::new(ErrorCode::TooManyRequests, message).hint("try again later")
        })
    }

    /// Tells this process from those before.
    pub(crate) fn life(&self) -> u64 {
        self.life
    }

    /// The id of a change, for whoever comes back.
    pub(crate) fn id(&self, number: u64) -> String {
        format!("{:x}-{number}", self.life)
    }

    fn number(&self, id: &str) -> Option<u64> {
        let (life, number) = id.split_once('-')?;
        (u64::from_str_radix(life, 16) == Ok(self.life)).then_some(())?;
        number.parse().ok()
    }

    /// Becomes true once streams are to end.
    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Ends all streams.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }
}

/// Runs of which something changed.
pub(crate) fn touched(commit: &Commit) -> impl Iterator<Item = RunId> {
    commit
        .entities
        .iter()
        .filter_map(|entity| match entity.key {
            EntityKey::Run(run) => Some(run),
            _ => None,
        })
}

impl Inner {
    fn changed(&mut self, row: &RunRow) {
        self.last += 1;
        let change = Change {
            number: self.last,
            row: Arc::new(row.clone()),
        };
        if self.kept.len() >= limits::FEED_CHANGES {
            self.kept.pop_front();
        }
        self.kept.push_back(change.clone());
        if let Some(sender) = self.workflows.get(&row.workflow)
            && sender.send(change.clone()).is_err()
        {
            // Nobody listens any more.
            self.workflows.remove(&row.workflow);
        }
        if self
            .all
            .as_ref()
            .is_some_and(|sender| sender.send(change).is_err())
        {
            self.all = None;
        }
    }

    fn after(&self, number: u64, workflow: Option<&str>) -> Missed {
        let first = self
            .kept
            .front()
            .map_or(self.last + 1, |change| change.number);
        if number > self.last || number + 1 < first {
            return Missed::TooMany;
        }
        let wanted = |change: &&Change| {
            change.number > number && workflow.is_none_or(|name| *change.row.workflow == *name)
        };
        Missed::Changes(self.kept.iter().filter(wanted).cloned().collect())
    }
}
