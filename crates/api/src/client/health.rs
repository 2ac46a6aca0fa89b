//! Who answers.

use super::{Client, Result};
use crate::http::Health;

/// Who answers.
pub trait HealthCalls: Send + Sync {
    /// Who answers.
    fn health(&self) -> Result<Health>;
}

impl HealthCalls for Client {
    fn health(&self) -> Result<Health> {
        self.get("/health")
    }
}
