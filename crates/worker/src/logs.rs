//! The log of one attempt: bytes in, masked lines in a bounded file out.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use kapell_api::log::{self, Line, Stream};
use kapell_model::{Time, limits};

use crate::launch::Job;
use crate::mask::Masker;
use crate::shared::Far;

/// Lines of standard error kept for the error's message.
const TAIL_LINES: usize = 10;
/// Bytes of one of them.
const TAIL_BYTES: usize = 1000;
/// What marks an output on standard output: `::output name=value`.
const OUTPUT_MARK: &[u8] = b"::output ";

/// The log of one attempt, and what its lines say.
pub(crate) struct AttemptLog {
    path: PathBuf,
    file: Option<File>,
    /// Where lines go instead of a file, and bytes that went there.
    far: Option<(Arc<dyn Far>, Arc<Job>)>,
    written: u64,
    bound: u64,
    lost: u64,
    torn: bool,
    masker: Arc<Masker>,
    pending: [Partial; 2],
    encoded: Vec<u8>,
    tail: VecDeque<String>,
    /// What `::output` lines gave, as they came.
    pub(crate) outputs: Vec<(String, String)>,
    outputs_bytes: u64,
    /// True once the lines gave more than an output may hold.
    pub(crate) outputs_over: bool,
}

#[derive(Default)]
struct Partial {
    text: Vec<u8>,
    cut: u64,
}

impl AttemptLog {
    /// Nothing is made until the first line.
    pub(crate) fn new(path: PathBuf, masker: Arc<Masker>) -> Self {
        Self {
            path,
            file: None,
            far: None,
            written: 0,
            bound: limits::LOG_BYTES / 2,
            lost: 0,
            torn: false,
            masker,
            pending: <[Partial; 2]>::default(),
            encoded: Vec::new(),
            tail: VecDeque::new(),
            outputs: Vec::new(),
            outputs_bytes: 0,
            outputs_over: false,
        }
    }

    /// The same in a server's file instead of one here.
    pub(crate) fn sent_to(mut self, far: Arc<dyn Far>, job: Arc<Job>) -> Self {
        self.far = Some((far, job));
        self
    }

    /// Hides these secrets from now on.
    pub(crate) fn mask_with(&mut self, masker: Arc<Masker>) {
        self.masker = masker;
    }

    /// The same with another bound in bytes.
    #[cfg(test)]
    pub(crate) fn bounded(mut self, bytes: u64) -> Self {
        self.bound = bytes / 2;
        self
    }

    /// Takes bytes as they were read; whole lines are written at once.
    pub(crate) fn feed(&mut self, at: Time, stream: Stream, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            if self.partial(stream).text.is_empty() && end <= limits::LOG_LINE_BYTES {
                self.line(at, stream, &bytes[..end], 0);
            } else {
                self.hold(stream, &bytes[..end]);
                self.end_line(at, stream);
            }
            bytes = &bytes[end + 1..];
        }
        self.hold(stream, bytes);
        self.write();
    }

    /// Kapell's own words about the attempt.
    pub(crate) fn note(&mut self, at: Time, text: &str) {
        self.line(at, Stream::System, text.as_bytes(), 0);
        self.write();
    }

    /// Ends lines that have no end, and says what was lost.
    pub(crate) fn finish(&mut self, at: Time) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.partial(stream).text.is_empty() {
                self.end_line(at, stream);
            }
        }
        self.write();
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            self.note(
                at,
                &format!("{lost} bytes of this log could not be written"),
            );
        }
    }

    /// The last lines of standard error, masked.
    pub(crate) fn stderr_tail(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }

    fn partial(&mut self, stream: Stream) -> &mut Partial {
        &mut self.pending[usize::from(stream == Stream::Stderr)]
    }

    fn hold(&mut self, stream: Stream, bytes: &[u8]) {
        // Room behind the bound, so that a secret across it is seen whole.
        let room = limits::LOG_LINE_BYTES + self.masker.longest();
        let partial = self.partial(stream);
        let taken = bytes.len().min(room.saturating_sub(partial.text.len()));
        partial.text.extend_from_slice(&bytes[..taken]);
        partial.cut += (bytes.len() - taken) as u64;
    }

    fn end_line(&mut self, at: Time, stream: Stream) {
        let partial = std::mem::take(self.partial(stream));
        self.line(at, stream, &partial.text, partial.cut);
    }

    fn line(&mut self, at: Time, stream: Stream, text: &[u8], mut cut: u64) {
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if stream == Stream::Stdout && text.starts_with(OUTPUT_MARK) {
            self.take_output(&text[OUTPUT_MARK.len()..], cut);
        }
        let masker = Arc::clone(&self.masker);
        let shown = masker.bytes(text);
        let kept = &shown[..shown.len().min(limits::LOG_LINE_BYTES)];
        cut += (shown.len() - kept.len()) as u64;
        if stream == Stream::Stderr {
            if self.tail.len() == TAIL_LINES {
                self.tail.pop_front();
            }
            let words = &kept[..kept.len().min(TAIL_BYTES)];
            self.tail
                .push_back(String::from_utf8_lossy(words).into_owned());
        }
        if cut > 0 {
            let whole = [kept, format!(" … {cut} bytes cut").as_bytes()].concat();
            Line::encode(at, stream, &whole, &mut self.encoded);
        } else {
            Line::encode(at, stream, kept, &mut self.encoded);
        }
    }

    fn take_output(&mut self, text: &[u8], cut: u64) {
        self.outputs_bytes += text.len() as u64 + cut;
        if cut > 0 || self.outputs_bytes > limits::OUTPUT_BYTES {
            self.outputs_over = true;
            return;
        }
        let text = String::from_utf8_lossy(text);
        if let Some((name, value)) = text.split_once('=') {
            self.outputs
                .push((name.trim().to_owned(), value.to_owned()));
        }
    }

    /// Writes what is encoded. A full disk loses lines, never the attempt.
    fn write(&mut self) {
        if self.encoded.is_empty() {
            return;
        }
        if let Some((far, job)) = &self.far {
            far.log(&job.task, self.written, &self.encoded);
            self.written += self.encoded.len() as u64;
            self.encoded.clear();
            return;
        }
        let mut encoded = std::mem::take(&mut self.encoded);
        if self.torn {
            encoded.insert(0, b'\n');
        }
        if let Ok(()) = self.open().and_then(|file| file.write_all(&encoded)) {
            self.torn = false;
            self.written += encoded.len() as u64;
            if self.written >= self.bound {
                self.rotate();
            }
        } else {
            self.torn = self.file.is_some();
            self.lost += encoded.len() as u64;
        }
        encoded.clear();
        self.encoded = encoded;
    }

    fn open(&mut self) -> std::io::Result<&mut File> {
        if self.file.is_none() {
            let mut options = File::options();
            // Steps print what is nobody else's business.
            options.append(true).create(true).mode(0o600);
            let file = match options.open(&self.path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    if let Some(parent) = self.path.parent() {
                        fs::create_dir_all(parent)?;
                    }
                    options.open(&self.path)?
                }
                result => result?,
            };
            self.written = file.metadata().map_or(0, |metadata| metadata.len());
            self.file = Some(file);
        }
        self.file
            .as_mut()
            .ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }

    /// The full half becomes the older one; the one before it is dropped.
    fn rotate(&mut self) {
        if fs::rename(&self.path, log::older(&self.path)).is_ok() {
            self.file = None;
        }
    }
}
