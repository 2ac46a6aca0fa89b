//! Bodies of requests and answers under `/api/v1`, a file a noun, and the problem body of failures
//! (RFC 9457). Every body has a schema for the OpenAPI document; [`schema`] holds those of types from
//! other crates.

mod action;
mod channel;
mod deploy;
mod health;
mod log;
mod problem;
mod run;
pub mod schema;
mod signal;
mod token;
mod worker;
mod trigger;
mod workflow;

pub use action::*;
pub use channel::*;
pub use deploy::*;
pub use health::*;
pub use log::*;
pub use problem::*;
pub use run::*;
pub use signal::*;
pub use token::*;
pub use worker::*;
pub use trigger::*;
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
