//! How shards are acquired, whoever holds them.
//!
//! Their rows are updated before anything else, so that no commit of an owner before can come in between.
//! That owner may have stopped in the middle of a transaction, whose locks then stay: whoever holds a lock
//! for longer than a commit takes loses its connection. Nothing is lost by that: what had not been committed
//! would be refused now.

use std::time::Duration;

use kapell_model::Shard;
use tokio_postgres::types::ToSql;

use super::failure::Failure;
use super::pool::{Pool, Tries};
use super::read::get;
use super::session::Session;
use crate::{Error, Lease, Result};

/// How long whoever holds a lock is left in peace.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often those that hold locks are ended before the takeover gives up.
const ROUNDS: u32 = 15;

const ACQUIRE: &str = "UPDATE shards s SET epoch = s.epoch + 1
    FROM (SELECT id FROM shards WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE) h
    WHERE s.id = h.id RETURNING s.id, s.epoch, s.seq";

/// Ends those whose locks a process waits for.
const END_BLOCKERS: &str =
    "SELECT pid, pg_terminate_backend(pid) FROM unnest(pg_blocking_pids($1)) AS b (pid)";

pub(super) fn acquire(writers: &Pool, readers: &Pool, shards: &[Shard]) -> Result<Vec<Lease>> {
    let ids: Vec<i32> = shards.iter().map(|shard| i32::from(shard.0)).collect();
    let take = |session: &mut Session| take(session, readers, ACQUIRE, &[&ids]);
    let mut leases = writers.with(Tries::Once, take)?;
    leases.sort_unstable_by_key(|lease| lease.shard);
    let held = shards.iter().map(|shard| {
        let place = leases.binary_search_by_key(shard, |lease| lease.shard);
        let lease = place.ok().and_then(|place| leases.get(place)).copied();
        lease.ok_or_else(|| Error::Corrupt(format!("there is no row of shard {}", shard.0)))
    });
    held.collect()
}

/// Runs a statement that takes shards and gives their leases.
pub(super) fn take(
    session: &mut Session,
    readers: &Pool,
    sql: &str,
    values: &[&(dyn ToSql + Sync)],
) -> std::result::Result<Vec<Lease>, Failure> {
    let mut rounds = 0;
    let rows = session.query_watched(sql, values, PATIENCE, |pid| {
        rounds += 1;
        rounds <= ROUNDS && end_blockers(readers, pid)
    })?;
    let number = |row, column| u64::try_from(get::<i64>(row, column)?).map_err(|_| odd());
    let lease = |row| {
        Ok(Lease {
            shard: Shard(u16::try_from(get::<i32>(row, 0)?).map_err(|_| odd())?),
            epoch: number(row, 1)?,
            seq: number(row, 2)?,
        })
    };
    rows.iter().map(lease).collect()
}

/// Ends whoever a process waits for; whether that could be tried.
fn end_blockers(readers: &Pool, waiting: i32) -> bool {
    let ended = readers.with(Tries::Again, |session| {
        session.query(END_BLOCKERS, &[&waiting])
    });
    match ended {
        Ok(rows) => {
            for row in &rows {
                let pid: i32 = row.get(0);
                tracing::warn!(
                    pid,
                    "ended a process of PostgreSQL that held shards which are taken over"
                );
            }
            true
        }
        Err(error) => {
            tracing::warn!(%error, "could not end who holds shards that are taken over");
            false
        }
    }
}

fn odd() -> Failure {
    Failure::corrupt("a shard has what is never written")
}
