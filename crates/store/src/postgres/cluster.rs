//! Nodes that share this store: their heartbeats, and which of them owns a shard.
//!
//! All of it goes by the database's clock. A shard is taken in one statement that locks its row first, so of
//! two nodes that want it the second one sees that the first has it.

use std::time::Duration;

use kapell_model::{NodeId, ShardSet, Time};
use tokio_postgres::Row;

use super::PostgresStore;
use super::failure::Failure;
use super::pool::Tries;
use super::read::{Outcome, get, text};
use super::takeover;
use crate::{Beat, Cluster, Lease, NodeAbout, NodeRow, Result};

/// The database's clock, in microseconds since 1970.
const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

impl Cluster for PostgresStore {
    fn beat(&self, node: &NodeAbout, lease: Duration) -> Result<Beat> {
        let sql = format!(
            "WITH now AS MATERIALIZED (SELECT {NOW} AS at), me AS (
                INSERT INTO nodes (id, address, version, leaving, joined_at, expires_at)
                    SELECT $1, $2, $3, $4, at, at + $5 FROM now
                ON CONFLICT (id) DO UPDATE SET address = excluded.address, version = excluded.version,
                    leaving = excluded.leaving, expires_at = excluded.expires_at
                RETURNING *)
             SELECT now.at, n.* FROM now,
                (SELECT * FROM nodes WHERE id <> $1 UNION ALL SELECT * FROM me) n ORDER BY n.id"
        );
        let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX);
        let (address, version) = (node.address.as_bytes(), node.version.as_bytes());
        self.writers.with(Tries::Once, |session| {
            let id = number(node.id);
            let rows = session.query(&sql, &[&id, &address, &version, &node.leaving, &lease])?;
            let now = rows.first().ok_or_else(|| Failure::corrupt("no answer"))?;
            let mut nodes = rows.iter().map(row).collect::<Outcome<Vec<_>>>()?;
            nodes.sort_by_key(|node| node.about.id);
            Ok(Beat {
                now: Time(get(now, 0)?),
                nodes,
            })
        })
    }

    fn take(&self, node: NodeId, shards: &ShardSet, dead: &[NodeId]) -> Result<Vec<Lease>> {
        let sql = format!(
            "UPDATE shards s SET epoch = s.epoch + 1, owner = $2
             FROM (SELECT id FROM shards f WHERE f.id = ANY ($1) AND (f.owner IS NULL OR f.owner = $2 OR NOT EXISTS (
                    SELECT 1 FROM nodes n WHERE n.id = f.owner AND (n.id <> ALL ($3) OR n.expires_at > {NOW})))
                 ORDER BY id FOR NO KEY UPDATE) h
             WHERE s.id = h.id RETURNING s.id, s.epoch, s.seq"
        );
        let ids: Vec<i32> = shards.iter().map(|shard| i32::from(shard.0)).collect();
        let dead: Vec<i64> = dead.iter().copied().map(number).collect();
        let mut leases = self.writers.with(Tries::Once, |session| {
            takeover::take(session, &self.readers, &sql, &[&ids, &number(node), &dead])
        })?;
        leases.sort_unstable_by_key(|lease| lease.shard);
        Ok(leases)
    }

    fn give(&self, node: NodeId, leases: &[Lease]) -> Result<()> {
        let shards: Vec<i32> = leases.iter().map(|held| i32::from(held.shard.0)).collect();
        let epochs: Vec<i64> = leases
            .iter()
            .map(|held| i64::try_from(held.epoch).unwrap_or(-1))
            .collect();
        let sql =
            "UPDATE shards s SET owner = NULL FROM unnest($2::int[], $3::bigint[]) AS h (id, epoch)
             WHERE s.id = h.id AND s.epoch = h.epoch AND s.owner = $1";
        self.writers.with(Tries::Once, |session| {
            session.query(sql, &[&number(node), &shards, &epochs])?;
            Ok(())
        })
    }

    fn leave(&self, node: NodeId) -> Result<()> {
        let sql = "WITH gone AS (DELETE FROM nodes WHERE id = $1)
             UPDATE shards SET owner = NULL WHERE owner = $1";
        self.writers.with(Tries::Once, |session| {
            session.query(sql, &[&number(node)])?;
            Ok(())
        })
    }
}

/// An id as the database keeps it: the same bits.
fn number(node: NodeId) -> i64 {
    node.0.cast_signed()
}

fn row(row: &Row) -> Outcome<NodeRow> {
    Ok(NodeRow {
        about: NodeAbout {
            id: NodeId(get::<i64>(row, 1)?.cast_unsigned()),
            address: text(row, 2)?.to_owned(),
            version: text(row, 3)?.to_owned(),
            leaving: get(row, 4)?,
        },
        joined_at: Time(get(row, 5)?),
        expires_at: Time(get(row, 6)?),
    })
}
