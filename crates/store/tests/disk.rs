//! Disks that are full, read-only or refuse a write. Each needs something of the machine; where it
//! is not to be had the test says so and why.
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
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A file system in memory, for as long as this lives.
struct Mount {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Mount {
    fn new(options: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "kapell-test"])
            .arg(&path)
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Self {
                path,
                _directory: directory,
            }),
            Ok(output) => {
                eprintln!(
                    "skipped: cannot mount: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
                None
            }
            Err(error) => {
                eprintln!("skipped: no mount command: {error}");
                None
            }
        }
    }

    fn again(&self, options: &str) {
        let status = Command::new("mount")
            .args(["-o", options])
            .arg(&self.path)
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn key() -> EntityKey {
    RunId::new(Time(0), Shard(1), 1).into()
}

/// Commits one chunk after what the lease has seen.
fn append(store: &SqliteStore, lease: &mut Lease, bytes: usize) -> Result<()> {
    let write = EntityWrite {
        key: key(),
        seq: lease.seq + 1,
        chunk: vec![7; bytes],
        wake_at: None,
        snapshot: None,
        forget: false,
        pages: vec![],
    };
    store.commit(&Commit {
        shards: vec![*lease],
        entities: vec![write],
        runs: vec![],
        ..Commit::default()
    })?;
    lease.seq += 1;
    Ok(())
}

/// Appends until that fails; the error.
fn fill(store: &SqliteStore, lease: &mut Lease, bytes: usize) -> Error {
    loop {
        if let Err(error) = append(store, lease, bytes) {
            return error;
        }
    }
}

fn assert_whole(store: &SqliteStore, lease: &Lease) {
    let history = store.history(&key(), 0, usize::MAX).unwrap();
    assert!(
        history.iter().map(|(seq, _)| *seq).eq(1..=lease.seq),
        "{} are acknowledged",
        lease.seq
    );
}

#[test]
fn a_full_disk_refuses_commits_and_goes_on_when_there_is_room() {
    let Some(mount) = Mount::new("size=8m") else {
        return;
    };
    let ballast = mount.path.join("ballast");
    let directory = mount.path.join("data");
    fs::write(&ballast, vec![1; 3 << 20]).unwrap();
    let store = SqliteStore::open(&directory).unwrap();
    let mut lease = store.acquire(&[Shard(1)]).unwrap()[0];
    for _ in 0..3 {
        let error = fill(&store, &mut lease, 50_000);
        assert!(matches!(error, Error::Full(_)), "{error:?}");
    }
    assert_whole(&store, &lease);
    fs::remove_file(&ballast).unwrap();
    let full_at = lease.seq;
    // The very commit that found no room, by the same lease: it did not land.
    append(&store, &mut lease, 50_000).unwrap();
    append(&store, &mut lease, 50_000).unwrap();
    assert_eq!(lease.seq, full_at + 2);
    assert_whole(&store, &lease);
    assert!(matches!(fill(&store, &mut lease, 50_000), Error::Full(_)));
    drop(store);
    mount.again("remount,size=32m");
    let store = SqliteStore::open(&directory).unwrap();
    assert_whole(&store, &lease);
    let mut lease = store.acquire(&[Shard(1)]).unwrap()[0];
    append(&store, &mut lease, 50_000).unwrap();
}

#[test]
fn a_read_only_directory_is_unusable() {
    let Some(mount) = Mount::new("size=8m") else {
        return;
    };
    drop(SqliteStore::open(&mount.path).unwrap());
    mount.again("remount,ro");
    match SqliteStore::open(&mount.path) {
        Err(Error::Unusable(why)) => assert!(why.contains("cannot be written"), "{why}"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("opened"),
    }
    assert!(matches!(
        SqliteStore::open(&mount.path.join("new")),
        Err(Error::Unusable(_))
    ));
}

const DIRECTORY: &str = "KAPELL_TEST_DISK_DIRECTORY";

/// A limit on the size of files makes writes fail as a broken disk does; its signal must be ignored,
/// which a shell can arrange for its child.
#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "the child learns from its environment that it is one"
)]
fn a_failed_write_is_unavailable_and_the_next_opens_anew() {
    if let Ok(directory) = std::env::var(DIRECTORY) {
        return fail_writes(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args([
            "a_failed_write_is_unavailable_and_the_next_opens_anew",
            "--exact",
            "--nocapture",
        ])
        .env(DIRECTORY, directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("checked"),
        "{text}"
    );
}

fn fail_writes(directory: &Path) {
    let store = SqliteStore::open(directory).unwrap();
    let mut lease = store.acquire(&[Shard(1)]).unwrap()[0];
    append(&store, &mut lease, 50_000).unwrap();
    let free = getrlimit(Resource::Fsize);
    setrlimit(
        Resource::Fsize,
        Rlimit {
            current: Some(2 << 20),
            ..free
        },
    )
    .unwrap();
    for _ in 0..3 {
        let error = fill(&store, &mut lease, 50_000);
        assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    }
    assert_whole(&store, &lease);
    setrlimit(Resource::Fsize, free).unwrap();
    // By itself; whoever got the error acquires before it goes on.
    let again = store.acquire(&[Shard(1)]).unwrap()[0];
    assert!(again.epoch > lease.epoch && again.seq == lease.seq);
    lease = again;
    append(&store, &mut lease, 50_000).unwrap();
    assert_whole(&store, &lease);
    println!("checked");
}
