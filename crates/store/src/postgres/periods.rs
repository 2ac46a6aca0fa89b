//! Where history lies: in a partition for each day, by the day that the id of a run says.
//!
//! A partition whose runs were deleted is dropped, which costs nothing; what few runs are left in it is
//! copied to `history_rest` first. All of an entity's chunks lie at one of these two places, so readers look
//! at both, and writers must know which. They remember what they saw: a day that is gone stays gone, and a
//! partition that another node has dropped is noticed by the commit that it fails.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use kapell_model::EntityKey;
use parking_lot::RwLock;

use super::failure::Failure;
use super::keys;
use super::pool::{Pool, Tries};
use super::read::get;
use super::session::Session;
use crate::Result;

/// Partitions that one tidying looks at.
const LOOKED_AT: i64 = 8;

/// What is copied forward at most so that a partition can be dropped: chunks and their bytes. Commits wait
/// meanwhile.
const COPIED_CHUNKS: i64 = 10_000;
const COPIED_BYTES: i64 = 16 << 20;

pub(super) struct Periods {
    /// Whether days have a partition. Days before the first one have none.
    known: RwLock<BTreeMap<i32, bool>>,
    /// After this day the next tidying begins.
    looked_at: AtomicI32,
}

impl Periods {
    pub(super) fn load(session: &mut Session) -> std::result::Result<Self, Failure> {
        let periods = Self {
            known: RwLock::default(),
            looked_at: AtomicI32::new(0),
        };
        periods.reload(session)?;
        Ok(periods)
    }

    pub(super) fn reload(&self, session: &mut Session) -> std::result::Result<(), Failure> {
        let rows = session.query("SELECT period, NOT gone FROM periods", &[])?;
        let days = rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?)));
        *self.known.write() = days.collect::<std::result::Result<_, Failure>>()?;
        Ok(())
    }

    /// Where the history of an entity lies.
    pub(super) fn of(&self, key: &EntityKey) -> i32 {
        let day = keys::period(key);
        let there = day > 0 && self.known.read().get(&day) == Some(&true);
        if there { day } else { 0 }
    }

    /// Makes partitions for days that have none and need one.
    pub(super) fn make(
        &self,
        writers: &Pool,
        days: impl Iterator<Item = i32>,
    ) -> std::result::Result<(), Failure> {
        let missing: Vec<i32> = {
            let known = self.known.read();
            let first = known.first_key_value().map_or(i32::MAX, |(day, _)| *day);
            let mut missing: Vec<i32> = days
                .filter(|day| *day > first && !known.contains_key(day))
                .collect();
            missing.sort_unstable();
            missing.dedup();
            missing
        };
        for day in missing {
            let there = writers.with_failure(Tries::Again, |session| {
                let rows = session.query("SELECT make_period_1($1)", &[&day])?;
                let row = rows.first().ok_or_else(|| Failure::corrupt("no answer"))?;
                get(row, 0)
            })?;
            self.known.write().insert(day, there);
        }
        Ok(())
    }

    /// Makes the partition of tomorrow, and drops those in which little is left.
    pub(super) fn tidy(&self, writers: &Pool) -> Result<()> {
        let after = self.looked_at.load(Relaxed);
        let (today, old) = writers.with(Tries::Again, |session| {
            let today = session.query("SELECT (extract(epoch FROM now())::bigint / 86400)::int", &[])?;
            let today: i32 = today.first().map_or(Ok(0), |row| get(row, 0))?;
            // Those of today and yesterday fill.
            let old = session.query(
                "SELECT period FROM periods WHERE NOT gone AND period < $1 AND period > $2 ORDER BY period LIMIT $3",
                &[&(today - 1), &after, &LOOKED_AT],
            )?;
            let old = old.iter().map(|row| get(row, 0));
            Ok((today, old.collect::<std::result::Result<Vec<i32>, Failure>>()?))
        })?;
        for day in [today, today + 1] {
            self.make(writers, std::iter::once(day))
                .map_err(|failure| failure.error)?;
        }
        for &day in &old {
            self.drop_day(writers, day)?;
        }
        // Beyond the last one it begins anew.
        self.looked_at
            .store(old.last().copied().unwrap_or(0), Relaxed);
        Ok(())
    }

    fn drop_day(&self, writers: &Pool, day: i32) -> Result<()> {
        let dropped = writers.with_failure(Tries::Once, |session| {
            let params: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
                [&day, &COPIED_CHUNKS, &COPIED_BYTES];
            let rows = session.query("SELECT drop_period_1($1, $2, $3)", &params)?;
            rows.first()
                .map_or(Ok(None), |row| get::<Option<i64>>(row, 0))
        });
        match dropped {
            Ok(Some(copied)) => {
                self.known.write().insert(day, false);
                tracing::debug!(day, copied, "dropped the history of a day");
                Ok(())
            }
            Ok(None) => Ok(()),
            // Somebody reads: another time.
            Err(failure) if failure.is_lock_held() => Ok(()),
            Err(failure) => Err(failure.error),
        }
    }
}
