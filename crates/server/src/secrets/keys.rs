//! The keys that seal secrets: from a file of the owner's alone, or given from outside.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kapell_api::client::Result;
use kapell_model::{Error, ErrorCode};

/// Bytes of a key of AES-256.
const KEY_BYTES: usize = 32;

/// Keys in a ring: one that seals, and old ones that a rotation has not done with.
const KEYS: usize = 16;

/// Where keys come from.
#[derive(Clone)]
pub enum KeySource {
    /// A file, a key a line, made at the first use.
    File(PathBuf),
    /// Keys as text, comma-separated: the first seals, all open.
    Given(String),
}

/// One key.
#[derive(Clone)]
pub(super) struct Key([u8; KEY_BYTES]);

impl Key {
    fn new() -> Result<Self> {
        let mut bytes = [0; KEY_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| {
            Error::new(
                ErrorCode::Internal,
                format!("no randomness for a key: {error}"),
            )
        })?;
        Ok(Self(bytes))
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_STANDARD.decode(text.trim()).ok()?;
        bytes.try_into().ok().map(Self)
    }

    fn text(&self) -> String {
        BASE64_STANDARD.encode(self.0)
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// What names it and gives nothing of it away.
    pub(super) fn id(&self) -> String {
        let hash = blake3::derive_key("kapell 2026-11 id of a key of secrets", &self.0);
        blake3::Hash::from_bytes(hash).to_hex()[..16].to_owned()
    }
}

/// Keys that open; the first seals.
pub(super) struct Ring(Vec<Key>);

/// What becomes of a file of keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// A new key before all others.
    AddNew,
    /// None but the first stays.
    ForgetOld,
}

impl Ring {
    /// The key that seals.
    pub(super) fn current(&self) -> &Key {
        &self.0[0]
    }

    /// The key of this id.
    pub(super) fn find(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.id() == id)
    }

    fn parse(text: &str, separator: char, place: &str) -> Result<Self> {
        let keys = text.split(separator).filter(|key| !key.trim().is_empty());
        let keys: Option<Vec<Key>> = keys.map(Key::parse).collect();
        match keys {
            Some(keys) if (1..=KEYS).contains(&keys.len()) => Ok(Self(keys)),
            _ => Err(bad_key(format!("{place} holds no keys of secrets")).hint(
                "a key is 32 random bytes in base64, as `head -c 32 /dev/urandom | base64` makes one",
            )),
        }
    }
}

impl KeySource {
    /// The keys there are. A file that is missing is made if there is nothing yet that it must open.
    ///
    /// # Errors
    /// Codes `bad-secret-key`, `disk-full`.
    pub(super) fn ring(&self, make: bool) -> Result<Ring> {
        let path = match self {
            Self::Given(text) => return Ring::parse(text, ',', "KAPELL_SECRETS_KEY"),
            Self::File(path) => path,
        };
        match fs::read_to_string(path) {
            Ok(text) => {
                for_the_owner_alone(path)?;
                Ring::parse(&text, '\n', &format!("the file `{}`", path.display()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound && make => {
                let ring = Ring(vec![Key::new()?]);
                write(path, &ring)?;
                Ok(ring)
            }
            Err(error) => Err(unreadable(path, &error)),
        }
    }

    /// Changes the keys, where they are a file; gives those that hold then.
    pub(super) fn change(&self, change: Change) -> Result<Ring> {
        let mut ring = self.ring(true)?;
        let Self::File(path) = self else {
            return Ok(ring);
        };
        match change {
            Change::AddNew => {
                if ring.0.len() == KEYS {
                    return Err(bad_key(format!("`{}` holds {KEYS} keys", path.display()))
                        .hint("remove those that no secret needs: all but the last ones"));
                }
                ring.0.insert(0, Key::new()?);
            }
            Change::ForgetOld => ring.0.truncate(1),
        }
        write(path, &ring)?;
        Ok(ring)
    }
}

/// All of it under another name first: the file is whole at any time.
fn write(path: &Path, ring: &Ring) -> Result<()> {
    let text: String = ring.0.iter().map(|key| key.text() + "\n").collect();
    let new = path.with_extension("key.new");
    let write = || {
        let _ = fs::remove_file(&new);
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|error| {
        let message = format!("the file `{}` cannot be written: {error}", path.display());
        if error.kind() == ErrorKind::StorageFull {
            return Error::new(ErrorCode::DiskFull, message).hint("make room, then try again");
        }
        bad_key(message).hint("`secrets.key_file` of the configuration names another")
    })
}

fn for_the_owner_alone(path: &Path) -> Result<()> {
    let mode = fs::metadata(path).map_or(0, |about| about.permissions().mode());
    if mode.trailing_zeros() >= 6 {
        return Ok(());
    }
    let message = format!(
        "others may read the file `{}`, which holds keys",
        path.display()
    );
    Err(bad_key(message).hint(format!("`chmod 600 {}`", path.display())))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    bad_key(format!(
        "the keys of secrets in `{}` cannot be read: {error}",
        path.display()
    ))
    .hint(
        "put the file back, or name it by `secrets.key_file`; without it secrets must be set again",
    )
}

pub(super) fn bad_key(message: String) -> Error {
    Error::new(ErrorCode::BadSecretKey, message)
}
