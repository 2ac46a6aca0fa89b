//! Text to a checked [`Spec`], with every problem of the file at once.
//!
//! Start reading at [`parse`], then `workflow` (the top level), `graph` (order and scope), `step`.
//! One pass: a graph's steps are read in the order of their needs, so the types of everything that
//! an expression may name are known when it is read. `yaml` keeps scalars as written; `read` says
//! what they mean; `scope` says which names an expression sees.

mod approval;
mod attempts;
mod containers;
mod cron;
mod deadline;
mod fields;
mod foreach;
mod graph;
mod names;
mod params;
mod read;
mod resources;
mod scope;
mod settings;
mod signals;
mod step;
mod template;
mod triggers;
mod useless;
mod values;
mod verbs;
mod workflow;

#[cfg(test)]
mod tests;

pub(crate) use params::references;
pub use values::values;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kapell_expr::Template;
use serde::Serialize;

use crate::diagnostic::{Diagnostic, Places, Severity};
use crate::limits;
use crate::spec::{LockBounds, Spec};
use crate::yaml::{self, Span};

/// What came of a file.
#[derive(Clone, Debug, Serialize)]
pub struct Parsed {
    /// The definition; none if there is an error among the diagnostics.
    pub spec: Option<Arc<Spec>>,
    /// Every problem found, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads and checks a workflow file, YAML 1.2 or JSON. `file_name` is for messages alone. Linear in
/// the size of the file; never panics, whatever the text.
pub fn parse(file_name: &str, text: &str) -> Parsed {
    let mut cx = Context::new(text);
    if text.len() > limits::DEFINITION_BYTES {
        let message = format!(
            "`{file_name}` has {} bytes; a workflow file has at most {}",
            text.len(),
            limits::DEFINITION_BYTES
        );
        cx.error("limit", Span::default(), message);
        return cx.finish(None);
    }
    let read = yaml::read_on(text);
    for problem in read.problems {
        cx.add(
            Severity::Error,
            problem.code,
            problem.span,
            problem.message,
            problem.hint,
        );
    }
    cx.partial = read.partial;
    let spec = read.root.and_then(|root| workflow::read(&mut cx, &root));
    cx.finish(spec)
}

/// The keys of the top level of a text; none if it cannot be read to its end or is no map.
pub fn top_level(text: &str) -> Option<Vec<Arc<str>>> {
    let (root, problems) = yaml::read(text);
    let root = root.filter(|_| problems.is_empty())?;
    let entries = root.map()?;
    Some(entries.iter().map(|entry| entry.key.clone()).collect())
}

/// True if the word `workflow` stands in a text as a key may, at whatever depth: all that can be said of
/// a text that cannot be read.
pub fn mentions_workflow(text: &str) -> bool {
    const WORD: &str = "workflow";
    text.match_indices(WORD).any(|(at, _)| {
        let rest = text[at + WORD.len()..].trim_start_matches(['"', '\'']);
        rest.trim_start().starts_with(':')
    })
}

/// What is carried through the reading of one file.
pub(crate) struct Context<'t> {
    text: &'t str,
    diagnostics: Vec<Diagnostic>,
    /// How many of each severity, those beyond the bound not counted.
    errors: usize,
    warnings: usize,
    reported: HashSet<(Span, String)>,
    /// Templates by their text: equal texts compile once.
    templates: HashMap<Arc<str>, template::Compiled>,
    /// Ids of inner steps with the container each is in, for hints.
    inner: HashMap<Arc<str>, Arc<str>>,
    /// Literal lock names with the bounds first seen.
    locks: HashMap<String, (LockBounds, Span)>,
    /// The run's own timeout, for the warning about longer ones inside.
    run_timeout: Option<jiff::SignedDuration>,
    /// Some of the file could not be read: what may only seem wrong without it is not said.
    partial: bool,
    /// Searches for a similar name that may still be made: each is linear in the names.
    suggestions: usize,
}

/// Problems that a part of the file which could not be read may only seem to cause.
const MAY_FOLLOW: &[&str] = &[
    "missing-key",
    "missing-need",
    "no-verb",
    "not-in-scope",
    "unknown-name",
    "unknown-need",
];

/// Searches for a similar name in one file.
const SUGGESTIONS: usize = 50;

impl<'t> Context<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            text,
            diagnostics: Vec::new(),
            errors: 0,
            warnings: 0,
            reported: HashSet::new(),
            templates: HashMap::new(),
            inner: HashMap::new(),
            locks: HashMap::new(),
            run_timeout: None,
            partial: false,
            suggestions: SUGGESTIONS,
        }
    }

    fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        span: Span,
        message: String,
        hint: Option<String>,
    ) {
        if self.partial && (severity == Severity::Warning || MAY_FOLLOW.contains(&code)) {
            return;
        }
        let message = shortened(message);
        let full = match severity {
            Severity::Error => self.full(),
            Severity::Warning => self.warnings > limits::DIAGNOSTICS,
        };
        // A value that is merged or aliased into many places has its problems once.
        if full || !self.reported.insert((span, message.clone())) {
            return;
        }
        match severity {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
        }
        self.diagnostics.push(Diagnostic {
            severity,
            code,
            message,
            hint: hint.map(shortened),
            span: span.start..span.end.max(span.start),
            line: 0,
            column: 0,
        });
    }

    pub(crate) fn error(&mut self, code: &'static str, span: Span, message: impl Into<String>) {
        self.add(Severity::Error, code, span, message.into(), None);
    }

    pub(crate) fn error_hint(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(
            Severity::Error,
            code,
            span,
            message.into(),
            Some(hint.into()),
        );
    }

    pub(crate) fn warn(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(
            Severity::Warning,
            code,
            span,
            message.into(),
            Some(hint.into()),
        );
    }

    /// Whether a search for a similar name may still be made.
    pub(crate) fn may_suggest(&self) -> bool {
        self.suggestions > 0
    }

    /// Whether so many errors are known that further ones are not kept.
    pub(crate) fn full(&self) -> bool {
        self.errors > limits::DIAGNOSTICS
    }

    /// The name most like `name`, if any is like it at all.
    pub(crate) fn nearest<'n>(
        &mut self,
        name: &str,
        known: impl IntoIterator<Item = &'n str>,
    ) -> Option<&'n str> {
        self.suggestions = self.suggestions.checked_sub(1)?;
        nearest(name, known)
    }

    fn finish(mut self, spec: Option<Spec>) -> Parsed {
        self.diagnostics.sort_by_key(|a| (a.span.start, a.span.end));
        let mut places = Places::new(self.text);
        for diagnostic in &mut self.diagnostics {
            (diagnostic.line, diagnostic.column) = places.next(diagnostic.span.start);
        }
        for (severity, what) in [(Severity::Error, "errors"), (Severity::Warning, "warnings")] {
            bounded(&mut self.diagnostics, severity, what);
        }
        let failed = self.diagnostics.iter().any(Diagnostic::is_error);
        Parsed {
            spec: spec.filter(|_| !failed).map(Arc::new),
            diagnostics: self.diagnostics,
        }
    }
}

/// Keeps the first of a severity and says that there were more.
fn bounded(diagnostics: &mut Vec<Diagnostic>, severity: Severity, what: &str) {
    let mut kept = 0;
    let mut last = None;
    diagnostics.retain(|diagnostic| {
        if diagnostic.severity != severity {
            return true;
        }
        kept += 1;
        if kept == limits::DIAGNOSTICS {
            last = Some(diagnostic.clone());
        }
        kept <= limits::DIAGNOSTICS
    });
    if kept > limits::DIAGNOSTICS {
        diagnostics.extend(last.map(|last| Diagnostic {
            code: "limit",
            message: format!(
                "more than {} {what}; the rest is not shown",
                limits::DIAGNOSTICS
            ),
            hint: None,
            ..last
        }));
    }
}

/// The name most like `name`, if any is like it at all.
pub fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    if name.len() > limits::NAME_CHARS {
        return None;
    }
    let lower = name.to_lowercase();
    known
        .into_iter()
        .map(|known| (likeness(&lower, &known.to_lowercase()), known))
        .filter(|(likeness, _)| *likeness > 0.82)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// The names most like `name`, the most like it first: at most so many.
pub fn nearest_few<'n>(
    name: &str,
    known: impl IntoIterator<Item = &'n str>,
    most: usize,
) -> Vec<&'n str> {
    if name.len() > limits::NAME_CHARS {
        return Vec::new();
    }
    let lower = name.to_lowercase();
    let mut near: Vec<(f64, &str)> = Vec::with_capacity(most + 1);
    for known in known {
        let likeness = likeness(&lower, &known.to_lowercase());
        let place = near.partition_point(|(better, _)| *better >= likeness);
        if likeness > 0.7 && place < most && near.iter().all(|(_, other)| *other != known) {
            near.insert(place, (likeness, known));
            near.truncate(most);
        }
    }
    near.into_iter().map(|(_, known)| known).collect()
}

/// From 0 to 1. A slip of one key, or of two in a long word, is always close.
fn likeness(a: &str, b: &str) -> f64 {
    let slips = if a.len() < 2 || a.len().abs_diff(b.len()) > 2 {
        usize::MAX
    } else {
        strsim::osa_distance(a, b)
    };
    let close = match slips {
        0 => 1.0,
        1 if a.len() > 2 => 0.95,
        2 if a.len() > 5 => 0.9,
        _ => 0.0,
    };
    strsim::jaro_winkler(a, b).max(close)
}

/// On one line and not longer than a message should be: names and texts are quoted in messages.
fn shortened(message: String) -> String {
    const MOST: usize = 400;
    if message.len() <= MOST && !message.contains('\n') {
        return message;
    }
    let mut short: String = message
        .chars()
        .take(MOST)
        .map(|c| if c == '\n' { ' ' } else { c })
        .collect();
    if short.len() < message.len() {
        short.push('…');
    }
    short
}

/// Text of a template that is known to be literal.
pub(crate) fn literal_text(template: &Template) -> Option<&str> {
    match template {
        Template::Literal(value) => value.as_str(),
        Template::Expr(_) | Template::Text(_) | Template::List(_) | Template::Map(_) => None,
    }
}
