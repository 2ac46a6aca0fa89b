//! Workflows and their versions.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use kapell_api::client::WorkflowCalls;
use kapell_api::http::{RegisterWorkflow, Registered, Version, VersionPage, WorkflowPage};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, Body, bad, call};
use crate::Service;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(list_workflows, register_workflow))
        .routes(routes!(list_versions))
        .routes(routes!(show_version))
}

/// Register a workflow
///
/// The same content again changes nothing and gives the same version.
#[utoipa::path(
    post, path = "/workflows", tag = "workflows", security(("token" = ["write"])),
    request_body = RegisterWorkflow,
    responses((status = 200, description = "Its version", body = Registered))
)]
async fn register_workflow(State(service): Shared, body: Body) -> Answer<Registered> {
    let workflow: RegisterWorkflow = body.read_nameless()?;
    call(service, move |service| service.register(&workflow)).await
}

/// A page of workflows.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WorkflowQuery {
    /// Names after this one: `next` of the page before.
    #[serde(default)]
    after: String,
    /// At most so many; 0 is 100.
    #[serde(default)]
    #[param(maximum = 1_000)]
    limit: usize,
}

/// List workflows, by name
#[utoipa::path(
    get, path = "/workflows", tag = "workflows", security(("token" = ["read"])),
    params(WorkflowQuery),
    responses((status = 200, description = "A page of them", body = WorkflowPage))
)]
async fn list_workflows(
    State(service): Shared,
    Query(page): Query<WorkflowQuery>,
) -> Answer<WorkflowPage> {
    call(service, move |service| {
        service.workflows(&page.after, page.limit)
    })
    .await
}

/// A page of versions.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct VersionQuery {
    /// Versions before this one: `next` of the page before.
    before: Option<u32>,
    /// At most so many; 0 is 100.
    #[serde(default)]
    #[param(maximum = 1_000)]
    limit: usize,
}

/// List versions of a workflow, newest first
#[utoipa::path(
    get, path = "/workflows/{workflow}/versions", tag = "workflows", security(("token" = ["read"])),
    params(("workflow" = String, Path, description = "Its name"), VersionQuery),
    responses((status = 200, description = "A page of them, without their files", body = VersionPage))
)]
async fn list_versions(
    State(service): Shared,
    Path(workflow): Path<String>,
    Query(page): Query<VersionQuery>,
) -> Answer<VersionPage> {
    call(service, move |service| {
        service.versions(&workflow, page.before, page.limit)
    })
    .await
}

/// Show a version of a workflow
#[utoipa::path(
    get, path = "/workflows/{workflow}/versions/{version}", tag = "workflows", security(("token" = ["read"])),
    params(
        ("workflow" = String, Path, description = "Its name"),
        ("version" = String, Path, description = "Its number, or `active`"),
    ),
    responses((status = 200, description = "The version with its file", body = Version))
)]
async fn show_version(
    State(service): Shared,
    Path((workflow, version)): Path<(String, String)>,
) -> Answer<Version> {
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
