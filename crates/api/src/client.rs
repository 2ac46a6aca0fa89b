//! Everything a client can ask, and a client that asks over a Unix socket, HTTP or HTTPS.
//!
//! Whoever holds the data directory answers the same trait in process.

mod approval;
mod artifact;
mod backfill;
mod backup;
mod blob;
mod channel;
mod debug;
mod deploy;
mod health;
mod lock;
mod log;
mod node;
mod queue;
mod run;
mod secret;
mod signal;
mod target;
mod token;
mod trigger;
mod worker;
mod workflow;

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use kapell_model::{Error, ErrorCode};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::target::Connection;
use crate::http::{ANSWER_BYTES, Problem};

pub use approval::ApprovalCalls;
pub use artifact::ArtifactCalls;
pub use backfill::BackfillCalls;
pub use blob::BlobCalls;
pub use channel::ChannelCalls;
pub use debug::DebugCalls;
pub use deploy::DeployCalls;
pub use health::HealthCalls;
pub use lock::LockCalls;
pub use log::LogCalls;
pub use node::NodeCalls;
pub use queue::TaskQueueCalls;
pub use run::RunCalls;
pub use secret::SecretCalls;
pub use signal::SignalCalls;
pub use target::{HttpServer, NODES_HEADER, Target, Wire, short};
pub use token::TokenCalls;
pub use trigger::TriggerCalls;
pub use worker::WorkerCalls;
pub use workflow::WorkflowCalls;

/// An answer, or a public failure.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything a client can ask, a trait a noun. Calls block.
pub trait Api:
    RunCalls
    + WorkflowCalls
    + DeployCalls
    + BlobCalls
    + ArtifactCalls
    + LogCalls
    + HealthCalls
    + ChannelCalls
    + TokenCalls
    + WorkerCalls
    + TaskQueueCalls
    + SecretCalls
    + TriggerCalls
    + SignalCalls
    + LockCalls
    + BackfillCalls
    + ApprovalCalls
    + DebugCalls
    + NodeCalls
{
}

impl<T> Api for T where
    T: RunCalls
        + WorkflowCalls
        + DeployCalls
        + BlobCalls
        + ArtifactCalls
        + LogCalls
        + HealthCalls
        + ChannelCalls
        + TokenCalls
        + WorkerCalls
        + TaskQueueCalls
        + SecretCalls
        + TriggerCalls
        + SignalCalls
        + LockCalls
        + BackfillCalls
        + ApprovalCalls
        + DebugCalls
        + NodeCalls
{
}

/// Asks a server, one request after another on one connection.
pub struct Client {
    runtime: tokio::runtime::Runtime,
    target: Target,
    connection: Mutex<Option<Connection>>,
}

/// How long an answer may take to begin, from when the request is sent. Requests that wait do so for half
/// of it.
const ANSWER_PATIENCE: Duration = Duration::from_mins(1);

/// The same where a large body goes or comes.
const TRANSFER_PATIENCE: Duration = Duration::from_mins(15);

impl Client {
    /// Connects to the socket of a data directory.
    ///
    /// # Errors
    /// [`ErrorCode::StoreUnavailable`] if nobody answers there.
    pub fn connect(socket: &Path) -> Result<Self> {
        Self::to(Target::Socket(socket.to_owned()))
    }

    /// Connects.
    ///
    /// # Errors
    /// [`ErrorCode::StoreUnavailable`] if nobody answers at a socket, [`ErrorCode::ServerUnreachable`]
    /// if nobody does at an address.
    pub fn to(target: Target) -> Result<Self> {
        // A thread of its own sees between two requests that the other end has closed the connection.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| target.unreachable(&error))?;
        let connection = runtime.block_on(target.open())?;
        Ok(Self {
            runtime,
            target,
            connection: Mutex::new(Some(connection)),
        })
    }

    /// Who is asked, for people.
    pub fn target(&self) -> &Target {
        &self.target
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call(Method::GET, path, Bytes::new(), "application/json")
    }

    fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call(Method::DELETE, path, Bytes::new(), "application/json")
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
        let request = self.target.request(method, path, body, kind)?;
        let kept = self
            .connection
            .lock()
            .take()
            .filter(|connection| !connection.is_closed());
        let again = (request.method() == Method::GET).then(|| request.clone());
        let mut exchanged = self.runtime.block_on(self.exchange(kept, request));
        // Another node says the same: what changes nothing may be asked twice.
        if let Err(error) = &exchanged
            && error.code == ErrorCode::ServerUnreachable
            && let Some(request) = again
            && self.target.next()
        {
            exchanged = self.runtime.block_on(self.exchange(None, request));
        }
        let (connection, status, bytes) = exchanged?;
        *self.connection.lock() = Some(connection);
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| {
                Error::new(
                    ErrorCode::Internal,
                    format!("the answer cannot be read: {error}"),
                )
            });
        }
        Err(refusal(status, &bytes))
    }

    /// Writes what is at an address as it comes; how many bytes that is.
    fn fetch(&self, path: &str, to: &mut dyn Write) -> Result<u64> {
        let request = self
            .target
            .request(Method::GET, path, Bytes::new(), "application/json")?;
        self.runtime.block_on(async {
            let mut connection = self.target.open().await?;
            let answer = connection.send_request(request);
            let response = self
                .within(ANSWER_PATIENCE, answer)
                .await?
                .map_err(|error| self.target.unreachable(&error))?;
            if !response.status().is_success() {
                let (_, status, bytes) = self.whole(connection, response).await?;
                return Err(refusal(status, &bytes));
            }
            let mut body = response.into_body();
            let mut size = 0;
            while let Some(frame) = self.within(ANSWER_PATIENCE, body.frame()).await? {
                let frame = frame.map_err(|error| self.target.unreachable(&error))?;
                if let Ok(bytes) = frame.into_data() {
                    size += bytes.len() as u64;
                    to.write_all(&bytes).map_err(|error| {
                        let message = format!("what came cannot be written: {error}");
                        Error::new(ErrorCode::DiskFull, message)
                    })?;
                }
            }
            Ok(size)
        })
    }

    async fn exchange(
        &self,
        kept: Option<Connection>,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Connection, StatusCode, Bytes)> {
        let large = request.body().size_hint().lower() > LARGE;
        let patience = if large {
            TRANSFER_PATIENCE
        } else {
            ANSWER_PATIENCE
        };
        // A kept connection may have been closed at the other end: what was not sent goes over a new one.
        if let Some(mut connection) = kept {
            match self
                .within(patience, connection.try_send_request(request))
                .await?
            {
                Ok(response) => return self.whole(connection, response).await,
                Err(mut refused) => match refused.take_message() {
                    Some(message) => request = message,
                    None => return Err(self.target.unreachable(&refused.into_error())),
                },
            }
        }
        let mut connection = self.target.open().await?;
        let response = self
            .within(patience, connection.send_request(request))
            .await?
            .map_err(|error| self.target.unreachable(&error))?;
        self.whole(connection, response).await
    }

    async fn within<T>(&self, patience: Duration, answer: impl Future<Output = T>) -> Result<T> {
        tokio::time::timeout(patience, answer).await.map_err(|_| {
            self.target
                .unreachable(&format!("no answer in {} seconds", patience.as_secs()))
        })
    }

    async fn whole(
        &self,
        connection: Connection,
        response: Response<Incoming>,
    ) -> Result<(Connection, StatusCode, Bytes)> {
        let status = response.status();
        let said = response.headers().get(NODES_HEADER);
        if let Some(said) = said.and_then(|said| said.to_str().ok()) {
            self.target.learn(said);
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect();
        let bytes = self
            .within(TRANSFER_PATIENCE, body)
            .await?
            .map_err(|error| self.target.unreachable(&error))?
            .to_bytes();
        Ok((connection, status, bytes))
    }
}

/// Bytes of a body that may take long to send.
const LARGE: u64 = 1 << 20;

/// What a server refuses, as it says it.
fn refusal(status: StatusCode, bytes: &[u8]) -> Error {
    match serde_json::from_slice::<Problem>(bytes) {
        Ok(problem) => problem.into(),
        Err(_) => Error::new(ErrorCode::Internal, format!("the answer is {status}"))
            .hint("is a Kapell server at this address?"),
    }
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

#[cfg(test)]
mod tests;
