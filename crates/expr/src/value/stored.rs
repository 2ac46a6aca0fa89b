//! The form in which history keeps a value: JSON in which every type survives.
//!
//! Types that JSON lacks are maps with one key that starts with `$` (`$date`, `$ts`, `$dur`,
//! `$bytes`, `$float`, `$blob`); a user's own one-key map of that look is wrapped in `$map`. Both ways
//! go without a tree of JSON between, since a list may have a million items.

use std::sync::Arc;

use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{BlobRef, Map, Value, base64, float_text, unbase64};

impl Value {
    /// The form in which history keeps a value, see [`self`].
    pub fn to_stored(&self) -> Vec<u8> {
        serde_json::to_vec(&Writing(self)).unwrap_or_else(|_| b"null".to_vec())
    }

    /// Reads what [`Value::to_stored`] wrote.
    pub fn from_stored(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        // What was stored was bounded then, and markers may have doubled its depth.
        reader.disable_recursion_limit();
        let Reading(value) = Reading::deserialize(&mut reader)?;
        reader.end()?;
        Ok(value)
    }
}

/// Writes a field as history keeps it, for JSON alone: `#[serde(with = "kapell_expr::stored")]`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(value: &Value, to: S) -> Result<S::Ok, S::Error> {
    Writing(value).serialize(to)
}

/// Reads what [`serialize`] wrote.
///
/// # Errors
/// Those of the deserializer.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Value, D::Error> {
    Reading::deserialize(from).map(|Reading(value)| value)
}

struct Writing<'a>(&'a Value);

impl Serialize for Writing<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => to.serialize_unit(),
            Value::Bool(truth) => to.serialize_bool(*truth),
            Value::Int(number) => to.serialize_i64(*number),
            Value::Float(number) if number.is_finite() => to.serialize_f64(*number),
            Value::Float(number) => marker(to, "$float", &float_text(*number)),
            Value::String(text) => to.serialize_str(text),
            Value::Bytes(bytes) => marker(to, "$bytes", &base64(bytes)),
            Value::Date(date) => marker(to, "$date", &date.to_string()),
            Value::Timestamp(at) => marker(to, "$ts", &at.to_string()),
            Value::Duration(span) => marker(to, "$dur", &span.to_string()),
            Value::Blob(blob) => marker(to, "$blob", blob),
            Value::List(items) => to.collect_seq(items.iter().map(Writing)),
            Value::Map(entries) if looks_like_marker(entries) => {
                marker(to, "$map", &WritingMap(entries))
            }
            Value::Map(entries) => WritingMap(entries).serialize(to),
        }
    }
}

struct WritingMap<'a>(&'a Map);

impl Serialize for WritingMap<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(key, value)| (&**key, Writing(value))))
    }
}

fn looks_like_marker(entries: &Map) -> bool {
    entries.len() == 1 && entries.keys().all(|key| key.starts_with('$'))
}

fn marker<S: Serializer, T: Serialize + ?Sized>(
    to: S,
    key: &'static str,
    inner: &T,
) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(Some(1))?;
    map.serialize_entry(key, inner)?;
    map.end()
}

struct Reading(Value);

impl<'de> Deserialize<'de> for Reading {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader).map(Reading)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("a stored value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Int(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::from_json(&Json::from(number)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::string(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Reading(item)) = from.next_element()? {
            items.push(item);
        }
        Ok(Value::list(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut entries = Map::new();
        let Some(mut key) = from.next_key::<Arc<str>>()? else {
            return Ok(Value::Map(entries.into()));
        };
        if key.starts_with('$') {
            let inner: Json = from.next_value()?;
            let next = from.next_key()?;
            if next.is_none()
                && let Some(value) = of_marker(&key, &inner)
            {
                return Ok(value);
            }
            entries.insert(key, of_json(&inner));
            match next {
                Some(next) => key = next,
                None => return Ok(Value::Map(entries.into())),
            }
        }
        loop {
            let Reading(value) = from.next_value()?;
            entries.insert(key, value);
            match from.next_key()? {
                Some(next) => key = next,
                None => return Ok(Value::Map(entries.into())),
            }
        }
    }
}

/// What stands under a key that may be a marker: read as JSON first, since only what follows tells.
fn of_json(json: &Json) -> Value {
    match json {
        Json::Array(items) => Value::list(items.iter().map(of_json).collect()),
        Json::Object(entries) => {
            if entries.len() == 1
                && let Some((key, inner)) = entries.iter().next()
                && let Some(value) = of_marker(key, inner)
            {
                return value;
            }
            of_entries(entries)
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Value::from_json(json),
    }
}

fn of_entries(entries: &serde_json::Map<String, Json>) -> Value {
    Value::map(entries.iter().map(|(key, value)| (key, of_json(value))))
}

fn of_marker(key: &str, inner: &Json) -> Option<Value> {
    match key {
        "$bytes" => unbase64(inner.as_str()?).map(|bytes| Value::Bytes(bytes.into())),
        "$date" => inner.as_str()?.parse().ok().map(Value::Date),
        "$ts" => inner.as_str()?.parse().ok().map(Value::Timestamp),
        "$dur" => inner.as_str()?.parse().ok().map(Value::Duration),
        "$float" => inner.as_str()?.parse().ok().map(Value::Float),
        "$blob" => Some(Value::Blob(BlobRef {
            hash: inner.get("hash")?.as_str()?.into(),
            size: inner.get("size")?.as_u64()?,
        })),
        "$map" => inner.as_object().map(of_entries),
        _ => None,
    }
}
