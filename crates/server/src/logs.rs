//! Reading the logs of a run: many files, one order of time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
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

/// One log: whose it is and where.
struct Log {
    name: String,
    path: String,
    attempt: u32,
    file: PathBuf,
    changed: SystemTime,
}

/// One page of the lines that a query asks for.
pub(crate) fn read(logs: &Path, run: RunId, query: &LogQuery) -> Result<LogPage, Error> {
    let (found, left_out) = find(logs, run, query).map_err(|error| {
        Error::new(ErrorCode::StoreUnavailable, format!("the logs of run {run} cannot be read: {error}"))
    })?;
    let limit = if query.limit == 0 { LINES } else { query.limit.min(LINES) };
    let share = (PAGE_BYTES / found.len().max(1)).max(3 * limits::LOG_LINE_BYTES);
    let mut page = LogPage { cursor: query.cursor.clone(), left_out, ..LogPage::default() };
    let mut read = Vec::new();
    for log in &found {
        let from = query.cursor.get(&log.name).copied().unwrap_or(0);
        let part = part(log, from, share);
        page.more |= part.cut;
        read.push(part);
    }
    merge(&found, &read, limit, &mut page);
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
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Some((path, attempt)) = name
            .strip_suffix(".log")
            .and_then(|name| name.rsplit_once('.'))
            .and_then(|(path, attempt)| Some((path.to_owned(), attempt.parse::<u32>().ok()?)))
        else {
            continue;
        };
        if wanted.as_ref().is_some_and(|wanted| !belongs(&path, wanted))
            || query.attempt.is_some_and(|wanted| wanted != attempt)
        {
            continue;
        }
        let changed = entry.metadata().and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        found.push(Log { name, path, attempt, file: entry.path(), changed });
    }
    let left_out = found.len().saturating_sub(FILES);
    if left_out > 0 {
        found.sort_by(|a, b| b.changed.cmp(&a.changed).then_with(|| a.name.cmp(&b.name)));
        found.truncate(FILES);
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((found, left_out))
}

/// How the files of a step begin: its path in the form that file names have.
fn stem(logs: &Path, run: RunId, step: &str) -> String {
    let file = log::file(logs, run, step, 1);
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
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
    let mut part = Part { lines: Vec::new(), cut: false };
    let length = fs::metadata(&log.file).map_or(0, |data| data.len());
    let older = log::older(&log.file);
    let old = fs::metadata(&older).map_or(0, |data| data.len());
    // Offsets count from the start of what is kept: the older file comes first. A rotation moves
    // what was read into it, so an offset beyond the file speaks of the one before.
    let bytes = if from == 0 && old > 0 {
        let mut bytes = range(&older, 0, usize::try_from(old).unwrap_or(usize::MAX));
        bytes.extend(range(&log.file, 0, share));
        let base = old;
        part.take(&bytes, 0);
        for (_, offset) in &mut part.lines {
            *offset = offset.saturating_sub(base);
        }
        part.cut = false;
        return part;
    } else if from > length {
        part.take(&range(&older, from, share), from);
        for (_, offset) in &mut part.lines {
            *offset = 0;
        }
        let start = part.lines.len();
        part.take(&range(&log.file, 0, share), 0);
        debug_assert!(part.lines.len() >= start);
        return part;
    } else {
        range(&log.file, from, share)
    };
    part.take(&bytes, from);
    part.cut = bytes.len() == share;
    part
}

impl Part {
    fn take(&mut self, bytes: &[u8], from: u64) {
        let mut offset = from;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            // A line without its end is still being written.
            let Some(text) = line.strip_suffix(b"\n") else { return };
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
    let read: LogCursor = cursor.into_iter().map(|(log, offset)| (logs[log].name.clone(), offset)).collect();
    page.cursor.extend(read);
}
