//! What can be read of a text that is not YAML: everything but the entries with the mistakes.
//!
//! The parser cannot go on behind a mistake. So the value of the block entry that holds it is blanked,
//! byte for byte, and the text is read again; if that does not help, the entry around it. Offsets stay
//! as they are, and who reads the tree finds the blanked values broken.

use super::{Kind, Node, Problem, attempt};

/// Mistakes that are looked past in one text.
const MISTAKES: usize = 8;
/// Readings of one text, which is bounded so that their number times its length is too.
const READINGS: usize = 40;
const MOST_BYTES: usize = 1 << 20;

/// The tree around the mistakes, if one can be made, and every problem found on the way, the first of
/// which is at `at`.
pub(super) fn read_around(text: &str, at: usize, first: Problem) -> (Option<Node>, Vec<Problem>) {
    let mut mistakes = vec![first];
    if text.len() > MOST_BYTES {
        return (None, mistakes);
    }
    let mut blanked: Vec<usize> = Vec::new();
    let mut text = text.to_owned();
    let mut at = at;
    let mut readings = 0;
    while mistakes.len() <= MISTAKES {
        let mut next = None;
        for region in regions(&text, at) {
            if readings == READINGS {
                return (None, mistakes);
            }
            readings += 1;
            let tried = blank(&text, &region);
            let (root, mut problems, stopped) = attempt(&tried);
            match (root, stopped) {
                (Some(mut root), None) => {
                    blanked.push(region.key);
                    break_values(&mut root, &blanked);
                    problems.append(&mut mistakes);
                    return (Some(root), problems);
                }
                (_, Some(stopped)) if stopped >= region.end && stopped > at => {
                    next = problems
                        .pop()
                        .map(|problem| (tried, stopped, region, problem));
                    break;
                }
                _ => {}
            }
        }
        let Some((tried, stopped, region, problem)) = next else {
            break;
        };
        blanked.push(region.key);
        mistakes.push(problem);
        (text, at) = (tried, stopped);
    }
    (None, mistakes)
}

/// A block entry: where its key starts, and the bytes of its value.
struct Region {
    key: usize,
    value: usize,
    end: usize,
}

/// The entries around a place, from the innermost outwards; the second is the one before the innermost,
/// whose quote or bracket may be the one that is missing.
fn regions(text: &str, at: usize) -> Vec<Region> {
    let lines: Vec<(usize, &str)> = text
        .split_inclusive('\n')
        .scan(0, |start, line| {
            let from = *start;
            *start += line.len();
            Some((from, line))
        })
        .collect();
    let Some(mut row) = lines.iter().rposition(|(start, _)| *start <= at) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut around = usize::MAX;
    let mut before = false;
    loop {
        let (start, line) = lines[row];
        let outer = |indent: &usize| *indent < around || (*indent == around && before);
        if let Some(indent) = indent(line).filter(outer) {
            before = around == usize::MAX;
            around = indent;
            if let Some(colon) = key_end(line) {
                let behind = lines[row + 1..]
                    .iter()
                    .find(|(_, line)| self::indent(line).is_some_and(|other| other <= indent));
                found.push(Region {
                    key: start + indent,
                    value: start + colon,
                    end: behind.map_or(text.len(), |(start, _)| *start),
                });
            }
        }
        if row == 0 || around == 0 {
            return found;
        }
        row -= 1;
    }
}

/// How far a line is indented; none if it is empty or a comment.
fn indent(line: &str) -> Option<usize> {
    let text = line.trim_start_matches([' ', '\t']);
    let empty = text.trim_end().is_empty() || text.starts_with('#');
    (!empty).then(|| line.len() - text.len())
}

/// Where the value of `key: value` starts in a line that begins with a plain key.
fn key_end(line: &str) -> Option<usize> {
    let text = line.trim_start();
    let before = line.len() - text.len();
    let key = text
        .find(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-' | '.'))
        .filter(|end| *end > 0)?;
    let behind = text[key..].strip_prefix(':')?;
    (!text.starts_with('-') && behind.starts_with([' ', '\t', '\r', '\n']))
        .then_some(before + key + 1)
}

/// The text with the value of an entry replaced by as many blanks.
fn blank(text: &str, region: &Region) -> String {
    let mut out = String::with_capacity(text.len());
    out.push_str(&text[..region.value]);
    for c in text[region.value..region.end].chars() {
        match c {
            '\n' => out.push('\n'),
            c => out.extend(std::iter::repeat_n(' ', c.len_utf8())),
        }
    }
    out.push_str(&text[region.end..]);
    out
}

/// Marks the values of entries whose keys start at these places.
fn break_values(node: &mut Node, keys: &[usize]) {
    match &mut node.kind {
        Kind::Scalar(_) | Kind::Broken => {}
        Kind::List(items) => items.iter_mut().for_each(|item| break_values(item, keys)),
        Kind::Map(entries) => {
            for entry in entries {
                if keys.contains(&entry.key_span.start) {
                    entry.value.kind = Kind::Broken;
                } else {
                    break_values(&mut entry.value, keys);
                }
            }
        }
    }
}
