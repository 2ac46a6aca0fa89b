//! Everything a client can ask, and a client that asks over a Unix socket.
//!
//! Whoever holds the data directory answers the same trait in process.

mod blob;
mod deploy;
mod health;
mod log;
mod run;
mod workflow;

use std::fmt::Write as _;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use kapell_model::{Error, ErrorCode};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::http::{ANSWER_BYTES, BASE, Problem};

pub use blob::BlobCalls;
pub use deploy::DeployCalls;
pub use health::HealthCalls;
pub use log::LogCalls;
pub use run::RunCalls;
pub use workflow::WorkflowCalls;

/// An answer, or a public failure.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything a client can ask, a trait a noun. Calls block.
pub trait Api: RunCalls + WorkflowCalls + DeployCalls + BlobCalls + LogCalls + HealthCalls {}

impl<T: RunCalls + WorkflowCalls + DeployCalls + BlobCalls + LogCalls + HealthCalls> Api for T {}

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
        self.send(Method::POST, path, body)
    }

    fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
        self.call(method, path, body.into(), "application/json")
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
