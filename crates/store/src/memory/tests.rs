use kapell_model::{RunId, Shard, Time};

use super::*;
use crate::EntityWrite;
use crate::conformance;

#[test]
fn every_rule_of_stores_holds() {
    conformance::run(|| ((), MemoryStore::new()));
}

#[test]
fn every_rule_of_clusters_holds() {
    for (name, case) in conformance::CLUSTER_CASES {
        println!("{name}");
        let store = MemoryStore::new();
        let now = std::cell::Cell::new(0);
        case(&store, &|span| {
            now.set(now.get() + i64::try_from(span.as_micros()).unwrap());
            store.set_now(Time(now.get()));
        });
    }
}

#[test]
fn clones_share_and_forks_do_not() {
    let store = MemoryStore::new();
    let (clone, fork) = (store.clone(), store.fork());
    let lease = store.acquire(&[Shard(1)]).unwrap();
    let key = EntityKey::from(RunId::new(Time(0), Shard(1), 1));
    let write = EntityWrite {
        key: key.clone(),
        seq: 1,
        chunk: b"x".to_vec(),
        wake_at: None,
        snapshot: None,
        forget: false,
        pages: vec![],
    };
    clone
        .commit(&Commit {
            shards: lease,
            entities: vec![write],
            runs: vec![],
            ..Commit::default()
        })
        .unwrap();
    assert!(store.load(&key).unwrap().is_some());
    assert!(fork.load(&key).unwrap().is_none());
    assert_eq!(fork.acquire(&[Shard(1)]).unwrap()[0].epoch, 1);
    assert!(store.fork().load(&key).unwrap().is_some());
}

#[test]
fn the_same_operations_give_the_same_answers() {
    for seed in 0..8 {
        conformance::compare(
            seed,
            400,
            &MemoryStore::new(),
            MemoryStore::new(),
            |store| store.fork(),
        );
    }
}
