//! Log lines and where they are kept.
//!
//! The log of an attempt is a file of lines `<microseconds since 1970> <stream letter> <text>`, the
//! text with `\` and line ends escaped, so any bytes a step prints survive and a torn last line is
//! recognised. Rotation keeps the newest [`kapell_model::limits::LOG_BYTES`]. Over a database the same lines are
//! rows.

use std::path::{Path, PathBuf};

use kapell_model::{RunId, Time};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Kapell's own words about the attempt.
    System,
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Line {
    /// When it was read: microseconds since 1970.
    #[schema(value_type = i64)]
    pub at: Time,
    /// Where it came from.
    pub stream: Stream,
    /// Without its line end; bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// The file of the log of one attempt below the data directory's `logs` folder. Path characters
/// that a file name cannot hold are replaced by `_`, and long paths are cut and made unique by a hash.
pub fn file(logs: &Path, run: RunId, path: &str, attempt: u32) -> PathBuf {
    let mut name: String = path
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.[]#".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    if name.len() > 150 || name != path {
        let hash = path.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        name.truncate(150);
        name = format!("{name}-{hash:016x}");
    }
    logs.join(run.to_string())
        .join(format!("{name}.{attempt}.log"))
}

/// The file that holds the older lines of a log once it has been rotated; read it before
/// [`file`]'s. It may not exist.
pub fn older(file: &Path) -> PathBuf {
    file.with_extension("log.old")
}

/// Whose a log is: the run, the path of the step, the attempt.
pub type LogOf<'l> = (RunId, &'l str, u32);

impl Line {
    /// The stored form, with its line end.
    pub fn encode(at: Time, stream: Stream, text: &[u8], into: &mut Vec<u8>) {
        let letter = match stream {
            Stream::Stdout => b'o',
            Stream::Stderr => b'e',
            Stream::System => b's',
        };
        into.extend_from_slice(at.0.to_string().as_bytes());
        into.extend_from_slice(&[b' ', letter, b' ']);
        for byte in text {
            match byte {
                b'\\' => into.extend_from_slice(b"\\\\"),
                b'\n' => into.extend_from_slice(b"\\n"),
                b'\r' => into.extend_from_slice(b"\\r"),
                byte => into.push(*byte),
            }
        }
        into.push(b'\n');
    }

    /// Reads one stored line, without its line end; `None` if it is torn.
    pub fn decode(line: &[u8]) -> Option<Self> {
        let space = line.iter().position(|byte| *byte == b' ')?;
        let at = Time(std::str::from_utf8(&line[..space]).ok()?.parse().ok()?);
        let stream = match line.get(space + 1)? {
            b'o' => Stream::Stdout,
            b'e' => Stream::Stderr,
            b's' => Stream::System,
            _ => return None,
        };
        let mut text = Vec::with_capacity(line.len());
        let mut bytes = line.get(space + 3..)?.iter();
        while let Some(byte) = bytes.next() {
            text.push(match (byte, byte == &b'\\') {
                (_, true) => match bytes.next()? {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    other => *other,
                },
                (byte, false) => *byte,
            });
        }
        Some(Self {
            at,
            stream,
            text: String::from_utf8_lossy(&text).into_owned(),
        })
    }
}
