use std::time::{Duration, UNIX_EPOCH};

use kapell_model::{RunId, Shard, Time};
use tempfile::TempDir;

use super::*;
use crate::{Commit, EntityWrite, MemoryStore, Store, conformance};

fn blobs() -> (TempDir, FileBlobs) {
    let directory = TempDir::new().unwrap();
    let blobs = FileBlobs::open(directory.path()).unwrap();
    (directory, blobs)
}

fn file_of(directory: &TempDir, blob: &BlobRef) -> PathBuf {
    directory
        .path()
        .join("blobs")
        .join(&blob.hash[..2])
        .join(&blob.hash[2..])
}

fn used_at(path: &Path, seconds: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds))
        .unwrap();
}

#[test]
fn files_go_in_and_out() {
    let (directory, blobs) = blobs();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    let content: Vec<u8> = (0..2_500_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(&from, &content).unwrap();
    let blob = blobs.put_file(&from).unwrap();
    assert_eq!(blob, blobs.put(&content).unwrap());
    blobs.get_file(&blob, &to).unwrap();
    assert!(fs::read(&to).unwrap() == content);
    assert_eq!(
        blobs.get_file(&blob, &to).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(
        blobs
            .put_file(&directory.path().join("none"))
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        fs::read_dir(directory.path().join("blobs/new"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn content_that_is_there_is_not_written_again() {
    let (directory, blobs) = blobs();
    let blob = blobs.put(b"hello").unwrap();
    let path = file_of(&directory, &blob);
    used_at(&path, 5);
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let before = inode(&path);
    blobs.put(b"hello").unwrap();
    assert_eq!(inode(&path), before);
    let used = fs::metadata(&path).unwrap().modified().unwrap();
    assert!(
        used > UNIX_EPOCH + Duration::from_hours(1),
        "not marked as used"
    );
}

#[test]
fn damage_is_noticed_and_mended_by_the_next_put() {
    let (directory, blobs) = blobs();
    let blob = blobs.put(b"hello").unwrap();
    let path = file_of(&directory, &blob);
    fs::write(&path, b"hellO").unwrap();
    assert_eq!(
        blobs.get(&blob, 10).unwrap_err().kind(),
        ErrorKind::InvalidData
    );
    fs::write(&path, b"hell").unwrap();
    assert_eq!(
        blobs.get(&blob, 10).unwrap_err().kind(),
        ErrorKind::InvalidData
    );
    let out = directory.path().join("out");
    assert_eq!(
        blobs.get_file(&blob, &out).unwrap_err().kind(),
        ErrorKind::InvalidData
    );
    blobs.put(b"hello").unwrap();
    assert_eq!(blobs.get(&blob, 10).unwrap(), b"hello");
}

/// A sweep from its first step to its last; what it removed.
fn sweep(blobs: &FileBlobs, store: &MemoryStore, seconds: i64) -> (u64, u64) {
    let mut sweep = Sweep::beginning_at(200);
    let (mut files, mut bytes) = (0, 0);
    loop {
        let older_than = Time(seconds * 1_000_000);
        let swept = blobs.sweep(&mut sweep, store, older_than).unwrap();
        files += swept.files;
        bytes += swept.bytes;
        if swept.done {
            return (files, bytes);
        }
    }
}

/// Commits a chunk of a run that says this.
fn say(store: &MemoryStore, run: u128, seq: u64, text: &str) -> RunId {
    let id = RunId::new(Time(0), Shard(1), run);
    let commit = Commit {
        shards: store.acquire(&[Shard(1)]).unwrap(),
        entities: vec![EntityWrite {
            key: id.into(),
            seq,
            chunk: text.into(),
            wake_at: None,
            snapshot: None,
            forget: false,
            pages: vec![],
        }],
        runs: vec![],
        ..Commit::default()
    };
    store.commit(&commit).unwrap();
    id
}

#[test]
fn a_sweep_takes_what_is_old_and_referred_to_by_nothing() {
    let (directory, blobs) = blobs();
    let store = MemoryStore::new();
    let [old, wanted, young] =
        [b"old!!", b"want!", b"young"].map(|bytes| blobs.put(bytes).unwrap());
    say(&store, 1, 1, &format!("output: /{}/", wanted.hash));
    let unfinished = directory.path().join("blobs/new/1-0");
    fs::write(&unfinished, "half").unwrap();
    for path in [
        &file_of(&directory, &old),
        &file_of(&directory, &wanted),
        &unfinished,
    ] {
        used_at(path, 100);
    }
    assert_eq!(sweep(&blobs, &store, 100), (0, 0));
    assert_eq!(sweep(&blobs, &store, 101), (2, 9));
    assert_eq!(blobs.get(&old, 9).unwrap_err().kind(), ErrorKind::NotFound);
    blobs.get(&wanted, 9).unwrap();
    blobs.get(&young, 9).unwrap();
}

#[test]
fn what_stands_in_a_blob_stays_as_long_as_the_blob() {
    let (directory, blobs) = blobs();
    let store = MemoryStore::new();
    let artifact = blobs.put(b"rows").unwrap();
    let value = blobs
        .put(format!("[{{\"$artifact\":\"{}\"}}]", artifact.hash).as_bytes())
        .unwrap();
    let list = blobs.put(format!("{{{}}}", value.hash).as_bytes()).unwrap();
    let all_old = || {
        for blob in [&artifact, &value, &list] {
            if file_of(&directory, blob).exists() {
                used_at(&file_of(&directory, blob), 100);
            }
        }
    };
    all_old();
    say(&store, 1, 1, &list.hash);
    assert_eq!(sweep(&blobs, &store, 101), (0, 0));
    // Each goes once nothing that holds it is there any more.
    let store = MemoryStore::new();
    for (left, gone) in [(2, &list), (1, &value), (0, &artifact)] {
        assert_eq!(sweep(&blobs, &store, 101).0, 1);
        assert!(!file_of(&directory, gone).exists());
        let holds = fs::read_dir(directory.path().join("blobs/holds")).unwrap();
        assert_eq!(holds.count(), usize::max(left, 1) - 1);
    }
}

#[test]
fn putting_a_blob_makes_what_stands_in_it_young() {
    let (directory, blobs) = blobs();
    let store = MemoryStore::new();
    let artifact = blobs.put(b"rows").unwrap();
    used_at(&file_of(&directory, &artifact), 100);
    let mut under_way = Sweep::default();
    // The sweep has read what is held before the value is put that holds the artifact.
    blobs
        .sweep(&mut under_way, &store, Time(i64::MAX / 2))
        .unwrap();
    blobs.put(artifact.hash.as_bytes()).unwrap();
    while !blobs
        .sweep(&mut under_way, &store, Time(200_000_000))
        .unwrap()
        .done
    {}
    blobs.get(&artifact, 9).unwrap();
}

#[test]
fn a_blob_that_is_put_again_or_touched_escapes_the_sweep() {
    let (directory, blobs) = blobs();
    let blob = blobs.put(b"hello").unwrap();
    for again in [&|| blobs.put(b"hello").map(drop), &|| {
        blobs.touch(&[
            Arc::from("no hash"),
            blob.hash.clone(),
            "0".repeat(64).into(),
        ])
    }] as [&dyn Fn() -> std::io::Result<()>; 2]
    {
        used_at(&file_of(&directory, &blob), 100);
        again().unwrap();
        assert_eq!(sweep(&blobs, &MemoryStore::new(), 200), (0, 0));
        blobs.get(&blob, 9).unwrap();
    }
}

#[test]
fn blobs_from_before_holds_were_noted_are_left_alone() {
    let directory = TempDir::new().unwrap();
    let old = directory.path().join("blobs/ab");
    fs::create_dir_all(&old).unwrap();
    let blob = old.join("0".repeat(62));
    fs::write(&blob, "old").unwrap();
    used_at(&blob, 100);
    for _ in 0..2 {
        let blobs = FileBlobs::open(directory.path()).unwrap();
        assert_eq!(sweep(&blobs, &MemoryStore::new(), 200), (0, 0));
        assert!(blob.exists());
    }
}

#[test]
fn rules_of_blobs_hold() {
    for (name, case) in conformance::BLOB_STORE_CASES {
        println!("{name}");
        let (directory, blobs) = blobs();
        case(&blobs, &|blob| used_at(&file_of(&directory, blob), 100));
    }
}
