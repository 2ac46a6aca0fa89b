//! The one value type of expressions, parameters and outputs.

mod json;
pub mod stored;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::eval::ops;

/// A map value: keys in byte order, so iteration is deterministic.
pub type Map = BTreeMap<Arc<str>, Value>;

/// A value of the language. Cloning is cheap: everything large is shared.
///
/// JSON numbers without fraction or exponent that fit in 64 bits are [`Value::Int`]; all others are
/// [`Value::Float`].
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// JSON null.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// A signed 64-bit integer.
    Int(i64),
    /// A double.
    Float(f64),
    /// Text.
    String(Arc<str>),
    /// Raw bytes: only inside expressions, base64 text in JSON.
    Bytes(Arc<[u8]>),
    /// A list.
    List(Arc<Vec<Value>>),
    /// A map with text keys.
    Map(Arc<Map>),
    /// A calendar day.
    Date(Date),
    /// An instant.
    Timestamp(Timestamp),
    /// A span of exact time.
    Duration(SignedDuration),
    /// A value too big to carry: where it is stored.
    Blob(BlobRef),
}

/// Where a big value is stored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// BLAKE3 of the content, 64 hexadecimal digits.
    pub hash: Arc<str>,
    /// Length of the content in bytes.
    pub size: u64,
}

impl Value {
    /// A text value.
    pub fn string(text: impl AsRef<str>) -> Self {
        Self::String(Arc::from(text.as_ref()))
    }

    /// A list value.
    pub fn list(items: Vec<Value>) -> Self {
        Self::List(Arc::new(items))
    }

    /// A map value.
    pub fn map(entries: impl IntoIterator<Item = (impl AsRef<str>, Value)>) -> Self {
        Self::Map(Arc::new(
            entries
                .into_iter()
                .map(|(key, value)| (Arc::from(key.as_ref()), value))
                .collect(),
        ))
    }

    /// The name of this value's type as users write it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Date(_) => "date",
            Self::Timestamp(_) => "timestamp",
            Self::Duration(_) => "duration",
            Self::Blob(_) => "blob",
        }
    }

    /// True for null.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text, if this is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The items, if this is a list.
    pub fn as_list(&self) -> Option<&Arc<Vec<Value>>> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// The entries, if this is a map.
    pub fn as_map(&self) -> Option<&Arc<Map>> {
        match self {
            Self::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The integer, if this is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The truth value, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    /// Plain JSON: dates, timestamps and durations become text, a blob its reference.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Self::Null => Json::Null,
            Self::Bool(truth) => Json::Bool(*truth),
            Self::Int(number) => Json::from(*number),
            Self::Float(number) => {
                serde_json::Number::from_f64(*number).map_or(Json::Null, Json::Number)
            }
            Self::String(text) => Json::String(text.to_string()),
            Self::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Self::Map(entries) => Json::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.to_string(), value.to_json()))
                    .collect(),
            ),
            Self::Blob(blob) => {
                serde_json::json!({ "$blob": { "hash": *blob.hash, "size": blob.size } })
            }
            Self::Bytes(_) | Self::Date(_) | Self::Timestamp(_) | Self::Duration(_) => {
                Json::String(self.scalar_text().unwrap_or_default())
            }
        }
    }

    /// The value of plain JSON.
    pub fn from_json(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => Self::Null,
            Json::Bool(truth) => Self::Bool(*truth),
            Json::Number(number) => number.as_i64().map_or_else(
                || Self::Float(number.as_f64().unwrap_or(f64::NAN)),
                Self::Int,
            ),
            Json::String(text) => Self::string(text),
            Json::Array(items) => Self::list(items.iter().map(Self::from_json).collect()),
            Json::Object(entries) => Self::map(
                entries
                    .iter()
                    .map(|(key, value)| (key, Self::from_json(value))),
            ),
        }
    }

    /// The text of a scalar as it appears inside a longer string: ISO 8601 for dates, timestamps
    /// and durations; base64 for bytes; the shortest form that reads back for floats. `None` for
    /// lists, maps and blobs.
    pub fn scalar_text(&self) -> Option<String> {
        Some(match self {
            Self::Null => "null".to_owned(),
            Self::Bool(truth) => truth.to_string(),
            Self::Int(number) => number.to_string(),
            Self::Float(number) => float_text(*number),
            Self::String(text) => text.to_string(),
            Self::Bytes(bytes) => base64(bytes),
            Self::Date(date) => date.to_string(),
            Self::Timestamp(at) => at.to_string(),
            Self::Duration(span) => span.to_string(),
            Self::List(_) | Self::Map(_) | Self::Blob(_) => return None,
        })
    }

    /// The text of any value inside a longer string: scalars as [`Value::scalar_text`], lists and
    /// maps as compact JSON.
    pub fn text(&self) -> String {
        self.scalar_text()
            .unwrap_or_else(|| self.to_json().to_string())
    }

    /// The same value with whole floats as integers, inside of it too: equal values are then the same
    /// bytes and the same text, which is what keys are made of.
    #[must_use]
    pub fn as_key(&self) -> Self {
        match self {
            Self::Float(number) => ops::exact_int(*number).map_or(Self::Float(*number), Self::Int),
            Self::List(items) => Self::list(items.iter().map(Self::as_key).collect()),
            Self::Map(map) => {
                let entries = map.iter().map(|(key, value)| (key.clone(), value.as_key()));
                Self::Map(Arc::new(entries.collect()))
            }
            other => other.clone(),
        }
    }

    /// A rough count of the bytes this value takes as JSON, for bounds. Cost is linear; shared
    /// parts count each time they appear.
    pub fn size(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 5,
            Self::Int(_) | Self::Float(_) | Self::Date(_) => 12,
            Self::String(text) => text.len() + 2,
            Self::Bytes(bytes) => bytes.len() / 3 * 4 + 6,
            Self::List(items) => 2 + items.iter().map(|item| item.size() + 1).sum::<usize>(),
            Self::Map(entries) => {
                2 + entries
                    .iter()
                    .map(|(key, value)| key.len() + 4 + value.size())
                    .sum::<usize>()
            }
            Self::Timestamp(_) | Self::Duration(_) => 26,
            Self::Blob(_) => 96,
        }
    }
}

/// Equality of the language: an integer equals the float of the same value; values of other
/// different types are unequal, never an error.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a == b,
            (Self::Int(int), Self::Float(float)) | (Self::Float(float), Self::Int(int)) => {
                compare_int_float(*int, *float) == Some(std::cmp::Ordering::Equal)
            }
            (Self::String(a), Self::String(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::List(a), Self::List(b)) => a == b,
            (Self::Map(a), Self::Map(b)) => a == b,
            (Self::Date(a), Self::Date(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Blob(a), Self::Blob(b)) => a == b,
            _ => false,
        }
    }
}

/// Orders an integer and a float exactly, without rounding the integer. `None` for NaN.
pub(crate) fn compare_int_float(int: i64, float: f64) -> Option<std::cmp::Ordering> {
    const TWO_63: f64 = 9_223_372_036_854_775_808.0;
    if float.is_nan() {
        return None;
    }
    if float >= TWO_63 {
        return Some(std::cmp::Ordering::Less);
    }
    if float < -TWO_63 {
        return Some(std::cmp::Ordering::Greater);
    }
    let whole = float.trunc();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to be within i64 above"
    )]
    let ordering = int.cmp(&(whole as i64));
    Some(ordering.then_with(|| 0.0_f64.total_cmp(&(float - whole + 0.0))))
}

fn float_text(number: f64) -> String {
    if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "inf" } else { "-inf" }.to_owned()
    } else {
        serde_json::Number::from_f64(number).map_or_else(String::new, |n| n.to_string())
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        for place in 0..4 {
            if place <= chunk.len() {
                text.push(char::from(
                    ALPHABET[(word >> (18 - 6 * place) & 63) as usize],
                ));
            } else {
                text.push('=');
            }
        }
    }
    text
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let mut word = 0_u32;
    let mut bits = 0;
    for symbol in text.trim_end_matches('=').bytes() {
        let place = ALPHABET.iter().position(|candidate| *candidate == symbol)?;
        word = word << 6 | u32::try_from(place).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(word >> bits & 0xff).ok()?);
        }
    }
    Some(bytes)
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::string(text)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text.into())
    }
}
