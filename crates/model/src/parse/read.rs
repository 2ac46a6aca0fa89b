//! Scalars by what their key expects.

use std::sync::Arc;

use jiff::SignedDuration;
use kapell_expr::Value;

use crate::limits;
use crate::yaml::{Node, Scalar, Span, Style};

use super::Context;

/// What a plain scalar is where no type is asked for.
pub(crate) enum Plain {
    Value(Value),
    /// A number with a leading zero, or one that JSON cannot hold.
    Refused(&'static str),
}

/// YAML 1.2 without its surprises: `true`, `false`, `null`, numbers without leading zeros; all else
/// is text.
pub(crate) fn plain(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Plain::Value(Value::Null),
        "true" => return Plain::Value(Value::Bool(true)),
        "false" => return Plain::Value(Value::Bool(false)),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(
        unsigned,
        ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN"
    ) {
        return Plain::Refused("JSON has no such number");
    }
    let radix = [("0x", 16), ("0o", 8)]
        .into_iter()
        .find_map(|(prefix, radix)| i64::from_str_radix(text.strip_prefix(prefix)?, radix).ok());
    if let Some(number) = radix {
        return Plain::Value(Value::Int(number));
    }
    if !is_number(unsigned) {
        return Plain::Value(Value::string(text));
    }
    let mut digits = unsigned.bytes();
    if digits.next() == Some(b'0') && digits.next().is_some_and(|byte| byte.is_ascii_digit()) {
        return Plain::Refused("a number does not start with 0");
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    if let Ok(number) = text.parse() {
        return Plain::Value(Value::Int(number));
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Plain::Value(Value::Float(number)),
        _ => Plain::Refused("the number is too big"),
    }
}

/// `[0-9]*(\.[0-9]*)?([eE][-+]?[0-9]+)?` with a digit before the exponent.
fn is_number(text: &str) -> bool {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|text| {
            let text = text.strip_prefix(['-', '+']).unwrap_or(text);
            !text.is_empty() && digits(text)
        })
}

impl Context<'_> {
    /// A scalar that is not empty; what else it is, is said.
    pub(crate) fn scalar<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n Scalar> {
        if node.is_null() || node.is_broken() {
            return None;
        }
        let scalar = node.scalar();
        if scalar.is_none() {
            self.error(
                "wrong-form",
                node.span,
                format!("`{what}` is a single value, not {}", node.what()),
            );
        }
        scalar
    }

    /// Text without expressions, as written; `$${{` stands for `${{` here too.
    pub(crate) fn literal(&mut self, node: &Node, what: &str, hint: &str) -> Option<Arc<str>> {
        let text = &self.scalar(node, what)?.text;
        if let Some(at) = expression_start(text) {
            let start = crate::yaml::source_offset(self.text, node, at);
            let span = Span {
                start,
                end: start + 3,
            };
            self.error_hint(
                "literal-only",
                span,
                format!("`{what}` takes no expressions: its text is literal"),
                hint,
            );
            return None;
        }
        Some(if text.contains("$${{") {
            text.replace("$${{", "${{").into()
        } else {
            text.clone()
        })
    }

    /// Text for people; empty if the key is absent.
    pub(crate) fn prose(&mut self, node: Option<&Node>, what: &str) -> String {
        node.and_then(|node| self.scalar(node, what))
            .map(|scalar| scalar.text.to_string())
            .unwrap_or_default()
    }

    /// `true` or `false`, unquoted.
    pub(crate) fn bool(&mut self, node: &Node, what: &str) -> Option<bool> {
        let scalar = self.scalar(node, what)?;
        match (&*scalar.text, scalar.style) {
            ("true", Style::Plain) => Some(true),
            ("false", Style::Plain) => Some(false),
            (text, _) => {
                let hint = match text.to_lowercase().as_str() {
                    "true" | "false" if scalar.style != Style::Plain => "remove the quotes",
                    "true" | "yes" | "on" | "y" => "write `true`",
                    "false" | "no" | "off" | "n" => "write `false`",
                    _ => "write `true` or `false`",
                };
                self.error_hint(
                    "wrong-type",
                    node.span,
                    format!("`{what}` is `true` or `false`, not `{text}`"),
                    hint,
                );
                None
            }
        }
    }

    /// A whole number between `min` and `max`.
    pub(crate) fn int(&mut self, node: &Node, what: &str, (min, max): (i64, i64)) -> Option<i64> {
        let scalar = self.scalar(node, what)?;
        match plain(&scalar.text) {
            Plain::Value(Value::Int(number)) if scalar.style == Style::Plain => {
                if (min..=max).contains(&number) {
                    return Some(number);
                }
                let bounds = if max == i64::MAX {
                    format!("at least {min}")
                } else {
                    format!("from {min} to {max}")
                };
                self.error(
                    "out-of-range",
                    node.span,
                    format!("`{what}` is a whole number {bounds}, not {number}"),
                );
            }
            Plain::Refused(why) => self.error(
                "wrong-type",
                node.span,
                format!("`{}` is not a number: {why}", scalar.text),
            ),
            Plain::Value(_) => {
                self.error(
                    "wrong-type",
                    node.span,
                    format!("`{what}` is a whole number, not `{}`", scalar.text),
                );
            }
        }
        None
    }

    /// The same as `u32`.
    pub(crate) fn count(&mut self, node: &Node, what: &str, (min, max): (u32, u32)) -> Option<u32> {
        self.int(node, what, (i64::from(min), i64::from(max)))
            .and_then(|number| u32::try_from(number).ok())
    }

    /// A number of at least `min`.
    pub(crate) fn number(&mut self, node: &Node, what: &str, min: f64) -> Option<f64> {
        let scalar = self.scalar(node, what)?;
        #[expect(clippy::cast_precision_loss, reason = "cores and factors are small")]
        let number = match plain(&scalar.text) {
            Plain::Value(Value::Int(number)) => Some(number as f64),
            Plain::Value(Value::Float(number)) => Some(number),
            Plain::Value(_) | Plain::Refused(_) => None,
        };
        match number.filter(|_| scalar.style == Style::Plain) {
            Some(number) if number >= min => Some(number),
            Some(number) => {
                self.error(
                    "out-of-range",
                    node.span,
                    format!("`{what}` is at least {min}, not {number}"),
                );
                None
            }
            None => {
                self.error(
                    "wrong-type",
                    node.span,
                    format!("`{what}` is a number, not `{}`", scalar.text),
                );
                None
            }
        }
    }

    /// `10s`, `1h30m`, `2d`: above zero and below the longest.
    pub(crate) fn duration(&mut self, node: &Node, what: &str) -> Option<SignedDuration> {
        let text = self.scalar(node, what)?.text.clone();
        match kapell_expr::parse_duration(&text) {
            Ok(span) if span.is_negative() || span.as_secs() > limits::DURATION_SECONDS => {
                self.error(
                    "out-of-range",
                    node.span,
                    format!("`{what}` is between nothing and 100 years, not `{text}`"),
                );
                None
            }
            Ok(span) => Some(span),
            Err(_) => {
                self.error_hint(
                    "wrong-type",
                    node.span,
                    format!("`{what}` is a duration, not `{text}`"),
                    "write a number with its unit: `500ms`, `10s`, `5m`, `2h`, `1d`, or `1h30m`",
                );
                None
            }
        }
    }

    /// Bytes: `512Mi`, `4Gi`, `1G`, or a number.
    pub(crate) fn size(&mut self, node: &Node, what: &str) -> Option<i64> {
        let text = self.scalar(node, what)?.text.clone();
        let size = parse_size(&text);
        if size.is_none() {
            self.error_hint(
                "wrong-type",
                node.span,
                format!("`{what}` is a size, not `{text}`"),
                "write a number with its unit: `512Mi`, `4Gi`, or `1G` for 10^9 bytes",
            );
        }
        size
    }

    /// One of some words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        node: &Node,
        what: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let text = self.scalar(node, what)?.text.clone();
        let found = choices.iter().find(|(word, _)| **word == *text);
        if found.is_none() {
            let words: Vec<String> = choices
                .iter()
                .map(|(word, _)| format!("`{word}`"))
                .collect();
            let near = self.nearest(&text, choices.iter().map(|(word, _)| *word));
            let hint = near.map_or_else(
                || format!("it is one of {}", words.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            self.error_hint(
                "unknown-word",
                node.span,
                format!("`{what}` cannot be `{text}`"),
                hint,
            );
        }
        found.map(|(_, choice)| *choice)
    }
}

/// Where an expression starts: a `${{` that is not written `$${{`.
pub(crate) fn expression_start(text: &str) -> Option<usize> {
    text.match_indices("${{")
        .map(|(at, _)| at)
        .find(|at| !text[..*at].ends_with('$'))
}

/// Bytes of `512Mi`, `4Gi`, `1G`, `1.5Gi`, `1000`.
pub(crate) fn parse_size(text: &str) -> Option<i64> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: i64 = match unit.trim_end_matches('B') {
        "" => 1,
        "k" | "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(factor);
    }
    let parsed: f64 = number.parse().ok()?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "factors are powers that doubles hold"
    )]
    let bytes = (parsed * factor as f64).ceil();
    #[expect(clippy::cast_possible_truncation, reason = "bounded by the filter")]
    Some(bytes)
        .filter(|bytes| *bytes < 9.0e15)
        .map(|bytes| bytes as i64)
}
