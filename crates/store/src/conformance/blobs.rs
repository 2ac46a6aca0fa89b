//! Which blobs are referred to.

use std::sync::Arc;

use kapell_model::{EntityKey, RunStatus};

use super::{Case, append, id, lock, row, version_row, wrote};
use crate::{EntityWrite, Error, Store, VersionRow};

pub(super) const CASES: &[Case] = &[
    (
        "an entity refers to what stands in its chunks",
        an_entity_refers_to_what_stands_in_its_chunks,
    ),
    (
        "a run that is deleted refers to nothing",
        a_run_that_is_deleted_refers_to_nothing,
    ),
    (
        "an entity that forgets refers to what stands in what it keeps",
        who_forgets_refers_to_what_is_kept,
    ),
    (
        "a version refers to its bundle for ever",
        a_version_refers_to_its_bundle,
    ),
    (
        "what is refused refers to nothing",
        what_is_refused_refers_to_nothing,
    ),
    ("a hash is asked for whole", a_hash_is_asked_for_whole),
];

fn hash(number: u8) -> Arc<str> {
    format!("{number:02x}").repeat(32).into()
}

/// Which of the first hashes are referred to.
fn referred(store: &dyn Store) -> Vec<u8> {
    let numbers = 0..8;
    let hashes: Vec<Arc<str>> = numbers.clone().map(hash).collect();
    let referred = store.blobs_referred(&hashes).expect("asked");
    let wanted = numbers.zip(referred).filter(|(_, referred)| *referred);
    wanted.map(|(number, _)| number).collect()
}

fn of(store: &dyn Store, key: &EntityKey) -> Vec<Arc<str>> {
    store.blobs_of(key, "", 100).expect("asked")
}

fn an_entity_refers_to_what_stands_in_its_chunks(store: &dyn Store) {
    assert_eq!(referred(store), [0_u8; 0]);
    let (one, other) = (id(1, 1, 1), id(1, 2, 2));
    let text = format!("\u{1}@{}\u{10} {}", hash(3), hash(1));
    wrote(store, vec![append(one, 1, &text)], vec![]);
    // Said again it is the same reference, and so by another entity.
    let both = vec![append(one, 2, &text), append(other, 1, &hash(3))];
    wrote(store, both, vec![]);
    assert_eq!(referred(store), [1, 3]);
    assert_eq!(of(store, &one.into()), [hash(1), hash(3)]);
    assert_eq!(of(store, &other.into()), [hash(3)]);
    assert_eq!(of(store, &id(9, 9, 9).into()), [] as [Arc<str>; 0]);
    let page = |after: &str, limit| store.blobs_of(&one.into(), after, limit).expect("asked");
    assert_eq!(page("", 1), [hash(1)]);
    assert_eq!(page(&hash(1), 9), [hash(3)]);
    assert_eq!(page(&hash(2), 9), [hash(3)]);
    assert_eq!(page(&hash(3), 9), [] as [Arc<str>; 0]);
}

fn a_run_that_is_deleted_refers_to_nothing(store: &dyn Store) {
    let (one, other) = (id(1, 1, 1), id(1, 2, 2));
    let rows = [one, other].map(|run| row(run, "w", RunStatus::Failed));
    let text = [hash(1), hash(2)].concat();
    let writes = vec![append(one, 1, &text), append(other, 1, &hash(2))];
    wrote(store, writes, rows.to_vec());
    assert_eq!(referred(store), [1, 2]);
    store.delete_runs(&[one]).expect("delete");
    assert_eq!(referred(store), [2]);
    assert_eq!(of(store, &one.into()), [] as [Arc<str>; 0]);
    store.delete_runs(&[other]).expect("delete");
    assert_eq!(referred(store), [0_u8; 0]);
}

fn who_forgets_refers_to_what_is_kept(store: &dyn Store) {
    let mut state = append(lock("x"), 1, &hash(1));
    state.snapshot = Some([hash(2), hash(3)].concat().into());
    state.pages = vec![(1, hash(4).as_bytes().to_vec())];
    wrote(store, vec![state.clone()], vec![]);
    // With its history it refers to what stands there, and the snapshot says nothing new.
    assert_eq!(referred(store), [1]);
    let forgets = EntityWrite {
        seq: 2,
        chunk: hash(5).as_bytes().to_vec(),
        forget: true,
        pages: vec![(2, hash(6).as_bytes().to_vec())],
        ..state
    };
    wrote(store, vec![forgets], vec![]);
    assert_eq!(referred(store), [2, 3, 4, 6]);
    wrote(store, vec![append(lock("x"), 3, &hash(7))], vec![]);
    assert_eq!(referred(store), [2, 3, 4, 6, 7]);
    let mut end = append(lock("x"), 4, &hash(0));
    end.snapshot = Some(Vec::new());
    end.forget = true;
    wrote(store, vec![end], vec![]);
    assert_eq!(referred(store), [0_u8; 0]);
    assert_eq!(of(store, &lock("x")), [] as [Arc<str>; 0]);
}

fn a_version_refers_to_its_bundle(store: &dyn Store) {
    let row = VersionRow {
        bundle: Some(format!("{{\"hash\":\"{}\",\"size\":3}}", hash(4)).into()),
        ..version_row("w", "one")
    };
    for _ in 0..2 {
        store.register(&row).expect("registered");
        store
            .register(&version_row("w", "two"))
            .expect("registered");
        assert_eq!(referred(store), [4]);
    }
}

fn what_is_refused_refers_to_nothing(store: &dyn Store) {
    let run = id(1, 1, 1);
    wrote(store, vec![append(run, 1, &hash(1))], vec![]);
    let taken = super::write(store, vec![append(run, 1, &hash(2))], vec![]);
    assert!(matches!(taken, Err(Error::Invalid(_))));
    assert_eq!(referred(store), [1]);
}

fn a_hash_is_asked_for_whole(store: &dyn Store) {
    assert_eq!(store.blobs_referred(&[]).expect("asked"), [true; 0]);
    for bad in ["", "ab", &hash(1)[1..], &"A".repeat(64)] {
        let asked = store.blobs_referred(&[hash(1), bad.into()]);
        assert!(matches!(asked, Err(Error::Invalid(_))), "{bad}");
    }
}
