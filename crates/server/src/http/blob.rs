//! Bytes that are kept.

use std::sync::Arc;

use axum::extract::State;
use kapell_api::client::BlobCalls;
use kapell_api::http::schema;
use kapell_expr::BlobRef;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, Content, call};
use crate::Service;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new().routes(routes!(put_blob))
}

/// Keep bytes
///
/// What nothing refers to is dropped after some days.
#[utoipa::path(
    post, path = "/blobs", tag = "blobs", security(("token" = ["write"])),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, description = "How to refer to them", body = schema::Blob))
)]
async fn put_blob(State(service): Shared, Content(bytes): Content) -> Answer<BlobRef> {
    call(service, move |service| service.put(&bytes)).await
}
