//! What nodes of one cluster say to each other: [`proto`] is generated from `proto/nodes.proto`. What is asked
//! and answered is bytes here; the node says what they mean.

pub mod proto;

/// The version of the protocol that this Kapell speaks.
pub const PROTOCOL: u32 = 1;

/// The header in which a node shows that it is one.
pub const KEY_HEADER: &str = "kapell-node-key";
