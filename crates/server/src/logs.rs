//! Reading the logs of a run: many files, one order of time.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kapell_api::http::{LogCursor, LogLine, LogPage, LogQuery};
use kapell_api::log::{self, Line};
use kapell_model::{Error, ErrorCode, RunId, limits};

/// Files read at once; of more, the newest.
const FILES: usize = 500;

/// Lines of a page where none is asked for.
const LINES: usize = 10_000;

/// Bytes read of all files together for a page.
const PAGE_BYTES: usize = 16 << 20;

/// One file of a log: whose it is and where. A log that was rotated has two.
struct Log {
    /// Its inode: a file keeps it when a rotation renames it.
    key: String,
    path: String,
    attempt: u32,
    file: PathBuf,
    length: u64,
    changed: SystemTime,
}

/// One page of the lines that a query asks for.
pub(crate) fn read(logs: &Path, run: RunId, query: &LogQuery) -> Result<LogPage, Error> {
    let (found, left_out) = find(logs, run, query).map_err(|error| {
        Error::new(
            ErrorCode::StoreUnavailable,
            format!("the logs of run {run} cannot be read: {error}"),
        )
    })?;
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
    for log in &found {
        let from = query.cursor.get(&log.key).copied().unwrap_or(0);
        // A file that is shorter than what was read of it is another with the same number.
        let part = part(log, if from > log.length { 0 } else { from }, share);
        page.more |= part.cut;
        parts.push(part);
    }
    merge(&found, &parts, limit, &mut page);
    Ok(page)
}

fn find(logs: &Path, run: RunId, query: &LogQuery) -> std::io::Result<(Vec<Log>, usize)> {
    let folder = logs.join(run.to_string());
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(error),
    };
    let wanted = query.step.as_deref().map(|step| stem(logs, run, step));
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let (name, old) = name
            .strip_suffix(".old")
            .map_or((&*name, false), |name| (name, true));
        let Some((path, attempt)) = name
            .strip_suffix(".log")
            .and_then(|name| name.rsplit_once('.'))
            .and_then(|(path, attempt)| Some((path, attempt.parse::<u32>().ok()?)))
        else {
            continue;
        };
        if wanted.as_ref().is_some_and(|wanted| !belongs(path, wanted))
            || query.attempt.is_some_and(|wanted| wanted != attempt)
        {
            continue;
        }
        // A file that was renamed or removed meanwhile is found with the next page.
        let Ok(data) = entry.metadata() else { continue };
        let changed = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let log = Log {
            key: data.ino().to_string(),
            path: path.to_owned(),
            attempt,
            file: entry.path(),
            length: data.len(),
            changed,
        };
        found.push((!old, log));
    }
    let left_out = found.len().saturating_sub(FILES);
    if left_out > 0 {
        found.sort_by(|(_, a), (_, b)| b.changed.cmp(&a.changed).then_with(|| a.file.cmp(&b.file)));
        found.truncate(FILES);
    }
    // Of one log the older file comes first.
    found.sort_by(|(a_new, a), (b_new, b)| {
        (&a.path, a.attempt, a_new).cmp(&(&b.path, b.attempt, b_new))
    });
    Ok((found.into_iter().map(|(_, log)| log).collect(), left_out))
}

/// How the files of a step begin: its path in the form that file names have.
fn stem(logs: &Path, run: RunId, step: &str) -> String {
    let file = log::file(logs, run, step, 1);
    let name = file
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    name.strip_suffix(".1.log").unwrap_or(&name).to_owned()
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

fn part(log: &Log, from: u64, share: usize) -> Part {
    let bytes = range(&log.file, from, share);
    let mut part = Part {
        lines: Vec::new(),
        cut: bytes.len() == share,
    };
    part.take(&bytes, from);
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

fn range(file: &Path, from: u64, most: usize) -> Vec<u8> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(file)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(most as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    // A log that is removed meanwhile has no more lines.
    read().unwrap_or_default()
}

/// Lines in order of time, as far as every log has been read.
fn merge(logs: &[Log], parts: &[Part], limit: usize, page: &mut LogPage) {
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
