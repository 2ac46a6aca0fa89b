//! Blobs that lie elsewhere, with copies in files here, so that what is read again is not fetched again.
//!
//! `blob-cache/ab/cd…` are copies under their hashes. What is not read for longest goes once they are more
//! than so many bytes. Nothing depends on them: they are not synced, each is checked by its hash whenever it
//! is read, and one that is damaged or cannot be written costs a way to where the blobs lie.
//!
//! - **Crash**: unfinished copies are removed at the next start, torn ones when they are read.
//! - **Slow store**: what is here does not ask it.
//! - **Clock jump**: copies go in another order.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kapell_expr::BlobRef;
use kapell_model::Time;
use parking_lot::Mutex;

use super::{BUFFER, check_limit, mark, path_in};
use crate::{BlobStore, Result, Store, Sweep, Swept};

/// The folder of the copies in a data directory.
const FOLDER: &str = "blob-cache";

/// Blobs of another kind with copies here.
pub struct CachedBlobs<B> {
    blobs: B,
    cache: Cache,
}

impl<B: BlobStore> CachedBlobs<B> {
    /// Keeps copies of at most so many bytes in a data directory, which one process uses.
    ///
    /// # Errors
    /// Those of the folder.
    pub fn open(blobs: B, directory: &Path, bytes: u64) -> io::Result<Self> {
        let cache = Cache::open(directory.join(FOLDER), bytes)?;
        Ok(Self { blobs, cache })
    }
}

impl<B: BlobStore> BlobStore for CachedBlobs<B> {
    fn put(&self, bytes: &[u8]) -> io::Result<BlobRef> {
        let blob = self.blobs.put(bytes)?;
        self.cache.keep(&blob, &mut &*bytes);
        Ok(blob)
    }

    fn put_file(&self, path: &Path) -> io::Result<BlobRef> {
        let blob = self.blobs.put_file(path)?;
        if let Ok(mut file) = File::open(path) {
            self.cache.keep(&blob, &mut file);
        }
        Ok(blob)
    }

    fn get(&self, blob: &BlobRef, limit: u64) -> io::Result<Vec<u8>> {
        check_limit(blob, limit)?;
        let mut bytes = Vec::new();
        if self.cache.read(blob, &mut bytes)? {
            return Ok(bytes);
        }
        let bytes = self.blobs.get(blob, limit)?;
        self.cache.keep(blob, &mut &*bytes);
        Ok(bytes)
    }

    fn get_file(&self, blob: &BlobRef, path: &Path) -> io::Result<()> {
        let mut file = File::create_new(path)?;
        match self.cache.read(blob, &mut file) {
            Ok(true) => return Ok(()),
            // It is made anew.
            Ok(false) => fs::remove_file(path)?,
            Err(error) => {
                let _ = fs::remove_file(path);
                return Err(error);
            }
        }
        self.blobs.get_file(blob, path)?;
        if let Ok(mut file) = File::open(path) {
            self.cache.keep(blob, &mut file);
        }
        Ok(())
    }

    fn touch(&self, hashes: &[Arc<str>]) -> io::Result<()> {
        self.blobs.touch(hashes)
    }

    fn sweep(
        &self,
        sweep: &mut Sweep,
        store: &dyn Store,
        now: Time,
        unused: Duration,
    ) -> Result<Swept> {
        self.blobs.sweep(sweep, store, now, unused)
    }
}

/// Copies of blobs.
struct Cache {
    root: PathBuf,
    most: u64,
    /// Bytes of all copies; what one that is written over had is counted until the next look at all.
    bytes: AtomicU64,
    /// Names of files that are being written.
    counter: AtomicU64,
    /// Held by whoever looks at all of them.
    trimming: Mutex<()>,
}

impl Cache {
    fn open(root: PathBuf, most: u64) -> io::Result<Self> {
        match fs::remove_dir_all(root.join("new")) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {
                let mut folders = fs::DirBuilder::new();
                folders.recursive(true).mode(0o700);
                folders.create(root.join("new"))?;
            }
        }
        let cache = Self {
            root,
            most,
            bytes: AtomicU64::new(0),
            counter: AtomicU64::new(0),
            trimming: Mutex::new(()),
        };
        let there = cache.copies().iter().map(|copy| copy.bytes).sum();
        cache.bytes.store(there, Relaxed);
        cache.trim();
        Ok(cache)
    }

    /// Writes a copy to `to`, whole and checked. False if there is none that is good: what was written is
    /// of no use.
    fn read(&self, blob: &BlobRef, to: &mut dyn Write) -> io::Result<bool> {
        let path = path_in(&self.root, &blob.hash)?;
        let Ok(mut from) = File::open(&path) else {
            return Ok(false);
        };
        let mut hasher = blake3::Hasher::new();
        let read = pass(&mut from, blob.size, &mut hasher, to)?;
        if read == blob.size && *hasher.finalize().to_hex() == *blob.hash {
            // Only the order in which copies go depends on it.
            let _ = mark(&from);
            return Ok(true);
        }
        tracing::debug!(hash = %blob.hash, "a copy of a blob is damaged");
        let _ = fs::remove_file(&path);
        Ok(false)
    }

    /// Keeps a copy. Whoever has the content has it without one too.
    fn keep(&self, blob: &BlobRef, content: &mut dyn Read) {
        if blob.size > self.most {
            return;
        }
        let number = self.counter.fetch_add(1, Relaxed);
        let new = self.root.join("new").join(number.to_string());
        match self.write(blob, content, &new) {
            Ok(false) => {}
            Ok(true) => {
                let before = self.bytes.fetch_add(blob.size, Relaxed);
                if before + blob.size > self.most {
                    self.trim();
                }
            }
            Err(error) => {
                let _ = fs::remove_file(&new);
                tracing::debug!(%error, hash = %blob.hash, "no copy of a blob was kept");
            }
        }
    }

    /// False if there is one already.
    fn write(&self, blob: &BlobRef, content: &mut dyn Read, new: &Path) -> io::Result<bool> {
        let path = path_in(&self.root, &blob.hash)?;
        if let Ok(file) = File::open(&path)
            && file.metadata()?.len() == blob.size
        {
            return mark(&file).map(|()| false);
        }
        let mut file = File::create_new(new)?;
        let copied = pass(content, blob.size, &mut blake3::Hasher::new(), &mut file)?;
        if copied != blob.size {
            return Err(io::Error::from(ErrorKind::UnexpectedEof));
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::rename(new, &path).map(|()| true)
    }

    /// Removes what was not read for longest, until a quarter of the room is free again.
    fn trim(&self) {
        let _alone = self.trimming.lock();
        if self.bytes.load(Relaxed) <= self.most {
            return;
        }
        let mut copies = self.copies();
        copies.sort_by_key(|copy| copy.used);
        let there: u64 = copies.iter().map(|copy| copy.bytes).sum();
        let (mut left, wanted) = (there, self.most / 4 * 3);
        for copy in copies {
            if left <= wanted {
                break;
            }
            if fs::remove_file(&copy.path).is_ok() {
                left -= copy.bytes;
            }
        }
        self.bytes.store(left, Relaxed);
    }

    fn copies(&self) -> Vec<Copy> {
        let mut found = Vec::new();
        for folder in (0..=u8::MAX).map(|byte| self.root.join(format!("{byte:02x}"))) {
            let Ok(files) = fs::read_dir(folder) else {
                continue;
            };
            found.extend(files.flatten().filter_map(|file| {
                let about = file.metadata().ok()?;
                Some(Copy {
                    path: file.path(),
                    bytes: about.len(),
                    used: about.modified().unwrap_or(UNIX_EPOCH),
                })
            }));
        }
        found
    }
}

struct Copy {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

/// Passes on at most one byte more than `size`; how many those were.
fn pass(
    from: &mut dyn Read,
    size: u64,
    hasher: &mut blake3::Hasher,
    to: &mut dyn Write,
) -> io::Result<u64> {
    let mut from = from.take(size.saturating_add(1));
    let mut buffer = vec![0; BUFFER.min(usize::try_from(size).unwrap_or(BUFFER) + 1)];
    let mut passed = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(passed),
            Ok(read) => buffer.get(..read).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(read);
        to.write_all(read)?;
        passed += super::length(read.len())?;
    }
}
