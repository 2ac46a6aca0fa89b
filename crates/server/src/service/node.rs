//! The nodes of a cluster.

use kapell_api::client::{NodeCalls, Result};
use kapell_api::http::{NodeList, NodeView};
use kapell_model::SHARDS;

use super::Service;

impl NodeCalls for Service {
    fn nodes(&self) -> Result<NodeList> {
        let Some(nodes) = self.nodes.get() else {
            return Ok(NodeList {
                nodes: vec![self.alone()],
            });
        };
        let me = nodes.me();
        let view = |(row, shards): (kapell_store::NodeRow, usize)| NodeView {
            id: row.about.id.to_string(),
            answers: row.about.id == me,
            address: Some(row.about.address).filter(|address| !address.is_empty()),
            version: row.about.version,
            joined_at: row.joined_at,
            lease_until: Some(row.expires_at),
            leaving: row.about.leaving,
            shards,
        };
        Ok(NodeList {
            nodes: nodes.list().into_iter().map(view).collect(),
        })
    }
}

impl Service {
    /// The one node of a store that is not shared.
    fn alone(&self) -> NodeView {
        NodeView {
            id: format!("{:016x}", self.feed.life()),
            address: self.address.get().cloned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            joined_at: self.opened_at,
            lease_until: None,
            leaving: self.stopping.load(std::sync::atomic::Ordering::Relaxed),
            shards: if self.node.is_some() {
                SHARDS.into()
            } else {
                0
            },
            answers: true,
        }
    }
}
