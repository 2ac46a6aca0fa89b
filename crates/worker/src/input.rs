//! What an attempt gets: secrets resolved, blobs loaded, environment put together.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use kapell_api::task::{Blobs, Input, Process, SecretText, Task, TaskError, TextPart};
use kapell_api::trace;
use kapell_expr::Value;
use kapell_model::limits;

use crate::failure;
use crate::mask::Masker;
use crate::shared::{Far, Shared};

/// `env:` of a task with its secrets in place; `None` unsets.
pub(crate) type Env = Vec<(Arc<str>, Option<String>)>;

/// Gives a secret by its name.
pub(crate) type Secrets = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Resolves secrets of one attempt and remembers them for its masker.
pub(crate) struct Resolver<'a> {
    secrets: &'a Secrets,
    far: Option<&'a dyn Far>,
    task: &'a Task,
    used: Vec<String>,
}

impl<'a> Resolver<'a> {
    /// Nothing of this task resolved yet.
    pub(crate) fn new(shared: &'a Shared, task: &'a Task) -> Self {
        Self {
            secrets: &*shared.secrets,
            far: shared.far.as_deref(),
            task,
            used: Vec::new(),
        }
    }

    /// A secret of this worker, else of its server.
    fn secret(&self, name: &str) -> Result<String, Box<TaskError>> {
        if let Some(value) = (self.secrets)(name) {
            return Ok(value);
        }
        let found = match self.far {
            Some(far) => far.secret(self.task, name).map_err(|why| {
                let message = format!("the secret `{name}` did not come: {why}");
                failure::platform("secret", message)
            })?,
            None => None,
        };
        found.ok_or_else(|| {
            let message = format!("the secret `{name}` is not set on this worker");
            failure::user("secret", message)
        })
    }

    /// The text with its secrets in place.
    pub(crate) fn text(&mut self, text: &SecretText) -> Result<String, Box<TaskError>> {
        let mut whole = String::new();
        for part in &text.0 {
            match part {
                TextPart::Text(text) => whole.push_str(text),
                TextPart::Secret(name) => {
                    let value = self.secret(name)?;
                    whole.push_str(&value);
                    self.used.push(value);
                }
            }
        }
        Ok(whole)
    }

    /// `env:` of a task; `None` unsets.
    pub(crate) fn env(
        &mut self,
        env: &[(Arc<str>, Option<SecretText>)],
    ) -> Result<Env, Box<TaskError>> {
        env.iter()
            .map(|(name, text)| {
                Ok((
                    Arc::clone(name),
                    text.as_ref().map(|text| self.text(text)).transpose()?,
                ))
            })
            .collect()
    }

    /// `with:` as JSON, blobs loaded; `None` if there is none. Blocks if there are blobs.
    pub(crate) fn with(
        &mut self,
        input: &Input,
        blobs: &dyn Blobs,
    ) -> Result<Option<serde_json::Value>, Box<TaskError>> {
        if input.value.is_null() && input.secrets.is_empty() {
            return Ok(None);
        }
        let mut json = if has_blobs(&input.value) {
            let mut room = limits::OUTPUT_BYTES;
            loaded(&input.value, blobs, &mut room)?.to_json()
        } else {
            input.value.to_json()
        };
        for (pointer, text) in &input.secrets {
            let text = self.text(text)?;
            let place = json.pointer_mut(pointer).ok_or_else(|| {
                failure::user(
                    "secret",
                    format!("the input has no place `{pointer}` for a secret"),
                )
            })?;
            *place = text.into();
        }
        Ok(Some(json))
    }

    /// Hides everything resolved so far.
    pub(crate) fn masker(&self) -> Arc<Masker> {
        Arc::new(Masker::new(self.used.iter().map(String::as_str)))
    }
}

/// True if secrets stand in the inputs or the environment.
pub(crate) fn names_secrets(process: &Process) -> bool {
    let is_secret = |part: &TextPart| matches!(part, TextPart::Secret(_));
    let mut texts = process.env.iter().filter_map(|(_, text)| text.as_ref());
    !process.with.secrets.is_empty() || texts.any(|text| text.0.iter().any(is_secret))
}

/// True if a part of the value is kept elsewhere.
pub(crate) fn has_blobs(value: &Value) -> bool {
    match value {
        Value::Blob(_) => true,
        Value::List(items) => items.iter().any(has_blobs),
        Value::Map(entries) => entries.values().any(has_blobs),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::String(_)
        | Value::Bytes(_)
        | Value::Date(_)
        | Value::Timestamp(_)
        | Value::Duration(_) => false,
    }
}

fn loaded(value: &Value, blobs: &dyn Blobs, room: &mut u64) -> Result<Value, Box<TaskError>> {
    Ok(match value {
        Value::Blob(blob) => {
            *room = room.checked_sub(blob.size).ok_or_else(|| {
                failure::user(
                    "expression",
                    format!("`with` holds more than {} bytes", limits::OUTPUT_BYTES),
                )
            })?;
            let load = |error: &dyn std::fmt::Display| {
                failure::platform(
                    "artifact",
                    format!("cannot load an input ({} bytes): {error}", blob.size),
                )
            };
            let bytes = blobs
                .get(blob, limits::OUTPUT_BYTES)
                .map_err(|error| load(&error))?;
            Value::from_stored(&bytes).map_err(|error| load(&error))?
        }
        Value::List(items) => Value::list(
            items
                .iter()
                .map(|item| loaded(item, blobs, room))
                .collect::<Result<_, _>>()?,
        ),
        Value::Map(entries) => {
            let mut whole = kapell_expr::Map::new();
            for (key, value) in entries.iter() {
                whole.insert(Arc::clone(key), loaded(value, blobs, room)?);
            }
            Value::Map(Arc::new(whole))
        }
        other => other.clone(),
    })
}

/// The environment that every child gets, in the form that `exec` takes.
pub(crate) struct BaseEnv(Vec<(Vec<u8>, CString)>);

impl BaseEnv {
    /// From what the caller gives; entries that no environment can hold are left out.
    pub(crate) fn new(entries: &[(std::ffi::OsString, std::ffi::OsString)]) -> Self {
        Self(
            entries
                .iter()
                .filter_map(|(name, value)| {
                    let name = name.as_bytes().to_vec();
                    let entry =
                        CString::new([&name, b"=".as_slice(), value.as_bytes()].concat()).ok()?;
                    Some((name, entry))
                })
                .collect(),
        )
    }

    /// The value of a variable.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.0
            .iter()
            .find(|(own, _)| own == name.as_bytes())
            .map(|(own, entry)| &entry.as_bytes()[own.len() + 1..])
    }

    /// All entries.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.iter().map(|(name, entry)| {
            (
                OsStr::from_bytes(name),
                OsStr::from_bytes(&entry.as_bytes()[name.len() + 1..]),
            )
        })
    }

    /// These entries with those of a task over them.
    pub(crate) fn with(&self, over: &Variables) -> Vec<CString> {
        let replaced = |name: &[u8]| over.0.iter().any(|(other, _)| other.as_bytes() == name);
        let mut env: Vec<CString> = self
            .0
            .iter()
            .filter(|(name, _)| !replaced(name))
            .map(|(_, entry)| entry.clone())
            .collect();
        env.extend(over.0.iter().filter_map(|(_, entry)| entry.clone()));
        env
    }
}

/// Variables of one attempt; the last of a name holds.
#[derive(Default)]
pub(crate) struct Variables(Vec<(Arc<str>, Option<CString>)>);

impl Variables {
    /// Sets or unsets one. A name or value that no environment can hold is a user's failure.
    pub(crate) fn set(
        &mut self,
        name: &Arc<str>,
        value: Option<&[u8]>,
    ) -> Result<(), Box<TaskError>> {
        if name.is_empty() || name.contains('=') {
            return Err(failure::user(
                "spawn",
                format!("`{name}` cannot be the name of an environment variable"),
            ));
        }
        let entry = value
            .map(|value| CString::new([name.as_bytes(), b"=", value].concat()))
            .transpose()
            .map_err(|_| {
                failure::user(
                    "spawn",
                    format!("the value of `{name}` in `env` holds a zero byte"),
                )
            })?;
        match self.0.iter_mut().find(|(other, _)| other == name) {
            Some(place) => place.1 = entry,
            None => self.0.push((Arc::clone(name), entry)),
        }
        Ok(())
    }

    /// Sets one of Kapell's own.
    pub(crate) fn own(&mut self, name: &str, value: &str) -> Result<(), Box<TaskError>> {
        self.set(&Arc::from(name), Some(value.as_bytes()))
    }

    /// Sets one to a path.
    pub(crate) fn path(&mut self, name: &str, value: &Path) -> Result<(), Box<TaskError>> {
        self.set(&Arc::from(name), Some(value.as_os_str().as_bytes()))
    }

    /// The value of a variable, if it is set here.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        let (name, entry) = self.0.iter().find(|(other, _)| &**other == name)?;
        entry
            .as_ref()
            .map(|entry| &entry.as_bytes()[name.len() + 1..])
    }
}

/// What every child learns of its attempt, by variable.
pub(crate) fn identity(task: &Task) -> Vec<(&'static str, String)> {
    let Some(process) = task.work.process() else {
        return Vec::new();
    };
    vec![
        ("KAPELL_RUN_ID", task.run.to_string()),
        ("KAPELL_STEP", process.path.to_string()),
        ("KAPELL_ATTEMPT_NUMBER", task.attempt.to_string()),
        (
            "TRACEPARENT",
            trace::traceparent(task.run, &process.path, task.attempt),
        ),
        ("KAPELL_WORKFLOW", process.workflow.to_string()),
        ("KAPELL_NAMESPACE", process.namespace.to_string()),
        (
            "KAPELL_IDEMPOTENCY_KEY",
            process.idempotency_key.to_string(),
        ),
    ]
}
