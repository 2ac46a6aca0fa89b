//! Who answers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Who answers.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Version of Kapell.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// True if it starts work; false if it only looks and records.
    pub working: bool,
}
