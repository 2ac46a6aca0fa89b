//! Queues, in which tasks wait for workers.

use std::sync::Arc;

use axum::extract::{Path, State};
use kapell_api::client::TaskQueueCalls;
use kapell_api::http::{TaskQueue, TaskQueueList};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, call};
use crate::Service;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(list_task_queues))
        .routes(routes!(show_task_queue))
        .routes(routes!(keep_task_queue))
}

/// List queues with work or workers, over all nodes: what waits and what workers have room for
#[utoipa::path(
    get, path = "/queues", tag = "workers", security(("token" = ["read"])),
    responses((status = 200, description = "The queues and the pools, by name", body = TaskQueueList))
)]
async fn list_task_queues(State(service): Shared) -> Answer<TaskQueueList> {
    call(service, TaskQueueCalls::task_queues).await
}

/// Show a queue over all nodes, for whoever scales workers by it
///
/// Of a queue that nobody uses all is nothing. While a node does not answer it is refused: less than all would be
/// taken for all.
#[utoipa::path(
    get, path = "/queues/{queue}", tag = "workers", security(("token" = ["read"])),
    params(("queue" = String, Path, description = "Its name")),
    responses((status = 200, description = "The queue", body = TaskQueue))
)]
async fn show_task_queue(State(service): Shared, Path(queue): Path<String>) -> Answer<TaskQueue> {
    call(service, move |service| service.task_queue(&queue)).await
}

/// Leave a queue to workers that name it, also while none is there
///
/// Workers that name no queue, as the one inside a server, leave it to them, as if one of them had come. It is said
/// for a pool of workers that may have none.
#[utoipa::path(
    post, path = "/queues/{queue}/keep", tag = "workers", security(("token" = ["admin"])),
    params(("queue" = String, Path, description = "Its name")),
    responses((status = 200, description = "The queue", body = TaskQueue))
)]
async fn keep_task_queue(State(service): Shared, Path(queue): Path<String>) -> Answer<TaskQueue> {
    call(service, move |service| service.keep_task_queue(&queue)).await
}
