use super::*;
use kapell_api::task::Artifact;
use kapell_model::{FailureKind, limits};

#[test]
fn output_lines_become_a_map() {
    let ended = setup().run(shell("echo '::output count=3'\necho '::output version=1.10'\necho '::output list=[1,\"a\"]'\necho '::output name=plain text'"));
    assert_eq!(
        ended.json(),
        r#"{"count":3,"list":[1,"a"],"name":"plain text","version":"1.10"}"#
    );
}

#[test]
fn a_named_file_is_the_output_and_must_be_there() {
    let setup = setup();
    let work = |script: &str| {
        shell_with(script, |process| {
            process.output_file = Some("rows.json".into());
        })
    };
    assert_eq!(setup.run(work("echo '[1,2]' > rows.json")).json(), "[1,2]");
    for (script, words) in [
        ("true", "was not written"),
        ("echo '[1,' > rows.json", "is not JSON"),
        ("mkfifo rows.json", "is no file"),
    ] {
        let error = setup.run(work(script)).error().clone();
        assert_eq!(
            (error.kind, error.reason.as_str()),
            (FailureKind::User, "output")
        );
        assert!(error.message.contains(words), "{}", error.message);
    }
}

#[test]
fn a_large_output_is_a_blob_and_a_huge_one_an_error() {
    let setup = setup();
    let ended = setup.run(shell("printf '\"' > $KAPELL_OUTPUT; head -c 100000 /dev/zero | tr '\\0' x >> $KAPELL_OUTPUT; printf '\"' >> $KAPELL_OUTPUT"));
    let Value::Blob(blob) = ended.value() else {
        panic!("{ended:?}")
    };
    let value = Value::from_stored(&setup.blobs.get(blob, u64::MAX).unwrap()).unwrap();
    assert_eq!(value.as_str().unwrap().len(), 100_000);
    let error = setup
        .run(shell(&format!(
            "head -c {} /dev/zero > $KAPELL_OUTPUT",
            limits::OUTPUT_BYTES + 1
        )))
        .error()
        .clone();
    assert_eq!(error.reason, "output");
}

#[test]
fn a_large_input_is_loaded() {
    let setup = setup();
    let stored = Value::string("y".repeat(100_000)).to_stored();
    let blob = setup.blobs.put(&stored).unwrap();
    let work = shell_with("wc -c < $KAPELL_INPUT", |process| {
        process.with.value = Value::map([("big", Value::Blob(blob))]);
    });
    setup.run(work).value();
    assert_eq!(setup.log_text("step"), ["100010"]);
}

#[test]
fn files_pass_by_artifacts() {
    let setup = setup();
    let ended = setup.run(shell_with(
        "mkdir out; echo model > out/model.pkl; echo '::output loss=0.5'",
        |process| {
            process.artifacts_out = vec![("model".into(), "out/model.pkl".into())];
        },
    ));
    let model = ended
        .value()
        .as_map()
        .unwrap()
        .get("model")
        .and_then(Artifact::from_value)
        .expect("an artifact");
    assert_eq!(&*model.name, "model.pkl");
    setup
        .run(shell_with("cat in/model.pkl", |process| {
            process.artifacts_in = vec![("in/model.pkl".into(), model.clone())];
        }))
        .value();
    assert_eq!(setup.log_text("step").pop().unwrap(), "model");
    let error = setup
        .run(shell_with("true", |process| {
            process.artifacts_in = vec![("../x".into(), model)];
        }))
        .error()
        .clone();
    assert_eq!(
        (error.kind, error.reason.as_str()),
        (FailureKind::User, "artifact")
    );
    let error = setup
        .run(shell_with("ln -s /etc/passwd file", |process| {
            process.artifacts_out = vec![("file".into(), "file".into())];
        }))
        .error()
        .clone();
    assert!(error.message.contains("outside"), "{}", error.message);
}
