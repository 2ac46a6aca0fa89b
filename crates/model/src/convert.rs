//! Values held against declared types.

use std::fmt::Write as _;
use std::sync::Arc;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use kapell_expr::{Map, Object, Type, Value};

/// Where a value comes from, which decides how far it is converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line, a form: text is parsed to the type.
    Text,
    /// JSON, an expression: nothing is coerced.
    Typed,
}

/// The value as a value of `ty`: an int becomes a float, ISO text a date, timestamp or duration
/// where that is declared. Nothing else is coerced. The error says what it must be, as in
/// `must be int, not "x"`, with the place inside a list or map.
pub fn convert(value: &Value, ty: &Type) -> Result<Value, String> {
    from_source(value, ty, Source::Typed)
}

/// As [`convert`]; text from the outside is parsed to the type.
pub(crate) fn from_source(value: &Value, ty: &Type, source: Source) -> Result<Value, String> {
    let parsed = match (value, source) {
        (Value::String(text), Source::Text) => parse_text(text, ty)?,
        _ => None,
    };
    let value = parsed.as_ref().unwrap_or(value);
    let mut path = String::new();
    fit(value, ty, &mut path).map_err(|wanted| {
        let place = if path.is_empty() {
            String::new()
        } else {
            format!("at `{path}` ")
        };
        format!("{place}{wanted}")
    })
}

fn parse_text(text: &str, ty: &Type) -> Result<Option<Value>, String> {
    let wrong = || format!("must be {ty}, not `{}`", shown(text));
    Ok(match ty {
        Type::Int => Some(Value::Int(text.trim().parse().map_err(|_| wrong())?)),
        Type::Float => {
            let number: f64 = text.trim().parse().map_err(|_| wrong())?;
            Some(Value::Float(
                Some(number)
                    .filter(|number| number.is_finite())
                    .ok_or_else(wrong)?,
            ))
        }
        Type::Bool => Some(Value::Bool(text.trim().parse().map_err(|_| wrong())?)),
        Type::Null => (text.trim() == "null").then_some(Value::Null),
        Type::List(item) if **item == Type::String && !text.trim_start().starts_with('[') => {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            Some(Value::list(items.map(Value::string).collect()))
        }
        Type::List(_) | Type::Map(_) | Type::Object(_) => {
            let json: serde_json::Value = serde_json::from_str(text)
                .map_err(|error| format!("must be {ty} as JSON: {error}"))?;
            Some(Value::from_json(&json))
        }
        // Anything: what reads as JSON is that, all else is text.
        Type::Any => serde_json::from_str(text)
            .ok()
            .map(|json| Value::from_json(&json)),
        Type::String | Type::Bytes | Type::Date | Type::Timestamp | Type::Duration => None,
    })
}

/// The converted value; on failure `path` is where and the error what is wanted there.
fn fit(value: &Value, ty: &Type, path: &mut String) -> Result<Value, String> {
    match (ty, value) {
        (Type::Any, _) | (_, Value::Blob(_)) => Ok(value.clone()),
        #[expect(
            clippy::cast_precision_loss,
            reason = "an int where a float is declared"
        )]
        (Type::Float, Value::Int(number)) => Ok(Value::Float(*number as f64)),
        (Type::Date, Value::String(text)) => {
            parse_iso::<Date>(text, ty, "2026-01-31").map(Value::Date)
        }
        (Type::Timestamp, Value::String(text)) => {
            parse_iso::<Timestamp>(text, ty, "2026-01-31T12:00:00Z").map(Value::Timestamp)
        }
        (Type::Duration, Value::String(text)) => kapell_expr::parse_duration(text)
            .or_else(|_| parse_iso::<SignedDuration>(text, ty, "1h30m"))
            .map(Value::Duration),
        (Type::List(item), Value::List(items)) => fit_list(items, item, path),
        (Type::Map(item), Value::Map(entries)) => fit_map(entries, |_| Some(item.as_ref()), path),
        (Type::Object(object), Value::Map(entries)) => fit_object(entries, object, path),
        _ if ty.accepts(value) => Ok(value.clone()),
        _ => Err(format!("must be {ty}, not {}", described(value))),
    }
}

fn parse_iso<T: std::str::FromStr>(text: &str, ty: &Type, example: &str) -> Result<T, String> {
    text.trim()
        .parse()
        .map_err(|_| format!("must be {ty} such as `{example}`, not `{}`", shown(text)))
}

fn fit_list(items: &[Value], of: &Type, path: &mut String) -> Result<Value, String> {
    let mut fitted = Vec::with_capacity(items.len());
    for (place, item) in items.iter().enumerate() {
        let length = path.len();
        let _ = write!(path, "[{place}]");
        fitted.push(fit(item, of, path)?);
        path.truncate(length);
    }
    Ok(Value::list(fitted))
}

fn fit_map<'t>(
    entries: &Map,
    of: impl Fn(&str) -> Option<&'t Type>,
    path: &mut String,
) -> Result<Value, String> {
    let mut fitted = Map::new();
    for (key, value) in entries {
        let length = path.len();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
        let value = match of(key) {
            Some(of) => fit(value, of, path)?,
            None => value.clone(),
        };
        path.truncate(length);
        fitted.insert(key.clone(), value);
    }
    Ok(Value::Map(Arc::new(fitted)))
}

fn fit_object(entries: &Map, object: &Object, path: &mut String) -> Result<Value, String> {
    if let Some(name) = object
        .fields
        .keys()
        .find(|name| !entries.contains_key(name.as_str()))
    {
        return Err(format!("lacks the field `{name}`"));
    }
    if let Some(name) = entries
        .keys()
        .find(|name| !object.open && !object.fields.contains_key(&***name))
    {
        return Err(format!("has the field `{name}`, which is not declared"));
    }
    fit_map(entries, |key| object.fields.get(key), path)
}

fn described(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::String(_) => {
            format!("{} `{}`", value.type_name(), shown(&value.text()))
        }
        _ => value.type_name().to_owned(),
    }
}

/// The start of a text, enough to know it by.
fn shown(text: &str) -> String {
    let mut start: String = text.chars().take(60).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    start
}

#[cfg(test)]
mod tests;
