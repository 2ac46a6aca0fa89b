//! What a filter of runs means: one predicate for every store, whatever index it finds rows by.

use serde_json::Value;

use crate::{RunFilter, RunRow};

/// Bytes of a label's value that an index holds; the row itself says the rest.
const INDEXED_BYTES: usize = 256;

impl RunFilter {
    /// True if a row satisfies every condition but `before`, which is about its place.
    pub fn matches(&self, row: &RunRow) -> bool {
        let of = |wanted: &Option<_>, found| wanted.as_ref().is_none_or(|wanted| wanted == found);
        of(&self.namespace, &row.namespace)
            && of(&self.workflow, &row.workflow)
            && (self.statuses.is_empty() || self.statuses.contains(&row.status))
            && self.parent.is_none_or(|parent| row.parent == Some(parent))
            && self.since.is_none_or(|since| row.created_at >= since)
            && self.until.is_none_or(|until| row.created_at < until)
            && self.trigger.as_ref().is_none_or(|trigger| {
                row.trigger == *trigger || row.trigger_name.as_ref() == Some(trigger)
            })
            && (self.backfill.is_none() || row.backfill == self.backfill)
            && self.has_labels(row)
            && self.has_error(row)
    }

    fn has_labels(&self, row: &RunRow) -> bool {
        if self.labels.is_empty() {
            return true;
        }
        let found = labels(&row.labels);
        self.labels.iter().all(|(key, value)| {
            let mut found = found.iter();
            found.any(|(name, text)| name == &**key && text == &**value)
        })
    }

    fn has_error(&self, row: &RunRow) -> bool {
        let Some(wanted) = &self.error else {
            return true;
        };
        let found = row.error.as_deref();
        found.is_some_and(|found| contains(found.as_bytes(), wanted.as_bytes()))
    }
}

/// Whether a text is in another, whatever the case of its ASCII letters.
fn contains(text: &[u8], wanted: &[u8]) -> bool {
    let Some(last) = text.len().checked_sub(wanted.len()) else {
        return false;
    };
    (0..=last).any(|start| text[start..start + wanted.len()].eq_ignore_ascii_case(wanted))
}

/// Labels of a row by name; a value that is no text is its JSON. None where the column is no map.
pub(crate) fn labels(json: &str) -> Vec<(String, String)> {
    // Nearly all runs have none, and this is asked with each that is made.
    if json.len() <= 2 {
        return Vec::new();
    }
    let map: serde_json::Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
    let text = |(key, value): (String, Value)| match value {
        Value::String(text) => (key, text),
        other => (key, other.to_string()),
    };
    map.into_iter().map(text).collect()
}

/// The start of a label's value, as an index holds it.
pub(crate) fn indexed(value: &str) -> &str {
    if value.len() <= INDEXED_BYTES {
        return value;
    }
    let end = (0..=INDEXED_BYTES)
        .rev()
        .find(|end| value.is_char_boundary(*end));
    &value[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_found_in_any_case_and_nowhere_else() {
        for (text, wanted, found) in [
            ("Connection refused", "connection", true),
            ("Connection refused", "REFUSED", true),
            ("Connection refused", "", true),
            ("", "", true),
            ("", "a", false),
            ("short", "shorter", false),
            ("größe\0 broke", "\0 Broke", true),
        ] {
            assert_eq!(
                contains(text.as_bytes(), wanted.as_bytes()),
                found,
                "{text} {wanted}"
            );
        }
    }

    #[test]
    fn labels_that_are_no_text_are_their_json() {
        let found = labels(r#"{"team":"a","day":3,"live":true,"none":null}"#);
        let found: Vec<(&str, &str)> = found.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert!(found.contains(&("team", "a")) && found.contains(&("day", "3")));
        assert!(found.contains(&("live", "true")) && found.contains(&("none", "null")));
        assert_eq!(labels("{}"), []);
        assert_eq!(labels("nonsense"), []);
    }

    #[test]
    fn an_index_holds_whole_characters() {
        let long = "é".repeat(300);
        assert_eq!(indexed(&long).len(), 256);
        assert_eq!(indexed(&format!("a{long}")).len(), 255);
        assert_eq!(indexed("short"), "short");
    }
}
