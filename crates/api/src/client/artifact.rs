//! Files that steps gave.

use std::io::Write;

use kapell_model::RunId;

use super::{Client, Result, encoded};

/// Fetching files that steps gave.
pub trait ArtifactCalls: Send + Sync {
    /// Writes a file that a step of a run gave; how many bytes it has.
    fn artifact(&self, run: RunId, step: &str, name: &str, to: &mut dyn Write) -> Result<u64>;
}

impl ArtifactCalls for Client {
    fn artifact(&self, run: RunId, step: &str, name: &str, to: &mut dyn Write) -> Result<u64> {
        let (step, name) = (encoded(step), encoded(name));
        self.fetch(&format!("/runs/{run}/artifacts/{step}/{name}"), to)
    }
}
