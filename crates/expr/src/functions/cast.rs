//! Conversions between types, JSON and hashes.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::{Arg, Function, bad, failed, func, method, times};
use crate::eval::{Meter, ops};
use crate::time::parse_duration;
use crate::{EvalError, Type, Value};

pub(super) static TABLE: &[Function] = &[
    Function {
        name: "int",
        signatures: &[
            func(&[Arg::Number], |_| Type::Int),
            func(&[Arg::String], |_| Type::Int),
            func(&[Arg::Timestamp], |_| Type::Int),
        ],
        run: int,
    },
    Function {
        name: "float",
        signatures: FLOAT,
        run: float,
    },
    Function {
        name: "double",
        signatures: FLOAT,
        run: float,
    },
    Function {
        name: "string",
        signatures: &[func(&[Arg::Any], |_| Type::String)],
        run: string,
    },
    Function {
        name: "bool",
        signatures: &[
            func(&[Arg::Bool], |_| Type::Bool),
            func(&[Arg::String], |_| Type::Bool),
        ],
        run: boolean,
    },
    Function {
        name: "bytes",
        signatures: &[
            func(&[Arg::String], |_| Type::Bytes),
            func(&[Arg::Bytes], |_| Type::Bytes),
        ],
        run: bytes,
    },
    Function {
        name: "duration",
        signatures: &[
            func(&[Arg::String], |_| Type::Duration),
            func(&[Arg::Duration], |_| Type::Duration),
        ],
        run: duration,
    },
    Function {
        name: "dyn",
        signatures: &[func(&[Arg::Any], |_| Type::Any)],
        run: |_, args| Ok(args[0].clone()),
    },
    Function {
        name: "json",
        signatures: &[func(&[Arg::String], |_| Type::Any)],
        run: json,
    },
    Function {
        name: "hash",
        signatures: &[func(&[Arg::Any], |_| Type::String)],
        run: hash,
    },
    Function {
        name: "size",
        signatures: &[
            func(&[Arg::String], |_| Type::Int),
            func(&[Arg::Bytes], |_| Type::Int),
            func(&[Arg::List], |_| Type::Int),
            func(&[Arg::Map], |_| Type::Int),
            method(&[Arg::String], |_| Type::Int),
            method(&[Arg::Bytes], |_| Type::Int),
            method(&[Arg::List], |_| Type::Int),
            method(&[Arg::Map], |_| Type::Int),
        ],
        run: size,
    },
];

const FLOAT: &[super::Signature] = &[
    func(&[Arg::Number], |_| Type::Float),
    func(&[Arg::String], |_| Type::Float),
];

fn int(_: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    Ok(Value::Int(match &args[0] {
        Value::Int(number) => *number,
        Value::Float(number) => {
            ops::truncated(*number).ok_or_else(|| failed("the float does not fit in an int"))?
        }
        Value::String(text) => text
            .parse()
            .map_err(|_| failed(format!("`{}` is not an int", short(text))))?,
        Value::Timestamp(at) => at.as_second(),
        _ => return Err(bad("int", args)),
    }))
}

fn float(_: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    Ok(Value::Float(match &args[0] {
        Value::Int(number) => ops::to_float(*number),
        Value::Float(number) => *number,
        Value::String(text) => text
            .parse()
            .map_err(|_| failed(format!("`{}` is not a float", short(text))))?,
        _ => return Err(bad("float", args)),
    }))
}

/// The start of a text, for messages.
fn short(text: &str) -> String {
    if text.chars().nth(40).is_none() {
        return text.to_owned();
    }
    text.chars().take(40).chain(['…']).collect()
}

fn string(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    Ok(match &args[0] {
        Value::String(_) => args[0].clone(),
        Value::Bytes(bytes) => {
            meter.text(bytes.len())?;
            let text =
                std::str::from_utf8(bytes).map_err(|_| failed("the bytes are not UTF-8 text"))?;
            Value::string(text)
        }
        // CEL's own form of a duration, in seconds.
        Value::Duration(span) => Value::from(times::seconds_text(*span)),
        other => {
            meter.look_inside(other)?;
            let text = other.text();
            meter.text(text.len())?;
            Value::from(text)
        }
    })
}

fn boolean(_: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    match &args[0] {
        Value::Bool(truth) => Ok(Value::Bool(*truth)),
        Value::String(text) => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            other => Err(failed(format!("`{}` is not a bool", short(other)))),
        },
        _ => Err(bad("bool", args)),
    }
}

fn bytes(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    match &args[0] {
        Value::String(text) => {
            meter.text(text.len())?;
            Ok(Value::Bytes(text.as_bytes().into()))
        }
        Value::Bytes(_) => Ok(args[0].clone()),
        _ => Err(bad("bytes", args)),
    }
}

fn duration(_: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    match &args[0] {
        Value::String(text) => parse_duration(text).map(Value::Duration).map_err(failed),
        Value::Duration(_) => Ok(args[0].clone()),
        _ => Err(bad("duration", args)),
    }
}

fn json(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    let Value::String(text) = &args[0] else {
        return Err(bad("json", args));
    };
    // A list of small numbers takes two bytes an item, and each item is a value.
    meter.text(text.len())?;
    meter.charge(text.len() / 2)?;
    serde_json::from_str(text).map_err(|error| failed(format!("the text is not JSON: {error}")))
}

fn size(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    Ok(super::int(match &args[0] {
        Value::String(text) => {
            meter.read(text.len())?;
            text.chars().count()
        }
        Value::Bytes(bytes) => bytes.len(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.len(),
        _ => return Err(bad("size", args)),
    }))
}

fn hash(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    meter.look_inside(&args[0])?;
    let mut hasher = Sha256::new();
    canonical(&args[0], &mut hasher);
    let mut text = String::with_capacity(64);
    for byte in hasher.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(Value::from(text))
}

/// JSON without blanks, keys in byte order, whole floats as integers, so that equal values have
/// equal hashes.
fn canonical(value: &Value, hasher: &mut Sha256) {
    match value {
        Value::Float(number) => match ops::exact_int(*number) {
            Some(whole) => hasher.update(whole.to_string()),
            None => hasher.update(value.text()),
        },
        Value::List(items) => {
            hasher.update(b"[");
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    hasher.update(b",");
                }
                canonical(item, hasher);
            }
            hasher.update(b"]");
        }
        Value::Map(map) => {
            hasher.update(b"{");
            for (place, (key, value)) in map.iter().enumerate() {
                if place > 0 {
                    hasher.update(b",");
                }
                hasher.update(serde_json::Value::from(&**key).to_string());
                hasher.update(b":");
                canonical(value, hasher);
            }
            hasher.update(b"}");
        }
        scalar => hasher.update(scalar.to_json().to_string()),
    }
}
