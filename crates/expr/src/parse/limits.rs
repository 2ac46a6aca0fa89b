//! Bounds on the source, checked before CEL's parser sees it: that parser recurses once for each
//! operator of a chain, so the depth it would reach is estimated first, from above.

use super::MAX_DEPTH;
use crate::Problem;

/// The deepest recursion allowed, by the estimate. The compiled form is held to [`MAX_DEPTH`]
/// exactly; this is only about the parser's stack.
const MAX_ESTIMATE: usize = 400;

/// One bracket that is open.
#[derive(Default)]
struct Level {
    opened_at: usize,
    /// Estimated depth of the part being read (up to the next `,`, `&&` or `||`).
    part: usize,
    /// The deepest part before it.
    deepest: usize,
    /// Each `?` nests what follows.
    conditions: usize,
}

impl Level {
    fn end_part(&mut self) {
        self.deepest = self.deepest.max(self.part);
        self.part = 0;
    }

    fn depth(&self) -> usize {
        self.deepest.max(self.part) + self.conditions
    }
}

pub(super) fn check(source: &str) -> Result<(), Vec<Problem>> {
    let bytes = source.as_bytes();
    let mut levels = vec![Level::default()];
    let mut at = 0;
    while at < bytes.len() {
        if let Some(end) = skip(bytes, at) {
            at = end;
            continue;
        }
        let byte = bytes[at];
        match byte {
            b'(' | b'[' | b'{' => {
                levels.push(Level {
                    opened_at: at,
                    ..Level::default()
                });
                if levels.len() > MAX_DEPTH + 1 {
                    return Err(too_deep(at..at + 1));
                }
            }
            b')' | b']' | b'}' if levels.len() > 1 => {
                let inner = levels.pop().unwrap_or_default();
                let depth = inner.depth() + 1;
                let outer = levels
                    .last_mut()
                    .expect("the outermost level is never popped");
                outer.part = outer.part.max(depth) + 1;
                if outer.part > MAX_ESTIMATE {
                    return Err(too_deep(inner.opened_at..at + 1));
                }
            }
            _ => operator(&mut levels, bytes, at)?,
        }
        at += 1;
    }
    Ok(())
}

fn operator(levels: &mut [Level], bytes: &[u8], at: usize) -> Result<(), Vec<Problem>> {
    let level = levels
        .last_mut()
        .expect("the outermost level is never popped");
    let doubled = bytes.get(at + 1) == Some(&bytes[at]);
    match bytes[at] {
        b',' | b':' => level.end_part(),
        b'&' | b'|' if doubled => level.end_part(),
        b'?' => {
            level.end_part();
            level.conditions += 1;
        }
        b'.' | b'+' | b'-' | b'*' | b'/' | b'%' | b'<' | b'>' | b'=' => level.part += 1,
        // `in` between blanks; its second letter counts.
        b'n' if at > 1 && bytes[at - 1] == b'i' && bytes[at - 2].is_ascii_whitespace() => {
            level.part += 1;
        }
        _ => {}
    }
    if level.depth() > MAX_ESTIMATE {
        return Err(too_deep(level.opened_at..at + 1));
    }
    Ok(())
}

/// The end of the string literal or comment that starts at `at`, if one does.
pub(crate) fn skip(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes[at] {
        b'/' if bytes.get(at + 1) == Some(&b'/') => Some(
            bytes[at..]
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(bytes.len(), |length| at + length),
        ),
        b'\'' | b'"' => Some(string_end(bytes, at).unwrap_or(bytes.len())),
        _ => None,
    }
}

/// The end of the string literal whose opening quote is at `at`; `None` where it is not closed.
pub(crate) fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let quote = bytes[at];
    let raw = is_raw(bytes, at);
    let triple = bytes[at..].starts_with(&[quote; 3]);
    let mut next = at + if triple { 3 } else { 1 };
    while next < bytes.len() {
        match bytes[next] {
            b'\\' if !raw => next += 1,
            b'\n' if !triple => return None,
            byte if byte == quote => {
                if !triple {
                    return Some(next + 1);
                }
                if bytes[next..].starts_with(&[quote; 3]) {
                    return Some(next + 3);
                }
            }
            _ => {}
        }
        next += 1;
    }
    None
}

/// Whether the prefix of the literal says that backslashes are plain: `r''`, `br''`.
fn is_raw(bytes: &[u8], quote: usize) -> bool {
    let letter = |back: usize| {
        quote
            .checked_sub(back)
            .map(|at| bytes[at].to_ascii_lowercase())
    };
    let word =
        |back: usize| letter(back).is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    letter(1) == Some(b'r') && (!word(2) || letter(2) == Some(b'b') && !word(3))
}

pub(super) fn too_deep(span: std::ops::Range<usize>) -> Vec<Problem> {
    vec![Problem {
        span,
        message: format!("the expression nests too deep; {MAX_DEPTH} levels are the most allowed"),
        hint: Some(
            "compute parts of it in `set` steps, or join long texts with `[…].join('')`".to_owned(),
        ),
    }]
}
