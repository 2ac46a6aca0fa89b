//! Items of a foreach and their labels.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which items of a foreach to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ItemQuery {
    /// Path of the step that has the foreach.
    pub step: String,
    /// Those with this label alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// From this index on: `next` of the page before.
    #[serde(default)]
    pub from: u32,
    /// At most so many; 0 is 100.
    #[serde(default)]
    #[param(maximum = 1_000)]
    pub limit: usize,
}

/// One page of the items of a foreach.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ItemPage {
    /// How many items the foreach has.
    pub count: u32,
    /// The foreach has a `label`; without one its items are named after the value of the only variable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub labelled: bool,
    /// In order of their index.
    pub items: Vec<ItemView>,
    /// Give it as `from` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
    /// Where no item has the label that was asked for: at most 5 that are like it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub near: Vec<String>,
}

/// An item of a foreach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ItemView {
    /// From 0.
    pub index: u32,
    /// Its name for people, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}
