//! Logs of attempts as rows, which every node reads, also those of a node that has died.
//!
//! A log is a row, and its lines are chunks of bytes from some place on, in a partition for the day on which
//! it began. Whoever reads goes by the place of the next line; so lines of one log keep their order, and what
//! was read once stays where it was until it goes because the log has grown too long.
//!
//! Connections and their thread are its own: lines on their way stand in the way of no commit.
//!
//! - **Crash**: lines that a node held and had not written yet are lost with it.
//! - **Slow store**: whoever appends waits; the node bounds what waits behind it.
//! - **Clock jump**: days are those of the database's clock; a log stays in the day in which it began.

use std::sync::Arc;

use kapell_model::{RunId, limits};

use super::connector;
use super::failure::Failure;
use super::pool::{Pool, Tries};
use super::read::{Outcome, bound, get, text};
use super::write::Columns;
use crate::{PostgresUrl, Result};

/// Connections: one that writes, and readers.
const CONNECTIONS: usize = 4;

/// Bytes that stand for path and attempt.
const ID: usize = 16;

/// Bytes of lines in one chunk.
const CHUNK: usize = 256 << 10;

/// Chunks that are read in one go: at first, and at most where they are small.
const READ: i64 = 16;
const READ_MOST: i64 = 1_024;

/// What is written in one statement: lines of so many logs, and about so many bytes.
const APPENDED: usize = 1_000;
const APPENDED_BYTES: usize = 4 << 20;

const APPEND: &str = "SELECT append_logs_1($1, $2, $3, $4, $5, $6, $7)::text";

const FIND: &str = "SELECT path, attempt, id, day, length, count(*) OVER () FROM logs
    WHERE run = $1 AND ($2::bigint IS NULL OR attempt = $2)
        AND ($3::bytea IS NULL OR path = $3 OR (substring(path FROM 1 FOR octet_length($3)) = $3
            AND substring(path FROM octet_length($3) + 1 FOR 1) IN ('#', '.', '[')))
    ORDER BY changed_at DESC, id LIMIT $4";

/// From the chunk on that a place lies in, or the first behind it.
const CHUNKS: &str = "SELECT start, content FROM log_chunks WHERE day = $1 AND run = $2 AND id = $3
    AND start >= coalesce((SELECT max(start) FROM log_chunks WHERE day = $1 AND run = $2 AND id = $3 AND start <= $4), $4)
    ORDER BY start LIMIT $5";

/// Lines of a log that were sent together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLines {
    /// The run.
    pub run: RunId,
    /// Path of the step.
    pub path: Arc<str>,
    /// The attempt.
    pub attempt: u32,
    /// Bytes of the log that were sent before.
    pub offset: u64,
    /// Whole lines. None: what was sent before and did not come is lost.
    pub text: Vec<u8>,
}

/// The log of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresLog {
    /// Path of the step.
    pub path: String,
    /// The attempt.
    pub attempt: u32,
    /// Names it in its run.
    pub id: Vec<u8>,
    /// Where its end is.
    pub length: u64,
    day: i32,
}

/// Logs in the schema of a [`super::PostgresStore`]. Clones share its connections.
#[derive(Clone)]
pub struct PostgresLogs {
    pool: Arc<Pool>,
    kept: i64,
}

impl PostgresLogs {
    /// Logs of a schema that is up to date. Connects when it is first asked.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`] if no thread can be started.
    pub fn open(url: &PostgresUrl) -> Result<Self> {
        let kept = i64::try_from(limits::LOG_BYTES).unwrap_or(i64::MAX);
        Self::keeping(url, kept)
    }

    /// The same with another bound on the bytes of a log.
    pub(super) fn keeping(url: &PostgresUrl, kept: i64) -> Result<Self> {
        let pool = Pool::new(connector(url)?, CONNECTIONS);
        Ok(Self {
            pool: Arc::new(pool),
            kept,
        })
    }

    /// Appends lines; those of one log in the order in which they are given. Durable when it returns. If it
    /// fails some may be written, and all may be appended again: what came already is not written twice.
    ///
    /// # Errors
    /// Those of the database.
    pub fn append(&self, lines: &[LogLines]) -> Result<()> {
        let mut chunks: Vec<Chunk<'_>> = lines.iter().flat_map(chunks_of).collect();
        // The sort keeps those of one log in order.
        chunks.sort_by_key(|chunk| (chunk.run, chunk.id));
        let mut rest = &chunks[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let some = rest.iter().take(APPENDED).take_while(|chunk| {
                let first = bytes == 0;
                bytes += chunk.text.len();
                first || bytes <= APPENDED_BYTES
            });
            let (now, later) = rest.split_at(some.count().max(1));
            self.append_some(now)?;
            rest = later;
        }
        Ok(())
    }

    fn append_some(&self, chunks: &[Chunk<'_>]) -> Result<()> {
        let mut columns = Columns::default();
        columns.column(chunks.iter().map(|chunk| chunk.run.to_vec()));
        columns.column(chunks.iter().map(|chunk| chunk.id.to_vec()));
        columns.column(chunks.iter().map(|chunk| chunk.path.as_bytes()));
        columns.column(chunks.iter().map(|chunk| i64::from(chunk.attempt)));
        columns.column(chunks.iter().map(|chunk| place(chunk.offset)));
        columns.column(chunks.iter().map(|chunk| chunk.text));
        columns.value(self.kept);
        let append = || {
            self.pool.with_failure(Tries::Again, |session| {
                session.query(APPEND, &columns.params())
            })
        };
        let appended = append().or_else(|failure| {
            if !failure.is_partition_missing() {
                return Err(failure);
            }
            // The first lines of a day: nothing was written.
            let sql = "SELECT make_log_day_1((extract(epoch FROM clock_timestamp())::bigint / 86400)::int)::text";
            self.pool
                .with_failure(Tries::Again, |session| session.query(sql, &[]))?;
            append()
        });
        appended.map(drop).map_err(|failure| failure.error)
    }

    /// The logs of a run: of a step with its items and what is inside it, of one attempt, or all. At most
    /// `limit`, those that were written last; and how many there are.
    ///
    /// # Errors
    /// Those of the database.
    pub fn find(
        &self,
        run: RunId,
        step: Option<&str>,
        attempt: Option<u32>,
        limit: usize,
    ) -> Result<(Vec<PostgresLog>, u64)> {
        let (step, attempt) = (step.map(str::as_bytes), attempt.map(i64::from));
        let limit = bound(limit);
        self.pool.with(Tries::Again, |session| {
            let rows = session.query(FIND, &[&&run.to_bytes()[..], &attempt, &step, &limit])?;
            let all = rows.first().map_or(Ok(0), |row| get::<i64>(row, 5))?;
            let logs = rows.iter().map(|row| {
                Ok(PostgresLog {
                    path: text(row, 0)?.to_owned(),
                    attempt: u32::try_from(get::<i64>(row, 1)?).unwrap_or(0),
                    id: get(row, 2)?,
                    day: get(row, 3)?,
                    length: u64::try_from(get::<i64>(row, 4)?).unwrap_or(0),
                })
            });
            let logs = logs.collect::<Outcome<Vec<_>>>()?;
            Ok((logs, u64::try_from(all).unwrap_or(0)))
        })
    }

    /// Bytes of a log from a place on, at most so many, and the place of the first: a later one if the log
    /// has grown so long that what was there is gone.
    ///
    /// # Errors
    /// Those of the database.
    pub fn read(
        &self,
        run: RunId,
        log: &PostgresLog,
        from: u64,
        most: usize,
    ) -> Result<(u64, Vec<u8>)> {
        let (mut first, mut bytes) = (None, Vec::new());
        let (mut next, mut limit) = (from, READ);
        while bytes.len() < most {
            let (run, at) = (run.to_bytes(), place(next));
            let chunks = self.pool.with(Tries::Again, |session| {
                let rows = session.query(CHUNKS, &[&log.day, &&run[..], &log.id, &at, &limit])?;
                let chunks = rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?)));
                chunks.collect::<std::result::Result<Vec<(i64, Vec<u8>)>, Failure>>()
            })?;
            let all = bound(chunks.len()) < limit;
            let before = bytes.len();
            for (start, content) in chunks {
                let start = u64::try_from(start).unwrap_or(0);
                let known = usize::try_from(next.saturating_sub(start)).unwrap_or(usize::MAX);
                let Some(new) = content.get(known..).filter(|new| !new.is_empty()) else {
                    continue;
                };
                let at = start.max(next);
                if first.is_some() && at > next {
                    // What lay between is gone since: the rest is for the next time.
                    return Ok((first.unwrap_or(from), bytes));
                }
                first.get_or_insert(at);
                bytes.extend_from_slice(new);
                next = at + u64::try_from(new.len()).unwrap_or(0);
            }
            if all || bytes.len() == before {
                break;
            }
            limit = (limit * 2).min(READ_MOST);
        }
        bytes.truncate(most);
        Ok((first.unwrap_or(from), bytes))
    }

    /// Drops the logs of a run.
    ///
    /// # Errors
    /// Those of the database.
    pub fn remove(&self, run: RunId) -> Result<()> {
        let removed = self.pool.with(Tries::Again, |session| {
            session.query("SELECT drop_logs_1($1)::text", &[&&run.to_bytes()[..]])
        });
        removed.map(drop)
    }
}

/// Makes the partition of tomorrow, and drops one that is empty.
pub(super) fn tidy(writers: &Pool) -> Result<()> {
    let tidied = writers.with_failure(Tries::Once, |session| {
        session.query("SELECT tidy_logs_1()", &[])
    });
    match tidied {
        // Somebody reads: another time.
        Err(failure) if !failure.is_lock_held() => Err(failure.error),
        _ => Ok(()),
    }
}

/// Lines that become one chunk.
struct Chunk<'l> {
    run: [u8; 16],
    id: [u8; ID],
    path: &'l str,
    attempt: u32,
    offset: u64,
    text: &'l [u8],
}

/// Cuts lines between two of them, where they are many.
fn chunks_of(lines: &LogLines) -> Vec<Chunk<'_>> {
    let id = id_of(&lines.path, lines.attempt);
    let mut chunks = Vec::new();
    let (mut offset, mut rest) = (lines.offset, &lines.text[..]);
    loop {
        let most = rest.get(..CHUNK).unwrap_or(rest);
        let cut = if most.len() == rest.len() {
            rest.len()
        } else {
            let end = most.iter().rposition(|byte| *byte == b'\n');
            end.map_or(most.len(), |end| end + 1)
        };
        let (text, later) = rest.split_at(cut);
        chunks.push(Chunk {
            run: lines.run.to_bytes(),
            id,
            path: &lines.path,
            attempt: lines.attempt,
            offset,
            text,
        });
        offset += u64::try_from(cut).unwrap_or(0);
        rest = later;
        if rest.is_empty() {
            return chunks;
        }
    }
}

fn id_of(path: &str, attempt: u32) -> [u8; ID] {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(&attempt.to_be_bytes())
        .update(path.as_bytes());
    let mut id = [0; ID];
    hasher.finalize_xof().fill(&mut id);
    id
}

fn place(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
