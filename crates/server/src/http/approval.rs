//! What runs ask people.

use std::sync::Arc;

use axum::extract::{Query, State};
use kapell_api::client::ApprovalCalls;
use kapell_api::http::{ApprovalPage, ApprovalQuery};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, call};
use crate::Service;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new().routes(routes!(list_approvals))
}

/// List what runs ask people
///
/// With `by`, what this person may answer and has not. An answer is `POST /runs/{run}/approve` or
/// `/reject`.
#[utoipa::path(
    get, path = "/approvals", tag = "approvals", security(("token" = ["read"])),
    params(ApprovalQuery),
    responses((status = 200, description = "A page of questions", body = ApprovalPage))
)]
async fn list_approvals(
    State(service): Shared,
    Query(which): Query<ApprovalQuery>,
) -> Answer<ApprovalPage> {
    call(service, move |service| service.approvals(&which)).await
}
