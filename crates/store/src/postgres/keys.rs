//! Keys as indexes hold them, and where the history of an entity lies.

use kapell_model::EntityKey;

/// Bytes of a key that an index holds as it is; PostgreSQL takes 2,704 of all columns together.
const INDEXED: usize = 2_000;

/// Bytes of the name of a label that an index holds.
const LABEL: usize = 1_000;

/// Bytes of a hash, which stands for what is cut off.
const HASH: usize = 32;

const MILLIS_A_DAY: u128 = 86_400_000;

/// A key as it is indexed.
pub(super) struct Key {
    /// The key itself, or where that is too long its start and its hash: keys that are apart stay
    /// apart, and stay in order but for those that differ behind their start alone.
    pub(super) indexed: Vec<u8>,
    /// The key, if it is too long.
    pub(super) whole: Option<Vec<u8>>,
}

impl Key {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        if bytes.len() <= INDEXED {
            return Self {
                indexed: bytes,
                whole: None,
            };
        }
        Self {
            indexed: shortened(&bytes, INDEXED),
            whole: Some(bytes),
        }
    }

    pub(super) fn of(key: &EntityKey) -> Self {
        Self::new(key.to_bytes())
    }
}

/// The name of a label as it is indexed.
pub(super) fn label(name: &str) -> Vec<u8> {
    if name.len() <= LABEL {
        name.as_bytes().to_vec()
    } else {
        shortened(name.as_bytes(), LABEL)
    }
}

fn shortened(bytes: &[u8], most: usize) -> Vec<u8> {
    let start = bytes.get(..most - HASH).unwrap_or(bytes);
    [start, blake3::hash(bytes).as_bytes()].concat()
}

/// The day that the id of a run says; 0 for what has none.
pub(super) fn period(key: &EntityKey) -> i32 {
    match key {
        EntityKey::Run(id) => i32::try_from((id.0 >> 80) / MILLIS_A_DAY).unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_apart_however_long_they_are() {
        let long = |end: &str| Key::new(("x".repeat(5_000) + end).into_bytes());
        let (one, other) = (long("a"), long("b"));
        assert_eq!(one.indexed.len(), INDEXED);
        assert_ne!(one.indexed, other.indexed);
        assert_eq!(one.whole.map(|whole| whole.len()), Some(5_001));
        let short = Key::new(vec![7; INDEXED]);
        assert_eq!((short.indexed.len(), short.whole), (INDEXED, None));
        assert_eq!(label(&"é".repeat(600)).len(), LABEL);
    }
}
