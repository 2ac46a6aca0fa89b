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

/// A process with the secret `token` in its environment.
fn with_secret(script: &str, change: impl FnOnce(&mut Process)) -> Work {
    shell_with(script, |process| {
        process.env = vec![("T".into(), Some(secret("token")))];
        change(process);
    })
}

fn said_so(setup: &Setup) -> bool {
    let log = setup.log_text("step");
    log.iter()
        .any(|line| line.contains("a secret stood in the output"))
}

#[test]
fn no_output_of_a_process_holds_its_secret() {
    let file = "printf '{\"a\": [\"x %s\"]}' \"$T\" > $KAPELL_OUTPUT";
    let line = "echo \"::output a=$T\"; echo '::output b=1'";
    let many = "for i in $(seq 200); do echo \"::output a$i=$T\"; done";
    let coded = "printf '\"%s\"' $(printf 'user:%s' \"$T\" | base64) > $KAPELL_OUTPUT";
    for (script, shown) in [
        (file, r#"{"a":["x ***"]}"#),
        (line, r#"{"a":"***","b":1}"#),
        (many, "\"a200\":\"***\""),
        (coded, "***"),
    ] {
        let setup = setup();
        let json = setup.run(with_secret(script, |_| {})).json();
        assert!(json.contains(shown), "{script}: {json}");
        assert!(!json.contains("s3cret"), "{script}: {json}");
        assert!(said_so(&setup), "{script}");
    }
    let setup = setup();
    let script = "printf '\"%s\"' \"$T\" > rows.json";
    let work = with_secret(script, |process| {
        process.output_file = Some("rows.json".into());
    });
    assert_eq!(setup.run(work).json(), "\"***\"");
    assert!(said_so(&setup));
}

#[test]
fn no_big_output_holds_a_secret_and_one_without_is_as_it_was() {
    let setup = setup();
    let long = "x=$(head -c 100000 /dev/zero | tr '\\0' x)";
    let script = format!("{long}; printf '\"%s%s\"' \"$x\" \"$T\" > $KAPELL_OUTPUT");
    let ended = setup.run(with_secret(&script, |_| {}));
    let Value::Blob(blob) = ended.value() else {
        panic!("{ended:?}")
    };
    let value = Value::from_stored(&setup.blobs.get(blob, u64::MAX).unwrap()).unwrap();
    assert!(value.as_str().unwrap().ends_with("xx***"));
    assert!(said_so(&setup));
    let plain = with_secret("echo '{\"a\": \"s3cret\"}' > $KAPELL_OUTPUT", |_| {});
    assert_eq!(setup.run(plain).json(), r#"{"a":"s3cret"}"#);
}
