//! A map of places in which neighbouring items share a block.
//!
//! Items of a foreach are granted in order and end roughly in order, so most changes are at the ends
//! of a block: some ten times cheaper than a tree with one entry an item, and as ordered.

use std::collections::{BTreeMap, VecDeque};

use kapell_api::task::Place;

/// Items that share a block.
const BLOCK: u32 = 32;

type BlockKey<K> = (K, u32, u16, u32);

/// Values by key and place. Iteration is in the order of both.
#[derive(Clone, Debug)]
pub struct PlaceMap<K, V> {
    /// Each block in order of items, never empty.
    blocks: BTreeMap<BlockKey<K>, VecDeque<(u32, V)>>,
    len: usize,
}

impl<K, V> Default for PlaceMap<K, V> {
    fn default() -> Self {
        Self {
            blocks: BTreeMap::new(),
            len: 0,
        }
    }
}

fn block_of<K>(key: K, place: Place) -> BlockKey<K> {
    (key, place.scope, place.step, place.item / BLOCK)
}

fn find<V>(block: &VecDeque<(u32, V)>, item: u32) -> Result<usize, usize> {
    // Changes are mostly at the ends.
    match (block.front(), block.back()) {
        (Some((first, _)), _) if *first == item => Ok(0),
        (_, Some((last, _))) if *last < item => Err(block.len()),
        _ => block.binary_search_by_key(&item, |(other, _)| *other),
    }
}

impl<K: Ord + Copy, V> PlaceMap<K, V> {
    /// The value at a place.
    pub fn get(&self, key: K, place: Place) -> Option<&V> {
        let block = self.blocks.get(&block_of(key, place))?;
        let at = find(block, place.item).ok()?;
        block.get(at).map(|(_, value)| value)
    }

    /// True if there is a value at the place.
    pub fn contains(&self, key: K, place: Place) -> bool {
        self.get(key, place).is_some()
    }

    /// Sets the value at a place; returns the one before.
    pub fn insert(&mut self, key: K, place: Place, value: V) -> Option<V> {
        let block = self.blocks.entry(block_of(key, place)).or_default();
        match find(block, place.item) {
            Ok(at) => block
                .get_mut(at)
                .map(|(_, old)| std::mem::replace(old, value)),
            Err(at) => {
                block.insert(at, (place.item, value));
                self.len += 1;
                None
            }
        }
    }

    /// Takes the value at a place away if `which` holds for it.
    pub fn remove_if(&mut self, key: K, place: Place, which: impl Fn(&V) -> bool) -> Option<V> {
        let of = block_of(key, place);
        let block = self.blocks.get_mut(&of)?;
        let at = find(block, place.item).ok()?;
        if !block.get(at).is_some_and(|(_, value)| which(value)) {
            return None;
        }
        let (_, value) = block.remove(at)?;
        if block.is_empty() {
            self.blocks.remove(&of);
        }
        self.len -= 1;
        Some(value)
    }

    /// Takes the value at a place away.
    pub fn remove(&mut self, key: K, place: Place) -> Option<V> {
        self.remove_if(key, place, |_| true)
    }

    /// Takes everything of the keys away for which `which` holds.
    pub fn take_of(&mut self, which: impl Fn(K) -> bool) -> Vec<V> {
        let blocks = self.blocks.extract_if(.., |(key, ..), _| which(*key));
        let taken: Vec<V> = blocks
            .flat_map(|(_, block)| block.into_iter().map(|(_, value)| value))
            .collect();
        self.len -= taken.len();
        taken
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.blocks.clear();
        self.len = 0;
    }

    /// Everything at places of a key, in order.
    pub fn of(&self, key: K) -> impl Iterator<Item = (Place, &V)> {
        self.range((key, 0, 0, 0), (key, u32::MAX, u16::MAX, u32::MAX))
    }

    /// Everything at items of a step, in order.
    pub fn items(&self, key: K, step: Place) -> impl Iterator<Item = (Place, &V)> {
        let Place { scope, step, .. } = step;
        self.range((key, scope, step, 0), (key, scope, step, u32::MAX))
            .filter(|(place, _)| place.item != Place::NO_ITEM)
    }

    /// Everything, in order.
    pub fn iter(&self) -> impl Iterator<Item = (K, Place, &V)> {
        self.blocks
            .iter()
            .flat_map(|((key, scope, step, _), block)| {
                block.iter().map(|(item, value)| {
                    let place = Place {
                        scope: *scope,
                        step: *step,
                        item: *item,
                    };
                    (*key, place, value)
                })
            })
    }

    fn range(&self, from: BlockKey<K>, to: BlockKey<K>) -> impl Iterator<Item = (Place, &V)> {
        self.blocks
            .range(from..=to)
            .flat_map(|((_, scope, step, _), block)| {
                block.iter().map(|(item, value)| {
                    let place = Place {
                        scope: *scope,
                        step: *step,
                        item: *item,
                    };
                    (place, value)
                })
            })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn place(scope: u32, step: u16, item: u32) -> Place {
        Place { scope, step, item }
    }

    fn any_place() -> impl Strategy<Value = Place> {
        let item = prop_oneof![0..100_u32, Just(Place::NO_ITEM), Just(Place::NO_ITEM - 1)];
        (0..2_u32, 0..2_u16, item).prop_map(|(scope, step, item)| place(scope, step, item))
    }

    proptest! {
        #[test]
        fn behaves_as_an_ordered_map(changes in prop::collection::vec((0..3_u8, any_place(), any::<bool>()), 0..300)) {
            let mut map = PlaceMap::default();
            let mut model = BTreeMap::new();
            for (number, (key, place, insert)) in changes.into_iter().enumerate() {
                if insert {
                    prop_assert_eq!(map.insert(key, place, number), model.insert((key, place), number));
                } else {
                    prop_assert_eq!(map.remove(key, place), model.remove(&(key, place)));
                }
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(map.get(key, place), model.get(&(key, place)));
            }
            for key in 0..3 {
                let found: Vec<_> = map.of(key).map(|(place, value)| (place, *value)).collect();
                let wanted: Vec<_> = model
                    .iter()
                    .filter(|((other, _), _)| *other == key)
                    .map(|((_, place), value)| (*place, *value))
                    .collect();
                prop_assert_eq!(found, wanted);
                let found: Vec<_> = map.items(key, place(1, 0, 7)).map(|(place, _)| place).collect();
                let wanted: Vec<_> = model
                    .keys()
                    .filter(|(other, at)| {
                        *other == key && at.scope == 1 && at.step == 0 && at.item != Place::NO_ITEM
                    })
                    .map(|(_, place)| *place)
                    .collect();
                prop_assert_eq!(found, wanted);
            }
        }
    }

    #[test]
    fn takes_all_of_some_keys() {
        let mut map = PlaceMap::default();
        for key in 0..4_u32 {
            map.insert(key, place(0, 0, 5), (key, 'a'));
            map.insert(key, place(0, 0, 5_000), (key, 'b'));
        }
        let taken = map.take_of(|key| key % 2 == 1);
        assert_eq!(taken, [(1, 'a'), (1, 'b'), (3, 'a'), (3, 'b')]);
        assert_eq!(map.len(), 4);
        let left: Vec<_> = map
            .iter()
            .map(|(key, place, _)| (key, place.item))
            .collect();
        assert_eq!(left, [(0, 5), (0, 5_000), (2, 5), (2, 5_000)]);
        assert!(map.contains(2, place(0, 0, 5)) && !map.contains(3, place(0, 0, 5)));
    }

    #[test]
    fn removes_only_what_is_meant() {
        let mut map = PlaceMap::default();
        map.insert((), place(0, 0, 5), 'a');
        assert_eq!(
            map.remove_if((), place(0, 0, 5), |value| *value == 'b'),
            None
        );
        assert_eq!(
            map.remove_if((), place(0, 0, 5), |value| *value == 'a'),
            Some('a')
        );
        assert!(map.is_empty());
    }
}
