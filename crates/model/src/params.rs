//! Values of parameters: supplied ones checked, the others from their defaults.

use std::collections::BTreeSet;
use std::sync::Arc;

use kapell_expr::{Budget, EvalError, Map, Scope, Template, Type, Value};
use regex::Regex;

use crate::convert::from_source;
use crate::diagnostic::Diagnostic;
use crate::limits;
use crate::parse::{nearest, references};
use crate::spec::{Param, Spec};

pub use crate::convert::Source;

/// The parameters of a new run: what was supplied, checked against its type and bounds, and the
/// defaults of the rest, evaluated in the order in which they need each other. `run` is what
/// defaults may read of the run.
///
/// # Errors
/// All problems at once, without a place in a file. Codes: `unknown-param`, `fixed-param`,
/// `missing-param`, `bad-param`, `bad-default`, `limit`.
pub fn bind(
    spec: &Spec,
    supplied: &Map,
    source: Source,
    run: &Value,
) -> Result<Map, Vec<Diagnostic>> {
    bind_input(&spec.workflow, &spec.params, supplied, source, run)
}

/// The same for what somebody fills in where `of` asks for `params`.
///
/// # Errors
/// As [`bind`].
pub fn bind_input(
    of: &str,
    params: &[Param],
    supplied: &Map,
    source: Source,
    run: &Value,
) -> Result<Map, Vec<Diagnostic>> {
    let mut binding = Binding {
        of,
        params,
        run,
        values: Map::new(),
        failed: BTreeSet::new(),
        problems: Vec::new(),
    };
    for (name, value) in supplied {
        binding.supply(name, value, source);
    }
    for param in params {
        binding.fill(param);
    }
    let size: usize = binding
        .values
        .iter()
        .map(|(name, value)| name.len() + value.size())
        .sum();
    if size > limits::PARAMS_BYTES {
        let message = format!(
            "the parameters take {size} bytes, and at most {} are allowed",
            limits::PARAMS_BYTES
        );
        binding.problems.push(
            Diagnostic::without_place("limit", message)
                .hint("pass large data as a file or by its address"),
        );
    }
    if binding.problems.is_empty() {
        Ok(binding.values)
    } else {
        Err(binding.problems)
    }
}

/// One parameter of a run that is there already, checked against its type and bounds.
///
/// # Errors
/// Codes: `unknown-param`, `fixed-param`, `bad-param`.
pub fn check_param(
    spec: &Spec,
    name: &Arc<str>,
    value: &Value,
    source: Source,
) -> Result<Value, Diagnostic> {
    let mut binding = Binding {
        of: &spec.workflow,
        params: &spec.params,
        run: &Value::Null,
        values: Map::new(),
        failed: BTreeSet::new(),
        problems: Vec::new(),
    };
    binding.supply(name, value, source);
    match binding.problems.pop() {
        Some(problem) => Err(problem),
        None => Ok(binding.values.remove(name).unwrap_or_default()),
    }
}

struct Binding<'a> {
    /// Whose parameters they are.
    of: &'a str,
    params: &'a [Param],
    run: &'a Value,
    values: Map,
    /// Names whose problem is already said.
    failed: BTreeSet<Arc<str>>,
    problems: Vec<Diagnostic>,
}

impl Binding<'_> {
    fn problem(&mut self, code: &'static str, name: &str, message: String, hint: Option<String>) {
        self.failed.insert(name.into());
        self.problems.push(Diagnostic {
            hint,
            ..Diagnostic::without_place(code, message)
        });
    }

    fn supply(&mut self, name: &Arc<str>, value: &Value, source: Source) {
        let Some(param) = self.params.iter().find(|param| param.name == *name) else {
            let known = self.params.iter().map(|param| &*param.name);
            let hint = match nearest(name, known.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if self.params.is_empty() => "the workflow has no parameters".to_owned(),
                None => format!(
                    "its parameters are {}",
                    known.collect::<Vec<_>>().join(", ")
                ),
            };
            let message = format!("`{}` has no parameter `{name}`", self.of);
            return self.problem("unknown-param", name, message, Some(hint));
        };
        if param.fixed {
            let message = format!("`{name}` is fixed and cannot be set");
            return self.problem("fixed-param", name, message, None);
        }
        let bound = from_source(value, &param.ty, source)
            .and_then(|value| within(param, &value).map(|()| value));
        match bound {
            Ok(value) => {
                self.values.insert(name.clone(), value);
            }
            Err(why) => {
                let hint = (!param.description.is_empty()).then(|| param.description.clone());
                self.problem("bad-param", name, format!("`{name}` {why}"), hint);
            }
        }
    }

    /// Evaluates the default of a parameter that was not supplied, and those it reads first.
    fn fill(&mut self, param: &Param) {
        if self.values.contains_key(&param.name) || self.failed.contains(&param.name) {
            return;
        }
        let Some(default) = &param.default else {
            let hint = (!param.description.is_empty()).then(|| param.description.clone());
            let message = format!("`{}` is required: {}", param.name, param.ty);
            return self.problem("missing-param", &param.name, message, hint);
        };
        for name in references(default, "params") {
            if let Some(read) = self
                .params
                .iter()
                .find(|other| other.name == name && other.name != param.name)
            {
                self.fill(read);
            }
            if self.failed.contains(&name) {
                self.failed.insert(param.name.clone());
                return;
            }
        }
        let value = self
            .evaluate(default)
            .and_then(|value| from_source(&value, &param.ty, Source::Typed));
        match value.and_then(|value| within(param, &value).map(|()| value)) {
            Ok(value) => {
                self.values.insert(param.name.clone(), value);
            }
            Err(why) => {
                self.problem(
                    "bad-default",
                    &param.name,
                    format!("the default of `{}`: {why}", param.name),
                    None,
                );
            }
        }
    }

    fn evaluate(&self, default: &Template) -> Result<Value, String> {
        default
            .eval(
                &Names {
                    params: &self.values,
                    run: self.run,
                },
                Budget::default(),
            )
            .map_err(|error| error.to_string())
    }
}

/// What defaults read.
struct Names<'a> {
    params: &'a Map,
    run: &'a Value,
}

impl Scope for Names<'_> {
    fn resolve(&self, path: &[Arc<str>]) -> Result<Option<(Value, usize)>, EvalError> {
        let mut names = path.iter();
        Ok(match (names.next().map(|name| &**name), names.next()) {
            (Some("run"), _) => Some((self.run.clone(), 1)),
            (Some("params"), Some(name)) => match self.params.get(name) {
                Some(value) => Some((value.clone(), 2)),
                None => {
                    return Err(EvalError::Missing(format!(
                        "`params.{name}` has no value yet"
                    )));
                }
            },
            (Some("params"), None) => Some((Value::Map(Arc::new(self.params.clone())), 1)),
            _ => None,
        })
    }
}

/// Whether a value of the right type keeps to a parameter's bounds; the error says which it breaks.
pub(crate) fn within(param: &Param, value: &Value) -> Result<(), String> {
    if let Some(allowed) = &param.allowed
        && !allowed.contains(value)
    {
        let words: Vec<String> = allowed
            .iter()
            .map(|value| format!("`{}`", value.text()))
            .collect();
        let near = nearest_value(allowed, value).map(|near| format!("; did you mean `{near}`?"));
        return Err(format!(
            "must be one of {}, not `{}`{}",
            words.join(", "),
            value.text(),
            near.unwrap_or_default()
        ));
    }
    let (measured, what) = match value {
        Value::String(text) => (
            Value::Int(i64::try_from(text.chars().count()).unwrap_or(i64::MAX)),
            "length ",
        ),
        Value::List(items) => (
            Value::Int(i64::try_from(items.len()).unwrap_or(i64::MAX)),
            "length ",
        ),
        _ => (value.clone(), ""),
    };
    if let Some(min) = param.min.as_ref().filter(|min| less(&measured, min)) {
        return Err(format!(
            "must be at least {}, and its {what}value is {}",
            min.text(),
            measured.text()
        )
        .replace("length value", "length"));
    }
    if let Some(max) = param.max.as_ref().filter(|max| less(max, &measured)) {
        return Err(format!(
            "must be at most {}, and its {what}value is {}",
            max.text(),
            measured.text()
        )
        .replace("length value", "length"));
    }
    if let (Some(pattern), Value::String(text)) = (&param.pattern, value) {
        let matches = compile(pattern).is_ok_and(|regex| regex.is_match(text));
        if !matches {
            return Err(format!("must match `{pattern}`, and `{text}` does not"));
        }
    }
    if let (true, Value::String(path)) = (param.file, value) {
        let fine =
            !path.is_empty() && !path.starts_with('/') && path.split('/').all(|part| part != "..");
        if !fine {
            return Err(format!(
                "must name a file of the bundle, without `..`; `{path}` does not"
            ));
        }
    }
    Ok(())
}

fn nearest_value<'a>(allowed: &'a [Value], value: &Value) -> Option<&'a str> {
    nearest(value.as_str()?, allowed.iter().filter_map(Value::as_str))
}

/// Whether one bound value is less than another of the same type.
pub(crate) fn less(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a < b,
        #[expect(
            clippy::cast_precision_loss,
            reason = "bounds of floats may be written as ints"
        )]
        (Value::Int(a), Value::Float(b)) => (*a as f64) < *b,
        #[expect(
            clippy::cast_precision_loss,
            reason = "bounds of floats may be written as ints"
        )]
        (Value::Float(a), Value::Int(b)) => *a < *b as f64,
        (Value::Float(a), Value::Float(b)) => a < b,
        (Value::Date(a), Value::Date(b)) => a < b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a < b,
        (Value::Duration(a), Value::Duration(b)) => a < b,
        _ => false,
    }
}

/// A pattern that matches the whole text.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?:{pattern})$")).map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "it is too big".to_owned(),
        error => error
            .to_string()
            .lines()
            .last()
            .unwrap_or("it cannot be read")
            .trim_start_matches("error:")
            .trim()
            .to_owned(),
    })
}

/// The type as [`Type`] has it, or `file`.
pub fn type_name(param: &Param) -> String {
    if param.file {
        "file".to_owned()
    } else {
        Type::to_string(&param.ty)
    }
}

#[cfg(test)]
mod tests;
