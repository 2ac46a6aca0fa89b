//! The generated OpenAPI document is current and whole.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

#[test]
fn the_api_reference_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/openapi.json");
    let kept: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let now = kapell_server::http::openapi();
    assert!(
        kept == now,
        "docs/reference/openapi.json is old: `make docs` writes it"
    );
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(to) = fields.get("$ref").and_then(Value::as_str) {
                found.insert(to.to_owned());
            }
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn every_reference_resolves_and_every_operation_says_who_may() {
    let document = kapell_server::http::openapi();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 10, "{found:?}");
    for to in found {
        let path = to.strip_prefix('#').unwrap();
        assert!(document.pointer(path).is_some(), "nothing is at {to}");
    }
    let mut names = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "{name} is there twice");
            assert!(
                operation["summary"]
                    .as_str()
                    .is_some_and(|text| text.len() > 3),
                "{method} {path} has no summary"
            );
            let scope = &operation["security"][0]["token"][0];
            assert!(
                ["read", "run", "write", "admin"].contains(&scope.as_str().unwrap_or_default())
                    || operation["security"] == serde_json::json!([{}]),
                "{method} {path} does not say what a token needs"
            );
        }
    }
    // One with fields that must be given, one with fields of any type, one without fields.
    for verb in ["restart_run", "fork_run", "dismiss_run"] {
        assert!(names.contains(verb), "{names:?}");
    }
}
