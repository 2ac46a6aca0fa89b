//! Who answers.

use kapell_api::client::{HealthCalls, Result};
use kapell_api::http::Health;
use kapell_node::clock;

use super::Service;

impl HealthCalls for Service {
    fn health(&self) -> Result<Health> {
        Ok(Health {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            working: self.working,
            at: Some(clock::now()),
        })
    }
}
