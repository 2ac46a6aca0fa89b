//! Breakpoints of workflows, and what expressions give in a run.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use kapell_api::client::{DebugCalls, RunCalls};
use kapell_api::http::{
    AddBreakpoint, BreakpointQuery, Evaluate, Evaluated, RemoveBreakpoints, WorkflowBreakpoints,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, Body, call};
use crate::Service;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(show_breakpoints, set_breakpoints))
        .routes(routes!(add_breakpoint))
        .routes(routes!(remove_breakpoints))
        .routes(routes!(show_breakpoints_of_all, set_breakpoints_of_all))
        .routes(routes!(add_breakpoint_of_all))
        .routes(routes!(remove_breakpoints_of_all))
        .routes(routes!(evaluate))
}

/// Show the breakpoints of all new runs of a workflow
#[utoipa::path(
    get, path = "/workflows/{workflow}/breakpoints", tag = "debugging",
    security(("token" = ["read"])),
    params(("workflow" = String, Path, description = "Its name"), BreakpointQuery),
    responses((status = 200, description = "The breakpoints", body = WorkflowBreakpoints))
)]
async fn show_breakpoints(
    State(service): Shared,
    Path(workflow): Path<String>,
    Query(which): Query<BreakpointQuery>,
) -> Answer<WorkflowBreakpoints> {
    call(service, move |service| {
        service.breakpoints(Some(&workflow), which.version)
    })
    .await
}

/// Set the breakpoints of all new runs of a workflow
///
/// Those that were there are replaced. Runs that are there already have their own: the action
/// `breakpoints` sets them.
#[utoipa::path(
    put, path = "/workflows/{workflow}/breakpoints", tag = "debugging",
    security(("token" = ["run"])),
    params(("workflow" = String, Path, description = "Its name")),
    request_body = WorkflowBreakpoints,
    responses((status = 200, description = "The breakpoints then", body = WorkflowBreakpoints))
)]
async fn set_breakpoints(
    State(service): Shared,
    Path(workflow): Path<String>,
    body: Body,
) -> Answer<WorkflowBreakpoints> {
    let all: WorkflowBreakpoints = body.read()?;
    call(service, move |service| {
        service.set_breakpoints(Some(&workflow), &all)
    })
    .await
}

/// Set one more breakpoint of all new runs of a workflow
///
/// What others set at the same time stays. Runs that are there already have their own: the action
/// `add-breakpoint` sets one of them.
#[utoipa::path(
    post, path = "/workflows/{workflow}/breakpoints/add", tag = "debugging",
    security(("token" = ["run"])),
    params(("workflow" = String, Path, description = "Its name")),
    request_body = AddBreakpoint,
    responses((status = 200, description = "The breakpoints then", body = WorkflowBreakpoints))
)]
async fn add_breakpoint(
    State(service): Shared,
    Path(workflow): Path<String>,
    body: Body,
) -> Answer<WorkflowBreakpoints> {
    let of: AddBreakpoint = body.read()?;
    call(service, move |service| {
        service.add_breakpoint(Some(&workflow), &of)
    })
    .await
}

/// Remove breakpoints of all new runs of a workflow
#[utoipa::path(
    post, path = "/workflows/{workflow}/breakpoints/remove", tag = "debugging",
    security(("token" = ["run"])),
    params(("workflow" = String, Path, description = "Its name")),
    request_body = RemoveBreakpoints,
    responses((status = 200, description = "The breakpoints then", body = WorkflowBreakpoints))
)]
async fn remove_breakpoints(
    State(service): Shared,
    Path(workflow): Path<String>,
    body: Body,
) -> Answer<WorkflowBreakpoints> {
    let which: RemoveBreakpoints = body.read()?;
    call(service, move |service| {
        service.remove_breakpoints(Some(&workflow), &which)
    })
    .await
}

/// Show the breakpoints of all new runs of every workflow
#[utoipa::path(
    get, path = "/breakpoints", tag = "debugging", security(("token" = ["read"])),
    responses((status = 200, description = "The breakpoints", body = WorkflowBreakpoints))
)]
async fn show_breakpoints_of_all(State(service): Shared) -> Answer<WorkflowBreakpoints> {
    call(service, move |service| service.breakpoints(None, None)).await
}

/// Set the breakpoints of all new runs of every workflow
///
/// Of workflows that come later too. Those that were there are replaced; those of single workflows stay.
#[utoipa::path(
    put, path = "/breakpoints", tag = "debugging", security(("token" = ["run"])),
    request_body = WorkflowBreakpoints,
    responses((status = 200, description = "The breakpoints then", body = WorkflowBreakpoints))
)]
async fn set_breakpoints_of_all(State(service): Shared, body: Body) -> Answer<WorkflowBreakpoints> {
    let all: WorkflowBreakpoints = body.read()?;
    call(service, move |service| service.set_breakpoints(None, &all)).await
}

/// Set one more breakpoint of all new runs of every workflow
///
/// Of workflows that come later too: at a step that none has yet it is taken all the same.
#[utoipa::path(
    post, path = "/breakpoints/add", tag = "debugging", security(("token" = ["run"])),
    request_body = AddBreakpoint,
    responses((status = 200, description = "The breakpoints then", body = WorkflowBreakpoints))
)]
async fn add_breakpoint_of_all(State(service): Shared, body: Body) -> Answer<WorkflowBreakpoints> {
    let of: AddBreakpoint = body.read()?;
    call(service, move |service| service.add_breakpoint(None, &of)).await
}

/// Remove breakpoints of all new runs of every workflow
///
/// Those of single workflows stay.
#[utoipa::path(
    post, path = "/breakpoints/remove", tag = "debugging", security(("token" = ["run"])),
    request_body = RemoveBreakpoints,
    responses((status = 200, description = "The breakpoints then", body = WorkflowBreakpoints))
)]
async fn remove_breakpoints_of_all(
    State(service): Shared,
    body: Body,
) -> Answer<WorkflowBreakpoints> {
    let which: RemoveBreakpoints = body.read()?;
    call(service, move |service| {
        service.remove_breakpoints(None, &which)
    })
    .await
}

/// Evaluate an expression over what a step of a run sees
///
/// Nothing is changed by it.
#[utoipa::path(
    post, path = "/runs/{run}/evaluate", tag = "debugging", security(("token" = ["read"])),
    params(("run" = String, Path, description = "Its id, the last 4 or more characters of it, or `last`")),
    request_body = Evaluate,
    responses((status = 200, description = "Its value", body = Evaluated))
)]
async fn evaluate(
    State(service): Shared,
    Path(run): Path<String>,
    body: Body,
) -> Answer<Evaluated> {
    let of: Evaluate = body.read_nameless()?;
    call(service, move |service| {
        service.evaluate(service.find(&run)?, &of)
    })
    .await
}
