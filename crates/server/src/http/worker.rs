//! Workers.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use kapell_api::client::WorkerCalls;
use kapell_api::http::{DrainWorker, WorkerList};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, Body, call};
use crate::Service;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(list_workers))
        .routes(routes!(drain_worker))
}

/// List the workers, and what each of them runs
#[utoipa::path(
    get, path = "/workers", tag = "workers", security(("token" = ["read"])),
    responses((status = 200, description = "The workers, by name", body = WorkerList))
)]
async fn list_workers(State(service): Shared) -> Answer<WorkerList> {
    call(service, WorkerCalls::workers).await
}

/// Let a worker end what it runs, and go
///
/// It takes nothing more. What it runs may end within the grace; the rest is done elsewhere.
#[utoipa::path(
    post, path = "/workers/{worker}/drain", tag = "workers", security(("token" = ["admin"])),
    params(("worker" = String, Path, description = "The name of workers, or the session of one")),
    request_body = DrainWorker,
    responses((status = 200, description = "The workers that go", body = WorkerList))
)]
async fn drain_worker(
    State(service): Shared,
    Path(worker): Path<String>,
    body: Body,
) -> Answer<WorkerList> {
    let drain: DrainWorker = body.read_nameless_or_default()?;
    call(service, move |service| {
        service.drain(&worker, Duration::from_millis(drain.grace_ms))
    })
    .await
}
