//! Sets of shards.

use std::fmt;

use crate::{SHARDS, Shard};

const WORDS: usize = SHARDS as usize / 64;

/// A set of shards, half a kilobyte whatever is in it.
#[derive(Clone, PartialEq, Eq)]
pub struct ShardSet([u64; WORDS]);

impl Default for ShardSet {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl ShardSet {
    /// Every shard.
    pub fn all() -> Self {
        Self([u64::MAX; WORDS])
    }

    fn place(shard: Shard) -> (usize, u64) {
        let number = usize::from(shard.0 % SHARDS);
        (number / 64, 1 << (number % 64))
    }

    /// True if the shard is in it.
    pub fn contains(&self, shard: Shard) -> bool {
        let (word, bit) = Self::place(shard);
        self.0[word] & bit != 0
    }

    /// Puts a shard into it; true if it was not there.
    pub fn insert(&mut self, shard: Shard) -> bool {
        let (word, bit) = Self::place(shard);
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    /// Takes a shard out of it; true if it was there.
    pub fn remove(&mut self, shard: Shard) -> bool {
        let (word, bit) = Self::place(shard);
        let there = self.0[word] & bit != 0;
        self.0[word] &= !bit;
        there
    }

    /// How many are in it.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// True if none is in it.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// True if every shard is in it.
    pub fn is_all(&self) -> bool {
        self.0.iter().all(|word| *word == u64::MAX)
    }

    /// Those in it, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Shard> + '_ {
        let words = (0..SHARDS).step_by(64).zip(self.0);
        words.flat_map(|(first, word)| {
            // One bit after another, the lowest first.
            let rest = std::iter::successors(Some(word), |word| Some(word & word.wrapping_sub(1)));
            let rest = rest.take_while(|word| *word != 0);
            rest.map(move |word| {
                let place = u16::try_from(word.trailing_zeros()).unwrap_or(0);
                Shard(first + place)
            })
        })
    }

    /// Those of it and those of the other.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for (word, more) in both.0.iter_mut().zip(other.0) {
            *word |= more;
        }
        both
    }

    /// Those of it that are not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = self.clone();
        for (word, out) in left.0.iter_mut().zip(other.0) {
            *word &= !out;
        }
        left
    }
}

impl FromIterator<Shard> for ShardSet {
    fn from_iter<I: IntoIterator<Item = Shard>>(shards: I) -> Self {
        let mut set = Self::default();
        set.extend(shards);
        set
    }
}

impl Extend<Shard> for ShardSet {
    fn extend<I: IntoIterator<Item = Shard>>(&mut self, shards: I) {
        for shard in shards {
            self.insert(shard);
        }
    }
}

impl fmt::Debug for ShardSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("all shards");
        }
        f.debug_set()
            .entries(self.iter().map(|shard| shard.0))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_knows_what_was_put_in_and_taken_out() {
        let mut set = ShardSet::default();
        assert!(set.is_empty());
        assert!(set.insert(Shard(0)) && set.insert(Shard(63)) && set.insert(Shard(4095)));
        assert!(!set.insert(Shard(63)));
        assert_eq!(set.len(), 3);
        assert!(set.remove(Shard(63)) && !set.remove(Shard(63)));
        assert_eq!(set.iter().collect::<Vec<_>>(), [Shard(0), Shard(4095)]);
        assert!(set.contains(Shard(4095)) && !set.contains(Shard(1)));
        let all = ShardSet::all();
        assert!(all.is_all() && all.len() == usize::from(SHARDS));
        assert_eq!(all.without(&set).len(), usize::from(SHARDS) - 2);
        assert_eq!(set.iter().collect::<ShardSet>(), set);
        assert_eq!(all.iter().collect::<ShardSet>(), all);
        let one: ShardSet = [Shard(64)].into_iter().collect();
        assert_eq!(
            set.with(&one).iter().collect::<Vec<_>>(),
            [Shard(0), Shard(64), Shard(4095)]
        );
    }
}
