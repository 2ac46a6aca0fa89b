//! What refers to a blob: its hash in hexadecimal, wherever it stands.
//!
//! Content is looked for by the text of its hash and not by what the bytes around it mean. So no kind
//! of event, value or file that is added later can be forgotten, and whoever passes an artifact on
//! inside a text still refers to it. What looks like a hash and is none costs a row and keeps nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::{Error, Result};

/// Digits of a hash in hexadecimal, lower case.
pub(crate) const DIGITS: usize = 64;

/// The hash of a blob.
pub(crate) type Hash = [u8; 32];

/// Every hash that stands in the bytes.
///
/// Of a run of more digits than one hash has, those count that begin at a multiple of a hash's length
/// and those that end it: hashes one after another, and one that follows other digits.
pub(crate) fn hashes_in(bytes: &[u8]) -> BTreeSet<Hash> {
    let mut found = BTreeSet::new();
    // A hash covers one of these places, so the others need not be looked at.
    let mut place = DIGITS - 1;
    while let Some(byte) = bytes.get(place) {
        if digit(*byte).is_none() {
            place += DIGITS;
            continue;
        }
        let before = bytes[..place].iter().rev();
        let from = place - before.take_while(|byte| digit(**byte).is_some()).count();
        let after = bytes[place..].iter();
        let to = place + after.take_while(|byte| digit(**byte).is_some()).count();
        let run = &bytes[from..to];
        found.extend(run.chunks_exact(DIGITS).filter_map(parse));
        if let Some(start) = run.len().checked_sub(DIGITS) {
            found.extend(parse(&run[start..]));
        }
        // What follows begins anew: a hash there covers its own last digit.
        place = to + DIGITS;
    }
    found
}

/// The hash that a text is.
pub(crate) fn parse(text: &[u8]) -> Option<Hash> {
    let digits: &[u8; DIGITS] = text.try_into().ok()?;
    let mut hash = Hash::default();
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(hash)
}

/// The hashes that texts are; a text that is none is refused.
pub(crate) fn parse_all(texts: &[Arc<str>]) -> Result<Vec<Hash>> {
    let hashes = texts.iter().map(|text| {
        parse(text.as_bytes())
            .ok_or_else(|| Error::Invalid(format!("`{text}` is not the hash of a blob")))
    });
    hashes.collect()
}

/// A hash in hexadecimal.
pub(crate) fn text(hash: &Hash) -> Arc<str> {
    let mut text = String::with_capacity(DIGITS);
    for byte in hash {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(bytes: &[u8]) -> Vec<String> {
        let hashes = hashes_in(bytes);
        hashes.iter().map(|hash| text(hash).to_string()).collect()
    }

    #[test]
    fn a_hash_is_found_beside_what_is_no_digit() {
        let hash = "0123456789abcdef".repeat(4);
        for (before, after) in [("", ""), ("/blobs/", ".txt"), ("F", "F"), ("@", "\u{1}")] {
            assert_eq!(
                found(format!("{before}{hash}{after}").as_bytes()),
                std::slice::from_ref(&hash)
            );
        }
        assert!(found(&hash.as_bytes()[1..]).is_empty());
        assert!(found(hash.to_uppercase().as_bytes()).is_empty());
    }

    #[test]
    fn hashes_one_after_another_are_all_found() {
        let hashes = ["0", "a", "f"].map(|digit| digit.repeat(DIGITS));
        assert_eq!(found(hashes.concat().as_bytes()), hashes);
        assert!(found(format!("12{}", hashes[1]).as_bytes()).contains(&hashes[1]));
        assert!(found(format!("{}12", hashes[1]).as_bytes()).contains(&hashes[1]));
    }

    proptest! {
        #[test]
        fn every_hash_that_stands_alone_is_found(
            hashes in prop::collection::vec(any::<Hash>(), 0..6),
            between in prop::collection::vec("[0-9a-fg-z]{0,90}", 7),
        ) {
            let mut bytes = between[0].clone();
            for (hash, between) in hashes.iter().zip(&between[1..]) {
                bytes.push('@');
                bytes.push_str(&text(hash));
                bytes.push('\0');
                bytes.push_str(between);
            }
            let found = hashes_in(bytes.as_bytes());
            for hash in hashes {
                prop_assert!(found.contains(&hash));
                prop_assert_eq!(parse(text(&hash).as_bytes()), Some(hash));
            }
        }
    }
}
