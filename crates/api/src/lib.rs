//! The wire: what nodes and workers, and servers and clients, say to each other.
//!
//! Start reading at [`task`], the worker's side, then [`client::Api`], everything a client can ask,
//! with its bodies in [`http`] and [`record`]. Inside one process the same types pass without being
//! encoded.
//!
//! Invariants
//! - Types only, no rules; the one IO is that of [`client::Client`].
//! - A worker learns nothing of a run but what its tasks carry, and reports nothing but
//!   [`task::Report`].
//!
//! Not here: who answers (`server`), and what people see (`cli`).

pub mod client;
pub mod http;
pub mod log;
pub mod nodes;
pub mod record;
mod stamp;
pub mod task;
pub mod trace;
pub mod words;
pub mod worker;
