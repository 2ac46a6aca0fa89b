//! Working directories of attempts: `files` (where the step starts, with the bundle in it) and
//! `tmp`, side by side.
//!
//! A directory that an attempt left exactly as it got it (by the change times of everything in it)
//! serves the next one, since making and removing directories costs a fifth of a short step. That
//! needs a file system whose change times tell every change apart; where they do not, every
//! directory is used once.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use kapell_model::Time;
use parking_lot::Mutex;

use crate::bundle::Unpacked;
use crate::timers::later;

/// Unused directories kept for each bundle.
const POOLED: usize = 64;
/// Bundles for which unused directories are kept.
const POOLED_BUNDLES: usize = 16;
/// Directories of failed attempts kept at most.
const KEPT: usize = 20;

/// One working directory.
pub(crate) struct AttemptDir {
    root: PathBuf,
    /// Where the step starts.
    pub(crate) files: PathBuf,
    /// The same for `chdir`.
    pub(crate) files_c: CString,
    /// Where `$TMPDIR` points.
    pub(crate) tmp: PathBuf,
    bundle: Option<Arc<Unpacked>>,
    stamps: Option<Vec<Stamp>>,
}

/// What tells that a file was changed.
#[derive(PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    inode: u64,
    mode: u32,
    changed: (i64, i64),
}

/// All working directories of a worker.
pub(crate) struct Dirs {
    root: PathBuf,
    /// Scripts, inputs and outputs: `<attempt>.<kind>`.
    pub(crate) io: PathBuf,
    next: AtomicU64,
    exact_times: bool,
    pool: Mutex<HashMap<Option<Arc<str>>, Vec<AttemptDir>>>,
    janitor: Mutex<Option<(Sender<Chore>, JoinHandle<()>)>>,
}

/// Work for the thread that removes directories.
enum Chore {
    Remove(PathBuf),
    Keep {
        from: PathBuf,
        name: String,
        extra: Vec<PathBuf>,
        until: Time,
    },
    Stop,
}

impl Dirs {
    /// Moves away what a former worker left there and keeps what is to be kept.
    pub(crate) fn open(
        root: PathBuf,
        clock: fn() -> Time,
        keep_failed: Duration,
    ) -> io::Result<Self> {
        let kept = root.join("failed");
        let trash = root.join("trash");
        for directory in [&root, &kept, &trash] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
        }
        let mut old = Vec::new();
        for entry in fs::read_dir(&root)?.flatten() {
            let path = entry.path();
            if path != kept && path != trash {
                let away = trash.join(format!("{}-{}", clock().0, entry.file_name().display()));
                fs::rename(&path, &away)?;
            }
        }
        old.extend(fs::read_dir(&trash)?.flatten().map(|entry| entry.path()));
        let io = root.join("io");
        fs::create_dir(&io)?;
        let exact_times = has_exact_times(&io)?;
        let (sender, receiver) = channel();
        let mut janitor = Janitor {
            kept,
            clock,
            until: Vec::new(),
        };
        janitor.adopt(keep_failed);
        let thread = std::thread::Builder::new()
            .name("kapell-janitor".into())
            .spawn(move || janitor.run(&receiver))?;
        for path in old {
            let _ = sender.send(Chore::Remove(path));
        }
        Ok(Self {
            root,
            io,
            next: AtomicU64::new(0),
            exact_times,
            pool: Mutex::default(),
            janitor: Mutex::new(Some((sender, thread))),
        })
    }

    /// A directory that holds the bundle and nothing else.
    pub(crate) fn take(&self, bundle: Option<&Arc<Unpacked>>) -> io::Result<AttemptDir> {
        let key = bundle.map(|bundle| Arc::clone(&bundle.hash));
        if let Some(directory) = self.pool.lock().get_mut(&key).and_then(Vec::pop) {
            return Ok(directory);
        }
        let root = self
            .root
            .join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let (files, tmp) = (root.join("files"), root.join("tmp"));
        fs::create_dir(&root)?;
        fs::create_dir(&files)?;
        fs::create_dir(&tmp)?;
        if let Some(bundle) = bundle {
            bundle.copy_to(&files)?;
        }
        let files_c = CString::new(files.as_os_str().as_bytes())?;
        let mut directory = AttemptDir {
            root,
            files,
            files_c,
            tmp,
            bundle: bundle.cloned(),
            stamps: None,
        };
        if self.exact_times {
            directory.stamps = Some(directory.read_stamps()?);
        }
        Ok(directory)
    }

    /// True if the attempt left the directory as it was.
    pub(crate) fn is_clean(directory: &AttemptDir) -> bool {
        directory.stamps.as_ref().is_some_and(|stamps| {
            stamps
                .iter()
                .all(|stamp| Stamp::read(&stamp.path).is_ok_and(|now| now == *stamp))
        })
    }

    /// Takes a directory back: it serves again if it is clean, else it is removed.
    pub(crate) fn give_back(&self, directory: AttemptDir) {
        if Self::is_clean(&directory) {
            let key = directory
                .bundle
                .as_ref()
                .map(|bundle| Arc::clone(&bundle.hash));
            let mut pool = self.pool.lock();
            if pool.contains_key(&key) || pool.len() < POOLED_BUNDLES {
                let pooled = pool.entry(key).or_default();
                if pooled.len() < POOLED {
                    pooled.push(directory);
                    return;
                }
            } else {
                // Bundles come and go with versions: start over with those in use now.
                let old: Vec<_> = pool
                    .drain()
                    .flat_map(|(_, directories)| directories)
                    .collect();
                drop(pool);
                for directory in old {
                    self.chore(Chore::Remove(directory.root));
                }
            }
        }
        self.chore(Chore::Remove(directory.root));
    }

    /// Keeps the directory of a failed attempt, with its script and input, until a time.
    pub(crate) fn keep(
        &self,
        directory: &AttemptDir,
        name: String,
        extra: Vec<PathBuf>,
        until: Time,
    ) {
        self.chore(Chore::Keep {
            from: directory.root.clone(),
            name,
            extra,
            until,
        });
    }

    fn chore(&self, chore: Chore) {
        if let Some((sender, _)) = &*self.janitor.lock() {
            let _ = sender.send(chore);
        }
    }

    /// Ends the thread after its last chore.
    pub(crate) fn close(&self) {
        if let Some((sender, thread)) = self.janitor.lock().take() {
            let _ = sender.send(Chore::Stop);
            let _ = thread.join();
        }
    }
}

impl AttemptDir {
    fn read_stamps(&self) -> io::Result<Vec<Stamp>> {
        let own = [&self.root, &self.files, &self.tmp];
        let bundle = self.bundle.iter().flat_map(|bundle| bundle.paths());
        own.into_iter()
            .cloned()
            .chain(bundle.map(|path| self.files.join(path)))
            .map(|path| Stamp::read(&path))
            .collect()
    }
}

impl Stamp {
    fn read(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            inode: metadata.ino(),
            mode: metadata.mode(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// True if two changes right after each other have different change times, once each was looked at
/// (Linux 6.13 with the usual file systems).
fn has_exact_times(directory: &Path) -> io::Result<bool> {
    let path = directory.join("times");
    let mut exact = true;
    let mut last = None;
    for round in 0..8 {
        fs::write(&path, [round])?;
        let stamp = Stamp::read(&path)?;
        exact &= last.as_ref() != Some(&stamp);
        last = Some(stamp);
    }
    fs::remove_file(&path)?;
    Ok(exact)
}

struct Janitor {
    kept: PathBuf,
    clock: fn() -> Time,
    until: Vec<(Time, PathBuf)>,
}

impl Janitor {
    /// Takes over what an earlier worker kept.
    fn adopt(&mut self, keep_failed: Duration) {
        let until = later((self.clock)(), keep_failed);
        let found = fs::read_dir(&self.kept).into_iter().flatten().flatten();
        self.until = found.map(|entry| (until, entry.path())).collect();
    }

    fn run(mut self, chores: &Receiver<Chore>) {
        loop {
            let chore = if self.until.is_empty() {
                chores.recv().ok()
            } else {
                match chores.recv_timeout(Duration::from_secs(10)) {
                    Ok(chore) => Some(chore),
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                        self.expire();
                        continue;
                    }
                    Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
                }
            };
            match chore {
                Some(Chore::Remove(path)) => remove(&path),
                Some(Chore::Keep {
                    from,
                    name,
                    extra,
                    until,
                }) => {
                    let to = self.kept.join(name);
                    remove(&to);
                    if fs::rename(&from, &to).is_ok() {
                        for path in extra {
                            let kind = path.extension().unwrap_or_default().to_owned();
                            let _ = fs::rename(&path, to.join(kind));
                        }
                        self.until.push((until, to));
                    } else {
                        remove(&from);
                    }
                    self.expire();
                }
                Some(Chore::Stop) | None => return,
            }
        }
    }

    fn expire(&mut self) {
        let now = (self.clock)();
        let over = self.until.len().saturating_sub(KEPT);
        let mut place = 0;
        self.until.retain(|(until, path)| {
            place += 1;
            let stays = place > over && *until > now;
            if !stays {
                remove(path);
            }
            stays
        });
    }
}

/// Removes a tree whatever its modes are; what cannot be removed stays for the next start.
fn remove(path: &Path) {
    if fs::remove_dir_all(path).is_err() && path.is_dir() {
        make_writable(path);
        let _ = fs::remove_dir_all(path);
    } else if path.is_file() {
        let _ = fs::remove_file(path);
    }
}

fn make_writable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}
