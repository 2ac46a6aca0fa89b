//! What every handler answers with, and how bodies are read.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::{FutureExt, StreamExt};
use kapell_api::http::{BASE, Problem, REQUEST_BYTES};
use kapell_model::{Error, ErrorCode, limits};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Service;
use crate::auth::{Caller, carried};

/// How long the body of a request may take to come; of a blob the next part of it.
const BODY_PATIENCE: Duration = Duration::from_mins(1);

/// Bytes a second that a blob must come at, once it has taken longer than that.
const PACE: u64 = 32 << 10;

/// Bytes of what the framework says of a request that are passed on.
const SAID_BYTES: usize = 4 << 10;

/// Who asks where neither a token nor the body says it: that is allowed on the server's own machine alone.
const SOMEBODY: &str = "somebody on this machine";

/// The field that says who asks.
const BY: &[u8] = b"\"by\"";

/// The kind of a problem body.
pub(super) const PROBLEM: &str = "application/problem+json";

/// A refusal of the framework as a problem body; all else as it is.
pub(super) async fn explained(response: Response) -> Response {
    let status = response.status();
    let refused = status.is_client_error() || status.is_server_error();
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !refused || kind.is_some_and(|kind| kind == PROBLEM) {
        return response;
    }
    let allow = response.headers().get(header::ALLOW).cloned();
    let body = response.into_body();
    let said = axum::body::to_bytes(body, SAID_BYTES)
        .await
        .unwrap_or_default();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    let error = match status {
        StatusCode::NOT_FOUND => {
            Error::new(ErrorCode::BadRequest, "there is nothing at this address")
                .hint(format!("addresses begin with `{BASE}`"))
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            Error::new(ErrorCode::BadRequest, "this address takes other methods")
                .hint("the header `Allow` names them")
        }
        StatusCode::PAYLOAD_TOO_LARGE => Error::new(
            ErrorCode::LimitReached,
            "the body of the request is too big",
        )
        .hint(format!(
            "at most {REQUEST_BYTES} bytes, a webhook's {}, a blob more",
            limits::SIGNAL_BYTES
        )),
        StatusCode::REQUEST_TIMEOUT => Error::new(
            ErrorCode::BadRequest,
            format!(
                "the body of the request did not come within {} seconds",
                BODY_PATIENCE.as_secs()
            ),
        ),
        _ if status.is_server_error() => Error::new(ErrorCode::Internal, said),
        _ => nonsense(said),
    };
    let mut answer = problem(error, Some(status));
    if let Some(allow) = allow {
        answer.headers_mut().insert(header::ALLOW, allow);
    }
    answer
}

/// A failure as an answer; under the status of its code if there is none that says more.
pub(super) fn problem(error: Error, status: Option<StatusCode>) -> Response {
    let status = status
        .or_else(|| StatusCode::from_u16(error.code.http_status()).ok())
        .filter(|status| !status.is_success())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut problem = Problem::from(error);
    problem.status = status.as_u16();
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, PROBLEM)], body).into_response()
}

/// What answers, or a problem body where it panics: the next request is answered as any other.
pub(super) async fn unbroken(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    if let Ok(response) = AssertUnwindSafe(next.run(request)).catch_unwind().await {
        response
    } else {
        tracing::error!(%method, path, "a request was not answered: the code that does it panicked");
        let error = Error::new(
            ErrorCode::Internal,
            "the server could not answer: this is a fault of Kapell",
        )
        .hint("its log says where; please report it");
        problem(error, None)
    }
}

/// The body of a request, if it comes in time, and who sent it if a token told.
#[derive(Debug)]
pub(super) struct Body(pub(super) Bytes, pub(super) Option<String>);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let caller = request.extensions().get::<Caller>();
        let name = caller.and_then(|caller| caller.name().map(str::to_owned));
        let bytes = Bytes::from_request(request, state);
        match tokio::time::timeout(BODY_PATIENCE, bytes).await {
            Ok(Ok(bytes)) => Ok(Self(bytes, name)),
            Ok(Err(refused)) => Err(refused.into_response()),
            Err(_) => Err(StatusCode::REQUEST_TIMEOUT.into_response()),
        }
    }
}

/// A body of any bytes, as large as a bundle may be, if it gets on: each part of it in time, and the
/// whole of it at a pace.
pub(super) struct Content(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Content {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        let most = usize::try_from(limits::BUNDLE_BYTES).unwrap_or(usize::MAX);
        let begun = tokio::time::Instant::now();
        let mut parts = request.into_body().into_data_stream();
        let mut whole = Vec::new();
        loop {
            let pace = Duration::from_secs(whole.len() as u64 / PACE);
            let next = tokio::time::timeout_at(begun + BODY_PATIENCE + pace, parts.next());
            let part = match tokio::time::timeout(BODY_PATIENCE, next).await {
                Ok(Ok(None)) => return Ok(Self(whole.into())),
                Ok(Ok(Some(Ok(part)))) => part,
                Ok(Ok(Some(Err(error)))) => return Err(bad(&error).into_response()),
                Ok(Err(_)) | Err(_) => return Err(StatusCode::REQUEST_TIMEOUT.into_response()),
            };
            if part.len() > most - whole.len() {
                return Err(StatusCode::PAYLOAD_TOO_LARGE.into_response());
            }
            whole.extend_from_slice(&part);
        }
    }
}

impl Body {
    /// What stands in it. What it says of who asks (`by`) counts only without a token: nobody speaks in
    /// another's name.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let Some(name) = &self.1 else {
            let fields = self.0.trim_ascii_start().strip_prefix(b"{");
            let Some(fields) = fields.filter(|_| !self.says_who()) else {
                return self.read_nameless();
            };
            let comma: &[u8] = if fields.trim_ascii_start().starts_with(b"}") {
                b""
            } else {
                b","
            };
            let whole = [b"{\"by\":\"", SOMEBODY.as_bytes(), b"\"", comma, fields].concat();
            return serde_json::from_slice(&whole).map_err(unreadable);
        };
        self.is_object()?;
        let mut body: Value = serde_json::from_slice(&self.0).map_err(unreadable)?;
        if let Some(fields) = body.as_object_mut() {
            fields.insert("by".to_owned(), name.as_str().into());
        }
        serde_json::from_value(body).map_err(unreadable)
    }

    /// What stands in it, where it does not say who asks.
    pub(super) fn read_nameless<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        self.is_object()?;
        serde_json::from_slice(&self.0).map_err(unreadable)
    }

    /// True if `by` may be among its fields.
    fn says_who(&self) -> bool {
        self.0.windows(BY.len()).any(|part| part == BY)
    }

    /// A list would be taken for the fields in their order.
    fn is_object(&self) -> Result<(), Failure> {
        if self.0.trim_ascii_start().starts_with(b"[") {
            let message = "the body of the request is a list, where an object is expected";
            let error = Error::new(ErrorCode::BadRequest, message);
            return Err(Failure(error.hint("name its fields: `{\"field\": …}`")));
        }
        Ok(())
    }

    /// As [`Self::read_nameless`]; the default if it is empty.
    pub(super) fn read_nameless_or_default<T: DeserializeOwned + Default>(
        &self,
    ) -> Result<T, Failure> {
        if self.0.is_empty() {
            return Ok(T::default());
        }
        self.read_nameless()
    }

    /// What stands in it; the default if it is empty.
    pub(super) fn read_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Failure> {
        if self.0.is_empty() && self.1.is_none() {
            return Ok(T::default());
        }
        if self.0.is_empty() {
            return Self(Bytes::from_static(b"{}"), self.1.clone()).read();
        }
        self.read()
    }
}

/// A failure as a problem body.
pub(super) struct Failure(pub(super) Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        problem(self.0, None)
    }
}

/// What a handler gives.
pub(super) type Answer<T> = Result<Json<T>, Failure>;

/// Calls the service, which blocks, away from the loop that serves.
pub(super) async fn call<T: Serialize + Send + 'static>(
    service: Arc<Service>,
    ask: impl FnOnce(&Service) -> Result<T, Error> + Send + 'static,
) -> Answer<T> {
    match tokio::task::spawn_blocking(carried(move || ask(&service))).await {
        Ok(Ok(answer)) => Ok(Json(answer)),
        Ok(Err(error)) => Err(Failure(error)),
        Err(error) => Err(Failure(Error::new(ErrorCode::Internal, error.to_string()))),
    }
}

/// The key of a request, whether its header or its body says it. An empty one is none.
pub(super) fn keyed(headers: &HeaderMap, body: Option<String>) -> Result<Option<String>, Failure> {
    let body = body.filter(|key| !key.is_empty());
    let Some(header) = headers.get("idempotency-key") else {
        return Ok(body);
    };
    let header = header
        .to_str()
        .map_err(|_| bad(&"the header `Idempotency-Key` is no text"))?;
    match body {
        _ if header.is_empty() => Ok(body),
        Some(body) if body != header => Err(bad(
            &"the header `Idempotency-Key` and the body name two keys",
        )),
        Some(_) | None => Ok(Some(header.to_owned())),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "taken by `map_err`")]
fn unreadable(error: serde_json::Error) -> Failure {
    bad(&format!("the body of the request cannot be read: {error}"))
}

/// A request that makes no sense.
pub(super) fn bad(error: &dyn std::fmt::Display) -> Failure {
    Failure(nonsense(error.to_string()))
}

/// The failure of a request that makes no sense, with the field that was meant where one was misspelt.
fn nonsense(message: String) -> Error {
    let message = match message.strip_prefix("Failed to deserialize query string: ") {
        Some(why) => format!("the query of the address cannot be read: {why}"),
        None => message,
    };
    let meant = message
        .split_once("unknown field `")
        .and_then(|(_, rest)| rest.split_once('`'))
        .and_then(|(name, rest)| {
            let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
            let near = kapell_model::nearest(name, known.iter().copied());
            near.map(|near| format!("did you mean `{near}`?"))
        });
    let error = Error::new(ErrorCode::BadRequest, message);
    match meant {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
