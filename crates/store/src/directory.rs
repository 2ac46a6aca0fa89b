//! The data directory: whether it can be used, and that one process alone uses it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Error, Result};

const LOCK_FILE: &str = "lock";
const DATABASE_FILE: &str = "kapell.db";
const DATABASE_MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Of files: SQLite gives what it makes beside its database the same.
const FOR_THE_OWNER: u32 = 0o600;

/// A data directory that is this process's own as long as this lives.
#[derive(Debug)]
pub(crate) struct Held {
    path: PathBuf,
    /// Closing it releases the lock; the file stays, since removing it would let two in.
    _lock: File,
}

impl Held {
    /// Makes it if need be and takes it.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        if path.exists() && !path.is_dir() {
            return Err(unusable(path, "is not a directory"));
        }
        // What is in it tells all that steps were given and gave: it is its owner's alone. One that is
        // there already is as its owner wants it.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| unusable(path, &cannot("be made", &error)))?;
        Ok(Self {
            _lock: lock(path)?,
            path: path.to_owned(),
        })
    }
}

/// A data directory with a database in it.
#[derive(Debug)]
pub(crate) struct Directory {
    held: Held,
    /// Open as long as SQLite has it open: closing any descriptor of a file drops all locks that
    /// the process has on it.
    database: Arc<File>,
}

impl Directory {
    /// Makes it if need be and takes it.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        let held = Held::take(path)?;
        refuse_network(path)?;
        let database = Arc::new(open_database(path)?);
        Ok(Self { held, database })
    }

    /// Where the database is.
    pub(crate) fn database(&self) -> PathBuf {
        self.held.path.join(DATABASE_FILE)
    }

    /// The database as a file, to sync it.
    pub(crate) fn database_file(&self) -> Arc<File> {
        Arc::clone(&self.database)
    }

    /// An error that names this directory.
    pub(crate) fn unusable(&self, why: &str) -> Error {
        unusable(&self.held.path, why)
    }
}

/// Bytes without which SQLite can open no database: a piece of the shared memory beside it.
const ROOM: u64 = 32 << 10;

/// True if the disk of a directory has room for a database to be opened, or does not say.
pub(crate) fn has_room(path: &Path) -> bool {
    rustix::fs::statvfs(path).map_or(true, |about| {
        about.f_bavail.saturating_mul(about.f_frsize) >= ROOM
    })
}

/// Looked at before SQLite opens it, so that a file that is none of ours stays as it is.
fn open_database(directory: &Path) -> Result<File> {
    let path = directory.join(DATABASE_FILE);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FOR_THE_OWNER)
        .open(&path);
    let file = file.map_err(|error| unusable(directory, &cannot("be written", &error)))?;
    let mut start = Vec::new();
    (&file)
        .take(16)
        .read_to_end(&mut start)
        .map_err(|error| unusable(directory, &cannot("be read", &error)))?;
    if start.is_empty() || start == DATABASE_MAGIC {
        Ok(file)
    } else {
        Err(Error::Corrupt(format!(
            "`{}` is not a database",
            path.display()
        )))
    }
}

fn lock(directory: &Path) -> Result<File> {
    let path = directory.join(LOCK_FILE);
    let options = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FOR_THE_OWNER)
        .open(&path);
    let mut file = options.map_err(|error| unusable(directory, &cannot("be written", &error)))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // A holder that has not written its number yet is process 0.
            let _ = file.read_to_string(&mut pid);
            return Err(Error::Held {
                pid: pid.trim().parse().unwrap_or(0),
            });
        }
        Err(TryLockError::Error(error)) => {
            return Err(unusable(directory, &cannot("be locked", &error)));
        }
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(|error| match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::Full(error.to_string()),
            _ => unusable(directory, &cannot("be written", &error)),
        })?;
    Ok(file)
}

fn cannot(what: &str, error: &std::io::Error) -> String {
    format!("cannot {what}: {error}")
}

fn unusable(path: &Path, why: &str) -> Error {
    Error::Unusable(format!("the data directory `{}` {why}", path.display()))
}

#[cfg(not(target_os = "linux"))]
fn refuse_network(_: &Path) -> Result<()> {
    Ok(())
}

/// Network file systems break what SQLite rests on: locks, shared memory, and syncs that mean it.
#[cfg(target_os = "linux")]
fn refuse_network(path: &Path) -> Result<()> {
    let found = rustix::fs::statfs(path)
        .map_err(|error| unusable(path, &cannot("be looked at", &error.into())))?;
    // The magic is 32 bits; some architectures sign-extend it.
    let magic = u32::try_from(i128::from(found.f_type) & 0xffff_ffff).unwrap_or(0);
    let name = match magic {
        FUSE => network_fuse(path),
        _ => NETWORK
            .iter()
            .find(|(known, _)| *known == magic)
            .map(|(_, name)| (*name).to_owned()),
    };
    match name {
        None => Ok(()),
        Some(name) => Err(unusable(
            path,
            &format!(
                "is on a network file system ({name}), where a database is not safe; use a local disk"
            ),
        )),
    }
}

#[cfg(target_os = "linux")]
const FUSE: u32 = 0x6573_5546;

/// Magic numbers of statfs(2) and the file systems they stand for.
#[cfg(target_os = "linux")]
const NETWORK: &[(u32, &str)] = &[
    (0x6969, "nfs"),
    (0x517b, "smb"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "ceph"),
    (0x0bd0_0bd0, "lustre"),
    (0x4750_4653, "gpfs"),
    (0x1983_0326, "beegfs"),
    (0xaad7_aaea, "panfs"),
    (0x5346_414f, "afs"),
    (0x6b41_4653, "afs"),
    (0x7375_7245, "coda"),
    (0x564c, "ncp"),
    (0x7461_636f, "ocfs2"),
    (0x0116_1970, "gfs2"),
];

/// FUSE carries local disks too (ntfs, encryption, the disks of virtual machines), so the name of
/// what is mounted decides. `None` if it is not known to be remote.
#[cfg(target_os = "linux")]
fn network_fuse(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    fuse_name(&mounts, &path).filter(|name| REMOTE_FUSE.iter().any(|remote| name.contains(remote)))
}

#[cfg(target_os = "linux")]
const REMOTE_FUSE: &[&str] = &[
    "sshfs",
    "s3fs",
    "rclone",
    "gcsfuse",
    "goofys",
    "blobfuse",
    "glusterfs",
    "ceph",
    "juicefs",
    "seaweedfs",
    "davfs",
    "curlftpfs",
    "smbnetfs",
    "s3backer",
    "mountpoint",
    "cvmfs",
    "moosefs",
    "mfs",
    "beegfs",
    "alluxio",
    "hdfs",
    "nfs",
];

/// The type of the innermost mount above the path, from the lines of mountinfo: the fifth field is
/// the mount point, the type follows a lone hyphen. A later mount on the same point covers it.
#[cfg(target_os = "linux")]
fn fuse_name(mounts: &str, path: &Path) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let point = place.split(' ').nth(4)?.replace("\\040", " ");
        path.starts_with(&point)
            .then_some((point.len(), kind.split(' ').next()?))
    });
    mounts
        .max_by_key(|(length, _)| *length)
        .map(|(_, kind)| kind.to_owned())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_names_the_file_system() {
        let mounts = "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
                      40 22 0:5 / /mnt/far\\040away rw shared:1 - fuse.sshfs host: rw\n\
                      41 22 0:6 / /mnt/near rw - fuseblk /dev/sdb1 rw\n";
        let name = |path: &str| fuse_name(mounts, Path::new(path)).unwrap();
        assert_eq!(name("/mnt/far away/data"), "fuse.sshfs");
        assert_eq!(name("/mnt/near/data"), "fuseblk");
        assert_eq!(name("/mnt/nearby"), "ext4");
    }
}
