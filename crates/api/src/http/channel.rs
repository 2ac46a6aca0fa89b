//! Channels: what is to be told at one place, and what could not be.

use kapell_model::Time;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::schema;

/// Channels with notices that wait or were given up, by name.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ChannelPage {
    /// At most 1,000.
    pub channels: Vec<ChannelSummary>,
}

/// A channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChannelSummary {
    /// A name of the server's settings, or an address.
    pub name: String,
    /// Notices that wait to be delivered.
    pub waiting: u64,
    /// Notices that were given up and are kept to be looked at.
    pub failed: u64,
    /// Notices that have arrived.
    pub delivered: u64,
    /// When the next try is due.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub due_at: Option<Time>,
}

/// A channel with the notices that were given up.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ChannelView {
    /// Notices that wait to be delivered.
    pub waiting: u64,
    /// Notices that have arrived.
    pub delivered: u64,
    /// Notices that were given up, newest first, at most 1,000.
    pub failed: Vec<FailedNotice>,
    /// Notices that wait, oldest first, at most 1,000.
    #[serde(default)]
    pub queue: Vec<WaitingNotice>,
}

/// A notice that waits to be delivered.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WaitingNotice {
    /// Its number in the channel.
    pub number: u64,
    /// The same notice has the same id: receivers get it as `Idempotency-Key`.
    pub id: String,
    /// When it became true.
    #[schema(value_type = schema::Timestamp)]
    pub at: String,
    /// How often it was tried.
    pub tries: u32,
    /// Why the last try failed; empty before it.
    pub error: String,
    /// When the next try is due.
    #[schema(value_type = schema::Timestamp)]
    pub next_at: String,
    /// What it says.
    #[schema(value_type = HashMap<String, serde_json::Value>)]
    pub content: serde_json::Value,
}

/// Whether a notice that is no run's arrived at a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChannelTest {
    /// It did.
    pub delivered: bool,
    /// Why it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A notice that could not be delivered.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FailedNotice {
    /// Its number in the channel.
    pub number: u64,
    /// The same notice has the same id: receivers get it as `Idempotency-Key`.
    pub id: String,
    /// When it became true.
    #[schema(value_type = schema::Timestamp)]
    pub at: String,
    /// How often it was tried.
    pub tries: u32,
    /// Why the last try failed.
    pub error: String,
    /// What it says.
    #[schema(value_type = HashMap<String, serde_json::Value>)]
    pub content: serde_json::Value,
}

/// What is done with a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum NoticeAction {
    /// Deliver one that was given up after all, or one that waits for its next try now.
    Again,
    /// Forget one that was given up.
    Forget,
}
