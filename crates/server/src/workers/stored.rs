//! Sessions in the store: one row each, so that a server that starts anew knows which workers may
//! still hold attempts.

use std::collections::BTreeSet;
use std::sync::Arc;

use kapell_model::{Error, ErrorCode, SessionId, limits};
use kapell_store::{Order, Store};

use super::session::About;
use crate::rows::failure;

/// The first byte of the keys.
const PREFIX: u8 = 65;

/// The key of the queues that workers named.
const QUEUES: u8 = 90;

fn key(session: SessionId) -> Vec<u8> {
    [&[PREFIX][..], &session.0.to_be_bytes()].concat()
}

/// Writes the row of a session.
pub(crate) fn write(store: &dyn Store, session: SessionId, about: &About) -> Result<(), Error> {
    let text = serde_json::to_string(about)
        .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
    let row = (key(session), Some(text));
    store.put_documents(&[row]).map_err(failure)
}

/// Removes the row of a session.
pub(crate) fn remove(store: &dyn Store, session: SessionId) -> Result<(), Error> {
    store
        .put_documents(&[(key(session), None)])
        .map_err(failure)
}

/// The queues that workers of other processes ever named.
pub(crate) fn queues(store: &dyn Store) -> Result<BTreeSet<Arc<str>>, Error> {
    let key = vec![QUEUES];
    let found = store
        .documents(&key, None, Order::Forward, 1)
        .map_err(failure)?;
    let own = found.iter().find(|(found, _)| *found == key);
    let Some((_, text)) = own else {
        return Ok(BTreeSet::new());
    };
    serde_json::from_str(text).map_err(|error| {
        let message = format!("the queues of workers: {error}");
        Error::new(ErrorCode::StoreCorrupt, message)
    })
}

/// Keeps the queues that workers ever named.
pub(crate) fn keep_queues(store: &dyn Store, queues: &BTreeSet<Arc<str>>) -> Result<(), Error> {
    let text = serde_json::to_string(queues)
        .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
    store
        .put_documents(&[(vec![QUEUES], Some(text))])
        .map_err(failure)
}

/// The row of a session.
pub(crate) fn find(store: &dyn Store, session: SessionId) -> Result<Option<About>, Error> {
    let key = key(session);
    let found = store
        .documents(&key, None, Order::Forward, 1)
        .map_err(failure)?;
    let own = found.into_iter().find(|(found, _)| *found == key);
    let Some((_, text)) = own else {
        return Ok(None);
    };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        let message = format!("the row of session {session}: {error}");
        Error::new(ErrorCode::StoreCorrupt, message)
    })
}

/// Every session that was not over when the process before ended.
pub(crate) fn read(store: &dyn Store) -> Result<Vec<(SessionId, About)>, Error> {
    let mut rows: Vec<(Vec<u8>, String)> = Vec::new();
    loop {
        // As many as one node may have; several have more.
        let after = rows.last().map(|(key, _)| key.clone());
        let page = store
            .documents(
                &[PREFIX],
                after.as_deref(),
                Order::Forward,
                limits::SESSIONS,
            )
            .map_err(failure)?;
        let last = page.len() < limits::SESSIONS;
        rows.extend(page);
        if last {
            break;
        }
    }
    let sessions = rows.into_iter().filter_map(|(key, text)| {
        let id = key.get(1..)?.try_into().ok().map(u64::from_be_bytes)?;
        match serde_json::from_str(&text) {
            Ok(about) => Some((SessionId(id), about)),
            Err(error) => {
                tracing::error!(%error, session = id, "the row of a session cannot be read");
                None
            }
        }
    });
    Ok(sessions.collect())
}
