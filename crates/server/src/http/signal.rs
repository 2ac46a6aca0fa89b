//! Signals, and the topics that keep them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use kapell_api::client::SignalCalls;
use kapell_api::http::{SendSignal, SentSignal, SignalQuery, TopicPage, TopicQuery, TopicView};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, Body, call, keyed};
use crate::Service;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(list_topics))
        .routes(routes!(show_topic, send_signal))
}

/// List names of signals
///
/// Those under which signals were sent, or to which somebody listens.
#[utoipa::path(
    get, path = "/signals", tag = "signals", security(("token" = ["read"])),
    params(TopicQuery),
    responses((status = 200, description = "A page of them, by name", body = TopicPage))
)]
async fn list_topics(State(service): Shared, Query(which): Query<TopicQuery>) -> Answer<TopicPage> {
    call(service, move |service| service.topics(&which)).await
}

/// Show kept signals of a name, newest first, and who listens
#[utoipa::path(
    get, path = "/signals/{name}", tag = "signals", security(("token" = ["read"])),
    params(("name" = String, Path, description = "The signals' name"), SignalQuery),
    responses((status = 200, description = "A page of signals", body = TopicView))
)]
async fn show_topic(
    State(service): Shared,
    Path(name): Path<String>,
    Query(which): Query<SignalQuery>,
) -> Answer<TopicView> {
    call(service, move |service| service.topic(&name, &which)).await
}

/// Send a signal
///
/// It is kept for a while, so whoever waits for it later finds it. With an `id` the same request again
/// changes nothing.
#[utoipa::path(
    post, path = "/signals/{name}", tag = "signals", security(("token" = ["run"])),
    params(
        ("name" = String, Path, description = "The signal's name"),
        ("Idempotency-Key" = Option<String>, Header, description = "As `id` of the body"),
    ),
    request_body = Option<SendSignal>,
    responses((status = 200, description = "It is kept, durably", body = SentSignal))
)]
async fn send_signal(
    State(service): Shared,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer<SentSignal> {
    let mut signal: SendSignal = body.read_or_default()?;
    signal.id = keyed(&headers, signal.id)?;
    Ok(Json(service.send_soon(&name, signal).await?))
}
