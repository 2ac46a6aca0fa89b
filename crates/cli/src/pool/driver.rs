//! What starts and ends workers of a pool.

use std::collections::BTreeSet;

use kapell_model::Error;

pub(super) mod exec;
pub(super) mod process;

/// See the module. Calls may wait, within bounds.
pub(super) trait Driver {
    /// Names of the workers that are there, be it only on their way.
    fn list(&mut self) -> Result<BTreeSet<String>, Error>;
    /// Launches workers; what became of each. One of a name that is there already is none.
    fn start(&mut self, names: &[String]) -> Vec<Result<(), Error>>;
    /// Clears away a worker that has gone, or never came.
    fn stop(&mut self, name: &str) -> Result<(), Error>;
    /// True if a worker is there once it is launched; else it may be listed later.
    fn is_immediate(&self) -> bool;
    /// What is known of the end of a worker.
    fn last_words(&self, name: &str) -> Option<String>;
    /// The pool's process ends.
    fn end(&mut self);
}
