//! Logs as files of the data directory, a folder for each run.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kapell_api::http::LogQuery;
use kapell_api::log;
use kapell_model::{Error, RunId};

use super::{LOGS, Log, Logs, belongs, unreadable};

/// The folder `logs` of a data directory.
#[derive(Clone, Debug)]
pub(crate) struct FileLogs(pub(crate) PathBuf);

/// A file, and what says which are left out and which comes first.
struct Found {
    log: Log<'static>,
    file: PathBuf,
    changed: SystemTime,
    /// The older file of a log that was rotated comes before this.
    newer: bool,
}

impl Logs for FileLogs {
    fn find(&self, run: RunId, query: &LogQuery) -> Result<(Vec<Log<'_>>, usize), Error> {
        let mut found = find(&self.0, run, query).map_err(|error| unreadable(run, &error))?;
        let left_out = found.len().saturating_sub(LOGS);
        if left_out > 0 {
            found.sort_by(|a, b| b.changed.cmp(&a.changed).then_with(|| a.file.cmp(&b.file)));
            found.truncate(LOGS);
        }
        found.sort_by(|a, b| {
            (&a.log.path, a.log.attempt, a.newer).cmp(&(&b.log.path, b.log.attempt, b.newer))
        });
        Ok((found.into_iter().map(|found| found.log).collect(), left_out))
    }
}

fn find(logs: &Path, run: RunId, query: &LogQuery) -> std::io::Result<Vec<Found>> {
    let folder = logs.join(run.to_string());
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
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
        let file = entry.path();
        let place = file.clone();
        let log = Log {
            // Its inode: a file keeps it when a rotation renames it.
            key: data.ino().to_string(),
            path: path.to_owned(),
            attempt,
            length: data.len(),
            bytes: Box::new(move |from, most| (from, range(&place, from, most))),
        };
        found.push(Found {
            log,
            file,
            changed: data.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            newer: !old,
        });
    }
    Ok(found)
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
