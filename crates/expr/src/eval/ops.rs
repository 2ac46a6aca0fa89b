//! Operators: arithmetic, comparison, membership.

use std::cmp::Ordering;

use jiff::{SignedDuration, Timestamp};

use super::{Meter, wrong};
use crate::ast::BinaryOp;
use crate::time;
use crate::value::compare_int_float;
use crate::{EvalError, Value};

pub(crate) fn failed(message: impl Into<String>) -> EvalError {
    EvalError::Failed(message.into())
}

pub(super) fn binary(
    meter: &mut Meter,
    op: BinaryOp,
    left: &Value,
    right: &Value,
) -> Result<Value, EvalError> {
    match op {
        BinaryOp::Add => add(meter, left, right),
        BinaryOp::Sub => subtract(left, right),
        BinaryOp::Mul => arithmetic(op, left, right, i64::checked_mul, |a, b| a * b),
        BinaryOp::Div => {
            no_zero(op, left, right)?;
            arithmetic(op, left, right, i64::checked_div, |a, b| a / b)
        }
        BinaryOp::Rem => match (left, right) {
            (Value::Int(_), Value::Int(_)) => {
                no_zero(op, left, right)?;
                arithmetic(op, left, right, i64::checked_rem, |a, b| a % b)
            }
            _ => Err(mismatch(op, left, right)),
        },
        BinaryOp::Eq => equal(meter, left, right).map(Value::Bool),
        BinaryOp::Ne => equal(meter, left, right).map(|same| Value::Bool(!same)),
        BinaryOp::Lt => ordered(meter, op, left, right, |order| order == Ordering::Less),
        BinaryOp::Le => ordered(meter, op, left, right, |order| order != Ordering::Greater),
        BinaryOp::Gt => ordered(meter, op, left, right, |order| order == Ordering::Greater),
        BinaryOp::Ge => ordered(meter, op, left, right, |order| order != Ordering::Less),
        BinaryOp::In => contains(meter, left, right).map(Value::Bool),
    }
}

fn mismatch(op: BinaryOp, left: &Value, right: &Value) -> EvalError {
    for side in [left, right] {
        if let Value::Blob(blob) = side {
            return EvalError::Need(blob.clone());
        }
    }
    failed(format!(
        "`{}` does not work on {} and {}",
        op.symbol(),
        left.type_name(),
        right.type_name()
    ))
}

fn overflow(op: BinaryOp) -> EvalError {
    failed(format!("`{}` overflows", op.symbol()))
}

fn no_zero(op: BinaryOp, left: &Value, right: &Value) -> Result<(), EvalError> {
    match (left, right) {
        (Value::Int(_), Value::Int(0)) if op == BinaryOp::Rem => Err(failed("modulus by zero")),
        (Value::Int(_), Value::Int(0)) => Err(failed("division by zero")),
        _ => Ok(()),
    }
}

/// The nearest float of an integer.
#[expect(
    clippy::cast_precision_loss,
    reason = "mixing int and float means rounding to a float"
)]
pub(crate) fn to_float(number: i64) -> f64 {
    number as f64
}

/// The integer that a float is, if it is one.
pub(crate) fn exact_int(number: f64) -> Option<i64> {
    (number.fract() == 0.0).then(|| truncated(number)).flatten()
}

/// The integer part of a float, if it fits.
pub(crate) fn truncated(number: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "within i64 by the condition"
    )]
    (number > -LIMIT && number < LIMIT).then_some(number as i64)
}

fn arithmetic(
    op: BinaryOp,
    left: &Value,
    right: &Value,
    ints: fn(i64, i64) -> Option<i64>,
    floats: fn(f64, f64) -> f64,
) -> Result<Value, EvalError> {
    Ok(match (left, right) {
        (Value::Int(a), Value::Int(b)) => Value::Int(ints(*a, *b).ok_or_else(|| overflow(op))?),
        (Value::Float(a), Value::Float(b)) => Value::Float(floats(*a, *b)),
        (Value::Int(a), Value::Float(b)) => Value::Float(floats(to_float(*a), *b)),
        (Value::Float(a), Value::Int(b)) => Value::Float(floats(*a, to_float(*b))),
        _ => return Err(mismatch(op, left, right)),
    })
}

pub(crate) fn add(meter: &mut Meter, left: &Value, right: &Value) -> Result<Value, EvalError> {
    Ok(match (left, right) {
        (Value::String(a), Value::String(b)) => {
            meter.text(a.len().saturating_add(b.len()))?;
            Value::String([&**a, &**b].concat().into())
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            meter.text(a.len().saturating_add(b.len()))?;
            Value::Bytes([&**a, &**b].concat().into())
        }
        (Value::List(a), Value::List(b)) => {
            meter.items(a.len().saturating_add(b.len()))?;
            Value::list(a.iter().chain(b.iter()).cloned().collect())
        }
        (Value::Timestamp(at), Value::Duration(span))
        | (Value::Duration(span), Value::Timestamp(at)) => {
            Value::Timestamp(move_timestamp(*at, *span)?)
        }
        (Value::Date(date), Value::Duration(span)) | (Value::Duration(span), Value::Date(date)) => {
            Value::Date(time::add_days(*date, time::whole_days(*span)?)?)
        }
        (Value::Duration(a), Value::Duration(b)) => Value::Duration(time::in_range(
            a.checked_add(*b).ok_or_else(|| overflow(BinaryOp::Add))?,
        )?),
        _ => return arithmetic(BinaryOp::Add, left, right, i64::checked_add, |a, b| a + b),
    })
}

fn subtract(left: &Value, right: &Value) -> Result<Value, EvalError> {
    let minus = |span: SignedDuration| span.checked_neg().ok_or_else(|| overflow(BinaryOp::Sub));
    Ok(match (left, right) {
        (Value::Timestamp(at), Value::Duration(span)) => {
            Value::Timestamp(move_timestamp(*at, minus(*span)?)?)
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => {
            Value::Duration(time::in_range(a.duration_since(*b))?)
        }
        (Value::Date(date), Value::Duration(span)) => {
            Value::Date(time::add_days(*date, time::whole_days(minus(*span)?)?)?)
        }
        (Value::Date(a), Value::Date(b)) => Value::Int(time::days_between(*b, *a)),
        (Value::Duration(a), Value::Duration(b)) => Value::Duration(time::in_range(
            a.checked_sub(*b).ok_or_else(|| overflow(BinaryOp::Sub))?,
        )?),
        _ => return arithmetic(BinaryOp::Sub, left, right, i64::checked_sub, |a, b| a - b),
    })
}

fn move_timestamp(at: Timestamp, span: SignedDuration) -> Result<Timestamp, EvalError> {
    at.checked_add(span)
        .ok()
        .filter(|at| time::is_timestamp(*at))
        .ok_or_else(|| failed("the timestamp is out of range (years 1 to 9999)"))
}

pub(super) fn negate(value: &Value) -> Result<Value, EvalError> {
    match value {
        Value::Int(number) => number
            .checked_neg()
            .map(Value::Int)
            .ok_or_else(|| failed("`-` overflows")),
        Value::Float(number) => Ok(Value::Float(-number)),
        Value::Duration(span) => span
            .checked_neg()
            .map(Value::Duration)
            .ok_or_else(|| failed("`-` overflows")),
        other => Err(wrong("`-` needs a number", other)),
    }
}

/// Equality as [`Value`]'s, paid for, and an error where a blob would decide.
pub(crate) fn equal(meter: &mut Meter, left: &Value, right: &Value) -> Result<bool, EvalError> {
    equal_at(meter, left, right, 0)
}

fn equal_at(
    meter: &mut Meter,
    left: &Value,
    right: &Value,
    depth: usize,
) -> Result<bool, EvalError> {
    meter.nested(depth)?;
    match (left, right) {
        // The same content has the same hash; content of another hash may still be equal.
        (Value::Blob(a), Value::Blob(b)) if a == b => Ok(true),
        (Value::Blob(blob), _) | (_, Value::Blob(blob)) => Err(EvalError::Need(blob.clone())),
        (Value::String(a), Value::String(b)) => {
            meter.read(a.len().min(b.len()))?;
            Ok(a == b)
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            meter.read(a.len().min(b.len()))?;
            Ok(a == b)
        }
        (Value::List(a), Value::List(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            all_equal(meter, a.iter().zip(b.iter()), depth)
        }
        (Value::Map(a), Value::Map(b)) => {
            if a.len() != b.len() || a.keys().ne(b.keys()) {
                return meter.charge(a.len()).map(|()| false);
            }
            all_equal(meter, a.values().zip(b.values()), depth)
        }
        _ => Ok(left == right),
    }
}

/// One unequal pair decides, even where another needs a blob.
fn all_equal<'a>(
    meter: &mut Meter,
    pairs: impl Iterator<Item = (&'a Value, &'a Value)>,
    depth: usize,
) -> Result<bool, EvalError> {
    let mut need = None;
    for (left, right) in pairs {
        meter.step()?;
        match equal_at(meter, left, right, depth + 1) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(EvalError::Need(blob)) => need = need.or(Some(blob)),
            Err(other) => return Err(other),
        }
    }
    need.map_or(Ok(true), |blob| Err(EvalError::Need(blob)))
}

/// How two values stand to each other.
enum Order {
    Is(Ordering),
    /// One is NaN.
    Unknown,
    /// Their types have no order.
    Mismatch,
}

fn compare(left: &Value, right: &Value) -> Order {
    let order = match (left, right) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Int(a), Value::Float(b)) => compare_int_float(*a, *b),
        (Value::Float(a), Value::Int(b)) => compare_int_float(*b, *a).map(Ordering::reverse),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        (Value::Date(a), Value::Date(b)) => Some(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        _ => return Order::Mismatch,
    };
    order.map_or(Order::Unknown, Order::Is)
}

fn text_length(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    }
}

fn ordered(
    meter: &mut Meter,
    op: BinaryOp,
    left: &Value,
    right: &Value,
    wanted: fn(Ordering) -> bool,
) -> Result<Value, EvalError> {
    meter.read(text_length(left).min(text_length(right)))?;
    match compare(left, right) {
        Order::Is(order) => Ok(Value::Bool(wanted(order))),
        Order::Unknown => Ok(Value::Bool(false)),
        Order::Mismatch => Err(mismatch(op, left, right)),
    }
}

/// The place of the first smallest (`Less`) or greatest (`Greater`) value; `None` of none.
pub(crate) fn extreme(
    meter: &mut Meter,
    values: &[Value],
    wanted: Ordering,
) -> Result<Option<usize>, EvalError> {
    comparable(meter, values)?;
    let mut best: Option<usize> = None;
    for (place, value) in values.iter().enumerate() {
        meter.step()?;
        let better = best.is_none_or(|best| total(value, &values[best]) == wanted);
        if better {
            best = Some(place);
        }
    }
    Ok(best)
}

/// The places of the values in ascending order; equal ones keep their order.
pub(crate) fn sorted(meter: &mut Meter, values: &[Value]) -> Result<Vec<usize>, EvalError> {
    comparable(meter, values)?;
    let text: usize = values.iter().map(text_length).sum();
    let rounds = values.len().max(2).ilog2() as usize;
    meter.charge((values.len() + text / 16).saturating_mul(rounds))?;
    let mut places: Vec<usize> = (0..values.len()).collect();
    places.sort_by(|a, b| total(&values[*a], &values[*b]));
    Ok(places)
}

/// Refuses values that have no order among each other.
fn comparable(meter: &mut Meter, values: &[Value]) -> Result<(), EvalError> {
    let Some(first) = values.first() else {
        return Ok(());
    };
    for value in values {
        meter.step()?;
        if matches!(compare(first, value), Order::Mismatch) {
            return Err(mismatch(BinaryOp::Lt, first, value));
        }
    }
    Ok(())
}

/// A total order of comparable values: NaN is after every other number.
fn total(left: &Value, right: &Value) -> Ordering {
    let nan = |value: &Value| matches!(value, Value::Float(number) if number.is_nan());
    match compare(left, right) {
        Order::Is(order) => order,
        Order::Unknown | Order::Mismatch => nan(left).cmp(&nan(right)),
    }
}

pub(crate) fn contains(
    meter: &mut Meter,
    item: &Value,
    container: &Value,
) -> Result<bool, EvalError> {
    match container {
        Value::List(items) => among(meter, item, items),
        Value::Map(map) => match item {
            Value::String(key) => Ok(map.contains_key(key)),
            Value::Blob(blob) => Err(EvalError::Need(blob.clone())),
            _ => Ok(false),
        },
        other => Err(wrong("`in` needs a list or a map", other)),
    }
}

/// Whether one of `items` equals `item`; one that does decides, even where another needs a blob.
pub(crate) fn among(meter: &mut Meter, item: &Value, items: &[Value]) -> Result<bool, EvalError> {
    let mut need = None;
    for candidate in items {
        meter.step()?;
        match equal(meter, item, candidate) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(EvalError::Need(blob)) => need = need.or(Some(blob)),
            Err(other) => return Err(other),
        }
    }
    need.map_or(Ok(false), |blob| Err(EvalError::Need(blob)))
}
