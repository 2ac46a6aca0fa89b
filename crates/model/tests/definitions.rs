//! Definitions in files: good ones parse without a word and survive being stored; each bad one gives
//! the diagnostics that are kept beside it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use kapell_model::spec::Spec;
use kapell_model::{Color, parse, render};

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|kind| kind == "yaml" || kind == "json")
        })
        .collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn good_definitions_have_no_diagnostics() {
    let files = files("good");
    assert!(files.len() >= 8, "only {} good files", files.len());
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let parsed = parse(&name(&path), &text);
        assert_eq!(
            render(&name(&path), &text, &parsed.diagnostics, Color::Never),
            ""
        );
        assert!(parsed.spec.is_some());
    }
}

/// What is checked and does not work yet is valid, with a warning at each use.
#[test]
fn what_does_not_work_yet_is_valid_and_warned_of() {
    for path in files("later") {
        let text = fs::read_to_string(&path).unwrap();
        let parsed = parse(&name(&path), &text);
        assert!(parsed.spec.is_some());
        assert!(
            parsed
                .diagnostics
                .iter()
                .all(|found| found.code == "not-yet")
        );
        let shown = render(&name(&path), &text, &parsed.diagnostics, Color::Never);
        insta::with_settings!({ snapshot_path => "later", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name(&path), shown);
        });
    }
}

#[test]
fn a_spec_survives_being_stored() {
    for path in [files("good"), files("later")].concat() {
        let text = fs::read_to_string(&path).unwrap();
        let spec = parse(&name(&path), &text).spec.unwrap();
        let stored = serde_json::to_string(&*spec).unwrap();
        let read: Spec = serde_json::from_str(&stored)
            .unwrap_or_else(|error| panic!("{}: {error}\n{stored}", name(&path)));
        assert_eq!(
            serde_json::to_string(&read).unwrap(),
            stored,
            "{}",
            name(&path)
        );
    }
}

/// A file that did not change must not become a new version.
#[test]
fn what_a_file_does_not_say_is_not_stored() {
    let text = "workflow: w\nsteps: { a: { noop: } }\n";
    let spec = parse("w.yaml", text).spec.unwrap();
    let stored = serde_json::to_value(&*spec).unwrap();
    for key in ["triggers", "deadline", "notify"] {
        assert!(stored.get(key).is_none(), "{stored}");
    }
}

#[test]
fn bad_definitions_are_explained() {
    let files = files("bad");
    assert!(files.len() >= 40, "only {} bad files", files.len());
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let parsed = parse(&name(&path), &text);
        assert!(
            !parsed.diagnostics.is_empty(),
            "{} has no problem",
            name(&path)
        );
        let shown = render(&name(&path), &text, &parsed.diagnostics, Color::Never);
        insta::with_settings!({ snapshot_path => "bad", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name(&path), shown);
        });
    }
}
