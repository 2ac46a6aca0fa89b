use kapell_api::task::Place;
use kapell_engine::Message;
use kapell_engine::chunk;
use kapell_engine::event::RunCreated;
use kapell_engine::run_queue::{Entry, Rule};
use kapell_model::{RunId, RunStatus, Shard};
use kapell_store::{Commit, EntityWrite, MemoryStore, RunRow, Store, VersionRow};

use super::*;
use crate::perform::{self, Plans};
use crate::rows;

fn id() -> RunId {
    RunId::new(Time(0), Shard(1), 1)
}

fn loaded(snapshot: Vec<u8>) -> Loaded {
    Loaded {
        snapshot: Some((9, snapshot)),
        chunks: Vec::new(),
    }
}

#[test]
fn a_run_queue_and_a_lock_come_back_from_their_snapshots() {
    let queue_key = EntityKey::RunQueue {
        namespace: "default".into(),
        workflow: "w".into(),
        key: "".into(),
    };
    let mut queue = RunQueue::default();
    let entry = Entry {
        run: id(),
        key: "".into(),
        rule: Rule {
            limit: 1,
            ..Rule::default()
        },
        ..Entry::default()
    };
    queue.decide(Some(&Message::Enqueue(Box::new(entry))), Time(5));
    let bytes = Entity::Queue(Box::new(queue.clone())).snapshot();
    match Entity::restore(&queue_key, &loaded(bytes), None).unwrap() {
        Entity::Queue(back) => assert_eq!(*back, queue),
        other => panic!("{other:?}"),
    }
    let lock_key = EntityKey::Lock {
        namespace: "default".into(),
        name: "x".into(),
    };
    let mut lock = Lock::default();
    let asks = Message::Acquire {
        run: id(),
        place: Place {
            scope: 0,
            step: 0,
            item: Place::NO_ITEM,
        },
        max: 1,
        period: 0,
        path: "a.b".into(),
        asked: Some(Time(2)),
    };
    lock.decide(&"x".into(), Some(&asks), Time(5));
    let bytes = Entity::Lock(Box::new(lock.clone())).snapshot();
    match Entity::restore(&lock_key, &loaded(bytes), None).unwrap() {
        Entity::Lock(back) => assert_eq!(*back, lock),
        other => panic!("{other:?}"),
    }
    // One that is idle is not taken for one that was dropped.
    assert!(!Entity::Lock(Box::default()).snapshot().is_empty());
    for other in [vec![LAYOUT + 1, 0], Vec::new()] {
        Entity::restore(&lock_key, &loaded(other.clone()), None).unwrap_err();
        Entity::restore(&queue_key, &loaded(other), None).unwrap_err();
    }
}

/// A store with a run of two chunks, of which the first stands in a snapshot too.
fn store_with_a_run(snapshot: impl FnOnce(&Run) -> Vec<u8>) -> MemoryStore {
    let store = MemoryStore::new();
    let file = "workflow: w\nsteps:\n  a: { noop: }\n";
    let spec = kapell_model::parse("w.yaml", file)
        .spec
        .expect("a workflow");
    let version = VersionRow {
        namespace: "default".into(),
        workflow: spec.workflow.clone(),
        version: 0,
        hash: "1".into(),
        spec: serde_json::to_string(&*spec).unwrap().into(),
        source: file.into(),
        bundle: None,
        created_at: Time(0),
        author: "".into(),
    };
    store.register(&version).unwrap();
    let mut run = Run::new(Arc::new(Plan::new(spec)));
    let created = RunCreated {
        id: id().to_bytes().to_vec(),
        namespace: version.namespace.to_string(),
        workflow: version.workflow.to_string(),
        version: 1,
        trigger: "manual".to_owned(),
        ..RunCreated::default()
    };
    let create = kapell_engine::Input::Create(Box::new(created));
    let first = run.decide(create, Time(7)).unwrap();
    let snapshot = snapshot(&run);
    let cancel = kapell_engine::Input::Request(kapell_engine::Request::Cancel {
        by: "me".to_owned(),
        reason: "why not".to_owned(),
        now: true,
    });
    let second = run.decide(cancel, Time(8));
    let second = second.map(|decision| decision.events).unwrap_or_default();
    for (seq, events, snapshot) in [(1, first.events, Some(snapshot)), (2, second, None)] {
        store
            .commit(&Commit {
                shards: store.acquire(&[Shard(1)]).unwrap(),
                entities: vec![EntityWrite {
                    key: id().into(),
                    seq,
                    chunk: chunk::encode(&events),
                    wake_at: None,
                    snapshot,
                    forget: false,
                    pages: vec![],
                }],
                runs: vec![RunRow {
                    status: RunStatus::Running,
                    ..rows::row(&run)
                }],
                ..Commit::default()
            })
            .unwrap();
    }
    store
}

fn load(store: &MemoryStore) -> kapell_store::Result<(u64, Vec<u8>)> {
    let found = perform::load(store, &mut Plans::default(), &id().into())?;
    let found = found.expect("the run is there");
    Ok((found.seq, found.entity.snapshot()))
}

#[test]
fn a_run_whose_snapshot_cannot_be_read_is_replayed_from_its_first_event() {
    let expected = load(&store_with_a_run(|run| run.state.snapshot())).unwrap();
    assert_eq!(expected.0, 2);
    let of_another_layout = |run: &Run| {
        let mut bytes = run.state.snapshot();
        bytes[0] = bytes[0].wrapping_add(1);
        bytes
    };
    assert_eq!(
        load(&store_with_a_run(of_another_layout)).unwrap(),
        expected
    );
    let cut = |run: &Run| {
        let bytes = run.state.snapshot();
        bytes[..bytes.len() / 2].to_vec()
    };
    assert_eq!(load(&store_with_a_run(cut)).unwrap(), expected);
    assert_eq!(load(&store_with_a_run(|_| vec![1])).unwrap(), expected);
}

#[test]
fn a_panic_while_an_entity_is_read_is_damage_and_ends_no_reader() {
    let damage = perform::unless_broken(&id().into(), || -> Result<(), String> {
        panic!("a rule is broken")
    });
    let damage = damage.unwrap_err();
    assert!(damage.contains("breaks a rule"), "{damage}");
    perform::unless_broken(&id().into(), || Ok(())).unwrap();
}
