//! Times, spans and counts as people read them.

pub(crate) use kapell_api::words::{commands, quoted, short};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kapell_model::{Error, ErrorCode, Time};

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

/// Columns of a label beside a path.
const LABEL: usize = 40;

/// A path, and the label if it is one of an item.
pub(crate) fn labelled(path: &str, label: Option<&str>) -> String {
    match label {
        Some(label) => format!("{path} ({})", shown_label(label)),
        None => path.to_owned(),
    }
}

/// A label on one line that is not long, whatever is in it.
pub(crate) fn shown_label(label: &str) -> String {
    let one_line: String = label
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    cut(&one_line, LABEL)
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

/// An instant as [`instant`] reads it, back from a moment; dates and times of day mean what they mean in
/// a time zone.
pub(crate) fn instant_in(text: &str, from: Time, timezone: &str) -> Result<Time, Error> {
    if let Ok(date) = text.parse::<jiff::civil::DateTime>()
        && text.parse::<Timestamp>().is_err()
        && let Ok(zoned) = date.in_tz(timezone)
    {
        return Ok(zoned.timestamp().into());
    }
    instant(text, from, true)
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

/// Columns that a character takes on a terminal.
fn columns_of(c: char) -> usize {
    match u32::from(c) {
        0x0300..=0x036f | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f680..=0x1f6ff
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Columns that a text takes on a terminal.
pub(crate) fn columns(text: &str) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    text.chars().map(columns_of).sum()
}

/// As much of the start of a text as fits in so many columns.
pub(crate) fn start(text: &str, most: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += columns_of(*c);
        used > most
    });
    end.map_or(text, |(at, _)| &text[..at])
}

/// A line as a terminal would leave it: without escape sequences, and only the last of what a
/// progress bar wrote over itself. What else a terminal would act on is replaced.
pub(crate) fn printed(line: &str) -> String {
    let last = line.rsplit('\r').find(|part| !part.is_empty());
    let mut out = String::new();
    let mut rest = last.unwrap_or_default().chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => escape(&mut rest),
            '\t' => out.push_str("    "),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Passes what follows an escape character and belongs to it.
fn escape(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match rest.next() {
        // A control sequence: up to its final byte.
        Some('[') => {
            rest.by_ref().find(|c| ('\u{40}'..='\u{7e}').contains(c));
        }
        // A command of the system, such as a link: up to a bell or the end of a string.
        Some(']') => {
            while let Some(c) = rest.next() {
                if c == '\u{7}' || c == '\u{1b}' && rest.next_if_eq(&'\\').is_some() {
                    break;
                }
            }
        }
        // One that names a set of characters has one more.
        Some('(' | ')') => {
            rest.next();
        }
        _ => {}
    }
}

/// A sentence of the engine with its instants as people here read them: of the last day and the next
/// without the date.
pub(crate) fn local(text: &str, now: Time) -> String {
    const DAY: Duration = Duration::from_hours(20);
    let mut out = String::with_capacity(text.len());
    for (place, word) in text.split(' ').enumerate() {
        if place > 0 {
            out.push(' ');
        }
        let instant = word.trim_end_matches([',', '.', ':', ';']);
        let at = Some(instant)
            .filter(|text| text.len() >= 20 && text.ends_with('Z'))
            .and_then(|text| text.parse::<Timestamp>().ok());
        let Some(at) = at.map(Time::from) else {
            out.push_str(word);
            continue;
        };
        let near = between(at, now).max(between(now, at)) < DAY;
        let shown = moment(at);
        out.push_str(if near { &shown[11..] } else { &shown });
        out.push_str(&word[instant.len()..]);
    }
    out
}

/// What a run waits for, as a sentence.
pub(crate) fn run_waits(what: &str) -> String {
    if what.starts_with("the run ") {
        what.to_owned()
    } else {
        format!("the run waits for {what}")
    }
}

#[cfg(test)]
mod tests;
