//! Lists: making, measuring, ordering and cutting them.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Arg, Function, bad, count, failed, func, item, list_of, method, same_list};
use crate::eval::{Meter, ops};
use crate::{EvalError, Type, Value};

pub(super) static TABLE: &[Function] = &[
    Function {
        name: "range",
        signatures: &[
            func(&[Arg::Int], |_| list_of(Type::Int)),
            func(&[Arg::Int, Arg::Int], |_| list_of(Type::Int)),
            func(&[Arg::Int, Arg::Int, Arg::Int], |_| list_of(Type::Int)),
        ],
        run: range,
    },
    Function {
        name: "sum",
        signatures: &[method(&[Arg::ListOfNumber], sum_type)],
        run: sum,
    },
    Function {
        name: "min",
        signatures: &[method(&[Arg::ListOfOrdered], item)],
        run: |meter, args| extreme(meter, "min", args, Ordering::Less),
    },
    Function {
        name: "max",
        signatures: &[method(&[Arg::ListOfOrdered], item)],
        run: |meter, args| extreme(meter, "max", args, Ordering::Greater),
    },
    Function {
        name: "sort",
        signatures: &[method(&[Arg::ListOfOrdered], same_list)],
        run: sort,
    },
    Function {
        name: "distinct",
        signatures: &[method(&[Arg::List], same_list)],
        run: distinct,
    },
    Function {
        name: "reverse",
        signatures: &[
            method(&[Arg::List], same_list),
            method(&[Arg::String], |_| Type::String),
        ],
        run: reverse,
    },
    Function {
        name: "flatten",
        signatures: &[method(&[Arg::List], flat_type)],
        run: flatten,
    },
    Function {
        name: "chunk",
        signatures: &[method(&[Arg::List, Arg::Int], |args| {
            list_of(same_list(args))
        })],
        run: chunk,
    },
    Function {
        name: "zip",
        signatures: &[method(&[Arg::List, Arg::List], zip_type)],
        run: zip,
    },
    Function {
        name: "slice",
        signatures: &[method(&[Arg::List, Arg::Int, Arg::Int], same_list)],
        run: slice,
    },
];

/// The sum of no durations is the integer zero, for nothing tells it from no numbers.
fn sum_type(args: &[Type]) -> Type {
    match item(args) {
        Type::Duration => Type::Any,
        other => other,
    }
}

/// Lists inside are replaced by their items, so a list of something else keeps its type.
fn flat_type(args: &[Type]) -> Type {
    match item(args) {
        Type::List(inner) => list_of((*inner).clone()),
        other => list_of(other),
    }
}

fn zip_type(args: &[Type]) -> Type {
    list_of(list_of(
        item(args).join(&item(args.get(1..).unwrap_or_default())),
    ))
}

fn list<'a>(name: &str, args: &'a [Value]) -> Result<&'a Arc<Vec<Value>>, EvalError> {
    args.first()
        .and_then(Value::as_list)
        .ok_or_else(|| bad(name, args))
}

fn range(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    let numbers: Option<Vec<i64>> = args.iter().map(Value::as_int).collect();
    let (start, end, step) = match numbers.as_deref() {
        Some([end]) => (0, *end, 1),
        Some([start, end]) => (*start, *end, 1),
        Some([start, end, step]) => (*start, *end, *step),
        _ => return Err(bad("range", args)),
    };
    if step == 0 {
        return Err(failed("the step of `range` is zero"));
    }
    let distance = if step > 0 {
        i128::from(end) - i128::from(start)
    } else {
        i128::from(start) - i128::from(end)
    };
    let stride = i128::from(step).abs();
    let length = usize::try_from(
        distance.max(0).div_euclid(stride) + i128::from(distance.max(0) % stride != 0),
    )
    .unwrap_or(usize::MAX);
    meter.items(length)?;
    let mut items = Vec::with_capacity(length);
    let mut next = start;
    for _ in 0..length {
        items.push(Value::Int(next));
        next = next.saturating_add(step);
    }
    Ok(Value::list(items))
}

fn sum(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    let items = list("sum", args)?;
    let mut items = items.iter();
    let Some(first) = items.next() else {
        return Ok(Value::Int(0));
    };
    if !matches!(first, Value::Int(_) | Value::Float(_) | Value::Duration(_)) {
        return Err(crate::eval::wrong(
            "`sum` needs numbers or durations",
            first,
        ));
    }
    items.try_fold(first.clone(), |total, item| {
        meter.step()?;
        ops::add(meter, &total, item)
    })
}

fn extreme(
    meter: &mut Meter,
    name: &str,
    args: &[Value],
    wanted: Ordering,
) -> Result<Value, EvalError> {
    let items = list(name, args)?;
    let place = ops::extreme(meter, items, wanted)?;
    place
        .and_then(|place| items.get(place).cloned())
        .ok_or_else(|| EvalError::Missing(format!("`{name}` of an empty list")))
}

fn sort(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    let items = list("sort", args)?;
    let order = ops::sorted(meter, items)?;
    meter.items(items.len())?;
    Ok(Value::list(
        order
            .into_iter()
            .map(|place| items[place].clone())
            .collect(),
    ))
}

/// The first of each group of equal items. Scalars are found by order, the rest by comparison.
fn distinct(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    let items = list("distinct", args)?;
    meter.items(items.len())?;
    let order = match ops::sorted(meter, items) {
        Ok(order) => order,
        Err(EvalError::Failed(_)) => return distinct_unordered(meter, items),
        Err(other) => return Err(other),
    };
    let mut keep = vec![true; items.len()];
    for pair in order.windows(2) {
        // Equal items are neighbours in their own order: all but the first go.
        if items[pair[0]] == items[pair[1]] {
            keep[pair[1]] = false;
        }
    }
    let kept = items
        .iter()
        .zip(keep)
        .filter(|(_, keep)| *keep)
        .map(|(item, _)| item.clone());
    Ok(Value::list(kept.collect()))
}

fn distinct_unordered(meter: &mut Meter, items: &[Value]) -> Result<Value, EvalError> {
    let mut kept: Vec<Value> = Vec::new();
    for item in items {
        if !ops::among(meter, item, &kept)? {
            kept.push(item.clone());
        }
    }
    Ok(Value::list(kept))
}

fn reverse(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    if let Value::String(text) = &args[0] {
        meter.text(text.len())?;
        return Ok(Value::from(text.chars().rev().collect::<String>()));
    }
    let items = list("reverse", args)?;
    meter.items(items.len())?;
    Ok(Value::list(items.iter().rev().cloned().collect()))
}

fn flatten(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    let items = list("flatten", args)?;
    let mut flat = Vec::new();
    for item in items.iter() {
        meter.step()?;
        match item {
            Value::List(inner) => {
                meter.items(flat.len().saturating_add(inner.len()))?;
                flat.extend(inner.iter().cloned());
            }
            Value::Blob(blob) => return Err(EvalError::Need(blob.clone())),
            other => flat.push(other.clone()),
        }
    }
    Ok(Value::list(flat))
}

fn chunk(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    let items = list("chunk", args)?;
    let Some(Value::Int(length)) = args.get(1) else {
        return Err(bad("chunk", args));
    };
    let length = count("chunk", *length)?;
    if length == 0 {
        return Err(failed("`chunk` takes a number from 1"));
    }
    meter.items(items.len())?;
    Ok(Value::list(
        items
            .chunks(length)
            .map(|chunk| Value::list(chunk.to_vec()))
            .collect(),
    ))
}

fn zip(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    let left = list("zip", args)?;
    let right = args
        .get(1)
        .and_then(Value::as_list)
        .ok_or_else(|| bad("zip", args))?;
    if left.len() != right.len() {
        return Err(failed(format!(
            "`zip` needs lists of equal length, not {} and {}",
            left.len(),
            right.len()
        )));
    }
    meter.items(left.len().saturating_mul(3))?;
    let pairs = left
        .iter()
        .zip(right.iter())
        .map(|(a, b)| Value::list(vec![a.clone(), b.clone()]));
    Ok(Value::list(pairs.collect()))
}

fn slice(meter: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    let items = list("slice", args)?;
    let (Some(Value::Int(start)), Some(Value::Int(end))) = (args.get(1), args.get(2)) else {
        return Err(bad("slice", args));
    };
    let (start, end) = (count("slice", *start)?, count("slice", *end)?);
    let part = items.get(start..end).ok_or_else(|| {
        failed(format!(
            "`slice` from {start} to {end} is outside a list of {}",
            items.len()
        ))
    })?;
    meter.items(part.len())?;
    Ok(Value::list(part.to_vec()))
}
