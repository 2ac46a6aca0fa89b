//! The service behind HTTP/1.1 with JSON bodies. The same routes on any listener, a file a noun. Every
//! refusal has a problem body, those of the framework too.
//!
//! A handler is registered once, with its annotation: the OpenAPI document, its page and what a token
//! must be allowed are read from there.

mod action;
mod answer;
mod approval;
mod artifact;
mod backfill;
mod backup;
mod blob;
mod bulk;
mod channel;
mod debug;
mod deploy;
mod document;
mod event;
mod gate;
mod health;
mod hook;
mod lock;
mod log;
mod node;
mod queue;
mod run;
mod secret;
mod signal;
#[cfg(test)]
mod tests;
mod token;
mod trigger;
mod worker;
mod workflow;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state, map_response, map_response_with_state};
use kapell_api::http::{BASE, REQUEST_BYTES};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::{Service, peers, workers};
use gate::Gate;

pub use document::openapi;

/// What handlers share.
type Shared = State<Arc<Service>>;

/// Every noun's routes with what the document says of them.
fn parts() -> (Router<Arc<Service>>, OpenApi) {
    let nouns = OpenApiRouter::new()
        .merge(health::routes())
        .merge(blob::routes())
        .merge(workflow::routes())
        .merge(deploy::routes())
        .merge(run::routes())
        .merge(artifact::routes())
        .merge(action::routes())
        .merge(bulk::routes())
        .merge(event::routes())
        .merge(log::routes())
        .merge(channel::routes())
        .merge(token::routes())
        .merge(worker::routes())
        .merge(node::routes())
        .merge(queue::routes())
        .merge(secret::routes())
        .merge(backup::routes())
        .merge(trigger::routes())
        .merge(signal::routes())
        .merge(lock::routes())
        .merge(backfill::routes())
        .merge(approval::routes())
        .merge(debug::routes());
    OpenApiRouter::with_openapi(document::head())
        .nest(BASE, nouns)
        .merge(health::probes())
        .merge(hook::routes())
        .split_for_parts()
}

/// All routes. Requests of one client are answered at most so often a second.
pub fn router(service: Arc<Service>, request_rate: u32) -> Router {
    let (routes, document) = parts();
    let document = document::finished(&document);
    let gate = Arc::new(Gate::new(Arc::clone(&service), &document, request_rate));
    let workers = service.workers().map(workers::routes);
    let nodes = service.nodes().cloned().map(peers::routes);
    routes
        .merge(document::routes(&document))
        .merge(workers.unwrap_or_default())
        .merge(nodes.unwrap_or_default())
        .merge(crate::metrics::routes())
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(DefaultBodyLimit::max(REQUEST_BYTES))
        // Twice: what the gate notes of a change is noted of one that panics too.
        .layer(from_fn(answer::unbroken))
        .layer(from_fn_with_state(gate, gate::pass))
        .layer(from_fn(answer::unbroken))
        .layer(map_response(answer::explained))
        .layer(map_response_with_state(Arc::clone(&service), node::told))
        .layer(from_fn_with_state(
            Arc::clone(&service),
            crate::metrics::measured,
        ))
        .with_state(service)
}

/// A failure as an answer, for routes that are merged with these.
pub(crate) fn refusal(error: kapell_model::Error) -> axum::response::Response {
    answer::problem(error, None)
}
