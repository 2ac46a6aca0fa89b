//! Workers' sessions: what a worker says of itself, of what it holds, and the messages that pass
//! between it and a server, in the same process or another.
//!
//! [`proto`] is generated from `proto/worker.proto`; `encode` and `decode` are the way between it and
//! the types that everything else works with.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use kapell_model::{Offer, RunId};
use serde::{Deserialize, Serialize};
use tonic::body::Body;
use tonic::codegen::http;
use tower::util::BoxCloneSyncService;

use crate::task::{Place, TaskResources};

pub mod decode;
pub mod encode;
pub mod proto;
#[cfg(test)]
mod tests;

/// The version of the protocol that this Kapell speaks.
pub const PROTOCOL: u32 = 2;
/// The most that one message may hold, in bytes.
pub const MESSAGE_BYTES: usize = 16 << 20;
/// Bytes of a blob's content in one message.
pub const CHUNK_BYTES: usize = 256 << 10;

/// Answers calls of a worker in the server's own process: the same messages in the same encoding,
/// without a connection under them.
pub type Inside = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// Which queues a worker serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Queues {
    /// These.
    Named(BTreeSet<Arc<str>>),
    /// Every queue that no worker names.
    Others,
}

impl Queues {
    /// True if work of this queue may be at such a worker.
    pub fn may_serve(&self, queue: &str) -> bool {
        match self {
            Self::Named(names) => names.contains(queue),
            Self::Others => true,
        }
    }
}

/// An attempt that a worker has: it waits or runs there, or its result is not acknowledged yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Holding {
    /// The run.
    pub run: RunId,
    /// The place in the run.
    pub place: Place,
    /// The grant.
    pub offer: Offer,
    /// From 1.
    pub attempt: u32,
    /// It starts nothing.
    pub light: bool,
    /// What it takes of the worker.
    pub needs: TaskResources,
}
