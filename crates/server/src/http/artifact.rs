//! Files that steps gave.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use tokio_stream::wrappers::ReceiverStream;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::Failure;
use crate::Service;
use crate::service::aside;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new().routes(routes!(get_artifact))
}

/// Fetch a file that a step gave
///
/// Its name is the one under `artifacts: { out: … }`. Of an item, the step is written `tune[3]`.
#[utoipa::path(
    get, path = "/runs/{run}/artifacts/{step}/{name}", tag = "runs", security(("token" = ["read"])),
    params(
        ("run" = String, Path, description = "Its id, the last 4 or more characters of it, or `last`"),
        ("step" = String, Path, description = "Path of the step or item"),
        ("name" = String, Path, description = "Name of the artifact in the step's output"),
    ),
    responses((status = 200, description = "Its content", content_type = "application/octet-stream", body = Vec<u8>))
)]
async fn get_artifact(
    State(service): Shared,
    Path((run, step, name)): Path<(String, String, String)>,
) -> Result<Response, Failure> {
    let run = super::run::found(&service, run).await?;
    let asked = Arc::clone(&service);
    let artifact = aside(move || asked.artifact_of(run, &step, &name)).await?;
    let (size, name) = (artifact.blob.size, artifact.name.clone());
    let parts = service.artifact_parts(artifact).await?;
    let mut answer = Body::from_stream(ReceiverStream::new(parts)).into_response();
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(header::CONTENT_LENGTH, size.into());
    // What a browser would make of somebody's bytes is nobody's intent.
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    if let Ok(value) = HeaderValue::from_str(&disposition(&name)) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(answer)
}

/// RFC 6266: to be kept as a file of this name, whatever characters it has.
fn disposition(name: &str) -> String {
    let mut text = "attachment; filename*=UTF-8''".to_owned();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text += &format!("%{byte:02X}");
        }
    }
    text
}
