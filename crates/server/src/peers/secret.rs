//! The key by which nodes of one cluster know each other: who can read the store is one.
//!
//! The first node makes it. Two that start at once may each write one: the last stays, so a key that does not
//! fit is read again before somebody is refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kapell_model::{Error, ErrorCode};
use kapell_node::clock;
use kapell_store::{Order, Store};
use parking_lot::Mutex;
use subtle::ConstantTimeEq;

use crate::rows::failure;

/// The key of the document.
const DOCUMENT: &[u8] = &[91];

/// The store is not read more often for keys that do not fit.
const BETWEEN_READS: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Secret {
    store: Arc<dyn Store>,
    /// As it was read last, and when it may be read for a key that does not fit.
    known: Mutex<(String, Instant)>,
}

impl Secret {
    /// That of this store, made if there is none.
    pub(super) fn open(store: Arc<dyn Store>) -> Result<Self, Error> {
        if read(&*store)?.is_none() {
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(|error| {
                Error::new(ErrorCode::Internal, format!("no random bytes: {error}"))
            })?;
            let text = blake3::Hash::from_bytes(key).to_hex().to_string();
            store
                .put_documents(&[(DOCUMENT.to_vec(), Some(text))])
                .map_err(failure)?;
        }
        let known = read(&*store)?
            .ok_or_else(|| Error::new(ErrorCode::StoreCorrupt, "the key of nodes is gone again"))?;
        Ok(Self {
            store,
            known: Mutex::new((known, clock::steady())),
        })
    }

    /// As it is in the store now. Blocks.
    pub(super) fn read(&self) -> Result<String, Error> {
        if let Some(key) = read(&*self.store)? {
            self.known.lock().0 = key;
        }
        Ok(self.known.lock().0.clone())
    }

    /// True for whoever knows it. May block.
    pub(super) fn fits(&self, shown: &[u8]) -> bool {
        let same = |key: &str| bool::from(key.as_bytes().ct_eq(shown));
        let (key, read_at) = self.known.lock().clone();
        if same(&key) {
            return true;
        }
        let now = clock::steady();
        if now < read_at {
            return false;
        }
        self.known.lock().1 = now + BETWEEN_READS;
        self.read().is_ok_and(|key| same(&key))
    }
}

fn read(store: &dyn Store) -> Result<Option<String>, Error> {
    let found = store
        .documents(DOCUMENT, None, Order::Forward, 1)
        .map_err(failure)?;
    let key = found.into_iter().find(|(key, _)| key == DOCUMENT);
    Ok(key.map(|(_, text)| text).filter(|text| text.len() == 64))
}
