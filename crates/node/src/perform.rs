//! Doing what a lane asks of the store. The one place that both real threads and the simulator use.

use std::collections::BTreeMap;
use std::sync::Arc;

use kapell_api::task::Blobs;
use kapell_engine::topic::FINISHED;
use kapell_engine::{Plan, Ref};
use kapell_expr::BlobRef;
use kapell_model::spec::Spec;
use kapell_model::{EntityKey, NodeId, RunId, RunStatus, ShardSet};
use kapell_store::{Cluster, Error, Loaded, Order, Result, RunFilter, RunRow, Store, VersionRow};

use crate::entity::Entity;
use crate::lane::{Input, MAIL, Output};

/// A version made ready to run.
#[derive(Clone, Debug)]
pub struct Version {
    /// Its number.
    pub version: u32,
    /// Its plan.
    pub plan: Arc<Plan>,
    /// The files that go with it.
    pub bundle: Option<BlobRef>,
}

impl Version {
    /// Reads a stored version.
    pub fn read(row: &VersionRow) -> Result<Self> {
        let spec: Spec = serde_json::from_str(&row.spec).map_err(|error| {
            Error::Corrupt(format!(
                "version {} of {}: {error}",
                row.version, row.workflow
            ))
        })?;
        let bundle = match &row.bundle {
            Some(text) => Some(serde_json::from_str(text).map_err(|error| {
                Error::Corrupt(format!("the bundle of {}: {error}", row.workflow))
            })?),
            None => None,
        };
        Ok(Self {
            version: row.version,
            plan: Arc::new(Plan::new(Arc::new(spec))),
            bundle,
        })
    }
}

/// An entity as it was loaded.
#[derive(Debug)]
pub struct Found {
    /// The entity.
    pub entity: Entity,
    /// The last chunk of its history.
    pub seq: u64,
    /// Its row, if it is a run.
    pub row: Option<RunRow>,
    /// What was read of it.
    pub size: Size,
}

/// How much of an entity is stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    /// Bytes of its snapshot.
    pub snapshot: usize,
    /// Chunks after it.
    pub chunks: usize,
    /// Bytes of them.
    pub bytes: usize,
}

/// Plans that were read, by namespace, workflow and version.
#[derive(Debug, Default)]
pub struct Plans(BTreeMap<(Arc<str>, Arc<str>, u32), Version>);

/// Plans kept at most.
const PLANS: usize = 1_000;

impl Plans {
    /// A version; none is the active one.
    pub fn version(
        &mut self,
        store: &dyn Store,
        namespace: &Arc<str>,
        workflow: &Arc<str>,
        version: Option<u32>,
    ) -> Result<Option<Version>> {
        if let Some(version) = version
            && let Some(found) = self.0.get(&(namespace.clone(), workflow.clone(), version))
        {
            return Ok(Some(found.clone()));
        }
        let Some(row) = store.version(namespace, workflow, version)? else {
            return Ok(None);
        };
        let key = (namespace.clone(), workflow.clone(), row.version);
        if let Some(found) = self.0.get(&key) {
            return Ok(Some(found.clone()));
        }
        let version = Version::read(&row)?;
        if self.0.len() >= PLANS {
            self.0.pop_first();
        }
        self.0.insert(key, version.clone());
        Ok(Some(version))
    }
}

/// Reads an entity.
pub fn load(store: &dyn Store, plans: &mut Plans, key: &EntityKey) -> Result<Option<Found>> {
    let Some(loaded) = store.load(key)? else {
        return Ok(None);
    };
    let (plan, row) = match key {
        EntityKey::Run(id) => {
            let row = store
                .run(*id)?
                .ok_or_else(|| Error::Corrupt(format!("run {id} has a history but no row")))?;
            let version = plans.version(store, &row.namespace, &row.workflow, Some(row.version))?;
            (version.map(|version| version.plan), Some(row))
        }
        _ => (None, None),
    };
    let seq = loaded
        .chunks
        .last()
        .map(|(seq, _)| *seq)
        .or(loaded.snapshot.as_ref().map(|(seq, _)| *seq))
        .unwrap_or(0);
    let size = Size {
        snapshot: loaded.snapshot.as_ref().map_or(0, |(_, bytes)| bytes.len()),
        chunks: loaded.chunks.len(),
        bytes: loaded.chunks.iter().map(|(_, bytes)| bytes.len()).sum(),
    };
    let entity = match restore(key, &loaded, plan.clone()) {
        Ok(entity) => entity,
        Err(error) => from_the_beginning(store, key, &loaded, plan, error)?,
    };
    Ok(Some(Found {
        entity,
        seq,
        row,
        size,
    }))
}

/// The entity by its whole history, where a snapshot cannot be read: another version wrote it. What
/// forgets its history has nothing else.
fn from_the_beginning(
    store: &dyn Store,
    key: &EntityKey,
    loaded: &Loaded,
    plan: Option<Arc<Plan>>,
    error: String,
) -> Result<Entity> {
    if !matches!(key, EntityKey::Run(_)) || loaded.snapshot.is_none() {
        return Err(Error::Corrupt(error));
    }
    tracing::info!(
        ?key,
        error,
        "a snapshot cannot be read: replaying the history"
    );
    let history = Loaded {
        snapshot: None,
        chunks: store.history(key, 0, usize::MAX)?,
    };
    restore(key, &history, plan).map_err(Error::Corrupt)
}

/// The entity as its history says.
fn restore(
    key: &EntityKey,
    loaded: &Loaded,
    plan: Option<Arc<Plan>>,
) -> std::result::Result<Entity, String> {
    unless_broken(key, || Entity::restore(key, loaded, plan))
}

/// A panic is a bug on this one entity: whoever reads goes on.
pub(crate) fn unless_broken<T>(
    key: &EntityKey,
    make: impl FnOnce() -> std::result::Result<T, String>,
) -> std::result::Result<T, String> {
    let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(make));
    made.unwrap_or_else(|_| Err(format!("the history of {key:?} breaks a rule of Kapell")))
}

/// Reads a stored value or page that an entity needs.
pub fn content(
    store: &dyn Store,
    blobs: &dyn Blobs,
    key: &EntityKey,
    reference: &Ref,
) -> std::result::Result<Vec<u8>, String> {
    match reference {
        Ref::Blob(blob) => blobs
            .get(blob, kapell_model::limits::OUTPUT_BYTES)
            .map_err(|error| format!("the stored value {}: {error}", blob.hash)),
        Ref::Page(number) => store
            .page(key, *number)
            .map_err(|error| error.to_string())?
            .ok_or_else(|| format!("page {number} is gone")),
    }
}

/// The store that nodes share, and which of them this is.
pub type Among = (Arc<dyn Cluster>, NodeId);

/// Does what an output asks to be read; none for outputs that ask for nothing of the kind.
pub fn read(
    store: &dyn Store,
    blobs: &dyn Blobs,
    plans: &mut Plans,
    among: Option<&Among>,
    output: Output,
) -> Option<Input> {
    Some(match output {
        Output::Acquire(shards, dead) => Input::Acquired(match among {
            Some((cluster, node)) => cluster.take(*node, &shards, &dead),
            None => store.acquire(&shards.iter().collect::<Vec<_>>()),
        }),
        Output::Release(leases) => {
            let result = match among {
                Some((cluster, node)) => cluster.give(*node, &leases),
                None => Ok(()),
            };
            Input::Released(leases, result)
        }
        Output::Load(key) => {
            let result = load(store, plans, &key).map(|found| found.map(Box::new));
            Input::Loaded(key, result)
        }
        Output::LoadVersion((namespace, workflow, version)) => {
            let result = plans.version(store, &namespace, &workflow, version);
            Input::Version((namespace, workflow, version), result)
        }
        Output::LoadContent(key, reference) => {
            let result = content(store, blobs, &key, &reference);
            Input::Content(key, reference, result)
        }
        Output::FindDue(until, shards) => Input::Due(find_due(store, until, &shards)),
        Output::FindActive(key) => {
            let result = find_active(store, &key);
            Input::Active(key, result)
        }
        Output::FindMail(shards) => Input::Mail(store.mail(&shards, MAIL)),
        Output::FindHeard => Input::Heard(find_heard(store)),
        Output::Commit { .. }
        | Output::Holds(_)
        | Output::Offer(_)
        | Output::Stop(_)
        | Output::Taken(_)
        | Output::Wants(_)
        | Output::Reply(..)
        | Output::RowsChanged(..) => return None,
    })
}

/// Entities read into memory in one go; the rest follows with the next look.
const DUE: usize = 100_000;

fn find_due(
    store: &dyn Store,
    until: kapell_model::Time,
    shards: &ShardSet,
) -> Result<Vec<EntityKey>> {
    let mut keys = Vec::new();
    let mut after = None;
    while keys.len() < DUE {
        let page = store.due(until, after.as_ref(), kapell_model::limits::LIST_PAGE)?;
        let Some(last) = page.last().cloned() else {
            break;
        };
        let keys_of = page.into_iter().map(|(_, key)| key);
        keys.extend(keys_of.filter(|key| shards.contains(key.shard())));
        after = Some(last);
    }
    Ok(keys)
}

/// Runs that have started and not ended, of the workflow of a run queue.
fn find_active(store: &dyn Store, queue: &EntityKey) -> Result<Vec<RunId>> {
    let EntityKey::RunQueue {
        namespace,
        workflow,
        ..
    } = queue
    else {
        return Ok(Vec::new());
    };
    let mut filter = RunFilter {
        namespace: Some(namespace.clone()),
        workflow: Some(workflow.clone()),
        statuses: vec![RunStatus::Running, RunStatus::Paused, RunStatus::Cancelling],
        ..RunFilter::default()
    };
    let mut active = Vec::new();
    loop {
        let page = store.search_runs(&filter, kapell_model::limits::LIST_PAGE)?;
        active.extend(page.rows.iter().map(|row| row.id));
        if page.next.is_none() {
            return Ok(active);
        }
        filter.before = page.next;
    }
}

/// Topics that tell how runs end and that somebody listens or listened to, of all namespaces.
fn find_heard(store: &dyn Store) -> Result<Vec<EntityKey>> {
    // Every topic begins so; of most of them, which people name, only the key is looked at.
    const TOPICS: &[u8] = &[5];
    let mut found = Vec::new();
    let mut beyond: Option<Vec<u8>> = None;
    loop {
        let page = store.documents(
            TOPICS,
            beyond.as_deref(),
            Order::Forward,
            kapell_model::limits::LIST_PAGE,
        )?;
        let Some((last, _)) = page.last() else {
            return Ok(found);
        };
        beyond = Some(last.clone());
        found.extend(page.iter().filter_map(|(key, _)| {
            let key = EntityKey::from_bytes(key)?;
            let finished =
                matches!(&key, EntityKey::Topic { name, .. } if name.starts_with(FINISHED));
            finished.then_some(key)
        }));
    }
}

/// What becomes of a commit that follows one that failed.
pub fn follows_failed() -> Error {
    Error::Unavailable("the commit before it failed".to_owned())
}

/// Stores contents, then commits. A content that cannot be stored fails the commit.
pub fn commit(
    store: &dyn Store,
    blobs: &dyn Blobs,
    contents: &[(BlobRef, Vec<u8>)],
    commit: &kapell_store::Commit,
) -> Result<()> {
    for (blob, bytes) in contents {
        let stored = blobs.put(bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::StorageFull => Error::Full(error.to_string()),
            _ => Error::Unavailable(error.to_string()),
        })?;
        if stored.hash != blob.hash {
            return Err(Error::Corrupt(format!(
                "{} was stored as {}",
                blob.hash, stored.hash
            )));
        }
    }
    if commit.is_empty() {
        return Ok(());
    }
    store.commit(commit)
}
