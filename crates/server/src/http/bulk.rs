//! Many runs in one call.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use kapell_api::client::RunCalls;
use kapell_api::http::{BulkAction, BulkResult, StartRuns, StartedRuns};
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, Body, bad, call, keyed};
use crate::Service;
use crate::auth::Caller;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(start_runs))
        .routes(routes!(act_on_runs))
}

/// Start many runs
///
/// At most 1,000, each by itself: the answer says of each its id, or why it was refused.
#[utoipa::path(
    post, path = "/runs/batch", tag = "runs", security(("token" = ["run"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "With its place, the key of each run that has none")),
    request_body = StartRuns,
    responses((status = 200, description = "What became of each, in order", body = StartedRuns))
)]
async fn start_runs(
    State(service): Shared,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
    body: Body,
) -> Answer<StartedRuns> {
    let mut start: StartRuns = body.read()?;
    if let Some(key) = keyed(&headers, None)? {
        for (place, run) in start.runs.iter_mut().enumerate() {
            let own = run
                .idempotency_key
                .as_ref()
                .is_some_and(|key| !key.is_empty());
            if !own {
                run.idempotency_key = Some(format!("{key}/{place}"));
            }
        }
    }
    if caller.is_some_and(|caller| caller.name().is_some()) {
        // Nobody speaks in another's name.
        for run in &mut start.runs {
            run.by.clone_from(&start.by);
        }
    }
    Ok(Json(service.start_all(start).await?))
}

/// Do something to many runs
///
/// To one page of the runs that match the filter, newest first. While the answer has `next`, more match:
/// ask again with it as `before` of the filter. A filter that leaves no run out is refused without `all`.
/// With `dry_run` it is only said to which it would be done.
#[utoipa::path(
    post, path = "/runs/bulk", tag = "actions", security(("token" = ["run"])),
    request_body = BulkAction,
    responses((status = 200, description = "What became of each", body = BulkResult))
)]
async fn act_on_runs(
    State(service): Shared,
    caller: Option<Extension<Caller>>,
    body: Body,
) -> Answer<BulkResult> {
    let mut bulk: Value = body.read()?;
    if caller.is_some_and(|caller| caller.name().is_some())
        && let Some(action) = bulk.get_mut("action").and_then(Value::as_object_mut)
    {
        action.remove("by");
        // Nobody knows of a token which groups whoever holds it is in.
        action.remove("groups");
    }
    if !bulk.get("action").is_some_and(Value::is_object) {
        return Err(bad(
            &"`action` is an object that says what to do: `{\"action\": \"retry\"}`",
        ));
    }
    let bulk: BulkAction = serde_json::from_value(bulk).map_err(|error| bad(&error))?;
    call(service, move |service| service.bulk(&bulk)).await
}
