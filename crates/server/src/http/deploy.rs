//! Putting workflows in force, and what is said of them beside their versions.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use kapell_api::client::DeployCalls;
use kapell_api::http::{
    Deploy, DeployPlan, Dismissal, Held, Hold, QueueQuery, QueueView, VersionDiff, WorkflowChange,
    WorkflowView,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, Body, call};
use crate::Service;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(deploy))
        .routes(routes!(hold_workflows))
        .routes(routes!(show_workflow, change_workflow, delete_workflow))
        .routes(routes!(diff_versions))
        .routes(routes!(show_queue))
        .routes(routes!(dismiss_queue))
}

/// Put workflows in force, all or none
///
/// The same content that is active already changes nothing. With `dry_run` it is only said what would
/// change.
#[utoipa::path(
    post, path = "/deploy", tag = "workflows", security(("token" = ["write"])),
    request_body = Deploy,
    responses((status = 200, description = "What was changed, or would be", body = DeployPlan))
)]
async fn deploy(State(service): Shared, body: Body) -> Answer<DeployPlan> {
    let deploy: Deploy = body.read()?;
    call(service, move |service| service.deploy(&deploy)).await
}

/// Pause all workflows, or let them go on
#[utoipa::path(
    post, path = "/workflows/hold", tag = "workflows", security(("token" = ["write"])),
    request_body = Hold,
    responses((status = 200, description = "How many were changed", body = Held))
)]
async fn hold_workflows(State(service): Shared, body: Body) -> Answer<Held> {
    let hold: Hold = body.read()?;
    call(service, move |service| service.hold(&hold)).await
}

/// Show a workflow as it is in force
#[utoipa::path(
    get, path = "/workflows/{workflow}", tag = "workflows", security(("token" = ["read"])),
    params(("workflow" = String, Path, description = "Its name")),
    responses((status = 200, description = "The workflow", body = WorkflowView))
)]
async fn show_workflow(
    State(service): Shared,
    Path(workflow): Path<String>,
) -> Answer<WorkflowView> {
    call(service, move |service| service.workflow(&workflow)).await
}

/// Change which version is active, or what is not versioned
#[utoipa::path(
    patch, path = "/workflows/{workflow}", tag = "workflows", security(("token" = ["write"])),
    params(("workflow" = String, Path, description = "Its name")),
    request_body = WorkflowChange,
    responses((status = 200, description = "The workflow as it is then", body = WorkflowView))
)]
async fn change_workflow(
    State(service): Shared,
    Path(workflow): Path<String>,
    body: Body,
) -> Answer<WorkflowView> {
    let change: WorkflowChange = body.read()?;
    call(service, move |service| service.change(&workflow, &change)).await
}

/// Delete a workflow; its history stays
#[utoipa::path(
    delete, path = "/workflows/{workflow}", tag = "workflows", security(("token" = ["write"])),
    params(("workflow" = String, Path, description = "Its name")),
    responses((status = 200, description = "The workflow as it is then", body = WorkflowView))
)]
async fn delete_workflow(
    State(service): Shared,
    Path(workflow): Path<String>,
) -> Answer<WorkflowView> {
    call(service, move |service| service.delete(&workflow)).await
}

/// Two versions.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DiffQuery {
    /// The one.
    from: u32,
    /// The other.
    to: u32,
}

/// Show what differs between two versions of a workflow
#[utoipa::path(
    get, path = "/workflows/{workflow}/diff", tag = "workflows", security(("token" = ["read"])),
    params(("workflow" = String, Path, description = "Its name"), DiffQuery),
    responses((status = 200, description = "The differences", body = VersionDiff))
)]
async fn diff_versions(
    State(service): Shared,
    Path(workflow): Path<String>,
    Query(query): Query<DiffQuery>,
) -> Answer<VersionDiff> {
    call(service, move |service| {
        service.diff(&workflow, query.from, query.to)
    })
    .await
}

/// A page of a run queue.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PlaceQuery {
    /// Only runs with this value of `strategy.key`.
    key: Option<String>,
    /// After this place: `next` of the page before.
    after: Option<String>,
}

/// Show the run queue of a workflow
#[utoipa::path(
    get, path = "/workflows/{workflow}/queue", tag = "workflows", security(("token" = ["read"])),
    params(("workflow" = String, Path, description = "Its name"), PlaceQuery),
    responses((status = 200, description = "Who is active and who waits, in order", body = QueueView))
)]
async fn show_queue(
    State(service): Shared,
    Path(workflow): Path<String>,
    Query(place): Query<PlaceQuery>,
) -> Answer<QueueView> {
    let query = QueueQuery {
        key: place.key,
        after: place.after,
    };
    call(service, move |service| service.queue(&workflow, &query)).await
}

/// Free a line of a strict run queue that a failed run blocks
///
/// The same as dismissing the run, also if that is not kept any more.
#[utoipa::path(
    post, path = "/workflows/{workflow}/queue/dismiss", tag = "workflows",
    security(("token" = ["run"])),
    params(("workflow" = String, Path, description = "Its name")),
    request_body = Dismissal,
    responses((status = 200, description = "The queue as it is then", body = QueueView))
)]
async fn dismiss_queue(
    State(service): Shared,
    Path(workflow): Path<String>,
    body: Body,
) -> Answer<QueueView> {
    let dismissal: Dismissal = body.read()?;
    call(service, move |service| {
        service.dismiss(&workflow, &dismissal)
    })
    .await
}
