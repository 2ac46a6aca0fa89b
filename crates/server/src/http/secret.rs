//! Secrets. No answer holds a value.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use kapell_api::client::SecretCalls;
use kapell_api::http::{RotatedSecrets, SecretPage, SetSecret};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, Body, bad, call};
use crate::Service;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(list_secrets))
        .routes(routes!(set_secret, delete_secret))
        .routes(routes!(rotate_secrets))
}

/// A page of secrets.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SecretQuery {
    /// Names after this one: `next` of the page before.
    #[serde(default)]
    after: String,
    /// At most so many; 0 is 100.
    #[serde(default)]
    #[param(maximum = 1_000)]
    limit: usize,
}

/// List secrets, by name, without their values
#[utoipa::path(
    get, path = "/secrets", tag = "secrets", security(("token" = ["admin"])),
    params(SecretQuery),
    responses((status = 200, description = "A page of them", body = SecretPage))
)]
async fn list_secrets(
    State(service): Shared,
    Query(page): Query<SecretQuery>,
) -> Answer<SecretPage> {
    call(service, move |service| {
        service.secrets(&page.after, page.limit)
    })
    .await
}

/// Set a secret
///
/// It is kept encrypted and given to the workers that need it; nobody can read it back.
#[utoipa::path(
    put, path = "/secrets/{name}", tag = "secrets", security(("token" = ["admin"])),
    params(("name" = String, Path, description = "Its name, as in `secrets.NAME`")),
    request_body = SetSecret,
    responses((status = 200, description = "It is kept"))
)]
async fn set_secret(State(service): Shared, Path(name): Path<String>, body: Body) -> Answer<()> {
    // What a parser says of a body that it cannot read would quote it.
    let mut secret: SetSecret = serde_json::from_slice(&body.0).map_err(|_| {
        bad(&"the body of the request is no object with a text `value`, and `by` if anything")
    })?;
    if let Some(name) = body.1 {
        // Nobody speaks in another's name.
        secret.by = name;
    }
    call(service, move |service| service.set_secret(&name, &secret)).await
}

/// Delete a secret
#[utoipa::path(
    delete, path = "/secrets/{name}", tag = "secrets", security(("token" = ["admin"])),
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "It is gone"))
)]
async fn delete_secret(State(service): Shared, Path(name): Path<String>) -> Answer<()> {
    call(service, move |service| service.delete_secret(&name)).await
}

/// Seal all secrets with a new key
///
/// The old keys are forgotten once all are sealed with the new one.
#[utoipa::path(
    post, path = "/secret-keys", tag = "secrets", security(("token" = ["admin"])),
    responses((status = 200, description = "What was done", body = RotatedSecrets))
)]
async fn rotate_secrets(State(service): Shared) -> Answer<RotatedSecrets> {
    call(service, SecretCalls::rotate_secrets).await
}
