//! The store of a cluster: a schema of a PostgreSQL database, which many processes may have open.
//!
//! Start reading at [`PostgresStore::open`]; then `write` (what a commit says), the functions in
//! `migrations` (what the server does with it, and the tables), `read`, `search`, `takeover` (how shards
//! are acquired), `periods` (where history lies) and `sweep`.
//!
//! - A commit is one statement and one round trip: either the server has all of it, or there is nothing of
//!   it. No lock is held while anything is waited for but other commits.
//! - The first thing that a commit does is to advance its shards, and that does nothing to one that is not as
//!   it was held. So whatever a stopped or cut off owner sent, and whenever it lands, it changes nothing.
//! - Each read is one statement, or a transaction that only reads: it sees every commit that returned
//!   before it.
//! - After an error of a connection it is closed, and what was asked on it is not asked again, but for reads.
//! - What is kept in memory only saves time: the database alone says what is so.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use kapell_model::{EntityKey, RunId, RunStatus, Shard, ShardSet, Time};
use parking_lot::Mutex;

use crate::check::{check_commit, check_documents, check_shards};
use crate::directory::Held;
use crate::refs;
use crate::{
    Commit, Document, Error, Lease, Loaded, Mail, Order, Result, RunFilter, RunRow, RunsFound,
    Store, VersionRow,
};

mod blobs;
mod cluster;
mod failure;
mod keys;
mod logs;
mod migrate;
mod periods;
mod pool;
mod read;
mod runtime;
mod search;
mod session;
mod sweep;
mod takeover;
mod transfer;
mod url;
mod write;

#[cfg(test)]
mod tests;

pub use blobs::PostgresBlobs;
use failure::Failure;
pub use logs::{LogLines, PostgresLog, PostgresLogs};
use periods::Periods;
use pool::{Pool, Tries};
use runtime::Runtime;
use session::{Connector, Session};
use sweep::Sweeper;
pub use transfer::{MOVED_BLOBS, MOVED_DATABASE, MovedTable, move_store};
pub use url::PostgresUrl;
use write::{Columns, WorkflowIds};

/// Connections that write: one for each lane, and one more.
const WRITERS: usize = 5;

/// Functions plan each statement once. A scan of an index alone would be a way to read all of it, which is
/// cheap only as long as there is little.
const WRITES: &str = "SET plan_cache_mode = force_generic_plan; SET enable_indexonlyscan = off";

/// Connections that read.
const READERS: usize = 8;

/// Values of `commit_1`.
const COMMIT_VALUES: usize = 74;

/// Runs deleted in one transaction: commits to their shards wait for it.
const DELETED_AT_ONCE: usize = 128;

/// Workflows whose numbers are remembered.
const WORKFLOWS_REMEMBERED: usize = 10_000;

/// A store in a schema of a PostgreSQL database.
pub struct PostgresStore {
    writers: Pool,
    readers: Pool,
    periods: Periods,
    workflows: Mutex<WorkflowIds>,
    sweeper: Sweeper,
    commit: String,
    /// What keeps others from working in the schema alone, or at all: a lock that ends with its
    /// connection.
    _lock: Option<Session>,
    _directory: Option<Held>,
}

/// What is found where a store is, or should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresStatus {
    /// The version of the server.
    pub server: String,
    /// Steps of the schema that were applied; 0 is none.
    pub applied: u32,
    /// The newest step that this program knows.
    pub known: u32,
    /// Bytes of the schema's tables and indexes but for those of blobs and logs.
    pub bytes: u64,
    /// Bytes of blobs, with their tables and indexes.
    pub blobs: u64,
    /// Bytes of logs, with their tables and indexes.
    pub logs: u64,
}

impl PostgresStore {
    /// Opens the store, whose schema is made if need be and brought up to date.
    ///
    /// # Errors
    /// [`Error::Unusable`] if nobody may come in as the URL says, or the server is too old;
    /// [`Error::Unavailable`] if it does not answer; [`Error::TooNew`] and [`Error::Corrupt`] for what is in
    /// the schema. Then nothing was changed.
    pub fn open(url: &PostgresUrl) -> Result<Self> {
        let connector = connector(url)?;
        let opened = connector.connect().and_then(|mut session| {
            migrate::migrate(&mut session, url.schema())?;
            Periods::load(&mut session)
        });
        let periods = opened.map_err(|failure| failure::unusable(failure, &url.to_string()))?;
        Ok(Self {
            writers: Pool::new(connector.with_settings(WRITES), WRITERS),
            readers: Pool::new(connector.clone(), READERS),
            periods,
            workflows: Mutex::default(),
            sweeper: Sweeper::start(connector),
            commit: write::call("commit_1", COMMIT_VALUES),
            _lock: None,
            _directory: None,
        })
    }

    /// Opens the store for a process that keeps files in a directory, and alone: as long as one owner has
    /// all shards, two would rob each other for ever.
    ///
    /// # Errors
    /// As those of [`PostgresStore::open`]; [`Error::Held`] if another process holds the directory,
    /// [`Error::Unusable`] if another works in the schema.
    pub fn open_alone(directory: &Path, url: &PostgresUrl) -> Result<Self> {
        let held = Held::take(directory)?;
        let lock = lock(url, "pg_advisory_lock")?;
        Ok(Self {
            _lock: Some(lock),
            _directory: Some(held),
            ..Self::open(url)?
        })
    }

    /// Opens the store for a node that keeps files in a directory, beside others.
    ///
    /// # Errors
    /// As those of [`PostgresStore::open_alone`]: a process that works alone keeps nodes out, and nodes keep
    /// out whoever wants to be alone.
    pub fn open_shared(directory: &Path, url: &PostgresUrl) -> Result<Self> {
        let held = Held::take(directory)?;
        let lock = lock(url, "pg_advisory_lock_shared")?;
        Ok(Self {
            _lock: Some(lock),
            _directory: Some(held),
            ..Self::open(url)?
        })
    }

    /// Looks at a store without changing anything.
    ///
    /// # Errors
    /// As those of [`PostgresStore::open`].
    pub fn status(url: &PostgresUrl) -> Result<PostgresStatus> {
        let look = |mut session: Session| {
            let applied = migrate::applied(&mut session, url.schema())?;
            let rows = session.query(
                "SELECT current_setting('server_version'),
                    coalesce(sum(pg_total_relation_size(c.oid)) FILTER (WHERE c.relname NOT IN ('blobs', 'blob_chunks', 'blob_holds') AND c.relname NOT LIKE 'log%'), 0)::bigint,
                    coalesce(sum(pg_total_relation_size(c.oid)) FILTER (WHERE c.relname IN ('blobs', 'blob_chunks', 'blob_holds')), 0)::bigint,
                    coalesce(sum(pg_total_relation_size(c.oid)) FILTER (WHERE c.relname LIKE 'log%'), 0)::bigint
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = $1 AND c.relkind = 'r'",
                &[&url.schema()],
            )?;
            let row = rows.first().ok_or_else(|| Failure::corrupt("no answer"))?;
            Ok(PostgresStatus {
                server: read::get(row, 0)?,
                applied,
                known: migrate::newest(),
                bytes: u64::try_from(read::get::<i64>(row, 1)?).unwrap_or(0),
                blobs: u64::try_from(read::get::<i64>(row, 2)?).unwrap_or(0),
                logs: u64::try_from(read::get::<i64>(row, 3)?).unwrap_or(0),
            })
        };
        let found = connector(url)?.connect().and_then(look);
        found.map_err(|failure| failure::unusable(failure, &url.to_string()))
    }

    fn read<T>(
        &self,
        read: impl FnMut(&mut Session) -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        self.readers.with(Tries::Again, read)
    }

    /// Runs one statement that changes something, and that gives a number.
    fn write(&self, sql: &str, columns: &Columns<'_>) -> std::result::Result<i64, Failure> {
        self.writers.with_failure(Tries::Once, |session| {
            let rows = session.query(sql, &columns.params())?;
            let row = rows.first().ok_or_else(|| Failure::corrupt("no answer"))?;
            read::get(row, 0)
        })
    }

    /// The numbers of workflows, which get one if they have none. That is no part of a commit: a workflow
    /// with neither version nor run shows nowhere.
    fn workflow_ids(&self, names: BTreeSet<(&Arc<str>, &Arc<str>)>) -> Result<WorkflowIds> {
        let mut ids = WorkflowIds::new();
        let mut unknown = Vec::new();
        {
            let known = self.workflows.lock();
            for (namespace, name) in names {
                let key = (namespace.clone(), name.clone());
                match known.get(&key) {
                    Some(id) => drop(ids.insert(key, *id)),
                    None => unknown.push(key),
                }
            }
        }
        if unknown.is_empty() {
            return Ok(ids);
        }
        let mut columns = Columns::default();
        columns.column(unknown.iter().map(|(namespace, _)| namespace.as_bytes()));
        columns.column(unknown.iter().map(|(_, name)| name.as_bytes()));
        self.writers.with(Tries::Again, |session| {
            session.query(
                "INSERT INTO workflows (namespace, name) SELECT * FROM unnest($1::bytea[], $2::bytea[]) AS n (namespace, name)
                 WHERE NOT EXISTS (SELECT 1 FROM workflows w WHERE w.namespace = n.namespace AND w.name = n.name)
                 ON CONFLICT DO NOTHING",
                &columns.params(),
            )?;
            let rows = session.query(
                "SELECT w.id FROM unnest($1::bytea[], $2::bytea[]) WITH ORDINALITY AS n (namespace, name, place)
                 JOIN workflows w ON w.namespace = n.namespace AND w.name = n.name ORDER BY n.place",
                &columns.params(),
            )?;
            for (key, row) in unknown.iter().zip(&rows) {
                ids.insert(key.clone(), read::get(row, 0)?);
            }
            Ok(())
        })?;
        let mut known = self.workflows.lock();
        if known.len() >= WORKFLOWS_REMEMBERED {
            known.clear();
        }
        known.extend(ids.iter().map(|(key, id)| (key.clone(), *id)));
        Ok(ids)
    }

    fn ids_of(&self, commit: &Commit) -> Result<WorkflowIds> {
        let mut names: BTreeSet<(&Arc<str>, &Arc<str>)> = BTreeSet::new();
        names.extend(
            commit
                .runs
                .iter()
                .map(|row| (&row.namespace, &row.workflow)),
        );
        names.extend(
            commit
                .versions
                .iter()
                .map(|row| (&row.namespace, &row.workflow)),
        );
        names.extend(
            commit
                .activated
                .iter()
                .map(|(namespace, name, _)| (namespace, name)),
        );
        if names.is_empty() {
            return Ok(WorkflowIds::new());
        }
        self.workflow_ids(names)
    }
}

fn connector(url: &PostgresUrl) -> Result<Connector> {
    let runtime = Runtime::start()
        .map_err(|error| Error::Unavailable(format!("no thread for PostgreSQL: {error}")))?;
    Connector::new(url, Arc::new(runtime))
}

/// The lock of whoever works in a schema, alone or shared. One who was killed a moment ago may still have it.
fn lock(url: &PostgresUrl, function: &str) -> Result<Session> {
    let connector = connector(url)?.with_settings("SET lock_timeout = '5s'");
    let place = url.to_string();
    let unusable = |failure| failure::unusable(failure, &place);
    let mut session = connector.connect().map_err(unusable)?;
    let lock = format!("SELECT {function}(hashtext($1 || '.alone'))");
    match session.query(&lock, &[&url.schema()]) {
        Ok(_) => Ok(session),
        Err(failure) if failure.is_lock_held() => Err(Error::Unusable(format!(
            "another Kapell works in the schema `{}` of the database `{place}`",
            url.schema()
        ))),
        Err(failure) => Err(unusable(failure)),
    }
}

/// A table of bytes that is written past any store: what the raw server takes.
#[cfg(any(test, feature = "testing"))]
pub struct RawTable {
    session: Session,
    next: i64,
}

#[cfg(any(test, feature = "testing"))]
impl RawTable {
    pub(crate) fn open(url: &PostgresUrl) -> Result<Self> {
        let session = connector(url)?.connect().map_err(|failure| failure.error)?;
        Ok(Self { session, next: 0 })
    }

    /// Writes rows in one statement.
    ///
    /// # Errors
    /// Whatever the server says.
    pub fn insert(&mut self, rows: &[Vec<u8>]) -> Result<()> {
        let first = self.next;
        self.next += read::bound(rows.len());
        let ids: Vec<i64> = (first..self.next).collect();
        let sql = "INSERT INTO raw SELECT * FROM unnest($1::bigint[], $2::bytea[])";
        let inserted = self.session.query(sql, &[&ids, &rows]);
        inserted.map(drop).map_err(|failure| failure.error)
    }
}

/// Runs statements past any store; the first column of what the last one finds.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn run_sql(url: &PostgresUrl, sql: &str) -> Result<Vec<String>> {
    let connector = connector(url)?;
    let mut session = connector.connect().map_err(|failure| failure.error)?;
    session.simple(sql).map_err(|failure| failure.error)
}

impl Store for PostgresStore {
    fn acquire(&self, shards: &[Shard]) -> Result<Vec<Lease>> {
        check_shards(shards)?;
        takeover::acquire(&self.writers, &self.readers, shards)
    }

    fn commit(&self, commit: &Commit) -> Result<()> {
        check_commit(commit)?;
        let ids = self.ids_of(commit)?;
        let attempt = || {
            let days = commit.entities.iter().map(|write| keys::period(&write.key));
            self.periods.make(&self.writers, days)?;
            let columns = write::columns(commit, &ids, |key| self.periods.of(key));
            self.write(&self.commit, &columns)
        };
        let outcome = attempt().or_else(|failure| {
            if !failure.is_partition_missing() {
                return Err(failure);
            }
            // Another node dropped it. Nothing of the commit was written, so it may be sent again.
            self.writers
                .with_failure(Tries::Again, |session| self.periods.reload(session))?;
            attempt()
        });
        let dead = outcome.map_err(|failure| failure.error)?;
        self.sweeper.left(dead);
        Ok(())
    }

    fn load(&self, key: &EntityKey) -> Result<Option<Loaded>> {
        self.read(|session| read::load(session, key))
    }

    fn due(
        &self,
        now: Time,
        after: Option<&(Time, EntityKey)>,
        limit: usize,
    ) -> Result<Vec<(Time, EntityKey)>> {
        self.read(|session| read::due(session, now, after, limit))
    }

    fn mail(&self, shards: &ShardSet, limit: usize) -> Result<Vec<Mail>> {
        self.read(|session| read::mail(session, shards, limit))
    }

    fn next_wake(&self, now: Time) -> Result<Option<Time>> {
        self.read(|session| read::next_wake(session, now))
    }

    fn history(&self, key: &EntityKey, from: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>)>> {
        self.read(|session| read::history(session, key, from, limit))
    }

    fn page(&self, key: &EntityKey, page: u32) -> Result<Option<Vec<u8>>> {
        self.read(|session| read::page(session, key, page))
    }

    fn run(&self, id: RunId) -> Result<Option<RunRow>> {
        self.read(|session| read::run(session, id))
    }

    fn find_runs(&self, suffix: &str, limit: usize) -> Result<Vec<RunId>> {
        self.read(|session| read::find_runs(session, suffix, limit))
    }

    fn search_runs(&self, filter: &RunFilter, limit: usize) -> Result<RunsFound> {
        self.read(|session| search::search_runs(session, filter, limit))
    }

    fn run_counts(&self, namespace: &str) -> Result<Vec<(Arc<str>, RunStatus, u64)>> {
        self.read(|session| read::run_counts(session, namespace))
    }

    fn register(&self, row: &VersionRow) -> Result<u32> {
        let name = (&row.namespace, &row.workflow);
        let ids = self.workflow_ids(BTreeSet::from([name]))?;
        let mut columns = Columns::default();
        columns.value(ids.values().next().copied().unwrap_or(0));
        columns.value(row.hash.as_bytes());
        columns.value(row.spec.as_bytes());
        columns.value(row.source.as_bytes());
        columns.value(row.bundle.as_ref().map(|bundle| bundle.as_bytes()));
        columns.value(row.created_at.0);
        columns.value(row.author.as_bytes());
        columns.value(write::refers(row).concat());
        let number = self.write(&write::call("register_1", 8), &columns);
        let number = number.map_err(|failure| failure.error)?;
        u32::try_from(number).map_err(|_| Error::Corrupt(format!("there is a version {number}")))
    }

    fn version_numbers(
        &self,
        namespace: &str,
        workflow: &str,
        hash: &str,
    ) -> Result<(Option<u32>, u32)> {
        self.read(|session| read::version_numbers(session, namespace, workflow, hash))
    }

    fn versions(
        &self,
        namespace: &str,
        workflow: &str,
        before: Option<u32>,
        limit: usize,
    ) -> Result<Vec<VersionRow>> {
        self.read(|session| read::versions(session, namespace, workflow, before, limit))
    }

    fn version(
        &self,
        namespace: &str,
        workflow: &str,
        version: Option<u32>,
    ) -> Result<Option<VersionRow>> {
        self.read(|session| read::version(session, namespace, workflow, version))
    }

    fn list_workflows(
        &self,
        namespace: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(Arc<str>, u32)>> {
        self.read(|session| read::list_workflows(session, namespace, after, limit))
    }

    fn expired_runs(
        &self,
        workflow: Option<(&str, &str)>,
        before: Time,
        limit: usize,
    ) -> Result<Vec<RunId>> {
        self.read(|session| read::expired_runs(session, workflow, before, limit))
    }

    fn delete_runs(&self, ids: &[RunId]) -> Result<u64> {
        let mut deleted = 0;
        for ids in ids.chunks(DELETED_AT_ONCE) {
            // Each once, and of each shard one.
            let ids: BTreeSet<RunId> = ids.iter().copied().collect();
            let shards: BTreeSet<u16> = ids.iter().map(|id| id.shard().0).collect();
            let key = |id: &RunId| EntityKey::Run(*id);
            let mut columns = Columns::default();
            columns.column(shards.into_iter().map(i32::from));
            columns.column(ids.iter().map(|id| id.to_bytes().to_vec()));
            columns.column(ids.iter().map(|id| key(id).to_bytes()));
            columns.column(ids.iter().map(|id| keys::period(&key(id))));
            columns.value(write::DELETED);
            let gone = self.write(&write::call("delete_runs_1", 5), &columns);
            let gone = gone.map_err(|failure| failure.error)?;
            deleted += u64::try_from(gone).unwrap_or(0);
        }
        Ok(deleted)
    }

    fn blobs_of(&self, key: &EntityKey, after: &str, limit: usize) -> Result<Vec<Arc<str>>> {
        self.read(|session| read::blobs_of(session, key, after, limit))
    }

    fn blobs_referred(&self, hashes: &[Arc<str>]) -> Result<Vec<bool>> {
        let hashes = refs::parse_all(hashes)?;
        self.read(|session| read::blobs_referred(session, &hashes))
    }

    fn documents(
        &self,
        prefix: &[u8],
        beyond: Option<&[u8]>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, String)>> {
        self.read(|session| read::documents(session, prefix, beyond, order, limit))
    }

    fn put_documents(&self, documents: &[Document]) -> Result<()> {
        check_documents(documents)?;
        let mut columns = Columns::default();
        write::documents(&mut columns, documents);
        let put = self.writers.with(Tries::Once, |session| {
            session.query(&write::call("documents_1", 4), &columns.params())
        });
        put.map(drop)
    }

    fn tidy(&self) -> Result<()> {
        self.periods.tidy(&self.writers)?;
        logs::tidy(&self.writers)?;
        self.sweeper.sweep();
        Ok(())
    }
}
