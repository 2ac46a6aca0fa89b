//! Blobs as rows: what is theirs alone, beside the rules of all kinds.

use std::io::ErrorKind;

use super::*;
use crate::{BlobStore, CachedBlobs, PostgresBlobs, Sweep};

fn open() -> Option<(TestSchema, PostgresStore, PostgresBlobs)> {
    let (schema, store) = new()?;
    let blobs = PostgresBlobs::open(schema.url()).unwrap();
    Some((schema, store, blobs))
}

fn make_old(schema: &TestSchema, hash: &str) {
    let sql = format!("UPDATE blobs SET used_at = 0 WHERE hash = decode('{hash}', 'hex')");
    schema.run(&sql).unwrap();
}

fn count(schema: &TestSchema, table: &str) -> u64 {
    let found = schema
        .run(&format!("SELECT count(*) FROM {table}"))
        .unwrap();
    found[0].parse().unwrap()
}

#[test]
fn rules_of_blobs_as_rows_hold() {
    for (name, case) in conformance::BLOB_STORE_CASES {
        let Some((schema, _store, blobs)) = open() else {
            return;
        };
        println!("{name}");
        case(&blobs, &|blob| make_old(&schema, &blob.hash));
    }
}

#[test]
fn rules_of_blobs_hold_behind_a_cache() {
    // A copy outlives what it is of: those rules that need no sweep.
    for (name, case) in &conformance::BLOB_STORE_CASES[..4] {
        let Some((_schema, _store, blobs)) = open() else {
            return;
        };
        println!("{name}");
        let directory = tempfile::tempdir().unwrap();
        let cached = CachedBlobs::open(blobs, directory.path(), 1 << 30).unwrap();
        case(&cached, &|_| panic!("no rule of a sweep"));
    }
}

#[test]
fn what_another_node_put_is_read_here() {
    let Some((schema, _store, blobs)) = open() else {
        return;
    };
    let other = PostgresBlobs::open(schema.url()).unwrap();
    let content = vec![7; 2_000_000];
    let blob = other.put(&content).unwrap();
    assert!(blobs.get(&blob, blob.size).unwrap() == content);
    assert_eq!(count(&schema, "blob_chunks"), 4);
}

#[test]
fn damaged_rows_are_noticed() {
    let Some((schema, _store, blobs)) = open() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let content = vec![7; 2_000_000];
    for damage in [
        "UPDATE blob_chunks SET content = set_byte(content, 9, 8) WHERE number = 2",
        "DELETE FROM blob_chunks WHERE number = 3",
        "DELETE FROM blob_chunks WHERE number = 0",
        "UPDATE blobs SET size = 5",
    ] {
        let blob = blobs.put(&content).unwrap();
        blobs.verify(&blob).unwrap();
        schema.run(damage).unwrap();
        let errors = [
            blobs.get(&blob, blob.size).unwrap_err(),
            blobs.get_file(&blob, &out).unwrap_err(),
            blobs.verify(&blob).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{damage}: {error}");
        }
        assert!(!out.exists());
        schema
            .run("DELETE FROM blobs; DELETE FROM blob_chunks")
            .unwrap();
    }
}

#[test]
fn a_file_one_byte_too_large_is_refused() {
    let Some((schema, _store, blobs)) = open() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(kapell_model::limits::DATABASE_FILE_BYTES + 1)
        .unwrap();
    let refused = blobs.put_file(&path).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::FileTooLarge);
    assert!(
        refused.to_string().contains("at most 16777216"),
        "{refused}"
    );
    assert_eq!(count(&schema, "blobs"), 0);
    file.set_len(kapell_model::limits::DATABASE_FILE_BYTES)
        .unwrap();
    let blob = blobs.put_file(&path).unwrap();
    blobs.verify(&blob).unwrap();
}

#[test]
fn what_is_put_while_a_sweep_is_under_way_stays() {
    let Some((schema, store, blobs)) = open() else {
        return;
    };
    let blob = blobs.put(b"hello").unwrap();
    let other = blobs.put(b"other").unwrap();
    make_old(&schema, &blob.hash);
    make_old(&schema, &other.hash);
    // A commit whose values are put: its transaction is not over while the sweep looks.
    let mut session = connector(schema.url()).unwrap().connect().unwrap();
    session.run("BEGIN").unwrap();
    let hash = blake3::hash(b"hello");
    let put = "SELECT put_blob_1($1, 5, '{}')";
    session.query(put, &[&&hash.as_bytes()[..]]).unwrap();
    let sweep_all = || {
        let (mut sweep, mut files) = (Sweep::default(), 0);
        loop {
            let unused = std::time::Duration::from_hours(1);
            let swept = blobs.sweep(&mut sweep, &store, Time(0), unused).unwrap();
            files += swept.files;
            if swept.done {
                return files;
            }
        }
    };
    assert_eq!(sweep_all(), 1);
    session.run("COMMIT").unwrap();
    assert_eq!(sweep_all(), 0);
    assert_eq!(blobs.get(&blob, 5).unwrap(), b"hello");
    assert_eq!(
        blobs.get(&other, 5).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn what_is_read_again_is_not_read_from_the_database() {
    let Some((schema, _store, blobs)) = open() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (vec![1; 600_000], vec![2; 600_000]);
    let there = [&one, &other].map(|content| blobs.put(content).unwrap());
    let cached = || CachedBlobs::open(blobs.clone(), directory.path(), 700_000).unwrap();
    let cache = cached();
    assert!(cache.get(&there[0], 600_000).unwrap() == one);
    schema.run("UPDATE blob_chunks SET content = ''").unwrap();
    assert!(cache.get(&there[0], 600_000).unwrap() == one);
    assert!(cached().get(&there[0], 600_000).unwrap() == one);
    assert!(cache.get(&there[1], 600_000).is_err());
    // A damaged copy is of no use, and gone.
    let copy = directory
        .path()
        .join("blob-cache")
        .join(&there[0].hash[..2])
        .join(&there[0].hash[2..]);
    std::fs::write(&copy, vec![3; 600_000]).unwrap();
    let out = directory.path().join("out");
    assert!(cache.get_file(&there[0], &out).is_err());
    assert!(!out.exists() && !copy.exists());
    // What is put is read from here, and there is room for one.
    cache.put(&vec![4; 600_000]).unwrap();
    let last = cache.put(&vec![5; 600_000]).unwrap();
    let left = std::fs::read_dir(directory.path().join("blob-cache")).unwrap();
    let files = left.flatten().filter(|folder| folder.file_name() != "new");
    let files: u64 = files
        .flat_map(|folder| std::fs::read_dir(folder.path()).unwrap().flatten())
        .map(|file| file.metadata().unwrap().len())
        .sum();
    assert_eq!(files, 600_000);
    schema.run("UPDATE blob_chunks SET content = ''").unwrap();
    assert!(cache.get(&last, 600_000).unwrap() == vec![5; 600_000]);
}
