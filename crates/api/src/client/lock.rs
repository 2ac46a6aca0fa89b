//! Named locks and rates.

use super::{Client, Result, encoded, query};
use crate::http::{LockPage, LockQuery, LockView};

/// What can be asked of locks and rates.
pub trait LockCalls: Send + Sync {
    /// Those that are held, waited for or, if they are rates, were used; by name.
    fn locks(&self, which: &LockQuery) -> Result<LockPage>;
    /// One of them, with who holds it and who waits.
    fn lock(&self, name: &str) -> Result<LockView>;
}

impl LockCalls for Client {
    fn locks(&self, which: &LockQuery) -> Result<LockPage> {
        self.get(&format!("/locks{}", query(which)))
    }

    fn lock(&self, name: &str) -> Result<LockView> {
        self.get(&format!("/locks/{}", encoded(name)))
    }
}
