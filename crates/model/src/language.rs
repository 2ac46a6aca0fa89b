//! The language as data: every key with its place, its form and what it means.
//!
//! One table drives the check for unknown keys with its suggestions, the JSON Schema for editors and
//! the reference, so none of them can lag behind another. `parse` may only ask for keys that are in
//! it.

mod reference;
mod schema;
mod settings;
mod signals;
mod step;
mod triggers;
mod workflow;

pub use reference::reference_markdown;
pub use schema::json_schema;
pub(crate) use settings::{
    ARTIFACTS, BACKOFF, DEBOUNCE, DEFAULTS, LOCK, OUTPUTS, PARAM, RESOURCES, RETENTION, RETRY,
    STRATEGY, TIMEOUT,
};
pub(crate) use signals::{AWAIT, EMIT, FAIRNESS, NOTIFY, OFF_PEAK};
pub(crate) use step::{
    AUTH, BRANCH, FAIL, FOREACH, HANDLER, HTTP, LOOP, PYTHON, SHELL, STEP, WAIT, WORKFLOW_CALL,
};
pub(crate) use triggers::{APPROVAL, CATCHUP, SIGNAL_SOURCE, TRIGGER, WEBHOOK};
pub(crate) use workflow::WORKFLOW;

/// A map with known keys.
pub(crate) struct Section {
    /// What messages call it: "a step", "`retry`".
    pub(crate) name: &'static str,
    /// Its name in the schema and its heading in the reference.
    pub(crate) title: &'static str,
    /// What it is.
    pub(crate) doc: &'static str,
    /// An example for the reference, or empty.
    pub(crate) example: &'static str,
    /// Its keys in the order of the reference.
    pub(crate) keys: &'static [Key],
    /// Keys beyond those.
    pub(crate) others: Others,
}

/// Keys of a [`Section`] that the user names.
pub(crate) enum Others {
    /// None.
    Refused,
    /// `x-…` with anything in it.
    Extensions,
    /// Names with a value of this form.
    Names(&'static Shape),
}

/// A key of a [`Section`].
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) doc: &'static str,
    /// What holds without it, for the reference; empty if that goes without saying.
    pub(crate) default: &'static str,
    pub(crate) required: bool,
    /// Says what a step does, or what a trigger waits for: each has exactly one.
    pub(crate) verb: bool,
    /// Using it is an error in this version.
    later: bool,
}

/// The form of a value.
pub(crate) enum Shape {
    /// Text without expressions.
    Literal,
    /// Text, with expressions inside if need be.
    Text,
    /// Any value, with expressions inside if need be.
    Value,
    /// Exactly one expression of type bool.
    Condition,
    /// Exactly one expression.
    Expression,
    /// Nothing, or an empty map.
    Empty,
    /// `true` or `false`.
    Bool,
    /// A whole number between these.
    Int(i64, i64),
    /// A number from this on.
    Number(f64),
    /// `10s`, `1h30m`.
    Duration,
    /// `512Mi`.
    Size,
    /// `8` or `90%`.
    Share,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// The type of a value: `int`, `list<string>`.
    Type,
    /// This, or an expression that gives it.
    Dyn(&'static Shape),
    /// A list of these.
    List(&'static Shape),
    /// A list of these, or one alone.
    OneOrMany(&'static Shape),
    /// Names to these.
    Map(&'static Shape),
    /// Any of these.
    AnyOf(&'static [Shape]),
    /// Steps by id. Not a `Map` of the section, which holds this form itself.
    Steps,
    /// A map with known keys.
    Section(&'static Section),
    /// Null, which unsets.
    Unset,
}

impl Section {
    /// The key of this name.
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

impl Key {
    const fn new(name: &'static str, shape: Shape, doc: &'static str) -> Self {
        Self {
            name,
            shape,
            doc,
            default: "",
            required: false,
            verb: false,
            later: false,
        }
    }

    /// True if using it is an error in this version.
    pub(crate) fn is_later(&self) -> bool {
        self.later
    }

    const fn required(self) -> Self {
        Self {
            required: true,
            ..self
        }
    }

    const fn verb(self) -> Self {
        Self { verb: true, ..self }
    }

    const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    const fn later(name: &'static str, doc: &'static str) -> Self {
        Self {
            name,
            shape: Shape::Value,
            doc,
            default: "",
            required: false,
            verb: false,
            later: true,
        }
    }
}
