//! Hides secrets in what is kept: as they are, line by line, and as base64, URL-encoded or JSON.
//!
//! In logs every form is hidden wherever it stands. In outputs, which other steps compute with, a short
//! one is hidden only where it stands alone: a secret `prod` leaves `production` as it is.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;

use kapell_expr::{Map, Value};

/// Secrets shorter than this many bytes are not hidden: `***` everywhere would tell more.
const SHORTEST: usize = 3;
/// Forms of at least so many bytes are hidden in outputs wherever they stand.
const CLEAR: usize = 8;
/// Characters in the middle of a base64 text by which a secret is known there.
const INNER: usize = 6;
/// Columns of lines into which base64 is broken.
const LINES: [usize; 2] = [64, 76];
const HIDDEN: &[u8] = b"***";

/// Characters that some encoders leave as they are beside the unreserved ones: paths in Python and Go,
/// components in JavaScript, whole addresses.
const LEFT_ALONE: [&[u8]; 4] = [b"", b"/", b"!'()*", b"!'()*;/?:@&=+$,#"];

/// How text is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Log,
    Output,
}

/// The forms of the secrets of one attempt.
#[derive(Debug, Default)]
pub(crate) struct Masker {
    /// By their first bytes, of each the longest first.
    forms: HashMap<[u8; SHORTEST], Vec<Vec<u8>>>,
    longest: usize,
}

impl Masker {
    /// Hides every form of these secrets.
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut masker = Self::default();
        for form in secrets.into_iter().flat_map(forms) {
            if let Some(start) = form.first_chunk() {
                masker.longest = masker.longest.max(form.len());
                masker.forms.entry(*start).or_default().push(form);
            }
        }
        for same in masker.forms.values_mut() {
            same.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
            same.dedup();
        }
        masker
    }

    /// Bytes of the longest form: text cut within this many bytes of its end may hold part of one.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    /// The bytes with every secret replaced.
    pub(crate) fn bytes<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        self.hide(text, Within::Log)
    }

    /// The text with every secret replaced.
    pub(crate) fn text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.bytes(text.as_bytes())).into_owned()
    }

    /// True if a value that is to be kept holds a secret.
    pub(crate) fn is_in(&self, value: &Value) -> bool {
        let has = |text: &str| self.find(text.as_bytes(), 0, Within::Output).is_some();
        !self.forms.is_empty()
            && match value {
                Value::String(text) => has(text),
                Value::Int(_) | Value::Float(_) => self.is_number(value),
                Value::List(items) => items.iter().any(|item| self.is_in(item)),
                Value::Map(entries) => entries
                    .iter()
                    .any(|(name, entry)| has(name) || self.is_in(entry)),
                Value::Null
                | Value::Bool(_)
                | Value::Bytes(_)
                | Value::Date(_)
                | Value::Timestamp(_)
                | Value::Duration(_)
                | Value::Blob(_) => false,
            }
    }

    /// A value with every secret in its texts, names and numbers replaced.
    pub(crate) fn value(&self, value: &Value) -> Value {
        let hidden = |text: &str| {
            let hidden = self.hide(text.as_bytes(), Within::Output);
            String::from_utf8_lossy(&hidden).into_owned()
        };
        match value {
            Value::String(text) => Value::from(hidden(text)),
            Value::Int(_) | Value::Float(_) if self.is_number(value) => {
                Value::string(String::from_utf8_lossy(HIDDEN))
            }
            Value::List(items) => Value::list(items.iter().map(|item| self.value(item)).collect()),
            Value::Map(entries) => {
                let entries = entries
                    .iter()
                    .map(|(name, entry)| (hidden(name).into(), self.value(entry)));
                Value::Map(std::sync::Arc::new(entries.collect::<Map>()))
            }
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Bytes(_)
            | Value::Date(_)
            | Value::Timestamp(_)
            | Value::Duration(_)
            | Value::Blob(_) => value.clone(),
        }
    }

    /// True if a number is a secret, and so long that it is no other number by chance.
    fn is_number(&self, value: &Value) -> bool {
        let text = value.to_json().to_string();
        let form = self.form_at(text.as_bytes(), 0, Within::Output);
        form.is_some_and(|form| form.len() == text.len() && text.len() >= CLEAR)
    }

    fn hide<'a>(&self, text: &'a [u8], within: Within) -> Cow<'a, [u8]> {
        let mut found = self.find(text, 0, within);
        if found.is_none() {
            return Cow::Borrowed(text);
        }
        let mut masked = Vec::with_capacity(text.len());
        let mut from = 0;
        while let Some((at, length)) = found {
            masked.extend_from_slice(&text[from..at]);
            masked.extend_from_slice(HIDDEN);
            from = at + length;
            found = self.find(text, from, within);
        }
        masked.extend_from_slice(&text[from..]);
        Cow::Owned(masked)
    }

    /// Where the first form stands, and its length.
    fn find(&self, text: &[u8], from: usize, within: Within) -> Option<(usize, usize)> {
        if self.forms.is_empty() {
            return None;
        }
        (from..text.len().saturating_sub(SHORTEST - 1))
            .find_map(|at| Some((at, self.form_at(text, at, within)?.len())))
    }

    /// The longest form that stands here.
    fn form_at(&self, text: &[u8], at: usize, within: Within) -> Option<&[u8]> {
        let same = self.forms.get(text[at..].first_chunk()?)?;
        let is_here = |form: &&Vec<u8>| {
            text[at..].starts_with(form)
                && (within == Within::Log
                    || form.len() >= CLEAR
                    || stands_alone(text, at, form.len()))
        };
        same.iter().find(is_here).map(Vec::as_slice)
    }
}

/// True if neither letters nor digits touch a part of a text.
fn stands_alone(text: &[u8], at: usize, length: usize) -> bool {
    let joins = |byte: &u8| byte.is_ascii_alphanumeric() || !byte.is_ascii();
    let before = at.checked_sub(1).and_then(|before| text.get(before));
    !before.is_some_and(joins) && !text.get(at + length).is_some_and(joins)
}

fn forms(secret: &str) -> Vec<Vec<u8>> {
    let secret = secret.trim_end_matches(['\n', '\r']);
    let mut forms = Vec::new();
    for text in secret
        .lines()
        .map(str::trim)
        .chain([secret])
        .filter(|text| text.len() >= SHORTEST)
    {
        forms.push(text.to_owned());
        for bytes in [text.to_owned(), format!("{text}\n")] {
            let standard = base64(bytes.as_bytes());
            let plain = standard.trim_end_matches('=').to_owned();
            // Commands break it into lines, as PEM does.
            for columns in LINES {
                forms.extend(pieces(&standard, columns));
            }
            forms.push(for_urls(&plain));
            forms.push(plain);
            forms.push(standard);
        }
        for before in 0..3 {
            let inner = inner_base64(text.as_bytes(), before);
            if inner.len() >= INNER {
                forms.push(for_urls(&inner));
                forms.push(inner);
            }
        }
        for left_alone in LEFT_ALONE {
            for upper in [true, false] {
                let encoded = encoded(text, left_alone, upper);
                // As forms write it.
                forms.push(encoded.replace("%20", "+"));
                forms.push(encoded);
            }
        }
        let json = serde_json::Value::from(text).to_string();
        forms.push(json[1..json.len() - 1].to_owned());
    }
    forms.into_iter().map(String::into_bytes).collect()
}

/// The lines of a text that has several.
fn pieces(text: &str, columns: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while rest.len() > columns {
        let (piece, after) = rest.split_at(columns);
        pieces.push(piece.to_owned());
        rest = after;
    }
    if !pieces.is_empty() && rest.len() >= INNER {
        pieces.push(rest.to_owned());
    }
    pieces
}

/// Base64 in the alphabet of URLs.
fn for_urls(base64: &str) -> String {
    base64.replace('+', "-").replace('/', "_")
}

/// What these bytes alone decide of the base64 of a text in which so many bytes stand before them, modulo
/// three, and others may follow.
fn inner_base64(bytes: &[u8], before: usize) -> String {
    let all = base64(&[&[0; 3][..before], bytes].concat());
    let (first, last) = ((before * 8).div_ceil(6), (before + bytes.len()) * 8 / 6);
    all.get(first..last).unwrap_or_default().to_owned()
}

/// Standard base64 with padding (RFC 4648).
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0_usize, |word, at| {
            word << 8 | usize::from(chunk.get(at).copied().unwrap_or(0))
        });
        for place in 0..4 {
            text.push(if place <= chunk.len() {
                char::from(ALPHABET[word >> (18 - 6 * place) & 63])
            } else {
                '='
            });
        }
    }
    text
}

/// Percent-encoding of everything but unreserved characters (RFC 3986).
pub(crate) fn percent(text: &str) -> String {
    encoded(text, b"", true)
}

/// Percent-encoding of everything but unreserved characters and some others.
fn encoded(text: &str, left_alone: &[u8], upper: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let alone = b"-_.~".contains(&byte) || left_alone.contains(&byte);
        if byte.is_ascii_alphanumeric() || alone {
            encoded.push(char::from(byte));
        } else if upper {
            let _ = write!(encoded, "%{byte:02X}");
        } else {
            let _ = write!(encoded, "%{byte:02x}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "p@ss/word: 100%+x";

    fn hidden(text: &str) -> String {
        Masker::new([SECRET]).text(text)
    }

    #[test]
    fn each_way_of_writing_a_secret_into_an_address_is_hidden() {
        for text in [
            // Python: quote(x), quote(x, safe=""), quote_plus(x); JavaScript: encodeURIComponent, encodeURI.
            "p%40ss/word%3A%20100%25%2Bx",
            "p%40ss%2Fword%3A%20100%25%2Bx",
            "p%40ss%2Fword%3A+100%25%2Bx",
            "p%40ss%2fword%3a%20100%25%2bx",
            "p@ss/word:%20100%25+x",
        ] {
            assert_eq!(hidden(&format!("a={text}&b")), "a=***&b", "{text}");
        }
    }

    #[test]
    fn a_secret_is_hidden_in_base64_whatever_stands_around_it() {
        for before in ["", "u", "us", "user", "user:", "x".repeat(30).as_str()] {
            for after in ["", "!", "!!", "!!!", "\n"] {
                let whole = base64(format!("{before}{SECRET}{after}").as_bytes());
                for text in [whole.clone(), for_urls(&whole)] {
                    let hidden = hidden(&text);
                    assert!(hidden.contains("***"), "{before}|{after}: {text}");
                    // What is left is of the neighbours, and of bits shared with them.
                    let left = hidden.len() - 3;
                    let neighbours = (before.len() + after.len()) * 4 / 3 + 6;
                    assert!(left <= neighbours, "{before}|{after}: {hidden}");
                }
            }
        }
    }

    #[test]
    fn a_long_secret_is_hidden_in_lines_of_base64() {
        let secret = "0123456789".repeat(20);
        let masker = Masker::new([secret.as_str()]);
        let whole = base64(secret.as_bytes());
        for columns in LINES {
            for line in whole.as_bytes().chunks(columns) {
                assert_eq!(&*masker.bytes(line), HIDDEN, "{columns}");
            }
        }
    }

    #[test]
    fn what_is_no_secret_is_left_alone() {
        let masker = Masker::new(["ab", "prod", "4711", "a long secret"]);
        assert_eq!(masker.text("ab production"), "ab ***uction");
        let kept = |text: &str| masker.value(&Value::string(text)).to_json();
        for same in ["ab", "production", "reprod", "47110", "prodé", ""] {
            assert_eq!(kept(same), same);
            assert!(!masker.is_in(&Value::string(same)), "{same}");
        }
        for (text, shown) in [
            ("prod", "***"),
            ("pin=4711;", "pin=***;"),
            ("xa long secretx", "x***x"),
            ("4711 4711", "*** ***"),
        ] {
            assert_eq!(kept(text), shown);
            assert!(masker.is_in(&Value::string(text)), "{text}");
        }
    }

    #[test]
    fn values_are_searched_whole() {
        let masker = Masker::new(["hunter2hunter2", "1234567890", "4711"]);
        let value = Value::from_json(&serde_json::json!({
            "a": ["x hunter2hunter2", 1_234_567_890, 4711, 12.5, null],
            "hunter2hunter2": { "b": true },
        }));
        assert!(masker.is_in(&value));
        let shown =
            serde_json::json!({ "a": ["x ***", "***", 4711, 12.5, null], "***": { "b": true } });
        assert_eq!(masker.value(&value).to_json(), shown);
        assert!(!masker.is_in(&masker.value(&value)));
        assert!(!Masker::default().is_in(&value));
    }

    #[test]
    fn many_forms_are_searched_in_one_pass() {
        let lines: Vec<String> = (0..2_000)
            .map(|line| format!("line {line} of a key"))
            .collect();
        let masker = Masker::new([lines.join("\n").as_str()]);
        let text = "nothing of it. ".repeat(4_000);
        assert_eq!(masker.text(&text), text);
        assert_eq!(masker.text("<line 1999 of a key>"), "<***>");
    }
}
