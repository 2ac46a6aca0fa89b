//! What people and programs see of a topic and send to it.

use std::sync::Arc;

use kapell_expr::Value;
use kapell_model::{EntityKey, Error, ErrorCode, Time, limits};

use super::{FINISHED, Listener, Topic};
use crate::message::Signal;
use crate::small::Ask;

/// Signals that listeners are still to be told of, beyond which no more are taken from outside.
const TELLING: usize = 10_000;

/// Listeners that a view shows.
const SHOWN: usize = 100;

/// Refuses a signal from outside that cannot be kept.
///
/// # Errors
/// `bad-request` for a name that is not for people, `limit-reached` for one that is too big or while
/// too many are being told.
pub(super) fn may_send(topic: &Topic, name: &Arc<str>, signal: &Signal) -> Result<(), Error> {
    if name.starts_with(FINISHED) {
        return Err(
            Error::new(ErrorCode::BadRequest, format!("`{name}` cannot be sent")).hint(
                "names that start with `workflow.` tell how runs end, and are sent by themselves",
            ),
        );
    }
    fits(signal)?;
    may_name(&signal.id)?;
    if signal.id.len() > limits::SUBSCRIPTION_TEXT {
        return Err(Error::new(
            ErrorCode::LimitReached,
            format!(
                "the id of the signal has {} bytes; {} are the most allowed",
                signal.id.len(),
                limits::SUBSCRIPTION_TEXT
            ),
        )
        .hint("send a hash of it"));
    }
    if topic.telling.len() >= TELLING {
        return Err(Error::new(
            ErrorCode::LimitReached,
            format!("{TELLING} signals `{name}` wait until all who listen are told"),
        )
        .hint("send it again in a moment"));
    }
    Ok(())
}

/// What ids that are given to signals without one begin with. Those of old were `n` and a number.
const GIVEN: &str = "kapell:";

/// The id of a signal that was sent without one, by its number.
pub(crate) fn given_id(number: u64) -> Arc<str> {
    format!("{GIVEN}{number}").into()
}

/// Refuses ids that somebody gives and that could be those of signals that are given one.
///
/// # Errors
/// `bad-request`.
pub(crate) fn may_name(id: &str) -> Result<(), Error> {
    if !id.starts_with(GIVEN) {
        return Ok(());
    }
    let message = format!("the id `{id}` begins with `{GIVEN}`");
    Err(Error::new(ErrorCode::BadRequest, message)
        .hint("such ids are given to signals that are sent without one: choose another"))
}

/// Refuses a signal that is too big.
///
/// # Errors
/// `limit-reached`.
pub(crate) fn fits(signal: &Signal) -> Result<(), Error> {
    let size = signal.payload.size() + signal.key.size();
    if size <= limits::SIGNAL_BYTES && !has_blob(&signal.payload) && !has_blob(&signal.key) {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::LimitReached,
        format!(
            "the payload of the signal `{}` is larger than {} bytes",
            signal.name,
            limits::SIGNAL_BYTES
        ),
    )
    .hint("send where it is kept instead"))
}

/// True if a part of the value is stored elsewhere, and so larger than any signal.
fn has_blob(value: &Value) -> bool {
    match value {
        Value::Blob(_) => true,
        Value::List(items) => items.iter().any(has_blob),
        Value::Map(entries) => entries.values().any(has_blob),
        _ => false,
    }
}

/// The answer to who sent a signal.
pub(super) fn sent((id, sent_at, known): (Arc<str>, Time, bool)) -> Value {
    Value::map([
        ("id", Value::String(id)),
        ("sent_at", Value::Timestamp(sent_at.timestamp())),
        ("known", Value::Bool(known)),
    ])
}

fn int(number: usize) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn number(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

/// What somebody who looks is answered.
pub(super) fn shown(topic: &Topic, name: &Arc<str>, ask: &Ask) -> Value {
    match ask {
        Ask::Signals { before, limit } => {
            let before = before.unwrap_or(u64::MAX);
            let end = topic.signals.partition_point(|kept| kept.number < before);
            let page = topic.signals.range(..end).rev();
            let page = page.take((*limit).min(limits::LIST_PAGE));
            Value::list(page.map(|kept| one(kept.number, &kept.signal)).collect())
        }
        _ => Value::map([
            ("name", Value::String(name.clone())),
            ("signals", int(topic.signals.len())),
            ("bytes", int(topic.bytes)),
            ("received", number(topic.last_signal)),
            ("listeners", int(topic.listeners.len())),
            (
                "listening",
                Value::list(
                    topic
                        .listeners
                        .iter()
                        .take(SHOWN)
                        .map(|(_, of)| listens(of))
                        .collect(),
                ),
            ),
        ]),
    }
}

fn one(of: u64, signal: &Signal) -> Value {
    Value::map([
        ("number", number(of)),
        ("id", Value::String(signal.id.clone())),
        ("name", Value::String(signal.name.clone())),
        ("key", signal.key.clone()),
        ("payload", signal.payload.clone()),
        ("sent_at", Value::Timestamp(signal.sent_at.timestamp())),
        ("hops", Value::Int(signal.hops.into())),
        ("by", Value::String(signal.by.clone())),
    ])
}

fn listens(listener: &Listener) -> Value {
    let who = match &listener.who {
        EntityKey::Run(run) => format!("run {run}"),
        EntityKey::Trigger { workflow, name, .. } => format!("trigger {name} of {workflow}"),
        EntityKey::RunQueue { .. }
        | EntityKey::Lock { .. }
        | EntityKey::Topic { .. }
        | EntityKey::Channel { .. }
        | EntityKey::Backfill { .. } => format!("{:?}", listener.who),
    };
    let equal = listener.equal.iter().map(|equal| {
        let path = equal.path.join(".");
        Value::string(format!("signal.{path} == {}", equal.value.to_json()))
    });
    Value::map([
        ("who", Value::string(who)),
        ("match", Value::list(equal.collect())),
    ])
}

/// What lists show of a topic; none while it keeps nothing and nobody listens.
pub(super) fn document(topic: &Topic) -> Option<String> {
    if topic.signals.is_empty() && topic.listeners.len() == 0 {
        return None;
    }
    let last = topic.signals.back().map(|kept| kept.signal.sent_at);
    let document = serde_json::json!({
        "signals": topic.signals.len(),
        "bytes": topic.bytes,
        "received": topic.last_signal,
        "listeners": topic.listeners.len(),
        "last_sent_at": last.map(|at| at.timestamp().to_string()),
    });
    Some(document.to_string())
}
