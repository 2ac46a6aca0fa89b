//! Named locks and rates.

use kapell_model::{RunId, Time};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::schema;

/// Which locks to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LockQuery {
    /// Names after this one: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most so many; 0 is 100.
    #[serde(default)]
    #[param(maximum = 1_000)]
    pub limit: usize,
}

/// One page of locks and rates.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct LockPage {
    /// By name: those that somebody holds or waits for, and rates that were used.
    pub locks: Vec<LockSummary>,
    /// Give it as `after` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A lock or a rate in a list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct LockSummary {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// How many hold it at once, or start in each period.
    pub max: u32,
    /// Milliseconds of a rate's period; none for a lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_ms: Option<u64>,
    /// How many hold it.
    pub holders: u64,
    /// How many wait for it.
    pub waiting: u64,
    /// Since when the first of them waits.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub oldest_at: Option<Time>,
}

/// A lock or a rate, with who holds it and who waits.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct LockView {
    /// The lock in short.
    #[serde(flatten)]
    pub summary: LockSummary,
    /// Who holds it.
    pub holding: Vec<LockUse>,
    /// Who waits for it, in order.
    pub queue: Vec<LockUse>,
    /// When a rate lets the next one start.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub next_at: Option<Time>,
    /// Some are left out.
    #[serde(default)]
    pub more: bool,
}

/// A step that holds a lock, or waits for it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LockUse {
    /// The run.
    #[schema(value_type = schema::RunId)]
    pub run: RunId,
    /// Name of its workflow.
    #[serde(default)]
    pub workflow: String,
    /// Path of the step or item.
    pub step: String,
    /// Since when.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub since: Option<Time>,
}
