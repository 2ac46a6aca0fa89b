//! Entities of every kind in memory.

use std::sync::Arc;

use kapell_engine::event;
use kapell_engine::lock::{self, Lock};
use kapell_engine::run_queue::{self, RunQueue};
use kapell_engine::{Plan, Run};
use kapell_model::{EntityKey, Time};
use kapell_store::Loaded;

/// An entity in memory.
#[derive(Clone, Debug)]
pub enum Entity {
    /// A run.
    Run(Box<Run>),
    /// A run queue.
    Queue(Box<RunQueue>),
    /// A lock, with its name.
    Lock(Arc<str>, Box<Lock>),
}

impl Entity {
    /// The entity as its history says; `plan` is needed for a run.
    pub fn restore(
        key: &EntityKey,
        loaded: &Loaded,
        plan: Option<Arc<Plan>>,
    ) -> Result<Self, String> {
        let snapshot = loaded.snapshot.as_ref().map(|(_, bytes)| bytes.as_slice());
        let chunks = loaded.chunks.iter().map(|(_, bytes)| bytes.as_slice());
        match key {
            EntityKey::Run(id) => {
                let plan = plan.ok_or_else(|| format!("the version of run {id} is gone"))?;
                let chunks = chunks
                    .map(event::decode_chunk)
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|error| error.to_string())?;
                Run::restore(plan, snapshot, chunks).map(|run| Self::Run(Box::new(run)))
            }
            EntityKey::RunQueue { .. } => {
                let mut queue = match state_of(snapshot)? {
                    Some(state) => {
                        RunQueue::from_snapshot(state).map_err(|error| error.to_string())?
                    }
                    None => RunQueue::default(),
                };
                for chunk in chunks {
                    for event in
                        run_queue::decode_chunk(chunk).map_err(|error| error.to_string())?
                    {
                        queue.apply(&event);
                    }
                }
                Ok(Self::Queue(Box::new(queue)))
            }
            EntityKey::Lock { name, .. } => {
                let mut lock = match state_of(snapshot)? {
                    Some(state) => Lock::from_snapshot(state).map_err(|error| error.to_string())?,
                    None => Lock::default(),
                };
                for chunk in chunks {
                    for event in lock::decode_chunk(chunk).map_err(|error| error.to_string())? {
                        lock.apply(&event);
                    }
                }
                Ok(Self::Lock(name.clone(), Box::new(lock)))
            }
        }
    }

    /// A run queue or lock that nobody has used yet; none for a run.
    pub fn fresh(key: &EntityKey) -> Option<Self> {
        match key {
            EntityKey::Run(_) => None,
            EntityKey::RunQueue { .. } => Some(Self::Queue(Box::default())),
            EntityKey::Lock { name, .. } => Some(Self::Lock(name.clone(), Box::default())),
        }
    }

    /// Its state as bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        match self {
            Self::Run(run) => run.state.snapshot(),
            Self::Queue(queue) => laid_out(&queue.snapshot()),
            Self::Lock(_, lock) => laid_out(&lock.snapshot()),
        }
    }

    /// True if its history is of no use to people: a snapshot may replace it.
    pub fn forgets(&self) -> bool {
        !matches!(self, Self::Run(_))
    }

    /// When it must be in memory.
    pub fn wake_at(&self) -> Option<Time> {
        match self {
            Self::Run(run) => run.wake_at(),
            Self::Queue(queue) => queue.wake_at(),
            Self::Lock(_, lock) => lock.wake_at(),
        }
    }

    /// When something happens in it by itself.
    pub fn timer_at(&self) -> Option<Time> {
        match self {
            Self::Run(run) => run.timer_at(),
            Self::Queue(queue) => queue.wake_at(),
            Self::Lock(_, lock) => lock.wake_at(),
        }
    }

    /// True if it must stay in memory.
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Run(run) => !run.state.ended() && run.is_busy(),
            Self::Queue(_) | Self::Lock(..) => false,
        }
    }
}

/// How a run queue or a lock is written: as a message whose fields come and go, so this changes only if
/// there is to be something else than a message. No state is empty with it: empty is what is dropped.
const LAYOUT: u8 = 2;

fn laid_out(state: &[u8]) -> Vec<u8> {
    [&[LAYOUT], state].concat()
}

/// The message in a snapshot.
fn state_of(snapshot: Option<&[u8]>) -> Result<Option<&[u8]>, String> {
    match snapshot.map(<[u8]>::split_first) {
        None => Ok(None),
        Some(Some((&LAYOUT, state))) => Ok(Some(state)),
        Some(_) => Err("a snapshot of another layout".to_owned()),
    }
}

#[cfg(test)]
mod tests;
