//! The output of an attempt: read, checked, bounded, and put away if it is big.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use kapell_api::task::{Artifact, Blobs, Process, TaskError};
use kapell_expr::{Map, Value};
use kapell_model::limits;

use crate::bundle::checked_path;
use crate::failure;
use crate::mask::Masker;

/// What a process left behind.
pub(crate) struct Left {
    /// Its working directory.
    pub(crate) files: PathBuf,
    /// The file at `$KAPELL_OUTPUT`, if it was written.
    pub(crate) output: Option<PathBuf>,
    /// What its `::output` lines gave.
    pub(crate) lines: Vec<(String, String)>,
    /// True if they gave more than an output may hold.
    pub(crate) lines_over: bool,
}

/// What becomes of an output: no secret of the attempt is kept in it, and a big one is put away.
pub(crate) struct Keeping<'a> {
    /// Where big ones are put.
    pub(crate) blobs: &'a dyn Blobs,
    /// The secrets of the attempt.
    pub(crate) masker: &'a Masker,
    /// Writes into the attempt's log.
    pub(crate) note: &'a dyn Fn(&str),
}

/// What the log says where a secret was hidden.
const SECRET_HIDDEN: &str =
    "a secret stood in the output and was hidden: pass it on by `secrets`, not by outputs";

/// True if collecting may take long.
pub(crate) fn is_long(process: &Process, output: Option<&fs::Metadata>) -> bool {
    process.output_file.is_some()
        || !process.artifacts_out.is_empty()
        || output.is_some_and(|output| {
            !output.is_file() || output.len() > limits::INLINE_OUTPUT_BYTES as u64
        })
}

/// The output of an attempt that ended well.
pub(crate) fn collect(
    process: &Process,
    left: &Left,
    keeping: &Keeping<'_>,
) -> Result<Value, Box<TaskError>> {
    let value = match &left.output {
        Some(path) => read_json(path, "$KAPELL_OUTPUT")?.unwrap_or(Value::Null),
        None => Value::Null,
    };
    collect_with(value, process, left, keeping)
}

/// The output of an attempt that gave a value itself. A named output file takes its place.
pub(crate) fn collect_with(
    mut value: Value,
    process: &Process,
    left: &Left,
    keeping: &Keeping<'_>,
) -> Result<Value, Box<TaskError>> {
    if let Some(name) = &process.output_file {
        let path =
            checked_path(name).map_err(|error| failure::user("output", error.to_string()))?;
        value = read_json(&left.files.join(path), name)?.ok_or_else(|| {
            failure::user(
                "output",
                format!("the output file `{name}` was not written"),
            )
        })?;
    }
    if left.lines_over {
        return Err(too_large("the `::output` lines"));
    }
    let lines = left
        .lines
        .iter()
        .map(|(name, text)| Ok::<_, Box<TaskError>>((name.clone(), line_value(text))));
    let artifacts = process.artifacts_out.iter().map(|(name, path)| {
        Ok((
            name.to_string(),
            keep(path, &left.files, keeping.blobs)?.to_value(),
        ))
    });
    for entry in lines.chain(artifacts) {
        let (name, item) = entry?;
        value = with_entry(value, &name, item)?;
    }
    store(value, keeping)
}

/// The value without secrets, or a reference to it if it is too big to travel.
pub(crate) fn store(value: Value, keeping: &Keeping<'_>) -> Result<Value, Box<TaskError>> {
    let value = hidden(value, keeping);
    if matches!(value, Value::Null | Value::Bool(_) | Value::Int(_)) {
        return Ok(value);
    }
    // The estimate counts no escapes; a text of control characters is six times as long in JSON.
    if value.size() <= limits::INLINE_OUTPUT_BYTES / 6 {
        return Ok(value);
    }
    let bytes = value.to_stored();
    if bytes.len() <= limits::INLINE_OUTPUT_BYTES {
        return Ok(value);
    }
    if bytes.len() as u64 > limits::OUTPUT_BYTES {
        return Err(too_large("the output"));
    }
    let blob = keeping.blobs.put(&bytes).map_err(|error| {
        failure::platform(
            "output",
            format!("cannot store the output ({} bytes): {error}", bytes.len()),
        )
    })?;
    Ok(Value::Blob(blob))
}

/// The value without secrets of the attempt. A step that shows one would show it to whoever reads runs.
pub(crate) fn hidden(value: Value, keeping: &Keeping<'_>) -> Value {
    if !keeping.masker.is_in(&value) {
        return value;
    }
    (keeping.note)(SECRET_HIDDEN);
    keeping.masker.value(&value)
}

fn with_entry(value: Value, name: &str, item: Value) -> Result<Value, Box<TaskError>> {
    let mut entries = match value {
        Value::Null => Map::new(),
        Value::Map(entries) => std::sync::Arc::unwrap_or_clone(entries),
        other => {
            let message = format!(
                "the output file holds a {}, so `{name}` cannot be added to it; write a map",
                other.type_name()
            );
            return Err(failure::user("output", message));
        }
    };
    entries.insert(name.into(), item);
    Ok(Value::Map(std::sync::Arc::new(entries)))
}

/// Text of an `::output` line: JSON if it is, but a number only if it is written as JSON writes it, so
/// that a version `1.10` stays what it is.
fn line_value(text: &str) -> Value {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Number(number)) if number.to_string() != text => Value::string(text),
        Ok(json) => Value::from_json(&json),
        Err(_) => Value::string(text),
    }
}

/// The JSON in a file; `None` if there is no file or nothing in it.
fn read_json(path: &Path, shown: &str) -> Result<Option<Value>, Box<TaskError>> {
    let bad = |reason: &dyn std::fmt::Display| {
        failure::user(
            "output",
            format!("cannot read the output file `{shown}`: {reason}"),
        )
    };
    let file = match open_regular(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(bad(&error)),
    };
    let mut bytes = Vec::new();
    file.take(limits::OUTPUT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| bad(&error))?;
    if bytes.len() as u64 > limits::OUTPUT_BYTES {
        return Err(too_large(&format!("the output file `{shown}`")));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let json: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| {
        failure::user(
            "output",
            format!("the output file `{shown}` is not JSON: {error}"),
        )
    })?;
    Ok(Some(Value::from_json(&json)))
}

/// Opens a file but no pipe or device, which might block for ever.
fn open_regular(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is no file"))
    }
}

fn keep(name: &str, files: &Path, blobs: &dyn Blobs) -> Result<Artifact, Box<TaskError>> {
    let bad = |reason: &dyn std::fmt::Display| {
        failure::user(
            "artifact",
            format!("cannot keep the artifact `{name}`: {reason}"),
        )
    };
    let relative = checked_path(name).map_err(|error| bad(&error))?;
    let path = files.join(&relative);
    let file = open_regular(&path).map_err(|error| bad(&error))?;
    // A link out of the directory would keep a file that is none of the step's.
    let real = fs::canonicalize(&path).map_err(|error| bad(&error))?;
    let home = fs::canonicalize(files).map_err(|error| bad(&error))?;
    if !real.starts_with(&home) {
        return Err(bad(&"it lies outside the attempt's directory"));
    }
    if file
        .metadata()
        .is_ok_and(|metadata| metadata.len() > limits::ARTIFACT_BYTES)
    {
        return Err(bad(&format!(
            "it is larger than {} bytes",
            limits::ARTIFACT_BYTES
        )));
    }
    let blob = blobs.put_file(&real).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => bad(&error),
        _ => failure::platform(
            "artifact",
            format!("cannot store the artifact `{name}`: {error}"),
        ),
    })?;
    let name = relative
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    Ok(Artifact {
        blob,
        name: name.into(),
    })
}

fn too_large(what: &str) -> Box<TaskError> {
    failure::user(
        "output",
        format!(
            "{what} holds more than {} bytes; pass large data as an artifact",
            limits::OUTPUT_BYTES
        ),
    )
}
