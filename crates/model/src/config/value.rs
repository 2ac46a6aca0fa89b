//! Values of keys, and how they are read from text.

use std::fmt;

use jiff::SignedDuration;

use super::Kind;

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of a bool.
    Bool(bool),
    /// Of a count, or bytes.
    Number(u64),
    /// Of a duration.
    Duration(SignedDuration),
    /// Of a text, a secret, a path, a choice.
    Text(String),
    /// Of a list.
    List(Vec<String>),
}

impl Kind {
    /// Reads a value from text, as variables have it.
    ///
    /// # Errors
    /// What it takes, in words.
    pub fn parse(self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        let value = match self {
            Self::Bool => match text {
                "true" => Some(Value::Bool(true)),
                "false" => Some(Value::Bool(false)),
                _ => None,
            },
            Self::Count(least, most) => {
                let number = text.parse().ok();
                number
                    .filter(|number| (least..=most).contains(number))
                    .map(Value::Number)
            }
            Self::Duration => {
                let span = kapell_expr::parse_duration(text).ok();
                span.filter(|span| !span.is_negative()).map(Value::Duration)
            }
            Self::Bytes => bytes(text).map(Value::Number),
            Self::Text | Self::Secret | Self::Path => Some(Value::Text(text.to_owned())),
            Self::Choice(words) => words.contains(&text).then(|| Value::Text(text.to_owned())),
            Self::List => {
                let parts = text
                    .split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty());
                Some(Value::List(parts.map(str::to_owned).collect()))
            }
        };
        value.ok_or_else(|| self.takes())
    }

    /// What it takes, in words.
    pub fn takes(self) -> String {
        match self {
            Self::Bool => "`true` or `false`".to_owned(),
            Self::Count(least, most) => format!("a number from {least} to {most}"),
            Self::Duration => "a span of time, as `90s`, `2h`, `7d`".to_owned(),
            Self::Bytes => "a number of bytes, as `512Ki`, `64Mi`, `1Gi`".to_owned(),
            Self::Text | Self::Secret => "a text".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Choice(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
                format!("one of {}", words.join(", "))
            }
            Self::List => "a list of texts".to_owned(),
        }
    }
}

fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..]
        .strip_suffix('B')
        .unwrap_or(&text[digits.len()..]);
    let factor: u64 = match unit {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Duration(span) => f.write_str(&kapell_expr::format_duration(*span)),
            Self::Text(text) => f.write_str(text),
            Self::List(parts) => f.write_str(&parts.join(",")),
        }
    }
}
