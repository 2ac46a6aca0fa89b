//! What only reads. Each function runs on a reader's connection, inside one transaction where it
//! needs more than one statement.

use std::sync::Arc;

use kapell_model::{EntityKey, RunId, RunStatus, Shard, ShardSet, Time};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row};

use super::merge::merge;
use crate::check::after_all;
use crate::refs::{self, Hash};
use crate::suffix::{NEWEST_SEARCHED, Suffix};
use crate::{Loaded, Mail, Order, RunRow, VersionRow};

type Outcome<T> = rusqlite::Result<T>;

pub(super) const DUE: &str = "SELECT wake_at, entity FROM wakes INDEXED BY wakes_by_time
             WHERE (wake_at, entity) > (?1, ?2) AND wake_at <= ?3 ORDER BY wake_at, entity LIMIT ?4";

pub(super) const NEXT_WAKE: &str = "SELECT wake_at FROM wakes INDEXED BY wakes_by_time WHERE wake_at > ?1 ORDER BY wake_at LIMIT 1";

pub(super) const NEWEST_IDS: &str =
    "SELECT id FROM runs INDEXED BY runs_by_creation ORDER BY created_at DESC, id DESC LIMIT ?1";

pub(super) const DOCUMENTS: &str =
    "SELECT key, body FROM documents WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3";

pub(super) const DOCUMENTS_BACKWARD: &str =
    "SELECT key, body FROM documents WHERE key >= ?1 AND key < ?2 ORDER BY key DESC LIMIT ?3";

pub(super) const VERSIONS: &str = "SELECT w.namespace, w.name, v.version, v.hash, v.spec, v.source, v.bundle, v.created_at, v.author
             FROM workflows w CROSS JOIN versions v ON v.workflow_id = w.id AND v.version < ?3
             WHERE w.namespace = ?1 AND w.name = ?2 ORDER BY v.version DESC LIMIT ?4";

pub(super) const BLOBS_OF: &str =
    "SELECT hash FROM blob_refs WHERE entity = ?1 AND hash > ?2 ORDER BY hash LIMIT ?3";

pub(super) const REFERRED: &str = "SELECT 1 FROM blob_refs WHERE hash = ?1 LIMIT 1";

pub(super) const EXPIRED: &str = "SELECT ended_at, id FROM runs INDEXED BY runs_by_end
         WHERE workflow_id = ?1 AND status >= 5 AND ended_at IS NOT NULL
             AND (ended_at, id) > (?2, ?3) AND ended_at < ?4
         ORDER BY ended_at, id LIMIT ?5";

pub(super) fn load(connection: &Connection, key: &EntityKey) -> Outcome<Option<Loaded>> {
    let bytes = key.to_bytes();
    let snapshot: Option<(u64, Vec<u8>)> = connection
        .prepare_cached("SELECT seq, state FROM snapshots WHERE entity = ?1")?
        .query_row([&bytes], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let first = snapshot.as_ref().map_or(0, |(seq, _)| seq + 1);
    let chunks = history(connection, key, first, usize::MAX)?;
    Ok((snapshot.is_some() || !chunks.is_empty()).then_some(Loaded { snapshot, chunks }))
}

pub(super) fn history(
    connection: &Connection,
    key: &EntityKey,
    from: u64,
    limit: usize,
) -> Outcome<Vec<(u64, Vec<u8>)>> {
    let Ok(from) = i64::try_from(from) else {
        return Ok(Vec::new());
    };
    connection
        .prepare_cached(
            "SELECT seq, chunk FROM history WHERE entity = ?1 AND seq >= ?2 ORDER BY seq LIMIT ?3",
        )?
        .query_map((key.to_bytes(), from, bound(limit)), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect()
}

pub(super) fn page(
    connection: &Connection,
    key: &EntityKey,
    page: u32,
) -> Outcome<Option<Vec<u8>>> {
    connection
        .prepare_cached("SELECT content FROM pages WHERE entity = ?1 AND number = ?2")?
        .query_row((key.to_bytes(), page), |row| row.get(0))
        .optional()
}

pub(super) fn due(
    connection: &Connection,
    now: Time,
    after: Option<&(Time, EntityKey)>,
    limit: usize,
) -> Outcome<Vec<(Time, EntityKey)>> {
    // Nothing is before zero, so this is before everything.
    let (time, key) = after.map_or((-1, Vec::new()), |(time, key)| (time.0, key.to_bytes()));
    connection
        .prepare_cached(DUE)?
        .query_map((time, key, now.0, bound(limit)), |row| {
            let key: Vec<u8> = row.get(1)?;
            let key =
                EntityKey::from_bytes(&key).ok_or_else(|| odd(1, Type::Blob, "is not a key"))?;
            Ok((Time(row.get(0)?), key))
        })?
        .collect()
}

pub(super) fn mail(connection: &Connection, shards: &ShardSet, limit: usize) -> Outcome<Vec<Mail>> {
    let mut query = connection.prepare_cached(
        "SELECT to_shard, from_shard, number, entity, message FROM mail
         ORDER BY to_shard, from_shard, number",
    )?;
    let mut rows = query.query(())?;
    let mut mail = Vec::new();
    while let Some(row) = rows.next()?.filter(|_| mail.len() < limit) {
        if !shards.contains(Shard(row.get(0)?)) {
            continue;
        }
        let key: Vec<u8> = row.get(3)?;
        mail.push(Mail {
            from: Shard(row.get(1)?),
            number: row.get(2)?,
            to: EntityKey::from_bytes(&key).ok_or_else(|| odd(3, Type::Blob, "is not a key"))?,
            message: row.get(4)?,
        });
    }
    Ok(mail)
}

pub(super) fn next_wake(connection: &Connection, now: Time) -> Outcome<Option<Time>> {
    connection
        .prepare_cached(NEXT_WAKE)?
        .query_row([now.0], |row| row.get(0).map(Time))
        .optional()
}

pub(super) const RUN: &str =
    "SELECT r.id, w.namespace, w.name, r.version, r.status, r.created_at, r.started_at, r.ended_at,
         r.parent, r.trigger, r.good, r.bad, r.known, r.error, r.labels, r.scheduled_at, r.trigger_name,
         r.backfill
     FROM runs r CROSS JOIN workflows w ON w.id = r.workflow_id WHERE r.id = ?1";

pub(super) fn run(connection: &Connection, id: RunId) -> Outcome<Option<RunRow>> {
    connection
        .prepare_cached(RUN)?
        .query_row([id.to_bytes()], run_row)
        .optional()
}

fn run_row(row: &Row<'_>) -> Outcome<RunRow> {
    let status = row.get(4)?;
    Ok(RunRow {
        id: run_id(row, 0)?,
        namespace: row.get(1)?,
        workflow: row.get(2)?,
        version: row.get(3)?,
        status: RunStatus::from_number(status)
            .ok_or_else(|| odd(4, Type::Integer, "is not a status"))?,
        created_at: Time(row.get(5)?),
        started_at: row.get::<_, Option<i64>>(6)?.map(Time),
        ended_at: row.get::<_, Option<i64>>(7)?.map(Time),
        parent: row.get::<_, Option<[u8; 16]>>(8)?.map(RunId::from_bytes),
        trigger: row.get(9)?,
        counts: [row.get(10)?, row.get(11)?, row.get(12)?],
        error: row.get(13)?,
        labels: row.get(14)?,
        scheduled_at: row.get::<_, Option<i64>>(15)?.map(Time),
        trigger_name: row.get(16)?,
        backfill: row.get(17)?,
    })
}

pub(super) fn run_id(row: &Row<'_>, column: usize) -> Outcome<RunId> {
    row.get::<_, [u8; 16]>(column).map(RunId::from_bytes)
}

pub(super) fn find_runs(
    connection: &Connection,
    suffix: &str,
    limit: usize,
) -> Outcome<Vec<RunId>> {
    match Suffix::parse(suffix) {
        None => Ok(Vec::new()),
        Some(Suffix::Whole(id)) => {
            let found = connection
                .prepare_cached("SELECT 1 FROM runs WHERE id = ?1")?
                .exists([id.to_bytes()])?;
            Ok(found.then_some(id).into_iter().take(limit).collect())
        }
        Some(suffix) => {
            let mut newest = connection.prepare_cached(NEWEST_IDS)?;
            let newest = newest.query_map([bound(NEWEST_SEARCHED)], |row| run_id(row, 0))?;
            newest
                .filter(|id| id.as_ref().map_or(true, |id| suffix.matches(*id)))
                .take(limit)
                .collect()
        }
    }
}

pub(super) fn run_counts(
    connection: &Connection,
    namespace: &str,
) -> Outcome<Vec<(Arc<str>, RunStatus, u64)>> {
    connection
        .prepare_cached(
            "SELECT w.name, c.status, c.runs FROM workflows w CROSS JOIN run_counts c ON c.workflow_id = w.id
             WHERE w.namespace = ?1 AND c.runs > 0 ORDER BY w.name, c.status",
        )?
        .query_map([namespace], |row| {
            let status = RunStatus::from_number(row.get(1)?);
            let status = status.ok_or_else(|| odd(1, Type::Integer, "is not a status"))?;
            Ok((row.get(0)?, status, row.get(2)?))
        })?
        .collect()
}

pub(super) fn version(
    connection: &Connection,
    namespace: &str,
    workflow: &str,
    version: Option<u32>,
) -> Outcome<Option<VersionRow>> {
    connection
        .prepare_cached(
            "SELECT w.namespace, w.name, v.version, v.hash, v.spec, v.source, v.bundle, v.created_at, v.author
             FROM workflows w CROSS JOIN versions v ON v.workflow_id = w.id AND v.version = ifnull(?3, w.active)
             WHERE w.namespace = ?1 AND w.name = ?2",
        )?
        .query_row((namespace, workflow, version), version_row)
        .optional()
}

fn version_row(row: &Row<'_>) -> Outcome<VersionRow> {
    Ok(VersionRow {
        namespace: row.get(0)?,
        workflow: row.get(1)?,
        version: row.get(2)?,
        hash: row.get(3)?,
        spec: row.get(4)?,
        source: row.get(5)?,
        bundle: row.get(6)?,
        created_at: Time(row.get(7)?),
        author: row.get(8)?,
    })
}

pub(super) fn version_numbers(
    connection: &Connection,
    namespace: &str,
    workflow: &str,
    hash: &str,
) -> Outcome<(Option<u32>, u32)> {
    let found = connection
        .prepare_cached(
            "SELECT (SELECT version FROM versions v WHERE v.workflow_id = w.id AND v.hash = ?3), w.newest
             FROM workflows w WHERE w.namespace = ?1 AND w.name = ?2",
        )?
        .query_row((namespace, workflow, hash), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    Ok(found.unwrap_or((None, 0)))
}

pub(super) fn versions(
    connection: &Connection,
    namespace: &str,
    workflow: &str,
    before: Option<u32>,
    limit: usize,
) -> Outcome<Vec<VersionRow>> {
    let before = before.map_or(i64::MAX, i64::from);
    connection
        .prepare_cached(VERSIONS)?
        .query_map((namespace, workflow, before, bound(limit)), version_row)?
        .collect()
}

pub(super) fn list_workflows(
    connection: &Connection,
    namespace: &str,
    after: &str,
    limit: usize,
) -> Outcome<Vec<(Arc<str>, u32)>> {
    connection
        .prepare_cached(
            "SELECT name, active FROM workflows
             WHERE namespace = ?1 AND name > ?2 AND newest > 0 ORDER BY name LIMIT ?3",
        )?
        .query_map((namespace, after, bound(limit)), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect()
}

pub(super) fn expired_runs(
    connection: &Connection,
    workflow: Option<(&str, &str)>,
    before: Time,
    limit: usize,
) -> Outcome<Vec<RunId>> {
    let mut workflows = connection.prepare_cached(
        "SELECT id FROM workflows WHERE (?1 IS NULL OR namespace = ?1) AND (?2 IS NULL OR name = ?2)",
    )?;
    let (namespace, name) = workflow.unzip();
    let workflows: Vec<i64> = workflows
        .query_map((namespace, name), |row| row.get(0))?
        .collect::<Outcome<_>>()?;
    let mut range = connection.prepare_cached(EXPIRED)?;
    let expired = merge(
        &workflows,
        limit,
        |workflow, last: Option<(i64, RunId)>, limit| {
            // An empty id is before every id.
            let (ended_at, id) = last.map_or((i64::MIN, Vec::new()), |(at, id)| {
                (at, id.to_bytes().to_vec())
            });
            let key = (workflow, ended_at, id, before.0, bound(limit));
            range
                .query_map(key, |row| Ok((row.get(0)?, run_id(row, 1)?)))?
                .collect()
        },
    )?;
    Ok(expired.into_iter().map(|(_, id)| id).collect())
}

pub(super) fn blobs_of(
    connection: &Connection,
    key: &EntityKey,
    after: &str,
    limit: usize,
) -> Outcome<Vec<Arc<str>>> {
    // An empty hash is before every hash.
    let after = refs::parse(after.as_bytes()).map_or(Vec::new(), Vec::from);
    connection
        .prepare_cached(BLOBS_OF)?
        .query_map((key.to_bytes(), after, bound(limit)), |row| {
            row.get::<_, Hash>(0).map(|hash| refs::text(&hash))
        })?
        .collect()
}

pub(super) fn blobs_referred(connection: &Connection, hashes: &[Hash]) -> Outcome<Vec<bool>> {
    let mut refers = connection.prepare_cached(REFERRED)?;
    hashes.iter().map(|hash| refers.exists([hash])).collect()
}

pub(super) fn bound(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn odd(column: usize, kind: Type, what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, kind, what.into())
}

pub(super) fn documents(
    connection: &Connection,
    prefix: &[u8],
    beyond: Option<&[u8]>,
    order: Order,
    limit: usize,
) -> Outcome<Vec<(Vec<u8>, String)>> {
    let (mut from, mut to) = (prefix.to_vec(), after_all(prefix));
    let sql = match order {
        Order::Forward => {
            // The least key that is greater.
            from = beyond
                .map_or_else(Vec::new, |beyond| [beyond, &[0]].concat())
                .max(from);
            DOCUMENTS
        }
        Order::Backward => {
            to = beyond.map_or_else(|| to.clone(), <[u8]>::to_vec).min(to);
            DOCUMENTS_BACKWARD
        }
    };
    connection
        .prepare_cached(sql)?
        .query_map((from, to, bound(limit)), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect()
}
