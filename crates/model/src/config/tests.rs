use std::collections::BTreeSet;

use super::*;

#[test]
fn every_default_is_what_its_key_takes() {
    for key in KEYS {
        key.kind.parse(key.default).unwrap_or_else(|takes| {
            panic!("the default of `{}` is not {takes}", key.path());
        });
        assert!(key.doc.ends_with('.'), "{}", key.path());
    }
}

#[test]
fn no_path_or_variable_is_there_twice_and_sections_are_together() {
    let paths: BTreeSet<String> = KEYS.iter().map(|key| key.path()).collect();
    assert_eq!(paths.len(), KEYS.len());
    let variables = KEYS.iter().flat_map(|key| {
        let own = key.variable.map(str::to_owned);
        key.environment().into_iter().chain(own)
    });
    let variables: Vec<String> = variables.collect();
    let different: BTreeSet<&String> = variables.iter().collect();
    assert_eq!(different.len(), variables.len());
    // Those that give secrets to steps begin so: a key must not be taken for one.
    assert!(
        !variables
            .iter()
            .any(|name| name.starts_with("KAPELL_SECRET_"))
    );
    let mut sections: Vec<&str> = KEYS.iter().map(|key| key.section).collect();
    sections.dedup();
    let different: BTreeSet<&&str> = sections.iter().collect();
    assert_eq!(different.len(), sections.len(), "{sections:?}");
}

#[test]
fn values_are_read_by_their_kind() {
    let read = |kind: Kind, text: &str| kind.parse(text).map(|value| value.to_string());
    let good = |text: &str| Ok(text.to_owned());
    assert_eq!(read(Kind::Bool, " true "), good("true"));
    assert_eq!(read(Kind::Count(1, 9), "9"), good("9"));
    assert_eq!(read(Kind::Bytes, "64Mi"), good("67108864"));
    assert_eq!(read(Kind::Bytes, "2KiB"), good("2048"));
    assert_eq!(Kind::Duration.parse("90s"), Kind::Duration.parse("1m30s"));
    assert_eq!(read(Kind::List, "a, b,"), good("a,b"));
    for (kind, bad) in [
        (Kind::Bool, "yes"),
        (Kind::Count(1, 9), "10"),
        (Kind::Count(1, 9), "-1"),
        (Kind::Bytes, "64M"),
        (Kind::Bytes, "99999999999Gi"),
        (Kind::Duration, "10"),
        (Kind::Duration, "-1s"),
        (Kind::Choice(&["a", "b"]), "c"),
    ] {
        assert_eq!(read(kind, bad), Err(kind.takes()), "{bad}");
    }
}

#[test]
fn a_key_that_is_not_known_has_a_near_one() {
    assert_eq!(find("retention.age"), Ok(&RETENTION_AGE));
    assert_eq!(find("notify.channels.ops.url"), Ok(&CHANNEL_URL));
    find("notify.channels..url").unwrap_err();
    for (path, near) in [
        ("retention.agee", Some("retention.age")),
        ("worker.slot", Some("worker.slots")),
        ("server.slots", Some("worker.slots")),
        ("data-dir", Some("data_dir")),
        ("notify.channels.ops.ulr", Some("notify.channels.ops.url")),
        ("nothing.like.it", None),
    ] {
        assert_eq!(find(path), Err(near.map(str::to_owned)), "{path}");
    }
}
