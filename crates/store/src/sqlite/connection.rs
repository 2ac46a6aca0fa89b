//! Connections and their settings.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::checkpoint::Watch;

/// Bytes of a page of the database.
pub(super) const PAGE_BYTES: u32 = 8192;

/// Connections that are kept for readers; more are opened and closed again at need.
const READERS_KEPT: usize = 8;

/// How long to wait for another program that looks into the database.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// A connection with what all have in common.
pub(super) fn plain(path: &Path) -> rusqlite::Result<Connection> {
    open(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    )
}

/// The connection that writes, on a database whose schema may not be there yet.
pub(super) fn writer(path: &Path, watch: &Arc<Watch>) -> rusqlite::Result<Connection> {
    let mut connection = plain(path)?;
    // The page size takes effect only where nothing was written yet.
    connection.execute_batch(&format!(
        "PRAGMA page_size = {PAGE_BYTES}; PRAGMA cache_size = -16384"
    ))?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    // FULL: a commit that returned is on the disk. No checkpoint inside a commit.
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0")?;
    let watch = Arc::clone(watch);
    connection.wal_hook(Some(move |_: &mut _, frames| {
        watch.committed(u32::try_from(frames).unwrap_or(0));
        Ok(())
    }))?;
    Ok(connection)
}

fn open(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    // Where a table has partial indexes, SQLite plans a statement again each time its values are cleared, unless
    // plans may not depend on values.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch("PRAGMA temp_store = MEMORY")?;
    Ok(connection)
}

/// Connections that only read.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Reads in one transaction, so that all statements see the same commit. A connection that
    /// failed is not used again.
    pub(super) fn read<T, E: From<rusqlite::Error>>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.open()?,
        };
        let transaction = connection.unchecked_transaction()?;
        let got = read(&transaction)?;
        transaction.finish()?;
        let mut idle = self.idle.lock();
        if idle.len() < READERS_KEPT {
            idle.push(connection);
        }
        Ok(got)
    }

    /// Closes what is idle.
    pub(super) fn close(&self) {
        self.idle.lock().clear();
    }

    fn open(&self) -> rusqlite::Result<Connection> {
        let connection = open(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.execute_batch("PRAGMA cache_size = -8192")?;
        Ok(connection)
    }
}
