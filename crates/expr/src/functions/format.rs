//! `'…'.format([…])`, with CEL's verbs.

use std::fmt::Write as _;

use super::times::seconds_text;
use super::{bad, failed};
use crate::eval::{Meter, ops, wrong};
use crate::{EvalError, Value};

/// Most digits after the point.
const MAX_PRECISION: usize = 1000;

pub(super) fn format(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    let [Value::String(template), Value::List(values)] = args else {
        return Err(bad("format", args));
    };
    meter.read(template.len())?;
    let mut values = values.iter();
    let mut text = String::new();
    let mut rest = &**template;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            text.push('%');
            rest = after;
            continue;
        }
        let (precision, after) = precision(rest)?;
        let verb = after
            .chars()
            .next()
            .ok_or_else(|| failed("the format ends after `%`"))?;
        rest = &after[verb.len_utf8()..];
        let value = values
            .next()
            .ok_or_else(|| failed("the format has more verbs than values"))?;
        meter.look_inside(value)?;
        text.push_str(&one(verb, precision, value)?);
        meter.text(text.len())?;
    }
    text.push_str(rest);
    meter.text(text.len())?;
    if values.next().is_some() {
        return Err(failed("the format has fewer verbs than values"));
    }
    Ok(Value::from(text))
}

fn precision(rest: &str) -> Result<(Option<usize>, &str), EvalError> {
    let Some(after) = rest.strip_prefix('.') else {
        return Ok((None, rest));
    };
    let length = after
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(after.len());
    let digits: usize = after[..length]
        .parse()
        .map_err(|_| failed("a precision needs digits: `%.2f`"))?;
    if digits > MAX_PRECISION {
        return Err(failed(format!(
            "the precision {digits} is above {MAX_PRECISION}"
        )));
    }
    Ok((Some(digits), &after[length..]))
}

fn one(verb: char, precision: Option<usize>, value: &Value) -> Result<String, EvalError> {
    let unfit = || wrong(&format!("`%{verb}` does not take this value"), value);
    Ok(match (verb, value) {
        ('s', value) => plain(value),
        ('d', Value::Int(number)) => number.to_string(),
        ('d' | 'f' | 'e', Value::Float(number)) if !number.is_finite() => special(*number),
        ('f', Value::Float(number)) => fixed(*number, precision),
        ('f', Value::Int(number)) => fixed(ops::to_float(*number), precision),
        ('e', Value::Float(number)) => exponent(*number, precision),
        ('e', Value::Int(number)) => exponent(ops::to_float(*number), precision),
        ('b', Value::Bool(truth)) => u8::from(*truth).to_string(),
        ('b', Value::Int(number)) => signed(*number, |n| format!("{n:b}")),
        ('o', Value::Int(number)) => signed(*number, |n| format!("{n:o}")),
        ('x', Value::Int(number)) => signed(*number, |n| format!("{n:x}")),
        ('X', Value::Int(number)) => signed(*number, |n| format!("{n:X}")),
        ('x', Value::String(text)) => hex(text.as_bytes()),
        ('X', Value::String(text)) => hex(text.as_bytes()).to_ascii_uppercase(),
        ('x', Value::Bytes(bytes)) => hex(bytes),
        ('X', Value::Bytes(bytes)) => hex(bytes).to_ascii_uppercase(),
        ('d' | 'f' | 'e' | 'b' | 'o' | 'x' | 'X', _) => return Err(unfit()),
        _ => {
            return Err(failed(format!(
                "unknown verb `%{verb}`; there are %s %d %f %e %b %o %x %X"
            )));
        }
    })
}

fn signed(number: i64, digits: fn(u64) -> String) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", digits(number.unsigned_abs()))
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn special(number: f64) -> String {
    let text = if number.is_nan() {
        "NaN"
    } else if number > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    text.to_owned()
}

fn fixed(number: f64, precision: Option<usize>) -> String {
    format!("{number:.*}", precision.unwrap_or(6))
}

/// One digit before the point, a sign and at least two digits in the exponent.
fn exponent(number: f64, precision: Option<usize>) -> String {
    let text = format!("{number:.*e}", precision.unwrap_or(6));
    let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, power) = match power.strip_prefix('-') {
        Some(power) => ('-', power),
        None => ('+', power),
    };
    format!("{digits}e{sign}{power:0>2}")
}

/// `%s`: text without quotes, also inside lists and maps.
fn plain(value: &Value) -> String {
    match value {
        Value::Float(number) if !number.is_finite() => special(*number),
        Value::Float(number) => {
            let text = value.text();
            text.strip_suffix(".0")
                .filter(|_| number.fract() == 0.0)
                .map_or(text.clone(), str::to_owned)
        }
        Value::Duration(span) => seconds_text(*span),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::List(items) => {
            let parts: Vec<String> = items.iter().map(plain).collect();
            format!("[{}]", parts.join(", "))
        }
        Value::Map(map) => {
            let parts: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{key}: {}", plain(value)))
                .collect();
            format!("{{{}}}", parts.join(", "))
        }
        other => other.text(),
    }
}
