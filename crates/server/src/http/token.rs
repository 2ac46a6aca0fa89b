//! Tokens and the audit log.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Query, State};
use kapell_api::client::TokenCalls;
use kapell_api::http::{AuditPage, AuditQuery, CreatedToken, NewToken, TokenPage, TokenView};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, Body, call};
use crate::Service;
use crate::auth::{Caller, attributed};

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(list_tokens, create_token))
        .routes(routes!(revoke_token))
        .routes(routes!(read_audit))
}

/// Make a token
///
/// The answer holds its secret, which is shown this once.
#[utoipa::path(
    post, path = "/tokens", tag = "tokens", security(("token" = ["admin"])),
    request_body = NewToken,
    responses((status = 200, description = "The token with its secret", body = CreatedToken))
)]
async fn create_token(
    State(service): Shared,
    caller: Option<Extension<Caller>>,
    body: Body,
) -> Answer<CreatedToken> {
    let mut new: NewToken = body.read()?;
    if let Some(caller) = caller {
        new.by = attributed(caller.who(), &new.by);
    }
    call(service, move |service| service.create_token(&new)).await
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct TokenQuery {
    /// Ids after this one: `next` of the page before.
    #[serde(default)]
    after: String,
    /// At most so many; 0 is 100.
    #[serde(default)]
    #[param(maximum = 1_000)]
    limit: usize,
}

/// List tokens, by id
#[utoipa::path(
    get, path = "/tokens", tag = "tokens", security(("token" = ["admin"])),
    params(TokenQuery),
    responses((status = 200, description = "A page of them, without secrets", body = TokenPage))
)]
async fn list_tokens(State(service): Shared, Query(page): Query<TokenQuery>) -> Answer<TokenPage> {
    call(service, move |service| {
        TokenCalls::tokens(service, &page.after, page.limit)
    })
    .await
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Revoke {
    /// Who; of a caller with a token its name.
    #[serde(default)]
    by: String,
}

/// Revoke a token
///
/// It lets nobody in from then on.
#[utoipa::path(
    delete, path = "/tokens/{token}", tag = "tokens", security(("token" = ["admin"])),
    params(("token" = String, Path, description = "Its id, or the name of a valid one"), Revoke),
    responses((status = 200, description = "The token as it is now", body = TokenView))
)]
async fn revoke_token(
    State(service): Shared,
    Path(token): Path<String>,
    Query(revoke): Query<Revoke>,
    caller: Option<Extension<Caller>>,
) -> Answer<TokenView> {
    let by = match caller {
        Some(caller) if caller.name().is_some() => caller.who(),
        Some(caller) => attributed(caller.who(), &revoke.by),
        None => revoke.by,
    };
    call(service, move |service| service.revoke_token(&token, &by)).await
}

/// Read the audit log, newest first
///
/// Every change that was asked for, with who, from where, what it was about and how it ended. With filters
/// a page may be short or empty and still have `next`: older entries are yet to be looked at.
#[utoipa::path(
    get, path = "/audit", tag = "tokens", security(("token" = ["admin"])),
    params(AuditQuery),
    responses((status = 200, description = "A page of entries", body = AuditPage))
)]
async fn read_audit(State(service): Shared, Query(query): Query<AuditQuery>) -> Answer<AuditPage> {
    call(service, move |service| TokenCalls::audit(service, &query)).await
}
