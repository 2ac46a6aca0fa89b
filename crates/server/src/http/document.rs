//! The OpenAPI document, and the page that shows it.

mod examples;

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use kapell_api::http::Problem;
use kapell_model::ErrorCode;
use serde_json::{Value, json};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{Info, OpenApi, OpenApiBuilder, Tag};
use utoipa::{PartialSchema, ToSchema};

use super::answer::PROBLEM;
use crate::Service;

/// Where the document is.
pub(super) const PATH: &str = "/api/v1/openapi.json";

/// Nouns, in the order in which the page shows them.
const TAGS: [(&str, &str); 16] = [
    ("runs", "Runs: started, listed, looked at."),
    ("actions", "What can be done to a run."),
    ("workflows", "Workflows and their versions."),
    ("triggers", "What starts runs by itself."),
    (
        "signals",
        "Signals, which start runs and which runs wait for.",
    ),
    ("backfills", "Due times that are made up for on request."),
    ("approvals", "What runs ask people; answers are actions."),
    ("locks", "Named locks and rates."),
    (
        "debugging",
        "Breakpoints of workflows, and what expressions give.",
    ),
    ("blobs", "Bytes that are kept by their hash."),
    (
        "secrets",
        "Values that only attempts get to see; nobody can read them back.",
    ),
    (
        "channels",
        "Where notices go, and those that did not arrive.",
    ),
    (
        "workers",
        "Workers: the one inside the server, and those of other processes.",
    ),
    (
        "events",
        "Changes as they are committed, as server-sent events.",
    ),
    ("tokens", "Who may ask, and what was changed."),
    ("server", "Who answers, and whether it does."),
];

const ABOUT: &str = "What every `kapell` command and every program asks of a server. \
    Failures have a problem body (RFC 9457) with a stable `code`. Lists come in pages: give `next` of \
    one page with the request for the next. A token goes into the header `Authorization: Bearer …`; \
    over the socket of a data directory none is needed.";

/// The document without its operations.
pub(super) fn head() -> OpenApi {
    let tags: Vec<Tag> = TAGS
        .iter()
        .map(|(name, about)| {
            TagBuilder::new()
                .name(*name)
                .description(Some(*about))
                .build()
        })
        .collect();
    let mut info = Info::new("Kapell", env!("CARGO_PKG_VERSION"));
    info.description = Some(ABOUT.to_owned());
    OpenApiBuilder::new().info(info).tags(Some(tags)).build()
}

/// The whole document, OpenAPI 3.1: what handlers say of themselves, the verbs of runs, and what is the
/// same everywhere.
pub fn openapi() -> Value {
    finished(&super::parts().1)
}

pub(super) fn finished(document: &OpenApi) -> Value {
    let mut document = json!(document);
    super::action::describe(&mut document);
    let mut schemas = Vec::new();
    Problem::schemas(&mut schemas);
    schemas.push((Problem::name().into_owned(), Problem::schema()));
    for (name, schema) in schemas {
        document["components"]["schemas"][name] = json!(schema);
    }
    document["components"]["securitySchemes"]["token"] = json!({
        "type": "http",
        "scheme": "bearer",
        "description": "A token of `kapell token create`",
    });
    let reference = format!("#/components/schemas/{}", Problem::name());
    let failed = json!({
        "description": "A failure",
        "content": { PROBLEM: { "schema": { "$ref": reference } } },
    });
    let items = document["paths"].as_object_mut().into_iter().flatten();
    let operations = items.flat_map(|(path, item)| {
        let item = item.as_object_mut().into_iter().flatten();
        item.map(|(method, operation)| (path.as_str(), method.as_str(), operation))
    });
    for (path, method, operation) in operations {
        operation["responses"]["default"] = failed.clone();
        // Any bytes at all.
        if let Some(body) = operation.pointer_mut("/requestBody/content/application~1octet-stream")
        {
            *body = json!({});
        }
        if let Some(body) =
            operation.pointer_mut("/responses/200/content/application~1octet-stream")
        {
            *body = json!({});
        }
        examples::add(path, method, operation);
    }
    document
}

#[cfg(test)]
#[test]
fn every_body_and_needed_parameter_has_an_example() {
    let missing = examples::missing(&openapi());
    assert!(missing.is_empty(), "{missing:#?}");
}

/// The page that the `type` of a problem names.
async fn error_page(Path(code): Path<String>) -> Response {
    let found = ErrorCode::ALL.iter().find(|known| known.name() == code);
    match found {
        Some(code) => (
            [(header::CONTENT_TYPE, "text/markdown; charset=utf-8")],
            code.page(),
        )
            .into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The document at `/api/v1/openapi.json`, its page at `/docs/api`, and those of error codes.
pub(super) fn routes(document: &Value) -> Router<Arc<Service>> {
    let text: Arc<str> = document.to_string().into();
    let answer = move || {
        let text = Arc::clone(&text);
        async move { json(&text) }
    };
    let page = async || Html(include_str!("document.html"));
    Router::new()
        .route(PATH, get(answer))
        .route("/docs/api", get(page))
        .route("/docs/errors/{code}", get(error_page))
}

fn json(text: &str) -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        text.to_owned(),
    )
        .into_response()
}
