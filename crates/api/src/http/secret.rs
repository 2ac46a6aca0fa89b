//! Secrets: set, listed without their values, removed.

use kapell_model::Time;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::schema;

/// A value to keep. It has no `Debug`, so that no log can hold it.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSecret {
    /// The value.
    pub value: String,
    /// Who asks.
    #[serde(default)]
    pub by: String,
}

/// A secret in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretSummary {
    /// Its name, as in `secrets.NAME`.
    pub name: String,
    /// When its value was set.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub set_at: Time,
    /// By whom.
    pub by: String,
}

/// One page of secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretPage {
    /// By name.
    pub secrets: Vec<SecretSummary>,
    /// Give it as `after` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What a rotation did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RotatedSecrets {
    /// Secrets that were sealed again, of all namespaces.
    pub secrets: usize,
    /// What names the key that holds now.
    pub key: String,
}
