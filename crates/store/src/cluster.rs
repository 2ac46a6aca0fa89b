//! What nodes of one cluster share beside what they store: who is there, and who owns which shard.
//!
//! Only the store's own clock decides a lease, so nodes whose clocks differ agree.

use std::time::Duration;

use kapell_model::{NodeId, ShardSet, Time};

use crate::{Lease, Result, Store};

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAbout {
    /// Unique for each start of a process.
    pub id: NodeId,
    /// Where other nodes, clients and workers reach it, as they write it: `http://10.0.0.7:7233`.
    pub address: String,
    /// Its Kapell.
    pub version: String,
    /// It is leaving: it takes no shard, and gives away those it has.
    pub leaving: bool,
}

/// A node as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// What it says of itself.
    pub about: NodeAbout,
    /// When it came, by the store's clock.
    pub joined_at: Time,
    /// When its lease ends, by the store's clock.
    pub expires_at: Time,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The store's clock.
    pub now: Time,
    /// All nodes that came and did not leave, by id, the one that asked among them.
    pub nodes: Vec<NodeRow>,
}

/// A store that several nodes share.
pub trait Cluster: Store {
    /// Renews a node's lease, also one that has ended if nobody removed it, and reads who is there. A node
    /// that is not there yet joins.
    fn beat(&self, node: &NodeAbout, lease: Duration) -> Result<Beat>;

    /// Takes over those of the shards that nobody owns, that this node owns, or whose owner is gone or is
    /// one of `dead` and its lease has ended by the store's clock. Each gets a greater epoch. Others are
    /// left out: their owner is alive.
    fn take(&self, node: NodeId, shards: &ShardSet, dead: &[NodeId]) -> Result<Vec<Lease>>;

    /// Lets go of shards: those that are still as held are nobody's from then on.
    fn give(&self, node: NodeId, leases: &[Lease]) -> Result<()>;

    /// A node goes: what it owns is nobody's from then on.
    fn leave(&self, node: NodeId) -> Result<()>;
}
