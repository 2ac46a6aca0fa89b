//! The real node, engine and memory store on virtual time in one thread, with everything that can go
//! wrong, and checkers that look at every step.
//!
//! Start reading at [`world`], the loop over virtual time; then [`scenario`] (what happens, as data),
//! [`generate`] (a random scenario of a seed) and [`check`] (what must hold).
//!
//! Invariants
//! - The same scenario gives the same trace, bit for bit: no clock, no threads, no hash maps.
//! - Checkers know only what was committed, what was offered and what was answered; they never take
//!   the lane's word for anything.
//!
//! Not here: threads and real time (`node::drive`), real processes (`worker`), real disks (`store`).

mod asks;
pub mod blobs;
pub mod check;
pub mod cluster;
pub mod far;
pub mod generate;
pub mod kept;
pub mod panics;
pub mod rng;
pub mod scenario;
pub mod shrink;
mod versions;
pub mod worker;
pub mod world;
mod writer;

pub use scenario::Scenario;
pub use world::{Failure, Outcome, Sabotage, play, play_broken};
