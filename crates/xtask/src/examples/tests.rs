use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kapell_model::{Color, parse, render};
use serde_json::json;

use super::cases::CASES;
use super::expect_part;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

/// Every workflow file below `folder`, as paths from the folder of the examples. What a run there
/// left behind is none of them.
fn workflows(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with(".kapell") {
            continue;
        }
        if path.is_dir() {
            found.extend(workflows(&path));
        } else if path.extension().is_some_and(|ending| ending == "yaml") {
            found.insert(
                path.strip_prefix(examples())
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
            );
        }
    }
    found
}

#[test]
fn every_example_is_a_workflow_without_a_single_diagnostic() {
    let files = workflows(&examples());
    assert!(files.len() > 9, "{files:?}");
    let mut problems = String::new();
    for file in files {
        let text = fs::read_to_string(examples().join(&file)).unwrap();
        let parsed = parse(&file, &text);
        if !parsed.diagnostics.is_empty() {
            problems.push_str(&render(&file, &text, &parsed.diagnostics, Color::Never));
        }
    }
    assert!(problems.is_empty(), "{problems}");
}

#[test]
fn every_example_is_run() {
    let run: BTreeSet<String> = CASES
        .iter()
        .flat_map(|case| case.files)
        .map(|file| (*file).to_owned())
        .collect();
    assert_eq!(run, workflows(&examples()));
}

#[test]
fn what_is_expected_may_be_a_part_of_a_map_but_not_of_a_list() {
    let found = json!({ "rows": 3, "list": [1, 2], "inner": { "a": 1, "b": 2 } });
    assert!(expect_part(&found, &json!({ "rows": 3, "inner": { "b": 2 } })).is_ok());
    assert!(expect_part(&found, &json!({ "list": [1] })).is_err());
    assert!(expect_part(&found, &json!({ "rows": "3" })).is_err());
    assert!(expect_part(&found, &json!({ "other": null })).is_err());
}
