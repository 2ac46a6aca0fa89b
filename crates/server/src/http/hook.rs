//! Calls of webhooks, by whoever knows their addresses.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::HeaderMap;
use kapell_api::http::HookTaken;
use kapell_model::limits;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, Body, call};
use crate::Service;
use crate::hooks::Call;

/// The header that signs a call.
const SIGNATURE: &str = "x-kapell-signature";

/// The header that names a call which is not signed.
const ID: &str = "idempotency-key";

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(call_hook))
        .layer(DefaultBodyLimit::max(limits::SIGNAL_BYTES))
}

/// Call a webhook
///
/// The body is what `signal.payload` is for the trigger. If the trigger has a secret, the call is
/// signed: `v1` is HMAC-SHA256 of `t`, a point and the body. The same call again starts nothing more.
#[utoipa::path(
    post, path = "/hooks/{token}/{path}", tag = "triggers", security(()),
    params(
        ("token" = String, Path, description = "What nobody can guess"),
        ("path" = String, Path, description = "The trigger's path"),
        ("X-Kapell-Signature" = Option<String>, Header, description = "`t=<seconds since 1970>,v1=<hex>`; not older than 5 minutes"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names a call that is not signed"),
    ),
    request_body = serde_json::Value,
    responses((status = 200, description = "It is taken, durably", body = HookTaken))
)]
async fn call_hook(
    State(service): Shared,
    Path((token, path)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer<HookTaken> {
    let text = |name| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.map(str::to_owned)
    };
    let of = Call {
        signature: text(SIGNATURE),
        id: text(ID),
        body: body.0.to_vec(),
    };
    call(service, move |service| {
        service.call_hook(&token, &path, &of)
    })
    .await
}
