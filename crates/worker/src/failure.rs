//! Errors of attempts, in the words that users see.

use kapell_api::task::TaskError;
use kapell_model::{FailureKind, limits};

/// A user's failure.
pub(crate) fn user(reason: &str, message: impl Into<String>) -> Box<TaskError> {
    error(FailureKind::User, reason, message)
}

/// A failure of the platform.
pub(crate) fn platform(reason: &str, message: impl Into<String>) -> Box<TaskError> {
    error(FailureKind::Platform, reason, message)
}

/// Any failure.
pub(crate) fn error(kind: FailureKind, reason: &str, message: impl Into<String>) -> Box<TaskError> {
    Box::new(TaskError {
        kind,
        reason: reason.to_owned(),
        message: bounded(message.into(), limits::ERROR_BYTES),
        ..TaskError::default()
    })
}

/// A user's failure that trying again cannot mend.
pub(crate) fn permanent(reason: &str, message: impl Into<String>) -> Box<TaskError> {
    Box::new(TaskError {
        permanent: true,
        ..*user(reason, message)
    })
}

/// The text cut to at most `bytes`, with an ellipsis if it was cut.
pub(crate) fn bounded(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes.saturating_sub('…'.len_utf8())));
        text.push('…');
    }
    text
}
