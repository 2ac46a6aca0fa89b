//! Tasks, as nodes hand them to workers, and what workers report.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kapell_expr::{BlobRef, Value};
use kapell_model::spec::PythonSource;
use kapell_model::{FailureKind, Offer, RunId, SessionId, Time};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::schema;

/// The place of a task in its run. Opaque to workers, who only echo it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Place {
    /// The instance of a graph.
    pub scope: u32,
    /// The step in it.
    pub step: u16,
    /// The item of its foreach, or [`Place::NO_ITEM`].
    pub item: u32,
}

impl Place {
    /// The item of a step that has no foreach.
    pub const NO_ITEM: u32 = u32::MAX;
}

/// An attempt offered to a worker.
#[derive(Clone, Debug)]
pub struct Task {
    /// Names this grant; the report must name it too.
    pub offer: Offer,
    /// Whose worker it goes to.
    pub session: SessionId,
    /// The queue it waited in.
    pub queue: Arc<str>,
    /// The run.
    pub run: RunId,
    /// The place in the run.
    pub place: Place,
    /// 1 for the first try.
    pub attempt: u32,
    /// No other process of the worker may run beside it: an attempt before took its worker down, or
    /// was there when something did.
    pub alone: bool,
    /// What to do.
    pub work: Work,
}

/// What a task does.
#[derive(Clone, Debug)]
pub enum Work {
    /// Nothing.
    Noop,
    /// Fails with this message, a user failure.
    Fail {
        /// The error's message.
        message: String,
    },
    /// A script through an interpreter.
    Shell {
        /// The script, written to a file whose path follows the interpreter's argv.
        script: Arc<str>,
        /// `["sh", "-eu"]` unless the user said otherwise.
        interpreter: Vec<Arc<str>>,
        /// `$1…`.
        args: Vec<String>,
        /// What every process verb has.
        process: Box<Process>,
    },
    /// An argv without a shell.
    Exec {
        /// Program and arguments; at least one.
        argv: Vec<String>,
        /// What every process verb has.
        process: Box<Process>,
    },
    /// A Python function in a warm host.
    Python {
        /// Where the function is.
        source: PythonSource,
        /// Its name.
        function: Arc<str>,
        /// Requirement specifiers, sorted.
        requirements: Vec<Arc<str>>,
        /// Tasks one host may run at a time.
        concurrency: u32,
        /// What every process verb has; `process.with` holds the arguments by name.
        process: Box<Process>,
    },
    /// An HTTP request.
    Http {
        /// The request.
        request: Box<HttpRequest>,
        /// What every process verb has (of it: path, timeout, idempotency key, outputs).
        process: Box<Process>,
    },
}

impl Work {
    /// The common part; none for verbs that start nothing.
    pub fn process(&self) -> Option<&Process> {
        match self {
            Self::Noop | Self::Fail { .. } => None,
            Self::Shell { process, .. }
            | Self::Exec { process, .. }
            | Self::Python { process, .. }
            | Self::Http { process, .. } => Some(process),
        }
    }
}

/// What every verb that does something on a worker has.
#[derive(Clone, Debug)]
pub struct Process {
    /// The step's path in the run for people: `extract[3]`, `refine#2.improve`. Also names its log.
    pub path: Arc<str>,
    /// Namespace of the workflow.
    pub namespace: Arc<str>,
    /// The workflow's name.
    pub workflow: Arc<str>,
    /// Inputs: the file at `$KAPELL_INPUT`, or a function's arguments. Always a map, or null.
    pub with: Input,
    /// Environment besides the worker's own; `None` unsets.
    pub env: Vec<(Arc<str>, Option<SecretText>)>,
    /// The same for every try of the step.
    pub idempotency_key: Arc<str>,
    /// From the start of the attempt; then TERM, grace, KILL.
    pub timeout: Option<Duration>,
    /// Between TERM and KILL.
    pub grace: Duration,
    /// Cores, bytes and devices that the attempt needs.
    pub resources: TaskResources,
    /// A JSON file in the attempt's directory that holds the output.
    pub output_file: Option<Arc<str>>,
    /// Files to place before the start: path in the attempt's directory, and the artifact.
    pub artifacts_in: Vec<(Arc<str>, Artifact)>,
    /// Files to keep after success: name in the output, and path in the attempt's directory.
    pub artifacts_out: Vec<(Arc<str>, Arc<str>)>,
    /// The bundle to unpack: the blob of its [`Bundle`] as JSON.
    pub bundle: Option<BlobRef>,
}

/// Inputs of a task, in which secrets are still names.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// The value; a place that holds a secret is null here.
    pub value: Value,
    /// Secret text by JSON pointer (`/db/password`) into the value.
    pub secrets: Vec<(String, SecretText)>,
}

/// Text in which secrets are still names; only a worker resolves them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretText(pub Vec<TextPart>);

/// One part of a [`SecretText`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextPart {
    /// Text as it is.
    Text(Arc<str>),
    /// The name of a secret.
    Secret(Arc<str>),
}

impl SecretText {
    /// Text without secrets.
    pub fn plain(text: impl Into<Arc<str>>) -> Self {
        Self(vec![TextPart::Text(text.into())])
    }
}

/// What an attempt takes of its worker while it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TaskResources {
    /// Thousandths of a core; 0 takes a slot and no core of its own.
    pub cpu_millis: u64,
    /// Bytes; 0 is no bound.
    pub memory_bytes: u64,
    /// Devices.
    pub gpus: u32,
    /// Of kinds that users name.
    #[serde(default, skip_serializing_if = "Custom::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, u64>)]
    pub custom: Custom,
}

/// Amounts of resources that users name. Hardly anything asks for some: none take a pointer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Custom(Option<Arc<BTreeMap<Arc<str>, u64>>>);

impl FromIterator<(Arc<str>, u64)> for Custom {
    fn from_iter<T: IntoIterator<Item = (Arc<str>, u64)>>(amounts: T) -> Self {
        let amounts: BTreeMap<_, _> = amounts.into_iter().collect();
        Self((!amounts.is_empty()).then(|| Arc::new(amounts)))
    }
}

impl Custom {
    /// None.
    pub const NONE: Self = Self(None);

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Each name with its amount.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        let amounts = self.0.iter().flat_map(|amounts| amounts.iter());
        amounts.map(|(name, amount)| (name, *amount))
    }

    /// How much of one there is.
    pub fn of(&self, name: &str) -> u64 {
        let amounts = self.0.as_ref();
        amounts
            .and_then(|amounts| amounts.get(name).copied())
            .unwrap_or(0)
    }

    /// True if there is enough for these needs.
    pub fn covers(&self, needs: &Self) -> bool {
        needs.iter().all(|(name, amount)| amount <= self.of(name))
    }

    fn changed(self, by: &Self, change: impl Fn(u64, u64) -> u64) -> Self {
        if by.is_empty() {
            return self;
        }
        let mut amounts = self.0.unwrap_or_default();
        let all = Arc::make_mut(&mut amounts);
        for (name, amount) in by.iter() {
            let had = all.entry(name.clone()).or_default();
            *had = change(*had, amount);
        }
        all.retain(|_, amount| *amount > 0);
        Self((!all.is_empty()).then_some(amounts))
    }

    /// What is left beside these needs; never below zero.
    #[must_use]
    pub fn less(self, needs: &Self) -> Self {
        self.changed(needs, u64::saturating_sub)
    }

    /// Both together.
    #[must_use]
    pub fn more(self, needs: &Self) -> Self {
        self.changed(needs, u64::saturating_add)
    }
}

impl TaskResources {
    /// More than anything asks for, but for what users name.
    pub const ALL: Self = Self {
        cpu_millis: u64::MAX,
        memory_bytes: u64::MAX,
        gpus: u32::MAX,
        custom: Custom::NONE,
    };

    /// True for [`TaskResources::ALL`], whatever there is of what users name.
    pub fn is_all(&self) -> bool {
        (self.cpu_millis, self.memory_bytes, self.gpus) == (u64::MAX, u64::MAX, u32::MAX)
    }

    /// [`TaskResources::ALL`] with what there is of what users name.
    #[must_use]
    pub fn all_with(custom: Custom) -> Self {
        Self {
            custom,
            ..Self::ALL
        }
    }

    /// True if there is enough for these needs.
    pub fn covers(&self, needs: &Self) -> bool {
        needs.cpu_millis <= self.cpu_millis
            && needs.memory_bytes <= self.memory_bytes
            && needs.gpus <= self.gpus
            && self.custom.covers(&needs.custom)
    }

    /// What is left beside these needs; never below zero.
    #[must_use]
    pub fn less(self, needs: &Self) -> Self {
        Self {
            custom: self.custom.less(&needs.custom),
            cpu_millis: self.cpu_millis.saturating_sub(needs.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(needs.memory_bytes),
            gpus: self.gpus.saturating_sub(needs.gpus),
        }
    }

    /// Both together.
    #[must_use]
    pub fn more(self, needs: &Self) -> Self {
        Self {
            custom: self.custom.more(&needs.custom),
            cpu_millis: self.cpu_millis.saturating_add(needs.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(needs.memory_bytes),
            gpus: self.gpus.saturating_add(needs.gpus),
        }
    }
}

/// A kept file. As a value in an output: `{"$artifact": hash, "size": bytes, "name": file name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Where the content is.
    pub blob: BlobRef,
    /// The file's own name.
    pub name: Arc<str>,
}

impl Artifact {
    /// The artifact as a value of the language.
    pub fn to_value(&self) -> Value {
        Value::map([
            ("$artifact", Value::String(self.blob.hash.clone())),
            (
                "size",
                Value::Int(i64::try_from(self.blob.size).unwrap_or(i64::MAX)),
            ),
            ("name", Value::String(self.name.clone())),
        ])
    }

    /// Reads [`Artifact::to_value`]; `None` if the value is no artifact.
    pub fn from_value(value: &Value) -> Option<Self> {
        let entries = value.as_map()?;
        Some(Self {
            blob: BlobRef {
                hash: entries.get("$artifact")?.as_str()?.into(),
                size: u64::try_from(entries.get("size")?.as_int()?).ok()?,
            },
            name: entries.get("name")?.as_str()?.into(),
        })
    }
}

/// A folder of files that goes with a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// Its files, by path.
    pub files: Vec<BundleFile>,
}

/// One file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleFile {
    /// Relative path with `/`.
    pub path: String,
    /// The content.
    pub blob: BlobRef,
    /// True if it may be executed.
    pub executable: bool,
}

/// A rendered HTTP request.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// Upper case.
    pub method: Arc<str>,
    /// Complete but for the query.
    pub url: String,
    /// Query parameters, not yet encoded.
    pub query: Vec<(String, String)>,
    /// Headers.
    pub headers: Vec<(Arc<str>, SecretText)>,
    /// The body with its content type.
    pub body: Option<(&'static str, String)>,
    /// Credentials.
    pub auth: Option<HttpCredentials>,
}

/// Credentials of a request.
#[derive(Clone, Debug)]
pub enum HttpCredentials {
    /// A bearer token.
    Bearer(SecretText),
    /// User and password.
    Basic {
        /// User name.
        user: SecretText,
        /// Password.
        password: SecretText,
    },
}

/// What a worker says of a task.
#[derive(Clone, Debug)]
pub struct Report {
    /// The run.
    pub run: RunId,
    /// The place in the run.
    pub place: Place,
    /// The grant it speaks of.
    pub offer: Offer,
    /// Name of the worker that had it; empty where there is only one.
    pub worker: Arc<str>,
    /// What happened.
    pub event: TaskEvent,
}

impl Report {
    /// An attempt that is gone without a word of its worker: when it began, and ended at the latest; and why, with
    /// whether that explains it ([`Outcome::Lost`]).
    pub fn lost(
        (run, place, offer): (RunId, Place, Offer),
        (started_at, ended_at): (Time, Time),
        (reason, explained): (&str, bool),
    ) -> Self {
        Self {
            run,
            place,
            offer,
            worker: Arc::default(),
            event: TaskEvent::Ended {
                started_at,
                ended_at,
                outcome: Outcome::Lost {
                    reason: reason.to_owned(),
                    explained,
                },
                usage: None,
            },
        }
    }
}

/// What happened to a task.
#[derive(Clone, Debug)]
pub enum TaskEvent {
    /// It has run for [`kapell_model::limits::RECORD_START_AFTER`].
    Started {
        /// When the process was started.
        at: Time,
    },
    /// It is over.
    Ended {
        /// When the process was started.
        started_at: Time,
        /// When it was over.
        ended_at: Time,
        /// How.
        outcome: Outcome,
        /// What it used; none for verbs that start nothing.
        usage: Option<Usage>,
    },
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Well, with its output; one over [`kapell_model::limits::INLINE_OUTPUT_BYTES`] is a
    /// [`Value::Blob`] that holds [`Value::to_stored`].
    Succeeded(Value),
    /// With an error.
    Failed(Box<TaskError>),
    /// It was cancelled and is gone.
    Cancelled,
    /// It is gone without a result: the worker or machine died. A platform failure, and a sign that
    /// the step takes its worker down unless it is explained.
    Lost {
        /// Why, for people.
        reason: String,
        /// A drain, a stop or a restart of the machine did it, so it says nothing of this one.
        explained: bool,
    },
}

/// The error of an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskError {
    /// Whose fault.
    #[schema(value_type = schema::FailureKind)]
    pub kind: FailureKind,
    /// A stable word: `exit_code`, `signal`, `oom`, `exception`, `timeout`, `output`, `http_status`,
    /// `connection`, `spawn`, `requirements`, `artifact`, `fail`, `lost`, `secret`, `expression`.
    pub reason: String,
    /// For people; at most [`kapell_model::limits::ERROR_BYTES`].
    pub message: String,
    /// Of a process.
    pub exit_code: Option<i32>,
    /// Of a response.
    pub http_status: Option<u16>,
    /// True: trying again is useless (exit code 78, `kapell.fail(retry=False)`).
    pub permanent: bool,
    /// The response's `Retry-After`.
    #[schema(value_type = Option<schema::Duration>)]
    pub retry_after: Option<Duration>,
    /// An exception's traceback.
    pub traceback: Option<String>,
}

/// What an attempt used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// CPU time of it and its children, in milliseconds.
    pub cpu_millis: u64,
    /// Peak of resident memory, in bytes; 0, in JSON null, if it cannot be told apart from Kapell's own.
    #[serde(with = "zero_is_null")]
    #[schema(value_type = Option<u64>)]
    pub memory_bytes: u64,
}

/// A number of which 0 says that it is not known.
mod zero_is_null {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    pub(super) fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        (*number != 0).then_some(*number).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        Ok(Option::deserialize(from)?.unwrap_or_default())
    }
}

/// Where big values, artifacts and bundles are kept.
pub trait Blobs: Send + Sync {
    /// Keeps bytes.
    fn put(&self, bytes: &[u8]) -> io::Result<BlobRef>;
    /// Keeps a file's content without reading it into memory.
    fn put_file(&self, path: &Path) -> io::Result<BlobRef>;
    /// The bytes of a blob of at most `limit` bytes; a larger one is an error.
    fn get(&self, blob: &BlobRef, limit: u64) -> io::Result<Vec<u8>>;
    /// Writes the content to a new file.
    fn get_file(&self, blob: &BlobRef, path: &Path) -> io::Result<()>;
}

/// Takes nothing and has nothing: for whoever has no contents to keep, as tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBlobs;

impl Blobs for NoBlobs {
    fn put(&self, _: &[u8]) -> io::Result<BlobRef> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn put_file(&self, _: &Path) -> io::Result<BlobRef> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn get(&self, _: &BlobRef, _: u64) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn get_file(&self, _: &BlobRef, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
}
