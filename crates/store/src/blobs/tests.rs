use tempfile::TempDir;

use super::*;

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
fn bytes_come_back_under_their_hash() {
    let (directory, blobs) = blobs();
    for bytes in [&b""[..], b"hello", &vec![9; 3_000_000]] {
        let blob = blobs.put(bytes).unwrap();
        assert_eq!(*blob.hash, *blake3::hash(bytes).to_hex());
        assert_eq!(blob.size, bytes.len() as u64);
        assert_eq!(blobs.get(&blob, 3_000_000).unwrap(), bytes);
        assert!(file_of(&directory, &blob).is_file());
    }
    assert_eq!(
        fs::read_dir(directory.path().join("blobs/new"))
            .unwrap()
            .count(),
        0
    );
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

#[test]
fn what_is_too_big_or_unknown_or_no_hash_is_refused() {
    let (_directory, blobs) = blobs();
    let blob = blobs.put(b"hello").unwrap();
    assert_eq!(
        blobs.get(&blob, 4).unwrap_err().kind(),
        ErrorKind::FileTooLarge
    );
    let named = |hash: &str| BlobRef {
        hash: Arc::from(hash),
        size: 5,
    };
    assert_eq!(
        blobs.get(&named(&"0".repeat(64)), 9).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    for bad in [
        "",
        "..",
        "../../etc/passwd",
        &"A".repeat(64),
        &format!("{}/..", "0".repeat(61)),
    ] {
        assert_eq!(
            blobs.get(&named(bad), 9).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
    }
}

#[test]
fn a_sweep_takes_what_is_old_and_unwanted() {
    let (directory, blobs) = blobs();
    let [old, wanted, young] =
        [b"old!!", b"want!", b"young"].map(|bytes| blobs.put(bytes).unwrap());
    let unfinished = directory.path().join("blobs/new/1-0");
    fs::write(&unfinished, "half").unwrap();
    for path in [
        &file_of(&directory, &old),
        &file_of(&directory, &wanted),
        &unfinished,
    ] {
        used_at(path, 100);
    }
    let sweep = |seconds: i64| {
        blobs
            .sweep(Time(seconds * 1_000_000), &|hash| *hash == *wanted.hash)
            .unwrap()
    };
    assert_eq!(sweep(100), Swept::default());
    assert_eq!(sweep(101), Swept { files: 2, bytes: 9 });
    assert_eq!(blobs.get(&old, 9).unwrap_err().kind(), ErrorKind::NotFound);
    blobs.get(&wanted, 9).unwrap();
    blobs.get(&young, 9).unwrap();
}

#[test]
fn a_blob_that_is_put_again_escapes_the_sweep() {
    let (directory, blobs) = blobs();
    let blob = blobs.put(b"hello").unwrap();
    used_at(&file_of(&directory, &blob), 100);
    blobs.put(b"hello").unwrap();
    assert_eq!(
        blobs.sweep(Time(200_000_000), &|_| false).unwrap(),
        Swept::default()
    );
    blobs.get(&blob, 9).unwrap();
}

#[test]
fn many_put_the_same_at_once() {
    let (_directory, blobs) = blobs();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..20_u32 {
                    let blob = blobs.put(&number.to_le_bytes()).unwrap();
                    assert_eq!(blobs.get(&blob, 4).unwrap(), number.to_le_bytes());
                }
            });
        }
    });
}
