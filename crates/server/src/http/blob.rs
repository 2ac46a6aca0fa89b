//! Bytes that are kept.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use kapell_api::client::BlobCalls;
use kapell_api::http::schema;
use kapell_expr::BlobRef;
use kapell_model::limits;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, Body, call};
use crate::Service;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    let most = usize::try_from(limits::BUNDLE_BYTES).unwrap_or(usize::MAX);
    OpenApiRouter::new()
        .routes(routes!(put_blob))
        .layer(DefaultBodyLimit::max(most))
}

/// Keep bytes
///
/// What nothing refers to is dropped after some days.
#[utoipa::path(
    post, path = "/blobs", tag = "blobs", security(("token" = ["write"])),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, description = "How to refer to them", body = schema::Blob))
)]
async fn put_blob(State(service): Shared, Body(bytes, _): Body) -> Answer<BlobRef> {
    call(service, move |service| service.put(&bytes)).await
}
