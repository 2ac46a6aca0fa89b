use std::fs;
use std::path::Path;

use kapell_model::{EntityKey, RunId, Shard, Time};
use rusqlite::StatementStatus;
use tempfile::TempDir;

use super::*;
use crate::{EntityWrite, MemoryStore, conformance};

fn new() -> (TempDir, SqliteStore) {
    let directory = TempDir::new().unwrap();
    let store = SqliteStore::open(directory.path()).unwrap();
    (directory, store)
}

fn refusal(path: &Path) -> Error {
    match SqliteStore::open(path) {
        Ok(_) => panic!("opened {}", path.display()),
        Err(error) => error,
    }
}

fn database(directory: &TempDir) -> Connection {
    Connection::open(directory.path().join("kapell.db")).unwrap()
}

/// Appends chunks of this size to one entity of the shard, one in each commit.
fn fill(store: &SqliteStore, shard: u16, chunks: u64, bytes: usize) -> Result<()> {
    let mut lease = store.acquire(&[Shard(shard)])?[0];
    let key = EntityKey::from(RunId::new(Time(0), Shard(shard), 1));
    let first = store
        .history(&key, 0, usize::MAX)?
        .last()
        .map_or(1, |(seq, _)| seq + 1);
    for seq in first..first + chunks {
        store.commit(&Commit {
            shards: vec![lease],
            entities: vec![EntityWrite {
                key: key.clone(),
                seq,
                chunk: vec![7; bytes],
                wake_at: None,
                snapshot: None,
                forget: false,
                pages: vec![],
            }],
            runs: vec![],
            ..Commit::default()
        })?;
        lease.seq += 1;
    }
    Ok(())
}

#[test]
fn every_rule_of_stores_holds() {
    conformance::run(new);
}

#[test]
fn it_answers_as_the_memory_store_does() {
    for seed in 0..12 {
        let directory = TempDir::new().unwrap();
        let open = || SqliteStore::open(directory.path()).unwrap();
        conformance::compare(seed, 400, &MemoryStore::new(), open(), |store| {
            drop(store);
            open()
        });
    }
}

#[test]
fn a_second_opener_is_told_who_holds_it() {
    let (directory, store) = new();
    match refusal(directory.path()) {
        Error::Held { pid } => assert_eq!(pid, std::process::id()),
        other => panic!("{other}"),
    }
    drop(store);
    SqliteStore::open(directory.path()).unwrap();
}

#[test]
fn a_missing_directory_is_made() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a/b");
    drop(SqliteStore::open(&path).unwrap());
    assert!(path.join("kapell.db").is_file());
}

#[test]
fn a_file_is_no_directory() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, "mine").unwrap();
    let error = refusal(&path);
    assert!(
        matches!(&error, Error::Unusable(why) if why.contains("is not a directory")),
        "{error}"
    );
    assert!(matches!(refusal(&path.join("below")), Error::Unusable(_)));
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}

#[test]
fn garbage_is_refused_and_stays_as_it_is() {
    for garbage in [
        &b"short"[..],
        &vec![0x55; 100_000],
        &b"SQLite format 3\0 and then something else"[..],
    ] {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("kapell.db");
        fs::write(&path, garbage).unwrap();
        assert!(matches!(refusal(directory.path()), Error::Corrupt(_)));
        assert_eq!(fs::read(&path).unwrap(), garbage);
    }
}

#[test]
fn a_database_of_another_program_stays_as_it_is() {
    let directory = TempDir::new().unwrap();
    database(&directory)
        .execute_batch("CREATE TABLE songs (title TEXT)")
        .unwrap();
    let before = fs::read(directory.path().join("kapell.db")).unwrap();
    assert!(matches!(refusal(directory.path()), Error::Corrupt(_)));
    assert_eq!(
        fs::read(directory.path().join("kapell.db")).unwrap(),
        before
    );
}

#[test]
fn a_newer_schema_is_refused_and_stays_as_it_is() {
    let (directory, store) = new();
    drop(store);
    database(&directory)
        .execute("INSERT INTO migrations VALUES (99, 'x')", ())
        .unwrap();
    let before = fs::read(directory.path().join("kapell.db")).unwrap();
    assert!(matches!(
        refusal(directory.path()),
        Error::TooNew {
            found: 99,
            known: migrate::NEWEST
        }
    ));
    assert_eq!(
        fs::read(directory.path().join("kapell.db")).unwrap(),
        before
    );
}

#[test]
fn a_cut_database_is_corrupt() {
    let (directory, store) = new();
    fill(&store, 1, 50, 10_000).unwrap();
    drop(store);
    let path = directory.path().join("kapell.db");
    assert!(
        !directory.path().join("kapell.db-wal").exists(),
        "closing empties the log"
    );
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(3 * u64::from(connection::PAGE_BYTES)).unwrap();
    let error = SqliteStore::open(directory.path()).and_then(|store| fill(&store, 1, 1, 10));
    assert!(matches!(error, Err(Error::Corrupt(_))), "{error:?}");
}

#[test]
fn the_log_does_not_grow_for_ever() {
    let (directory, store) = new();
    for _ in 0..8 {
        fill(&store, 1, 32, 1 << 20).unwrap();
    }
    let log = directory.path().join("kapell.db-wal");
    // 256 MiB were written; without checkpoints all of it would be in the log.
    let length = fs::metadata(&log).unwrap().len();
    assert!(length < 192 << 20, "{length} bytes");
    store.tidy().unwrap();
    let length = fs::metadata(&log).unwrap().len();
    assert!(length <= 64 << 20, "{length} bytes when idle");
    fill(&store, 1, 1, 10).unwrap();
}

#[test]
fn a_reader_does_not_see_half_of_a_commit() {
    let (_directory, store) = new();
    let key = EntityKey::from(RunId::new(Time(0), Shard(1), 1));
    let write = |seq: u64| EntityWrite {
        key: key.clone(),
        seq,
        chunk: seq.to_be_bytes().to_vec(),
        wake_at: None,
        snapshot: (seq.is_multiple_of(5)).then(|| seq.to_be_bytes().to_vec()),
        forget: seq.is_multiple_of(5),
        pages: vec![],
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut lease = store.acquire(&[Shard(1)]).unwrap()[0];
            for seq in 1..=600 {
                store
                    .commit(&Commit {
                        shards: vec![lease],
                        entities: vec![write(seq)],
                        runs: vec![],
                        ..Commit::default()
                    })
                    .unwrap();
                lease.seq += 1;
            }
        });
        let mut last = 0;
        while !writer.is_finished() {
            let Some(loaded) = store.load(&key).unwrap() else {
                continue;
            };
            let first = loaded.snapshot.as_ref().map_or(1, |(seq, _)| seq + 1);
            let seqs: Vec<u64> = loaded.chunks.iter().map(|(seq, _)| *seq).collect();
            let newest = first - 1 + u64::try_from(seqs.len()).unwrap();
            assert_eq!(seqs, (first..=newest).collect::<Vec<_>>(), "a gap");
            assert!(newest >= last, "went back");
            last = newest;
        }
    });
    assert_eq!(store.load(&key).unwrap().unwrap().snapshot.unwrap().0, 600);
}

#[test]
fn lists_use_their_indexes() {
    let (directory, store) = new();
    drop(store);
    let connection = database(&directory);
    let plan = |sql: &str| {
        let mut plan = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap();
        let parameters = vec![rusqlite::types::Null; plan.parameter_count()];
        let steps = plan
            .query_map(rusqlite::params_from_iter(parameters), |row| {
                row.get::<_, String>(3)
            })
            .unwrap();
        steps
            .collect::<rusqlite::Result<Vec<_>>>()
            .unwrap()
            .join("; ")
    };
    for sql in [
        read::DUE,
        read::NEXT_WAKE,
        read::EXPIRED,
        read::BLOBS_OF,
        read::REFERRED,
        read::DOCUMENTS,
        read::DOCUMENTS_BACKWARD,
        search::NEWEST,
        search::BY_STATUS,
        search::CHILDREN,
        search::BY_LABEL,
        search::BY_TRIGGER,
        search::BY_TRIGGER_NAME,
        search::BY_BACKFILL,
        search::WITH_ERROR,
    ] {
        let plan = plan(sql);
        assert!(
            !plan.contains("TEMP B-TREE") && !plan.contains("SCAN"),
            "{sql}: {plan}"
        );
    }
}

#[test]
fn a_statement_is_planned_once_whatever_it_is_asked_with() {
    let (directory, store) = new();
    let again = |connection: &Connection| {
        for id in 0..3_u128 {
            read::run(connection, RunId(id))?;
        }
        let statement = connection.prepare_cached(read::RUN)?;
        Ok::<_, rusqlite::Error>(statement.get_status(StatementStatus::RePrepare))
    };
    assert_eq!(store.read(again).unwrap(), 0);
    let writes = connection::plain(&directory.path().join("kapell.db")).unwrap();
    assert_eq!(again(&writes), Ok(0));
    // A connection without that setting does plan again, or else this looks at nothing.
    assert_ne!(again(&database(&directory)), Ok(0));
}
