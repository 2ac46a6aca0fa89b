//! The owner of entities: takes inputs, lets the engine decide, commits, then lets effects out.
//!
//! Start reading at [`lane`], the loop; then [`drive`], which runs it on threads over a real store
//! and worker. The simulator runs the same lane on virtual time.
//!
//! Invariants
//! - The lane is a state machine without IO: commits and loads are outputs, their answers inputs.
//! - Nothing that is not durable is shown to a client or handed to a worker.
//! - Every write is fenced; after a conflict or an unknown outcome all memory is dropped, shards
//!   are acquired anew, and what workers reported meanwhile is taken again.
//! - No loop waits for room in another.
//!
//! Not here: what inputs mean (`engine`), how bytes are kept (`store`).

pub mod batch;
mod blobs;
pub mod clock;
mod dispatch;
pub mod drive;
mod entity;
pub mod lane;
pub mod lend;
pub mod members;
pub mod metrics;
pub mod perform;
pub mod relay;
pub mod request;

pub use kapell_engine as engine;
mod rows;
pub mod upkeep;

pub use blobs::BlobFolder;
pub use dispatch::{Order, Settings as DispatchSettings};
pub use entity::Entity;
pub use kapell_engine::run::room::Quota;
pub use lane::{Config, Input, Lane, Output};
pub use request::{Answer, ClientRequest, ReplyId, StartRun};
