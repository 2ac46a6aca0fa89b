//! The functions of the language: one table that the checker and the evaluator share.

mod cast;
mod format;
mod lists;
mod numbers;
mod text;
mod times;

pub(crate) use text::{compile, is_match};

use crate::eval::Meter;
use crate::{EvalError, Type, Value};

/// A function by name, with all the ways to call it.
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) signatures: &'static [Signature],
    pub(crate) run: Run,
}

/// Gets the receiver of a method as its first argument, and never a blob at the top of one.
type Run = fn(&mut Meter, &[Value]) -> Result<Value, EvalError>;

/// One way to call a function.
pub(crate) struct Signature {
    /// Called on its first argument: `text.size()`.
    pub(crate) method: bool,
    pub(crate) args: &'static [Arg],
    /// The last argument may be repeated.
    pub(crate) repeats: bool,
    /// The type of the result, from the types of the arguments.
    pub(crate) result: fn(&[Type]) -> Type,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// What an argument may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arg {
    Any,
    Bool,
    Int,
    Number,
    String,
    Bytes,
    List,
    ListOfText,
    ListOfNumber,
    ListOfOrdered,
    Map,
    Date,
    Timestamp,
    Duration,
}

impl Arg {
    /// Whether a value of this type may be passed. [`Type::Any`] always may.
    pub(crate) fn accepts(self, given: &Type) -> bool {
        match (self, given) {
            (_, Type::Any)
            | (Self::Any, _)
            | (Self::Bool, Type::Bool)
            | (Self::Int, Type::Int)
            | (Self::Number, Type::Int | Type::Float)
            | (Self::String, Type::String)
            | (Self::Bytes, Type::Bytes)
            | (Self::List, Type::List(_))
            | (Self::Map, Type::Map(_) | Type::Object(_))
            | (Self::Date, Type::Date)
            | (Self::Timestamp, Type::Timestamp)
            | (Self::Duration, Type::Duration) => true,
            (Self::ListOfText, Type::List(item)) => matches!(**item, Type::Any | Type::String),
            (Self::ListOfOrdered, Type::List(item)) => item.has_order(),
            (Self::ListOfNumber, Type::List(item)) => {
                matches!(**item, Type::Any | Type::Int | Type::Float | Type::Duration)
            }
            _ => false,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Number => "int or float",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::List => "list",
            Self::ListOfText => "list<string>",
            Self::ListOfNumber => "list of int, float or duration",
            Self::ListOfOrdered => "list of values that have an order",
            Self::Map => "map",
            Self::Date => "date",
            Self::Timestamp => "timestamp",
            Self::Duration => "duration",
        }
    }
}

/// A signature of a function.
const fn func(args: &'static [Arg], result: fn(&[Type]) -> Type) -> Signature {
    Signature {
        method: false,
        args,
        repeats: false,
        result,
    }
}

/// A signature of a method; the first argument is the receiver.
const fn method(args: &'static [Arg], result: fn(&[Type]) -> Type) -> Signature {
    Signature {
        method: true,
        args,
        repeats: false,
        result,
    }
}

/// A signature of a function whose last argument may be repeated.
const fn variadic(args: &'static [Arg], result: fn(&[Type]) -> Type) -> Signature {
    Signature {
        method: false,
        args,
        repeats: true,
        result,
    }
}

impl Signature {
    pub(crate) fn takes(&self, method: bool, count: usize) -> bool {
        let enough = if self.repeats {
            count >= self.args.len()
        } else {
            count == self.args.len()
        };
        self.method == method && enough
    }

    /// What the argument at `place` may be.
    pub(crate) fn arg(&self, place: usize) -> Arg {
        self.args
            .get(place)
            .or(self.args.last())
            .copied()
            .unwrap_or(Arg::Any)
    }
}

fn tables() -> impl Iterator<Item = &'static Function> {
    [
        cast::TABLE,
        lists::TABLE,
        numbers::TABLE,
        text::TABLE,
        times::TABLE,
    ]
    .into_iter()
    .flatten()
}

/// The function of this name that can be called this way.
pub(crate) fn find(name: &str, method: bool, count: usize) -> Option<&'static Function> {
    tables().find(|function| {
        function.name == name
            && function
                .signatures
                .iter()
                .any(|signature| signature.takes(method, count))
    })
}

/// Why [`find`] found nothing.
pub(crate) fn unknown(name: &str, method: bool, count: usize) -> String {
    let Some(function) = tables().find(|function| function.name == name) else {
        return format!("unknown function `{name}`");
    };
    let forms = function.signatures;
    let mut counts: Vec<usize> = forms
        .iter()
        .filter(|form| form.method == method)
        .map(|form| form.args.len() - usize::from(method))
        .collect();
    counts.dedup();
    let given = count - usize::from(method && count > 0);
    match counts.as_slice() {
        [] if method => format!("`{name}` is a function, not a method: `{name}(…)`"),
        [] => format!("`{name}` is a method: `x.{name}(…)`"),
        counts => {
            let counts: Vec<String> = counts.iter().map(usize::to_string).collect();
            let noun = if counts == ["1"] {
                "argument"
            } else {
                "arguments"
            };
            format!("`{name}` takes {} {noun}, not {given}", counts.join(" or "))
        }
    }
}

/// The names of all functions, for "did you mean".
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    tables().map(|function| function.name)
}

/// The error for arguments of types that no signature has.
fn bad(name: &str, args: &[Value]) -> EvalError {
    let types: Vec<&str> = args.iter().map(Value::type_name).collect();
    EvalError::Failed(format!("`{name}` does not work on {}", types.join(", ")))
}

fn failed(message: impl Into<String>) -> EvalError {
    EvalError::Failed(message.into())
}

/// A place or a count.
fn count(name: &str, number: i64) -> Result<usize, EvalError> {
    usize::try_from(number)
        .map_err(|_| failed(format!("`{name}` takes a number from 0, not {number}")))
}

fn int(number: usize) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn list_of(item: Type) -> Type {
    Type::List(std::sync::Arc::new(item))
}

/// The type of the items of the first argument.
fn item(args: &[Type]) -> Type {
    match args.first() {
        Some(Type::List(item)) => (**item).clone(),
        _ => Type::Any,
    }
}

/// The type of the first argument, which is a list.
fn same_list(args: &[Type]) -> Type {
    list_of(item(args))
}
