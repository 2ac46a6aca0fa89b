//! The service behind HTTP/1.1 with JSON bodies. The same routes on any listener. Every refusal has a
//! problem body, those of the framework too.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use kapell_api::client::Api;
use kapell_api::http::{
    Action, BASE, LogQuery, Problem, REQUEST_BYTES, RecordQuery, RegisterWorkflow, RunQuery,
    StartRun, Started,
};
use kapell_model::{Error, ErrorCode, RunId, limits};
use serde::{Deserialize, Serialize};

use crate::Service;

type Shared = State<Arc<Service>>;

/// The longest wait for a change in one request.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How long the body of a request may take to come.
const BODY_PATIENCE: Duration = Duration::from_mins(1);

/// Bytes of what the framework says of a request that are passed on.
const SAID_BYTES: usize = 4 << 10;

const PROBLEM: &str = "application/problem+json";

/// All routes.
pub fn router(service: Arc<Service>) -> Router {
    let most = usize::try_from(limits::BUNDLE_BYTES).unwrap_or(usize::MAX);
    let routes = Router::new()
        .route("/health", get(health))
        .route("/blobs", post(put_blob).layer(DefaultBodyLimit::max(most)))
        .route("/workflows", get(workflows).post(register))
        .route("/workflows/{workflow}/versions", get(versions))
        .route("/workflows/{workflow}/versions/{version}", get(version))
        .route("/runs", get(list).post(start))
        .route("/runs/{run}", get(view))
        .route("/runs/{run}/id", get(find))
        .route("/runs/{run}/wait", get(wait))
        .route("/runs/{run}/record", get(record))
        .route("/runs/{run}/logs", post(logs))
        .route("/runs/{run}/{verb}", post(act));
    Router::new()
        .nest(BASE, routes)
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(DefaultBodyLimit::max(REQUEST_BYTES))
        .layer(map_response(explained))
        .with_state(service)
}

/// A refusal of the framework as a problem body; all else as it is.
async fn explained(response: Response) -> Response {
    let status = response.status();
    let refused = status.is_client_error() || status.is_server_error();
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !refused || kind.is_some_and(|kind| kind == PROBLEM) {
        return response;
    }
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
    problem(error, Some(status))
}

/// A failure as an answer; under the status of its code if there is none that says more.
fn problem(error: Error, status: Option<StatusCode>) -> Response {
    let status = status
        .or_else(|| StatusCode::from_u16(error.code.http_status()).ok())
        .filter(|status| !status.is_success())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut problem = Problem::from(error);
    problem.status = status.as_u16();
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, PROBLEM)], body).into_response()
}

/// The body of a request, if it comes in time.
#[derive(Debug)]
struct Body(Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let bytes = Bytes::from_request(request, state);
        match tokio::time::timeout(BODY_PATIENCE, bytes).await {
            Ok(Ok(bytes)) => Ok(Self(bytes)),
            Ok(Err(refused)) => Err(refused.into_response()),
            Err(_) => Err(StatusCode::REQUEST_TIMEOUT.into_response()),
        }
    }
}

/// A failure as a problem body.
struct Failure(Error);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        problem(self.0, None)
    }
}

type Answer<T> = Result<Json<T>, Failure>;

/// Calls the service, which blocks, away from the loop that serves.
async fn call<T: Serialize + Send + 'static>(
    service: Arc<Service>,
    ask: impl FnOnce(&Service) -> Result<T, Error> + Send + 'static,
) -> Answer<T> {
    match tokio::task::spawn_blocking(move || ask(&service)).await {
        Ok(Ok(answer)) => Ok(Json(answer)),
        Ok(Err(error)) => Err(Failure(error)),
        Err(error) => Err(Failure(Error::new(ErrorCode::Internal, error.to_string()))),
    }
}

fn bad(error: &dyn std::fmt::Display) -> Failure {
    Failure(Error::new(ErrorCode::BadRequest, error.to_string()))
}

fn body<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes)
        .map_err(|error| bad(&format!("the body of the request cannot be read: {error}")))
}

async fn health(State(service): Shared) -> Answer<kapell_api::http::Health> {
    call(service, Api::health).await
}

async fn put_blob(State(service): Shared, Body(bytes): Body) -> Answer<kapell_expr::BlobRef> {
    call(service, move |service| service.put(&bytes)).await
}

async fn register(
    State(service): Shared,
    Body(bytes): Body,
) -> Answer<kapell_api::http::Registered> {
    let workflow: RegisterWorkflow = body(&bytes)?;
    call(service, move |service| service.register(&workflow)).await
}

/// A page of workflows or versions.
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    after: String,
    before: Option<u32>,
    #[serde(default)]
    limit: usize,
}

async fn workflows(
    State(service): Shared,
    Query(page): Query<Page>,
) -> Answer<kapell_api::http::WorkflowPage> {
    call(service, move |service| {
        service.workflows(&page.after, page.limit)
    })
    .await
}

async fn versions(
    State(service): Shared,
    Path(workflow): Path<String>,
    Query(page): Query<Page>,
) -> Answer<kapell_api::http::VersionPage> {
    call(service, move |service| {
        service.versions(&workflow, page.before, page.limit)
    })
    .await
}

async fn version(
    State(service): Shared,
    Path((workflow, version)): Path<(String, String)>,
) -> Answer<kapell_api::http::Version> {
    let number = match version.as_str() {
        "active" => None,
        number => Some(
            number
                .parse()
                .map_err(|_| bad(&format!("`{number}` is no version")))?,
        ),
    };
    call(service, move |service| service.version(&workflow, number)).await
}

async fn start(State(service): Shared, Body(bytes): Body) -> Answer<Started> {
    let start: StartRun = body(&bytes)?;
    call(service, move |service| service.start(&start)).await
}

async fn list(
    State(service): Shared,
    Query(query): Query<RunQuery>,
) -> Answer<kapell_api::http::RunPage> {
    call(service, move |service| service.list(&query)).await
}

async fn find(State(service): Shared, Path(run): Path<String>) -> Answer<Started> {
    call(service, move |service| {
        service.find(&run).map(|run| Started { run })
    })
    .await
}

async fn view(
    State(service): Shared,
    Path(run): Path<String>,
) -> Answer<kapell_api::http::RunView> {
    call(service, move |service| service.view(service.find(&run)?)).await
}

#[derive(Deserialize)]
struct Wait {
    #[serde(default)]
    timeout_ms: u64,
}

async fn wait(
    State(service): Shared,
    Path(run): Path<String>,
    Query(wait): Query<Wait>,
) -> Answer<kapell_api::http::RunSummary> {
    let timeout = Duration::from_millis(wait.timeout_ms).min(LONGEST_WAIT);
    call(service, move |service| {
        service.wait(service.find(&run)?, timeout)
    })
    .await
}

async fn record(
    State(service): Shared,
    Path(run): Path<String>,
    Query(query): Query<RecordQuery>,
) -> Answer<kapell_api::record::Record> {
    call(service, move |service| {
        service.record(service.find(&run)?, query.at)
    })
    .await
}

async fn logs(
    State(service): Shared,
    Path(run): Path<String>,
    Body(bytes): Body,
) -> Answer<kapell_api::http::LogPage> {
    let query: LogQuery = if bytes.is_empty() {
        LogQuery::default()
    } else {
        body(&bytes)?
    };
    call(service, move |service| {
        service.logs(service.find(&run)?, &query)
    })
    .await
}

async fn act(
    State(service): Shared,
    Path((run, verb)): Path<(String, String)>,
    Body(bytes): Body,
) -> Answer<Option<RunId>> {
    let mut fields: serde_json::Map<String, serde_json::Value> = if bytes.is_empty() {
        serde_json::Map::new()
    } else {
        body(&bytes)?
    };
    fields.insert("action".to_owned(), verb.into());
    let action: Action = serde_json::from_value(fields.into()).map_err(|error| bad(&error))?;
    call(service, move |service| {
        service.act(service.find(&run)?, &action)
    })
    .await
}
