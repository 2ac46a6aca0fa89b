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
        "docs/reference/language.md is old: write it again from `reference_markdown`"
    );
}

#[test]
fn the_pages_of_the_configuration_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    for (name, current) in [
        ("config.md", kapell_model::config::reference_markdown()),
        ("kapell.toml", kapell_model::config::example_toml()),
    ] {
        let kept = fs::read_to_string(folder.join(name)).unwrap();
        assert!(
            kept == current,
            "docs/reference/{name} is old: `make docs` writes it"
        );
    }
}

#[test]
fn the_schema_is_current() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/workflow.schema.json");
    let kept: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert!(
        kept == kapell_model::json_schema(),
        "docs/reference/workflow.schema.json is old: write it again from `json_schema`"
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
    assert!(schema["properties"]["triggers"].is_object());
    assert_eq!(
        schema["$defs"]["trigger"]["oneOf"].as_array().map(Vec::len),
        Some(5),
        "a trigger has exactly one of five keys"
    );
}

/// An example of the reference as a whole definition.
fn whole(example: &str) -> String {
    let first = example.split(':').next().unwrap_or_default();
    let params = "params: { customer: { type: string }, name: { type: string }, order: { type: int }, size: { type: int }, days: { type: list<date> } }\n";
    match first {
        "workflow" if example.contains("\nsteps:") => example.to_owned(),
        "params" => format!("workflow: w\nsteps: {{ a: {{ noop: }} }}\n{example}"),
        "triggers" => format!(
            "workflow: w\nparams: {{ customer: {{ type: string, default: acme }} }}\nsteps: {{ a: {{ noop: }} }}\n{example}"
        ),
        "defaults" | "strategy" | "retention" | "notify" => {
            format!("workflow: w\n{params}steps: {{ a: {{ noop: }} }}\n{example}")
        }
        "steps" => format!("workflow: w\n{params}{example}"),
        key => {
            let verb = matches!(
                key,
                "shell"
                    | "python"
                    | "http"
                    | "workflow"
                    | "switch"
                    | "loop"
                    | "wait"
                    | "await"
                    | "approval"
            );
            let body = format!("    {}\n", example.trim_end().replace('\n', "\n    "));
            let shell = if verb { "" } else { "    shell: x\n" };
            format!(
                "workflow: w\n{params}steps:\n  train: {{ shell: x }}\n  a:\n    needs: train\n{shell}{body}"
            )
        }
    }
}

#[test]
fn the_examples_of_the_reference_parse() {
    let reference = kapell_model::reference_markdown();
    let examples: Vec<&str> = reference
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(examples.len() > 15, "only {} examples", examples.len());
    for example in examples {
        let text = whole(example);
        let mut parsed = kapell_model::parse("example", &text);
        parsed.diagnostics.retain(|found| found.code != "not-yet");
        assert!(parsed.spec.is_some(), "{text}");
        let shown = kapell_model::render(
            "example",
            &text,
            &parsed.diagnostics,
            kapell_model::Color::Never,
        );
        assert_eq!(shown, "", "{text}");
    }
}
