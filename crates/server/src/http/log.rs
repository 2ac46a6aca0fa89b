//! Logs of runs.

use std::sync::Arc;

use axum::extract::{Path, State};
use kapell_api::client::{LogCalls, RunCalls};
use kapell_api::http::{LogPage, LogQuery};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, Body, call};
use crate::Service;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new().routes(routes!(read_logs))
}

/// Read what steps printed
///
/// In order of time, page by page: give the page's `cursor` with the next request.
#[utoipa::path(
    post, path = "/runs/{run}/logs", tag = "runs", security(("token" = ["read"])),
    params(("run" = String, Path, description = "Its id, the last 4 or more characters of it, or `last`")),
    request_body(content = LogQuery, description = "Which lines; nothing is all"),
    responses((status = 200, description = "A page of lines", body = LogPage))
)]
async fn read_logs(State(service): Shared, Path(run): Path<String>, body: Body) -> Answer<LogPage> {
    let query: LogQuery = body.read_nameless_or_default()?;
    call(service, move |service| {
        service.logs(service.find(&run)?, &query)
    })
    .await
}
