use std::sync::atomic::{AtomicBool, Ordering};

use kapell_model::{EntityKey, RunId, Shard};
use kapell_store::{Commit, EntityWrite, FileBlobs, SqliteStore, Store};
use tempfile::TempDir;

use super::*;

const NOW: Time = Time(1_700_000_000_000_000);

/// Commits one chunk, which refers to a blob.
fn commit(store: &SqliteStore, lease: &mut kapell_store::Lease, chunk: &str) {
    let key = EntityKey::from(RunId::new(NOW, Shard(1), 1));
    let commit = Commit {
        shards: vec![*lease],
        entities: vec![EntityWrite {
            key,
            seq: lease.seq + 1,
            chunk: chunk.into(),
            wake_at: None,
            snapshot: None,
            forget: false,
            pages: Vec::new(),
        }],
        ..Commit::default()
    };
    store.commit(&commit).unwrap();
    lease.seq += 1;
}

fn history(store: &SqliteStore) -> Vec<(u64, Vec<u8>)> {
    let key = EntityKey::from(RunId::new(NOW, Shard(1), 1));
    store.history(&key, 0, usize::MAX).unwrap()
}

struct World {
    folder: TempDir,
    store: SqliteStore,
    blobs: FileBlobs,
}

impl World {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data");
        let store = SqliteStore::open(&data).unwrap();
        let blobs = FileBlobs::open(&data).unwrap();
        Self {
            folder,
            store,
            blobs,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

#[test]
fn what_is_backed_up_comes_back() {
    let world = World::new();
    let mut lease = world.store.acquire(&[Shard(1)]).unwrap()[0];
    let small = world.blobs.put(b"a value").unwrap();
    let large = world.blobs.put(&vec![7; 3 << 20]).unwrap();
    commit(
        &world.store,
        &mut lease,
        &format!("{} {}", small.hash, large.hash),
    );
    fs::create_dir_all(world.path("data/logs/run")).unwrap();
    fs::write(world.path("data/logs/run/a.log"), "hello").unwrap();
    fs::write(world.path("data/secret.key"), "the key").unwrap();
    let file = world.path("backup.tar");
    let made = write(&world.path("data"), &file, true, NOW).unwrap();
    assert_eq!((made.blobs, made.logs), (2, 1));
    // What comes later is not in it.
    commit(&world.store, &mut lease, "later");
    let target = world.path("restored");
    let restored = restore(&file, &target).unwrap();
    assert_eq!((restored.blobs, restored.logs), (2, 1));
    assert!(
        !target.join("secret.key").exists(),
        "the key stays where it is"
    );
    assert_eq!(
        fs::read_to_string(target.join("logs/run/a.log")).unwrap(),
        "hello"
    );
    let store = SqliteStore::open(&target).unwrap();
    assert_eq!(history(&store).len(), 1);
    let blobs = FileBlobs::open(&target).unwrap();
    assert_eq!(blobs.get(&small, 99).unwrap(), b"a value");
    assert_eq!(blobs.get(&large, 9 << 20).unwrap().len(), 3 << 20);
    // The restored one can be worked in.
    let mut lease = store.acquire(&[Shard(1)]).unwrap()[0];
    commit(&store, &mut lease, "on");
    let leftovers: Vec<_> = fs::read_dir(world.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(leftovers.len(), 3, "{leftovers:?}");
}

#[test]
fn a_backup_under_load_is_one_moment() {
    let world = World::new();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut lease = world.store.acquire(&[Shard(1)]).unwrap()[0];
            while !stop.load(Ordering::Relaxed) {
                let blob = world.blobs.put(&lease.seq.to_be_bytes()).unwrap();
                commit(&world.store, &mut lease, &blob.hash);
            }
            lease.seq
        });
        let mut before = 0;
        for round in 0..4 {
            while history(&world.store).len() < before + 20 {}
            before = history(&world.store).len();
            let file = world.path(&format!("{round}.tar"));
            write(&world.path("data"), &file, true, NOW).unwrap();
            let target = world.path(&format!("restored {round}"));
            restore(&file, &target).unwrap();
            let store = SqliteStore::open(&target).unwrap();
            let history = history(&store);
            assert!(history.len() >= before, "{} commits", history.len());
            let blobs = FileBlobs::open(&target).unwrap();
            for (place, (seq, hash)) in (1..).zip(history) {
                assert_eq!(seq, place, "no gap");
                let blob = kapell_expr::BlobRef {
                    hash: String::from_utf8(hash).unwrap().into(),
                    size: 8,
                };
                assert_eq!(blobs.get(&blob, 8).unwrap(), (seq - 1).to_be_bytes());
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(writer.join().unwrap() > 80);
    });
}

#[test]
fn damage_is_noticed_and_leaves_nothing_behind() {
    let world = World::new();
    let mut lease = world.store.acquire(&[Shard(1)]).unwrap()[0];
    let blob = world.blobs.put(&[b'x'; 5_000]).unwrap();
    commit(
        &world.store,
        &mut lease,
        &format!("{}{}", blob.hash, "y".repeat(100_000)),
    );
    let file = world.path("backup.tar");
    write(&world.path("data"), &file, true, NOW).unwrap();
    let good = fs::read(&file).unwrap();
    let target = world.path("restored");
    let changed = |what: &[u8], with: u8| {
        let mut bytes = good.clone();
        let place = bytes
            .windows(what.len())
            .position(|part| part == what)
            .unwrap();
        bytes[place + 2_000] = with;
        bytes
    };
    let cut = good[..good.len() / 2].to_vec();
    for (what, bytes) in [
        ("a blob", changed(&[b'x'; 3_000], b'z')),
        ("the end", cut),
        ("no tar", vec![b'n'; 4_096]),
        ("nothing", Vec::new()),
    ] {
        fs::write(&file, bytes).unwrap();
        let error = restore(&file, &target).unwrap_err();
        assert!(error.hint.is_some(), "{what}: {}", error.message);
        assert!(!target.exists(), "{what}");
        assert!(!world.path("restored.restoring").exists(), "{what}");
    }
}

#[test]
fn a_file_that_would_leave_the_folder_is_refused() {
    let world = World::new();
    let file = world.path("evil.tar");
    for name in ["../evil", "blobs/../../evil", "secret.key", "work/x"] {
        let mut tar = Builder::new(File::create(&file).unwrap());
        let about = br#"{"format":1,"kapell":"x","made_at":0}"#;
        let mut add = |name: &str, bytes: &[u8]| {
            let mut header = Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, bytes).unwrap();
        };
        add(ABOUT, about);
        add(name, b"evil");
        tar.finish().unwrap();
        let error = restore(&file, &world.path("restored")).unwrap_err();
        assert_eq!(
            error.code,
            ErrorCode::BadRequest,
            "{name}: {}",
            error.message
        );
        assert!(!world.path("evil").exists());
    }
}

#[test]
fn nothing_is_overwritten() {
    let world = World::new();
    let file = world.path("backup.tar");
    let data = world.path("data");
    write(&data, &file, false, NOW).unwrap();
    let error = write(&data, &file, false, NOW).unwrap_err();
    assert_eq!(error.code, ErrorCode::BadRequest);
    let error = restore(&file, &data).unwrap_err();
    assert_eq!(error.code, ErrorCode::BadRequest);
    let error = write(&world.path("nothing"), &world.path("new.tar"), false, NOW).unwrap_err();
    assert_eq!(error.code, ErrorCode::FileNotFound);
    let error = restore(&world.path("nothing"), &world.path("new")).unwrap_err();
    assert_eq!(error.code, ErrorCode::FileNotFound);
}
