//! The verbs of Kapell, pure: what a run, a run queue and a lock do with each input.
//!
//! Start reading at [`run`], then [`event`]. Everything here is a state machine: an input and the
//! time go in, events (facts) and effects (what to do once the facts are safe) come out.
//!
//! Invariants
//! - Deterministic: no clock, environment, randomness or IO; no iteration over hash maps.
//! - Events hold every choice; applying them again gives the same state.
//! - A refused input changes nothing.
//!
//! Not here: when to commit, where things are stored (`node`, `store`), what a task does (`worker`).

pub mod backfill;
pub mod calendar;
pub mod chunk;
pub mod event;
mod label;
pub mod lock;
pub mod message;
pub mod notice;
pub mod place_map;
pub mod plan;
pub mod record;
pub mod run;
pub mod run_queue;
pub mod small;
pub mod start;
pub mod topic;
pub mod trigger;

pub use message::Message;
pub use place_map::PlaceMap;
pub use plan::Plan;
pub use run::{Decision, Effect, Input, Ref, Refusal, Request, Run};
pub use small::{Ask, Decided, Small, SmallInput};
