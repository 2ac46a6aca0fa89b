//! Who gets how many of slots that are too few for all.

/// What somebody has and claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// What it has, and is not taken away.
    pub has: usize,
    /// What it would have at most.
    pub most: usize,
    /// Among those that have the same the lowest comes first.
    pub turn: (bool, u64),
}

impl Claim {
    fn gets(&self, level: usize) -> usize {
        level.min(self.most).saturating_sub(self.has)
    }
}

/// Gives to whoever has least, one after another, until nothing is free or nobody claims any; returns what is left.
///
/// That is the same as filling all up to one level ("max-min fairness", Bertsekas and Gallager, Data Networks,
/// 1987), and what does not come out even goes by turns. Costs O(n log n) for n claims, however much there is.
pub(super) fn fill(claims: &mut [Claim], free: usize) -> usize {
    let cost =
        |claims: &[Claim], level| claims.iter().map(|claim| claim.gets(level)).sum::<usize>();
    let highest = claims.iter().map(|claim| claim.most).max().unwrap_or(0);
    let (mut level, mut above) = (0, highest + 1);
    while above - level > 1 {
        let middle = level + (above - level) / 2;
        if cost(claims, middle) <= free {
            level = middle;
        } else {
            above = middle;
        }
    }
    let mut left = free - cost(claims, level);
    for claim in claims.iter_mut() {
        claim.has += claim.gets(level);
    }
    let mut next: Vec<&mut Claim> = claims
        .iter_mut()
        .filter(|claim| claim.has == level && claim.has < claim.most)
        .collect();
    next.sort_by_key(|claim| claim.turn);
    for claim in next.into_iter().take(left) {
        claim.has += 1;
        left -= 1;
    }
    left
}
