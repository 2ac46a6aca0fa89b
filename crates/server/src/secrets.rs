//! Secrets of workflows: kept as documents that are encrypted, given to workers alone.
//!
//! Start reading at [`Secrets`]; `keys` says where the keys come from, `sealed` how a value is kept.
//!
//! Invariants
//! - A value is in the store only sealed (AES-256-GCM-SIV), bound to its namespace and name: one that
//!   is moved to another name does not open.
//! - No answer, log or error holds a value. What is listed says when and by whom it was set.
//! - A key leaves the ring only after everything is sealed with another: a rotation that is cut short
//!   is finished by the next.

mod keys;
mod sealed;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use kapell_api::client::Result;
use kapell_api::http::{RotatedSecrets, SecretPage, SecretSummary};
use kapell_model::{Error, ErrorCode, Time, limits};
use kapell_store::{Order, Store};
use parking_lot::Mutex;

use crate::rows::failure;

use keys::Change;
pub use keys::KeySource;
use sealed::Sealed;

/// The first byte of the keys of these documents.
const DOCUMENT: u8 = 70;

/// Says which key nodes of a cluster have, by its id.
const KEY: &[u8] = &[92];

/// Secrets sealed again in one write.
const AT_ONCE: usize = 100;

/// The secrets of a data directory.
pub struct Secrets {
    store: Arc<dyn Store>,
    source: KeySource,
    /// One change at a time: a rotation misses none that is set meanwhile.
    changing: Mutex<()>,
}

impl Secrets {
    /// Secrets in this store. Nothing is read or made before the first of them is asked for.
    pub fn new(store: Arc<dyn Store>, source: KeySource) -> Self {
        Self {
            store,
            source,
            changing: Mutex::default(),
        }
    }

    /// Keeps a value under a name; one that was there is replaced.
    ///
    /// # Errors
    /// Codes `bad-request` for a name that no expression can use, `limit-reached`, `bad-secret-key`,
    /// and those of the store.
    pub fn set(&self, namespace: &str, name: &str, value: &str, by: &str, at: Time) -> Result<()> {
        check_name(name)?;
        if value.is_empty() {
            let message = format!("the value of the secret `{name}` is empty");
            return Err(Error::new(ErrorCode::BadRequest, message)
                .hint("give it on standard input; `kapell secret delete` removes one"));
        }
        if value.len() > limits::SECRET_BYTES {
            let message = format!("the secret `{name}` has {} bytes", value.len());
            return Err(Error::new(ErrorCode::LimitReached, message)
                .hint(format!("at most {}", limits::SECRET_BYTES)));
        }
        let _alone = self.changing.lock();
        let ring = self.source.ring(self.is_empty()?)?;
        let key = document(namespace, name);
        if self.sealed(&key)?.is_none() && self.count()? >= limits::SECRETS {
            let message = format!("there are {} secrets already", limits::SECRETS);
            return Err(Error::new(ErrorCode::LimitReached, message)
                .hint("delete one that is not needed: `kapell secret list`"));
        }
        let sealed = Sealed::seal(&ring, (namespace, name), value, by, at)?;
        self.store
            .put_documents(&[(key, Some(sealed.to_json()?))])
            .map_err(failure)
    }

    /// Sees to it that this node of a cluster has the key that the others have: what one seals all must open.
    ///
    /// # Errors
    /// Code `bad-secret-key` if it has another, and those of the store.
    pub(crate) fn agree(&self) -> Result<()> {
        let _alone = self.changing.lock();
        let ring = self.source.ring(self.is_empty()?)?;
        if self.shared_key()?.is_none() {
            self.share(&ring.current().id())?;
        }
        // Of two nodes that begin at once one is the last to say it.
        let shared = self.shared_key()?;
        if shared.is_some_and(|id| ring.find(&id).is_none()) {
            let message =
                "this server has another key of secrets than the other nodes of its cluster";
            return Err(keys::bad_key(message.to_owned()).hint(
                "give all the same: copy `secret.key` from the data directory of a node, or set KAPELL_SECRETS_KEY",
            ));
        }
        Ok(())
    }

    fn shared_key(&self) -> Result<Option<String>> {
        let found = self.store.documents(KEY, None, Order::Forward, 1);
        let found = found.map_err(failure)?.into_iter().next();
        Ok(found.filter(|(key, _)| key == KEY).map(|(_, id)| id))
    }

    fn share(&self, id: &str) -> Result<()> {
        let row = (KEY.to_vec(), Some(id.to_owned()));
        self.store.put_documents(&[row]).map_err(failure)
    }

    /// Removes a secret.
    ///
    /// # Errors
    /// Code `bad-request` if there is none of this name, and those of the store.
    pub fn delete(&self, namespace: &str, name: &str) -> Result<()> {
        let _alone = self.changing.lock();
        let key = document(namespace, name);
        if self.sealed(&key)?.is_none() {
            let message = format!("there is no secret `{name}`");
            return Err(Error::new(ErrorCode::SecretNotFound, message)
                .hint("`kapell secret list` lists them"));
        }
        self.store.put_documents(&[(key, None)]).map_err(failure)
    }

    /// Names of secrets after the given one, without their values.
    ///
    /// # Errors
    /// Those of the store.
    pub fn list(&self, namespace: &str, after: &str, limit: usize) -> Result<SecretPage> {
        let prefix = document(namespace, "");
        let after = document(namespace, after);
        let found = self
            .store
            .documents(&prefix, Some(&after), Order::Forward, limit + 1)
            .map_err(failure)?;
        let mut secrets = Vec::new();
        for (key, body) in found.iter().take(limit) {
            let sealed = Sealed::from_json(body)?;
            secrets.push(SecretSummary {
                name: String::from_utf8_lossy(&key[prefix.len()..]).into_owned(),
                set_at: sealed.set_at,
                by: sealed.by,
            });
        }
        let next = secrets.last().filter(|_| found.len() > limit);
        Ok(SecretPage {
            next: next.map(|last| last.name.clone()),
            secrets,
        })
    }

    /// The value of a secret, for a worker; none if there is no such secret.
    ///
    /// # Errors
    /// Code `bad-secret-key` if no key opens it, and those of the store.
    pub fn open(&self, namespace: &str, name: &str) -> Result<Option<String>> {
        let Some(sealed) = self.sealed(&document(namespace, name))? else {
            return Ok(None);
        };
        sealed
            .open(&self.source.ring(false)?, (namespace, name))
            .map(Some)
    }

    /// Seals every secret with a new key and forgets the old ones; with keys that are given, with the
    /// first of them.
    ///
    /// # Errors
    /// Code `bad-secret-key` if one cannot be opened: nothing is forgotten then.
    pub fn rotate(&self) -> Result<RotatedSecrets> {
        let _alone = self.changing.lock();
        let ring = self.source.change(Change::AddNew)?;
        let mut sealed_again = 0;
        let mut after = vec![DOCUMENT];
        loop {
            let found = self
                .store
                .documents(&[DOCUMENT], Some(&after), Order::Forward, AT_ONCE)
                .map_err(failure)?;
            let Some((last, _)) = found.last() else { break };
            after.clone_from(last);
            let mut changed = Vec::new();
            for (key, body) in &found {
                let (namespace, name) = named(key).ok_or_else(damaged)?;
                // What is kept here under no namespace is the server's own: nobody set it.
                sealed_again += usize::from(!namespace.is_empty());
                let sealed = Sealed::from_json(body)?;
                let value = sealed.open(&ring, (namespace, name))?;
                let again =
                    Sealed::seal(&ring, (namespace, name), &value, &sealed.by, sealed.set_at)?;
                changed.push((key.clone(), Some(again.to_json()?)));
            }
            self.store.put_documents(&changed).map_err(failure)?;
        }
        if self.shared_key()?.is_some() {
            self.share(&ring.current().id())?;
        }
        let ring = self.source.change(Change::ForgetOld)?;
        Ok(RotatedSecrets {
            secrets: sealed_again,
            key: ring.current().id(),
        })
    }

    fn sealed(&self, key: &[u8]) -> Result<Option<Sealed>> {
        let found = self
            .store
            .documents(key, None, Order::Forward, 1)
            .map_err(failure)?;
        let found = found.first().filter(|(found, _)| found == key);
        found.map(|(_, body)| Sealed::from_json(body)).transpose()
    }

    fn is_empty(&self) -> Result<bool> {
        let first = self.store.documents(&[DOCUMENT], None, Order::Forward, 1);
        Ok(first.map_err(failure)?.is_empty())
    }

    fn count(&self) -> Result<usize> {
        let all = self
            .store
            .documents(&[DOCUMENT], None, Order::Forward, limits::SECRETS);
        Ok(all.map_err(failure)?.len())
    }
}

fn document(namespace: &str, name: &str) -> Vec<u8> {
    [&[DOCUMENT], namespace.as_bytes(), &[0], name.as_bytes()].concat()
}

/// Namespace and name in the key of a document.
fn named(key: &[u8]) -> Option<(&str, &str)> {
    let names = std::str::from_utf8(key.get(1..)?).ok()?;
    names.split_once('\0')
}

fn damaged() -> Error {
    Error::new(
        ErrorCode::StoreCorrupt,
        "a secret in the store cannot be read",
    )
    .hint("restore the data directory from a backup, or set the secret again")
}

/// A name as expressions write it: `secrets.NAME`.
fn check_name(name: &str) -> Result<()> {
    let mut chars = name.chars();
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    let good = chars.next().is_some_and(letter)
        && chars.all(|c| letter(c) || c.is_ascii_digit())
        && name.len() <= limits::NAME_CHARS;
    if good {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::BadRequest,
        format!("`{name}` is no name of a secret"),
    )
    .hint(format!(
        "letters, digits and `_`, no digit first, at most {}: it is written `secrets.NAME`",
        limits::NAME_CHARS
    )))
}
