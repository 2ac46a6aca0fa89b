//! What is known of a run before there is one: `run` as triggers, defaults of parameters, labels and
//! `strategy.key` see it, and ids that are derived from what makes a run unique.

use std::sync::Arc;

use kapell_expr::Value;
use kapell_model::{RunId, Shard, Time};

/// A run that is about to be made.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// Namespace of the workflow.
    pub namespace: &'a Arc<str>,
    /// Name of the workflow.
    pub workflow: &'a Arc<str>,
    /// `run.trigger.kind`.
    pub kind: &'a str,
    /// `run.trigger.name`.
    pub name: &'a str,
    /// `run.trigger.by`.
    pub by: &'a str,
    /// Now.
    pub created_at: Time,
    /// Its due time.
    pub scheduled_at: Time,
    /// `run.interval`.
    pub interval: (Time, Time),
    /// IANA name.
    pub timezone: &'a Arc<str>,
}

impl Start<'_> {
    /// `run`, with what is known of the last success.
    pub fn value(&self, last_success: Value) -> Value {
        let time = |at: Time| Value::Timestamp(at.timestamp());
        Value::map([
            ("workflow", Value::String(self.workflow.clone())),
            ("namespace", Value::String(self.namespace.clone())),
            ("created_at", time(self.created_at)),
            ("scheduled_at", time(self.scheduled_at)),
            (
                "interval",
                Value::map([
                    ("start", time(self.interval.0)),
                    ("end", time(self.interval.1)),
                ]),
            ),
            ("timezone", Value::String(self.timezone.clone())),
            (
                "trigger",
                Value::map([
                    ("kind", Value::string(self.kind)),
                    ("name", Value::string(self.name)),
                    ("by", Value::string(self.by)),
                ]),
            ),
            ("last_success", last_success),
            ("labels", Value::Null),
            ("parent", Value::Null),
            ("forked_from", Value::Null),
            ("url", Value::Null),
        ])
    }
}

/// The id of a run that names alone make unique: the same names always give the same run. Names hold
/// no zero byte.
pub fn derived_id(at: Time, shard: Shard, names: &[&str]) -> RunId {
    let hash = blake3::hash(names.join("\0").as_bytes());
    let unique = hash.as_bytes()[..16]
        .iter()
        .fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    RunId::new(at, shard, unique)
}
