//! What changes rows. Each function runs inside a transaction that its caller commits.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kapell_model::{EntityKey, RunId, RunStatus, Shard, Time};
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::failure::Failure;
use crate::check::{drops_entity, version_taken};
use crate::filter::{indexed, labels};
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
    let numbers: Vec<u16> = shards.iter().map(|shard| shard.0).collect();
    let numbers = serde_json::to_string(&numbers).unwrap_or_default();
    let mut take = tx.prepare_cached(
        "INSERT INTO shards (id, epoch, seq) SELECT value, 1, 0 FROM json_each(?1) WHERE true
         ON CONFLICT (id) DO UPDATE SET epoch = epoch + 1 RETURNING id, epoch, seq",
    )?;
    let leases = take.query_map([numbers], |row| {
        Ok(Lease {
            shard: Shard(row.get(0)?),
            epoch: row.get(1)?,
            seq: row.get(2)?,
        })
    })?;
    Ok(leases.collect::<rusqlite::Result<_>>()?)
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
    pass_mail(tx, commit)?;
    documents(tx, &commit.documents)?;
    for row in &commit.versions {
        add_version(tx, ids, row)?;
    }
    for (namespace, name, version) in &commit.activated {
        let workflow = ids.of(tx, namespace, name)?;
        tx.prepare_cached("UPDATE workflows SET active = ?2, deployed = 1 WHERE id = ?1")?
            .execute((workflow, version))?;
    }
    Ok(())
}

/// What is sent waits, and what was taken is over: the mark is that it is gone.
fn pass_mail(tx: &Transaction<'_>, commit: &Commit) -> Outcome<()> {
    for mail in &commit.mail {
        tx.prepare_cached(
            "INSERT INTO mail (to_shard, from_shard, number, entity, message)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute((
            mail.to.shard().0,
            mail.from.0,
            mail.number,
            mail.to.to_bytes(),
            &mail.message,
        ))?;
    }
    for mark in &commit.marks {
        tx.prepare_cached(
            "DELETE FROM mail WHERE to_shard = ?1 AND from_shard = ?2 AND number <= ?3",
        )?
        .execute((mark.to.0, mark.from.0, mark.number))?;
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
    let mut find = tx.prepare_cached(
        "SELECT workflow_id, status, parent, created_at, trigger, trigger_name, scheduled_at, labels,
             backfill
         FROM runs WHERE id = ?1",
    )?;
    for row in rows {
        let id = row.id.to_bytes();
        let workflow = ids.of(tx, &row.namespace, &row.workflow)?;
        let found = find
            .query_row([id], |found| Found::read(found, workflow, row))
            .optional()?;
        let status = row.status.number();
        match found {
            Some(Found { was, moved: None }) => {
                if was == status && !row.status.ended() {
                    update_row(tx, row)?;
                } else {
                    update_row_and_status(tx, row)?;
                    deltas.add(workflow, was, -1);
                    deltas.add(workflow, status, 1);
                }
            }
            found => {
                if let Some(Found {
                    was,
                    moved: Some((of, created_at, labels)),
                }) = found
                {
                    delete_row(tx, row.id, created_at, &labels)?;
                    deltas.add(of, was, -1);
                }
                insert_row(tx, workflow, row)?;
                deltas.add(workflow, status, 1);
            }
        }
    }
    deltas.write(tx)
}

/// A row as it was.
struct Found {
    was: u8,
    /// Its workflow, creation and labels, if anything changes that an index holds beside the status:
    /// then it is written anew.
    moved: Option<(i64, i64, String)>,
}

impl Found {
    fn read(found: &Row<'_>, workflow: i64, row: &RunRow) -> rusqlite::Result<Self> {
        let (of, created_at) = (found.get(0)?, found.get(3)?);
        let same = (of, created_at) == (workflow, row.created_at.0)
            && found.get::<_, Option<[u8; 16]>>(2)? == row.parent.map(RunId::to_bytes)
            && found.get_ref(4)?.as_str()? == &*row.trigger
            && found.get_ref(5)?.as_str_or_null()? == row.trigger_name.as_deref()
            && found.get::<_, Option<i64>>(6)? == row.scheduled_at.map(|at| at.0)
            && found.get_ref(7)?.as_str()? == row.labels
            && found.get_ref(8)?.as_str_or_null()? == row.backfill.as_deref();
        let moved = (!same).then(|| Ok::<_, rusqlite::Error>((of, created_at, found.get(7)?)));
        Ok(Self {
            was: found.get(1)?,
            moved: moved.transpose()?,
        })
    }
}

fn insert_row(tx: &Transaction<'_>, workflow: i64, row: &RunRow) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO runs (id, workflow_id, version, status, created_at, started_at, ended_at,
             parent, trigger, good, bad, known, error, labels, scheduled_at, trigger_name, backfill)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
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
        row.scheduled_at.map(|at| at.0),
        row.trigger_name,
        row.backfill,
    ])?;
    for (key, value) in labels(&row.labels) {
        tx.prepare_cached(
            "INSERT INTO run_labels (key, value, created_at, id) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute((key, indexed(&value), row.created_at.0, row.id.to_bytes()))?;
    }
    Ok(())
}

fn delete_row(tx: &Transaction<'_>, id: RunId, created_at: i64, of: &str) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM runs WHERE id = ?1")?
        .execute([id.to_bytes()])?;
    for (key, value) in labels(of) {
        tx.prepare_cached(
            "DELETE FROM run_labels WHERE key = ?1 AND value = ?2 AND created_at = ?3 AND id = ?4",
        )?
        .execute((key, indexed(&value), created_at, id.to_bytes()))?;
    }
    Ok(())
}

/// All that can change while a run goes on and that no index holds but that of errors.
fn update_row(tx: &Transaction<'_>, row: &RunRow) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE runs SET version = ?2, started_at = ?3, good = ?4, bad = ?5, known = ?6, error = ?7,
             ended_at = ?8
         WHERE id = ?1",
    )?
    .execute(params![
        row.id.to_bytes(),
        row.version,
        row.started_at.map(|at| at.0),
        row.counts[0],
        row.counts[1],
        row.counts[2],
        row.error,
        row.ended_at.map(|at| at.0),
    ])
    .map(drop)
}

fn update_row_and_status(tx: &Transaction<'_>, row: &RunRow) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE runs SET version = ?2, started_at = ?3, good = ?4, bad = ?5, known = ?6, error = ?7,
             ended_at = ?8, status = ?9
         WHERE id = ?1",
    )?
    .execute(params![
        row.id.to_bytes(),
        row.version,
        row.started_at.map(|at| at.0),
        row.counts[0],
        row.counts[1],
        row.counts[2],
        row.error,
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
    insert_version(tx, workflow, version, row)?;
    Ok(version)
}

/// Registers a version under the number that it names, and makes it no more than that.
fn add_version(tx: &Transaction<'_>, ids: &mut WorkflowIds, row: &VersionRow) -> Outcome<()> {
    let workflow = ids.of(tx, &row.namespace, &row.workflow)?;
    let next: u32 = tx
        .prepare_cached("UPDATE workflows SET newest = newest + 1 WHERE id = ?1 RETURNING newest")?
        .query_row([workflow], |row| row.get(0))?;
    let known = tx
        .prepare_cached("SELECT 1 FROM versions WHERE workflow_id = ?1 AND hash = ?2")?
        .exists((workflow, &row.hash))?;
    if known || next != row.version {
        return Err(version_taken(row).into());
    }
    Ok(insert_version(tx, workflow, next, row)?)
}

fn insert_version(
    tx: &Transaction<'_>,
    workflow: i64,
    version: u32,
    row: &VersionRow,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO versions (workflow_id, version, hash, spec, source, bundle, created_at, author)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute((
        workflow,
        version,
        &row.hash,
        &row.spec,
        &row.source,
        &row.bundle,
        row.created_at.0,
        &row.author,
    ))?;
    match &row.bundle {
        Some(bundle) => refer(tx, VERSIONS, bundle.as_bytes()),
        None => Ok(()),
    }
}

pub(super) fn delete_runs(tx: &Transaction<'_>, ids: &[RunId]) -> Outcome<u64> {
    let mut deltas = Deltas::default();
    let mut deleted = 0;
    let mut find = tx
        .prepare_cached("SELECT workflow_id, status, created_at, labels FROM runs WHERE id = ?1")?;
    for id in ids {
        let found: Option<(i64, u8, i64, String)> = find
            .query_row([id.to_bytes()], |row| row.try_into())
            .optional()?;
        let Some((workflow, status, created_at, labels)) = found else {
            continue;
        };
        if RunStatus::from_number(status).is_some_and(RunStatus::ended) {
            delete_row(tx, *id, created_at, &labels)?;
            drop_entity(tx, &EntityKey::Run(*id).to_bytes())?;
            deltas.add(workflow, status, -1);
            deleted += 1;
        }
    }
    deltas.write(tx)?;
    Ok(deleted)
}
