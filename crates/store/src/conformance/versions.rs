//! Registered versions.

use std::sync::Arc;

use kapell_model::RunStatus;

use super::{Case, id, row, version_row, wrote};
use crate::{Store, VersionRow};

pub(super) const CASES: &[Case] = &[
    (
        "registering the same again changes nothing",
        registering_is_idempotent,
    ),
    (
        "the active version is the one registered last",
        the_last_version_is_active,
    ),
    (
        "workflows are listed by name, page after page",
        workflows_are_paged,
    ),
];

fn registering_is_idempotent(store: &dyn Store) {
    let register = |workflow, hash| {
        store
            .register(&version_row(workflow, hash))
            .expect("register")
    };
    assert_eq!(register("w", "a"), 1);
    assert_eq!(register("w", "b"), 2);
    assert_eq!(register("w", "a"), 1, "an older one too");
    assert_eq!(register("w", "b"), 2);
    assert_eq!(register("other", "b"), 1, "workflows count for themselves");
    let changed = VersionRow {
        spec: Arc::from("changed"),
        ..version_row("w", "a")
    };
    assert_eq!(store.register(&changed).expect("register"), 1);
    let kept = store.version("default", "w", Some(1)).expect("version");
    assert_eq!(
        kept,
        Some(VersionRow {
            version: 1,
            ..version_row("w", "a")
        })
    );
}

fn the_last_version_is_active(store: &dyn Store) {
    assert_eq!(store.version("default", "w", None).expect("version"), None);
    // A run whose workflow was never registered does not make a version.
    wrote(
        store,
        vec![],
        vec![row(id(1, 1, 1), "w", RunStatus::Running)],
    );
    assert_eq!(store.version("default", "w", None).expect("version"), None);
    assert_eq!(store.list_workflows("default", "", 9).expect("list"), []);
    for hash in ["a", "b", "a"] {
        store.register(&version_row("w", hash)).expect("register");
    }
    let active = store.version("default", "w", None).expect("version");
    assert_eq!(
        active,
        Some(VersionRow {
            version: 2,
            ..version_row("w", "b")
        })
    );
    for (namespace, workflow, version) in
        [("default", "w", 3), ("default", "v", 1), ("other", "w", 1)]
    {
        assert_eq!(
            store
                .version(namespace, workflow, Some(version))
                .expect("version"),
            None
        );
    }
    assert_eq!(
        store.version("default", "w", Some(0)).expect("version"),
        None
    );
}

fn workflows_are_paged(store: &dyn Store) {
    for name in ["b", "a", "c", "a-b", "é"] {
        store.register(&version_row(name, "x")).expect("register");
    }
    store.register(&version_row("b", "y")).expect("register");
    let elsewhere = VersionRow {
        namespace: Arc::from("other"),
        ..version_row("z", "x")
    };
    store.register(&elsewhere).expect("register");
    let list = |after: &str, limit| store.list_workflows("default", after, limit).expect("list");
    let named = |name: &str, version| (Arc::from(name), version);
    let all = [
        named("a", 1),
        named("a-b", 1),
        named("b", 2),
        named("c", 1),
        named("é", 1),
    ];
    assert_eq!(list("", 9), all);
    assert_eq!(list("", 2), all[..2]);
    assert_eq!(list("a-b", 2), all[2..4]);
    assert_eq!(list("aa", 1), all[2..3]);
    assert_eq!(list("é", 9), []);
}
