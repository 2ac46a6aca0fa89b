//! Times, spans and counts as people read them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kapell_model::{Error, ErrorCode, RunId, Time};

/// A span: `12ms`, `3.4s`, `2m 05s`, `1h 02m`, `3d 4h`.
pub(crate) fn span(span: Duration) -> String {
    let millis = span.as_millis();
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{millis}ms"),
        1..=9 => format!("{}.{}s", seconds, (millis % 1_000) / 100),
        10..=59 => format!("{seconds}s"),
        60..=3_599 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3_600..=86_399 => format!("{}h {:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// The span between two instants, never below zero.
pub(crate) fn between(from: Time, to: Time) -> Duration {
    Duration::try_from(to.since(from)).unwrap_or_default()
}

/// How long something took, or has taken so far.
pub(crate) fn took(from: Option<Time>, to: Option<Time>, now: Time) -> Option<Duration> {
    from.map(|from| between(from, to.unwrap_or(now)))
}

/// An instant in the time zone of this machine: `2030-01-31 10:20:30`.
pub(crate) fn moment(at: Time) -> String {
    let zoned = at.timestamp().to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The time of day: `10:20:30.123`.
pub(crate) fn time_of_day(at: Time) -> String {
    at.timestamp()
        .to_zoned(jiff::tz::TimeZone::system())
        .strftime("%H:%M:%S%.3f")
        .to_string()
}

/// Bytes: `512 B`, `12 KiB`, `3.4 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1 << 10 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut size = bytes;
    while size >= 1 << 20 && unit + 1 < UNITS.len() {
        size >>= 10;
        unit += 1;
    }
    let tenths = (size * 10) >> 10;
    if tenths < 100 {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        format!("{} {}", tenths / 10, UNITS[unit])
    }
}

/// `1 step`, `2 steps`, `12,345 items`.
pub(crate) fn count(number: u64, one: &str) -> String {
    if number == 1 {
        format!("1 {one}")
    } else {
        format!("{} {one}s", grouped(number))
    }
}

/// Digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The end of an id: enough to name a run.
pub(crate) fn short(run: RunId) -> String {
    let id = run.to_string();
    id[id.len() - 8..].to_owned()
}

/// The end of a path, at most so many characters.
pub(crate) fn cut(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let tail: String = text.chars().skip(count - most.saturating_sub(1)).collect();
    format!("…{tail}")
}

/// The first line of a text.
pub(crate) fn first_line(text: &str) -> &str {
    text.lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default()
        .trim()
}

/// An instant as somebody types it: RFC 3339, a date, or a span before (or after) a moment.
pub(crate) fn instant(text: &str, from: Time, back: bool) -> Result<Time, Error> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.into());
    }
    if let Ok(date) = text.parse::<jiff::civil::DateTime>()
        && let Ok(zoned) = date.to_zoned(jiff::tz::TimeZone::system())
    {
        return Ok(zoned.timestamp().into());
    }
    if let Ok(span) = kapell_expr::parse_duration(text) {
        let span: SignedDuration = span;
        return Ok(from.plus(if back { -span } else { span }));
    }
    Err(Error::new(
        ErrorCode::BadRequest,
        format!("`{text}` is neither a time nor a span of time"),
    )
    .hint("as in 2030-01-31T10:00:00Z, 2030-01-31 10:00, 90s, 2h, 3d"))
}

/// The start of a text, on one line, at most so many characters.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= most {
        return line;
    }
    let mut cut: String = line.chars().take(most - 1).collect();
    cut.push('…');
    cut
}
