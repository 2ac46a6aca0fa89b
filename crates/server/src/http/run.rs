//! Runs: made, listed, looked at.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use kapell_api::client::RunCalls;
use kapell_api::http::{
    ItemPage, ItemQuery, RecordQuery, RunPage, RunQuery, RunSummary, RunView, StartRun, Started,
    StepQuery, StepView,
};
use kapell_api::record::Record;
use kapell_model::RunId;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, Body, Failure, call, keyed};
use crate::Service;
use crate::service::aside;

/// The longest wait for a change in one request.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(list_runs, start_run))
        .routes(routes!(show_run))
        .routes(routes!(find_run))
        .routes(routes!(wait_for_run))
        .routes(routes!(show_record))
        .routes(routes!(show_step))
        .routes(routes!(list_items))
}

/// Start a run
///
/// With an idempotency key the same request again gives the same run, and one with other parameters is
/// refused.
#[utoipa::path(
    post, path = "/runs", tag = "runs", security(("token" = ["run"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "As `idempotency_key` of the body")),
    request_body = StartRun,
    responses((status = 200, description = "It is made, durably", body = Started))
)]
async fn start_run(State(service): Shared, headers: HeaderMap, body: Body) -> Answer<Started> {
    let mut start: StartRun = body.read()?;
    start.idempotency_key = keyed(&headers, start.idempotency_key)?;
    Ok(Json(service.start_soon(start).await?))
}

/// The run that a name means. A whole id needs no look into the store.
pub(super) async fn found(service: &Arc<Service>, name: String) -> Result<RunId, Failure> {
    if let Ok(run) = name.parse() {
        return Ok(run);
    }
    let service = Arc::clone(service);
    Ok(aside(move || service.find(&name)).await?)
}

/// List runs, newest first
#[utoipa::path(
    get, path = "/runs", tag = "runs", security(("token" = ["read"])),
    params(RunQuery),
    responses((status = 200, description = "A page of them", body = RunPage))
)]
async fn list_runs(State(service): Shared, Query(query): Query<RunQuery>) -> Answer<RunPage> {
    call(service, move |service| service.list(&query)).await
}

/// Find the run that a name means
#[utoipa::path(
    get, path = "/runs/{run}/id", tag = "runs", security(("token" = ["read"])),
    params(("run" = String, Path, description = "Its id, the last 4 or more characters of it, or `last`")),
    responses((status = 200, description = "Its whole id", body = Started))
)]
async fn find_run(State(service): Shared, Path(run): Path<String>) -> Answer<Started> {
    call(service, move |service| {
        service.find(&run).map(|run| Started { run })
    })
    .await
}

/// Show where a run stands, with its steps
#[utoipa::path(
    get, path = "/runs/{run}", tag = "runs", security(("token" = ["read"])),
    params(("run" = String, Path, description = "Its id, the last 4 or more characters of it, or `last`")),
    responses((status = 200, description = "The run and its steps", body = RunView))
)]
async fn show_run(State(service): Shared, Path(run): Path<String>) -> Answer<RunView> {
    let run = found(&service, run).await?;
    Ok(Json(service.view_soon(run).await?))
}

/// Show where one step or item of a run stands
///
/// An item that has ended may be in the record of the run alone.
#[utoipa::path(
    get, path = "/runs/{run}/step", tag = "runs", security(("token" = ["read"])),
    params(
        ("run" = String, Path, description = "Its id, the last 4 or more characters of it, or `last`"),
        StepQuery,
    ),
    responses((status = 200, description = "The step", body = StepView))
)]
async fn show_step(
    State(service): Shared,
    Path(run): Path<String>,
    Query(which): Query<StepQuery>,
) -> Answer<StepView> {
    call(service, move |service| {
        service.view_step(service.find(&run)?, &which.path)
    })
    .await
}

/// List the items of a foreach with their labels
///
/// What takes an item takes it by its index, in the path of the step: `load[3]`. This gives the index of
/// the item with a label.
#[utoipa::path(
    get, path = "/runs/{run}/items", tag = "runs", security(("token" = ["read"])),
    params(
        ("run" = String, Path, description = "Its id, the last 4 or more characters of it, or `last`"),
        ItemQuery,
    ),
    responses((status = 200, description = "A page of them", body = ItemPage))
)]
async fn list_items(
    State(service): Shared,
    Path(run): Path<String>,
    Query(which): Query<ItemQuery>,
) -> Answer<ItemPage> {
    call(service, move |service| {
        service.items(service.find(&run)?, &which)
    })
    .await
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wait {
    /// Milliseconds; at most 30,000.
    #[serde(default)]
    timeout_ms: u64,
}

/// Wait until the status of a run changes
///
/// Answers at once if it has ended, else after a change or when the time is over.
#[utoipa::path(
    get, path = "/runs/{run}/wait", tag = "runs", security(("token" = ["read"])),
    params(
        ("run" = String, Path, description = "Its id, the last 4 or more characters of it, or `last`"),
        Wait,
    ),
    responses((status = 200, description = "Where it stands", body = RunSummary))
)]
async fn wait_for_run(
    State(service): Shared,
    Path(run): Path<String>,
    Query(wait): Query<Wait>,
) -> Answer<RunSummary> {
    let timeout = Duration::from_millis(wait.timeout_ms).min(LONGEST_WAIT);
    let run = found(&service, run).await?;
    Ok(Json(service.wait_soon(run, timeout).await?))
}

/// Show what became of a run, up to a moment
#[utoipa::path(
    get, path = "/runs/{run}/record", tag = "runs", security(("token" = ["read"])),
    params(
        ("run" = String, Path, description = "Its id, the last 4 or more characters of it, or `last`"),
        RecordQuery,
    ),
    responses((status = 200, description = "Its steps with every attempt", body = Record))
)]
async fn show_record(
    State(service): Shared,
    Path(run): Path<String>,
    Query(query): Query<RecordQuery>,
) -> Answer<Record> {
    call(service, move |service| {
        service.record(service.find(&run)?, &query)
    })
    .await
}
