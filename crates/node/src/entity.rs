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
                let mut queue: RunQueue = unpack(snapshot)?;
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
                let mut lock: Lock = unpack(snapshot)?;
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
            Self::Queue(queue) => pack(&**queue),
            Self::Lock(_, lock) => pack(&**lock),
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

/// Changes whenever the layout of a run queue or a lock does: a snapshot is all that is kept of them,
/// so a new layout must also read the one before.
const LAYOUT: u8 = 1;

fn pack<T: serde::Serialize>(state: &T) -> Vec<u8> {
    let mut bytes = vec![LAYOUT];
    bytes.extend(postcard::to_stdvec(state).unwrap_or_default());
    bytes
}

fn unpack<T: serde::de::DeserializeOwned + Default>(bytes: Option<&[u8]>) -> Result<T, String> {
    match bytes.map(<[u8]>::split_first) {
        None => Ok(T::default()),
        Some(Some((&LAYOUT, state))) => {
            postcard::from_bytes(state).map_err(|error| error.to_string())
        }
        Some(_) => Err("a snapshot of another layout".to_owned()),
    }
}
