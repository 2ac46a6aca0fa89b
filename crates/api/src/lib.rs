//! The wire: what nodes and workers, and servers and clients, say to each other.
//!
//! Start reading at [`task`], the worker's side, then `http`, the client's side. Inside one process
//! the same types pass without being encoded.
//!
//! Invariants
//! - Types only: no IO, no rules.
//! - A worker learns nothing of a run but what its tasks carry, and reports nothing but
//!   [`task::Report`].

pub mod log;
pub mod task;
