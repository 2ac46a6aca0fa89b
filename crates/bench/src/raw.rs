//! The store alone: what a workload committed is committed again, as many bytes in the same batches.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use kapell_model::Shard;
use kapell_store::testing::TestSchema;
use kapell_store::{Commit, SqliteStore, Store};

use crate::recorder::{Recorded, Written};

/// Commits of the same shape on a fresh store and nothing else; seconds.
pub(crate) fn replay(dir: &Path, commits: Vec<Recorded>) -> Result<f64> {
    let store = SqliteStore::open(&dir.join("raw"))?;
    let all: BTreeSet<Shard> = commits.iter().flat_map(shards).collect();
    let mut leases: BTreeMap<_, _> = store
        .acquire(&all.into_iter().collect::<Vec<_>>())?
        .into_iter()
        .map(|lease| (lease.shard, lease))
        .collect();
    let mut prepared = Vec::with_capacity(commits.len());
    for recorded in commits {
        let mut fence = Vec::new();
        for shard in shards(&recorded) {
            let lease = leases.get_mut(&shard).context("a shard was not acquired")?;
            fence.push(*lease);
            lease.seq += 1;
        }
        prepared.push(Commit {
            shards: fence,
            entities: recorded.entities.into_iter().map(Written::again).collect(),
            runs: recorded.runs,
            ..Commit::default()
        });
    }
    let started = Instant::now();
    for commit in &prepared {
        store.commit(commit)?;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// The same bytes by hand: one row for each, in batches of one statement; seconds.
pub(crate) fn replay_by_hand(schema: &TestSchema, commits: &[Recorded]) -> Result<f64> {
    let mut table = schema.raw_table()?;
    let batches: Vec<Vec<Vec<u8>>> = commits
        .iter()
        .map(|recorded| {
            let written = recorded.entities.iter().flat_map(Written::bytes);
            // A row of a run is about so long.
            written
                .chain(recorded.runs.iter().map(|_| vec![7; 150]))
                .collect()
        })
        .collect();
    let started = Instant::now();
    for batch in &batches {
        table.insert(batch)?;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// The shards of a commit, each once and in order.
fn shards(recorded: &Recorded) -> BTreeSet<Shard> {
    let keys = recorded.entities.iter().map(|written| &written.key);
    keys.map(kapell_model::EntityKey::shard).collect()
}
