//! Syncs that fail, as on a disk that breaks: a library loaded before the others makes one sync of
//! one file fail in a child process.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kapell_model::{EntityKey, RunId, Shard, Time};
use kapell_store::{Commit, EntityWrite, Error, Lease, Result, SqliteStore, Store};
use tempfile::TempDir;

/// The child's directory; a process without it is the parent.
const DIRECTORY: &str = "KAPELL_TEST_SYNC_DIRECTORY";
/// The file that makes the next sync fail; the library reads it too.
const ARM: &str = "KAPELL_TEST_SYNC_ARM";
const SHARD: Shard = Shard(1);

/// What becomes of the last write to the file whose sync fails.
#[derive(Clone, Copy, PartialEq)]
enum Write {
    /// It stays where readers of the file see it.
    Stays,
    /// It is gone, as after the kernel has dropped a page that it calls clean.
    IsGone,
}

fn key(number: u128) -> EntityKey {
    RunId::new(Time(0), SHARD, number).into()
}

/// A commit of several pages to two entities, after what the lease has seen.
fn append(store: &SqliteStore, lease: &mut Lease) -> Result<()> {
    let seq = lease.seq + 1;
    store.commit(&Commit {
        shards: vec![*lease],
        entities: [1, 2]
            .map(|number| EntityWrite {
                key: key(number),
                seq,
                chunk: chunk(number, seq),
                wake_at: Some(Time(i64::try_from(seq).unwrap())),
                snapshot: None,
                forget: false,
                pages: vec![],
            })
            .into(),
        runs: vec![],
        ..Commit::default()
    })?;
    lease.seq = seq;
    Ok(())
}

fn chunk(number: u128, seq: u64) -> Vec<u8> {
    vec![u8::try_from((u128::from(seq) + number) % 251).unwrap(); 20_000]
}

/// Every commit up to the lease's is there as it was made, and nothing of one after it.
fn assert_whole(store: &SqliteStore, lease: Lease) {
    for number in [1, 2] {
        let history = store.history(&key(number), 0, usize::MAX).unwrap();
        let expected = (1..=lease.seq).map(|seq| (seq, chunk(number, seq)));
        assert!(
            history.into_iter().eq(expected),
            "not the {} commits that are there",
            lease.seq
        );
    }
    let due = store.due(Time(i64::MAX), None, 10).unwrap();
    let at = Time(i64::try_from(lease.seq).unwrap());
    assert!(due.len() == 2 && due.iter().all(|(due, _)| *due == at));
}

/// What the shard says after an unknown outcome: the commit after `before` is there or not.
fn acquire(store: &SqliteStore, before: Lease) -> Lease {
    let lease = store.acquire(&[SHARD]).unwrap()[0];
    assert!(lease.epoch > before.epoch, "nobody else may write by it");
    assert!(
        lease.seq == before.seq || lease.seq == before.seq + 1,
        "{} were acknowledged, {} are there",
        before.seq,
        lease.seq
    );
    assert_whole(store, lease);
    lease
}

/// The library, built by the C compiler that SQLite needs anyway.
fn shim(directory: &Path) -> PathBuf {
    let library = directory.join("shim.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sync/shim.c"))
        .arg("-ldl")
        .output()
        .expect("a C compiler");
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    library
}

/// Runs this test again as a child with the library loaded; in the child gives its directory.
#[expect(
    clippy::disallowed_methods,
    reason = "the child learns from its environment that it is one"
)]
fn in_child(test: &str) -> Option<(PathBuf, PathBuf)> {
    if let Ok(directory) = std::env::var(DIRECTORY) {
        return Some((directory.into(), std::env::var(ARM).unwrap().into()));
    }
    let place = TempDir::new().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env("LD_PRELOAD", shim(place.path()))
        .env(DIRECTORY, place.path().join("data"))
        .env(ARM, place.path().join("arm"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("checked"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    None
}

/// Makes the next sync of the file with this ending fail.
fn arm(arm: &Path, ending: &str, write: Write) {
    let drops = if write == Write::IsGone { "!" } else { "" };
    // Written beside and renamed: the library must not see half of it.
    let beside = arm.with_extension("new");
    fs::write(&beside, format!("{ending}{drops}")).unwrap();
    fs::rename(beside, arm).unwrap();
}

/// How many connections of this process have the log open.
fn open_logs() -> usize {
    let files = fs::read_dir("/proc/self/fd").unwrap();
    let targets = files.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    targets
        .filter(|target| target.to_str().is_some_and(|path| path.ends_with("-wal")))
        .count()
}

#[test]
fn a_commit_whose_sync_fails_has_an_unknown_outcome_and_is_not_tried_again() {
    let Some((directory, file)) =
        in_child("a_commit_whose_sync_fails_has_an_unknown_outcome_and_is_not_tried_again")
    else {
        return;
    };
    for write in [Write::Stays, Write::IsGone] {
        let directory = directory.join(if write == Write::Stays { "a" } else { "b" });
        let store = SqliteStore::open(&directory).unwrap();
        let mut lease = store.acquire(&[SHARD]).unwrap()[0];
        for round in 0..6 {
            for _ in 0..=round {
                append(&store, &mut lease).unwrap();
            }
            let logs = open_logs();
            arm(&file, "-wal", write);
            let error = append(&store, &mut lease).unwrap_err();
            assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
            assert!(!file.exists(), "no sync has failed");
            assert_eq!(open_logs(), logs - 1, "its connection is not closed");
            lease = acquire(&store, lease);
            append(&store, &mut lease).unwrap();
            assert_whole(&store, lease);
        }
        store.tidy().unwrap();
        assert_whole(&store, lease);
        drop(store);
        let store = SqliteStore::open(&directory).unwrap();
        assert_whole(&store, acquire(&store, lease));
        drop(store);
        assert_sound(&directory);
    }
    println!("checked");
}

#[test]
fn a_process_that_dies_after_a_failed_sync_has_lost_nothing_that_was_acknowledged() {
    const TEST: &str =
        "a_process_that_dies_after_a_failed_sync_has_lost_nothing_that_was_acknowledged";
    let Some((directory, file)) = in_child(TEST) else {
        return;
    };
    for write in [Write::Stays, Write::IsGone] {
        let directory = directory.join(if write == Write::Stays { "a" } else { "b" });
        let store = SqliteStore::open(&directory).unwrap();
        let mut lease = store.acquire(&[SHARD]).unwrap()[0];
        for _ in 0..20 {
            append(&store, &mut lease).unwrap();
        }
        // A reader has the log open, so that closing the writer does not empty it.
        assert_whole(&store, lease);
        arm(&file, "-wal", write);
        append(&store, &mut lease).unwrap_err();
        // The files as a process that was killed here leaves them: the log must be read again, and
        // may end in a commit that nobody was told of.
        let copy = directory.with_extension("copy");
        fs::create_dir(&copy).unwrap();
        for name in ["kapell.db", "kapell.db-wal"] {
            fs::copy(directory.join(name), copy.join(name)).unwrap();
        }
        drop(store);
        let store = SqliteStore::open(&copy).unwrap();
        let mut lease = acquire(&store, lease);
        append(&store, &mut lease).unwrap();
        assert_whole(&store, lease);
        drop(store);
        assert_sound(&copy);
    }
    println!("checked");
}

#[test]
fn a_checkpoint_whose_sync_fails_loses_nothing() {
    let Some((directory, file)) = in_child("a_checkpoint_whose_sync_fails_loses_nothing") else {
        return;
    };
    // What a commit has synced is on the disk: a checkpoint's sync of the log can drop none of it.
    for (ending, write) in [("kapell.db", Write::IsGone), ("-wal", Write::Stays)] {
        let directory = directory.join(ending);
        let store = SqliteStore::open(&directory).unwrap();
        let mut lease = store.acquire(&[SHARD]).unwrap()[0];
        for _ in 0..5 {
            for _ in 0..5 {
                append(&store, &mut lease).unwrap();
            }
            arm(&file, ending, write);
            let error = store.tidy().unwrap_err();
            assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
            assert!(!file.exists(), "no sync has failed");
            lease = acquire(&store, lease);
            append(&store, &mut lease).unwrap();
            assert_whole(&store, lease);
        }
        store.tidy().unwrap();
        drop(store);
        let store = SqliteStore::open(&directory).unwrap();
        assert_whole(&store, acquire(&store, lease));
        drop(store);
        assert_sound(&directory);
    }
    println!("checked");
}

fn assert_sound(directory: &Path) {
    let database = rusqlite::Connection::open(directory.join("kapell.db")).unwrap();
    let verdict: String = database
        .query_row("PRAGMA integrity_check", (), |row| row.get(0))
        .unwrap();
    assert_eq!(verdict, "ok");
}
