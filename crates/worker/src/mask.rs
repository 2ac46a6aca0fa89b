//! Hides secrets in text that is kept: as they are, line by line, and as base64, URL-encoded or JSON.

use std::borrow::Cow;
use std::fmt::Write;

/// Secrets shorter than this many bytes are not hidden: `***` everywhere would tell more.
const SHORTEST: usize = 3;
const HIDDEN: &[u8] = b"***";

/// The forms of the secrets of one attempt, the longest first.
#[derive(Debug, Default)]
pub(crate) struct Masker {
    forms: Vec<Vec<u8>>,
}

impl Masker {
    /// Hides every form of these secrets.
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut forms: Vec<Vec<u8>> = secrets.into_iter().flat_map(forms).collect();
        forms.retain(|form| form.len() >= SHORTEST);
        forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        forms.dedup();
        Self { forms }
    }

    /// Bytes of the longest form: text cut within this many bytes of its end may hold part of one.
    pub(crate) fn longest(&self) -> usize {
        self.forms.first().map_or(0, Vec::len)
    }

    /// The bytes with every secret replaced.
    pub(crate) fn bytes<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let mut masked = Cow::Borrowed(text);
        for form in &self.forms {
            if let Some(first) = find(&masked, form) {
                masked = Cow::Owned(replace(&masked, form, first));
            }
        }
        masked
    }

    /// The text with every secret replaced.
    pub(crate) fn text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.bytes(text.as_bytes())).into_owned()
    }
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
        forms.push(text.as_bytes().to_vec());
        for bytes in [text.to_owned(), format!("{text}\n")] {
            let standard = base64(bytes.as_bytes());
            let plain = standard.trim_end_matches('=').to_owned();
            forms.push(plain.replace('+', "-").replace('/', "_").into_bytes());
            forms.push(plain.into_bytes());
            forms.push(standard.into_bytes());
        }
        forms.push(percent(text, true).into_bytes());
        forms.push(percent(text, false).into_bytes());
        let json = serde_json::Value::from(text).to_string();
        forms.push(json.as_bytes()[1..json.len() - 1].to_vec());
    }
    forms
}

fn find(text: &[u8], form: &[u8]) -> Option<usize> {
    let (first, rest) = form.split_first()?;
    let mut from = 0;
    while let Some(at) = text.get(from..)?.iter().position(|byte| byte == first) {
        if text[from + at + 1..].starts_with(rest) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

fn replace(text: &[u8], form: &[u8], first: usize) -> Vec<u8> {
    let mut masked = Vec::with_capacity(text.len());
    let (mut rest, mut next) = (text, Some(first));
    while let Some(at) = next {
        masked.extend_from_slice(&rest[..at]);
        masked.extend_from_slice(HIDDEN);
        rest = &rest[at + form.len()..];
        next = find(rest, form);
    }
    masked.extend_from_slice(rest);
    masked
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
pub(crate) fn percent(text: &str, upper: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else if upper {
            let _ = write!(encoded, "%{byte:02X}");
        } else {
            let _ = write!(encoded, "%{byte:02x}");
        }
    }
    encoded
}
