//! Requests and answers as bytes, on their way from one node to another: JSON, in which fields and kinds may
//! be added, and values as history keeps them, so that each arrives as what it was.

use kapell_model::{Error, ErrorCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Answer, ClientRequest};

/// A request as bytes.
///
/// # Errors
/// `internal` for what cannot be written.
pub fn request_to_bytes(request: &ClientRequest) -> Result<Vec<u8>, Error> {
    to_bytes(request)
}

/// Reads [`request_to_bytes`].
///
/// # Errors
/// `not-available` for bytes that are none, or of a kind that a later version added.
pub fn request_from_bytes(bytes: &[u8]) -> Result<ClientRequest, Error> {
    from_bytes(bytes)
}

/// An answer or a refusal as bytes.
///
/// # Errors
/// `internal` for what cannot be written.
pub fn answer_to_bytes(answer: &Result<Answer, Error>) -> Result<Vec<u8>, Error> {
    to_bytes(answer)
}

/// Reads [`answer_to_bytes`]: what the other node answered.
///
/// # Errors
/// What it refused; `not-available` for bytes that are no answer, or of a kind that a later version added.
pub fn answer_from_bytes(bytes: &[u8]) -> Result<Answer, Error> {
    from_bytes::<Result<Answer, Error>>(bytes)?
}

fn to_bytes(what: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(what).map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))
}

fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let unread = |error: serde_json::Error| {
        let message = format!("what came from another node cannot be read: {error}");
        Error::new(ErrorCode::NotAvailable, message)
            .hint("nodes of one cluster should run the same version, or one release apart")
    };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    // What it carries was bounded when it came, and markers may have doubled its depth.
    reader.disable_recursion_limit();
    let what = T::deserialize(&mut reader).map_err(unread)?;
    reader.end().map_err(unread)?;
    Ok(what)
}
