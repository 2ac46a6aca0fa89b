//! Problems in our words, from the errors of CEL's parser.

use cel::{ParseError, ParseErrors};

use super::limits::{self, too_deep};
use crate::Problem;

pub(super) fn problems(source: &str, errors: &ParseErrors) -> Vec<Problem> {
    // After a syntax error the parser guesses, and most of what it says next is noise.
    let syntax = errors
        .errors
        .iter()
        .find(|error| error.msg.starts_with("Syntax error"));
    if let Some(error) = syntax {
        return problem(source, error);
    }
    errors
        .errors
        .iter()
        .flat_map(|error| problem(source, error))
        .collect()
}

fn problem(source: &str, error: &ParseError) -> Vec<Problem> {
    if error.msg == "UNKNOWN" || error.msg.contains("Recursion limit") {
        return too_deep(0..source.len());
    }
    let at = offset(source, error.pos);
    let word_end = source[at..]
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .map_or(source.len(), |length| at + length);
    let one = source[at..]
        .chars()
        .next()
        .map_or(at, |c| at + c.len_utf8());
    let (message, hint) = explain(&error.msg, source, at);
    vec![Problem {
        span: at..word_end.max(one),
        message,
        hint,
    }]
}

/// The byte of a line and column, both from one, columns in characters.
fn offset(source: &str, (line, column): (isize, isize)) -> usize {
    let before = usize::try_from(line - 1).unwrap_or(0);
    let column = usize::try_from(column - 1).unwrap_or(0);
    let start: usize = source
        .split_inclusive('\n')
        .take(before)
        .map(str::len)
        .sum();
    source[start..]
        .char_indices()
        .nth(column)
        .map_or(source.len(), |(place, _)| start + place)
}

fn explain(message: &str, source: &str, at: usize) -> (String, Option<String>) {
    let rest = &source[at..];
    if let Some(word) = message.strip_prefix("reserved identifier: ") {
        return (
            format!("`{word}` is a reserved word and cannot be a name"),
            Some("choose another name".to_owned()),
        );
    }
    let Some(syntax) = message.strip_prefix("Syntax error: ") else {
        return (other(message), None);
    };
    if rest.starts_with(['\'', '"']) && syntax.starts_with("token recognition") {
        return match limits::string_end(source.as_bytes(), at) {
            Some(_) => (
                INVALID_ESCAPE.to_owned(),
                Some("write a backslash as `\\\\`, or the text as `r'…'`".to_owned()),
            ),
            None => (
                "this text is not closed".to_owned(),
                Some("close it with the quote it opens with".to_owned()),
            ),
        };
    }
    let token: String = rest
        .chars()
        .enumerate()
        .take_while(|(place, c)| *place == 0 || c.is_alphanumeric() || *c == '_')
        .map(|(_, c)| c)
        .collect();
    if rest.trim().is_empty() {
        let hint = syntax
            .strip_prefix("missing ")
            .and_then(|missing| missing.split(" at ").next())
            .map(|token| format!("add {}", token.replace('\'', "`")));
        return ("the expression ends too early".to_owned(), hint);
    }
    let hint = match token.as_str() {
        "=" => Some("compare with `==`"),
        "&" => Some("the operator is `&&`"),
        "|" => Some("the operator is `||`"),
        "and" | "AND" => Some("write `&&`"),
        "or" | "OR" => Some("write `||`"),
        "not" | "NOT" => Some("write `!`"),
        _ => None,
    };
    (format!("unexpected `{token}`"), hint.map(str::to_owned))
}

const INVALID_ESCAPE: &str = "an escape in this text is not valid";

fn other(message: &str) -> String {
    if message.contains('?') {
        return "optional access (`?`) is not part of the language".to_owned();
    }
    if message.contains('`') {
        return "names in backticks are not part of the language; write `x['the name']`".to_owned();
    }
    if message.starts_with("invalid int literal") {
        return "the integer does not fit in 64 bits".to_owned();
    }
    if message.starts_with("invalid double literal") {
        return "the number is too large for a float".to_owned();
    }
    if message.starts_with("invalid string literal") || message.starts_with("invalid bytes literal")
    {
        return INVALID_ESCAPE.to_owned();
    }
    message.to_owned()
}
