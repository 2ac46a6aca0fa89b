//! Histories, snapshots, pages and wake times.

use std::sync::Arc;

use kapell_model::{EntityKey, Time};

use super::{Case, append, id, lock, wrote};
use crate::{EntityWrite, Loaded, Store};

pub(super) const CASES: &[Case] = &[
    (
        "chunks come back in order, from any place",
        chunks_come_back_in_order,
    ),
    (
        "a snapshot stands for what is before it",
        a_snapshot_stands_for_what_is_before,
    ),
    (
        "forgetting keeps the snapshot alone",
        forgetting_keeps_the_snapshot,
    ),
    (
        "an empty snapshot that forgets drops the entity",
        an_entity_can_be_dropped,
    ),
    ("pages come back by number", pages_come_back),
    ("big chunks come back whole", big_chunks_come_back),
    (
        "due entities come by time then key, page after page",
        due_is_paged_in_order,
    ),
    (
        "a wake time is the whole truth of the last commit",
        a_wake_time_is_replaced,
    ),
    ("instants before zero are zero", early_wakes_are_at_once),
    ("keys that start alike are apart", keys_are_apart),
];

fn snapshot(key: &EntityKey, seq: u64, state: &str, forget: bool) -> EntityWrite {
    EntityWrite {
        snapshot: Some(state.into()),
        forget,
        ..append(key.clone(), seq, "")
    }
}

fn seqs(store: &dyn Store, key: &EntityKey, from: u64, limit: usize) -> Vec<u64> {
    store
        .history(key, from, limit)
        .expect("history")
        .into_iter()
        .map(|(seq, _)| seq)
        .collect()
}

fn chunks_come_back_in_order(store: &dyn Store) {
    let (key, other) = (lock("a"), lock("b"));
    assert_eq!(store.load(&key).expect("load"), None);
    for seq in 1..=300 {
        wrote(
            store,
            vec![append(key.clone(), seq, &format!("chunk {seq}"))],
            vec![],
        );
        if seq % 100 == 0 {
            wrote(store, vec![append(other.clone(), seq, "x")], vec![]);
        }
    }
    let loaded = store.load(&key).expect("load").expect("it is there");
    assert_eq!(loaded.snapshot, None);
    let expected: Vec<_> = (1..=300)
        .map(|seq| (seq, format!("chunk {seq}").into_bytes()))
        .collect();
    assert_eq!(loaded.chunks, expected);
    assert_eq!(seqs(store, &key, 255, 4), [255, 256, 257, 258]);
    assert_eq!(seqs(store, &key, 299, 10), [299, 300]);
    assert!(seqs(store, &key, 301, 10).is_empty());
    assert!(seqs(store, &key, u64::MAX, 10).is_empty());
    assert!(seqs(store, &key, 0, 0).is_empty());
    assert_eq!(seqs(store, &other, 0, 10), [100, 200, 300]);
    // A write without a chunk appends nothing.
    wrote(store, vec![append(key.clone(), 301, "")], vec![]);
    assert!(seqs(store, &key, 301, 10).is_empty());
}

fn a_snapshot_stands_for_what_is_before(store: &dyn Store) {
    let key = lock("a");
    for seq in 1..=3 {
        wrote(store, vec![append(key.clone(), seq, "x")], vec![]);
    }
    wrote(
        store,
        vec![EntityWrite {
            chunk: b"y".to_vec(),
            ..snapshot(&key, 4, "four", false)
        }],
        vec![],
    );
    wrote(store, vec![append(key.clone(), 5, "z")], vec![]);
    let expected = Loaded {
        snapshot: Some((4, b"four".to_vec())),
        chunks: vec![(5, b"z".to_vec())],
    };
    assert_eq!(store.load(&key).expect("load"), Some(expected));
    assert_eq!(
        seqs(store, &key, 0, 10),
        [1, 2, 3, 4, 5],
        "the history stays"
    );
    wrote(store, vec![snapshot(&key, 5, "five", false)], vec![]);
    let expected = Loaded {
        snapshot: Some((5, b"five".to_vec())),
        chunks: vec![],
    };
    assert_eq!(store.load(&key).expect("load"), Some(expected));
}

fn forgetting_keeps_the_snapshot(store: &dyn Store) {
    let key = lock("a");
    for seq in 1..=3 {
        wrote(store, vec![append(key.clone(), seq, "x")], vec![]);
    }
    wrote(
        store,
        vec![EntityWrite {
            chunk: b"y".to_vec(),
            ..snapshot(&key, 4, "four", true)
        }],
        vec![],
    );
    let expected = Loaded {
        snapshot: Some((4, b"four".to_vec())),
        chunks: vec![],
    };
    assert_eq!(store.load(&key).expect("load"), Some(expected));
    assert!(seqs(store, &key, 0, 10).is_empty());
    wrote(store, vec![append(key.clone(), 5, "z")], vec![]);
    assert_eq!(seqs(store, &key, 0, 10), [5]);
    wrote(store, vec![snapshot(&key, 5, "five", true)], vec![]);
    let expected = Loaded {
        snapshot: Some((5, b"five".to_vec())),
        chunks: vec![],
    };
    assert_eq!(store.load(&key).expect("load"), Some(expected));
}

fn an_entity_can_be_dropped(store: &dyn Store) {
    let key = lock("a");
    let mut full = append(key.clone(), 1, "x");
    full.wake_at = Some(Time(1));
    full.pages = vec![(0, b"page".to_vec())];
    wrote(store, vec![full], vec![]);
    wrote(
        store,
        vec![EntityWrite {
            chunk: b"y".to_vec(),
            ..snapshot(&key, 2, "", true)
        }],
        vec![],
    );
    assert_eq!(store.load(&key).expect("load"), None);
    assert_eq!(store.page(&key, 0).expect("page"), None);
    assert_eq!(store.due(Time(9), None, 9).expect("due"), []);
    wrote(store, vec![append(key.clone(), 1, "anew")], vec![]);
    assert_eq!(seqs(store, &key, 0, 10), [1]);
}

fn pages_come_back(store: &dyn Store) {
    let (key, other) = (lock("a"), lock("b"));
    let mut first = append(key.clone(), 1, "x");
    first.pages = vec![(7, vec![7; 100_000]), (0, Vec::new())];
    wrote(store, vec![first], vec![]);
    let mut second = append(other.clone(), 1, "");
    second.pages = vec![(7, b"other".to_vec())];
    wrote(store, vec![second], vec![]);
    assert_eq!(store.page(&key, 7).expect("page"), Some(vec![7; 100_000]));
    assert_eq!(store.page(&key, 0).expect("page"), Some(Vec::new()));
    assert_eq!(store.page(&key, 1).expect("page"), None);
    assert_eq!(
        store.page(&other, 7).expect("page"),
        Some(b"other".to_vec())
    );
    assert_eq!(
        store.load(&other).expect("load"),
        None,
        "pages alone are no state"
    );
}

fn big_chunks_come_back(store: &dyn Store) {
    let key = EntityKey::from(id(1, 1, 1));
    let chunk = |seq: u8| EntityWrite {
        chunk: vec![seq; 1 << 20],
        ..append(key.clone(), u64::from(seq), "")
    };
    for seq in 1..=5 {
        wrote(store, vec![chunk(seq)], vec![]);
    }
    let chunks = store.load(&key).expect("load").expect("it is there").chunks;
    let expected: Vec<_> = (1..=5_u8)
        .map(|seq| (u64::from(seq), vec![seq; 1 << 20]))
        .collect();
    assert!(chunks == expected);
}

fn due_is_paged_in_order(store: &dyn Store) {
    let wake = |key: EntityKey, at| EntityWrite {
        wake_at: Some(Time(at)),
        ..append(key, 1, "x")
    };
    let queue = EntityKey::RunQueue {
        namespace: Arc::from("default"),
        workflow: Arc::from("w"),
        key: Arc::from("k"),
    };
    let run = EntityKey::from(id(5, 1, 1));
    let entities = [
        (run.clone(), 20),
        (lock("a"), 10),
        (lock("b"), 0),
        (lock("c"), 10),
        (queue.clone(), 10),
    ];
    for (key, at) in entities {
        wrote(store, vec![wake(key, at)], vec![]);
    }
    wrote(store, vec![append(lock("asleep"), 1, "x")], vec![]);
    let expected = [
        (Time(0), lock("b")),
        (Time(10), queue),
        (Time(10), lock("a")),
        (Time(10), lock("c")),
        (Time(20), run),
    ];
    assert_eq!(store.due(Time(20), None, 9).expect("due"), expected);
    assert_eq!(store.due(Time(19), None, 9).expect("due"), expected[..4]);
    assert_eq!(store.due(Time(-1), None, 9).expect("due"), []);
    let mut paged: Vec<(Time, EntityKey)> = Vec::new();
    loop {
        let page = store.due(Time(20), paged.last(), 2).expect("due");
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, expected);
    let wakes = [
        (-1, Some(0)),
        (0, Some(10)),
        (9, Some(10)),
        (10, Some(20)),
        (20, None),
        (i64::MAX, None),
    ];
    for (now, next) in wakes {
        assert_eq!(
            store.next_wake(Time(now)).expect("next wake"),
            next.map(Time),
            "after {now}"
        );
    }
}

fn a_wake_time_is_replaced(store: &dyn Store) {
    let key = lock("a");
    for (seq, wake_at) in (1..).zip([
        Some(5),
        Some(3),
        Some(3),
        None,
        None,
        Some(8),
        Some(0),
        Some(9),
        None,
    ]) {
        let wake_at = wake_at.map(Time);
        wrote(
            store,
            vec![EntityWrite {
                wake_at,
                ..append(key.clone(), seq, "x")
            }],
            vec![],
        );
        let due = store.due(Time(100), None, 9).expect("due");
        assert_eq!(
            due,
            wake_at
                .map(|at| (at, key.clone()))
                .into_iter()
                .collect::<Vec<_>>()
        );
    }
    // Without an event, too.
    wrote(
        store,
        vec![EntityWrite {
            wake_at: Some(Time(4)),
            ..append(key.clone(), 9, "")
        }],
        vec![],
    );
    assert_eq!(store.next_wake(Time(0)).expect("next wake"), Some(Time(4)));
}

fn early_wakes_are_at_once(store: &dyn Store) {
    wrote(
        store,
        vec![EntityWrite {
            wake_at: Some(Time(-5)),
            ..append(lock("a"), 1, "x")
        }],
        vec![],
    );
    assert_eq!(
        store.due(Time(0), None, 9).expect("due"),
        [(Time::ZERO, lock("a"))]
    );
}

fn keys_are_apart(store: &dyn Store) {
    let queue = |workflow: &str, key: &str| EntityKey::RunQueue {
        namespace: Arc::from("n"),
        workflow: Arc::from(workflow),
        key: Arc::from(key),
    };
    let keys = [
        queue("w", ""),
        queue("w", "k"),
        queue("wk", ""),
        lock(""),
        lock("w"),
        id(0, 0, 0).into(),
    ];
    for (number, key) in keys.iter().enumerate() {
        wrote(
            store,
            vec![append(key.clone(), 1, &number.to_string())],
            vec![],
        );
    }
    for (number, key) in keys.iter().enumerate() {
        let chunks = store.load(key).expect("load").expect("it is there").chunks;
        assert_eq!(chunks, [(1, number.to_string().into_bytes())]);
    }
}
