//! Big things as files beside the store, named by what is in them.
//!
//! `blobs/ab/cd…`: the BLAKE3 of the content, its first two digits as a folder. A file is written
//! beside the others under a name of its own, synced, renamed, and its folder synced: a name is
//! there only with all of its content. Content that is there already is not written again, only
//! marked as used now, so that a sweep leaves it.
//!
//! `blobs/holds/abcd…`: the hashes of other blobs that stand in the content of a blob that was given
//! as bytes (a large value with artifacts in it, the list of a bundle's files). They stay as long as
//! it does. It is written before the blob that it is about.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Error, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kapell_expr::BlobRef;
use parking_lot::RwLock;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW};

use crate::refs::{self, Hash, hashes_in};

mod cache;
mod sweep;

pub use cache::CachedBlobs;
pub use sweep::{Sweep, Swept};

const BUFFER: usize = 1 << 20;

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

impl FileBlobs {
    /// Opens or makes the folder in a data directory.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let root = directory.join("blobs");
        sweep::prepare(&root)?;
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

    /// Keeps bytes, and every blob that is here whose hash stands in them. On the disk when it
    /// returns.
    pub fn put(&self, bytes: &[u8]) -> io::Result<BlobRef> {
        let blob = reference(&blake3::hash(bytes), length(bytes.len())?);
        self.hold(&blob, bytes)?;
        if !self.mark_used(&blob)? {
            let mut new = self.start()?;
            new.file.write_all(bytes)?;
            self.finish(new, &blob)?;
        }
        Ok(blob)
    }

    /// Keeps a file's content without reading it into memory. On the disk when it returns. Hashes in
    /// it mean nothing.
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
        check_limit(blob, limit)?;
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
        let copied = match io::copy(&mut from, &mut to) {
            Ok(copied) if copied == blob.size => Ok(()),
            Ok(_) => Err(damaged(blob, "its length is another")),
            Err(error) => Err(error),
        };
        if copied.is_err() {
            // Better none than a part.
            let _ = fs::remove_file(path);
        }
        copied
    }

    /// Marks blobs as put now: a sweep leaves them for as long as what was just put. What is not here
    /// or is no hash is passed over.
    pub fn touch(&self, hashes: &[Arc<str>]) -> io::Result<()> {
        for hash in hashes.iter().filter(|hash| is_hash(hash)) {
            self.touch_one(hash)?;
        }
        Ok(())
    }

    /// True if there is such a blob, which is marked as put now.
    fn touch_one(&self, hash: &str) -> io::Result<bool> {
        let _not_removed = self.shared.removal.read();
        match File::open(self.path(hash)?) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            file => mark(&file?).map(|()| true),
        }
    }

    /// Bytes of all blobs in a data directory, which another process may be using.
    pub fn bytes(directory: &Path) -> u64 {
        let folders = (0..=u8::MAX).map(|byte| directory.join(format!("blobs/{byte:02x}")));
        let files = folders.flat_map(|folder| sweep::files(&folder).unwrap_or_default());
        // One that is removed meanwhile is none.
        let lengths = files.filter_map(|file| Some(fs::metadata(file).ok()?.len()));
        lengths.sum()
    }

    /// Every blob.
    pub(crate) fn all(&self) -> io::Result<Vec<BlobRef>> {
        let mut found = Vec::new();
        for start in (0..=u8::MAX).map(|byte| format!("{byte:02x}")) {
            for path in sweep::files(&self.shared.root.join(&start))? {
                let rest = path.file_name().and_then(|name| name.to_str());
                let hash = format!("{start}{}", rest.unwrap_or_default());
                if is_hash(&hash) {
                    found.push(BlobRef {
                        hash: hash.into(),
                        size: fs::metadata(&path)?.len(),
                    });
                }
            }
        }
        Ok(found)
    }

    /// Which others each blob holds.
    pub(crate) fn holds(&self) -> io::Result<Vec<(Hash, BTreeSet<Hash>)>> {
        let mut found = Vec::new();
        for path in sweep::files(&self.shared.root.join("holds"))? {
            let holder = path.file_name().and_then(|name| name.to_str());
            if let Some(holder) = holder.and_then(|name| refs::parse(name.as_bytes())) {
                found.push((holder, read_holds(&path)?));
            }
        }
        Ok(found)
    }

    /// The file of a blob.
    pub(crate) fn file(&self, blob: &BlobRef) -> io::Result<PathBuf> {
        self.path(&blob.hash)
    }

    /// Notes which blobs stand in the content of another, which is about to be written.
    fn hold(&self, blob: &BlobRef, bytes: &[u8]) -> io::Result<()> {
        let mut held = BTreeSet::new();
        for hash in hashes_in(bytes) {
            if self.touch_one(&refs::text(&hash))? {
                held.insert(hash);
            }
        }
        let path = self.shared.root.join("holds").join(&*blob.hash);
        if held.is_empty() || read_holds(&path).is_ok_and(|known| known.is_superset(&held)) {
            return Ok(());
        }
        let mut new = self.start()?;
        for hash in &held {
            writeln!(new.file, "{}", refs::text(hash))?;
        }
        new.file.sync_all()?;
        let _not_removed = self.shared.removal.read();
        fs::rename(&new.path, &path)?;
        new.renamed = true;
        sync_folder(folder(&path)?)
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
        mark(&file)?;
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
            ErrorKind::NotFound => missing(blob),
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
        path_in(&self.shared.root, hash)
    }
}

fn path_in(root: &Path, hash: &str) -> io::Result<PathBuf> {
    match hash.split_at_checked(2) {
        Some((start, rest)) if is_hash(hash) => Ok(root.join(start).join(rest)),
        _ => Err(no_hash(hash)),
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

/// The blobs that are held by another, which the file is about.
fn read_holds(path: &Path) -> io::Result<BTreeSet<Hash>> {
    fs::read(path).map(|text| hashes_in(&text))
}

/// Makes a file one that was put now.
fn mark(file: &File) -> io::Result<()> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let both = Timestamps {
        last_access: now,
        last_modification: now,
    };
    Ok(rustix::fs::futimens(file, &both)?)
}

fn is_hash(text: &str) -> bool {
    refs::parse(text.as_bytes()).is_some()
}

pub(crate) fn reference(hash: &blake3::Hash, size: u64) -> BlobRef {
    BlobRef {
        hash: Arc::from(hash.to_hex().as_str()),
        size,
    }
}

pub(crate) fn length(bytes: usize) -> io::Result<u64> {
    u64::try_from(bytes).map_err(Error::other)
}

pub(crate) fn missing(blob: &BlobRef) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("there is no blob {}", blob.hash),
    )
}

pub(crate) fn no_hash(text: &str) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!("`{text}` is not the hash of a blob"),
    )
}

/// Refuses a blob that is larger than what somebody wants in memory.
pub(crate) fn check_limit(blob: &BlobRef, limit: u64) -> io::Result<()> {
    if blob.size <= limit {
        return Ok(());
    }
    let why = format!(
        "blob {} has {} bytes, at most {limit} are taken",
        blob.hash, blob.size
    );
    Err(Error::new(ErrorKind::FileTooLarge, why))
}

pub(crate) fn damaged(blob: &BlobRef, why: &str) -> Error {
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
