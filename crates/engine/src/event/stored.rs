//! Places, values, errors and contents as history keeps them.

use kapell_api::task::{Place, TaskError};
use kapell_expr::{BlobRef, Value};
use kapell_model::FailureKind;
use prost::Message;

/// A step in a scope, or one item of it.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct UnitRef {
    /// The scope.
    #[prost(uint32, tag = "1")]
    pub scope: u32,
    /// The step in its graph.
    #[prost(uint32, tag = "2")]
    pub step: u32,
    /// The item's index plus one; 0 is the step itself.
    #[prost(uint32, tag = "3")]
    pub item: u32,
}

impl From<Place> for UnitRef {
    fn from(place: Place) -> Self {
        Self {
            scope: place.scope,
            step: u32::from(place.step),
            item: place.item.wrapping_add(1),
        }
    }
}

impl From<UnitRef> for Place {
    fn from(unit: UnitRef) -> Self {
        Self {
            scope: unit.scope,
            step: u16::try_from(unit.step).unwrap_or(u16::MAX),
            item: unit.item.wrapping_sub(1),
        }
    }
}

/// A scope.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ScopeRef {
    /// The scope.
    #[prost(uint32, tag = "1")]
    pub scope: u32,
}

/// A value in history: inline, or where it is stored.
#[derive(Clone, PartialEq, Message)]
pub struct Stored {
    /// The value as [`Value::to_stored`] writes it; empty is null.
    #[prost(bytes = "vec", tag = "1")]
    pub inline: Vec<u8>,
}

impl Stored {
    /// The stored form.
    pub fn new(value: &Value) -> Self {
        Self {
            inline: if value.is_null() {
                Vec::new()
            } else {
                value.to_stored()
            },
        }
    }

    /// The value; null if it cannot be read.
    pub fn value(&self) -> Value {
        if self.inline.is_empty() {
            Value::Null
        } else {
            Value::from_stored(&self.inline).unwrap_or_default()
        }
    }
}

/// An error in history.
#[derive(Clone, PartialEq, Message)]
pub struct StoredError {
    /// Number of the [`FailureKind`].
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    /// A stable word.
    #[prost(string, tag = "2")]
    pub reason: String,
    /// For people.
    #[prost(string, tag = "3")]
    pub message: String,
    /// Of a process.
    #[prost(sint32, optional, tag = "4")]
    pub exit_code: Option<i32>,
    /// Of a response.
    #[prost(uint32, optional, tag = "5")]
    pub http_status: Option<u32>,
    /// Trying again is useless.
    #[prost(bool, tag = "6")]
    pub permanent: bool,
    /// An exception's.
    #[prost(string, optional, tag = "7")]
    pub traceback: Option<String>,
}

impl From<&TaskError> for StoredError {
    fn from(error: &TaskError) -> Self {
        Self {
            kind: error.kind as u32,
            reason: error.reason.clone(),
            message: error.message.clone(),
            exit_code: error.exit_code,
            http_status: error.http_status.map(u32::from),
            permanent: error.permanent,
            traceback: error.traceback.clone(),
        }
    }
}

impl From<&StoredError> for TaskError {
    fn from(error: &StoredError) -> Self {
        Self {
            kind: match error.kind {
                2 => FailureKind::Timeout,
                3 => FailureKind::Platform,
                _ => FailureKind::User,
            },
            reason: error.reason.clone(),
            message: error.message.clone(),
            exit_code: error.exit_code,
            http_status: error
                .http_status
                .and_then(|status| u16::try_from(status).ok()),
            permanent: error.permanent,
            retry_after: None,
            traceback: error.traceback.clone(),
        }
    }
}

/// A reference to stored content.
#[derive(Clone, PartialEq, Message)]
pub struct StoredBlob {
    /// BLAKE3, hexadecimal.
    #[prost(string, tag = "1")]
    pub hash: String,
    /// Bytes.
    #[prost(uint64, tag = "2")]
    pub size: u64,
}

impl From<&BlobRef> for StoredBlob {
    fn from(blob: &BlobRef) -> Self {
        Self {
            hash: blob.hash.to_string(),
            size: blob.size,
        }
    }
}

impl From<&StoredBlob> for BlobRef {
    fn from(blob: &StoredBlob) -> Self {
        Self {
            hash: blob.hash.as_str().into(),
            size: blob.size,
        }
    }
}
