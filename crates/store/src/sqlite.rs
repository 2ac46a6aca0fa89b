//! The embedded store: one SQLite database in a data directory that one process holds.
//!
//! Start reading at [`SqliteStore::open`]; then `write` (what a commit writes), `read`, `writer` (what
//! happens on errors), `checkpoint` (the write-ahead log) and `migrations` (the schema and why it is
//! so).
//!
//! - One connection writes, others read; a read sees every commit that returned before it.
//! - A commit that returned is on the disk (`synchronous = FULL`).
//! - After an error of the disk the connection is closed and the commit is not tried again.
//! - What is kept in memory only saves time: the database alone says what is so.

use std::path::Path;
use std::sync::Arc;

use kapell_model::{EntityKey, RunId, RunStatus, Shard, ShardSet, Time};
use parking_lot::Mutex;
use rusqlite::Connection;

use crate::check::{check_commit, check_documents, check_shards};
use crate::directory::{self, Directory};
use crate::refs;
use crate::{
    Commit, Document, Error, Lease, Loaded, Mail, Order, Result, RunFilter, RunRow, RunsFound,
    Store, VersionRow,
};

mod checkpoint;
mod connection;
mod copy;
mod failure;
mod merge;
mod migrate;
mod read;
mod search;
mod write;
mod writer;

#[cfg(test)]
mod tests;

use checkpoint::{Checkpointer, Watch};
use connection::Readers;
pub use copy::{check_database, copy_database, database_step};
use failure::explain;
use writer::Writer;

/// Runs deleted in one transaction: commits get their turn in between.
const DELETED_AT_ONCE: usize = 128;

/// A store in a directory of its own.
pub struct SqliteStore {
    // In this order they are dropped: the thread, the readers, the writer, which as the last
    // connection empties the log and removes it, then the lock.
    _checkpointer: Checkpointer,
    readers: Readers,
    writer: Arc<Mutex<Writer>>,
    watch: Arc<Watch>,
    _directory: Directory,
}

impl SqliteStore {
    /// Opens the store in a directory, which is made if need be, and brings its schema up to date.
    ///
    /// # Errors
    /// [`Error::Held`] if another store has it open, here or in another process;
    /// [`Error::Unusable`] for a directory that cannot be written, is no directory, or lies on a
    /// network file system; [`Error::Full`] if its disk has no room; [`Error::TooNew`] and
    /// [`Error::Corrupt`] for what is in it. Then nothing in it was changed.
    pub fn open(directory: &Path) -> Result<Self> {
        let opened = Directory::take(directory).and_then(Self::open_in);
        opened.map_err(|error| match error {
            // SQLite says of its shared memory only that it cannot be used. Nothing was written yet whose
            // outcome could be in doubt.
            Error::Unavailable(text) | Error::Unusable(text) if !directory::has_room(directory) => {
                Error::Full(text)
            }
            other => other,
        })
    }

    fn open_in(directory: Directory) -> Result<Self> {
        let path = directory.database();
        let unusable = |error: &rusqlite::Error| match explain(error) {
            Error::Unavailable(text) => {
                directory.unusable(&format!("cannot hold the database: {text}"))
            }
            other => other,
        };
        // Looked at by a connection that changes nothing, before the one that does.
        migrate::applied(&connection::plain(&path).map_err(|error| unusable(&error))?)?;
        let watch = Arc::new(Watch::new());
        let mut connection = connection::writer(&path, &watch).map_err(|error| unusable(&error))?;
        let mode: String = connection
            .pragma_query_value(None, "journal_mode", |row| row.get(0))
            .map_err(|error| unusable(&error))?;
        if mode != "wal" {
            return Err(
                directory.unusable("cannot hold the database: no shared memory for its log")
            );
        }
        migrate::migrate(&mut connection)?;
        let writer = Arc::new(Mutex::new(Writer::new(
            path.clone(),
            Arc::clone(&watch),
            connection,
        )));
        let checkpointer = Checkpointer::start(
            directory.database_file(),
            &path,
            Arc::clone(&watch),
            Arc::clone(&writer),
        )
        .map_err(|error| Error::Unavailable(format!("no thread for checkpoints: {error}")))?;
        Ok(Self {
            _checkpointer: checkpointer,
            readers: Readers::new(path),
            writer,
            watch,
            _directory: directory,
        })
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        self.readers.read(read).map_err(|error| explain(&error))
    }
}

impl SqliteStore {
    /// The newest step of its schema.
    pub fn newest_step() -> u32 {
        migrate::NEWEST
    }

    /// Reads what no store gives, in one transaction.
    pub(crate) fn look<T>(
        &self,
        look: impl FnOnce(&Connection) -> std::result::Result<T, LookError>,
    ) -> Result<T> {
        self.readers.read(look).map_err(LookError::into_error)
    }
}

/// Why reading what no store gives did not go through.
pub(crate) enum LookError {
    /// SQLite said no.
    Sqlite(rusqlite::Error),
    /// Whoever reads said no.
    Other(Error),
}

impl LookError {
    fn into_error(self) -> Error {
        match self {
            Self::Sqlite(error) => explain(&error),
            Self::Other(error) => error,
        }
    }
}

impl From<rusqlite::Error> for LookError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Error> for LookError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Store for SqliteStore {
    fn acquire(&self, shards: &[Shard]) -> Result<Vec<Lease>> {
        check_shards(shards)?;
        self.writer.lock().write(|tx, _| write::acquire(tx, shards))
    }

    fn commit(&self, commit: &Commit) -> Result<()> {
        check_commit(commit)?;
        self.writer
            .lock()
            .write(|tx, ids| write::commit(tx, ids, commit))
    }

    fn load(&self, key: &EntityKey) -> Result<Option<Loaded>> {
        self.read(|connection| read::load(connection, key))
    }

    fn due(
        &self,
        now: Time,
        after: Option<&(Time, EntityKey)>,
        limit: usize,
    ) -> Result<Vec<(Time, EntityKey)>> {
        self.read(|connection| read::due(connection, now, after, limit))
    }

    fn mail(&self, shards: &ShardSet, limit: usize) -> Result<Vec<Mail>> {
        self.read(|connection| read::mail(connection, shards, limit))
    }

    fn next_wake(&self, now: Time) -> Result<Option<Time>> {
        self.read(|connection| read::next_wake(connection, now))
    }

    fn history(&self, key: &EntityKey, from: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>)>> {
        self.read(|connection| read::history(connection, key, from, limit))
    }

    fn page(&self, key: &EntityKey, page: u32) -> Result<Option<Vec<u8>>> {
        self.read(|connection| read::page(connection, key, page))
    }

    fn run(&self, id: RunId) -> Result<Option<RunRow>> {
        self.read(|connection| read::run(connection, id))
    }

    fn find_runs(&self, suffix: &str, limit: usize) -> Result<Vec<RunId>> {
        self.read(|connection| read::find_runs(connection, suffix, limit))
    }

    fn search_runs(&self, filter: &RunFilter, limit: usize) -> Result<RunsFound> {
        self.read(|connection| search::search_runs(connection, filter, limit))
    }

    fn run_counts(&self, namespace: &str) -> Result<Vec<(Arc<str>, RunStatus, u64)>> {
        self.read(|connection| read::run_counts(connection, namespace))
    }

    fn register(&self, row: &VersionRow) -> Result<u32> {
        self.writer
            .lock()
            .write(|tx, ids| write::register(tx, ids, row))
    }

    fn version_numbers(
        &self,
        namespace: &str,
        workflow: &str,
        hash: &str,
    ) -> Result<(Option<u32>, u32)> {
        self.read(|connection| read::version_numbers(connection, namespace, workflow, hash))
    }

    fn versions(
        &self,
        namespace: &str,
        workflow: &str,
        before: Option<u32>,
        limit: usize,
    ) -> Result<Vec<VersionRow>> {
        self.read(|connection| read::versions(connection, namespace, workflow, before, limit))
    }

    fn version(
        &self,
        namespace: &str,
        workflow: &str,
        version: Option<u32>,
    ) -> Result<Option<VersionRow>> {
        self.read(|connection| read::version(connection, namespace, workflow, version))
    }

    fn list_workflows(
        &self,
        namespace: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(Arc<str>, u32)>> {
        self.read(|connection| read::list_workflows(connection, namespace, after, limit))
    }

    fn expired_runs(
        &self,
        workflow: Option<(&str, &str)>,
        before: Time,
        limit: usize,
    ) -> Result<Vec<RunId>> {
        self.read(|connection| read::expired_runs(connection, workflow, before, limit))
    }

    fn delete_runs(&self, ids: &[RunId]) -> Result<u64> {
        let mut deleted = 0;
        for ids in ids.chunks(DELETED_AT_ONCE) {
            deleted += self
                .writer
                .lock()
                .write(|tx, _| write::delete_runs(tx, ids))?;
        }
        Ok(deleted)
    }

    fn blobs_of(&self, key: &EntityKey, after: &str, limit: usize) -> Result<Vec<Arc<str>>> {
        self.read(|connection| read::blobs_of(connection, key, after, limit))
    }

    fn blobs_referred(&self, hashes: &[Arc<str>]) -> Result<Vec<bool>> {
        let hashes = refs::parse_all(hashes)?;
        self.read(|connection| read::blobs_referred(connection, &hashes))
    }

    fn documents(
        &self,
        prefix: &[u8],
        beyond: Option<&[u8]>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, String)>> {
        self.read(|connection| read::documents(connection, prefix, beyond, order, limit))
    }

    fn put_documents(&self, documents: &[Document]) -> Result<()> {
        check_documents(documents)?;
        self.writer
            .lock()
            .write(|tx, _| write::documents(tx, documents))
    }

    fn tidy(&self) -> Result<()> {
        self.readers.close();
        let _alone = self.watch.hold();
        self.writer.lock().tidy_log()
    }
}
