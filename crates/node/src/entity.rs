//! Entities of every kind in memory.

use std::sync::Arc;

use kapell_engine::backfill::Backfill;
use kapell_engine::chunk;
use kapell_engine::lock::Lock;
use kapell_engine::notice::Channel;
use kapell_engine::run_queue::RunQueue;
use kapell_engine::topic::Topic;
use kapell_engine::trigger::Trigger;
use kapell_engine::{Plan, Run, Small};
use kapell_model::{EntityKey, Time};
use kapell_store::Loaded;

/// An entity in memory.
#[derive(Clone, Debug)]
pub enum Entity {
    /// A run.
    Run(Box<Run>),
    /// A run queue.
    Queue(Box<RunQueue>),
    /// A lock.
    Lock(Box<Lock>),
    /// A topic.
    Topic(Box<Topic>),
    /// A trigger.
    Trigger(Box<Trigger>),
    /// A channel.
    Channel(Box<Channel>),
    /// A backfill.
    Backfill(Box<Backfill>),
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
                    .map(chunk::decode)
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|error| error.to_string())?;
                Run::restore(plan, snapshot, chunks).map(|run| Self::Run(Box::new(run)))
            }
            EntityKey::RunQueue { .. } => {
                let queue = read(snapshot, RunQueue::from_snapshot)?;
                replayed(queue, chunks).map(|queue| Self::Queue(Box::new(queue)))
            }
            EntityKey::Lock { .. } => {
                let lock = read(snapshot, Lock::from_snapshot)?;
                replayed(lock, chunks).map(|lock| Self::Lock(Box::new(lock)))
            }
            EntityKey::Topic { .. } => {
                let topic = read(snapshot, Topic::from_snapshot)?;
                replayed(topic, chunks).map(|topic| Self::Topic(Box::new(topic)))
            }
            EntityKey::Trigger { .. } => {
                let trigger = read(snapshot, Trigger::from_snapshot)?;
                replayed(trigger, chunks).map(|trigger| Self::Trigger(Box::new(trigger)))
            }
            EntityKey::Channel { .. } => {
                let channel = read(snapshot, Channel::from_snapshot)?;
                replayed(channel, chunks).map(|channel| Self::Channel(Box::new(channel)))
            }
            EntityKey::Backfill { .. } => {
                let backfill = read(snapshot, Backfill::from_snapshot)?;
                replayed(backfill, chunks).map(|backfill| Self::Backfill(Box::new(backfill)))
            }
        }
    }

    /// An entity that nobody has used yet; none for a run.
    pub fn fresh(key: &EntityKey) -> Option<Self> {
        match key {
            EntityKey::RunQueue { .. } => Some(Self::Queue(Box::default())),
            EntityKey::Lock { .. } => Some(Self::Lock(Box::default())),
            EntityKey::Topic { .. } => Some(Self::Topic(Box::default())),
            EntityKey::Trigger { .. } => Some(Self::Trigger(Box::default())),
            EntityKey::Channel { .. } => Some(Self::Channel(Box::default())),
            EntityKey::Backfill { .. } => Some(Self::Backfill(Box::default())),
            EntityKey::Run(_) => None,
        }
    }

    /// It as what every entity but a run is; none for a run.
    pub fn small(&self) -> Option<&dyn Small> {
        match self {
            Self::Run(_) => None,
            Self::Queue(queue) => Some(&**queue),
            Self::Lock(lock) => Some(&**lock),
            Self::Topic(topic) => Some(&**topic),
            Self::Trigger(trigger) => Some(&**trigger),
            Self::Channel(channel) => Some(&**channel),
            Self::Backfill(backfill) => Some(&**backfill),
        }
    }

    /// The same, to be changed.
    pub fn small_mut(&mut self) -> Option<&mut dyn Small> {
        match self {
            Self::Run(_) => None,
            Self::Queue(queue) => Some(&mut **queue),
            Self::Lock(lock) => Some(&mut **lock),
            Self::Topic(topic) => Some(&mut **topic),
            Self::Trigger(trigger) => Some(&mut **trigger),
            Self::Channel(channel) => Some(&mut **channel),
            Self::Backfill(backfill) => Some(&mut **backfill),
        }
    }

    /// What lists show of it, beside its row if it is a run; none if that is nothing.
    pub fn document(&self) -> Option<String> {
        match (self, self.small()) {
            (Self::Run(run), _) => run.document(),
            (_, small) => small.and_then(Small::document),
        }
    }

    /// Its state as bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        match (self, self.small()) {
            (Self::Run(run), _) => run.state.snapshot(),
            (_, Some(small)) => laid_out(&small.to_bytes()),
            (_, None) => Vec::new(),
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
            small => small.timer_at(),
        }
    }

    /// When something happens in it by itself.
    pub fn timer_at(&self) -> Option<Time> {
        match (self, self.small()) {
            (Self::Run(run), _) => run.timer_at(),
            (_, small) => small.and_then(Small::wake_at),
        }
    }

    /// True if it must stay in memory.
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Run(run) => !run.state.ended() && run.is_busy(),
            _ => false,
        }
    }
}

/// How a run queue or a lock is written: as a message whose fields come and go, so this changes only if
/// there is to be something else than a message. No state is empty with it: empty is what is dropped.
const LAYOUT: u8 = 2;

fn laid_out(state: &[u8]) -> Vec<u8> {
    [&[LAYOUT], state].concat()
}

/// A small entity by its snapshot; a new one if there is none.
fn read<T: Default, E: ToString>(
    snapshot: Option<&[u8]>,
    from: impl FnOnce(&[u8]) -> Result<T, E>,
) -> Result<T, String> {
    match state_of(snapshot)? {
        Some(state) => from(state).map_err(|error| error.to_string()),
        None => Ok(T::default()),
    }
}

/// A small entity after what its history says.
fn replayed<'a, T: Small>(
    mut entity: T,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> Result<T, String> {
    for chunk in chunks {
        entity.replay(chunk).map_err(|error| error.to_string())?;
    }
    Ok(entity)
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
