//! Big things as files beside the store, named by what is in them.
//!
//! `blobs/ab/cd…`: the BLAKE3 of the content, its first two digits as a folder. A file is written
//! beside the others under a name of its own, synced, renamed, and its folder synced: a name is
//! there only with all of its content. Content that is there already is not written again, only
//! marked as used now, so that a sweep leaves it.

use std::fs::{self, File};
use std::io::{self, Error, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use kapell_expr::BlobRef;
use kapell_model::Time;
use parking_lot::RwLock;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW};

const BUFFER: usize = 1 << 20;
const HASH_DIGITS: usize = 64;

/// Blobs in the folder `blobs` of a data directory. One process uses it: the one that holds the
/// directory. Clones share it.
#[derive(Clone, Debug)]
pub struct FileBlobs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    /// Names of files that are being written.
    counter: AtomicU64,
    /// Held to use a blob, or for writing to remove one: what is found is not removed before it is
    /// marked.
    removal: RwLock<()>,
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs, and files that were never finished.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl FileBlobs {
    /// Opens or makes the folder in a data directory.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let root = directory.join("blobs");
        fs::create_dir_all(root.join("new"))?;
        sync_folder(&root)?;
        sync_folder(directory)?;
        let shared = Shared {
            root,
            counter: AtomicU64::new(0),
            removal: RwLock::new(()),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Keeps bytes. On the disk when it returns.
    pub fn put(&self, bytes: &[u8]) -> io::Result<BlobRef> {
        let blob = reference(&blake3::hash(bytes), length(bytes.len())?);
        if !self.mark_used(&blob)? {
            let mut new = self.start()?;
            new.file.write_all(bytes)?;
            self.finish(new, &blob)?;
        }
        Ok(blob)
    }

    /// Keeps a file's content without reading it into memory. On the disk when it returns.
    pub fn put_file(&self, path: &Path) -> io::Result<BlobRef> {
        let mut from = File::open(path)?;
        let mut new = self.start()?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; BUFFER];
        let mut size = 0;
        loop {
            let read = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => buffer.get(..read).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(read);
            new.file.write_all(read)?;
            size += length(read.len())?;
        }
        let blob = reference(&hasher.finalize(), size);
        if !self.mark_used(&blob)? {
            self.finish(new, &blob)?;
        }
        Ok(blob)
    }

    /// The bytes of a blob of at most `limit` bytes. Damaged content is [`ErrorKind::InvalidData`],
    /// a larger blob [`ErrorKind::FileTooLarge`].
    pub fn get(&self, blob: &BlobRef, limit: u64) -> io::Result<Vec<u8>> {
        if blob.size > limit {
            let why = format!(
                "blob {} has {} bytes, at most {limit} are taken",
                blob.hash, blob.size
            );
            return Err(Error::new(ErrorKind::FileTooLarge, why));
        }
        let mut bytes = Vec::new();
        self.open_checked(blob)?.read_to_end(&mut bytes)?;
        if *blake3::hash(&bytes).to_hex() == *blob.hash {
            Ok(bytes)
        } else {
            Err(damaged(blob, "its content is another"))
        }
    }

    /// Writes the content to a new file, sharing its blocks where the file system can. Only the
    /// length is checked.
    pub fn get_file(&self, blob: &BlobRef, path: &Path) -> io::Result<()> {
        let mut from = self.open_checked(blob)?;
        let mut to = File::create_new(path)?;
        let copied = io::copy(&mut from, &mut to)?;
        if copied == blob.size {
            Ok(())
        } else {
            Err(damaged(blob, "its length is another"))
        }
    }

    /// Removes blobs that were last put before `older_than` and that `keep` does not want, by hash;
    /// and files that were started before and never finished. Whoever calls it chooses a time so
    /// long ago that what was put then is referred to by now.
    pub fn sweep(&self, older_than: Time, keep: &dyn Fn(&str) -> bool) -> io::Result<Swept> {
        let mut swept = Swept::default();
        for folder in fs::read_dir(&self.shared.root)? {
            let folder = folder?;
            let Some(start) = folder.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            if !folder.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder.path())? {
                let file = file?;
                let unfinished = start == "new";
                let hash = format!("{start}{}", file.file_name().to_str().unwrap_or_default());
                if unfinished || (is_hash(&hash) && !keep(&hash)) {
                    self.remove_if_older(&file.path(), older_than, &mut swept)?;
                }
            }
        }
        Ok(swept)
    }

    fn remove_if_older(&self, path: &Path, older_than: Time, swept: &mut Swept) -> io::Result<()> {
        let _alone = self.shared.removal.write();
        let about = match fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            about => about?,
        };
        let used = about
            .modified()?
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        if i64::try_from(used.as_micros()).unwrap_or(i64::MAX) < older_than.0 {
            fs::remove_file(path)?;
            swept.files += 1;
            swept.bytes += about.len();
        }
        Ok(())
    }

    /// True if the content is there; then a sweep takes it for put now. What has another length is
    /// damaged and is written again.
    fn mark_used(&self, blob: &BlobRef) -> io::Result<bool> {
        let path = self.path(&blob.hash)?;
        let _not_removed = self.shared.removal.read();
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        if file.metadata()?.len() != blob.size {
            return Ok(false);
        }
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        rustix::fs::futimens(
            &file,
            &Timestamps {
                last_access: now,
                last_modification: now,
            },
        )?;
        // Whoever renamed it may not have come to this yet.
        sync_folder(folder(&path)?)?;
        Ok(true)
    }

    fn start(&self) -> io::Result<New> {
        loop {
            let number = self.shared.counter.fetch_add(1, Ordering::Relaxed);
            let path = self
                .shared
                .root
                .join("new")
                .join(format!("{}-{number}", std::process::id()));
            match File::create_new(&path) {
                // Left behind by an earlier process with the same number.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                file => {
                    return Ok(New {
                        file: file?,
                        path,
                        renamed: false,
                    });
                }
            }
        }
    }

    fn finish(&self, mut new: New, blob: &BlobRef) -> io::Result<()> {
        new.file.sync_all()?;
        let path = self.path(&blob.hash)?;
        let folder = folder(&path)?;
        let _not_removed = self.shared.removal.read();
        if !folder.exists() {
            match fs::create_dir(folder) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => sync_folder(&self.shared.root)?,
            }
        }
        fs::rename(&new.path, &path)?;
        new.renamed = true;
        sync_folder(folder)
    }

    fn open_checked(&self, blob: &BlobRef) -> io::Result<File> {
        let file = File::open(self.path(&blob.hash)?).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::new(
                ErrorKind::NotFound,
                format!("there is no blob {}", blob.hash),
            ),
            _ => error,
        })?;
        if file.metadata()?.len() == blob.size {
            Ok(file)
        } else {
            Err(damaged(blob, "its length is another"))
        }
    }

    /// A reference may come from outside: only a hash becomes a path.
    fn path(&self, hash: &str) -> io::Result<PathBuf> {
        match hash.split_at_checked(2) {
            Some((start, rest)) if is_hash(hash) => Ok(self.shared.root.join(start).join(rest)),
            _ => Err(Error::new(
                ErrorKind::InvalidInput,
                format!("`{hash}` is not the hash of a blob"),
            )),
        }
    }
}

/// A file that is being written; removed unless it gets its name.
struct New {
    file: File,
    path: PathBuf,
    renamed: bool,
}

impl Drop for New {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == HASH_DIGITS
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn reference(hash: &blake3::Hash, size: u64) -> BlobRef {
    BlobRef {
        hash: Arc::from(hash.to_hex().as_str()),
        size,
    }
}

fn length(bytes: usize) -> io::Result<u64> {
    u64::try_from(bytes).map_err(Error::other)
}

fn damaged(blob: &BlobRef, why: &str) -> Error {
    Error::new(
        ErrorKind::InvalidData,
        format!("blob {} is damaged: {why}", blob.hash),
    )
}

fn folder(path: &Path) -> io::Result<&Path> {
    path.parent()
        .ok_or_else(|| Error::from(ErrorKind::InvalidInput))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests;
