//! Who answers.

use super::target::READY;
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

impl Client {
    /// Whether requests are taken; no token is needed.
    ///
    /// # Errors
    /// Why not.
    pub fn ready(&self) -> Result<()> {
        self.get::<bool>(READY).map(|_| ())
    }
}
