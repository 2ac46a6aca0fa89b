//! Removes blobs that nothing refers to, a folder at a time.
//!
//! A blob goes only if all of this holds: it was last put, touched or let go long ago (so whoever has
//! just put it has had the time to refer to it); nothing in the store refers to it; and no blob that is
//! still there holds it. A blob that held others goes first, and they with a later sweep.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use kapell_model::Time;

use super::{FileBlobs, is_hash, read_holds, sync_folder};
use crate::refs::{self, Hash};
use crate::{Error, Result, Store};

/// Blobs that the store is asked about at once.
const ASKED_AT_ONCE: usize = 256;

/// Folders named by the first two digits of hashes.
const FOLDERS: u16 = 256;

/// The file that says that all holds were noted from the first blob on.
const NOTED: &str = "holds-noted";

/// A sweep of all blobs, which takes many steps.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Blobs that others hold, as noted when it began.
    held: BTreeSet<Hash>,
    /// Steps done. In files the first reads what is held, then comes one folder each; in order of hashes there is
    /// one to the end, and one to where it began.
    steps: u16,
    /// The folder, or the first byte of hashes, that comes first.
    first: u8,
    /// In order of hashes, the last blob that was looked at in this step.
    beyond: Option<Hash>,
}

impl Sweep {
    /// A sweep that begins at some folder. Processes that end before their sweep does begin each at
    /// another one.
    pub fn beginning_at(first: u8) -> Self {
        Self {
            first,
            ..Self::default()
        }
    }

    /// What the next step looks at where blobs lie in order of their hashes: those between the two. The sweep goes
    /// to the last hash, and from the least to where it began.
    pub(crate) fn range(&self) -> (Vec<u8>, Vec<u8>) {
        let (from, to) = match self.steps {
            0 => (vec![self.first], vec![0xff; 33]),
            _ => (Vec::new(), vec![self.first]),
        };
        (self.beyond.map_or(from, |hash| hash.to_vec()), to)
    }

    /// Goes on beyond a blob; without one, where the sweep has not been. True if it was everywhere.
    pub(crate) fn go_on(&mut self, beyond: Option<Hash>) -> bool {
        self.beyond = beyond;
        if beyond.is_some() {
            return false;
        }
        self.steps += 1;
        let done = self.steps > 1 || self.first == 0;
        if done {
            *self = Self::default();
        }
        done
    }
}

/// What a step of a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs removed, and files that were never finished.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// True: that was the last step, and the next begins a new sweep.
    pub done: bool,
}

/// Makes the folder of a data directory that has no blobs yet one that may be swept.
pub(super) fn prepare(root: &Path) -> std::io::Result<()> {
    let new = !root.exists();
    let mut folders = fs::DirBuilder::new();
    folders
        .recursive(true)
        .mode(0o700)
        .create(root.join("holds"))?;
    if new {
        fs::File::create(root.join(NOTED))?.sync_all()?;
    }
    sync_folder(root)
}

impl FileBlobs {
    /// Does the next step of a sweep: removes from one folder what was last put before `older_than`
    /// and what nothing refers to. Whoever calls it chooses a time so long ago that what was put then
    /// is referred to by now.
    ///
    /// # Errors
    /// Those of the store, and [`Error::Unavailable`] for the disk. The step may be done again.
    pub fn sweep(&self, sweep: &mut Sweep, store: &dyn Store, older_than: Time) -> Result<Swept> {
        let mut swept = Swept::default();
        let root = &self.shared.root;
        if sweep.steps == 0 {
            if !root.join(NOTED).exists() {
                tracing::debug!(
                    "these blobs are older than the notes of what they hold: none is swept"
                );
                swept.done = true;
                return Ok(swept);
            }
            sweep.held = self.all_held(older_than)?;
            for path in files(&root.join("new")).map_err(broken)? {
                self.remove_if_older(&path, older_than, &mut swept)?;
            }
        } else {
            self.sweep_folder(sweep, store, older_than, &mut swept)?;
        }
        sweep.steps += 1;
        if sweep.steps > FOLDERS {
            *sweep = Sweep::default();
            swept.done = true;
        }
        Ok(swept)
    }

    fn sweep_folder(
        &self,
        sweep: &Sweep,
        store: &dyn Store,
        older_than: Time,
        swept: &mut Swept,
    ) -> Result<()> {
        let folder = (sweep.steps - 1 + u16::from(sweep.first)) % FOLDERS;
        let start = format!("{folder:02x}");
        let mut old = Vec::new();
        for path in files(&self.shared.root.join(&start)).map_err(broken)? {
            let rest = path.file_name().and_then(|name| name.to_str());
            let hash = format!("{start}{}", rest.unwrap_or_default());
            let Some(parsed) = refs::parse(hash.as_bytes()) else {
                continue;
            };
            if !sweep.held.contains(&parsed) && is_older(&path, older_than)? {
                old.push(Arc::<str>::from(hash));
            }
        }
        for hashes in old.chunks(ASKED_AT_ONCE) {
            let referred = store.blobs_referred(hashes)?;
            for (hash, _) in hashes
                .iter()
                .zip(referred)
                .filter(|(_, referred)| !referred)
            {
                let path = self.path(hash).map_err(broken)?;
                if self.remove_if_older(&path, older_than, swept)? {
                    // Without the blob the note holds nothing; left behind it goes with a later sweep.
                    let _ = fs::remove_file(self.shared.root.join("holds").join(&**hash));
                }
            }
        }
        Ok(())
    }

    /// Every blob that another holds which is there. Notes of blobs that are not there go if they are
    /// old: a younger one may be about a blob that is being written.
    fn all_held(&self, older_than: Time) -> Result<BTreeSet<Hash>> {
        let mut held = BTreeSet::new();
        for path in files(&self.shared.root.join("holds")).map_err(broken)? {
            let holder = path.file_name().and_then(|name| name.to_str());
            let Some(holder) = holder.filter(|name| is_hash(name)) else {
                continue;
            };
            if self.path(holder).map_err(broken)?.exists() || !is_older(&path, older_than)? {
                match read_holds(&path) {
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    found => held.extend(found.map_err(broken)?),
                }
            } else {
                self.remove_if_older(&path, older_than, &mut Swept::default())?;
            }
        }
        Ok(held)
    }

    /// Removes a file unless somebody has put or touched it meanwhile. True if it is gone.
    fn remove_if_older(&self, path: &Path, older_than: Time, swept: &mut Swept) -> Result<bool> {
        let _alone = self.shared.removal.write();
        if !is_older(path, older_than)? {
            return Ok(false);
        }
        let bytes = fs::metadata(path).map_or(0, |about| about.len());
        fs::remove_file(path).map_err(broken)?;
        swept.files += 1;
        swept.bytes += bytes;
        Ok(true)
    }
}

/// The files of a folder; none if there is no such folder.
pub(super) fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        found => found?.map(|file| file.map(|file| file.path())).collect(),
    }
}

/// True if a file is there and was last put or touched before a time.
fn is_older(path: &Path, than: Time) -> Result<bool> {
    let about = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        about => about.map_err(broken)?,
    };
    let used = about.modified().map_err(broken)?;
    let used = used.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Ok(i64::try_from(used.as_micros()).unwrap_or(i64::MAX) < than.0)
}

fn broken(error: std::io::Error) -> Error {
    Error::Unavailable(format!("blobs: {error}"))
}
