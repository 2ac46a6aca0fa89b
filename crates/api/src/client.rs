//! Everything a client can ask, and a client that asks over a Unix socket.
//!
//! Whoever holds the data directory answers the same trait in process.

use std::fmt::Write as _;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use kapell_expr::BlobRef;
use kapell_model::{Error, ErrorCode, RunId, Time};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::http::{
    ANSWER_BYTES, Action, BASE, Health, LogPage, LogQuery, Problem, RecordQuery, RegisterWorkflow,
    Registered, RunPage, RunQuery, RunSummary, RunView, StartRun, Started, Version, VersionPage,
    WorkflowPage,
};
use crate::record::Record;

/// An answer, or a public failure.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything a client can ask. Calls block.
pub trait Api: Send + Sync {
    /// Who answers.
    fn health(&self) -> Result<Health>;
    /// Keeps bytes.
    fn put(&self, bytes: &[u8]) -> Result<BlobRef>;
    /// Keeps a file's content.
    fn put_file(&self, path: &Path) -> Result<BlobRef>;
    /// Registers a workflow; the same content again changes nothing.
    fn register(&self, workflow: &RegisterWorkflow) -> Result<Registered>;
    /// Workflows by name, after one.
    fn workflows(&self, after: &str, limit: usize) -> Result<WorkflowPage>;
    /// A version; none is the active one.
    fn version(&self, workflow: &str, version: Option<u32>) -> Result<Version>;
    /// Versions, newest first, before one.
    fn versions(&self, workflow: &str, before: Option<u32>, limit: usize) -> Result<VersionPage>;
    /// Makes a run.
    fn start(&self, start: &StartRun) -> Result<Started>;
    /// The run that a whole id, the end of one (at least 4 characters) or `last` names.
    fn find(&self, run: &str) -> Result<RunId>;
    /// Runs, newest first.
    fn list(&self, query: &RunQuery) -> Result<RunPage>;
    /// Where a run stands.
    fn view(&self, run: RunId) -> Result<RunView>;
    /// Where a run stands, in short: at once if it has ended, else after its status changed or the
    /// time is over.
    fn wait(&self, run: RunId, timeout: Duration) -> Result<RunSummary>;
    /// What became of a run, up to a moment.
    fn record(&self, run: RunId, at: Option<Time>) -> Result<Record>;
    /// Log lines.
    fn logs(&self, run: RunId, query: &LogQuery) -> Result<LogPage>;
    /// Does something to a run; the run that was made, if one was.
    fn act(&self, run: RunId, action: &Action) -> Result<Option<RunId>>;
}

/// Asks over a Unix socket, one request after another on one connection.
pub struct Client {
    runtime: tokio::runtime::Runtime,
    socket: PathBuf,
    connection: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Client {
    /// Connects to the socket of a data directory.
    ///
    /// # Errors
    /// [`ErrorCode::StoreUnavailable`] if nobody answers there.
    pub fn connect(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| unreachable(socket, &error))?;
        let client = Self {
            runtime,
            socket: socket.to_owned(),
            connection: Mutex::default(),
        };
        let connection = client
            .runtime
            .block_on(open(socket))
            .map_err(|error| unreachable(socket, &error))?;
        *client.connection.lock() = Some(connection);
        Ok(client)
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call(Method::GET, path, Bytes::new(), "application/json")
    }

    fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
        self.call(Method::POST, path, body.into(), "application/json")
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        kind: &str,
    ) -> Result<T> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{BASE}{path}"))
            .header(HOST, "kapell")
            .header(CONTENT_TYPE, kind)
            .body(Full::new(body))
            .map_err(|error| Error::new(ErrorCode::BadRequest, error.to_string()))?;
        let kept = self
            .connection
            .lock()
            .take()
            .filter(|connection| !connection.is_closed());
        let answer = self.runtime.block_on(async {
            let mut connection = match kept {
                Some(connection) => connection,
                None => open(&self.socket)
                    .await
                    .map_err(|error| unreachable(&self.socket, &error))?,
            };
            let lost = |error: &dyn std::fmt::Display| unreachable(&self.socket, error);
            let response = connection
                .send_request(request)
                .await
                .map_err(|error| lost(&error))?;
            let status = response.status();
            let bytes = Limited::new(response.into_body(), ANSWER_BYTES)
                .collect()
                .await
                .map_err(|error| lost(&error))?
                .to_bytes();
            Ok::<_, Error>((connection, status, bytes))
        });
        let (connection, status, bytes) = answer?;
        *self.connection.lock() = Some(connection);
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| {
                Error::new(
                    ErrorCode::Internal,
                    format!("the answer cannot be read: {error}"),
                )
            });
        }
        Err(match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => problem.into(),
            Err(_) => Error::new(ErrorCode::Internal, format!("the answer is {status}")),
        })
    }
}

fn unreachable(socket: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::new(
        ErrorCode::StoreUnavailable,
        format!("nobody answers at `{}`: {error}", socket.display()),
    )
    .hint("the process that holds the data directory may just have ended: try again")
}

async fn open(socket: &Path) -> std::io::Result<SendRequest<Full<Bytes>>> {
    let (path, _directory) = short(socket)?;
    let stream = tokio::net::UnixStream::connect(&path).await?;
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(std::io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Bytes of an address of a Unix socket.
const ADDRESS_BYTES: usize = 100;

/// A path to a socket that is short enough for its address: through the open directory if need be.
/// The directory stays open as long as what is returned lives.
pub fn short(socket: &Path) -> std::io::Result<(PathBuf, Option<std::fs::File>)> {
    if socket.as_os_str().len() <= ADDRESS_BYTES {
        return Ok((socket.to_owned(), None));
    }
    let directory = std::fs::File::open(socket.parent().unwrap_or(Path::new(".")))?;
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    path.push(socket.file_name().unwrap_or_default());
    Ok((path, Some(directory)))
}

/// Text as one part of an address, or one value of its query.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The query of a body whose fields are plain.
fn query(fields: &impl Serialize) -> String {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(fields) else {
        return String::new();
    };
    let pairs: Vec<String> = fields
        .iter()
        .map(|(name, value)| {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            format!("{name}={}", encoded(&text))
        })
        .collect();
    if pairs.is_empty() {
        String::new()
    } else {
        format!("?{}", pairs.join("&"))
    }
}

impl Api for Client {
    fn health(&self) -> Result<Health> {
        self.get("/health")
    }

    fn put(&self, bytes: &[u8]) -> Result<BlobRef> {
        self.call(
            Method::POST,
            "/blobs",
            Bytes::copy_from_slice(bytes),
            "application/octet-stream",
        )
    }

    fn put_file(&self, path: &Path) -> Result<BlobRef> {
        let bytes = std::fs::read(path).map_err(|error| {
            Error::new(
                ErrorCode::FileNotFound,
                format!("`{}`: {error}", path.display()),
            )
        })?;
        self.call(
            Method::POST,
            "/blobs",
            bytes.into(),
            "application/octet-stream",
        )
    }

    fn register(&self, workflow: &RegisterWorkflow) -> Result<Registered> {
        self.post("/workflows", workflow)
    }

    fn workflows(&self, after: &str, limit: usize) -> Result<WorkflowPage> {
        self.get(&format!(
            "/workflows?after={}&limit={limit}",
            encoded(after)
        ))
    }

    fn version(&self, workflow: &str, version: Option<u32>) -> Result<Version> {
        let version = version.map_or_else(|| "active".to_owned(), |version| version.to_string());
        self.get(&format!(
            "/workflows/{}/versions/{version}",
            encoded(workflow)
        ))
    }

    fn versions(&self, workflow: &str, before: Option<u32>, limit: usize) -> Result<VersionPage> {
        let before = before.map_or_else(String::new, |before| format!("&before={before}"));
        self.get(&format!(
            "/workflows/{}/versions?limit={limit}{before}",
            encoded(workflow)
        ))
    }

    fn start(&self, start: &StartRun) -> Result<Started> {
        self.post("/runs", start)
    }

    fn find(&self, run: &str) -> Result<RunId> {
        self.get::<Started>(&format!("/runs/{}/id", encoded(run)))
            .map(|found| found.run)
    }

    fn list(&self, which: &RunQuery) -> Result<RunPage> {
        self.get(&format!("/runs{}", query(which)))
    }

    fn view(&self, run: RunId) -> Result<RunView> {
        self.get(&format!("/runs/{run}"))
    }

    fn wait(&self, run: RunId, timeout: Duration) -> Result<RunSummary> {
        self.get(&format!(
            "/runs/{run}/wait?timeout_ms={}",
            timeout.as_millis()
        ))
    }

    fn record(&self, run: RunId, at: Option<Time>) -> Result<Record> {
        self.get(&format!("/runs/{run}/record{}", query(&RecordQuery { at })))
    }

    fn logs(&self, run: RunId, query: &LogQuery) -> Result<LogPage> {
        self.post(&format!("/runs/{run}/logs"), query)
    }

    fn act(&self, run: RunId, action: &Action) -> Result<Option<RunId>> {
        self.post(&format!("/runs/{run}/{}", action.verb()), action)
    }
}
