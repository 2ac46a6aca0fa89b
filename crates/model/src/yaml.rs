//! YAML and JSON text as a tree of nodes that know their place.
//!
//! Scalars stay as written: what a plain `no` or `1.10` means is decided by who reads the key.

mod build;
mod place;
mod recover;

pub(crate) use place::source_offset;

use std::fmt::Write as _;
use std::sync::Arc;

use saphyr_parser::Parser;
use serde_json::Value;

use build::Builder;

/// Bytes of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Text as YAML unfolds it, without a type.
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Wrong in a way already reported: whoever reads it says nothing more.
    Broken,
}

/// A scalar.
#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub(crate) text: Arc<str>,
    pub(crate) style: Style,
}

/// How a scalar was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Single,
    Double,
    Block,
}

/// An entry of a map.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Arc<str>,
    pub(crate) key_span: Span,
    pub(crate) value: Node,
}

/// A problem of the text itself.
pub(crate) struct Problem {
    pub(crate) code: &'static str,
    pub(crate) span: Span,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Node {
    pub(crate) fn scalar(&self) -> Option<&Scalar> {
        match &self.kind {
            Kind::Scalar(scalar) => Some(scalar),
            Kind::List(_) | Kind::Map(_) | Kind::Broken => None,
        }
    }

    pub(crate) fn map(&self) -> Option<&[Entry]> {
        match &self.kind {
            Kind::Map(entries) => Some(entries),
            Kind::Scalar(_) | Kind::List(_) | Kind::Broken => None,
        }
    }

    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.kind, Kind::Broken)
    }

    pub(crate) fn is_null(&self) -> bool {
        self.scalar().is_some_and(|scalar| {
            scalar.style == Style::Plain
                && matches!(&*scalar.text, "" | "~" | "null" | "Null" | "NULL")
        })
    }

    /// It as data: a plain scalar is the number, the boolean or the null that it reads as, and else text.
    fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Scalar(_) if self.is_null() => Value::Null,
            Kind::Scalar(scalar) if scalar.style == Style::Plain => {
                serde_json::from_str(&scalar.text).unwrap_or_else(|_| (*scalar.text).into())
            }
            Kind::Scalar(scalar) => (*scalar.text).into(),
            Kind::List(items) => items.iter().map(Self::to_json).collect(),
            Kind::Map(entries) => {
                let entries = entries.iter();
                let pairs = entries.map(|entry| (entry.key.to_string(), entry.value.to_json()));
                Value::Object(pairs.collect())
            }
            Kind::Broken => Value::Null,
        }
    }

    /// What it is, for messages.
    pub(crate) fn what(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar(_) if self.is_null() => "nothing",
            Kind::Scalar(_) => "a single value",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
            Kind::Broken => "broken",
        }
    }
}

/// The tree of the one document in `text`, with every problem found. No tree if the text cannot be
/// read to its end.
pub(crate) fn read(text: &str) -> (Option<Node>, Vec<Problem>) {
    let rewritten = join_surrogates(text);
    let (root, problems, _) = attempt(rewritten.as_deref().unwrap_or(text));
    (root, problems)
}

/// A definition as its author wrote it, as data; null if it cannot be read.
pub fn written(text: &str) -> Value {
    let (root, _) = read(text);
    root.map_or(Value::Null, |root| root.to_json())
}

/// What [`read_on`] came to.
pub(crate) struct ReadOn {
    /// The tree; values with mistakes in them are broken.
    pub(crate) root: Option<Node>,
    pub(crate) problems: Vec<Problem>,
    /// Some of the text is missing from the tree.
    pub(crate) partial: bool,
}

/// The same, but for mistakes of the text that can be looked past.
pub(crate) fn read_on(text: &str) -> ReadOn {
    let rewritten = join_surrogates(text);
    let text = rewritten.as_deref().unwrap_or(text);
    let (root, mut problems, stopped) = attempt(text);
    let Some((at, mistake)) = stopped.and_then(|at| Some((at, problems.pop()?))) else {
        return ReadOn {
            root,
            problems,
            partial: false,
        };
    };
    let (root, found) = recover::read_around(text, at, mistake);
    if root.is_some() {
        // What was found before the mistake is found again.
        problems = found;
    } else {
        problems.extend(found);
    }
    ReadOn {
        root,
        problems,
        partial: true,
    }
}

/// Reads a text once. The place is where it stops being YAML; the last problem says why.
fn attempt(text: &str) -> (Option<Node>, Vec<Problem>, Option<usize>) {
    let mut builder = Builder::new(text);
    let mut parser = Parser::new_from_str(text);
    let mut stopped = None;
    let finished = loop {
        match parser.next_event() {
            None => break true,
            Some(Ok((event, span))) => {
                let span = builder.offsets.span(span);
                if !builder.event(event, span) {
                    break false;
                }
            }
            Some(Err(error)) => {
                stopped = Some(builder.syntax_error(&error));
                break false;
            }
        }
    };
    let root = builder.root.take().filter(|_| finished);
    if finished && root.is_none() && builder.problems.is_empty() {
        builder.problem(
            "empty-file",
            Span::default(),
            "the file holds no workflow",
            "start with `workflow: <name>`",
        );
    }
    (root, builder.problems, stopped)
}

/// JSON writes characters beyond 16 bits as two escapes, which YAML does not know. Each pair is
/// replaced by YAML's own escape and an escaped line break, so that no offset moves.
fn join_surrogates(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut done = 0;
    for (at, _) in text.match_indices("\\u") {
        let unit = |at: usize| {
            let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
            u32::from_str_radix(digits, 16).ok()
        };
        let escaped = text[..at]
            .bytes()
            .rev()
            .take_while(|byte| *byte == b'\\')
            .count()
            % 2
            == 1;
        if let (Some(high @ 0xd800..0xdc00), Some(low @ 0xdc00..0xe000), false) =
            (unit(at), unit(at + 6), escaped)
        {
            let joined = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
            out.push_str(&text[done..at]);
            let _ = write!(out, "\\\n\\U{joined:08x}");
            done = at + 12;
        }
    }
    (done > 0).then(|| out + &text[done..])
}
