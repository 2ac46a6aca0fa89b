//! `math.*`.

use std::cmp::Ordering;

use super::{Arg, Function, bad, failed, func, item, variadic};
use crate::eval::{Meter, ops};
use crate::{EvalError, Type, Value};

const EXTREME: &[super::Signature] = &[
    func(&[Arg::List], item),
    variadic(&[Arg::Number, Arg::Number], |args| {
        args.iter()
            .skip(1)
            .fold(args[0].clone(), |joined, next| joined.join(next))
    }),
];
const FLOAT: &[super::Signature] = &[func(&[Arg::Number], |_| Type::Float)];
const SAME: &[super::Signature] = &[func(&[Arg::Number], |args| args[0].clone())];
const TEST: &[super::Signature] = &[func(&[Arg::Number], |_| Type::Bool)];

pub(super) static TABLE: &[Function] = &[
    Function {
        name: "math.greatest",
        signatures: EXTREME,
        run: |meter, args| extreme(meter, args, Ordering::Greater),
    },
    Function {
        name: "math.least",
        signatures: EXTREME,
        run: |meter, args| extreme(meter, args, Ordering::Less),
    },
    Function {
        name: "math.ceil",
        signatures: FLOAT,
        run: |_, args| float(args, f64::ceil),
    },
    Function {
        name: "math.floor",
        signatures: FLOAT,
        run: |_, args| float(args, f64::floor),
    },
    Function {
        name: "math.round",
        signatures: FLOAT,
        run: |_, args| float(args, f64::round),
    },
    Function {
        name: "math.trunc",
        signatures: FLOAT,
        run: |_, args| float(args, f64::trunc),
    },
    Function {
        name: "math.sqrt",
        signatures: FLOAT,
        run: |_, args| float(args, f64::sqrt),
    },
    Function {
        name: "math.abs",
        signatures: SAME,
        run: absolute,
    },
    Function {
        name: "math.sign",
        signatures: SAME,
        run: sign,
    },
    Function {
        name: "math.isNaN",
        signatures: TEST,
        run: |_, args| test(args, f64::is_nan),
    },
    Function {
        name: "math.isInf",
        signatures: TEST,
        run: |_, args| test(args, f64::is_infinite),
    },
    Function {
        name: "math.isFinite",
        signatures: TEST,
        run: |_, args| test(args, f64::is_finite),
    },
];

fn extreme(meter: &mut Meter, args: &[Value], wanted: Ordering) -> Result<Value, EvalError> {
    let values = match args {
        [Value::List(items)] => items.as_slice(),
        values => values,
    };
    let place = ops::extreme(meter, values, wanted)?;
    place
        .and_then(|place| values.get(place).cloned())
        .ok_or_else(|| EvalError::Missing("the greatest or least of an empty list".to_owned()))
}

fn number(args: &[Value]) -> Result<f64, EvalError> {
    match &args[0] {
        Value::Int(number) => Ok(ops::to_float(*number)),
        Value::Float(number) => Ok(*number),
        _ => Err(bad("math", args)),
    }
}

fn float(args: &[Value], apply: fn(f64) -> f64) -> Result<Value, EvalError> {
    number(args).map(apply).map(Value::Float)
}

fn test(args: &[Value], apply: fn(f64) -> bool) -> Result<Value, EvalError> {
    number(args).map(apply).map(Value::Bool)
}

fn absolute(_: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    match &args[0] {
        Value::Int(number) => number
            .checked_abs()
            .map(Value::Int)
            .ok_or_else(|| failed("`math.abs` overflows")),
        Value::Float(number) => Ok(Value::Float(number.abs())),
        _ => Err(bad("math.abs", args)),
    }
}

fn sign(_: &mut Meter, args: &[Value]) -> Result<Value, EvalError> {
    match &args[0] {
        Value::Int(number) => Ok(Value::Int(number.signum())),
        Value::Float(number) if *number == 0.0 || number.is_nan() => Ok(Value::Float(*number)),
        Value::Float(number) => Ok(Value::Float(number.signum())),
        _ => Err(bad("math.sign", args)),
    }
}
