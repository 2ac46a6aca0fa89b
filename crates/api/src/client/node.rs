//! The nodes of a cluster.

use super::{Client, Result};
use crate::http::NodeList;

/// What can be asked of nodes.
pub trait NodeCalls: Send + Sync {
    /// Those that share the store, whoever answers among them.
    fn nodes(&self) -> Result<NodeList>;
}

impl NodeCalls for Client {
    fn nodes(&self) -> Result<NodeList> {
        self.get("/nodes")
    }
}
