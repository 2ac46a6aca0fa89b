//! What every handler answers with, and how bodies are read.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use kapell_api::http::{BASE, Problem, REQUEST_BYTES};
use kapell_model::{Error, ErrorCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Service;
use crate::auth::{Caller, carried};

/// How long the body of a request may take to come.
const BODY_PATIENCE: Duration = Duration::from_mins(1);

/// Bytes of what the framework says of a request that are passed on.
const SAID_BYTES: usize = 4 << 10;

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
        .hint(format!("at most {REQUEST_BYTES} bytes, a blob more")),
        StatusCode::REQUEST_TIMEOUT => Error::new(
            ErrorCode::BadRequest,
            format!(
                "the body of the request did not come within {} seconds",
                BODY_PATIENCE.as_secs()
            ),
        ),
        _ if status.is_server_error() => Error::new(ErrorCode::Internal, said),
        _ => Error::new(ErrorCode::BadRequest, said),
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

impl Body {
    /// What stands in it. What it says of who asks (`by`) counts only without a token: nobody speaks in
    /// another's name.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let unreadable = |error: serde_json::Error| {
            bad(&format!("the body of the request cannot be read: {error}"))
        };
        let Some(name) = &self.1 else {
            return serde_json::from_slice(&self.0).map_err(unreadable);
        };
        let mut body: Value = serde_json::from_slice(&self.0).map_err(unreadable)?;
        if let Some(fields) = body.as_object_mut() {
            fields.insert("by".to_owned(), name.as_str().into());
        }
        serde_json::from_value(body).map_err(unreadable)
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

/// A request that makes no sense.
pub(super) fn bad(error: &dyn std::fmt::Display) -> Failure {
    Failure(Error::new(ErrorCode::BadRequest, error.to_string()))
}
