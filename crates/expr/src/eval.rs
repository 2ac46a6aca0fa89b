//! The evaluator: walks the compiled form, pays for every step.

mod macros;
mod meter;
pub(crate) mod ops;

pub(crate) use meter::Meter;

use std::sync::Arc;

use crate::ast::{BinaryOp, Call, Kind, Node, Path};
use crate::{Budget, EvalError, Map, Program, Scope, Value, functions};

/// One evaluation: its scope, what is left of its budget, the variables of macros.
pub(crate) struct Machine<'a> {
    scope: &'a dyn Scope,
    pub(crate) meter: Meter,
    locals: Vec<Value>,
}

impl<'a> Machine<'a> {
    pub(crate) fn new(scope: &'a dyn Scope, budget: Budget) -> Self {
        Self {
            scope,
            meter: Meter::new(budget),
            locals: Vec::new(),
        }
    }

    /// The value of one program. The bounds on the result are the caller's to apply.
    pub(crate) fn run(&mut self, program: &Program) -> Result<Value, EvalError> {
        let parsed = program.parsed();
        self.meter.depth(parsed.depth)?;
        self.eval(&parsed.root)
    }

    /// The value of a part of a program that is inside no macro.
    pub(crate) fn part(&mut self, program: &Program, node: &Node) -> Result<Value, EvalError> {
        self.meter.depth(program.parsed().depth)?;
        self.eval(node)
    }

    fn eval(&mut self, node: &Node) -> Result<Value, EvalError> {
        self.meter.step()?;
        match &node.kind {
            Kind::Literal(value) => Ok(value.clone()),
            Kind::Path(path) => self.path(path),
            Kind::Local { slot, name } => self
                .locals
                .get(*slot)
                .cloned()
                .ok_or_else(|| EvalError::Missing(format!("unknown name `{name}`"))),
            Kind::Select { operand, field } => select(&self.eval(operand)?, &field.text),
            Kind::Has { operand, field } => has(&self.eval(operand)?, &field.text).map(Value::Bool),
            Kind::HasPath(path) => self.has_path(path).map(Value::Bool),
            Kind::Index { operand, index } => {
                let operand = self.eval(operand)?;
                index_value(&operand, &self.eval(index)?)
            }
            Kind::Not(operand) => match self.eval(operand)? {
                Value::Bool(truth) => Ok(Value::Bool(!truth)),
                other => Err(wrong("`!` needs a bool", &other)),
            },
            Kind::Negate(operand) => ops::negate(&self.eval(operand)?),
            Kind::And(sides) => self.logic(sides, false),
            Kind::Or(sides) => self.logic(sides, true),
            Kind::Cond(parts) => match self.eval(&parts[0])? {
                Value::Bool(true) => self.eval(&parts[1]),
                Value::Bool(false) => self.eval(&parts[2]),
                other => Err(wrong("the condition before `?` must be a bool", &other)),
            },
            Kind::Binary(op, sides) => self.binary(*op, sides),
            Kind::List(items) => {
                let values: Result<Vec<_>, _> = items.iter().map(|item| self.eval(item)).collect();
                values.map(Value::list)
            }
            Kind::Map(entries) => self.map_literal(entries),
            Kind::Macro(call) => self.macro_call(call),
            Kind::Coalesce(args) => self.coalesce(args),
            Kind::Call(call) => self.call(call),
        }
    }

    fn path(&mut self, path: &Path) -> Result<Value, EvalError> {
        let Some((value, used)) = self.scope.resolve(&path.names)? else {
            return Err(EvalError::Missing(format!(
                "unknown name `{}`",
                path.names[0]
            )));
        };
        self.meter.charge(path.names.len())?;
        let rest = path.names.get(used..).unwrap_or_default();
        rest.iter()
            .try_fold(value, |value, name| select(&value, name))
    }

    /// An error before the last name is one, as in `has(a.b)` where `a` is unknown; only a missing
    /// last name is `false`.
    fn has_path(&mut self, path: &Path) -> Result<bool, EvalError> {
        self.meter.charge(path.names.len())?;
        let Some((field, parents)) = path.names.split_last() else {
            return Ok(false);
        };
        match self.scope.resolve(&path.names) {
            Ok(Some((_, used))) if used >= path.names.len() => return Ok(true),
            Ok(Some((value, used))) => {
                let rest = parents.get(used..).unwrap_or_default();
                let parent = rest
                    .iter()
                    .try_fold(value, |value, name| select(&value, name))?;
                return has(&parent, field);
            }
            Ok(None) | Err(EvalError::Missing(_)) => {}
            Err(other) => return Err(other),
        }
        let Some((value, used)) = self.scope.resolve(parents)? else {
            return Err(EvalError::Missing(format!(
                "unknown name `{}`",
                path.names[0]
            )));
        };
        let rest = parents.get(used..).unwrap_or_default();
        rest.iter()
            .try_fold(value, |value, name| select(&value, name))?;
        Ok(false)
    }

    /// `&&` and `||`: the side that decides wins over an error in the other, whichever comes first.
    fn logic(&mut self, sides: &[Node; 2], decides: bool) -> Result<Value, EvalError> {
        let left = self.truth(&sides[0]);
        match &left {
            Ok(truth) if *truth == decides => return Ok(Value::Bool(decides)),
            Err(EvalError::Budget(_)) => return left.map(Value::Bool),
            _ => {}
        }
        let right = self.truth(&sides[1]);
        combine(left, right, decides).map(Value::Bool)
    }

    fn truth(&mut self, node: &Node) -> Result<bool, EvalError> {
        match self.eval(node)? {
            Value::Bool(truth) => Ok(truth),
            other => Err(wrong("a condition must be a bool", &other)),
        }
    }

    fn binary(&mut self, op: BinaryOp, sides: &[Node; 2]) -> Result<Value, EvalError> {
        let left = self.eval(&sides[0])?;
        let right = self.eval(&sides[1])?;
        ops::binary(&mut self.meter, op, &left, &right)
    }

    fn map_literal(&mut self, entries: &[(Node, Node)]) -> Result<Value, EvalError> {
        let mut map = Map::new();
        for (key, value) in entries {
            let key = match self.eval(key)? {
                Value::String(key) => key,
                other => return Err(wrong("a map key must be text", &other)),
            };
            let value = self.eval(value)?;
            if map.contains_key(&key) {
                return Err(EvalError::Failed(format!(
                    "the map has the key `{key}` twice"
                )));
            }
            map.insert(key, value);
        }
        Ok(Value::Map(Arc::new(map)))
    }

    /// The first value that is there and not null; of the last, whatever it is.
    fn coalesce(&mut self, args: &[Node]) -> Result<Value, EvalError> {
        let (last, others) = args.split_last().ok_or_else(|| {
            EvalError::Failed("`coalesce` takes one or more arguments".to_owned())
        })?;
        for arg in others {
            match self.eval(arg) {
                Ok(Value::Null) | Err(EvalError::Missing(_)) => {}
                other => return other,
            }
        }
        self.eval(last)
    }

    fn call(&mut self, call: &Call) -> Result<Value, EvalError> {
        let Some(function) = call.function else {
            return Err(EvalError::Failed(functions::unknown(
                &call.name.text,
                call.method,
                call.args.len(),
            )));
        };
        if let [arg] = call.args.as_slice() {
            let value = [self.eval(arg)?];
            no_blob(&value)?;
            return (function.run)(&mut self.meter, &value);
        }
        let args: Result<Vec<_>, _> = call.args.iter().map(|arg| self.eval(arg)).collect();
        let args = args?;
        no_blob(&args)?;
        if let (Some(regex), Some(Value::String(text))) = (&call.regex, args.first()) {
            return functions::is_match(&mut self.meter, regex, text);
        }
        (function.run)(&mut self.meter, &args)
    }
}

/// One step of `&&` (`decides` false) or `||` (`decides` true).
fn combine(
    left: Result<bool, EvalError>,
    right: Result<bool, EvalError>,
    decides: bool,
) -> Result<bool, EvalError> {
    match (left, right) {
        (_, Err(EvalError::Budget(text))) => Err(EvalError::Budget(text)),
        (Ok(left), _) if left == decides => Ok(decides),
        (_, Ok(right)) if right == decides => Ok(decides),
        // What a load may still decide is not an error yet.
        (_, Err(EvalError::Need(blob))) => Err(EvalError::Need(blob)),
        (Err(left), _) => Err(left),
        (Ok(_), right) => right,
    }
}

fn no_blob(values: &[Value]) -> Result<(), EvalError> {
    match values.iter().find_map(|value| match value {
        Value::Blob(blob) => Some(blob),
        _ => None,
    }) {
        Some(blob) => Err(EvalError::Need(blob.clone())),
        None => Ok(()),
    }
}

/// The error for a value of the wrong type; a blob must be loaded first.
pub(crate) fn wrong(what: &str, value: &Value) -> EvalError {
    match value {
        Value::Blob(blob) => EvalError::Need(blob.clone()),
        other => EvalError::Failed(format!("{what}, not {}", other.type_name())),
    }
}

fn select(value: &Value, field: &str) -> Result<Value, EvalError> {
    match value {
        Value::Map(map) => map
            .get(field)
            .cloned()
            .ok_or_else(|| missing_field(map, field)),
        Value::Null => Err(EvalError::Missing(format!("null has no field `{field}`"))),
        other => Err(wrong(&format!("the field `{field}` needs a map"), other)),
    }
}

/// Above this many names nobody looks for the one that was meant.
const MAX_NAMES_COMPARED: usize = 32;

fn missing_field(map: &Map, field: &str) -> EvalError {
    let text = format!("there is no field `{field}`");
    if map.len() <= MAX_NAMES_COMPARED
        && let Some(near) = crate::check::nearest(field, map.keys().map(|key| &**key))
    {
        return EvalError::Missing(format!("{text}; did you mean `{near}`?"));
    }
    EvalError::Missing(text)
}

fn has(value: &Value, field: &str) -> Result<bool, EvalError> {
    match value {
        Value::Map(map) => Ok(map.contains_key(field)),
        Value::Null => Ok(false),
        other => Err(wrong(
            &format!("`has` of the field `{field}` needs a map"),
            other,
        )),
    }
}

fn index_value(operand: &Value, index: &Value) -> Result<Value, EvalError> {
    match (operand, index) {
        (Value::Map(_) | Value::Null, Value::String(field)) => select(operand, field),
        (Value::Map(_), other) => Err(wrong("a map key must be text", other)),
        (Value::List(items), _) => {
            let place = list_place(index)?;
            let item = usize::try_from(place)
                .ok()
                .and_then(|place| items.get(place));
            item.cloned().ok_or_else(|| {
                EvalError::Missing(format!(
                    "there is no item {place} in a list of {}",
                    items.len()
                ))
            })
        }
        (Value::Null, _) => Err(EvalError::Missing("null has no items".to_owned())),
        (other, _) => Err(wrong("`[…]` needs a list or a map", other)),
    }
}

fn list_place(index: &Value) -> Result<i64, EvalError> {
    match index {
        Value::Int(place) => Ok(*place),
        Value::Float(place) => ops::exact_int(*place)
            .ok_or_else(|| EvalError::Failed("a list index must be a whole number".to_owned())),
        other => Err(wrong("a list index must be an int", other)),
    }
}

#[cfg(test)]
mod tests;
