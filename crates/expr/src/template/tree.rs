//! Trees of templates: from and to the values they are written as.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use super::{Part, Template, Text, scan};
use crate::{Map, Object, Problem, Program, Type, TypeScope, Value};

/// Deepest nesting of lists and maps.
const MAX_DEPTH: usize = 96;

impl Template {
    /// A value taken as it is: `${{` inside means nothing.
    pub fn literal(value: Value) -> Self {
        Self::Literal(value)
    }

    /// Parses every text inside `value`. Each problem comes with the path to its scalar, as
    /// `steps[0].name`, empty for `value` itself; its span is in that scalar.
    pub fn from_value(value: &Value) -> Result<Self, Vec<(String, Problem)>> {
        let mut problems = Vec::new();
        let template = build(value, &mut String::new(), 0, &mut problems);
        if problems.is_empty() {
            Ok(template)
        } else {
            Err(problems)
        }
    }

    /// The value this was written as; [`Template::from_value`] reads it back.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Literal(value) => escaped(value),
            Self::Expr(program) => Value::from(format!(
                "{}{}{}",
                scan::OPEN,
                program.written().0,
                scan::CLOSE
            )),
            Self::Text(text) => Value::String(text.source.clone()),
            Self::List(items) => Value::list(items.iter().map(Self::to_value).collect()),
            Self::Map(entries) => {
                let map: Map = entries
                    .iter()
                    .map(|(key, value)| (key.clone(), value.to_value()))
                    .collect();
                Value::Map(Arc::new(map))
            }
        }
    }

    /// Whether there is neither expression nor secret inside.
    pub fn is_literal(&self) -> bool {
        matches!(self, Self::Literal(_))
    }

    /// The value, if there is neither expression nor secret inside.
    pub fn as_literal(&self) -> Option<&Value> {
        match self {
            Self::Literal(value) => Some(value),
            Self::Expr(_) | Self::Text(_) | Self::List(_) | Self::Map(_) => None,
        }
    }

    /// All expressions inside, in order.
    pub fn programs(&self) -> Vec<&Program> {
        let mut programs = Vec::new();
        self.walk(&mut |template| match template {
            Self::Expr(program) => programs.push(program),
            Self::Text(text) => programs.extend(text.programs()),
            Self::Literal(_) | Self::List(_) | Self::Map(_) => {}
        });
        programs
    }

    /// The names of all secrets inside, in order, with repetition.
    pub fn secrets(&self) -> Vec<Arc<str>> {
        let mut secrets = Vec::new();
        self.walk(&mut |template| {
            if let Self::Text(text) = template {
                secrets.extend(text.secrets());
            }
        });
        secrets
    }

    fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Self)) {
        visit(self);
        match self {
            Self::List(items) => items.iter().for_each(|item| item.walk(visit)),
            Self::Map(entries) => entries.iter().for_each(|(_, value)| value.walk(visit)),
            Self::Literal(_) | Self::Expr(_) | Self::Text(_) => {}
        }
    }
}

/// Errors of the tree: the path to the scalar and what is wrong there.
type Found = Vec<(String, Problem)>;

fn build(value: &Value, path: &mut String, depth: usize, problems: &mut Found) -> Template {
    if depth > MAX_DEPTH {
        let message = format!("the value nests deeper than {MAX_DEPTH} levels");
        problems.push((
            path.clone(),
            Problem {
                span: 0..0,
                message,
                hint: None,
            },
        ));
        return Template::Literal(Value::Null);
    }
    match value {
        Value::String(text) => match Template::parse(text) {
            Ok(template) => template,
            Err(found) => {
                problems.extend(found.into_iter().map(|problem| (path.clone(), problem)));
                Template::Literal(Value::Null)
            }
        },
        Value::List(items) => build_list(items, path, depth, problems),
        Value::Map(map) => build_map(map, path, depth, problems),
        other => Template::Literal(other.clone()),
    }
}

fn build_list(items: &[Value], path: &mut String, depth: usize, problems: &mut Found) -> Template {
    let length = path.len();
    let mut built = Vec::with_capacity(items.len());
    for (place, item) in items.iter().enumerate() {
        let _ = write!(path, "[{place}]");
        built.push(build(item, path, depth + 1, problems));
        path.truncate(length);
    }
    let literals: Option<Vec<Value>> = built
        .iter()
        .map(|item| item.as_literal().cloned())
        .collect();
    match literals {
        Some(values) => Template::Literal(Value::list(values)),
        None => Template::List(built.into()),
    }
}

fn build_map(map: &Map, path: &mut String, depth: usize, problems: &mut Found) -> Template {
    let length = path.len();
    let mut built = Vec::with_capacity(map.len());
    for (key, value) in map {
        if length > 0 {
            path.push('.');
        }
        path.push_str(key);
        built.push((key.clone(), build(value, path, depth + 1, problems)));
        path.truncate(length);
    }
    let literals: Option<Map> = built
        .iter()
        .map(|(key, value)| Some((key.clone(), value.as_literal()?.clone())))
        .collect();
    match literals {
        Some(values) => Template::Literal(Value::Map(Arc::new(values))),
        None => Template::Map(built.into()),
    }
}

/// The value whose texts read back as these literals.
fn escaped(value: &Value) -> Value {
    match value {
        Value::String(text) if text.contains(scan::OPEN) => Value::from(scan::escape(text)),
        Value::List(items) => Value::list(items.iter().map(escaped).collect()),
        Value::Map(map) => {
            let map: Map = map
                .iter()
                .map(|(key, value)| (key.clone(), escaped(value)))
                .collect();
            Value::Map(Arc::new(map))
        }
        other => other.clone(),
    }
}

pub(super) fn check_list(items: &[Template], scope: &TypeScope) -> (Type, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut types = Vec::with_capacity(items.len());
    for item in items {
        let (found, more) = item.check(scope);
        types.push(found);
        problems.extend(more);
    }
    (Type::List(Arc::new(Type::join_all(&types))), problems)
}

pub(super) fn check_map(
    entries: &[(Arc<str>, Template)],
    scope: &TypeScope,
) -> (Type, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut fields = BTreeMap::new();
    for (key, value) in entries {
        let (found, more) = value.check(scope);
        fields.insert(key.to_string(), found);
        problems.extend(more);
    }
    let object = Object {
        name: "the map".to_owned(),
        fields,
        ..Object::default()
    };
    (Type::Object(Arc::new(object)), problems)
}

/// The first problem, for errors of deserialising.
fn first(problems: &Found) -> String {
    match problems.first() {
        Some((path, problem)) if path.is_empty() => problem.message.clone(),
        Some((path, problem)) => format!("{path}: {}", problem.message),
        None => "not a template".to_owned(),
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::from_value(&value).map_err(|problems| D::Error::custom(first(&problems)))
    }
}

impl Text {
    /// Parses text in which each expression is formatted, also when it is the whole text.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let part = match Template::parse(text)? {
            Template::Text(found) => return Ok(found),
            Template::Expr(program) => Part::Expr(program),
            Template::Literal(value) => Part::Literal(value.text().into()),
            Template::List(_) | Template::Map(_) => Part::Literal(text.into()),
        };
        Ok(Self {
            source: text.into(),
            parts: [part].into(),
        })
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.source)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let source = String::deserialize(deserializer)?;
        Self::parse(&source).map_err(|problems| {
            D::Error::custom(
                problems
                    .first()
                    .map_or("not a template", |problem| &problem.message),
            )
        })
    }
}
