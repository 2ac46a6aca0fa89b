//! A backup of a data directory while it is in use, and its restoration.
//!
//! A backup is one tar file, which any `tar` lists: `kapell-backup.json` says what it is, `kapell.db` is
//! the store as it was at one moment, `blobs/` what it refers to, `logs/` what steps printed. The store
//! is copied first: a blob is written before anything refers to it, and stays for a day after nothing
//! does any more, so every blob that the copy refers to is found after it.
//!
//! Not in it: the key of secrets, so that a backup alone gives none of them away; working directories,
//! which belong to processes that are gone.

#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use kapell_model::{Error, ErrorCode, Time};
use kapell_store::{check_database, copy_database};
use serde::{Deserialize, Serialize};
use tar::{Archive, Builder, EntryType, Header};

use crate::rows::failure;

/// What the file says of itself.
const ABOUT: &str = "kapell-backup.json";

const DATABASE: &str = "kapell.db";

/// The layout of the file.
const FORMAT: u32 = 1;

/// Bytes read at once.
const BUFFER: usize = 256 << 10;

/// What the file says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    format: u32,
    kapell: String,
    /// When it was begun, microseconds since 1970.
    made_at: Time,
}

/// What went into a backup, or came out of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Blobs.
    pub blobs: u64,
    /// Files of logs.
    pub logs: u64,
    /// Bytes of all of it.
    pub bytes: u64,
}

/// Why a store in PostgreSQL has no backup of this kind.
pub fn of_postgres() -> Error {
    let message = "the store is in PostgreSQL, whose own tools back it up";
    Error::new(ErrorCode::NotAvailable, message).hint(
        "`pg_dump --schema`, and a copy of the data directory; see docs/guide/13-postgresql.md",
    )
}

/// Writes a backup of a data directory to a file, which is whole once it has this name.
///
/// # Errors
/// Codes `file-not-found` if there is nothing to back up, `bad-request` if the file is there already,
/// `disk-full`, `store-corrupt`, `store-unavailable`.
pub fn write(data_dir: &Path, to: &Path, logs: bool, now: Time) -> Result<Copied, Error> {
    if to.exists() {
        let message = format!("the file `{}` is there already", to.display());
        return Err(Error::new(ErrorCode::BadRequest, message).hint("choose another name"));
    }
    if !data_dir.join(DATABASE).is_file() {
        let message = format!("there is no store in `{}`", data_dir.display());
        return Err(Error::new(ErrorCode::FileNotFound, message)
            .hint("look at what `--data-dir` or KAPELL_DATA_DIR says"));
    }
    let (new, database) = (beside(to, "new"), beside(to, "db.new"));
    let result = write_to(data_dir, (&new, &database), logs, now);
    // Gone already where all went well.
    let _ = fs::remove_file(&database);
    let copied = result.and_then(|copied| {
        fs::rename(&new, to).map_err(|error| at(to, &error))?;
        Ok(copied)
    });
    if copied.is_err() {
        let _ = fs::remove_file(&new);
    }
    copied
}

fn write_to(
    data_dir: &Path,
    (new, database): (&Path, &Path),
    logs: bool,
    now: Time,
) -> Result<Copied, Error> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600);
    let file = file.open(new).map_err(|error| at(new, &error))?;
    let what = What {
        data_dir,
        database,
        logs,
        now,
    };
    let (file, copied) = tar_to(file, new, &what)?;
    file.sync_all().map_err(|error| at(new, &error))?;
    Ok(copied)
}

/// Writes a backup of a data directory, in which somebody works, to somebody who reads it piece by piece.
///
/// # Errors
/// As [`write`], and what the writer gives.
pub(crate) fn stream(
    data_dir: &Path,
    logs: bool,
    now: Time,
    to: impl Write,
) -> Result<Copied, Error> {
    let database = data_dir.join("backup.db.new");
    let what = What {
        data_dir,
        database: &database,
        logs,
        now,
    };
    let written = tar_to(to, data_dir, &what);
    // Gone already where all went well.
    let _ = fs::remove_file(&database);
    written.map(|(_, copied)| copied)
}

/// What a file of a backup holds, for whoever got one: it is looked through to its end.
///
/// # Errors
/// Code `bad-request` if it is none, or not whole.
pub fn count(file: &Path) -> Result<Copied, Error> {
    let no_backup = |why: &dyn std::fmt::Display| {
        let message = format!("`{}` is no whole backup: {why}", file.display());
        Error::new(ErrorCode::BadRequest, message).hint("make it again")
    };
    let mut copied = Copied::default();
    let opened = File::open(file).map_err(|error| no_backup(&error))?;
    let mut archive = Archive::new(BufReader::with_capacity(BUFFER, opened));
    let mut has_store = false;
    for entry in archive.entries().map_err(|error| no_backup(&error))? {
        let mut entry = entry.map_err(|error| no_backup(&error))?;
        let path = entry.path().map_err(|error| no_backup(&error))?;
        let path = path.into_owned();
        let read = io::copy(&mut entry, &mut io::sink()).map_err(|error| no_backup(&error))?;
        copied.bytes += read;
        has_store |= path == Path::new(DATABASE);
        copied.blobs += u64::from(path.starts_with("blobs") && counts(&path));
        copied.logs += u64::from(path.starts_with("logs"));
    }
    if has_store {
        Ok(copied)
    } else {
        Err(no_backup(&"it has no store"))
    }
}

/// What a backup is made of.
struct What<'a> {
    data_dir: &'a Path,
    /// Where the store is copied to first.
    database: &'a Path,
    logs: bool,
    now: Time,
}

/// Writes all of it; what was written to, and what went there.
fn tar_to<W: Write>(to: W, name: &Path, what: &What<'_>) -> Result<(W, Copied), Error> {
    let What {
        data_dir,
        database,
        logs,
        now,
    } = *what;
    let _ = fs::remove_file(database);
    copy_database(data_dir, database).map_err(failure)?;
    check_database(database).map_err(failure)?;
    let mut writing = Writing {
        tar: Builder::new(BufWriter::with_capacity(BUFFER, to)),
        copied: Copied::default(),
        now,
    };
    let about = About {
        format: FORMAT,
        kapell: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: now,
    };
    let about = serde_json::to_vec(&about)
        .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
    let mut all = || -> io::Result<()> {
        writing.add(ABOUT, &mut &about[..], about.len() as u64)?;
        writing.add_file(DATABASE, database)?;
        writing.copied.blobs = writing.add_folder(data_dir, Path::new("blobs"))?;
        if logs {
            writing.copied.logs = writing.add_folder(data_dir, Path::new("logs"))?;
        }
        Ok(())
    };
    all().map_err(|error| at(name, &error))?;
    let copied = writing.copied;
    let end = writing
        .tar
        .into_inner()
        .and_then(|buffer| buffer.into_inner().map_err(io::IntoInnerError::into_error));
    let to = end.map_err(|error| at(name, &error))?;
    Ok((to, copied))
}

struct Writing<W: Write> {
    tar: Builder<BufWriter<W>>,
    copied: Copied,
    now: Time,
}

impl<W: Write> Writing<W> {
    fn add(&mut self, name: &str, from: &mut dyn Read, size: u64) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(self.now.0 / 1_000_000).unwrap_or(0));
        header.set_size(size);
        self.copied.bytes += size;
        self.tar.append_data(&mut header, name, from)
    }

    /// A file that may grow meanwhile, or be cut: as long as it was when it was opened.
    fn add_file(&mut self, name: &str, path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut whole = file.chain(io::repeat(0)).take(size);
        self.add(name, &mut whole, size)
    }

    /// All files below a folder of the data directory; how many. What is gone meanwhile was needed by
    /// nothing, and what is just being written is not needed yet.
    fn add_folder(&mut self, data_dir: &Path, folder: &Path) -> io::Result<u64> {
        let mut files = 0;
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(data_dir.join(&folder)) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                let path = folder.join(entry.file_name());
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    if path != Path::new("blobs/new") {
                        folders.push(path);
                    }
                } else if kind.is_file() {
                    match self.add_file(&path.to_string_lossy(), &entry.path()) {
                        Err(error) if error.kind() == ErrorKind::NotFound => {}
                        done => {
                            done?;
                            files += u64::from(counts(&path));
                        }
                    }
                }
            }
        }
        Ok(files)
    }
}

/// Makes a data directory from a backup. All of it is checked before the directory has its name.
///
/// # Errors
/// Codes `bad-request` if the directory has a store already or the file is no backup, `file-not-found`,
/// `store-corrupt` if what is in the file is damaged, `store-too-new`, `disk-full`.
pub fn restore(from: &Path, data_dir: &Path) -> Result<Copied, Error> {
    let occupied = fs::read_dir(data_dir).is_ok_and(|mut entries| entries.next().is_some());
    if occupied {
        let message = format!("the folder `{}` is not empty", data_dir.display());
        return Err(Error::new(ErrorCode::BadRequest, message)
            .hint("`--data-dir` names a folder that is not there yet"));
    }
    let file = File::open(from).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            let message = format!("there is no file `{}`", from.display());
            Error::new(ErrorCode::FileNotFound, message).hint("`kapell backup FILE` writes one")
        }
        _ => at(from, &error),
    })?;
    let new = beside(data_dir, "restoring");
    let _ = fs::remove_dir_all(&new);
    let restored = unpack(file, from, &new).and_then(|copied| {
        check_database(&new.join(DATABASE)).map_err(failure)?;
        // A folder that is there is empty, and is replaced.
        fs::rename(&new, data_dir).map_err(|error| at(data_dir, &error))?;
        Ok(copied)
    });
    if restored.is_err() {
        let _ = fs::remove_dir_all(&new);
    }
    restored
}

fn unpack(file: File, from: &Path, new: &Path) -> Result<Copied, Error> {
    let no_backup = |why: &str| {
        let message = format!("`{}` is no backup of Kapell: {why}", from.display());
        Error::new(ErrorCode::BadRequest, message).hint("`kapell backup FILE` writes one")
    };
    let mut copied = Copied::default();
    let mut archive = Archive::new(BufReader::with_capacity(BUFFER, file));
    let entries = archive.entries().map_err(|error| at(from, &error))?;
    for (place, entry) in entries.enumerate() {
        let mut entry = entry.map_err(|error| no_backup(&error.to_string()))?;
        let path = entry
            .path()
            .map_err(|error| no_backup(&error.to_string()))?;
        let path = path.into_owned();
        if place == 0 {
            if path != Path::new(ABOUT) {
                return Err(no_backup("it does not say what it is"));
            }
            let mut text = Vec::new();
            let read = (&mut entry).take(BUFFER as u64).read_to_end(&mut text);
            read.map_err(|error| at(from, &error))?;
            let about: About =
                serde_json::from_slice(&text).map_err(|error| no_backup(&error.to_string()))?;
            if about.format != FORMAT {
                return Err(no_backup(&format!(
                    "its format is {}, not {FORMAT}",
                    about.format
                )));
            }
            continue;
        }
        let known = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
            && (path == Path::new(DATABASE)
                || path.starts_with("blobs")
                || path.starts_with("logs"));
        if !known || entry.header().entry_type() != EntryType::Regular {
            return Err(no_backup(&format!(
                "`{}` does not belong there",
                path.display()
            )));
        }
        let target = new.join(&path);
        let (bytes, hash) = take(&mut entry, &target).map_err(|error| at(&target, &error))?;
        copied.bytes += bytes;
        if path.starts_with("blobs") {
            copied.blobs += u64::from(counts(&path));
            if blob_name(&path).is_some_and(|name| name != hash) {
                let message = format!("the blob `{}` is damaged", path.display());
                return Err(Error::new(ErrorCode::StoreCorrupt, message).hint("use another backup"));
            }
        } else if path.starts_with("logs") {
            copied.logs += 1;
        }
    }
    if !new.join(DATABASE).is_file() {
        return Err(no_backup("it has no store"));
    }
    Ok(copied)
}

/// Writes one file; its length and the hash of its content.
fn take(from: &mut dyn Read, target: &Path) -> io::Result<(u64, String)> {
    if let Some(folder) = target.parent() {
        let mut folders = DirBuilder::new();
        folders.recursive(true).mode(0o700).create(folder)?;
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(target)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER];
    let mut bytes = 0;
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        file.write_all(&buffer[..read])?;
        bytes += read as u64;
    }
    file.sync_all()?;
    Ok((bytes, hasher.finalize().to_hex().to_string()))
}

/// The hash that a blob's file has for a name; none of what is no blob itself.
fn blob_name(path: &Path) -> Option<String> {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    match parts[..] {
        [_, start, rest] if start.len() == 2 => Some(format!("{start}{rest}")),
        _ => None,
    }
}

/// Whether a file is a log or a blob: what is said of blobs is none.
fn counts(path: &Path) -> bool {
    path.starts_with("logs") || blob_name(path).is_some()
}

/// The same name with something behind it.
fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    name.into()
}

fn at(path: &Path, error: &io::Error) -> Error {
    let code = match error.kind() {
        ErrorKind::StorageFull => ErrorCode::DiskFull,
        _ => ErrorCode::StoreUnavailable,
    };
    Error::new(code, format!("`{}`: {error}", path.display()))
        .hint("a backup needs room for all of the data directory once, for its store twice")
}
