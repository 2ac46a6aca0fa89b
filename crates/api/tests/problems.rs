//! The body of each public failure, as it goes over the wire: what clients may rely on.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use kapell_api::http::Problem;
use kapell_model::{Error, ErrorCode};

fn failure(code: ErrorCode) -> Error {
    Error::new(code, "`daily-sales` did something").hint("do something else")
}

#[test]
fn each_code_has_its_body() {
    for code in ErrorCode::ALL {
        let body = serde_json::to_string_pretty(&Problem::from(failure(*code))).unwrap();
        insta::with_settings!({ snapshot_path => "problems", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(code.name(), body);
        });
    }
}

#[test]
fn no_body_is_kept_of_a_code_that_is_gone() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/problems");
    let kept: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let codes: BTreeSet<String> = ErrorCode::ALL
        .iter()
        .map(|code| format!("{code}.snap"))
        .collect();
    assert_eq!(kept, codes);
}

#[test]
fn a_body_without_a_hint_leaves_it_out() {
    let body =
        serde_json::to_value(Problem::from(Error::new(ErrorCode::DiskFull, "full"))).unwrap();
    assert!(body.get("hint").is_none());
}

#[test]
fn a_client_reads_the_failure_back() {
    for code in ErrorCode::ALL {
        let body = serde_json::to_string(&Problem::from(failure(*code))).unwrap();
        let read: Problem = serde_json::from_str(&body).unwrap();
        assert_eq!(Error::from(read), failure(*code));
    }
}
