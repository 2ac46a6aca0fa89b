//! What starts runs of workflows by itself.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use kapell_api::client::TriggerCalls;
use kapell_api::http::{ByPerson, HookView, TriggerPage, TriggerQuery, TriggerView};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, Body, call};
use crate::Service;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(list_triggers))
        .routes(routes!(show_trigger))
        .routes(routes!(pause_trigger))
        .routes(routes!(resume_trigger))
        .routes(routes!(show_hook))
        .routes(routes!(rotate_hook))
}

/// List triggers, by workflow and name
///
/// Those of active versions.
#[utoipa::path(
    get, path = "/triggers", tag = "triggers", security(("token" = ["read"])),
    params(TriggerQuery),
    responses((status = 200, description = "A page of them", body = TriggerPage))
)]
async fn list_triggers(
    State(service): Shared,
    Query(which): Query<TriggerQuery>,
) -> Answer<TriggerPage> {
    call(service, move |service| service.triggers(&which)).await
}

/// Show a trigger, and what it has done
#[utoipa::path(
    get, path = "/workflows/{workflow}/triggers/{trigger}", tag = "triggers",
    security(("token" = ["read"])),
    params(
        ("workflow" = String, Path, description = "Name of the workflow"),
        ("trigger" = String, Path, description = "Its name"),
    ),
    responses((status = 200, description = "The trigger", body = TriggerView))
)]
async fn show_trigger(
    State(service): Shared,
    Path((workflow, name)): Path<(String, String)>,
) -> Answer<TriggerView> {
    call(service, move |service| service.trigger(&workflow, &name)).await
}

/// Pause a trigger
///
/// It starts nothing until it is resumed.
#[utoipa::path(
    post, path = "/workflows/{workflow}/triggers/{trigger}/pause", tag = "triggers",
    security(("token" = ["run"])),
    params(
        ("workflow" = String, Path, description = "Name of the workflow"),
        ("trigger" = String, Path, description = "Its name"),
    ),
    request_body = Option<ByPerson>,
    responses((status = 200, description = "The trigger as it is then", body = TriggerView))
)]
async fn pause_trigger(
    State(service): Shared,
    Path((workflow, name)): Path<(String, String)>,
    body: Body,
) -> Answer<TriggerView> {
    let ByPerson { by } = body.read_or_default()?;
    call(service, move |service| {
        service.pause_trigger(&workflow, &name, &by)
    })
    .await
}

/// Let a paused trigger go on
///
/// Due times that passed meanwhile are not made up for: a backfill does that.
#[utoipa::path(
    post, path = "/workflows/{workflow}/triggers/{trigger}/resume", tag = "triggers",
    security(("token" = ["run"])),
    params(
        ("workflow" = String, Path, description = "Name of the workflow"),
        ("trigger" = String, Path, description = "Its name"),
    ),
    request_body = Option<ByPerson>,
    responses((status = 200, description = "The trigger as it is then", body = TriggerView))
)]
async fn resume_trigger(
    State(service): Shared,
    Path((workflow, name)): Path<(String, String)>,
    body: Body,
) -> Answer<TriggerView> {
    let ByPerson { by } = body.read_or_default()?;
    call(service, move |service| {
        service.resume_trigger(&workflow, &name, &by)
    })
    .await
}

/// Show where a webhook is called
///
/// Whoever knows the address of a webhook without a secret may call it.
#[utoipa::path(
    get, path = "/workflows/{workflow}/triggers/{trigger}/hook", tag = "triggers",
    security(("token" = ["write"])),
    params(
        ("workflow" = String, Path, description = "Name of the workflow"),
        ("trigger" = String, Path, description = "Its name"),
    ),
    responses((status = 200, description = "Its address", body = HookView))
)]
async fn show_hook(
    State(service): Shared,
    Path((workflow, name)): Path<(String, String)>,
) -> Answer<HookView> {
    call(service, move |service| service.hook(&workflow, &name)).await
}

/// Give a webhook another address
///
/// The one before is none from then on: for one that others know who should not.
#[utoipa::path(
    post, path = "/workflows/{workflow}/triggers/{trigger}/hook/rotate", tag = "triggers",
    security(("token" = ["write"])),
    params(
        ("workflow" = String, Path, description = "Name of the workflow"),
        ("trigger" = String, Path, description = "Its name"),
    ),
    responses((status = 200, description = "Its new address", body = HookView))
)]
async fn rotate_hook(
    State(service): Shared,
    Path((workflow, name)): Path<(String, String)>,
) -> Answer<HookView> {
    call(service, move |service| {
        service.rotate_hook(&workflow, &name)
    })
    .await
}
