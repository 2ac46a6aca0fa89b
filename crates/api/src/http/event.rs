//! Events that a server sends.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::StepView;

/// The kinds of events: `run` with a [`super::RunSummary`], `steps` with [`StepChanges`], `resync` with
/// [`Resync`].
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct StepChanges {
    /// Steps that are new or have changed.
    pub steps: Vec<StepView>,
    /// Paths of steps that are shown no more: those of iterations that are over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<String>,
}

/// Events were missed: lists that are shown have to be read again. The rows of runs that have not ended
/// follow.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Resync {
    /// Why.
    pub reason: String,
}

/// Where a stream goes on, for clients that cannot send the header `Last-Event-ID`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// The id of the last event that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_event_id: Option<String>,
}
