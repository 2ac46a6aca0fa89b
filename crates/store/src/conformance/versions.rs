//! Registered versions.

use std::sync::Arc;

use kapell_model::RunStatus;

use super::{Case, append, id, row, version_row, wrote};
use crate::{Commit, Error, Lease, Store, VersionRow};

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
        "versions are registered and activated by one commit, or not at all",
        a_commit_registers_and_activates,
    ),
    ("versions are listed, newest first", versions_are_paged),
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

fn numbered(workflow: &str, hash: &str, version: u32) -> VersionRow {
    VersionRow {
        version,
        ..version_row(workflow, hash)
    }
}

fn a_commit_registers_and_activates(store: &dyn Store) {
    let run = id(1, 1, 1);
    let lease = store.acquire(&[run.shard()]).expect("acquire")[0];
    let commit = |lease, seq, versions: Vec<VersionRow>, activate: &[(&str, u32)]| {
        let activated = activate.iter();
        let activated = activated.map(|(name, number)| ("default".into(), (*name).into(), *number));
        store.commit(&Commit {
            shards: vec![lease],
            entities: vec![append(run, seq, "x")],
            activated: activated.collect(),
            versions,
            ..Commit::default()
        })
    };
    let list = || store.list_workflows("default", "", 9).expect("list");
    let named = |name: &str, version| (Arc::from(name), version);
    let both = || vec![numbered("v", "a", 1), numbered("w", "a", 1)];
    let stale = Lease { epoch: 99, ..lease };
    commit(stale, 1, both(), &[("v", 1), ("w", 1)]).expect_err("not its epoch");
    assert_eq!(list(), []);
    assert_eq!(store.versions("default", "w", None, 9).expect("list"), []);
    commit(lease, 1, both(), &[("v", 1), ("w", 1)]).expect("commit");
    assert_eq!(list(), [named("v", 1), named("w", 1)]);
    let kept = store.version("default", "w", None).expect("version");
    assert_eq!(kept, Some(numbered("w", "a", 1)));
    // Two of one workflow in one commit, neither of which is made the active one.
    let lease = super::advanced(lease);
    let more = vec![
        numbered("w", "b", 2),
        numbered("w", "c", 3),
        numbered("n", "a", 1),
    ];
    commit(lease, 2, more, &[]).expect("commit");
    assert_eq!(list(), [named("n", 0), named("v", 1), named("w", 1)]);
    let lease = super::advanced(lease);
    for taken in [
        numbered("w", "d", 3),
        numbered("w", "d", 5),
        numbered("w", "a", 4),
        numbered("u", "a", 2),
    ] {
        let with_a_good_one = vec![numbered("t", "a", 1), taken];
        let refused = commit(lease, 3, with_a_good_one, &[("t", 1), ("w", 3)]);
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    assert_eq!(list(), [named("n", 0), named("v", 1), named("w", 1)]);
    // What is registered by itself then goes on from there.
    assert_eq!(store.register(&version_row("w", "b")).expect("register"), 2);
    assert_eq!(store.register(&version_row("w", "d")).expect("register"), 4);
    assert_eq!(store.register(&version_row("n", "b")).expect("register"), 2);
    assert_eq!(list(), [named("n", 2), named("v", 1), named("w", 1)]);
}

fn versions_are_paged(store: &dyn Store) {
    for hash in ["a", "b", "c"] {
        store.register(&version_row("w", hash)).expect("register");
    }
    store.register(&version_row("v", "z")).expect("register");
    let list = |workflow: &str, before, limit| {
        let found = store.versions("default", workflow, before, limit);
        let found = found.expect("versions").into_iter();
        found.map(|row| row.version).collect::<Vec<_>>()
    };
    assert_eq!(list("w", None, 9), [3, 2, 1]);
    assert_eq!(list("w", None, 2), [3, 2]);
    assert_eq!(list("w", Some(2), 9), [1]);
    assert_eq!(list("w", Some(1), 9), [0; 0]);
    assert_eq!(list("w", Some(u32::MAX), 1), [3]);
    assert_eq!(list("nothing", None, 9), [0; 0]);
    let numbers = |workflow: &str, hash: &str| {
        let numbers = store.version_numbers("default", workflow, hash);
        numbers.expect("numbers")
    };
    assert_eq!(numbers("w", "b"), (Some(2), 3));
    assert_eq!(numbers("w", "z"), (None, 3));
    assert_eq!(numbers("nothing", "b"), (None, 0));
    let whole = store.versions("default", "v", None, 1).expect("versions");
    assert_eq!(whole, [numbered("v", "z", 1)]);
}
