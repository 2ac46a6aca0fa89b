//! Signals, and the topics that keep those of one name.

use kapell_expr::Value;
use kapell_model::Time;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::schema;

/// A signal to send; its name is in the address.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendSignal {
    /// What it says: any JSON, at most 64 KiB.
    #[serde(default)]
    pub payload: Value,
    /// What it is joined by; null for none.
    #[serde(default)]
    pub key: Value,
    /// Unique among signals of the name: the same twice is one. None gives it one. The header
    /// `Idempotency-Key` says it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Who sends it; of a caller with a token its name.
    #[serde(default)]
    pub by: String,
}

/// A signal that is kept.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SentSignal {
    /// Its id.
    pub id: String,
    /// When it was taken.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub sent_at: Time,
    /// It was there already: nothing was sent.
    pub known: bool,
}

/// Which topics to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TopicQuery {
    /// Names after this one: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most so many; 0 is 100.
    #[serde(default)]
    #[param(maximum = 1_000)]
    pub limit: usize,
}

/// One page of topics.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct TopicPage {
    /// By name.
    pub topics: Vec<TopicSummary>,
    /// Give it as `after` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The signals of one name, in a list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct TopicSummary {
    /// The signals' name.
    #[serde(default)]
    pub name: String,
    /// Kept signals.
    pub signals: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Signals that ever came.
    pub received: u64,
    /// Runs and triggers that listen.
    pub listeners: u64,
    /// When the newest of the kept signals was sent.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub last_sent_at: Option<Time>,
}

/// Which signals of a topic to show.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SignalQuery {
    /// Signals before this number: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// At most so many; 0 is 100.
    #[serde(default)]
    #[param(maximum = 1_000)]
    pub limit: usize,
}

/// The signals of one name, and who listens.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct TopicView {
    /// The topic in short.
    #[serde(flatten)]
    pub summary: TopicSummary,
    /// Who listens; at most 100 of them.
    #[serde(default)]
    pub listening: Vec<Listening>,
    /// Kept signals, newest first.
    #[serde(default)]
    pub kept: Vec<KeptSignal>,
    /// Give it as `before` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// Who listens to a topic.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Listening {
    /// A run or a trigger, for people.
    pub who: String,
    /// What a signal must have to be told, beside what whoever listens looks at itself.
    #[serde(rename = "match", default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<String>,
}

/// A signal that a topic keeps.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct KeptSignal {
    /// Counts up in the topic.
    pub number: u64,
    /// Unique in the topic.
    pub id: String,
    /// What it is joined by.
    #[serde(default)]
    pub key: Value,
    /// What it says.
    #[serde(default)]
    pub payload: Value,
    /// When it was sent.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub sent_at: Time,
    /// How many runs, each started by a signal of the one before, led to it.
    pub hops: u32,
    /// Who sent it.
    pub by: String,
}
