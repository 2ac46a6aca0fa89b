//! Who answers.

use axum::extract::State;
use kapell_api::client::HealthCalls;
use kapell_api::http::Health;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, call};

pub(super) fn routes() -> OpenApiRouter<std::sync::Arc<crate::Service>> {
    OpenApiRouter::new().routes(routes!(health))
}

/// Say who answers
#[utoipa::path(
    get, path = "/health", tag = "server", security(("token" = ["read"])),
    responses((status = 200, description = "Version and process", body = Health))
)]
async fn health(State(service): Shared) -> Answer<Health> {
    call(service, HealthCalls::health).await
}
