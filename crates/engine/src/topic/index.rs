//! Finding listeners and signals by fields that are equal.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kapell_api::task::Place;
use kapell_expr::{Budget, Program, Scope, Value};
use kapell_model::{EntityKey, limits};

use super::{Kept, Listener};
use crate::message::{Equal, Signal};

/// A signal as expressions see it.
pub fn signal_value(signal: &Signal) -> Value {
    Value::map([
        ("id", Value::String(signal.id.clone())),
        ("name", Value::String(signal.name.clone())),
        ("key", signal.key.clone()),
        ("payload", signal.payload.clone()),
        ("sent_at", Value::Timestamp(signal.sent_at.timestamp())),
    ])
}

/// What a signal must have for `matches` to hold, as [`crate::message::Subscribe`] takes it: never
/// more than it demands, at most [`limits::SUBSCRIPTION_EQUALS`]. `scope` has every name but `signal`.
pub fn equals(matches: Option<&Program>, scope: &dyn Scope) -> Vec<Equal> {
    let Some(program) = matches else {
        return Vec::new();
    };
    let found = program.equalities("signal", scope, Budget::default());
    let usable = found
        .into_iter()
        .filter(|(_, value)| Key::of(value).is_some());
    usable
        .map(|(path, value)| Equal { path, value })
        .take(limits::SUBSCRIPTION_EQUALS)
        .collect()
}

/// A value by which something is found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Null,
    Bool(bool),
    Int(i64),
    /// The bits of a float that is no whole number.
    Float(u64),
    Text(Arc<str>),
}

/// Whole numbers below this are the same as an integer and as a float.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Key {
    /// Equal values have the same key. None for what nothing is found by: a signal with such a value
    /// equals none that is looked for.
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(Self::Null),
            Value::Bool(truth) => Some(Self::Bool(*truth)),
            Value::Int(number) => (number.unsigned_abs() < 1 << 53).then_some(Self::Int(*number)),
            Value::Float(number) if number.abs() < EXACT => Some(if number.fract() == 0.0 {
                #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
                Self::Int(*number as i64)
            } else {
                Self::Float(number.to_bits())
            }),
            Value::String(text) => {
                (text.len() <= limits::SUBSCRIPTION_TEXT).then(|| Self::Text(text.clone()))
            }
            _ => None,
        }
    }
}

type Path = Vec<Arc<str>>;

/// The value of a signal's field; none if it has no such field.
fn field(signal: &Signal, path: &[Arc<str>]) -> Option<Value> {
    let (first, rest) = path.split_first()?;
    let value = match &**first {
        "id" => Value::String(signal.id.clone()),
        "name" => Value::String(signal.name.clone()),
        "key" => signal.key.clone(),
        "payload" => signal.payload.clone(),
        _ => return None,
    };
    rest.iter().try_fold(value, |value, name| {
        value.as_map().and_then(|map| map.get(name)).cloned()
    })
}

/// True if the signal has all that must be equal.
pub(super) fn has(signal: &Signal, equal: &[Equal]) -> bool {
    equal
        .iter()
        .all(|equal| field(signal, &equal.path).is_some_and(|value| value == equal.value))
}

/// Who listens.
#[derive(Clone, Debug, Default)]
pub(super) struct Listeners {
    by_number: BTreeMap<u64, Listener>,
    by_who: BTreeMap<(EntityKey, Option<Place>), u64>,
    /// By one of the fields that it demands: the one with the fewest beside it.
    by_field: BTreeMap<Path, BTreeMap<Key, BTreeSet<u64>>>,
    /// Those that demand none.
    any: BTreeSet<u64>,
    /// The field by which each is found.
    found_by: BTreeMap<u64, usize>,
}

impl Listeners {
    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    pub(super) fn number_of(&self, who: &EntityKey, place: Option<Place>) -> Option<u64> {
        self.by_who.get(&(who.clone(), place)).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&u64, &Listener)> {
        self.by_number.iter()
    }

    /// Adds one; it replaces the one of the same `who` and `place`.
    pub(super) fn add(&mut self, number: u64, listener: Listener) {
        if let Some(before) = self.number_of(&listener.who, listener.place) {
            self.remove(before);
        }
        let beside = |equal: &Equal| {
            let key = Key::of(&equal.value)?;
            let of_field = self.by_field.get(&equal.path);
            Some(
                of_field
                    .and_then(|keys| keys.get(&key))
                    .map_or(0, BTreeSet::len),
            )
        };
        let fewest = listener
            .equal
            .iter()
            .enumerate()
            .filter_map(|(place, equal)| Some((beside(equal)?, place)))
            .min();
        match fewest {
            Some((_, place)) => {
                let equal = &listener.equal[place];
                if let Some(key) = Key::of(&equal.value) {
                    self.found_by.insert(number, place);
                    let keys = self.by_field.entry(equal.path.clone()).or_default();
                    keys.entry(key).or_default().insert(number);
                }
            }
            None => {
                self.any.insert(number);
            }
        }
        self.by_who
            .insert((listener.who.clone(), listener.place), number);
        self.by_number.insert(number, listener);
    }

    pub(super) fn remove(&mut self, number: u64) {
        let Some(listener) = self.by_number.remove(&number) else {
            return;
        };
        self.any.remove(&number);
        let found_by = self.found_by.remove(&number);
        if let Some(equal) = found_by.and_then(|place| listener.equal.get(place))
            && let Some(key) = Key::of(&equal.value)
            && let Some(keys) = self.by_field.get_mut(&equal.path)
        {
            if let Some(numbers) = keys.get_mut(&key) {
                numbers.remove(&number);
                if numbers.is_empty() {
                    keys.remove(&key);
                }
            }
            if keys.is_empty() {
                self.by_field.remove(&equal.path);
            }
        }
        self.by_who.remove(&(listener.who, listener.place));
    }

    /// The first so many listeners above `after` and up to `until` that a signal may concern, in the
    /// order in which they came.
    pub(super) fn that_match(
        &self,
        signal: &Signal,
        after: u64,
        until: u64,
        limit: usize,
    ) -> Vec<(u64, &Listener)> {
        if after >= until {
            return Vec::new();
        }
        let fields = self.by_field.iter().filter_map(|(path, keys)| {
            let key = Key::of(&field(signal, path)?)?;
            keys.get(&key)
        });
        let mut found = Vec::new();
        for numbers in fields.chain([&self.any]) {
            let wanted = numbers.range(after + 1..=until).filter_map(|number| {
                let listener = self.by_number.get(number)?;
                let early = listener.since.is_some_and(|since| signal.sent_at < since);
                (!early && has(signal, &listener.equal)).then_some((*number, listener))
            });
            found.extend(wanted.take(limit));
        }
        found.sort_unstable_by_key(|(number, _)| *number);
        found.truncate(limit);
        found
    }
}

/// Fields by which kept signals are found at most: more are looked for one by one.
const FIELDS: usize = 4;

/// Kept signals by fields that somebody looked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Signals(BTreeMap<Path, BTreeMap<Key, BTreeSet<u64>>>);

impl Signals {
    pub(super) fn add(&mut self, number: u64, signal: &Signal) {
        for (path, keys) in &mut self.0 {
            if let Some(key) = field(signal, path).as_ref().and_then(Key::of) {
                keys.entry(key).or_default().insert(number);
            }
        }
    }

    pub(super) fn remove(&mut self, number: u64, signal: &Signal) {
        for (path, keys) in &mut self.0 {
            if let Some(key) = field(signal, path).as_ref().and_then(Key::of)
                && let Some(numbers) = keys.get_mut(&key)
            {
                numbers.remove(&number);
                if numbers.is_empty() {
                    keys.remove(&key);
                }
            }
        }
    }

    /// Numbers of the kept signals with one of the fields that must be equal, the one that fewest
    /// have; none if all kept signals must be looked at.
    pub(super) fn numbers(
        &mut self,
        kept: &VecDeque<Kept>,
        equal: &[Equal],
    ) -> Option<&BTreeSet<u64>> {
        static NONE: BTreeSet<u64> = BTreeSet::new();
        for equal in equal {
            if self.0.len() < FIELDS && !self.0.contains_key(&equal.path) {
                self.0.insert(equal.path.clone(), BTreeMap::new());
                let keys = self.0.get_mut(&equal.path)?;
                for kept in kept {
                    if let Some(key) = field(&kept.signal, &equal.path).as_ref().and_then(Key::of) {
                        keys.entry(key).or_default().insert(kept.number);
                    }
                }
            }
        }
        equal
            .iter()
            .filter_map(|equal| {
                let keys = self.0.get(&equal.path)?;
                Some(keys.get(&Key::of(&equal.value)?).unwrap_or(&NONE))
            })
            .min_by_key(|numbers| numbers.len())
    }
}
