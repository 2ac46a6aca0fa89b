//! What differs between two values, as places with what stands there before and after.

use std::collections::{BTreeMap, BTreeSet};

use kapell_api::http::{Difference, FileChange, FileDifference};
use kapell_api::task::Bundle;
use serde_json::Value;

/// Differences listed at most.
pub(crate) const MOST: usize = 1_000;

/// Keys by which the elements of a list are told apart: those of steps, parameters and triggers.
const NAMES: [&str; 2] = ["id", "name"];

/// The files that differ between two lists in the order of their paths; at most [`MOST`].
pub(crate) fn files(before: &Bundle, after: &Bundle) -> Vec<FileDifference> {
    let by_path = |bundle: &Bundle| {
        let files = bundle.files.iter();
        files
            .map(|file| (file.path.clone(), (file.blob.hash.clone(), file.executable)))
            .collect::<BTreeMap<_, _>>()
    };
    let (before, after) = (by_path(before), by_path(after));
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    paths
        .into_iter()
        .filter_map(|path| {
            let change = match (before.get(path), after.get(path)) {
                (None, _) => FileChange::Added,
                (_, None) => FileChange::Removed,
                (before, after) if before != after => FileChange::Changed,
                _ => return None,
            };
            let path = path.clone();
            Some(FileDifference { path, change })
        })
        .take(MOST)
        .collect()
}

/// The places at which two values differ, in order; at most [`MOST`] and one more.
pub(crate) fn between(before: &Value, after: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(before, after, &mut String::new(), &mut found);
    found
}

fn compare(before: &Value, after: &Value, path: &mut String, found: &mut Vec<Difference>) {
    if before == after || found.len() > MOST {
        return;
    }
    let (left, right) = match (before, after) {
        (Value::Object(_), Value::Object(_)) => (before.clone(), after.clone()),
        (Value::Array(left), Value::Array(right)) => match (named(left), named(right)) {
            (Some(left), Some(right)) => (left, right),
            _ => return differs(before, after, path, found),
        },
        _ => return differs(before, after, path, found),
    };
    let (Value::Object(left), Value::Object(right)) = (left, right) else {
        return;
    };
    let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    for key in keys {
        let length = path.len();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
        let one = left.get(key).unwrap_or(&Value::Null);
        let other = right.get(key).unwrap_or(&Value::Null);
        compare(one, other, path, found);
        path.truncate(length);
    }
}

fn differs(before: &Value, after: &Value, path: &str, found: &mut Vec<Difference>) {
    found.push(Difference {
        path: path.to_owned(),
        before: before.clone(),
        after: after.clone(),
    });
}

/// A list whose elements have names, or are pairs of a name and a value, as a map by name; an empty
/// list is one too.
fn named(list: &[Value]) -> Option<Value> {
    let mut map = serde_json::Map::new();
    for element in list {
        let (name, value) = match element {
            Value::Object(fields) => {
                let name = NAMES.iter().find_map(|key| fields.get(*key)?.as_str())?;
                (name, element.clone())
            }
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(name), value] => (name.as_str(), value.clone()),
                _ => return None,
            },
            _ => return None,
        };
        if map.insert(name.to_owned(), value).is_some() {
            return None;
        }
    }
    Some(Value::Object(map))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn places(before: &Value, after: &Value) -> Vec<String> {
        let found = between(before, after);
        found.into_iter().map(|found| found.path).collect()
    }

    #[test]
    fn steps_are_told_apart_by_their_ids() {
        let before = json!({ "steps": [{ "id": "a", "retry": 1 }, { "id": "b" }] });
        let after = json!({ "steps": [{ "id": "b" }, { "id": "a", "retry": 2 }, { "id": "c" }] });
        assert_eq!(places(&before, &after), ["steps.a.retry", "steps.c"]);
    }

    #[test]
    fn pairs_are_maps_and_other_lists_are_compared_as_a_whole() {
        let before = json!({ "env": [["A", 1], ["B", 2]], "tags": ["x"] });
        let after = json!({ "env": [["A", 1], ["B", 3]], "tags": ["x", "y"] });
        assert_eq!(places(&before, &after), ["env.B", "tags"]);
    }

    #[test]
    fn equal_values_have_no_differences() {
        let value = json!({ "a": [1, { "b": null }] });
        assert_eq!(between(&value, &value.clone()).len(), 0);
    }
}
