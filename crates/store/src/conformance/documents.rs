//! Documents, and which version of a workflow is active.

use std::sync::Arc;

use kapell_model::limits;

use super::{Case, append, id, version_row};
use crate::{Commit, Document, Error, Order, Store};

pub(super) const CASES: &[Case] = &[
    (
        "documents come in order, page after page, either way",
        documents_are_paged,
    ),
    (
        "a document is replaced and removed",
        a_document_is_replaced_and_removed,
    ),
    (
        "documents without a key or too big are refused, with all beside them",
        bad_documents_are_refused,
    ),
    (
        "documents go with their commit, or not at all",
        documents_go_with_their_commit,
    ),
    (
        "once one is activated, registering activates no other",
        activating_is_kept,
    ),
];

fn document(key: &[u8], body: &str) -> Document {
    (key.to_vec(), Some(body.to_owned()))
}

fn all(store: &dyn Store) -> Vec<(Vec<u8>, String)> {
    store
        .documents(b"", None, Order::Forward, usize::MAX)
        .expect("documents")
}

fn documents_are_paged(store: &dyn Store) {
    let keys: [&[u8]; 7] = [
        b"\x40",
        b"\x40a",
        b"\x40a\0",
        b"\x40b",
        b"\x41",
        b"\xff\xff",
        b"\xff\xff\x01",
    ];
    let documents: Vec<Document> = keys.iter().map(|key| document(key, "{}")).collect();
    store.put_documents(&documents).expect("put");
    let listed = |prefix: &[u8], beyond: Option<&[u8]>, order, limit| {
        let found = store.documents(prefix, beyond, order, limit);
        let keys = found.expect("documents").into_iter().map(|(key, _)| key);
        keys.collect::<Vec<_>>()
    };
    let (forward, backward) = (Order::Forward, Order::Backward);
    assert_eq!(listed(b"", None, forward, 99), keys);
    assert_eq!(listed(b"\x40", None, forward, 99), keys[..4]);
    assert_eq!(listed(b"\x40a", None, forward, 99), keys[1..3]);
    assert_eq!(listed(b"\x40", Some(b"\x40a"), forward, 1), keys[2..3]);
    assert_eq!(listed(b"\x40", Some(b"\x40z"), forward, 9).len(), 0);
    assert_eq!(listed(b"\x40", Some(b"\x3f"), forward, 9), keys[..4]);
    assert_eq!(listed(b"\xff", None, forward, 9), keys[5..]);
    assert_eq!(listed(b"\x40", None, forward, 0).len(), 0);
    let reversed = |part: &[&[u8]]| {
        part.iter()
            .rev()
            .map(|key| key.to_vec())
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(b"", None, backward, 99), reversed(&keys));
    assert_eq!(listed(b"\xff", None, backward, 99), reversed(&keys[5..]));
    assert_eq!(listed(b"\x40", None, backward, 2), reversed(&keys[2..4]));
    let rest = listed(b"\x40", Some(b"\x40b"), backward, 2);
    assert_eq!(rest, reversed(&keys[1..3]));
    assert_eq!(listed(b"\x40", Some(b"\x40"), backward, 9).len(), 0);
    assert_eq!(
        listed(b"\x40", Some(b"\x50"), backward, 9),
        reversed(&keys[..4])
    );
    assert_eq!(listed(b"\x77", None, backward, 9).len(), 0);
}

fn a_document_is_replaced_and_removed(store: &dyn Store) {
    let put = |documents: &[Document]| store.put_documents(documents).expect("put");
    put(&[]);
    put(&[document(b"a", "one"), document(b"b", "\0 and é")]);
    put(&[document(b"a", "two"), (b"c".to_vec(), None)]);
    let kept = [
        (b"a".to_vec(), "two".to_owned()),
        (b"b".to_vec(), "\0 and é".to_owned()),
    ];
    assert_eq!(all(store), kept);
    // The last word on a key holds.
    put(&[document(b"a", "three"), (b"a".to_vec(), None)]);
    put(&[(b"b".to_vec(), None), document(b"b", "four")]);
    assert_eq!(all(store), [(b"b".to_vec(), "four".to_owned())]);
}

fn bad_documents_are_refused(store: &dyn Store) {
    let big = "x".repeat(limits::DOCUMENT_BYTES);
    store
        .put_documents(&[document(b"a", &big)])
        .expect("as big as can be");
    for bad in [
        document(b"", "{}"),
        document(b"b", &(big.clone() + "x")),
        document(&vec![64; 100_000], "{}"),
    ] {
        let refused = store.put_documents(&[document(b"c", "{}"), bad]);
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    assert_eq!(all(store).len(), 1);
}

fn documents_go_with_their_commit(store: &dyn Store) {
    let run = id(1, 1, 1);
    let lease = store.acquire(&[run.shard()]).expect("acquire")[0];
    store.register(&version_row("w", "a")).expect("register");
    store.register(&version_row("w", "b")).expect("register");
    let commit = |lease, seq| Commit {
        shards: vec![lease],
        entities: vec![append(run, seq, "x")],
        documents: vec![document(b"\x40", "{}")],
        activated: vec![("default".into(), "w".into(), 1)],
        ..Commit::default()
    };
    let stale = crate::Lease { epoch: 99, ..lease };
    store.commit(&commit(stale, 1)).expect_err("not its epoch");
    assert_eq!(all(store), []);
    let active = || {
        let active = store.version("default", "w", None).expect("version");
        active.map(|row| row.version)
    };
    assert_eq!(active(), Some(2));
    store.commit(&commit(lease, 1)).expect("commit");
    assert_eq!(all(store).len(), 1);
    assert_eq!(active(), Some(1));
    // What belongs to nobody needs no shard.
    let alone = Commit {
        documents: vec![(b"\x40".to_vec(), None)],
        ..Commit::default()
    };
    store.commit(&alone).expect("commit");
    assert_eq!(all(store), []);
}

fn activating_is_kept(store: &dyn Store) {
    let activate = |workflow: &str, version| {
        store
            .commit(&Commit {
                activated: vec![("default".into(), workflow.into(), version)],
                ..Commit::default()
            })
            .expect("commit");
    };
    let active = |workflow: &str| {
        let row = store.version("default", workflow, None).expect("version");
        row.map(|row| row.version)
    };
    let listed = || store.list_workflows("default", "", 9).expect("list");
    let named = |name: &str, version| (Arc::from(name), version);
    for hash in ["a", "b", "c"] {
        store.register(&version_row("w", hash)).expect("register");
        store.register(&version_row("v", hash)).expect("register");
    }
    activate("w", 2);
    assert_eq!((active("w"), active("v")), (Some(2), Some(3)));
    assert_eq!(listed(), [named("v", 3), named("w", 2)]);
    assert_eq!(store.register(&version_row("w", "d")).expect("register"), 4);
    assert_eq!(active("w"), Some(2), "registering is not activating");
    activate("w", 4);
    assert_eq!(active("w"), Some(4));
    activate("w", 0);
    assert_eq!(active("w"), None, "it is not active any more");
    assert_eq!(listed(), [named("v", 3), named("w", 0)]);
    let kept = store.version("default", "w", Some(4)).expect("version");
    assert_eq!(kept.map(|row| row.version), Some(4));
    // Before anything is registered nothing is listed, and what comes later is not active by itself.
    activate("new", 0);
    assert_eq!(listed().len(), 2);
    store.register(&version_row("new", "a")).expect("register");
    assert_eq!(active("new"), None);
    assert_eq!(listed(), [named("new", 0), named("v", 3), named("w", 0)]);
}
