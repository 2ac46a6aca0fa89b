//! The service behind HTTP/1.1 with JSON bodies. The same routes on any listener.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use kapell_api::client::Api;
use kapell_api::http::{
    Action, BASE, LogQuery, Problem, RecordQuery, RegisterWorkflow, RunQuery, StartRun, Started,
};
use kapell_model::{Error, ErrorCode, RunId, limits};
use serde::{Deserialize, Serialize};

use crate::Service;

type Shared = State<Arc<Service>>;

/// The longest wait for a change in one request.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// All routes.
pub fn router(service: Arc<Service>) -> Router {
    let routes = Router::new()
        .route("/health", get(health))
        .route("/blobs", post(put_blob))
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
    let most = usize::try_from(limits::BUNDLE_BYTES).unwrap_or(usize::MAX);
    Router::new()
        .nest(BASE, routes)
        .fallback(async || {
            Failure(Error::new(
                ErrorCode::BadRequest,
                "there is nothing at this address",
            ))
        })
        .layer(DefaultBodyLimit::max(most))
        .with_state(service)
}

/// A failure as a problem body.
struct Failure(Error);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.http_status())
            .ok()
            .filter(|status| !status.is_success())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&Problem::from(self.0)).unwrap_or_default();
        (
            status,
            [(header::CONTENT_TYPE, "application/problem+json")],
            body,
        )
            .into_response()
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
    serde_json::from_slice(bytes).map_err(|error| bad(&error))
}

async fn health(State(service): Shared) -> Answer<kapell_api::http::Health> {
    call(service, Api::health).await
}

async fn put_blob(State(service): Shared, bytes: Bytes) -> Answer<kapell_expr::BlobRef> {
    call(service, move |service| service.put(&bytes)).await
}

async fn register(State(service): Shared, bytes: Bytes) -> Answer<kapell_api::http::Registered> {
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

async fn start(State(service): Shared, bytes: Bytes) -> Answer<Started> {
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
    bytes: Bytes,
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
    bytes: Bytes,
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
