//! Backfills: due times of a schedule that are made up for on request.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use kapell_api::client::BackfillCalls;
use kapell_api::http::{BackfillPage, BackfillQuery, BackfillView, ByPerson, NewBackfill};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, Body, call, keyed};
use crate::Service;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(list_backfills))
        .routes(routes!(start_backfill))
        .routes(routes!(show_backfill))
        .routes(routes!(pause_backfill))
        .routes(routes!(resume_backfill))
        .routes(routes!(cancel_backfill))
}

/// List backfills, by workflow and id
#[utoipa::path(
    get, path = "/backfills", tag = "backfills", security(("token" = ["read"])),
    params(BackfillQuery),
    responses((status = 200, description = "A page of them", body = BackfillPage))
)]
async fn list_backfills(
    State(service): Shared,
    Query(which): Query<BackfillQuery>,
) -> Answer<BackfillPage> {
    call(service, move |service| service.backfills(&which)).await
}

/// Make up for due times of a schedule
///
/// A run is made for each due time from `from` until `until`, so many at a time. With an `id` the same
/// request again gives the same backfill.
#[utoipa::path(
    post, path = "/workflows/{workflow}/backfills", tag = "backfills",
    security(("token" = ["run"])),
    params(
        ("workflow" = String, Path, description = "Name of the workflow"),
        ("Idempotency-Key" = Option<String>, Header, description = "As `id` of the body"),
    ),
    request_body = NewBackfill,
    responses((status = 200, description = "The backfill, which has begun", body = BackfillView))
)]
async fn start_backfill(
    State(service): Shared,
    Path(workflow): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer<BackfillView> {
    let mut new: NewBackfill = body.read()?;
    new.id = keyed(&headers, new.id)?;
    call(service, move |service| {
        service.start_backfill(&workflow, &new)
    })
    .await
}

/// Show how far a backfill is
#[utoipa::path(
    get, path = "/workflows/{workflow}/backfills/{id}", tag = "backfills",
    security(("token" = ["read"])),
    params(
        ("workflow" = String, Path, description = "Name of the workflow"),
        ("id" = String, Path, description = "Its id"),
    ),
    responses((status = 200, description = "The backfill", body = BackfillView))
)]
async fn show_backfill(
    State(service): Shared,
    Path((workflow, id)): Path<(String, String)>,
) -> Answer<BackfillView> {
    call(service, move |service| service.backfill(&workflow, &id)).await
}

/// Start nothing more of a backfill until it is resumed
#[utoipa::path(
    post, path = "/workflows/{workflow}/backfills/{id}/pause", tag = "backfills",
    security(("token" = ["run"])),
    params(
        ("workflow" = String, Path, description = "Name of the workflow"),
        ("id" = String, Path, description = "Its id"),
    ),
    request_body = Option<ByPerson>,
    responses((status = 200, description = "The backfill as it is then", body = BackfillView))
)]
async fn pause_backfill(
    State(service): Shared,
    Path((workflow, id)): Path<(String, String)>,
    body: Body,
) -> Answer<BackfillView> {
    let ByPerson { by } = body.read_or_default()?;
    call(service, move |service| {
        service.pause_backfill(&workflow, &id, &by)
    })
    .await
}

/// Let a backfill go on
///
/// One that a failed run blocks goes on without it.
#[utoipa::path(
    post, path = "/workflows/{workflow}/backfills/{id}/resume", tag = "backfills",
    security(("token" = ["run"])),
    params(
        ("workflow" = String, Path, description = "Name of the workflow"),
        ("id" = String, Path, description = "Its id"),
    ),
    request_body = Option<ByPerson>,
    responses((status = 200, description = "The backfill as it is then", body = BackfillView))
)]
async fn resume_backfill(
    State(service): Shared,
    Path((workflow, id)): Path<(String, String)>,
    body: Body,
) -> Answer<BackfillView> {
    let ByPerson { by } = body.read_or_default()?;
    call(service, move |service| {
        service.resume_backfill(&workflow, &id, &by)
    })
    .await
}

/// End a backfill
///
/// It starts nothing more, and its runs are cancelled.
#[utoipa::path(
    post, path = "/workflows/{workflow}/backfills/{id}/cancel", tag = "backfills",
    security(("token" = ["run"])),
    params(
        ("workflow" = String, Path, description = "Name of the workflow"),
        ("id" = String, Path, description = "Its id"),
    ),
    request_body = Option<ByPerson>,
    responses((status = 200, description = "The backfill as it is then", body = BackfillView))
)]
async fn cancel_backfill(
    State(service): Shared,
    Path((workflow, id)): Path<(String, String)>,
    body: Body,
) -> Answer<BackfillView> {
    let ByPerson { by } = body.read_or_default()?;
    call(service, move |service| {
        service.cancel_backfill(&workflow, &id, &by)
    })
    .await
}
