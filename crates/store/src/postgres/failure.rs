//! What PostgreSQL's errors mean to whoever called.

use kapell_model::Shard;
use tokio_postgres::error::{DbError, SqlState};

use super::url::cause;
use crate::Error;

/// A shard is not as it was held: raised by `fence_1`, with the shard as detail.
const CONFLICT: &str = "KP001";

/// What a commit asks for cannot be: raised by functions of the schema.
const REFUSED: &str = "KP002";

/// Why something did not go through.
#[derive(Debug)]
pub(super) struct Failure {
    /// What the caller is told.
    pub(super) error: Error,
    /// True if the connection must not be used again.
    pub(super) breaks: bool,
    /// What the server called it, if it was the server.
    pub(super) code: Option<SqlState>,
}

impl Failure {
    /// The connection does not answer, or cannot be made.
    pub(super) fn broken(why: impl Into<String>) -> Self {
        Self {
            error: Error::Unavailable(why.into()),
            breaks: true,
            code: None,
        }
    }

    /// What was stored is not what is ever written.
    pub(super) fn corrupt(why: impl Into<String>) -> Self {
        Self {
            error: Error::Corrupt(why.into()),
            breaks: false,
            code: None,
        }
    }

    /// True if the statement found no partition for a row: it was dropped, and nothing was written.
    pub(super) fn is_partition_missing(&self) -> bool {
        // A violated constraint has a name; this has none, and there is no other without.
        self.code == Some(SqlState::CHECK_VIOLATION)
    }

    /// True if this and somebody else waited for each other: nothing was written.
    pub(super) fn is_deadlock(&self) -> bool {
        self.code == Some(SqlState::T_R_DEADLOCK_DETECTED)
    }

    /// True if somebody held a lock for too long, and nothing was written.
    pub(super) fn is_lock_held(&self) -> bool {
        self.code == Some(SqlState::LOCK_NOT_AVAILABLE)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            breaks: false,
            code: None,
        }
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(found) => Self {
                error: explain(found),
                // 08 and 57P: the server ends the connection. XX: it does not know itself any more.
                breaks: matches!(&found.code().code()[..2], "08" | "57" | "XX"),
                code: Some(found.code().clone()),
            },
            None if error.to_string().starts_with("error serializing") => {
                Error::Invalid(cause(&error)).into()
            }
            None => Self::broken(cause(&error)),
        }
    }
}

fn explain(found: &DbError) -> Error {
    let text = found.message().to_owned();
    match found.code().code() {
        CONFLICT => {
            let shard = found.detail().and_then(|detail| detail.parse().ok());
            shard.map_or(Error::Corrupt(text), |shard| Error::Conflict(Shard(shard)))
        }
        REFUSED => Error::Invalid(text),
        // unique_violation
        "23505" => Error::Invalid(format!("the place is taken: {text}")),
        // disk_full
        "53100" => Error::Full(text),
        // data_corrupted, index_corrupted; undefined_table, undefined_function: the schema was changed.
        "XX001" | "XX002" | "42P01" | "42883" => Error::Corrupt(text),
        // Bad values, and those that are beyond what the server can take.
        code if code.starts_with("22") || code.starts_with("54") => Error::Invalid(text),
        _ => Error::Unavailable(text),
    }
}

/// What an error of opening means: nothing was written whose outcome could be in doubt.
pub(super) fn unusable(failure: Failure, place: &str) -> Error {
    let code = failure.code.as_ref().map_or("", SqlState::code);
    match failure.error {
        // Nobody may come in so, no such database or schema, no right to it.
        Error::Unavailable(text)
            if matches!(code, "28000" | "28P01" | "3D000" | "3F000" | "42501") =>
        {
            Error::Unusable(format!("the database `{place}` cannot be used: {text}"))
        }
        Error::Unavailable(text) => {
            Error::Unavailable(format!("the database `{place}` does not answer: {text}"))
        }
        other => other,
    }
}
