//! Names and what they may be.

use std::sync::Arc;

use crate::limits;
use crate::yaml::Span;

use super::Context;

/// Words of CEL and of languages near it, which cannot be names in expressions.
const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// Names that mean something by themselves at the top of an expression.
const SCOPE: &[&str] = &[
    "attempt",
    "error",
    "index",
    "iteration",
    "output",
    "params",
    "run",
    "secrets",
    "signal",
    "signals",
    "steps",
    "vars",
];

impl Context<'_> {
    /// Checks a name that expressions use; `what` is "step", "parameter", ….
    pub(crate) fn expression_name(&mut self, name: &str, span: Span, what: &str) -> bool {
        if !self.name_length(name, span, what) {
            return false;
        }
        if RESERVED.contains(&name) {
            self.error_hint(
                "reserved-name",
                span,
                format!(
                    "`{name}` cannot name {}: expressions reserve the word",
                    one(what)
                ),
                format!("call it `{name}_` or something that says more"),
            );
            return false;
        }
        // Fields of data are read behind a dot, where they mean nothing else.
        if !matches!(what, "field" | "artifact" | "value") && SCOPE.contains(&name) {
            self.error_hint(
                "reserved-name",
                span,
                format!(
                    "`{name}` cannot name {}: it means something in every expression",
                    one(what)
                ),
                "choose a name that says what it is",
            );
            return false;
        }
        if is_identifier(name) {
            return true;
        }
        let message = format!(
            "`{name}` cannot name {}: letters, digits and `_`, not starting with a digit",
            one(what)
        );
        match identifier_like(name) {
            Some(better) => {
                self.error_hint("bad-name", span, message, format!("call it `{better}`"));
            }
            None => self.error("bad-name", span, message),
        }
        false
    }

    /// Checks a name that only people and the store see: workflows, queues.
    pub(crate) fn plain_name(&mut self, name: &str, span: Span, what: &str) -> bool {
        if !self.name_length(name, span, what) {
            return false;
        }
        let fine = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if !fine {
            self.error(
                "bad-name",
                span,
                format!("`{name}` cannot name {}: letters, digits, `-`, `_` and `.`, starting with a letter or digit", one(what)),
            );
        }
        fine
    }

    fn name_length(&mut self, name: &str, span: Span, what: &str) -> bool {
        let fine = name.len() <= limits::NAME_CHARS;
        if !fine {
            self.error(
                "limit",
                span,
                format!(
                    "the name of {} has at most {} characters",
                    one(what),
                    limits::NAME_CHARS
                ),
            );
        }
        fine
    }

    /// Warns of a list of names that one is in twice, and drops the second.
    pub(crate) fn without_repeats(
        &mut self,
        names: Vec<(Arc<str>, Span)>,
        what: &str,
    ) -> Vec<(Arc<str>, Span)> {
        let mut seen = std::collections::HashSet::new();
        let mut kept = Vec::with_capacity(names.len());
        for (name, span) in names {
            if seen.insert(name.clone()) {
                kept.push((name, span));
            } else {
                self.warn(
                    "repeated",
                    span,
                    format!("`{name}` is in `{what}` twice"),
                    "once is enough",
                );
            }
        }
        kept
    }
}

/// The word with its article.
fn one(what: &str) -> String {
    let article = if what.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {what}")
}

pub(crate) fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The name with what is not allowed replaced: `load-orders` is `load_orders`.
fn identifier_like(name: &str) -> Option<String> {
    let replaced: String = name
        .trim()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    let better = if replaced.starts_with(|c: char| c.is_ascii_digit()) {
        format!("_{replaced}")
    } else {
        replaced
    };
    (is_identifier(&better) && better.chars().any(|c| c != '_')).then_some(better)
}
