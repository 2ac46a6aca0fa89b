//! Putting workflows in force, and what is said of them beside their versions.

use jiff::SignedDuration;
use kapell_expr::parse_duration;
use kapell_model::spec::{Retention, StrategyMode};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::RegisterWorkflow;

/// Workflows to put in force together: all of them or none.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Deploy {
    /// The workflows, at most 1,000.
    pub workflows: Vec<RegisterWorkflow>,
    /// Workflows that were deployed before and are not among these are deleted; their history stays.
    #[serde(default)]
    pub prune: bool,
    /// Say what would change, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Who deploys.
    #[serde(default)]
    pub by: String,
}

/// What a deploy changes, or would change.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct DeployPlan {
    /// A change for each workflow, by name.
    pub changes: Vec<DeployChange>,
    /// What is not wrong, but likely not meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// False for a dry run.
    pub applied: bool,
}

/// What a deploy does to one workflow.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeployChange {
    /// Name of the workflow.
    pub workflow: String,
    /// What is done.
    pub action: DeployAction,
    /// The version that was active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u32>,
    /// The version that is active then; none if a dry run makes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u32>,
    /// Places of the definition that differ, at most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// The files that go with it differ.
    #[serde(default)]
    pub files_differ: bool,
    /// Which of them, at most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileDifference>,
}

/// A file that goes with one of two versions, or with both and is not the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileDifference {
    /// Below the folder of the workflow, with `/`.
    pub path: String,
    /// What was done to it.
    pub change: FileChange,
}

/// What was done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileChange {
    /// It was not there.
    Added,
    /// It is not there any more.
    Removed,
    /// Its content, or whether it may be executed.
    Changed,
}

/// What a deploy does to a workflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeployAction {
    /// It gets its first version.
    Create,
    /// It gets a new version, or goes back to an earlier one with the same content.
    Update,
    /// The same content is active already.
    Keep,
    /// It is deleted; its history stays.
    Delete,
}

/// A place at which two definitions differ.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// Names from the outside in, with dots between, as the file has them: `steps.load.retry.limit`.
    pub path: String,
    /// What stood there; null for nothing.
    pub before: serde_json::Value,
    /// What stands there; null for nothing.
    pub after: serde_json::Value,
}

/// What differs between two versions of a workflow.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct VersionDiff {
    /// The one.
    pub from: u32,
    /// The other.
    pub to: u32,
    /// Places of the definition, at most 1,000.
    pub differences: Vec<Difference>,
    /// The files that go with it differ.
    pub files_differ: bool,
    /// Which of them, at most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileDifference>,
}

/// A workflow with what is said of it beside its versions.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WorkflowView {
    /// Its name.
    pub name: String,
    /// The version that starts take; none if none is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<u32>,
    /// Free text of the active version.
    pub description: String,
    /// Who to ask.
    pub owner: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Names of its triggers.
    pub triggers: Vec<String>,
    /// What a start does while others are active.
    #[schema(value_type = Object)]
    pub strategy: StrategyView,
    /// The expression that makes a queue of each of its values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// When a burst of starts is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debounce: Option<DebounceView>,
    /// How long ended runs are kept; none is as the server says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub retention: Option<Retention>,
    /// What goes before what its versions say: `owner`, `retention`, `strategy`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<String>,
    /// Who paused it, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    /// Who paused all workflows, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Paused>,
    /// It was deleted.
    pub deleted: bool,
    /// Its runs by status.
    pub runs: std::collections::BTreeMap<String, u64>,
}

/// When a burst of starts is over.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DebounceView {
    /// Once no start came for so long.
    pub quiet: String,
    /// At the latest so long after its first start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<String>,
}

/// Who paused something, and when.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Paused {
    /// Who.
    pub by: String,
    /// When.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = super::schema::Timestamp)]
    pub at: kapell_model::Time,
}

/// The rule that a change names: what it does not know it refuses, and answers of other releases may say more.
#[expect(clippy::option_option, reason = "not there and null say two things")]
fn strategy<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<StrategyView>>, D::Error> {
    const KNOWN: &[&str] = &["mode", "limit", "total"];
    let said = Option::<serde_json::Map<String, serde_json::Value>>::deserialize(from)?;
    let Some(said) = said else {
        return Ok(Some(None));
    };
    if let Some(name) = said.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(D::Error::unknown_field(name, KNOWN));
    }
    let strategy = serde_json::from_value(said.into()).map_err(D::Error::custom)?;
    Ok(Some(Some(strategy)))
}

/// What a start does while other runs of the workflow are active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StrategyView {
    /// The rule: `parallel`, `sequential`, `strict_sequential`, `first_only`, `last_only`,
    /// `serial_latest`.
    #[schema(value_type = String)]
    pub mode: StrategyMode,
    /// Active runs of one key under `parallel`; none is no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Active runs over all keys; none is no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u32>,
}

/// A change of what is said of a workflow beside its versions. What is left out stays; null takes an
/// override back.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkflowChange {
    /// Pause it, or let it go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Goes before what its versions say.
    #[serde(
        default,
        serialize_with = "absent_or::serialize",
        deserialize_with = "strategy",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<StrategyView>)]
    pub strategy: Option<Option<StrategyView>>,
    /// Goes before what its versions say.
    #[serde(default, with = "absent_or", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub owner: Option<Option<String>>,
    /// Goes before what its versions say: `{age, runs}`. Of the two, what is left out stays; null is no
    /// bound, `default` what the version says.
    #[serde(default, with = "absent_or", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub retention: Option<Option<RetentionChange>>,
    /// The version that is active from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<u32>,
    /// No version is active from now on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deactivate: bool,
    /// Who.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
}

/// One bound of how long ended runs are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound<T> {
    /// What the version says.
    Default,
    /// This; none is no bound.
    Is(Option<T>),
}

/// Names what the version says.
const DEFAULT: &str = "default";

impl<T: Serialize> Serialize for Bound<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Default => serializer.serialize_str(DEFAULT),
            Self::Is(bound) => bound.serialize(serializer),
        }
    }
}

/// A change of how long ended runs are kept. What is left out stays; null is no bound, `default` what
/// the version says.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionChange {
    /// By age since the end, as definitions say it: `30d`.
    #[serde(
        default,
        deserialize_with = "age",
        skip_serializing_if = "Option::is_none"
    )]
    pub age: Option<Bound<SignedDuration>>,
    /// The newest so many.
    #[serde(
        default,
        deserialize_with = "runs",
        skip_serializing_if = "Option::is_none"
    )]
    pub runs: Option<Bound<u32>>,
}

fn age<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Bound<SignedDuration>>, D::Error> {
    Ok(Some(match Option::<String>::deserialize(from)? {
        None => Bound::Is(None),
        Some(text) if text == DEFAULT => Bound::Default,
        Some(text) => Bound::Is(Some(parse_duration(&text).map_err(D::Error::custom)?)),
    }))
}

fn runs<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Bound<u32>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Said {
        Number(u32),
        Text(String),
    }
    Ok(Some(match Option::<Said>::deserialize(from)? {
        None => Bound::Is(None),
        Some(Said::Number(runs)) => Bound::Is(Some(runs)),
        Some(Said::Text(text)) if text == DEFAULT => Bound::Default,
        Some(Said::Text(text)) => {
            let message =
                format!("`{text}` is no number of runs; `default` is what the version says");
            return Err(D::Error::custom(message));
        }
    }))
}

/// Pause all workflows, or let them go on.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Paused, or going on.
    pub paused: bool,
    /// Who.
    #[serde(default)]
    pub by: String,
}

/// Let those go on that wait for a failed run under `strict_sequential`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Dismissal {
    /// Value of `strategy.key`; empty without a key.
    #[serde(default)]
    pub key: String,
    /// Who.
    #[serde(default)]
    pub by: String,
}

/// How many workflows were changed.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Held {
    /// How many.
    pub workflows: u64,
}

/// A field that is not there is none; one that is null is some nothing.
mod absent_or {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde gives it so")]
    #[expect(clippy::option_option, reason = "not there and null say two things")]
    pub(super) fn serialize<T: Serialize, S: Serializer>(
        value: &Option<Option<T>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value
            .as_ref()
            .and_then(Option::as_ref)
            .serialize(serializer)
    }

    #[expect(clippy::option_option, reason = "not there and null say two things")]
    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Option<T>>, D::Error> {
        Option::deserialize(deserializer).map(Some)
    }
}

/// The run queue of a workflow.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct QueueView {
    /// Runs that hold a place.
    pub active: u64,
    /// Runs that wait for one.
    pub waiting: u64,
    /// A line for each value of `strategy.key`.
    pub lines: Vec<QueueLine>,
    /// The last runs that were discarded, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discarded: Vec<QueueDiscard>,
    /// Some runs are left out.
    pub more: bool,
    /// Give it as `after` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Which runs of a run queue to show.
#[derive(Clone, Debug, Default)]
pub struct QueueQuery {
    /// Those with this value of `strategy.key`.
    pub key: Option<String>,
    /// After this place: `next` of the page before.
    pub after: Option<String>,
}

/// Runs with the same value of `strategy.key`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct QueueLine {
    /// The value; empty without a key.
    pub key: String,
    /// Started and not ended.
    #[schema(value_type = Vec<super::schema::RunId>)]
    pub active: Vec<kapell_model::RunId>,
    /// In order.
    #[schema(value_type = Vec<super::schema::RunId>)]
    pub waiting: Vec<kapell_model::RunId>,
    /// Why the first of those that wait does not start, in a sentence; the others wait for it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The failed run that blocks the line under `strict_sequential`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<super::schema::RunId>)]
    pub blocked_by: Option<kapell_model::RunId>,
    /// The last start of a burst that is not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<QueueBurst>,
}

/// The last start of a burst that is not over.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct QueueBurst {
    /// The run.
    #[schema(value_type = super::schema::RunId)]
    pub run: kapell_model::RunId,
    /// When it goes on.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = super::schema::Timestamp)]
    pub until: kapell_model::Time,
}

/// A run that was discarded.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct QueueDiscard {
    /// The run.
    #[schema(value_type = super::schema::RunId)]
    pub run: kapell_model::RunId,
    /// Why.
    pub reason: String,
    /// When.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = super::schema::Timestamp)]
    pub at: kapell_model::Time,
}
