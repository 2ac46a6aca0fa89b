//! Lines of the logs of a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::log::Line;

/// Which log lines to read, and from where on.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    /// Path of a step: its lines, its items' and those of its inner steps. None: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// One attempt; none is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Where the page before ended.
    #[serde(default)]
    #[schema(value_type = HashMap<String, u64>)]
    pub cursor: LogCursor,
    /// At most so many lines; 0 is 10,000.
    #[serde(default)]
    pub limit: usize,
}

/// How far each file of a log has been read. Opaque to clients.
pub type LogCursor = BTreeMap<String, u64>;

/// Some lines of the logs of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct LogPage {
    /// In order of time.
    pub lines: Vec<LogLine>,
    /// For the next page.
    #[schema(value_type = HashMap<String, u64>)]
    pub cursor: LogCursor,
    /// More lines are there already.
    pub more: bool,
    /// Attempts whose logs are left out: name a step to see them.
    pub left_out: usize,
}

/// A line of a log and whose it is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Path of the step or item.
    pub path: String,
    /// The attempt.
    pub attempt: u32,
    /// The line.
    #[serde(flatten)]
    pub line: Line,
}
