//! What changes rows. Each function runs inside a transaction that its caller commits.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kapell_model::{EntityKey, RunId, RunStatus, Shard, Time};
use rusqlite::{OptionalExtension, Transaction, params};

use super::failure::Failure;
use crate::check::drops_entity;
use crate::refs;
use crate::{Commit, Document, EntityWrite, Error, Lease, RunRow, VersionRow};

type Outcome<T> = Result<T, Failure>;

/// Stands for all versions among those who refer to blobs: no entity has an empty key.
const VERSIONS: &[u8] = &[];

/// Row numbers of workflows: looked up once, then remembered. Whoever rolls back clears it, since
/// it may hold numbers that were never written.
#[derive(Default)]
pub(super) struct WorkflowIds(HashMap<Arc<str>, HashMap<Arc<str>, i64>>);

impl WorkflowIds {
    const REMEMBERED: usize = 10_000;

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The number of a workflow, which gets one if it has none.
    fn of(
        &mut self,
        tx: &Transaction<'_>,
        namespace: &Arc<str>,
        name: &Arc<str>,
    ) -> rusqlite::Result<i64> {
        if let Some(id) = self.0.get(namespace).and_then(|names| names.get(name)) {
            return Ok(*id);
        }
        tx.prepare_cached(
            "INSERT INTO workflows (namespace, name) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )?
        .execute((namespace, name))?;
        let id = tx
            .prepare_cached("SELECT id FROM workflows WHERE namespace = ?1 AND name = ?2")?
            .query_row((namespace, name), |row| row.get(0))?;
        if self.0.values().map(HashMap::len).sum::<usize>() >= Self::REMEMBERED {
            self.0.clear();
        }
        self.0
            .entry(namespace.clone())
            .or_default()
            .insert(name.clone(), id);
        Ok(id)
    }
}

pub(super) fn acquire(tx: &Transaction<'_>, shards: &[Shard]) -> Outcome<Vec<Lease>> {
    let mut take = tx.prepare_cached(
        "INSERT INTO shards (id, epoch, seq) VALUES (?1, 1, 0)
         ON CONFLICT (id) DO UPDATE SET epoch = epoch + 1 RETURNING epoch, seq",
    )?;
    let leases = shards.iter().map(|&shard| {
        Ok(take.query_row([shard.0], |row| {
            Ok(Lease {
                shard,
                epoch: row.get(0)?,
                seq: row.get(1)?,
            })
        })?)
    });
    leases.collect()
}

/// Writes a commit that was checked. Table after table, so that each one's pages are at hand.
pub(super) fn commit(tx: &Transaction<'_>, ids: &mut WorkflowIds, commit: &Commit) -> Outcome<()> {
    pass_fence(tx, &commit.shards)?;
    if !commit.entities.is_empty() {
        let writes: Vec<(Vec<u8>, &EntityWrite)> = commit
            .entities
            .iter()
            .map(|write| (write.key.to_bytes(), write))
            .collect();
        append_chunks(tx, &writes)?;
        refer_to_blobs(tx, &writes)?;
        set_wakes(tx, &writes)?;
        write_pages(tx, &writes)?;
        write_snapshots(tx, &writes)?;
    }
    if !commit.runs.is_empty() {
        write_runs(tx, ids, &commit.runs)?;
    }
    documents(tx, &commit.documents)?;
    for (namespace, name, version) in &commit.activated {
        let workflow = ids.of(tx, namespace, name)?;
        tx.prepare_cached("UPDATE workflows SET active = ?2, deployed = 1 WHERE id = ?1")?
            .execute((workflow, version))?;
    }
    Ok(())
}

pub(super) fn documents(tx: &Transaction<'_>, documents: &[Document]) -> Outcome<()> {
    for (key, body) in documents {
        match body {
            Some(body) => tx
                .prepare_cached(
                    "INSERT INTO documents (key, body) VALUES (?1, ?2)
                     ON CONFLICT (key) DO UPDATE SET body = ?2",
                )?
                .execute((key, body))?,
            None => tx
                .prepare_cached("DELETE FROM documents WHERE key = ?1")?
                .execute([key])?,
        };
    }
    Ok(())
}

fn pass_fence(tx: &Transaction<'_>, leases: &[Lease]) -> Outcome<()> {
    let mut advance = tx.prepare_cached(
        "UPDATE shards SET seq = seq + 1 WHERE id = ?1 AND epoch = ?2 AND seq = ?3",
    )?;
    for held in leases {
        if advance.execute((held.shard.0, held.epoch, held.seq))? != 1 {
            return Err(Error::Conflict(held.shard).into());
        }
    }
    Ok(())
}

fn append_chunks(tx: &Transaction<'_>, writes: &[(Vec<u8>, &EntityWrite)]) -> Outcome<()> {
    let mut append =
        tx.prepare_cached("INSERT INTO history (entity, seq, chunk) VALUES (?1, ?2, ?3)")?;
    for (key, write) in writes
        .iter()
        .filter(|(_, write)| !write.chunk.is_empty() && !write.forget)
    {
        append.execute((key, write.seq, &write.chunk))?;
    }
    Ok(())
}

fn refer_to_blobs(tx: &Transaction<'_>, writes: &[(Vec<u8>, &EntityWrite)]) -> Outcome<()> {
    for (key, write) in writes {
        refer(tx, key, &write.chunk)?;
    }
    Ok(())
}

/// Records the blobs whose hashes stand in what a holder writes.
fn refer(tx: &Transaction<'_>, holder: &[u8], written: &[u8]) -> rusqlite::Result<()> {
    for hash in refs::hashes_in(written) {
        tx.prepare_cached(
            "INSERT INTO blob_refs (entity, hash) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )?
        .execute((holder, hash))?;
    }
    Ok(())
}

/// What the chunks referred to that are gone counts no more.
fn refer_anew(tx: &Transaction<'_>, key: &[u8], snapshot: &[u8]) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM blob_refs WHERE entity = ?1")?
        .execute([key])?;
    refer(tx, key, snapshot)?;
    let mut kept = tx.prepare_cached(
        "SELECT chunk FROM history WHERE entity = ?1 UNION ALL SELECT content FROM pages WHERE entity = ?1",
    )?;
    let mut kept = kept.query([key])?;
    while let Some(row) = kept.next()? {
        refer(tx, key, row.get_ref(0)?.as_blob()?)?;
    }
    Ok(())
}

fn set_wakes(tx: &Transaction<'_>, writes: &[(Vec<u8>, &EntityWrite)]) -> Outcome<()> {
    let mut set = tx.prepare_cached(
        "INSERT INTO wakes (entity, wake_at) VALUES (?1, ?2) ON CONFLICT (entity)
         DO UPDATE SET wake_at = excluded.wake_at WHERE wake_at <> excluded.wake_at",
    )?;
    let mut clear = tx.prepare_cached("DELETE FROM wakes WHERE entity = ?1")?;
    for (key, write) in writes {
        match write.wake_at {
            Some(at) => set.execute((key, at.max(Time::ZERO).0))?,
            None => clear.execute([key])?,
        };
    }
    Ok(())
}

fn write_snapshots(tx: &Transaction<'_>, writes: &[(Vec<u8>, &EntityWrite)]) -> Outcome<()> {
    for (key, write) in writes {
        let Some(snapshot) = &write.snapshot else {
            continue;
        };
        if drops_entity(write) {
            drop_entity(tx, key)?;
            continue;
        }
        tx.prepare_cached(
            "INSERT INTO snapshots (entity, seq, state) VALUES (?1, ?2, ?3)
             ON CONFLICT (entity) DO UPDATE SET seq = excluded.seq, state = excluded.state",
        )?
        .execute((key, write.seq, snapshot))?;
        if write.forget {
            tx.prepare_cached("DELETE FROM history WHERE entity = ?1 AND seq <= ?2")?
                .execute((key, write.seq))?;
            refer_anew(tx, key, snapshot)?;
        }
    }
    Ok(())
}

fn write_pages(tx: &Transaction<'_>, writes: &[(Vec<u8>, &EntityWrite)]) -> Outcome<()> {
    for (key, write) in writes {
        for (number, content) in &write.pages {
            tx.prepare_cached("INSERT INTO pages (entity, number, content) VALUES (?1, ?2, ?3)")?
                .execute((key, number, content))?;
        }
    }
    Ok(())
}

fn drop_entity(tx: &Transaction<'_>, key: &[u8]) -> rusqlite::Result<()> {
    for sql in [
        "DELETE FROM history WHERE entity = ?1",
        "DELETE FROM snapshots WHERE entity = ?1",
        "DELETE FROM pages WHERE entity = ?1",
        "DELETE FROM wakes WHERE entity = ?1",
        "DELETE FROM blob_refs WHERE entity = ?1",
    ] {
        tx.prepare_cached(sql)?.execute([key])?;
    }
    Ok(())
}

fn write_runs(tx: &Transaction<'_>, ids: &mut WorkflowIds, rows: &[RunRow]) -> Outcome<()> {
    let mut deltas = Deltas::default();
    let mut find = tx
        .prepare_cached("SELECT workflow_id, status, parent, created_at FROM runs WHERE id = ?1")?;
    for row in rows {
        let id = row.id.to_bytes();
        let workflow = ids.of(tx, &row.namespace, &row.workflow)?;
        let found: Option<(i64, u8, Option<[u8; 16]>, i64)> = find
            .query_row([id], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
            .optional()?;
        let status = row.status.number();
        let parent = row.parent.map(RunId::to_bytes);
        match found {
            Some((of, was, from, at)) if (of, from, at) == (workflow, parent, row.created_at.0) => {
                if was == status && !row.status.ended() {
                    update_row(tx, row)?;
                } else {
                    update_row_and_status(tx, row)?;
                    deltas.add(workflow, was, -1);
                    deltas.add(workflow, status, 1);
                }
            }
            found => {
                if let Some((of, was, ..)) = found {
                    tx.prepare_cached("DELETE FROM runs WHERE id = ?1")?
                        .execute([id])?;
                    deltas.add(of, was, -1);
                }
                insert_row(tx, workflow, row)?;
                deltas.add(workflow, status, 1);
            }
        }
    }
    deltas.write(tx)
}

fn insert_row(tx: &Transaction<'_>, workflow: i64, row: &RunRow) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO runs (id, workflow_id, version, status, created_at, started_at, ended_at,
             parent, trigger, good, bad, known, error, labels)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?
    .execute(params![
        row.id.to_bytes(),
        workflow,
        row.version,
        row.status.number(),
        row.created_at.0,
        row.started_at.map(|at| at.0),
        row.ended_at.map(|at| at.0),
        row.parent.map(RunId::to_bytes),
        row.trigger,
        row.counts[0],
        row.counts[1],
        row.counts[2],
        row.error,
        row.labels,
    ])
    .map(drop)
}

/// All that can change while a run goes on and that no index holds: no index is touched.
fn update_row(tx: &Transaction<'_>, row: &RunRow) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE runs SET version = ?2, started_at = ?3, trigger = ?4, good = ?5, bad = ?6,
             known = ?7, error = ?8, labels = ?9, ended_at = ?10
         WHERE id = ?1",
    )?
    .execute(params![
        row.id.to_bytes(),
        row.version,
        row.started_at.map(|at| at.0),
        row.trigger,
        row.counts[0],
        row.counts[1],
        row.counts[2],
        row.error,
        row.labels,
        row.ended_at.map(|at| at.0),
    ])
    .map(drop)
}

fn update_row_and_status(tx: &Transaction<'_>, row: &RunRow) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE runs SET version = ?2, started_at = ?3, trigger = ?4, good = ?5, bad = ?6,
             known = ?7, error = ?8, labels = ?9, ended_at = ?10, status = ?11
         WHERE id = ?1",
    )?
    .execute(params![
        row.id.to_bytes(),
        row.version,
        row.started_at.map(|at| at.0),
        row.trigger,
        row.counts[0],
        row.counts[1],
        row.counts[2],
        row.error,
        row.labels,
        row.ended_at.map(|at| at.0),
        row.status.number(),
    ])
    .map(drop)
}

/// Changes of the kept counts, gathered so that each is written once.
#[derive(Default)]
struct Deltas(BTreeMap<(i64, u8), i64>);

impl Deltas {
    fn add(&mut self, workflow: i64, status: u8, by: i64) {
        *self.0.entry((workflow, status)).or_default() += by;
    }

    fn write(self, tx: &Transaction<'_>) -> Outcome<()> {
        let mut add = tx.prepare_cached(
            "INSERT INTO run_counts (workflow_id, status, runs) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET runs = runs + excluded.runs",
        )?;
        for ((workflow, status), by) in self.0.into_iter().filter(|(_, by)| *by != 0) {
            add.execute((workflow, status, by))?;
        }
        Ok(())
    }
}

pub(super) fn register(
    tx: &Transaction<'_>,
    ids: &mut WorkflowIds,
    row: &VersionRow,
) -> Outcome<u32> {
    let workflow = ids.of(tx, &row.namespace, &row.workflow)?;
    let known = tx
        .prepare_cached("SELECT version FROM versions WHERE workflow_id = ?1 AND hash = ?2")?
        .query_row((workflow, &row.hash), |row| row.get(0))
        .optional()?;
    if let Some(version) = known {
        return Ok(version);
    }
    let version: u32 = tx
        .prepare_cached(
            "UPDATE workflows SET newest = newest + 1,
                 active = CASE deployed WHEN 0 THEN newest + 1 ELSE active END
             WHERE id = ?1 RETURNING newest",
        )?
        .query_row([workflow], |row| row.get(0))?;
    tx.prepare_cached(
        "INSERT INTO versions (workflow_id, version, hash, spec, source, bundle, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute((
        workflow,
        version,
        &row.hash,
        &row.spec,
        &row.source,
        &row.bundle,
        row.created_at.0,
    ))?;
    if let Some(bundle) = &row.bundle {
        refer(tx, VERSIONS, bundle.as_bytes())?;
    }
    Ok(version)
}

pub(super) fn delete_runs(tx: &Transaction<'_>, ids: &[RunId]) -> Outcome<u64> {
    let mut deltas = Deltas::default();
    let mut deleted = 0;
    let mut find = tx.prepare_cached("SELECT workflow_id, status FROM runs WHERE id = ?1")?;
    for id in ids {
        let found: Option<(i64, u8)> = find
            .query_row([id.to_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((workflow, status)) = found else {
            continue;
        };
        if RunStatus::from_number(status).is_some_and(RunStatus::ended) {
            tx.prepare_cached("DELETE FROM runs WHERE id = ?1")?
                .execute([id.to_bytes()])?;
            drop_entity(tx, &EntityKey::Run(*id).to_bytes())?;
            deltas.add(workflow, status, -1);
            deleted += 1;
        }
    }
    deltas.write(tx)?;
    Ok(deleted)
}
