//! What only reads. Each function is one statement, which sees one state of all tables.

use std::sync::Arc;

use kapell_model::{EntityKey, RunId, RunStatus, Shard, ShardSet, Time};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::failure::Failure;
use super::keys::{self, Key};
use super::session::Session;
use crate::check::after_all;
use crate::refs::{self, Hash};
use crate::suffix::{NEWEST_SEARCHED, Suffix};
use crate::{Loaded, Mail, Order, RunRow, VersionRow};

pub(super) type Outcome<T> = Result<T, Failure>;

/// What is kept of an entity beside its pages. Its history lies at one of two places.
const LOAD: &str = "SELECT 0, seq, state FROM snapshots WHERE entity = $1
    UNION ALL SELECT 1, seq, chunk FROM history WHERE entity = $1 AND period IN ($2, 0)
        AND seq > coalesce((SELECT seq FROM snapshots WHERE entity = $1), -1)";

const HISTORY: &str =
    "SELECT seq, chunk FROM history WHERE entity = $1 AND period IN ($2, 0) AND seq >= $3
    ORDER BY seq LIMIT $4";

pub(super) const DUE: &str = "SELECT wake_at, coalesce(whole, entity) FROM wakes
    WHERE (wake_at, entity) > ($1, $2) AND wake_at <= $3 ORDER BY wake_at, entity LIMIT $4";

pub(super) const NEXT_WAKE: &str =
    "SELECT wake_at FROM wakes WHERE wake_at > $1 ORDER BY wake_at LIMIT 1";

/// Columns of a run, of which `r` is the row and `w` the workflow.
pub(super) const ROW: &str =
    "r.id, w.namespace, w.name, r.version, r.status, r.created_at, r.started_at, r.ended_at,
    r.parent, r.trigger, r.good, r.bad, r.known, r.error, r.labels, r.scheduled_at, r.trigger_name,
    r.backfill";

/// The newest runs whose ids end so: in whole bytes, and in bits of the byte before.
pub(super) const BY_SUFFIX: &str =
    "SELECT id FROM (SELECT id FROM runs ORDER BY created_at DESC, id DESC LIMIT $1) r
    WHERE substring(id FROM $2) = $3 AND get_byte(id, $4) & $5 = $6 LIMIT $7";

/// Ended runs of these workflows by their end.
pub(super) fn expired(workflows: &str) -> String {
    format!(
        "SELECT e.id FROM workflows w CROSS JOIN LATERAL (
            SELECT r.ended_at, r.id FROM runs_ended r
            WHERE r.workflow = w.id AND r.ended_at IS NOT NULL AND r.ended_at < $3
            ORDER BY r.ended_at, r.id LIMIT $4) e
        WHERE {workflows} ORDER BY e.ended_at, e.id LIMIT $4"
    )
}

/// The condition on workflows `w` by namespace and name, which are the first two values.
pub(super) fn of_workflows(namespace: Option<&[u8]>, name: Option<&[u8]>) -> &'static str {
    match (namespace, name) {
        (Some(_), Some(_)) => "w.namespace = $1 AND w.name = $2",
        (Some(_), None) => "w.namespace = $1 AND $2::bytea IS NULL",
        (None, Some(_)) => "$1::bytea IS NULL AND w.name = $2",
        (None, None) => "$1::bytea IS NULL AND $2::bytea IS NULL",
    }
}

pub(super) const BLOBS_OF: &str = "SELECT DISTINCT hash FROM blob_refs
    WHERE entity = $1 AND hash > $2 ORDER BY hash LIMIT $3";

pub(super) const REFERRED: &str = "SELECT EXISTS (SELECT 1 FROM blob_refs b WHERE b.hash = h.hash)
    FROM unnest($1::bytea[]) WITH ORDINALITY AS h (hash, place) ORDER BY h.place";

pub(super) const DOCUMENTS: &str = "SELECT coalesce(whole, key), body FROM documents
    WHERE key >= $1 AND key < $2 ORDER BY key LIMIT $3";

pub(super) const DOCUMENTS_BACKWARD: &str = "SELECT coalesce(whole, key), body FROM documents
    WHERE key >= $1 AND key < $2 ORDER BY key DESC LIMIT $3";

const VERSION: &str = "SELECT w.namespace, w.name, v.version, v.hash, v.spec, v.source, v.bundle, v.created_at, v.author
    FROM workflows w JOIN versions v ON v.workflow = w.id AND v.version = coalesce($3, w.active)
    WHERE w.namespace = $1 AND w.name = $2";

const VERSIONS: &str = "SELECT w.namespace, w.name, v.version, v.hash, v.spec, v.source, v.bundle, v.created_at, v.author
    FROM workflows w JOIN versions v ON v.workflow = w.id AND v.version < $3
    WHERE w.namespace = $1 AND w.name = $2 ORDER BY v.version DESC LIMIT $4";

pub(super) fn load(session: &mut Session, key: &EntityKey) -> Outcome<Option<Loaded>> {
    let rows = session.query(LOAD, &[&Key::of(key).indexed, &keys::period(key)])?;
    let (mut loaded, there) = (Loaded::default(), !rows.is_empty());
    for row in &rows {
        let part = (number(row, 1)?, get(row, 2)?);
        match get::<i32>(row, 0)? {
            0 => loaded.snapshot = Some(part),
            _ => loaded.chunks.push(part),
        }
    }
    loaded.chunks.sort_unstable_by_key(|(seq, _)| *seq);
    Ok(there.then_some(loaded))
}

pub(super) fn history(
    session: &mut Session,
    key: &EntityKey,
    from: u64,
    limit: usize,
) -> Outcome<Vec<(u64, Vec<u8>)>> {
    let Ok(from) = i64::try_from(from) else {
        return Ok(Vec::new());
    };
    let entity = Key::of(key).indexed;
    let rows = session.query(
        HISTORY,
        &[&entity, &keys::period(key), &from, &bound(limit)],
    )?;
    let chunk = |row: &Row| Ok((number(row, 0)?, get(row, 1)?));
    rows.iter().map(chunk).collect()
}

pub(super) fn page(session: &mut Session, key: &EntityKey, page: u32) -> Outcome<Option<Vec<u8>>> {
    let sql = "SELECT content FROM pages WHERE entity = $1 AND number = $2";
    let rows = session.query(sql, &[&Key::of(key).indexed, &i64::from(page)])?;
    rows.first().map(|row| get(row, 0)).transpose()
}

pub(super) fn due(
    session: &mut Session,
    now: Time,
    after: Option<&(Time, EntityKey)>,
    limit: usize,
) -> Outcome<Vec<(Time, EntityKey)>> {
    // Nothing is before zero, so this is before everything.
    let (time, key) = after.map_or((-1, Vec::new()), |(time, key)| {
        (time.0, Key::of(key).indexed)
    });
    let rows = session.query(DUE, &[&time, &key, &now.0, &bound(limit)])?;
    let wake = |row: &Row| {
        let key = EntityKey::from_bytes(get(row, 1)?);
        let key = key.ok_or_else(|| Failure::corrupt("the key of an entity that wakes is none"))?;
        Ok((Time(get(row, 0)?), key))
    };
    rows.iter().map(wake).collect()
}

pub(super) const MAIL: &str = "SELECT from_shard, number, entity, message FROM mail
    WHERE to_shard = ANY ($1) ORDER BY to_shard, from_shard, number LIMIT $2";

pub(super) fn mail(session: &mut Session, shards: &ShardSet, limit: usize) -> Outcome<Vec<Mail>> {
    let shards: Vec<i32> = shards.iter().map(|shard| i32::from(shard.0)).collect();
    let rows = session.query(MAIL, &[&shards, &bound(limit)])?;
    let mail = |row: &Row| {
        let odd = || Failure::corrupt("a message has what is never written");
        Ok(Mail {
            from: Shard(u16::try_from(get::<i32>(row, 0)?).map_err(|_| odd())?),
            number: number(row, 1)?,
            to: EntityKey::from_bytes(get(row, 2)?).ok_or_else(odd)?,
            message: get(row, 3)?,
        })
    };
    rows.iter().map(mail).collect()
}

pub(super) fn next_wake(session: &mut Session, now: Time) -> Outcome<Option<Time>> {
    let rows = session.query(NEXT_WAKE, &[&now.0])?;
    rows.first().map(|row| get(row, 0).map(Time)).transpose()
}

pub(super) fn run(session: &mut Session, id: RunId) -> Outcome<Option<RunRow>> {
    let sql =
        format!("SELECT {ROW} FROM runs r JOIN workflows w ON w.id = r.workflow WHERE r.id = $1");
    let rows = session.query(&sql, &[&id.to_bytes().as_slice()])?;
    rows.first().map(run_row).transpose()
}

pub(super) fn run_row(row: &Row) -> Outcome<RunRow> {
    let time = |column| get::<Option<i64>>(row, column).map(|at| at.map(Time));
    let parent: Option<&[u8]> = get(row, 8)?;
    Ok(RunRow {
        id: run_id(get(row, 0)?)?,
        namespace: text(row, 1)?.into(),
        workflow: text(row, 2)?.into(),
        version: small(row, 3)?,
        status: status(row, 4)?,
        created_at: Time(get(row, 5)?),
        started_at: time(6)?,
        ended_at: time(7)?,
        parent: parent.map(run_id).transpose()?,
        trigger: text(row, 9)?.into(),
        counts: [number(row, 10)?, number(row, 11)?, number(row, 12)?],
        error: some_text(row, 13)?.map(str::to_owned),
        labels: text(row, 14)?.to_owned(),
        scheduled_at: time(15)?,
        trigger_name: some_text(row, 16)?.map(Arc::from),
        backfill: some_text(row, 17)?.map(Arc::from),
    })
}

pub(super) fn find_runs(session: &mut Session, suffix: &str, limit: usize) -> Outcome<Vec<RunId>> {
    let rows = match Suffix::parse(suffix) {
        None => return Ok(Vec::new()),
        Some(Suffix::Whole(id)) => {
            let sql = "SELECT id FROM runs WHERE id = $1 LIMIT $2";
            session.query(sql, &[&id.to_bytes().as_slice(), &bound(limit)])?
        }
        Some(Suffix::Bits { mask, value }) => {
            // From its first byte that is whole on; the byte before has what is left.
            let bytes = usize::try_from(mask.count_ones() / 8).unwrap_or(0);
            let (whole, before) = (16 - bytes, 15 - bytes);
            let (mask, value) = (mask.to_be_bytes(), value.to_be_bytes());
            let place = |place: usize| i32::try_from(place).unwrap_or(0);
            session.query(
                BY_SUFFIX,
                &[
                    &bound(NEWEST_SEARCHED),
                    &place(whole + 1),
                    &&value[whole..],
                    &place(before),
                    &i32::from(mask[before]),
                    &i32::from(value[before]),
                    &bound(limit),
                ],
            )?
        }
    };
    rows.iter().map(|row| run_id(get(row, 0)?)).collect()
}

pub(super) fn run_counts(
    session: &mut Session,
    namespace: &str,
) -> Outcome<Vec<(Arc<str>, RunStatus, u64)>> {
    let rows = session.query(
        "SELECT w.name, c.status, sum(c.runs)::bigint FROM workflows w JOIN run_counts c ON c.workflow = w.id
         WHERE w.namespace = $1 GROUP BY w.name, c.status HAVING sum(c.runs) > 0 ORDER BY w.name, c.status",
        &[&namespace.as_bytes()],
    )?;
    let count = |row: &Row| Ok((text(row, 0)?.into(), status(row, 1)?, number(row, 2)?));
    rows.iter().map(count).collect()
}

pub(super) fn version(
    session: &mut Session,
    namespace: &str,
    workflow: &str,
    version: Option<u32>,
) -> Outcome<Option<VersionRow>> {
    let version = version.map(i64::from);
    let rows = session.query(
        VERSION,
        &[&namespace.as_bytes(), &workflow.as_bytes(), &version],
    )?;
    rows.first().map(version_row).transpose()
}

pub(super) fn versions(
    session: &mut Session,
    namespace: &str,
    workflow: &str,
    before: Option<u32>,
    limit: usize,
) -> Outcome<Vec<VersionRow>> {
    let before = before.map_or(i64::MAX, i64::from);
    let (namespace, workflow) = (namespace.as_bytes(), workflow.as_bytes());
    let rows = session.query(VERSIONS, &[&namespace, &workflow, &before, &bound(limit)])?;
    rows.iter().map(version_row).collect()
}

fn version_row(row: &Row) -> Outcome<VersionRow> {
    Ok(VersionRow {
        namespace: text(row, 0)?.into(),
        workflow: text(row, 1)?.into(),
        version: small(row, 2)?,
        hash: text(row, 3)?.into(),
        spec: text(row, 4)?.into(),
        source: text(row, 5)?.into(),
        bundle: some_text(row, 6)?.map(Arc::from),
        created_at: Time(get(row, 7)?),
        author: text(row, 8)?.into(),
    })
}

pub(super) fn version_numbers(
    session: &mut Session,
    namespace: &str,
    workflow: &str,
    hash: &str,
) -> Outcome<(Option<u32>, u32)> {
    let rows = session.query(
        "SELECT (SELECT version FROM versions v WHERE v.workflow = w.id AND v.hash = $3), w.newest
         FROM workflows w WHERE w.namespace = $1 AND w.name = $2",
        &[
            &namespace.as_bytes(),
            &workflow.as_bytes(),
            &hash.as_bytes(),
        ],
    )?;
    let Some(row) = rows.first() else {
        return Ok((None, 0));
    };
    let same: Option<i64> = get(row, 0)?;
    let same = same.map(|number| u32::try_from(number).map_err(|_| odd("a version")));
    Ok((same.transpose()?, small(row, 1)?))
}

pub(super) fn list_workflows(
    session: &mut Session,
    namespace: &str,
    after: &str,
    limit: usize,
) -> Outcome<Vec<(Arc<str>, u32)>> {
    let rows = session.query(
        "SELECT name, active FROM workflows
         WHERE namespace = $1 AND name > $2 AND newest > 0 ORDER BY name LIMIT $3",
        &[&namespace.as_bytes(), &after.as_bytes(), &bound(limit)],
    )?;
    let active = |row: &Row| Ok((text(row, 0)?.into(), small(row, 1)?));
    rows.iter().map(active).collect()
}

pub(super) fn expired_runs(
    session: &mut Session,
    workflow: Option<(&str, &str)>,
    before: Time,
    limit: usize,
) -> Outcome<Vec<RunId>> {
    let (namespace, name) = workflow.unzip();
    let (namespace, name) = (namespace.map(str::as_bytes), name.map(str::as_bytes));
    let sql = expired(of_workflows(namespace, name));
    let rows = session.query(&sql, &[&namespace, &name, &before.0, &bound(limit)])?;
    rows.iter().map(|row| run_id(get(row, 0)?)).collect()
}

pub(super) fn blobs_of(
    session: &mut Session,
    key: &EntityKey,
    after: &str,
    limit: usize,
) -> Outcome<Vec<Arc<str>>> {
    // An empty hash is before every hash.
    let after = refs::parse(after.as_bytes()).map_or(Vec::new(), Vec::from);
    let rows = session.query(BLOBS_OF, &[&Key::of(key).indexed, &after, &bound(limit)])?;
    let hash = |row: &Row| {
        let hash: Hash = get::<&[u8]>(row, 0)?
            .try_into()
            .map_err(|_| odd("a hash"))?;
        Ok(refs::text(&hash))
    };
    rows.iter().map(hash).collect()
}

pub(super) fn blobs_referred(session: &mut Session, hashes: &[Hash]) -> Outcome<Vec<bool>> {
    let hashes: Vec<&[u8]> = hashes.iter().map(<[u8; 32]>::as_slice).collect();
    let rows = session.query(REFERRED, &[&hashes])?;
    rows.iter().map(|row| get(row, 0)).collect()
}

pub(super) fn documents(
    session: &mut Session,
    prefix: &[u8],
    beyond: Option<&[u8]>,
    order: Order,
    limit: usize,
) -> Outcome<Vec<(Vec<u8>, String)>> {
    let beyond = beyond.map(|beyond| Key::new(beyond.to_vec()).indexed);
    let (mut from, mut to) = (prefix.to_vec(), after_all(prefix));
    let sql = match order {
        Order::Forward => {
            // The least key that is greater.
            let next = beyond.map_or_else(Vec::new, |beyond| [&beyond[..], &[0]].concat());
            from = next.max(from);
            DOCUMENTS
        }
        Order::Backward => {
            to = beyond.unwrap_or_else(|| to.clone()).min(to);
            DOCUMENTS_BACKWARD
        }
    };
    let rows = session.query(sql, &[&from, &to, &bound(limit)])?;
    let document = |row: &Row| Ok((get(row, 0)?, text(row, 1)?.to_owned()));
    rows.iter().map(document).collect()
}

pub(super) fn bound(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn get<'r, T: FromSql<'r>>(row: &'r Row, column: usize) -> Outcome<T> {
    row.try_get(column).map_err(|error| odd(&error.to_string()))
}

pub(super) fn run_id(bytes: &[u8]) -> Outcome<RunId> {
    let bytes = bytes.try_into().map_err(|_| odd("the id of a run"))?;
    Ok(RunId::from_bytes(bytes))
}

pub(super) fn text(row: &Row, column: usize) -> Outcome<&str> {
    std::str::from_utf8(get(row, column)?).map_err(|_| odd("a text"))
}

fn some_text(row: &Row, column: usize) -> Outcome<Option<&str>> {
    let bytes: Option<&[u8]> = get(row, column)?;
    let text = bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| odd("a text")));
    text.transpose()
}

fn number(row: &Row, column: usize) -> Outcome<u64> {
    u64::try_from(get::<i64>(row, column)?).map_err(|_| odd("a number"))
}

fn small(row: &Row, column: usize) -> Outcome<u32> {
    u32::try_from(get::<i64>(row, column)?).map_err(|_| odd("a version"))
}

pub(super) fn status(row: &Row, column: usize) -> Outcome<RunStatus> {
    let number = u8::try_from(get::<i32>(row, column)?).ok();
    let status = number.and_then(RunStatus::from_number);
    status.ok_or_else(|| odd("a status"))
}

fn odd(what: &str) -> Failure {
    Failure::corrupt(format!("a row has what is never written: {what}"))
}
