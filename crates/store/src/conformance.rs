//! What every store must do, as functions that panic where one does not. Each store's tests run all
//! of it; [`compare`] then runs the same random operations on two stores and wants the same answers.

use std::sync::Arc;

use kapell_model::{EntityKey, RunId, RunStatus, Shard, Time};

use crate::{Commit, EntityWrite, Lease, Result, RunRow, Store, VersionRow};

mod blobs;
mod cluster;
mod compare;
mod contents;
mod documents;
mod entities;
mod fence;
mod lists;
mod mail;
mod runs;
mod versions;

pub use cluster::{CLUSTER_CASES, ClusterCase};
pub use compare::{compare, compare_moved};
pub use contents::{BLOB_STORE_CASES, BlobStoreCase};

/// One rule: its name and what checks it on an empty store.
pub type Case = (&'static str, fn(&dyn Store));

/// Every rule.
pub const CASES: &[&[Case]] = &[
    fence::CASES,
    entities::CASES,
    runs::CASES,
    lists::CASES,
    versions::CASES,
    documents::CASES,
    blobs::CASES,
    mail::CASES,
];

/// Checks every rule, each on a store that `make` makes, with whatever must outlive it.
pub fn run<S: Store, G>(make: impl Fn() -> (G, S)) {
    for (name, case) in CASES.iter().copied().flatten() {
        tracing::debug!(name, "checking a rule of stores");
        let (_guard, store) = make();
        case(&store);
    }
}

/// A run id that is made `millis` after 1970, in a shard.
fn id(millis: i64, shard: u16, unique: u128) -> RunId {
    RunId::new(Time(millis * 1000), Shard(shard), unique)
}

fn lock(name: &str) -> EntityKey {
    EntityKey::Lock {
        namespace: Arc::from("default"),
        name: Arc::from(name),
    }
}

/// A write that appends a chunk and lets the entity sleep.
fn append(key: impl Into<EntityKey>, seq: u64, chunk: &str) -> EntityWrite {
    EntityWrite {
        key: key.into(),
        seq,
        chunk: chunk.into(),
        wake_at: None,
        snapshot: None,
        forget: false,
        pages: Vec::new(),
    }
}

/// A row with something in every column.
fn row(id: RunId, workflow: &str, status: RunStatus) -> RunRow {
    RunRow {
        id,
        namespace: Arc::from("default"),
        workflow: Arc::from(workflow),
        version: 3,
        status,
        created_at: Time(1_000_001),
        started_at: Some(Time(1_000_002)),
        ended_at: status.ended().then_some(Time(1_000_003)),
        parent: None,
        trigger: Arc::from("manual"),
        counts: [1, 2, 3],
        error: status.ended().then(|| "it broke: \u{1f4a5}\0".to_owned()),
        labels: r#"{"team":"a"}"#.to_owned(),
        scheduled_at: Some(Time(999)),
        trigger_name: None,
        backfill: None,
    }
}

fn version_row(workflow: &str, hash: &str) -> VersionRow {
    VersionRow {
        namespace: Arc::from("default"),
        workflow: Arc::from(workflow),
        version: 0,
        hash: Arc::from(hash),
        spec: Arc::from(format!("spec of {hash}")),
        source: Arc::from(format!("source of {hash}")),
        bundle: hash.ends_with('b').then(|| Arc::from("{}")),
        created_at: Time(7),
        author: Arc::from("ann"),
    }
}

/// Takes the shards of all the writes and commits them.
fn write(store: &dyn Store, entities: Vec<EntityWrite>, runs: Vec<RunRow>) -> Result<()> {
    let mut shards: Vec<Shard> = entities.iter().map(|write| write.key.shard()).collect();
    shards.extend(runs.iter().map(|row| row.id.shard()));
    shards.sort_unstable();
    shards.dedup();
    let shards = store.acquire(&shards)?;
    store.commit(&Commit {
        shards,
        entities,
        runs,
        ..Commit::default()
    })
}

/// As [`write()`], for what must be taken.
fn wrote(store: &dyn Store, entities: Vec<EntityWrite>, runs: Vec<RunRow>) {
    write(store, entities, runs).expect("a good commit is taken");
}

/// The lease after a commit.
fn advanced(lease: Lease) -> Lease {
    Lease {
        seq: lease.seq + 1,
        ..lease
    }
}
