//! Durations as users write them, and the arithmetic of dates.

use std::fmt::Write as _;

use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Span, Timestamp};

use crate::EvalError;

/// Longest duration, in seconds either way: about ten thousand years.
const MAX_SECONDS: i64 = 315_576_000_000;
/// Timestamps start with year one.
const FIRST_SECOND: i64 = -62_135_596_800;
const NANOS_PER_SECOND: i128 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Units from short to long, in nanoseconds.
const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", NANOS_PER_SECOND),
    ("m", 60 * NANOS_PER_SECOND),
    ("h", 3_600 * NANOS_PER_SECOND),
    ("d", 86_400 * NANOS_PER_SECOND),
];

/// Reads a duration: numbers with the units `ns us ms s m h d`, largest first or not, as `1h30m`,
/// `500ms`, `1.5h`, `-2d`; or ISO 8601 without months and years, as `PT36H`. A day is 24 hours.
pub fn parse_duration(text: &str) -> Result<SignedDuration, String> {
    let trimmed = text.trim();
    let (negative, body) = match trimmed.strip_prefix(['-', '+']) {
        Some(body) => (trimmed.starts_with('-'), body),
        None => (false, trimmed),
    };
    let nanos = match body.strip_prefix(['P', 'p']) {
        Some(iso) => iso_nanos(text, iso)?,
        None if body == "0" => 0,
        None => unit_nanos(text, body)?,
    };
    let nanos = if negative { -nanos } else { nanos };
    let seconds = i64::try_from(nanos / NANOS_PER_SECOND)
        .ok()
        .filter(|seconds| seconds.abs() <= MAX_SECONDS);
    let rest = i32::try_from(nanos % NANOS_PER_SECOND).ok();
    match (seconds, rest) {
        (Some(seconds), Some(rest)) => Ok(SignedDuration::new(seconds, rest)),
        _ => Err(format!("the duration `{text}` is too long")),
    }
}

fn unit_nanos(text: &str, mut body: &str) -> Result<i128, String> {
    if body.is_empty() {
        return Err("a duration is empty; write for example `10s` or `1h30m`".to_owned());
    }
    let mut total = 0_i128;
    while !body.is_empty() {
        let (number, rest) = split_number(text, body)?;
        let length = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(length);
        if unit.is_empty() {
            return Err(format!(
                "the duration `{text}` has no unit; write `{number}s`, `{number}m`, `{number}h` or `{number}d`"
            ));
        }
        let Some((_, nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!(
                "the duration `{text}` has the unknown unit `{unit}`; the units are ms, s, m, h and d"
            ));
        };
        total = total
            .checked_add(scaled(text, number, *nanos)?)
            .ok_or_else(|| format!("the duration `{text}` is too long"))?;
        body = rest;
    }
    Ok(total)
}

fn iso_nanos(text: &str, iso: &str) -> Result<i128, String> {
    let invalid = || format!("`{text}` is not a duration; write for example `36h` or `PT36H`");
    let mut total = 0_i128;
    let mut in_time = false;
    let mut rest = iso;
    let mut parts = 0;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(['T', 't']) {
            if in_time {
                return Err(invalid());
            }
            in_time = true;
            rest = after;
            continue;
        }
        let (number, after) = split_number(text, rest)?;
        let unit = after.chars().next().ok_or_else(invalid)?;
        let nanos = match (in_time, unit.to_ascii_uppercase()) {
            (false, 'W') => 7 * 86_400 * NANOS_PER_SECOND,
            (false, 'D') => 86_400 * NANOS_PER_SECOND,
            (true, 'H') => 3_600 * NANOS_PER_SECOND,
            (true, 'M') => 60 * NANOS_PER_SECOND,
            (true, 'S') => NANOS_PER_SECOND,
            _ => return Err(invalid()),
        };
        total = total
            .checked_add(scaled(text, number, nanos)?)
            .ok_or_else(invalid)?;
        rest = &after[unit.len_utf8()..];
        parts += 1;
    }
    if parts == 0 {
        Err(invalid())
    } else {
        Ok(total)
    }
}

/// The decimal number that `body` starts with.
fn split_number<'a>(text: &str, body: &'a str) -> Result<(&'a str, &'a str), String> {
    let length = body
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(body.len());
    let (number, rest) = body.split_at(length);
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    if digits == 0 || digits + 1 < number.len() || digits > 30 {
        return Err(format!(
            "`{text}` is not a duration; write for example `10s` or `1h30m`"
        ));
    }
    Ok((number, rest))
}

/// A decimal number times a unit, in whole nanoseconds.
fn scaled(text: &str, number: &str, unit: i128) -> Result<i128, String> {
    let too_long = || format!("the duration `{text}` is too long");
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: i128 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| too_long())?
    };
    let mut nanos = whole.checked_mul(unit).ok_or_else(too_long)?;
    let mut place = unit;
    let mut part = 0_i128;
    let mut scale = 1_i128;
    for digit in fraction.bytes().take(18) {
        part = part * 10 + i128::from(digit - b'0');
        scale *= 10;
    }
    place = place.checked_mul(part).ok_or_else(too_long)? / scale;
    nanos = nanos.checked_add(place).ok_or_else(too_long)?;
    Ok(nanos)
}

/// The shortest text of a duration in the units `d h m s ms us ns`: `1d12h`, `1m30s`, `500ms`,
/// `0s`. [`parse_duration`] reads it back to the same value.
pub fn format_duration(span: SignedDuration) -> String {
    let mut left = span.as_nanos();
    if left == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    if left < 0 {
        text.push('-');
        left = -left;
    }
    for (unit, nanos) in UNITS.iter().rev().filter(|(unit, _)| *unit != "µs") {
        let count = left / nanos;
        if count > 0 {
            let _ = write!(text, "{count}{unit}");
            left %= nanos;
        }
    }
    text
}

fn failed(message: impl Into<String>) -> EvalError {
    EvalError::Failed(message.into())
}

/// Refuses durations beyond CEL's range.
pub(crate) fn in_range(span: SignedDuration) -> Result<SignedDuration, EvalError> {
    if span.as_secs().abs() > MAX_SECONDS {
        return Err(failed("the duration is out of range (10000 years)"));
    }
    Ok(span)
}

/// Whether an instant is within the years 1 to 9999.
pub(crate) fn is_timestamp(at: Timestamp) -> bool {
    at.as_nanosecond() >= i128::from(FIRST_SECOND) * NANOS_PER_SECOND
}

/// The days in a duration that must be whole days.
pub(crate) fn whole_days(span: SignedDuration) -> Result<i64, EvalError> {
    if span.subsec_nanos() != 0 || span.as_secs() % SECONDS_PER_DAY != 0 {
        return Err(failed(format!(
            "a date moves by whole days, not by {}; take an instant of it with `.at('00:00', zone)`",
            format_duration(span)
        )));
    }
    Ok(span.as_secs() / SECONDS_PER_DAY)
}

/// A duration of whole days.
pub(crate) fn days(count: i64) -> Result<SignedDuration, EvalError> {
    let seconds = count
        .checked_mul(SECONDS_PER_DAY)
        .ok_or_else(|| failed("`days` overflows"))?;
    in_range(SignedDuration::from_secs(seconds))
}

pub(crate) fn add_days(date: Date, count: i64) -> Result<Date, EvalError> {
    Span::new()
        .try_days(count)
        .and_then(|span| date.checked_add(span))
        .ok()
        .filter(|date| date.year() >= 1)
        .ok_or_else(|| failed("the date is out of range (years 1 to 9999)"))
}

/// Days from `start` to `end`.
pub(crate) fn days_between(start: Date, end: Date) -> i64 {
    end.duration_since(start).as_secs() / SECONDS_PER_DAY
}

/// A time zone by IANA name, or a fixed offset as `+02:00`.
pub(crate) fn zone(name: &str) -> Result<TimeZone, EvalError> {
    if let Some(offset) = fixed_offset(name) {
        return Ok(TimeZone::fixed(offset));
    }
    if name.eq_ignore_ascii_case("utc") || name == "Z" {
        return Ok(TimeZone::UTC);
    }
    jiff::tz::db()
        .get(name)
        .map_err(|_| failed(format!("unknown time zone `{name}`")))
}

fn fixed_offset(name: &str) -> Option<Offset> {
    let (sign, body) = match name.strip_prefix('-') {
        Some(body) => (-1, body),
        None => (1, name.strip_prefix('+').unwrap_or(name)),
    };
    let (hours, minutes) = body.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60))
        .ok()
        .filter(|_| minutes < 60)
}
