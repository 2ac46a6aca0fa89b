//! Places inside scalars.

use super::{Node, Style};

/// Where byte `offset` of a scalar's text stands in the file. Exact for every style: unfolding
/// changes white space alone, so characters other than white space are counted.
pub(crate) fn source_offset(file: &str, node: &Node, offset: usize) -> usize {
    let Some(scalar) = node.scalar() else {
        return node.span.start;
    };
    let text = &*scalar.text;
    let offset = offset.min(text.len());
    let raw = file.get(node.span.start..node.span.end).unwrap_or_default();
    let mut before = text
        .bytes()
        .zip(0..offset)
        .filter(|(byte, _)| visible(*byte))
        .count();
    let at_visible = text
        .as_bytes()
        .get(offset)
        .is_some_and(|byte| visible(*byte));
    let mut units = Units {
        raw,
        at: usize::from(matches!(scalar.style, Style::Single | Style::Double)),
        style: scalar.style,
    };
    let mut end = units.at;
    while before > 0 {
        let Some((from, bytes)) = units.next_visible() else {
            return node.span.start + end;
        };
        if bytes > before {
            return node.span.start + from;
        }
        before -= bytes;
        end = units.at;
    }
    if at_visible && let Some((from, _)) = units.next_visible() {
        return node.span.start + from;
    }
    node.span.start + end
}

fn visible(byte: u8) -> bool {
    !matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// The pieces of a scalar as written that each make visible bytes of its text.
struct Units<'t> {
    raw: &'t str,
    at: usize,
    style: Style,
}

impl Units<'_> {
    /// Where the next one starts and how many visible bytes of text it makes.
    fn next_visible(&mut self) -> Option<(usize, usize)> {
        loop {
            let rest = self.raw.get(self.at..)?;
            let c = rest.chars().next()?;
            let from = self.at;
            let (length, made) = match (self.style, c) {
                (Style::Single, '\'') => (2, 1),
                (Style::Double, '\\') => escape(rest),
                _ if c.is_ascii() && !visible(u8::try_from(c).unwrap_or(0)) => (1, 0),
                _ => (c.len_utf8(), c.len_utf8()),
            };
            self.at += length;
            if made > 0 {
                return Some((from, made));
            }
        }
    }
}

/// The length of the escape at the start of `rest`, and the visible bytes that it makes.
fn escape(rest: &str) -> (usize, usize) {
    let code = |digits: usize| {
        let number = rest
            .get(2..2 + digits)
            .and_then(|text| u32::from_str_radix(text, 16).ok());
        let made = number.and_then(char::from_u32).map_or(0, char::len_utf8);
        let hidden =
            number.is_some_and(|number| u8::try_from(number).is_ok_and(|byte| !visible(byte)));
        // The two halves of a character beyond 16 bits: the first stands for both.
        let half = matches!(number, Some(0xd800..0xdc00));
        (
            2 + digits,
            if half {
                4
            } else if hidden {
                0
            } else {
                made
            },
        )
    };
    match rest.as_bytes().get(1) {
        Some(b'x') => code(2),
        Some(b'u') => code(4),
        Some(b'U') => code(8),
        Some(b'n' | b't' | b'r' | b' ' | b'\t' | b'\n' | b'\r') => (2, 0),
        Some(b'N' | b'_') => (2, 2),
        Some(b'L' | b'P') => (2, 3),
        Some(byte) if byte.is_ascii() => (2, 1),
        _ => (1, 0),
    }
}
