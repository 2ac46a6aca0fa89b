//! What SQLite's errors mean to whoever called.

use rusqlite::ErrorCode;

use crate::Error;

/// Why a transaction did not go through.
#[derive(Debug)]
pub(super) enum Failure {
    /// The request was refused; nothing is wrong with the database.
    Refused(Error),
    /// SQLite said no.
    Sqlite(rusqlite::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Failure {
    /// True if the connection must not be used again. After a failed write or sync the kernel may
    /// call pages clean that never reached the disk, so nothing is tried twice on top of them.
    pub(super) fn breaks_connection(&self) -> bool {
        match self {
            Self::Refused(_) => false,
            Self::Sqlite(error) => !matches!(
                error.sqlite_error_code(),
                Some(
                    ErrorCode::ConstraintViolation
                        | ErrorCode::TooBig
                        | ErrorCode::DiskFull
                        | ErrorCode::DatabaseBusy
                        | ErrorCode::DatabaseLocked
                )
            ),
        }
    }

    /// What the caller is told.
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Refused(error) => error,
            Self::Sqlite(error) => explain(&error),
        }
    }
}

/// The error of this crate for one of SQLite's.
pub(super) fn explain(error: &rusqlite::Error) -> Error {
    let text = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::Full(text),
        Some(ErrorCode::ConstraintViolation) => {
            Error::Invalid(format!("the place is taken: {text}"))
        }
        Some(ErrorCode::TooBig | ErrorCode::TypeMismatch | ErrorCode::ParameterOutOfRange) => {
            Error::Invalid(text)
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::Corrupt(text),
        Some(_) => Error::Unavailable(text),
        None if matches!(error, rusqlite::Error::ToSqlConversionFailure(_)) => Error::Invalid(text),
        // Not from SQLite but from reading what it gave: a value of a type that is not written.
        None => Error::Corrupt(text),
    }
}
