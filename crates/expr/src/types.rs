//! Types, as far as they are known before anything runs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::Value;

/// What is known of a value before it exists. [`Type::Any`] is "could be anything": every
/// operation on it is accepted and checked when it runs.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Type {
    /// Unknown until it runs.
    Any,
    /// Null alone.
    Null,
    /// `bool`.
    Bool,
    /// `int`.
    Int,
    /// `float`.
    Float,
    /// `string`.
    String,
    /// `bytes`.
    Bytes,
    /// `date`.
    Date,
    /// `timestamp`.
    Timestamp,
    /// `duration`.
    Duration,
    /// `list<T>`.
    List(Arc<Type>),
    /// `map<T>`: text keys, values of one type.
    Map(Arc<Type>),
    /// A map whose fields are known.
    Object(Arc<Object>),
}

/// The known fields of a map.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Object {
    /// What it is called in messages: `params`, `steps`, `steps.load`.
    pub name: String,
    /// The fields by name.
    pub fields: BTreeMap<String, Type>,
    /// Names that exist but may not be used here, each with the hint that says why and what to do.
    pub hidden: BTreeMap<String, String>,
    /// Other fields may exist too; reading one is not an error.
    pub open: bool,
}

/// The names in scope when an expression is checked: `params`, `steps`, `run`, variables.
pub type TypeScope = Object;

/// Items of a list looked at to find the type of all.
const MAX_ITEMS: usize = 1000;
/// Deepest nesting of a written type.
const MAX_NESTING: usize = 16;
/// The names of types as users write them.
const NAMES: [(&str, Type); 11] = [
    ("any", Type::Any),
    ("null", Type::Null),
    ("bool", Type::Bool),
    ("int", Type::Int),
    ("float", Type::Float),
    ("string", Type::String),
    ("bytes", Type::Bytes),
    ("date", Type::Date),
    ("timestamp", Type::Timestamp),
    ("duration", Type::Duration),
    // What a file is, an expression cannot look into.
    ("file", Type::Any),
];

impl Type {
    /// Reads a type as users write it: `int`, `list<string>`, `map<list<float>>`. `list` and `map`
    /// alone hold anything, and `file` is [`Type::Any`]. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse_type(text.trim(), 0)
    }

    /// The type of a value. A blob, whose content is not there, is [`Type::Any`].
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Bool,
            Value::Int(_) => Self::Int,
            Value::Float(_) => Self::Float,
            Value::String(_) => Self::String,
            Value::Bytes(_) => Self::Bytes,
            Value::Date(_) => Self::Date,
            Value::Timestamp(_) => Self::Timestamp,
            Value::Duration(_) => Self::Duration,
            Value::Blob(_) => Self::Any,
            Value::List(items) if items.len() > MAX_ITEMS => Self::List(Arc::new(Self::Any)),
            Value::List(items) => {
                let types: Vec<Self> = items.iter().map(Self::of).collect();
                Self::List(Arc::new(Self::join_all(&types)))
            }
            Value::Map(map) => Self::Object(Arc::new(Object {
                name: "the map".to_owned(),
                fields: map
                    .iter()
                    .map(|(key, value)| (key.to_string(), Self::of(value)))
                    .collect(),
                ..Object::default()
            })),
        }
    }

    /// Whether a value is of this type. An int is accepted as a float, a blob as anything. A map
    /// has the type of an object if it has all its fields, and no others unless it is open.
    pub fn accepts(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Any, _)
            | (_, Value::Blob(_))
            | (Self::Null, Value::Null)
            | (Self::Bool, Value::Bool(_))
            | (Self::Int | Self::Float, Value::Int(_))
            | (Self::Float, Value::Float(_))
            | (Self::String, Value::String(_))
            | (Self::Bytes, Value::Bytes(_))
            | (Self::Date, Value::Date(_))
            | (Self::Timestamp, Value::Timestamp(_))
            | (Self::Duration, Value::Duration(_)) => true,
            (Self::List(item), Value::List(items)) => items.iter().all(|value| item.accepts(value)),
            (Self::Map(item), Value::Map(map)) => map.values().all(|value| item.accepts(value)),
            (Self::Object(object), Value::Map(map)) => {
                let complete = object.fields.iter().all(|(name, field)| {
                    map.get(name.as_str())
                        .is_some_and(|value| field.accepts(value))
                });
                complete
                    && (object.open || map.keys().all(|key| object.fields.contains_key(&**key)))
            }
            _ => false,
        }
    }

    /// The narrowest type that holds the values of both, as the two branches of a condition.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a.clone(),
            (Self::Int | Self::Float, Self::Int | Self::Float) => Self::Float,
            (Self::List(a), Self::List(b)) => Self::List(Arc::new(a.join(b))),
            (Self::Map(a), Self::Map(b)) => Self::Map(Arc::new(a.join(b))),
            (Self::Object(a), Self::Object(b)) => Self::Object(Arc::new(a.join(b))),
            (Self::Map(_), Self::Object(_)) | (Self::Object(_), Self::Map(_)) => {
                Self::Map(Arc::new(Self::Any))
            }
            _ => Self::Any,
        }
    }

    /// Whether values of this type can be put in order.
    pub(crate) fn has_order(&self) -> bool {
        !matches!(
            self,
            Self::Null | Self::List(_) | Self::Map(_) | Self::Object(_)
        )
    }

    /// [`Type::join`] of many; of none it is [`Type::Any`].
    pub fn join_all(types: &[Self]) -> Self {
        match types {
            [] => Self::Any,
            [first, rest @ ..] => rest
                .iter()
                .fold(first.clone(), |joined, next| joined.join(next)),
        }
    }
}

impl Object {
    /// The fields that both have; others may exist.
    fn join(&self, other: &Self) -> Self {
        let fields = self
            .fields
            .iter()
            .filter_map(|(name, field)| Some((name.clone(), field.join(other.fields.get(name)?))))
            .collect();
        Self {
            name: self.name.clone(),
            fields,
            hidden: BTreeMap::new(),
            open: true,
        }
    }
}

fn parse_type(text: &str, depth: usize) -> Result<Type, String> {
    if depth > MAX_NESTING {
        return Err(format!("the type nests deeper than {MAX_NESTING} levels"));
    }
    if let Some((_, found)) = NAMES.iter().find(|(name, _)| *name == text) {
        return Ok(found.clone());
    }
    let (outer, inner) = match text.split_once('<') {
        None => (text, "any"),
        Some((outer, rest)) => {
            let inner = rest
                .strip_suffix('>')
                .ok_or_else(|| format!("the type `{text}` lacks its `>`"))?;
            (outer.trim(), inner.trim())
        }
    };
    match outer {
        "list" => Ok(Type::List(Arc::new(parse_type(inner, depth + 1)?))),
        "map" => Ok(Type::Map(Arc::new(parse_type(inner, depth + 1)?))),
        other => {
            let names = NAMES
                .iter()
                .map(|(name, _)| *name)
                .chain(["list<T>", "map<T>"]);
            let hint = match crate::check::nearest(other, names.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the types are {}", names.collect::<Vec<_>>().join(", ")),
            };
            Err(format!("unknown type `{other}`; {hint}"))
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Float => f.write_str("float"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Date => f.write_str("date"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(item) => write!(f, "list<{item}>"),
            Self::Map(item) => write!(f, "map<{item}>"),
            Self::Object(_) => f.write_str("map<any>"),
        }
    }
}
