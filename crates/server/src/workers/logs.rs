//! Log lines of workers in other processes, in the files that the worker here would write.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use kapell_api::log::{self, Line, Stream};
use kapell_model::{RunId, Time, limits};

/// Files open at once for one worker.
const OPEN: usize = 256;

/// The logs that one worker writes.
#[derive(Debug, Default)]
pub(crate) struct LogFiles {
    files: HashMap<(RunId, String, u32), LogFile>,
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: Option<File>,
    /// Bytes in the file.
    written: u64,
    /// Bytes of the log that have come.
    offset: u64,
}

impl LogFiles {
    /// Appends whole lines, of whose log `offset` bytes came before. What was written already is not
    /// written again; what never came is said.
    pub(crate) fn append(
        &mut self,
        logs: &Path,
        (run, step, attempt): (RunId, &str, u32),
        (offset, text): (u64, &[u8]),
        now: Time,
    ) -> io::Result<()> {
        if self.files.len() >= OPEN {
            self.files.clear();
        }
        let log = self
            .files
            .entry((run, step.to_owned(), attempt))
            .or_insert_with(|| LogFile::open(log::file(logs, run, step, attempt), offset));
        log.append(offset, text, now)
    }

    /// The attempt is over.
    pub(crate) fn close(&mut self, run: RunId, step: &str, attempt: u32) {
        self.files.remove(&(run, step.to_owned(), attempt));
    }
}

impl LogFile {
    /// Goes on with a file. Of one that was never rotated the length says what has come; else it is
    /// taken that all before `offset` has.
    fn open(path: PathBuf, offset: u64) -> Self {
        let length = fs::metadata(&path).map_or(0, |data| data.len());
        let rotated = log::older(&path).exists();
        Self {
            path,
            file: None,
            written: length,
            offset: if rotated { offset } else { length },
        }
    }

    fn append(&mut self, offset: u64, text: &[u8], now: Time) -> io::Result<()> {
        let end = offset.saturating_add(text.len() as u64);
        if end <= self.offset {
            return Ok(());
        }
        let known = usize::try_from(self.offset.saturating_sub(offset)).unwrap_or(0);
        // Between lines only: notes of a process before may have made the file longer than the log.
        let (before, after) = text.split_at(known.min(text.len()));
        let new = if before.ends_with(b"\n") { after } else { text };
        if offset > self.offset {
            let lost = offset - self.offset;
            let mut note = Vec::new();
            let said = format!("{lost} bytes of this log were lost on their way here");
            Line::encode(now, Stream::System, said.as_bytes(), &mut note);
            self.write(&note)?;
        }
        self.write(new)?;
        self.offset = end;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            if let Some(parent) = self.path.parent() {
                fs::create_dir_all(parent)?;
            }
            let mut options = File::options();
            let options = options.append(true).create(true).mode(0o600);
            let file = options.open(&self.path)?;
            self.file = Some(file);
        }
        if let Some(file) = &mut self.file {
            file.write_all(bytes)?;
        }
        self.written += bytes.len() as u64;
        // The full half becomes the older one; the one before it is dropped.
        if self.written >= limits::LOG_BYTES / 2 {
            fs::rename(&self.path, log::older(&self.path))?;
            (self.file, self.written) = (None, 0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: RunId = RunId(5);

    fn line(text: &str) -> Vec<u8> {
        let mut line = Vec::new();
        Line::encode(Time(7), Stream::Stdout, text.as_bytes(), &mut line);
        line
    }

    fn text(dir: &Path) -> String {
        let bytes = fs::read(log::file(dir, RUN, "a", 1)).unwrap();
        let lines = bytes.split(|byte| *byte == b'\n');
        let lines: Vec<String> = lines
            .filter_map(Line::decode)
            .map(|line| line.text)
            .collect();
        lines.join("|")
    }

    #[test]
    fn what_comes_twice_is_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (line("one"), line("two"));
        let after = one.len() as u64;
        let mut logs = LogFiles::default();
        let append = |logs: &mut LogFiles, offset, bytes: &[u8]| {
            logs.append(dir.path(), (RUN, "a", 1), (offset, bytes), Time(9))
                .unwrap();
        };
        append(&mut logs, 0, &one);
        append(&mut logs, 0, &one);
        append(&mut logs, 0, &[one.as_slice(), &two].concat());
        assert_eq!(text(dir.path()), "one|two");
        // Another process goes on.
        let mut logs = LogFiles::default();
        append(&mut logs, after, &two);
        append(&mut logs, 2 * after, &line("three"));
        assert_eq!(text(dir.path()), "one|two|three");
    }

    #[test]
    fn what_never_came_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut logs = LogFiles::default();
        logs.append(dir.path(), (RUN, "a", 1), (10, &line("late")), Time(9))
            .unwrap();
        assert_eq!(
            text(dir.path()),
            "10 bytes of this log were lost on their way here|late"
        );
    }

    #[test]
    fn a_log_keeps_its_newest_part() {
        let dir = tempfile::tempdir().unwrap();
        let mut logs = LogFiles::default();
        let long = line(&"x".repeat(1 << 20));
        let mut offset = 0;
        for _ in 0..limits::LOG_BYTES / (1 << 20) + 40 {
            logs.append(dir.path(), (RUN, "a", 1), (offset, &long), Time(9))
                .unwrap();
            offset += long.len() as u64;
        }
        let file = log::file(dir.path(), RUN, "a", 1);
        let length = |path: &Path| fs::metadata(path).unwrap().len();
        let kept = length(&file) + length(&log::older(&file));
        assert!(kept <= limits::LOG_BYTES + long.len() as u64);
        assert!(kept >= limits::LOG_BYTES / 2);
    }
}
