//! Dates, timestamps and durations.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::{Arg, Function, bad, failed, func, method};
use crate::eval::Meter;
use crate::{EvalError, Type, Value, time};

const PART: &[super::Signature] = &[
    method(&[Arg::Timestamp], |_| Type::Int),
    method(&[Arg::Timestamp, Arg::String], |_| Type::Int),
    method(&[Arg::Date], |_| Type::Int),
];
const CLOCK: &[super::Signature] = &[
    method(&[Arg::Timestamp], |_| Type::Int),
    method(&[Arg::Timestamp, Arg::String], |_| Type::Int),
    method(&[Arg::Duration], |_| Type::Int),
];

pub(super) static TABLE: &[Function] = &[
    Function {
        name: "timestamp",
        signatures: &[
            func(&[Arg::String], |_| Type::Timestamp),
            func(&[Arg::Int], |_| Type::Timestamp),
            func(&[Arg::Timestamp], |_| Type::Timestamp),
        ],
        run: timestamp,
    },
    Function {
        name: "date",
        signatures: &[
            func(&[Arg::String], |_| Type::Date),
            func(&[Arg::Date], |_| Type::Date),
            func(&[Arg::Timestamp, Arg::String], |_| Type::Date),
        ],
        run: date,
    },
    Function {
        name: "days",
        signatures: &[func(&[Arg::Int], |_| Type::Duration)],
        run: days,
    },
    Function {
        name: "at",
        signatures: &[method(&[Arg::Date, Arg::String, Arg::String], |_| {
            Type::Timestamp
        })],
        run: at,
    },
    Function {
        name: "getFullYear",
        signatures: PART,
        run: |_, args| part("getFullYear", args, |at| at.year().into()),
    },
    Function {
        name: "getMonth",
        signatures: PART,
        run: |_, args| part("getMonth", args, |at| i64::from(at.month()) - 1),
    },
    Function {
        name: "getDate",
        signatures: PART,
        run: |_, args| part("getDate", args, |at| at.day().into()),
    },
    Function {
        name: "getDayOfMonth",
        signatures: PART,
        run: |_, args| part("getDayOfMonth", args, |at| i64::from(at.day()) - 1),
    },
    Function {
        name: "getDayOfYear",
        signatures: PART,
        run: |_, args| {
            part("getDayOfYear", args, |at| {
                i64::from(at.date().day_of_year()) - 1
            })
        },
    },
    Function {
        name: "getDayOfWeek",
        signatures: PART,
        run: |_, args| {
            part("getDayOfWeek", args, |at| {
                at.date().weekday().to_sunday_zero_offset().into()
            })
        },
    },
    Function {
        name: "getHours",
        signatures: CLOCK,
        run: |_, args| {
            clock(
                "getHours",
                args,
                |at| at.hour().into(),
                |span| span.as_hours(),
            )
        },
    },
    Function {
        name: "getMinutes",
        signatures: CLOCK,
        run: |_, args| {
            clock(
                "getMinutes",
                args,
                |at| at.minute().into(),
                |span| span.as_mins(),
            )
        },
    },
    Function {
        name: "getSeconds",
        signatures: CLOCK,
        run: |_, args| {
            clock(
                "getSeconds",
                args,
                |at| at.second().into(),
                |span| span.as_secs(),
            )
        },
    },
    Function {
        name: "getMilliseconds",
        signatures: CLOCK,
        run: |_, args| {
            clock(
                "getMilliseconds",
                args,
                |at| at.millisecond().into(),
                |span| span.subsec_millis().into(),
            )
        },
    },
];

/// CEL's text of a duration: seconds with the fraction they have.
pub(super) fn seconds_text(span: SignedDuration) -> String {
    let sign = if span.is_negative() { "-" } else { "" };
    let span = span.unsigned_abs();
    let fraction = format!("{:09}", span.subsec_nanos());
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{}{point}{fraction}s", span.as_secs())
}

fn timestamp(_: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    let at = match &args[0] {
        Value::Timestamp(at) => *at,
        Value::Int(second) => Timestamp::from_second(*second)
            .map_err(|_| failed("the timestamp is out of range (years 1 to 9999)"))?,
        Value::String(text) => text.parse().map_err(|_| {
            failed(format!(
                "`{text}` is not a timestamp; write for example `2026-01-31T07:00:00Z`"
            ))
        })?,
        _ => return Err(bad("timestamp", args)),
    };
    if !time::is_timestamp(at) {
        return Err(failed("the timestamp is out of range (years 1 to 9999)"));
    }
    Ok(Value::Timestamp(at))
}

fn date(_: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    Ok(Value::Date(match args {
        [Value::Date(date)] => *date,
        [Value::String(text)] => parse_date(text)?,
        [Value::Timestamp(at), Value::String(zone)] => time::zone(zone)?.to_datetime(*at).date(),
        _ => return Err(bad("date", args)),
    }))
}

/// Exactly `YYYY-MM-DD`: anything more would be cut off in silence.
fn parse_date(text: &str) -> Result<Date, EvalError> {
    text.parse::<Date>()
        .ok()
        .filter(|date| date.year() >= 1 && date.to_string() == *text)
        .ok_or_else(|| {
            failed(format!(
                "`{text}` is not a date; write for example `2026-01-31`"
            ))
        })
}

fn days(_: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    match &args[0] {
        Value::Int(count) => time::days(*count).map(Value::Duration),
        _ => Err(bad("days", args)),
    }
}

/// The instant of a wall-clock time on a day. A time that a change of the clock skips is moved
/// forward by the gap; one that occurs twice is the first.
fn at(_: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    let [Value::Date(date), Value::String(clock), Value::String(zone)] = args else {
        return Err(bad("at", args));
    };
    let clock = parse_clock(clock)?;
    time::zone(zone)?
        .to_timestamp(date.to_datetime(clock))
        .ok()
        .filter(|at| time::is_timestamp(*at))
        .map(Value::Timestamp)
        .ok_or_else(|| failed("the timestamp is out of range (years 1 to 9999)"))
}

/// `07:00` or `07:00:30`.
fn parse_clock(text: &str) -> Result<Time, EvalError> {
    let wrong = || {
        failed(format!(
            "`{text}` is not a time of day; write for example `07:00`"
        ))
    };
    let numbers: Option<Vec<i8>> = text
        .split(':')
        .map(|part| {
            if part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit()) {
                part.parse().ok()
            } else {
                None
            }
        })
        .collect();
    match numbers.as_deref() {
        Some([hour, minute]) => Time::new(*hour, *minute, 0, 0).map_err(|_| wrong()),
        Some([hour, minute, second]) => Time::new(*hour, *minute, *second, 0).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

/// Date and time of day of the receiver, in UTC or the zone given.
fn civil(name: &str, args: &[Value]) -> Result<DateTime, EvalError> {
    match args {
        [Value::Date(date)] => Ok(date.to_datetime(Time::midnight())),
        [Value::Timestamp(at)] => Ok(TimeZone::UTC.to_datetime(*at)),
        [Value::Timestamp(at), Value::String(zone)] => Ok(time::zone(zone)?.to_datetime(*at)),
        _ => Err(bad(name, args)),
    }
}

fn part(name: &str, args: &[Value], take: fn(DateTime) -> i64) -> Result<Value, EvalError> {
    civil(name, args).map(take).map(Value::Int)
}

fn clock(
    name: &str,
    args: &[Value],
    take: fn(DateTime) -> i64,
    whole: fn(SignedDuration) -> i64,
) -> Result<Value, EvalError> {
    match args {
        [Value::Duration(span)] => Ok(Value::Int(whole(*span))),
        [Value::Date(_)] => Err(bad(name, args)),
        _ => part(name, args, take),
    }
}
