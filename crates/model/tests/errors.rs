//! Every code of a public failure has its page, and no page is about anything else.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kapell_model::ErrorCode;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors")
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let pages: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name != "README.md")
        .collect();
    let codes: BTreeSet<String> = ErrorCode::ALL
        .iter()
        .map(|code| format!("{code}.md"))
        .collect();
    assert_eq!(pages, codes);
}

#[test]
fn every_page_says_what_its_code_answers() {
    for code in ErrorCode::ALL {
        let page = fs::read_to_string(folder().join(format!("{code}.md"))).unwrap();
        assert!(page.starts_with(&format!("# {code}\n")), "{code}");
        let again = if code.retryable() { "yes" } else { "no" };
        let row = format!(
            "\n| {} | {} | {again} |",
            code.http_status(),
            code.exit_status()
        );
        assert!(page.contains(&row), "docs/errors/{code}.md lacks{row}");
        assert!(page.contains("\n## What to do\n"), "{code}");
    }
}
