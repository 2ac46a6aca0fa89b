//! Nodes that share the store, by its own clock.

use std::time::Duration;

use kapell_model::{NodeId, Shard, ShardSet, Time};

use super::MemoryStore;
use crate::{Beat, Cluster, Lease, NodeAbout, NodeRow, Result};

impl Cluster for MemoryStore {
    fn beat(&self, node: &NodeAbout, lease: Duration) -> Result<Beat> {
        let mut state = self.state.lock();
        let now = state.now;
        let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX);
        let row = state.nodes.entry(node.id).or_insert_with(|| NodeRow {
            about: node.clone(),
            joined_at: now,
            expires_at: now,
        });
        row.about = node.clone();
        row.expires_at = Time(now.0.saturating_add(lease));
        Ok(Beat {
            now,
            nodes: state.nodes.values().cloned().collect(),
        })
    }

    fn take(&self, node: NodeId, shards: &ShardSet, dead: &[NodeId]) -> Result<Vec<Lease>> {
        let mut state = self.state.lock();
        let free: Vec<Shard> = shards
            .iter()
            .filter(|shard| state.is_free(*shard, node, dead))
            .collect();
        let leases = free.into_iter().map(|shard| {
            state.owners.insert(shard, node);
            state.take(shard)
        });
        Ok(leases.collect())
    }

    fn give(&self, node: NodeId, leases: &[Lease]) -> Result<()> {
        let mut state = self.state.lock();
        for lease in leases {
            let held = state.shards.get(&lease.shard).map(|held| held.epoch);
            if held == Some(lease.epoch) && state.owners.get(&lease.shard) == Some(&node) {
                state.owners.remove(&lease.shard);
            }
        }
        Ok(())
    }

    fn leave(&self, node: NodeId) -> Result<()> {
        let mut state = self.state.lock();
        state.nodes.remove(&node);
        state.owners.retain(|_, owner| *owner != node);
        Ok(())
    }
}
