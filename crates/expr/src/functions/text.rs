//! Text. Places and lengths count characters (code points), never bytes.

use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use super::format::format;
use super::{Arg, Function, bad, failed, func, int, list_of, method};
use crate::eval::{Meter, wrong};
use crate::{EvalError, Type, Value};

/// Most memory that a compiled pattern may take.
const MAX_PATTERN_BYTES: usize = 256 << 10;

const TEST: &[super::Signature] = &[method(&[Arg::String, Arg::String], |_| Type::Bool)];
const SAME: &[super::Signature] = &[method(&[Arg::String], |_| Type::String)];
const FIND: &[super::Signature] = &[
    method(&[Arg::String, Arg::String], |_| Type::Int),
    method(&[Arg::String, Arg::String, Arg::Int], |_| Type::Int),
];

pub(super) static TABLE: &[Function] = &[
    Function {
        name: "contains",
        signatures: TEST,
        run: |meter, args| test(meter, "contains", args, |text, part| text.contains(part)),
    },
    Function {
        name: "startsWith",
        signatures: TEST,
        run: |meter, args| {
            test(meter, "startsWith", args, |text, part| {
                text.starts_with(part)
            })
        },
    },
    Function {
        name: "endsWith",
        signatures: TEST,
        run: |meter, args| test(meter, "endsWith", args, |text, part| text.ends_with(part)),
    },
    Function {
        name: "matches",
        signatures: &[
            method(&[Arg::String, Arg::String], |_| Type::Bool),
            func(&[Arg::String, Arg::String], |_| Type::Bool),
        ],
        run: matches,
    },
    Function {
        name: "lowerAscii",
        signatures: SAME,
        run: |meter, args| same(meter, "lowerAscii", args, str::to_ascii_lowercase),
    },
    Function {
        name: "upperAscii",
        signatures: SAME,
        run: |meter, args| same(meter, "upperAscii", args, str::to_ascii_uppercase),
    },
    Function {
        name: "trim",
        signatures: SAME,
        run: |meter, args| same(meter, "trim", args, |text| trimmed(text).to_owned()),
    },
    Function {
        name: "replace",
        signatures: &[
            method(&[Arg::String, Arg::String, Arg::String], |_| Type::String),
            method(&[Arg::String, Arg::String, Arg::String, Arg::Int], |_| {
                Type::String
            }),
        ],
        run: replace,
    },
    Function {
        name: "split",
        signatures: &[
            method(&[Arg::String, Arg::String], |_| list_of(Type::String)),
            method(&[Arg::String, Arg::String, Arg::Int], |_| {
                list_of(Type::String)
            }),
        ],
        run: split,
    },
    Function {
        name: "join",
        signatures: &[
            method(&[Arg::ListOfText], |_| Type::String),
            method(&[Arg::ListOfText, Arg::String], |_| Type::String),
        ],
        run: join,
    },
    Function {
        name: "substring",
        signatures: &[
            method(&[Arg::String, Arg::Int], |_| Type::String),
            method(&[Arg::String, Arg::Int, Arg::Int], |_| Type::String),
        ],
        run: substring,
    },
    Function {
        name: "indexOf",
        signatures: FIND,
        run: index_of,
    },
    Function {
        name: "lastIndexOf",
        signatures: FIND,
        run: last_index_of,
    },
    Function {
        name: "charAt",
        signatures: &[method(&[Arg::String, Arg::Int], |_| Type::String)],
        run: char_at,
    },
    Function {
        name: "format",
        signatures: &[method(&[Arg::String, Arg::List], |_| Type::String)],
        run: format,
    },
    Function {
        name: "strings.quote",
        signatures: &[func(&[Arg::String], |_| Type::String)],
        run: quote,
    },
];

fn text<'a>(name: &str, args: &'a [Value], place: usize) -> Result<&'a Arc<str>, EvalError> {
    match args.get(place) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(bad(name, args)),
    }
}

fn number(name: &str, args: &[Value], place: usize) -> Result<i64, EvalError> {
    args.get(place)
        .and_then(Value::as_int)
        .ok_or_else(|| bad(name, args))
}

/// CEL trims what Unicode calls white space.
fn trimmed(text: &str) -> &str {
    text.trim_matches(char::is_whitespace)
}

fn test(
    meter: &mut Meter,
    name: &str,
    args: &[Value],
    holds: fn(&str, &str) -> bool,
) -> Result<Value, EvalError> {
    let (whole, part) = (text(name, args, 0)?, text(name, args, 1)?);
    meter.read(whole.len())?;
    Ok(Value::Bool(holds(whole, part)))
}

fn same(
    meter: &mut Meter,
    name: &str,
    args: &[Value],
    change: fn(&str) -> String,
) -> Result<Value, EvalError> {
    let whole = text(name, args, 0)?;
    meter.text(whole.len())?;
    Ok(Value::from(change(whole)))
}

/// Compiles a pattern of `matches`; the error says what is wrong with it.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .size_limit(MAX_PATTERN_BYTES)
        .dfa_size_limit(MAX_PATTERN_BYTES)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "the pattern is too large".to_owned(),
            other => {
                let text = other.to_string();
                let last = text.lines().last().unwrap_or("not a regular expression");
                format!(
                    "the pattern is not valid: {}",
                    last.trim_start_matches("error: ")
                )
            }
        })
}

/// Searches `text`, paying for its length times that of the pattern.
pub(crate) fn is_match(meter: &mut Meter, regex: &Regex, text: &str) -> Result<Value, EvalError> {
    meter.charge((text.len() / 16 + 1).saturating_mul(regex.as_str().len() / 8 + 1))?;
    Ok(Value::Bool(regex.is_match(text)))
}

fn matches(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    let (whole, pattern) = (text("matches", args, 0)?, text("matches", args, 1)?);
    // Compiling takes far longer than looking.
    meter.charge(pattern.len().saturating_mul(16))?;
    let regex = compile(pattern).map_err(failed)?;
    is_match(meter, &regex, whole)
}

fn replace(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    let (whole, from, to) = (
        text("replace", args, 0)?,
        text("replace", args, 1)?,
        text("replace", args, 2)?,
    );
    let limit = if args.len() > 3 {
        number("replace", args, 3)?
    } else {
        -1
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    meter.read(whole.len())?;
    let found = whole.matches(&**from).take(limit).count();
    meter.text(whole.len().saturating_add(found.saturating_mul(to.len())))?;
    Ok(Value::from(whole.replacen(&**from, to, limit)))
}

fn split(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    let (whole, separator) = (text("split", args, 0)?, text("split", args, 1)?);
    let limit = if args.len() > 2 {
        number("split", args, 2)?
    } else {
        -1
    };
    if limit == 0 {
        return Ok(Value::list(Vec::new()));
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    meter.text(whole.len())?;
    let parts = if separator.is_empty() {
        whole.len()
    } else {
        whole.matches(&**separator).count() + 1
    };
    meter.items(parts.min(limit))?;
    let parts: Vec<Value> = if separator.is_empty() {
        characters(whole, limit)
    } else {
        whole.splitn(limit, &**separator).map(Value::from).collect()
    };
    Ok(Value::list(parts))
}

/// Each character as a text; the last holds what is beyond the limit.
fn characters(whole: &str, limit: usize) -> Vec<Value> {
    let mut parts = Vec::new();
    for (at, c) in whole.char_indices() {
        if parts.len() + 1 == limit {
            parts.push(Value::from(&whole[at..]));
            break;
        }
        parts.push(Value::from(c.encode_utf8(&mut [0; 4]) as &str));
    }
    parts
}

fn join(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    let items = args
        .first()
        .and_then(Value::as_list)
        .ok_or_else(|| bad("join", args))?;
    let separator = if args.len() > 1 {
        text("join", args, 1)?
    } else {
        ""
    };
    let mut parts = Vec::with_capacity(items.len());
    let mut length = 0_usize;
    for item in items.iter() {
        meter.step()?;
        let Value::String(part) = item else {
            return Err(wrong("`join` needs a list of texts", item));
        };
        length = length.saturating_add(part.len() + separator.len());
        parts.push(&**part);
    }
    meter.text(length)?;
    Ok(Value::from(parts.join(separator)))
}

/// The byte at which a character starts; the end of the text is a place too.
fn byte_of(name: &str, whole: &str, place: i64) -> Result<usize, EvalError> {
    let outside = || failed(format!("`{name}`: {place} is outside the text"));
    let place = usize::try_from(place).map_err(|_| outside())?;
    whole
        .char_indices()
        .map(|(at, _)| at)
        .chain([whole.len()])
        .nth(place)
        .ok_or_else(outside)
}

fn substring(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    let whole = text("substring", args, 0)?;
    meter.read(whole.len())?;
    let start = byte_of("substring", whole, number("substring", args, 1)?)?;
    let end = if args.len() > 2 {
        byte_of("substring", whole, number("substring", args, 2)?)?
    } else {
        whole.len()
    };
    let part = whole
        .get(start..end)
        .ok_or_else(|| failed("`substring` ends before it starts"))?;
    meter.text(part.len())?;
    Ok(Value::from(part))
}

fn char_at(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    let whole = text("charAt", args, 0)?;
    meter.read(whole.len())?;
    let at = byte_of("charAt", whole, number("charAt", args, 1)?)?;
    Ok(whole[at..]
        .chars()
        .next()
        .map_or_else(|| Value::from(""), |c| Value::from(c.to_string())))
}

fn index_of(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    let (whole, part) = (text("indexOf", args, 0)?, text("indexOf", args, 1)?);
    meter.read(whole.len())?;
    let from = if args.len() > 2 {
        byte_of("indexOf", whole, number("indexOf", args, 2)?)?
    } else {
        0
    };
    Ok(match whole[from..].find(&**part) {
        Some(at) => int(whole[..from + at].chars().count()),
        None => Value::Int(-1),
    })
}

fn last_index_of(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    let (whole, part) = (text("lastIndexOf", args, 0)?, text("lastIndexOf", args, 1)?);
    meter.read(whole.len())?;
    if args.len() < 3 {
        let found = whole.rfind(&**part);
        return Ok(found.map_or(Value::Int(-1), |at| int(whole[..at].chars().count())));
    }
    // The place given is the last at which a match may start.
    let place = number("lastIndexOf", args, 2)?;
    let start = byte_of("lastIndexOf", whole, place)?;
    let mut at = whole[..start].chars().count();
    let mut candidates = whole[..start].char_indices().rev().map(|(byte, _)| byte);
    let mut byte = start;
    loop {
        meter.charge(part.len() / 16 + 1)?;
        if whole[byte..].starts_with(&**part) {
            return Ok(int(at));
        }
        match candidates.next() {
            Some(next) => byte = next,
            None => return Ok(Value::Int(-1)),
        }
        at -= 1;
    }
}

fn quote(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    let whole = text("strings.quote", args, 0)?;
    meter.text(whole.len().saturating_mul(2))?;
    let mut quoted = String::with_capacity(whole.len() + 2);
    quoted.push('"');
    for c in whole.chars() {
        match c {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    Ok(Value::from(quoted))
}
