//! A copy of the database of a data directory that may be in use, and a check of one.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::failure::explain;
use super::{connection, migrate};
use crate::{Error, Result};

/// Copies the database of a data directory to a file that is not there yet: all commits up to a moment,
/// none of a later one. Whoever works in the directory goes on meanwhile; commits are not held up.
///
/// # Errors
/// [`Error::Unusable`] if there is no database, and those of reading and writing.
pub fn copy_database(directory: &Path, to: &Path) -> Result<()> {
    let from = directory.join("kapell.db");
    if !from.is_file() {
        let message = format!("there is no database in `{}`", directory.display());
        return Err(Error::Unusable(message));
    }
    // Never made anew here: only read, but the log may need its index.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let copy = || -> rusqlite::Result<StepResult> {
        let source = Connection::open_with_flags(&from, flags)?;
        source.busy_timeout(connection::BUSY)?;
        // SQLite takes an empty file as it finds it: for the owner alone.
        let mut options = OpenOptions::new();
        let empty = options.write(true).create_new(true).mode(0o600).open(to);
        drop(empty);
        let mut target = Connection::open(to)?;
        // In one step: a copy in several would begin anew with each commit.
        let step = Backup::new(&source, &mut target)?.step(-1)?;
        // The copy is one file, without a log.
        target.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(()))?;
        Ok(step)
    };
    match copy().map_err(|error| explain(&error))? {
        StepResult::Done => Ok(()),
        step => Err(Error::Unavailable(format!("the copy ended as {step:?}"))),
    }
}

/// The last step of the schema of the database in a data directory; none if there is no database. It
/// may be in use.
///
/// # Errors
/// [`Error::Corrupt`], [`Error::TooNew`], [`Error::Unavailable`].
pub fn database_step(directory: &Path) -> Result<Option<u32>> {
    let path = directory.join("kapell.db");
    if !path.is_file() {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| explain(&error))?;
    connection
        .busy_timeout(connection::BUSY)
        .map_err(|error| explain(&error))?;
    migrate::applied(&connection).map(Some)
}

/// Reads all of a database: that it is one of Kapell, of a version that this program knows, and whole.
///
/// # Errors
/// [`Error::Corrupt`] and [`Error::TooNew`].
pub fn check_database(path: &Path) -> Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| explain(&error))?;
    if migrate::applied(&connection)? == 0 {
        return Err(Error::Corrupt("the database is empty".to_owned()));
    }
    let found: String = connection
        .query_row("PRAGMA integrity_check(1)", (), |row| row.get(0))
        .map_err(|error| explain(&error))?;
    if found == "ok" {
        Ok(())
    } else {
        Err(Error::Corrupt(found))
    }
}
