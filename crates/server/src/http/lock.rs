//! Named locks and rates.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use kapell_api::client::LockCalls;
use kapell_api::http::{LockPage, LockQuery, LockView};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, call};
use crate::Service;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(list_locks))
        .routes(routes!(show_lock))
}

/// List locks and rates, by name
///
/// Those that somebody holds or waits for, and rates that were used.
#[utoipa::path(
    get, path = "/locks", tag = "locks", security(("token" = ["read"])),
    params(LockQuery),
    responses((status = 200, description = "A page of them", body = LockPage))
)]
async fn list_locks(State(service): Shared, Query(which): Query<LockQuery>) -> Answer<LockPage> {
    call(service, move |service| service.locks(&which)).await
}

/// Show who holds a lock and who waits, in order
#[utoipa::path(
    get, path = "/locks/{name}", tag = "locks", security(("token" = ["read"])),
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "The lock", body = LockView))
)]
async fn show_lock(State(service): Shared, Path(name): Path<String>) -> Answer<LockView> {
    call(service, move |service| service.lock(&name)).await
}
