//! Who answers.

use kapell_model::Time;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::schema;

/// Who answers.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Version of Kapell.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// True if it starts work; false if it only looks and records.
    pub working: bool,
    /// Its time, so that others can compare theirs.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub at: Option<Time>,
}
