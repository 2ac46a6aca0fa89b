//! Who answers, and whether it does.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use kapell_api::client::HealthCalls;
use kapell_api::http::Health;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, call};
use crate::Service;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new().routes(routes!(health))
}

/// What a supervisor asks, at the root.
pub(super) fn probes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(live))
        .routes(routes!(ready))
}

/// Say who answers
#[utoipa::path(
    get, path = "/health", tag = "server", security(("token" = ["read"])),
    responses((status = 200, description = "Version and process", body = Health))
)]
async fn health(State(service): Shared) -> Answer<Health> {
    call(service, HealthCalls::health).await
}

/// Say whether the process lives
///
/// A supervisor that gets no answer starts it again.
#[utoipa::path(
    get, path = "/health/live", tag = "server", security(()),
    responses((status = 200, description = "It does", body = bool, content_type = "application/json"))
)]
async fn live() -> Json<bool> {
    Json(true)
}

/// Say whether requests are taken
///
/// Not while the store does not answer, and not once the process is asked to end.
#[utoipa::path(
    get, path = "/health/ready", tag = "server", security(()),
    responses((status = 200, description = "They are", body = bool, content_type = "application/json"))
)]
async fn ready(State(service): Shared) -> Answer<bool> {
    call(service, |service| service.ready().map(|()| true)).await
}
