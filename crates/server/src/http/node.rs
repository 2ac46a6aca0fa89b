//! The nodes of a cluster.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::response::Response;
use kapell_api::client::{NODES_HEADER, NodeCalls};
use kapell_api::http::NodeList;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, call};
use crate::Service;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new().routes(routes!(list_nodes))
}

/// List the nodes that share the store, and what each of them owns
#[utoipa::path(
    get, path = "/nodes", tag = "server", security(("token" = ["read"])),
    responses((status = 200, description = "The nodes, by id", body = NodeList))
)]
async fn list_nodes(State(service): Shared) -> Answer<NodeList> {
    call(service, NodeCalls::nodes).await
}

/// Says with each answer where all nodes are, if there are several.
pub(super) async fn told(State(service): Shared, mut response: Response) -> Response {
    if let Some(nodes) = service.nodes() {
        let addresses = nodes.addresses();
        if addresses.len() > 1
            && let Ok(said) = HeaderValue::from_str(&addresses.join(","))
        {
            response.headers_mut().insert(NODES_HEADER, said);
        }
    }
    response
}
