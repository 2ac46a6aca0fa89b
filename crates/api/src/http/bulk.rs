//! Many runs in one call.

use kapell_model::RunId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Action, Problem, RunCursor, RunQuery, StartRun, schema};

/// Runs to make, each by itself: one that is refused stops no other.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRuns {
    /// At most 1,000.
    #[schema(max_items = 1000)]
    pub runs: Vec<StartRun>,
    /// Who asks, for those that do not say.
    #[serde(default)]
    pub by: String,
}

/// What became of each.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct StartedRuns {
    /// In the order of the request.
    pub runs: Vec<StartResult>,
}

/// A run that was made, or why not.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct StartResult {
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::RunId>)]
    pub run: Option<RunId>,
    /// Why it was not made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

/// Something to do to all runs that match, a page at a time.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkAction {
    /// Which runs. Its `limit` is the size of the page; for the next give `next` as its `before`. One
    /// that leaves none out takes `all` too.
    pub filter: RunQuery,
    /// All runs are meant, if the filter leaves none out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// What, with the verb as `action`.
    pub action: Action,
    /// Only say to which runs it would be done, and which would refuse because of their status.
    #[serde(default)]
    pub dry_run: bool,
    /// Who asks, if the action does not say.
    #[serde(default)]
    pub by: String,
}

/// What became of a page.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct BulkResult {
    /// Runs that match, and to which it was done, or would be in a dry run.
    #[schema(value_type = Vec<schema::RunId>)]
    pub runs: Vec<RunId>,
    /// Runs that match and that refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<BulkRefusal>,
    /// More match: give it as `before` of the filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::RunCursor>)]
    pub next: Option<RunCursor>,
}

/// A run to which it could not be done.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BulkRefusal {
    /// Which.
    #[schema(value_type = schema::RunId)]
    pub run: RunId,
    /// Why.
    pub error: Problem,
}
