//! Reading the logs of a run: many of them, one order of time.
//!
//! Logs lie in files of the data directory ([`files`]), or in rows of a database that every node reads
//! ([`rows`]). What a page is, in which order lines come and where the next page goes on is the same for both.

mod files;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use kapell_api::http::{LogCursor, LogLine, LogPage, LogQuery};
use kapell_api::log::Line;
use kapell_model::{Error, ErrorCode, RunId, limits};
use kapell_node::upkeep::DropLogs;

pub(crate) use files::FileLogs;
pub(crate) use rows::{RowLogs, SETTLES};

/// Logs read at once; of more, the newest.
const LOGS: usize = 500;

/// Lines of a page where none is asked for.
const LINES: usize = 10_000;

/// Bytes read of all logs together for a page.
const PAGE_BYTES: usize = 16 << 20;

/// A log, or a part of it that is read by itself: a file that was rotated is two.
struct Log<'l> {
    /// What it is called in cursors.
    key: String,
    path: String,
    attempt: u32,
    /// Where its end is.
    length: u64,
    /// Bytes from a place on, at most so many, and the place of the first: a later one if what was there is
    /// gone.
    bytes: Box<dyn Fn(u64, usize) -> (u64, Vec<u8>) + 'l>,
}

/// Logs of one kind.
trait Logs {
    /// The logs that a query asks for, those of one path and attempt in order, and how many were left out:
    /// of more than [`LOGS`] those that were written last are given.
    fn find(&self, run: RunId, query: &LogQuery) -> Result<(Vec<Log<'_>>, usize), Error>;
}

/// All logs of runs that are reached from here.
#[derive(Clone)]
pub(crate) struct RunLogs {
    files: FileLogs,
    /// Where attempts write their lines, if that is not to files.
    rows: Option<Arc<RowLogs>>,
}

impl RunLogs {
    /// Those of a data directory, and the rows of a database if lines go there.
    pub(crate) fn new(folder: PathBuf, rows: Option<Arc<RowLogs>>) -> Self {
        Self {
            files: FileLogs(folder),
            rows,
        }
    }

    /// Where attempts write their lines, if that is not to files.
    pub(crate) fn rows(&self) -> Option<&Arc<RowLogs>> {
        self.rows.as_ref()
    }

    /// One page of the lines that a query asks for.
    pub(crate) fn read(&self, run: RunId, query: &LogQuery) -> Result<LogPage, Error> {
        // Files are from before the store was moved.
        let (mut found, mut left_out) = self.files.find(run, query)?;
        if let Some(rows) = &self.rows {
            rows.flush();
            let (more, left) = rows.find(run, query)?;
            found.extend(more);
            left_out += left;
        }
        Ok(read(&found, left_out, query))
    }
}

impl DropLogs for RunLogs {
    fn drop_logs(&self, run: RunId) -> std::io::Result<()> {
        self.files.0.drop_logs(run)?;
        match &self.rows {
            Some(rows) => rows.remove(run).map_err(std::io::Error::other),
            None => Ok(()),
        }
    }
}

fn unreadable(run: RunId, error: &dyn std::fmt::Display) -> Error {
    Error::new(
        ErrorCode::StoreUnavailable,
        format!("the logs of run {run} cannot be read: {error}"),
    )
}

fn read(found: &[Log<'_>], left_out: usize, query: &LogQuery) -> LogPage {
    let limit = if query.limit == 0 {
        LINES
    } else {
        query.limit.min(LINES)
    };
    let share = (PAGE_BYTES / found.len().max(1)).max(3 * limits::LOG_LINE_BYTES);
    let mut page = LogPage {
        cursor: query.cursor.clone(),
        left_out,
        ..LogPage::default()
    };
    let mut parts = Vec::new();
    for log in found {
        let from = query.cursor.get(&log.key).copied().unwrap_or(0);
        // One that is shorter than what was read of it is another with the same name.
        let part = part(log, if from > log.length { 0 } else { from }, share);
        page.more |= part.cut;
        parts.push(part);
    }
    merge(found, &parts, limit, &mut page);
    page
}

/// True for the step itself, its items and iterations, and the steps inside it.
fn belongs(path: &str, step: &str) -> bool {
    path.strip_prefix(step)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['[', '.', '#']))
}

/// What was read of one log: lines with the offset after each.
struct Part {
    lines: Vec<(Line, u64)>,
    /// More was there than was read.
    cut: bool,
}

fn part(log: &Log<'_>, from: u64, share: usize) -> Part {
    let (start, bytes) = (log.bytes)(from, share);
    let mut part = Part {
        lines: Vec::new(),
        cut: bytes.len() == share,
    };
    part.take(&bytes, start);
    part
}

impl Part {
    fn take(&mut self, bytes: &[u8], from: u64) {
        let mut offset = from;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            // A line without its end is still being written.
            let Some(text) = line.strip_suffix(b"\n") else {
                return;
            };
            offset += line.len() as u64;
            if let Some(line) = Line::decode(text) {
                self.lines.push((line, offset));
            }
        }
    }
}

/// Lines in order of time, as far as every log has been read.
fn merge(logs: &[Log<'_>], parts: &[Part], limit: usize, page: &mut LogPage) {
    let horizon = parts
        .iter()
        .filter(|part| part.cut)
        .filter_map(|part| part.lines.last().map(|(line, _)| line.at))
        .min();
    let mut order: Vec<(usize, usize)> = parts
        .iter()
        .enumerate()
        .flat_map(|(log, part)| (0..part.lines.len()).map(move |line| (log, line)))
        .collect();
    order.sort_by_key(|(log, line)| (parts[*log].lines[*line].0.at, *log, *line));
    let mut cursor: BTreeMap<usize, u64> = BTreeMap::new();
    for (log, line) in order {
        let (text, offset) = &parts[log].lines[line];
        if page.lines.len() >= limit || horizon.is_some_and(|horizon| text.at > horizon) {
            page.more = true;
            break;
        }
        cursor.insert(log, *offset);
        page.lines.push(LogLine {
            path: logs[log].path.clone(),
            attempt: logs[log].attempt,
            line: text.clone(),
        });
    }
    let read: LogCursor = cursor
        .into_iter()
        .map(|(log, offset)| (logs[log].key.clone(), offset))
        .collect();
    page.cursor.extend(read);
}
