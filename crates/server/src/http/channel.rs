//! Channels: what is to be told at one place, and what could not be.

use std::sync::Arc;

use axum::extract::{Path, State};
use kapell_api::client::ChannelCalls;
use kapell_api::http::{ChannelPage, ChannelTest, ChannelView, NoticeAction};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Answer, Body, call};
use crate::Service;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(list_channels))
        .routes(routes!(show_channel))
        .routes(routes!(test_channel))
        .routes(routes!(act_on_notice))
}

/// List channels with notices that wait or were given up
#[utoipa::path(
    get, path = "/channels", tag = "channels", security(("token" = ["read"])),
    responses((status = 200, description = "By name", body = ChannelPage))
)]
async fn list_channels(State(service): Shared) -> Answer<ChannelPage> {
    call(service, ChannelCalls::channels).await
}

/// Show a channel with the notices that wait or were given up
#[utoipa::path(
    get, path = "/channels/{channel}", tag = "channels", security(("token" = ["read"])),
    params(("channel" = String, Path, description = "A name of the server's settings, or an address")),
    responses((status = 200, description = "The channel", body = ChannelView))
)]
async fn show_channel(State(service): Shared, Path(channel): Path<String>) -> Answer<ChannelView> {
    call(service, move |service| service.channel(&channel)).await
}

/// Post a notice that is no run's to a channel, to see whether it arrives
#[utoipa::path(
    post, path = "/channels/{channel}/test", tag = "channels", security(("token" = ["run"])),
    params(("channel" = String, Path, description = "A name of the server's settings, or an address")),
    responses((status = 200, description = "Whether it arrived", body = ChannelTest))
)]
async fn test_channel(State(service): Shared, Path(channel): Path<String>) -> Answer<ChannelTest> {
    call(service, move |service| service.test_channel(&channel)).await
}

/// Send a notice now that waits or was given up, or forget one that was given up
#[utoipa::path(
    post, path = "/channels/{channel}/notices/{number}", tag = "channels", security(("token" = ["run"])),
    params(
        ("channel" = String, Path, description = "A name of the server's settings, or an address"),
        ("number" = u64, Path, description = "Its number in the channel"),
    ),
    request_body = NoticeAction,
    responses((status = 200, description = "It is done"))
)]
async fn act_on_notice(
    State(service): Shared,
    Path((channel, number)): Path<(String, u64)>,
    body: Body,
) -> Answer<()> {
    let action: NoticeAction = body.read_nameless()?;
    call(service, move |service| {
        service.notice(&channel, number, action)
    })
    .await
}
