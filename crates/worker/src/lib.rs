//! The worker: runs what nodes hand it and says how it ended.
//!
//! Start reading at [`Worker`], then `executor` (the event loop that owns every attempt), `launch`
//! (from a task to a process) and `python` (warm hosts). `runtime` has one file a verb; `os` is the one
//! module of the project with unsafe code.
//!
//! Threads: two that start children and never end (children die with the thread that made them), one
//! event loop, one that removes directories, and small pools for requests and for work that blocks.
//!
//! Invariants
//! - Every offered task is reported as ended exactly once while the worker lives.
//! - No process outlives its attempt, whatever it did to hide, nor the worker, however that died.
//! - A secret reaches a child's environment or input and nothing else; it is hidden in logs and errors.
//! - The worker reads no clock, environment or configuration but its [`Config`].
//!
//! Not here: which task goes to which worker, retries, and anything that is remembered.

#![expect(
    clippy::unnecessary_box_returns,
    reason = "an attempt's error is large and travels boxed everywhere"
)]

mod admission;
mod attempt;
mod bundle;
mod cgroup;
mod config;
mod dirs;
mod ending;
mod executor;
mod failure;
mod input;
mod launch;
mod logs;
mod mask;
mod os;
mod output;
mod python;
pub mod remote;
mod runtime;
mod shared;
mod slots;
mod survivors;
#[cfg(test)]
mod tests;
mod threads;
mod timers;
mod worker;

pub use config::{Capacity, Config, Error, LostAttempt};
pub use runtime::guard::{HttpRules, Network};
pub use worker::Worker;
