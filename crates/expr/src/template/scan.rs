//! Finding the expressions in a text.

use std::ops::Range;

use crate::Problem;
use crate::parse::limits;

/// Starts an expression.
pub(super) const OPEN: &str = "${{";
/// Ends one.
pub(super) const CLOSE: &str = "}}";
/// Stands for a literal [`OPEN`].
pub(super) const ESCAPED: &str = "$${{";

/// A piece of a text.
#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    /// Text with escapes resolved.
    Literal(String),
    /// The bytes between the braces of an expression.
    Expr(Range<usize>),
}

/// Cuts a text into literals and expressions, in order; no literal is empty.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, Problem> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(found) = text[at..].find(OPEN).map(|length| at + length) {
        if text[at..found].ends_with('$') {
            literal.push_str(&text[at..found - 1]);
            literal.push_str(OPEN);
            at = found + OPEN.len();
            continue;
        }
        literal.push_str(&text[at..found]);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
        }
        let start = found + OPEN.len();
        let end = close(text, found)?;
        pieces.push(Piece::Expr(start..end));
        at = end + CLOSE.len();
    }
    literal.push_str(&text[at..]);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

/// Where the braces that close the expression at `open` start: the first outside of CEL's texts,
/// comments and braces.
fn close(text: &str, open: usize) -> Result<usize, Problem> {
    let bytes = text.as_bytes();
    let mut at = open + OPEN.len();
    let mut braces: Vec<usize> = Vec::new();
    // The inner brace that the first of two closing ones belonged to: one brace is too few.
    let mut short = None;
    while at < bytes.len() {
        match bytes[at] {
            b'\'' | b'"' => match limits::string_end(bytes, at) {
                Some(end) => {
                    at = end;
                    continue;
                }
                None => return Err(unclosed(text, open, Some((at, "the quote")))),
            },
            b'{' => braces.push(at),
            b'}' if braces.is_empty() && bytes.get(at + 1) == Some(&b'}') => return Ok(at),
            b'}' => {
                let doubled = bytes.get(at + 1) == Some(&b'}');
                short = braces.pop().filter(|_| doubled).or(short);
            }
            _ => {
                // In a comment nothing counts, but the expression may end on its line.
                if let Some(end) = limits::skip(bytes, at) {
                    at = text[at..end].find(CLOSE).map_or(end, |length| at + length);
                    continue;
                }
            }
        }
        at += 1;
    }
    let brace = braces.last().copied().or(short).map(|at| (at, "the brace"));
    Err(unclosed(text, open, brace))
}

fn unclosed(text: &str, open: usize, inner: Option<(usize, &str)>) -> Problem {
    let hint = match inner {
        Some((at, what)) => {
            let line = text[..at].matches('\n').count() + 1;
            let place = if text.contains('\n') {
                format!(" on line {line}")
            } else {
                String::new()
            };
            format!(
                "{what} `{}` that opens{place} inside it is not closed",
                &text[at..=at]
            )
        }
        None => "add `}}`, or write `$${{` for a literal `${{`".to_owned(),
    };
    Problem {
        span: open..open + OPEN.len(),
        message: "`${{` without its `}}`".to_owned(),
        hint: Some(hint),
    }
}

/// The text that reads back as this literal.
pub(super) fn escape(literal: &str) -> String {
    literal.replace(OPEN, ESCAPED)
}
