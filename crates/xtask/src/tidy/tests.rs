use std::fs;

use kapell_model::ErrorCode;

use super::tree::SourceFile;
use super::{MAX_LINES, error_pages, problems, run};

fn file(path: &str, text: &str) -> SourceFile {
    SourceFile {
        path: path.into(),
        text: text.into(),
    }
}

/// Problems of the files, those about missing pages left out.
fn found(files: &[SourceFile]) -> Vec<String> {
    problems(files)
        .into_iter()
        .filter(|problem| !problem.contains("has no page"))
        .collect()
}

fn manifest(user: &str, dependencies: &str) -> Vec<String> {
    found(&[file(&format!("crates/{user}/Cargo.toml"), dependencies)])
}

#[test]
fn a_crate_may_use_what_it_reaches_along_the_arrows() {
    assert_eq!(
        manifest(
            "cli",
            "[dependencies]\nkapell-server.workspace = true\nkapell-expr = { workspace = true }\n"
        ),
        [""; 0]
    );
    assert_eq!(
        manifest("worker", "[dependencies]\nkapell-api.workspace = true\n"),
        [""; 0]
    );
}

#[test]
fn any_other_edge_is_a_problem_whatever_its_kind() {
    for section in [
        "[dependencies]\nkapell-store.workspace = true\n",
        "[dev-dependencies]\nkapell-store = { path = \"../store\" }\n",
        "[target.'cfg(unix)'.dependencies]\n\"kapell-store\" = \"0.1\"\n",
        "[build-dependencies.kapell-store]\nworkspace = true\n",
    ] {
        let problems = manifest("worker", section);
        assert_eq!(problems.len(), 1, "{section}");
        assert!(
            problems[0].contains("`worker` may not use `store`"),
            "{problems:?}"
        );
    }
    assert_eq!(
        manifest("expr", "[dependencies]\nkapell-model.workspace = true\n").len(),
        1
    );
}

#[test]
fn sections_other_than_dependencies_name_no_edges() {
    assert_eq!(
        manifest(
            "expr",
            "[package]\nkapell-model = 1\n[dependencies]\ncel = 1\n[features]\nkapell-model = []\n"
        ),
        [""; 0]
    );
}

#[test]
fn a_crate_must_be_in_the_table() {
    assert!(manifest("gui", "[dependencies]\n")[0].contains("`gui` is not in the table"));
}

#[test]
fn empty_words_are_found_in_files_and_types_but_not_in_prose() {
    let source = [
        "struct",
        "LockManager;\n// a helper: struct X\nfn common() {}\nenum",
        "Commonest {}\n",
    ]
    .join(" ");
    let problems = found(&[
        file("crates/node/src/lock.rs", &source),
        file("crates/node/src/string_utils.rs", "\n"),
    ]);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].contains("lock.rs:1: `LockManager`"),
        "{problems:?}"
    );
    assert!(problems[1].contains("string_utils.rs"), "{problems:?}");
}

#[test]
fn marks_of_unfinished_work_and_blanks_are_found_with_their_lines() {
    let text = format!(
        "fine\n# {}: later\nmktemp a.XXXXXX\nend \n",
        concat!("TO", "DO")
    );
    let problems = found(&[file("tool.sh", &text)]);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].starts_with("tool.sh:2:") && problems[1].starts_with("tool.sh:4:"),
        "{problems:?}"
    );
    assert_eq!(
        found(&[file("a.md", "no end")]),
        ["a.md: the last line has no end"]
    );
}

#[test]
fn only_source_files_have_a_greatest_length() {
    let text = "\n".repeat(MAX_LINES + 1);
    assert_eq!(found(&[file("a.rs", &text), file("a.md", &text)]).len(), 1);
    assert_eq!(found(&[file("a.rs", &text[1..])]), [""; 0]);
}

#[test]
fn every_error_code_has_a_page_and_every_page_a_code() {
    let code = ErrorCode::ALL[0];
    let mut problems = Vec::new();
    error_pages(
        &[file(&format!("docs/errors/{code}.md"), "\n")],
        &[code],
        &mut problems,
    );
    assert_eq!(problems, [""; 0]);
    error_pages(&[file("docs/errors/gone.md", "\n")], &[code], &mut problems);
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn folders_of_built_files_and_binary_files_are_not_read() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("Cargo.toml"), "\n").unwrap();
    fs::write(root.path().join("plot.png"), [0xff, 0xfe, 0x00]).unwrap();
    fs::create_dir(root.path().join("target")).unwrap();
    fs::write(root.path().join("target/bad.rs"), "x ").unwrap();
    let mut out = Vec::new();
    let error = run(root.path(), &mut out).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("tidy: {} problems in 1 files", ErrorCode::ALL.len())
    );
    assert!(!String::from_utf8(out).unwrap().contains("bad.rs"));
}

#[test]
fn another_folder_is_refused() {
    let root = tempfile::tempdir().unwrap();
    assert!(
        run(root.path(), &mut Vec::new())
            .unwrap_err()
            .to_string()
            .contains("not the project's root")
    );
}
