//! The nodes of a cluster.

use kapell_model::Time;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::schema;

/// A node.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// Unique for each start of a process: 16 hexadecimal digits.
    pub id: String,
    /// Where other nodes, clients and workers reach it; none if it listens at no address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Its version of Kapell.
    pub version: String,
    /// When it came, by the clock of the store.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub joined_at: Time,
    /// Until when others wait for it, by the clock of the store, as far as is known; none where there are no
    /// others.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "crate::stamp::option"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub lease_until: Option<Time>,
    /// It is leaving: it gives away what it owns.
    pub leaving: bool,
    /// How many of the 4,096 shards it owns, or is to own.
    pub shards: usize,
    /// True for the one that answers.
    pub answers: bool,
}

/// All nodes that share the store.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct NodeList {
    /// By id.
    pub nodes: Vec<NodeView>,
}
