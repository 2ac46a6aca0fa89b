//! Workflows and their versions.

use std::collections::BTreeMap;

use kapell_expr::BlobRef;
use kapell_model::Time;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::schema;

/// A workflow to register.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterWorkflow {
    /// Name of the file, for messages.
    pub file: String,
    /// The file as its author wrote it.
    pub source: String,
    /// The bundle's list of files, stored before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Blob>)]
    pub bundle: Option<BlobRef>,
    /// Who registers it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
}

/// A workflow that is registered.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Registered {
    /// Its name.
    pub workflow: String,
    /// The version that this content has.
    pub version: u32,
}

/// One page of workflows.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct WorkflowPage {
    /// By name.
    pub workflows: Vec<WorkflowSummary>,
    /// Give it as `after` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A workflow in a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WorkflowSummary {
    /// Its name.
    pub name: String,
    /// The version that new runs take; 0 for none.
    pub version: u32,
    /// Whether it starts.
    pub state: WorkflowState,
    /// Runs by status.
    pub runs: BTreeMap<RunStatusName, u64>,
}

/// Whether a workflow starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WorkflowState {
    /// It does.
    Active,
    /// Its starts wait until it is resumed.
    Paused,
    /// None of its versions is active: it starts by no trigger and no name alone.
    Inactive,
    /// It was deleted; its history is kept.
    Deleted,
}

/// A run's status as a key.
pub type RunStatusName = String;

/// A registered version.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Name of the workflow.
    pub workflow: String,
    /// 1 for the first.
    pub version: u32,
    /// Hash of the normalised definition and the bundle.
    pub hash: String,
    /// When it was registered.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub created_at: Time,
    /// Who registered it; empty if nobody said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// The file as its author wrote it; left out in lists.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
}

/// One page of versions.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct VersionPage {
    /// Newest first.
    pub versions: Vec<Version>,
    /// Give it as `before` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
}
