//! Where things lie: partitions, long keys, schemas.

use super::*;
use crate::{BlobStore, EntityWrite, FileBlobs, PostgresBlobs, SqliteStore};

const DAY: i64 = 86_400_000_000;

/// A run that was made so many days after 1970.
fn run(day: i64, number: u16) -> RunId {
    RunId::new(Time(day * DAY), Shard(number), u128::from(number))
}

fn row(id: RunId, status: RunStatus) -> RunRow {
    RunRow {
        id,
        namespace: "default".into(),
        workflow: "w".into(),
        version: 1,
        status,
        created_at: Time(1),
        started_at: None,
        ended_at: status.ended().then_some(Time(2)),
        parent: None,
        trigger: "manual".into(),
        counts: [0; 3],
        error: None,
        labels: "{}".to_owned(),
        scheduled_at: None,
        trigger_name: None,
        backfill: None,
    }
}

fn append(key: impl Into<EntityKey>, seq: u64) -> EntityWrite {
    EntityWrite {
        key: key.into(),
        seq,
        chunk: seq.to_string().into_bytes(),
        wake_at: None,
        snapshot: None,
        forget: false,
        pages: Vec::new(),
    }
}

fn write(store: &PostgresStore, entities: Vec<EntityWrite>, runs: Vec<RunRow>) -> Result<()> {
    let shards = entities.iter().map(|write| write.key.shard());
    let shards: BTreeSet<Shard> = shards
        .chain(runs.iter().map(|row| row.id.shard()))
        .collect();
    store.commit(&Commit {
        shards: store.acquire(&shards.into_iter().collect::<Vec<_>>())?,
        entities,
        runs,
        ..Commit::default()
    })
}

/// A schema that was made in 1970, so that every day has a partition.
fn old() -> Option<(TestSchema, PostgresStore)> {
    let (schema, store) = new()?;
    drop(store);
    schema.run("UPDATE periods SET period = 1").unwrap();
    let store = PostgresStore::open(schema.url()).unwrap();
    Some((schema, store))
}

fn partitions(schema: &TestSchema) -> Vec<String> {
    let sql = format!(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'history_p%'
             AND relnamespace = '{}'::regnamespace ORDER BY 1",
        schema.url().schema()
    );
    schema.run(&sql).unwrap()
}

#[test]
fn a_day_is_dropped_when_its_runs_are_gone_and_those_alive_are_copied() {
    let Some((schema, store)) = old() else {
        return;
    };
    let (ended, alive, other) = (run(20_000, 1), run(20_000, 2), run(20_001, 3));
    write(
        &store,
        vec![append(ended, 1), append(alive, 1), append(other, 1)],
        vec![
            row(ended, RunStatus::Failed),
            row(alive, RunStatus::Running),
        ],
    )
    .unwrap();
    write(&store, vec![append(alive, 2)], vec![]).unwrap();
    assert_eq!(partitions(&schema), ["history_p20000", "history_p20001"]);
    assert_eq!(
        schema.run("SELECT count(*) FROM history_rest").unwrap(),
        ["0"]
    );
    store.delete_runs(&[ended]).unwrap();
    // Another node has it open, and does not know what is dropped.
    let node = PostgresStore::open(schema.url()).unwrap();
    store.tidy().unwrap();
    let left = partitions(&schema);
    assert!(!left.contains(&"history_p20000".to_owned()), "{left:?}");
    let copied = "SELECT string_agg(convert_from(chunk, 'UTF8'), ',' ORDER BY entity, seq) FROM history_rest";
    assert_eq!(schema.run(copied).unwrap(), ["1,2,1"]);
    for store in [&store, &node] {
        let history = store.history(&alive.into(), 0, 9).unwrap();
        let seq = history.last().unwrap().0 + 1;
        assert!(matches!(
            write(store, vec![append(alive, seq - 1)], vec![]),
            Err(Error::Invalid(_))
        ));
        write(store, vec![append(alive, seq), append(ended, seq)], vec![]).unwrap();
    }
    let seqs = |id: RunId| -> Vec<u64> {
        let history = node.history(&id.into(), 0, 9).unwrap();
        history.into_iter().map(|(seq, _)| seq).collect()
    };
    assert_eq!(seqs(alive), [1, 2, 3, 4]);
    assert_eq!(seqs(ended), [3, 4], "what was deleted is gone");
    assert_eq!(node.load(&alive.into()).unwrap().unwrap().chunks.len(), 4);
    assert!(!partitions(&schema).contains(&"history_p20000".to_owned()));
}

#[test]
fn a_day_with_much_alive_in_it_stays() {
    let Some((schema, store)) = old() else {
        return;
    };
    let big = EntityWrite {
        chunk: vec![7; 17 << 20],
        ..append(run(20_000, 1), 1)
    };
    write(&store, vec![big], vec![]).unwrap();
    write(&store, vec![append(run(20_001, 1), 1)], vec![]).unwrap();
    store.tidy().unwrap();
    let left = partitions(&schema);
    assert!(left.contains(&"history_p20000".to_owned()), "{left:?}");
    assert!(!left.contains(&"history_p20001".to_owned()), "{left:?}");
    let history = store.history(&run(20_000, 1).into(), 0, 9).unwrap();
    assert_eq!(history[0].1.len(), 17 << 20);
}

#[test]
fn partitions_are_made_ahead_and_by_need() {
    let Some((schema, store)) = new() else {
        return;
    };
    store.tidy().unwrap();
    let ahead = partitions(&schema);
    // That of today is in the place where all was before; the first day has none.
    assert_eq!(ahead.len(), 1, "{ahead:?}");
    write(&store, vec![append(run(40_000, 1), 1)], vec![]).unwrap();
    assert!(partitions(&schema).contains(&"history_p40000".to_owned()));
    write(&store, vec![append(run(3, 1), 1)], vec![]).unwrap();
    assert_eq!(partitions(&schema).len(), 2, "the past has none");
}

#[test]
fn long_keys_and_odd_texts_are_kept() {
    let Some((_schema, store)) = new() else {
        return;
    };
    let lock = |end: &str| EntityKey::Lock {
        namespace: "default".into(),
        name: ("é".repeat(5_000) + end).into(),
    };
    for end in ["a", "b"] {
        let write_of = EntityWrite {
            wake_at: Some(Time(5)),
            ..append(lock(end), 1)
        };
        write(&store, vec![write_of], vec![]).unwrap();
    }
    let due = store.due(Time(9), None, 9).unwrap();
    let mut keys: Vec<EntityKey> = due.iter().map(|(_, key)| key.clone()).collect();
    keys.sort_unstable();
    assert_eq!(keys, [lock("a"), lock("b")]);
    let rest = store.due(Time(9), due.first(), 9).unwrap();
    assert_eq!(rest, due[1..]);
    let odd = RunRow {
        error: Some("\0 \u{1f4a5}".to_owned()),
        labels: format!(r#"{{"{}":"\u0000"}}"#, "k".repeat(3_000)),
        ..row(run(1, 1), RunStatus::Failed)
    };
    write(&store, vec![], vec![odd.clone()]).unwrap();
    assert_eq!(store.run(odd.id).unwrap(), Some(odd.clone()));
    let filter = RunFilter {
        labels: vec![("k".repeat(3_000).into(), "\0".into())],
        ..RunFilter::default()
    };
    assert_eq!(store.list_runs(&filter, 9).unwrap(), [odd]);
    let key = vec![0xee; 9_000];
    store
        .put_documents(&[(key.clone(), Some("\0".to_owned()))])
        .unwrap();
    let found = store.documents(&[0xee], None, Order::Forward, 9).unwrap();
    assert_eq!(found, [(key, "\0".to_owned())]);
}

#[test]
fn a_store_that_was_moved_goes_on_as_it_was() {
    for seed in [6, 7] {
        let Some(schema) = TestSchema::new() else {
            return;
        };
        let directory = tempfile::tempdir().unwrap();
        let old = SqliteStore::open(directory.path()).unwrap();
        conformance::compare_moved(seed, 200, &MemoryStore::new(), old, |old| {
            let held = move_store(directory.path(), schema.url(), |_| ());
            assert!(matches!(held, Err(Error::Held { .. })), "{held:?}");
            drop(old);
            let mut told = Vec::new();
            let moved = move_store(directory.path(), schema.url(), |name| told.push(name)).unwrap();
            assert_eq!(
                told,
                moved.iter().map(|table| table.name).collect::<Vec<_>>()
            );
            assert!(
                moved
                    .iter()
                    .any(|table| table.name == "history" && table.rows > 20)
            );
            assert!(directory.path().join(MOVED_DATABASE).is_file());
            PostgresStore::open(schema.url()).unwrap()
        });
    }
}

#[test]
fn blobs_move_with_their_store() {
    let Some(schema) = TestSchema::new() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(directory.path()).unwrap());
    let files = FileBlobs::open(directory.path()).unwrap();
    let artifact = files.put(&vec![7; 1_500_000]).unwrap();
    let value = files.put(artifact.hash.as_bytes()).unwrap();
    let all = [artifact, value, files.put(b"").unwrap()];
    assert_eq!(FileBlobs::bytes(directory.path()), 1_500_064);
    let path = files.file(&all[0]).unwrap();
    let (damaged, whole) = (vec![8; 1_500_000], std::fs::read(&path).unwrap());
    // What is not as it should be is not moved, nor is anything else.
    std::fs::write(&path, damaged).unwrap();
    let refused = move_store(directory.path(), schema.url(), |_| ());
    assert!(matches!(refused, Err(Error::Corrupt(_))), "{refused:?}");
    let sparse = std::fs::File::create(&path).unwrap();
    sparse.set_len((64 << 20) + 1).unwrap();
    let refused = move_store(directory.path(), schema.url(), |_| ());
    assert!(
        matches!(&refused, Err(Error::Unusable(why)) if why.contains("67108865")),
        "{refused:?}"
    );
    assert!(directory.path().join("kapell.db").is_file());
    std::fs::write(&path, whole).unwrap();
    let moved = move_store(directory.path(), schema.url(), |_| ()).unwrap();
    assert!(moved.contains(&MovedTable {
        name: "blobs",
        rows: 3
    }));
    assert!(directory.path().join(MOVED_BLOBS).is_dir());
    let blobs = PostgresBlobs::open(schema.url()).unwrap();
    for blob in &all {
        assert_eq!(blobs.get(blob, 2_000_000).unwrap().len() as u64, blob.size);
    }
    assert!(PostgresStore::status(schema.url()).unwrap().blobs > 1_500_000);
    // What one holds, it holds there too.
    let held = schema
        .run("SELECT encode(held, 'hex') FROM blob_holds")
        .unwrap();
    assert_eq!(held, [all[0].hash.to_string()]);
}

#[test]
fn what_cannot_be_moved_stays_as_it_is() {
    let Some((schema, store)) = new() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let nothing = move_store(directory.path(), schema.url(), |_| ());
    assert!(matches!(nothing, Err(Error::Unusable(_))), "{nothing:?}");
    let old = SqliteStore::open(directory.path()).unwrap();
    old.acquire(&[Shard(1)]).unwrap();
    drop(old);
    store.acquire(&[Shard(1)]).unwrap();
    let used = move_store(directory.path(), schema.url(), |_| ());
    assert!(matches!(used, Err(Error::Invalid(_))), "{used:?}");
    assert!(directory.path().join("kapell.db").is_file());
    let again = PostgresStore::open_alone(directory.path(), schema.url()).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let other = PostgresStore::open_alone(elsewhere.path(), schema.url()).err();
    assert!(
        matches!(&other, Some(Error::Unusable(why)) if why.contains("another Kapell")),
        "{other:?}"
    );
    drop(again);
    PostgresStore::open_alone(elsewhere.path(), schema.url()).unwrap();
}

#[test]
fn many_that_open_an_empty_schema_at_once_all_get_it() {
    let Some(schema) = TestSchema::new() else {
        return;
    };
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| PostgresStore::open(schema.url()).unwrap());
        }
    });
    assert_eq!(schema.run("SELECT count(*) FROM shards").unwrap(), ["4096"]);
    let status = PostgresStore::status(schema.url()).unwrap();
    assert_eq!(
        (status.applied, status.known),
        (migrate::newest(), migrate::newest())
    );
    assert!(status.bytes > 0);
}

#[test]
fn what_is_not_ours_or_newer_is_left_alone() {
    let refusal = |schema: &TestSchema| PostgresStore::open(schema.url()).err().expect("refused");
    let Some((schema, store)) = new() else {
        return;
    };
    drop(store);
    schema
        .run("INSERT INTO migrations VALUES (99, 'x')")
        .unwrap();
    assert!(matches!(refusal(&schema), Error::TooNew { found: 99, .. }));
    schema
        .run("DELETE FROM migrations WHERE number = 99; UPDATE migrations SET hash = 'x'")
        .unwrap();
    assert!(matches!(refusal(&schema), Error::Corrupt(_)));
    let schema = TestSchema::new().unwrap();
    let name = schema.url().schema();
    schema
        .run(&format!(
            "CREATE SCHEMA {name}; CREATE TABLE {name}.songs (title text)"
        ))
        .unwrap();
    assert!(matches!(refusal(&schema), Error::Corrupt(_)));
    assert_eq!(
        PostgresStore::status(TestSchema::new().unwrap().url())
            .unwrap()
            .applied,
        0
    );
    let nobody: PostgresUrl = schema
        .text()
        .replace("postgres@", "nobody@")
        .parse()
        .unwrap();
    let refused = PostgresStore::open(&nobody).err().expect("refused");
    assert!(matches!(refused, Error::Unusable(_)), "{refused}");
    let nowhere: PostgresUrl = "postgres://a@127.0.0.1:1/x".parse().unwrap();
    let refused = PostgresStore::open(&nowhere).err().expect("refused");
    assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
}
