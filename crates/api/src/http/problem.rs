//! The problem body of failures (RFC 9457).

use kapell_model::{Error, ErrorCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::schema;

/// A failure, as RFC 9457 has it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Where its page is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The meaning of its code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What failed.
    pub detail: String,
    /// Its stable code.
    #[schema(value_type = schema::ErrorCode)]
    pub code: ErrorCode,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self {
            kind: format!("/docs/errors/{}", error.code),
            title: error.code.meaning().trim().to_owned(),
            status: error.code.http_status(),
            detail: error.message,
            code: error.code,
            hint: error.hint,
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self {
            code: problem.code,
            message: problem.detail,
            hint: problem.hint,
        }
    }
}
