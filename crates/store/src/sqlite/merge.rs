//! Merges ordered ranges of an index without reading them to their ends.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// The smallest `limit` keys of all ranges, in order. `fetch` gives at most so many keys of one
/// range, in order, after the given one.
pub(super) fn merge<R, K: Ord + Copy, E>(
    ranges: &[R],
    limit: usize,
    mut fetch: impl FnMut(&R, Option<K>, usize) -> Result<Vec<K>, E>,
) -> Result<Vec<K>, E> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    // Few keys of each where there are many ranges: most of them give nothing to the page.
    let batch = (limit / ranges.len().max(1))
        .saturating_mul(2)
        .clamp(4.min(limit), limit);
    let mut fetched: Vec<VecDeque<K>> = Vec::with_capacity(ranges.len());
    let mut next = BinaryHeap::with_capacity(ranges.len());
    for (place, range) in ranges.iter().enumerate() {
        let mut keys = VecDeque::from(fetch(range, None, batch)?);
        if let Some(first) = keys.pop_front() {
            next.push(Reverse((first, place, keys.len() + 1 < batch)));
        }
        fetched.push(keys);
    }
    let mut merged = Vec::with_capacity(limit.min(1024));
    while merged.len() < limit {
        let Some(Reverse((key, place, mut exhausted))) = next.pop() else {
            break;
        };
        merged.push(key);
        let (Some(keys), Some(range)) = (fetched.get_mut(place), ranges.get(place)) else {
            break;
        };
        if keys.is_empty() && !exhausted {
            keys.extend(fetch(range, Some(key), batch)?);
            exhausted = keys.len() < batch;
        }
        if let Some(key) = keys.pop_front() {
            next.push(Reverse((key, place, exhausted)));
        }
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_page_is_the_start_of_everything_sorted(
            ranges in prop::collection::vec(prop::collection::btree_set(0_u32..500, 0..40), 0..12),
            limit in 0_usize..60,
        ) {
            let mut everything: Vec<u32> = ranges.iter().flatten().copied().collect();
            everything.sort_unstable();
            everything.truncate(limit);
            let page = merge(&ranges, limit, |range, after: Option<u32>, limit| {
                let from = after.map_or(0, |key| key + 1);
                Ok::<_, Infallible>(range.range(from..).copied().take(limit).collect())
            });
            prop_assert_eq!(page.unwrap(), everything);
        }
    }
}
