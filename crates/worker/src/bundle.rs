//! Bundles: fetched and unpacked once, then copied into each attempt's directory.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use kapell_api::task::{Blobs, Bundle};
use kapell_expr::BlobRef;
use kapell_model::limits;
use parking_lot::Mutex;

/// A bundle in the cache.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// The hash of its list.
    pub(crate) hash: Arc<str>,
    /// Where its files are. Never written to again.
    pub(crate) path: PathBuf,
    directories: Vec<PathBuf>,
    files: Vec<(PathBuf, bool)>,
}

/// The cache of bundles.
pub(crate) struct Bundles {
    root: PathBuf,
    known: Mutex<HashMap<Arc<str>, Arc<Unpacked>>>,
    /// Held while one is unpacked.
    unpacking: Mutex<()>,
}

impl Bundles {
    /// Keeps bundles below this directory.
    pub(crate) fn open(root: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        Ok(Self {
            root,
            known: Mutex::default(),
            unpacking: Mutex::default(),
        })
    }

    /// A bundle that is here already.
    pub(crate) fn known(&self, blob: &BlobRef) -> Option<Arc<Unpacked>> {
        self.known.lock().get(&blob.hash).cloned()
    }

    /// A bundle, fetched if it is not here. Blocks.
    pub(crate) fn fetch(&self, blob: &BlobRef, blobs: &dyn Blobs) -> io::Result<Arc<Unpacked>> {
        let _one = self.unpacking.lock();
        if let Some(known) = self.known(blob) {
            return Ok(known);
        }
        let list: Bundle = serde_json::from_slice(&blobs.get(blob, limits::BUNDLE_LIST_BYTES)?)?;
        let unpacked = Arc::new(self.unpack(blob, &list, blobs)?);
        self.known
            .lock()
            .insert(Arc::clone(&unpacked.hash), Arc::clone(&unpacked));
        Ok(unpacked)
    }

    /// Unpacks beside its place and renames, so that a half unpacked bundle is never seen.
    fn unpack(&self, blob: &BlobRef, list: &Bundle, blobs: &dyn Blobs) -> io::Result<Unpacked> {
        let bytes: u64 = list.files.iter().map(|file| file.blob.size).sum();
        if list.files.len() > limits::BUNDLE_FILES || bytes > limits::BUNDLE_BYTES {
            return Err(io::Error::other(
                "the bundle is larger than a bundle may be",
            ));
        }
        let mut directories = BTreeSet::new();
        let mut files = Vec::with_capacity(list.files.len());
        for file in &list.files {
            let path = checked_path(&file.path)?;
            directories.extend(
                path.ancestors()
                    .skip(1)
                    .filter(|dir| !dir.as_os_str().is_empty())
                    .map(Path::to_owned),
            );
            files.push((path, file.executable));
        }
        let path = self.root.join(&*blob.hash);
        let unpacked = Unpacked {
            hash: Arc::clone(&blob.hash),
            path: path.clone(),
            directories: directories.into_iter().collect(),
            files,
        };
        if path.is_dir() {
            return Ok(unpacked);
        }
        let partial = self.root.join(format!("{}.partial", blob.hash));
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir(&partial)?;
        for directory in &unpacked.directories {
            fs::create_dir(partial.join(directory))?;
        }
        for ((name, executable), file) in unpacked.files.iter().zip(&list.files) {
            let target = partial.join(name);
            blobs.get_file(&file.blob, &target)?;
            let mode = if *executable { 0o755 } else { 0o644 };
            fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
        }
        fs::rename(&partial, &path)?;
        Ok(unpacked)
    }
}

impl Unpacked {
    /// Copies every file: a step may change its own, never another's.
    pub(crate) fn copy_to(&self, target: &Path) -> io::Result<()> {
        for directory in &self.directories {
            fs::create_dir(target.join(directory))?;
        }
        for (name, _) in &self.files {
            copy(&self.path.join(name), &target.join(name))?;
        }
        Ok(())
    }

    /// Relative paths of everything in it.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        let files = self.files.iter().map(|(path, _)| path.as_path());
        self.directories.iter().map(PathBuf::as_path).chain(files)
    }
}

/// A clone where the file system can, else a copy; with the mode either way.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let target = File::options().write(true).create_new(true).open(to)?;
    if rustix::fs::ioctl_ficlone(&target, &source).is_ok() {
        return target.set_permissions(source.metadata()?.permissions());
    }
    drop((source, target));
    fs::copy(from, to).map(|_| ())
}

/// A relative path that stays inside its directory.
pub(crate) fn checked_path(text: &str) -> io::Result<PathBuf> {
    let path = Path::new(text);
    let inside = !text.is_empty()
        && !text.contains('\0')
        && path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
    if inside {
        Ok(path.to_owned())
    } else {
        let reason = format!("`{text}` is not a path inside the attempt's directory");
        Err(io::Error::new(io::ErrorKind::InvalidInput, reason))
    }
}
