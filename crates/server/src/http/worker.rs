//! Workers.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use kapell_api::client::WorkerCalls;
use kapell_api::http::{DrainWorker, WorkerList, WorkerQuery};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, Body, call};
use crate::Service;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(list_workers))
        .routes(routes!(drain_worker))
        .routes(routes!(drain_pool))
}

/// List the workers of all nodes: what each of them runs, has and wastes
#[utoipa::path(
    get, path = "/workers", tag = "workers", security(("token" = ["read"])),
    params(WorkerQuery),
    responses((status = 200, description = "The workers, by name", body = WorkerList))
)]
async fn list_workers(
    State(service): Shared,
    Query(which): Query<WorkerQuery>,
) -> Answer<WorkerList> {
    call(service, move |service| {
        WorkerCalls::workers(service, &which)
    })
    .await
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

/// Let all workers of a pool end what they run, and go
///
/// They take nothing more. What they run may end within the grace; the rest is done elsewhere.
#[utoipa::path(
    post, path = "/pools/{pool}/drain", tag = "workers", security(("token" = ["admin"])),
    params(("pool" = String, Path, description = "The name of the pool")),
    request_body = DrainWorker,
    responses((status = 200, description = "The workers that go", body = WorkerList))
)]
async fn drain_pool(
    State(service): Shared,
    Path(pool): Path<String>,
    body: Body,
) -> Answer<WorkerList> {
    let drain: DrainWorker = body.read_nameless_or_default()?;
    call(service, move |service| {
        service.drain_pool(&pool, Duration::from_millis(drain.grace_ms))
    })
    .await
}
