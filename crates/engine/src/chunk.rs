//! Chunks of history: events one after another, each with its length before it.

use prost::{DecodeError, Message};

/// Encodes events as one chunk.
pub fn encode<E: Message>(events: &[E]) -> Vec<u8> {
    let mut chunk = Vec::with_capacity(events.iter().map(E::encoded_len).sum());
    encode_into(&mut chunk, events);
    chunk
}

/// Appends events to a chunk.
pub fn encode_into<E: Message>(chunk: &mut Vec<u8>, events: &[E]) {
    for event in events {
        // Encoding into a vector only fails for want of room, which a vector makes.
        let _ = event.encode_length_delimited(chunk);
    }
}

/// The events of a chunk.
///
/// # Errors
/// Bytes that are none.
pub fn decode<E: Message + Default>(mut chunk: &[u8]) -> Result<Vec<E>, DecodeError> {
    let mut events = Vec::new();
    while !chunk.is_empty() {
        events.push(E::decode_length_delimited(&mut chunk)?);
    }
    Ok(events)
}
