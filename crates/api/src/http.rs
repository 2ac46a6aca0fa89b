//! Bodies of requests and answers under `/api/v1`, a file a noun, and the problem body of failures
//! (RFC 9457). Every body has a schema for the OpenAPI document; [`schema`] holds those of types from
//! other crates.

mod action;
mod approval;
mod backfill;
mod bulk;
mod channel;
mod debug;
mod deploy;
mod event;
mod health;
mod item;
mod lock;
mod log;
mod node;
mod problem;
mod queue;
mod run;
pub mod schema;
mod secret;
mod signal;
mod token;
mod trigger;
mod worker;
mod workflow;

pub use action::*;
pub use approval::*;
pub use backfill::*;
pub use bulk::*;
pub use channel::*;
pub use debug::*;
pub use deploy::*;
pub use event::*;
pub use health::*;
pub use item::*;
pub use lock::*;
pub use log::*;
pub use node::*;
pub use problem::*;
pub use queue::*;
pub use run::*;
pub use secret::*;
pub use signal::*;
pub use token::*;
pub use trigger::*;
pub use worker::*;
pub use workflow::*;

/// Where everything is.
pub const BASE: &str = "/api/v1";

/// Where webhooks are called; no version, for others keep these addresses.
pub const HOOKS: &str = "/hooks";

/// The socket in a data directory.
pub const SOCKET: &str = "kapell.sock";

/// Bytes of the body of one request, but for blobs.
pub const REQUEST_BYTES: usize = 64 << 20;

/// Bytes of one answer that a client takes.
pub const ANSWER_BYTES: usize = 256 << 20;
