//! The one connection that writes.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::checkpoint::Watch;
use super::connection;
use super::failure::{Failure, explain};
use super::write::WorkflowIds;
use crate::{Error, Result};

/// Bytes that the file of the log may keep when there is nothing to do.
const LOG_KEPT: u64 = 64 << 20;

pub(super) struct Writer {
    path: PathBuf,
    watch: Arc<Watch>,
    /// None after an error that breaks it; the next write opens another.
    connection: Option<Connection>,
    ids: WorkflowIds,
}

impl Writer {
    pub(super) fn new(path: PathBuf, watch: Arc<Watch>, connection: Connection) -> Self {
        Self {
            path,
            watch,
            connection: Some(connection),
            ids: WorkflowIds::default(),
        }
    }

    /// Runs one transaction and commits it. It is never tried a second time: an error that is
    /// neither a refusal nor a full disk leaves open whether it landed.
    pub(super) fn write<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>, &mut WorkflowIds) -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            broken => {
                let opened = connection::writer(&self.path, &self.watch);
                broken.insert(opened.map_err(|error| not_reopened(&error))?)
            }
        };
        let outcome = transact(connection, &mut self.ids, work);
        outcome.map_err(|failure| {
            self.ids.clear();
            if failure.breaks_connection() {
                self.connection = None;
            }
            let error = failure.into_error();
            if matches!(error, Error::Full(_)) {
                // The log may hold many versions of one page: once copied, its room is free again.
                self.watch.copy();
            }
            error
        })
    }

    /// Brings the log into the database, and cuts its file if it has become very long. Else the
    /// file keeps its length: a sync of a file that grows takes twice as long.
    pub(super) fn tidy_log(&mut self) -> Result<()> {
        let Some(connection) = &self.connection else {
            return Ok(());
        };
        let log = self.path.with_extension("db-wal");
        let length = std::fs::metadata(log).map_or(0, |about| about.len());
        let mode = if length > LOG_KEPT {
            CheckpointMode::TRUNCATE
        } else {
            CheckpointMode::PASSIVE
        };
        match connection.wal_checkpoint_v2(Some("main"), mode) {
            Ok(_) => Ok(()),
            Err(error) => {
                let failure = Failure::Sqlite(error);
                if failure.breaks_connection() {
                    self.connection = None;
                }
                match failure.into_error() {
                    // A reader is still at it: another time.
                    Error::Unavailable(_) if self.connection.is_some() => Ok(()),
                    error => Err(error),
                }
            }
        }
    }
}

fn transact<T>(
    connection: &mut Connection,
    ids: &mut WorkflowIds,
    work: impl FnOnce(&Transaction<'_>, &mut WorkflowIds) -> std::result::Result<T, Failure>,
) -> std::result::Result<T, Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = work(&transaction, ids)?;
    transaction.commit()?;
    Ok(done)
}

/// A database that cannot be opened again is away, whatever SQLite calls it, unless it is damaged.
fn not_reopened(error: &rusqlite::Error) -> Error {
    match explain(error) {
        damaged @ Error::Corrupt(_) => damaged,
        other => Error::Unavailable(other.to_string()),
    }
}
