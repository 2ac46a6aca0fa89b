//! What answers clients: the service over a node and its store, its HTTP face, and the assembly of
//! everything in one process.
//!
//! Start reading at [`Service`], which answers [`kapell_api::client::Api`]; [`http`] puts it behind
//! a socket, [`local`] puts it together with a store, a node and a worker in a data directory.
//!
//! Invariants
//! - Handlers hold no rules: what may be done to a run is decided by the engine.
//! - A command in the process that holds the directory and one that comes over the socket go through
//!   the same service.
//! - Nothing is listed without a bound.
//!
//! Not here: what a worker is (whoever assembles gives one), and anything that people see.

pub mod auth;
pub mod backup;
mod contents;
mod diff;
mod feed;
mod hooks;
pub mod http;
pub mod local;
mod logs;
pub mod metrics;
pub mod net;
pub mod notify;
mod options;
pub mod peers;
mod register;
mod relaying;
mod rows;
mod search;
mod secrets;
mod service;
pub mod stores;
mod traces;
pub mod workers;

pub use hooks::SecretSource;
pub use options::{NodeOptions, Options};
pub use register::{NAMESPACE, version_hash};
pub use secrets::{KeySource, Secrets};
pub use service::Service;
pub use traces::TracesTo;
