//! Sessions in the store: one row each, so that a server that starts anew knows which workers may
//! still hold attempts.

use kapell_model::{Error, ErrorCode, SessionId, limits};
use kapell_store::{Order, Store};

use super::session::About;
use crate::rows::failure;

/// The first byte of the keys.
const PREFIX: u8 = 65;

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

/// Every session that was not over when the process before ended.
pub(crate) fn read(store: &dyn Store) -> Result<Vec<(SessionId, About)>, Error> {
    let rows = store
        .documents(&[PREFIX], None, Order::Forward, limits::SESSIONS)
        .map_err(failure)?;
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
