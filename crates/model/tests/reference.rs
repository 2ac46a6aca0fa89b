//! The generated pages are current, and the schema covers what the parser takes.

use std::fs;
use std::path::Path;

use serde_json::Value;

#[test]
fn the_language_reference_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/language.md");
    let kept = fs::read_to_string(path).unwrap();
    assert!(
        kept == kapell_model::reference_markdown(),
        "docs/reference/language.md is not what the table of keys gives"
    );
}

#[test]
fn the_schema_is_current() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/workflow.schema.json");
    let kept: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert!(
        kept == kapell_model::json_schema(),
        "docs/reference/workflow.schema.json is not what the table of keys gives"
    );
}

/// Every property anywhere in the schema.
fn properties<'a>(schema: &'a Value, found: &mut Vec<(&'a String, &'a Value)>) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Object(properties)) = fields.get("properties") {
                found.extend(properties);
            }
            fields.values().for_each(|value| properties(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| properties(item, found)),
        _ => {}
    }
}

#[test]
fn every_key_is_described_and_every_reference_resolves() {
    let schema = kapell_model::json_schema();
    let mut found = Vec::new();
    properties(&schema, &mut found);
    assert!(found.len() > 100, "only {} keys", found.len());
    for (name, property) in &found {
        if name.as_str() != "properties" {
            assert!(
                property["description"]
                    .as_str()
                    .is_some_and(|doc| doc.len() > 5),
                "`{name}` has no description"
            );
        }
    }
    let text = schema.to_string();
    for part in text.split("\"$ref\":\"#/$defs/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schema["$defs"][name].is_object(), "`{name}` is not defined");
    }
    assert!(schema["$defs"]["step"]["properties"]["triggers"].is_null());
    assert!(schema["properties"]["triggers"].is_null());
}
