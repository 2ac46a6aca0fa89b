//! YAML text as JSON values: what Kubernetes, Compose and Prometheus agree on, and a refusal of what they do not.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// Words that are `true` and `false` to some readers and texts to others.
const UNCLEAR: [&str; 8] = ["yes", "no", "on", "off", "y", "n", "t", "f"];

/// What is open: a list, or a map with the key that waits for its value.
enum Open {
    List(Vec<Value>),
    Map(Map<String, Value>, Option<String>),
}

/// The one document of a text.
pub(super) fn document(text: &str) -> Result<Value> {
    let mut all = documents(text)?;
    ensure!(all.len() == 1, "{} documents instead of one", all.len());
    Ok(all.remove(0))
}

/// Every document that is not empty.
pub(super) fn documents(text: &str) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    let mut stack: Vec<(Open, usize)> = Vec::new();
    let mut anchors: HashMap<usize, Value> = HashMap::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| anyhow::anyhow!("{error}"))?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                ensure!(tag.is_none(), "line {}: a tag", span.start.line());
                let value = if style == ScalarStyle::Plain {
                    plain(&text).with_context(|| format!("line {}", span.start.line()))?
                } else {
                    Value::String(text.into_owned())
                };
                (value, anchor)
            }
            Event::SequenceStart(anchor, _) => {
                stack.push((Open::List(Vec::new()), anchor));
                continue;
            }
            Event::MappingStart(anchor, _) => {
                stack.push((Open::Map(Map::new(), None), anchor));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match stack.pop() {
                Some((Open::List(list), anchor)) => (Value::Array(list), anchor),
                Some((Open::Map(map, _), anchor)) => (Value::Object(merged(map)?), anchor),
                None => bail!("an end without a start"),
            },
            Event::Alias(anchor) => {
                let value = anchors.get(&anchor).context("an unknown alias")?.clone();
                (value, 0)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => continue,
        };
        if anchor > 0 {
            anchors.insert(anchor, value.clone());
        }
        match stack.last_mut() {
            None if value.is_null() => {}
            None => found.push(value),
            Some((Open::List(list), _)) => list.push(value),
            Some((Open::Map(map, key), _)) => match key.take() {
                Some(key) => {
                    let line = span.start.line();
                    let old = map.insert(key.clone(), value);
                    ensure!(old.is_none(), "line {line}: `{key}` is there twice");
                }
                None => *key = Some(value.as_str().context("a key that is no text")?.to_owned()),
            },
        }
    }
    Ok(found)
}

/// A map with what its key `<<` brings from others; what it says itself goes first.
fn merged(mut map: Map<String, Value>) -> Result<Map<String, Value>> {
    let Some(others) = map.remove("<<") else {
        return Ok(map);
    };
    let others = match others {
        Value::Array(list) => list,
        one => vec![one],
    };
    for other in others {
        let other = other.as_object().context("`<<` takes maps")?.clone();
        for (key, value) in other {
            map.entry(key).or_insert(value);
        }
    }
    Ok(map)
}

fn plain(text: &str) -> Result<Value> {
    let lower = text.to_ascii_lowercase();
    ensure!(
        !UNCLEAR.contains(&lower.as_str()),
        "`{text}` without quotes is a truth to some readers and a text to others"
    );
    let digits = text.trim_start_matches(['-', '+']);
    let octal = digits.len() > 1 && digits.starts_with('0') && !digits.contains('.');
    ensure!(
        !octal || digits.chars().any(|c| !c.is_ascii_digit()),
        "`{text}` without quotes is one number to some readers and another to others"
    );
    Ok(match lower.as_str() {
        "" | "~" | "null" => Value::Null,
        "true" => true.into(),
        "false" => false.into(),
        _ => number(text).unwrap_or_else(|| Value::String(text.to_owned())),
    })
}

fn number(text: &str) -> Option<Value> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.') {
        return None;
    }
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole.into());
    }
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.map(Value::from)
}
