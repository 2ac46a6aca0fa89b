//! What keeps blobs: files or rows.

use std::fs;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use kapell_expr::BlobRef;
use kapell_model::Time;

use super::{append, id, wrote};
use crate::{BlobStore, MemoryStore, Sweep};

/// A rule of what keeps blobs: its name, and what checks it on an empty one. The function makes a blob one
/// that was put long ago.
pub type BlobStoreCase = (&'static str, fn(&dyn BlobStore, &dyn Fn(&BlobRef)));

/// Every rule of what keeps blobs.
pub const BLOB_STORE_CASES: &[BlobStoreCase] = &[
    ("bytes come back under their hash", bytes_come_back),
    ("files go in and out", files_go_in_and_out),
    (
        "what is too large, unknown or no hash is refused",
        what_cannot_be_is_refused,
    ),
    ("many put the same at once", many_put_the_same_at_once),
    (
        "a sweep takes what is old and referred to by nothing",
        a_sweep_takes_what_nobody_wants,
    ),
    ("a sweep looks at all of many", a_sweep_looks_at_all_of_many),
    (
        "what is put again or touched escapes the sweep",
        who_is_put_again_escapes,
    ),
    (
        "what stands in a blob stays as long as the blob",
        what_stands_in_a_blob_stays,
    ),
    (
        "what a sweep took may be put again",
        what_was_swept_comes_again,
    ),
];

/// A time at which what was made long ago is old, and what is made by any clock is not.
const NOW: Time = Time(1_000_000_000_000_000);

const UNUSED: Duration = Duration::from_hours(1);

/// A sweep from its first step to its last; how much it removed, and its bytes.
fn sweep(blobs: &dyn BlobStore, store: &MemoryStore) -> (u64, u64) {
    let mut sweep = Sweep::beginning_at(200);
    let (mut files, mut bytes) = (0, 0);
    for _ in 0..10_000 {
        let swept = blobs.sweep(&mut sweep, store, NOW, UNUSED).expect("swept");
        files += swept.files;
        bytes += swept.bytes;
        if swept.done {
            return (files, bytes);
        }
    }
    panic!("a sweep has no end");
}

fn put(blobs: &dyn BlobStore, bytes: &[u8]) -> BlobRef {
    blobs.put(bytes).expect("put")
}

fn is_there(blobs: &dyn BlobStore, blob: &BlobRef) -> bool {
    match blobs.get(blob, u64::MAX) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            false
        }
    }
}

/// Bytes that are nowhere the same.
fn bytes_of(length: usize) -> Vec<u8> {
    let numbers = (0_u32..).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes());
    numbers.take(length).collect()
}

fn bytes_come_back(blobs: &dyn BlobStore, _old: &dyn Fn(&BlobRef)) {
    let chunk = 512 << 10;
    for length in [0, 1, 100_000, chunk, chunk + 1, 2 * chunk, 3_000_000] {
        let bytes = bytes_of(length);
        for _ in 0..2 {
            let blob = put(blobs, &bytes);
            assert_eq!(*blob.hash, *blake3::hash(&bytes).to_hex());
            assert_eq!(blob.size, bytes.len() as u64);
            assert!(blobs.get(&blob, blob.size).expect("read") == bytes);
        }
    }
}

fn files_go_in_and_out(blobs: &dyn BlobStore, _old: &dyn Fn(&BlobRef)) {
    let name = format!(
        "kapell-blobs-{}",
        blake3::hash(&std::process::id().to_le_bytes())
    );
    let folder = std::env::temp_dir().join(format!("{name}-{:p}", std::ptr::from_ref(blobs)));
    fs::create_dir_all(&folder).expect("a folder");
    let (from, to) = (folder.join("from"), folder.join("to"));
    for length in [0, 77, 10_000_001] {
        let content = bytes_of(length);
        fs::write(&from, &content).expect("written");
        let blob = blobs.put_file(&from).expect("put");
        assert_eq!(blob, put(blobs, &content));
        blobs.get_file(&blob, &to).expect("read");
        assert!(fs::read(&to).expect("read") == content);
        let again = blobs.get_file(&blob, &to).expect_err("it is there");
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
        assert!(fs::read(&to).expect("read") == content);
        fs::remove_file(&to).expect("removed");
        let none = BlobRef {
            hash: "0".repeat(64).into(),
            ..blob
        };
        let none = blobs.get_file(&none, &to).expect_err("there is none");
        assert_eq!(none.kind(), ErrorKind::NotFound);
        assert!(!to.exists());
    }
    let none = blobs.put_file(&folder.join("none")).expect_err("no file");
    assert_eq!(none.kind(), ErrorKind::NotFound);
    fs::remove_dir_all(&folder).expect("removed");
}

fn what_cannot_be_is_refused(blobs: &dyn BlobStore, _old: &dyn Fn(&BlobRef)) {
    let blob = put(blobs, b"hello");
    let kind = |hash: &str, size, limit| {
        let hash = Arc::from(hash);
        let got = blobs.get(&BlobRef { hash, size }, limit);
        got.expect_err("no such blob").kind()
    };
    assert_eq!(kind(&blob.hash, 5, 4), ErrorKind::FileTooLarge);
    assert_eq!(kind(&blob.hash, 4, 9), ErrorKind::InvalidData);
    assert_eq!(kind(&blob.hash, 6, 9), ErrorKind::InvalidData);
    assert_eq!(kind(&"0".repeat(64), 5, 9), ErrorKind::NotFound);
    let path = format!("{}/..", "0".repeat(61));
    for bad in ["", "..", "../../etc/passwd", &"A".repeat(64), &path] {
        assert_eq!(kind(bad, 5, 9), ErrorKind::InvalidInput);
    }
}

fn many_put_the_same_at_once(blobs: &dyn BlobStore, _old: &dyn Fn(&BlobRef)) {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut before = String::new();
                for number in 0..12_u8 {
                    // One in three has several chunks, and each names all before it.
                    let mut bytes = vec![number; if number % 3 == 0 { 1_200_000 } else { 9 }];
                    bytes.extend_from_slice(before.as_bytes());
                    let blob = put(blobs, &bytes);
                    assert!(blobs.get(&blob, blob.size).expect("read") == bytes);
                    before = format!("{before} {}", blob.hash);
                }
            });
        }
    });
}

fn a_sweep_takes_what_nobody_wants(blobs: &dyn BlobStore, old: &dyn Fn(&BlobRef)) {
    let store = MemoryStore::new();
    let [gone, wanted, young] = [b"old!!", b"want!", b"young"].map(|bytes| put(blobs, bytes));
    let text = format!("output: /{}/", wanted.hash);
    wrote(&store, vec![append(id(1, 1, 1), 1, &text)], vec![]);
    assert_eq!(sweep(blobs, &store), (0, 0));
    old(&gone);
    old(&wanted);
    assert_eq!(sweep(blobs, &store), (1, 5));
    let all = [&gone, &wanted, &young].map(|blob| is_there(blobs, blob));
    assert_eq!(all, [false, true, true]);
}

fn a_sweep_looks_at_all_of_many(blobs: &dyn BlobStore, old: &dyn Fn(&BlobRef)) {
    let store = MemoryStore::new();
    let many: Vec<BlobRef> = (0..600_u32)
        .map(|number| put(blobs, &number.to_le_bytes()))
        .collect();
    many.iter().for_each(old);
    let kept = &many[17];
    wrote(&store, vec![append(id(1, 1, 1), 1, &kept.hash)], vec![]);
    assert_eq!(sweep(blobs, &store), (599, 599 * 4));
    assert!(is_there(blobs, kept));
}

fn who_is_put_again_escapes(blobs: &dyn BlobStore, old: &dyn Fn(&BlobRef)) {
    let store = MemoryStore::new();
    let blob = put(blobs, b"hello");
    for touched in [false, true] {
        old(&blob);
        if touched {
            let others = [Arc::from("no hash"), "0".repeat(64).into()];
            let all = [others.to_vec(), vec![blob.hash.clone()]].concat();
            blobs.touch(&all).expect("touched");
        } else {
            put(blobs, b"hello");
        }
        assert_eq!(sweep(blobs, &store), (0, 0));
        assert!(is_there(blobs, &blob));
    }
}

fn what_stands_in_a_blob_stays(blobs: &dyn BlobStore, old: &dyn Fn(&BlobRef)) {
    let artifact = put(blobs, b"rows");
    old(&artifact);
    let value = put(
        blobs,
        format!("[{{\"$artifact\":\"{}\"}}]", artifact.hash).as_bytes(),
    );
    // Whoever is named by what is put now was put now too.
    assert_eq!(sweep(blobs, &MemoryStore::new()), (0, 0));
    let list = put(blobs, format!("{{{}}}", value.hash).as_bytes());
    let store = MemoryStore::new();
    wrote(&store, vec![append(id(1, 1, 1), 1, &list.hash)], vec![]);
    let all = [&artifact, &value, &list];
    for blob in all {
        old(blob);
    }
    assert_eq!(sweep(blobs, &store), (0, 0));
    // Each goes once nothing that holds it is there any more: never one before what holds it.
    let store = MemoryStore::new();
    let mut left = all.len();
    while left > 0 {
        assert!(sweep(blobs, &store).0 > 0);
        let there = all.map(|blob| is_there(blobs, blob));
        left = there.iter().filter(|there| **there).count();
        assert!(there[..left].iter().all(|there| *there), "{there:?}");
    }
}

fn what_was_swept_comes_again(blobs: &dyn BlobStore, old: &dyn Fn(&BlobRef)) {
    let content = bytes_of(1_100_000);
    let blob = put(blobs, &content);
    old(&blob);
    assert_eq!(sweep(blobs, &MemoryStore::new()), (1, 1_100_000));
    assert!(!is_there(blobs, &blob));
    assert_eq!(put(blobs, &content), blob);
    assert!(blobs.get(&blob, blob.size).expect("read") == content);
}
