//! The workloads. Each returns its figure and that of its raw reference.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::kapell;

mod api;
mod cluster;
mod flow;
mod parked;
mod process;
pub(crate) mod recover;
pub(crate) mod remote;
mod start;

/// What one run of a workload measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// In the workload's unit.
    pub value: f64,
    /// What else was measured, by name.
    pub others: BTreeMap<String, f64>,
    /// The raw reference in the same unit.
    pub raw: Option<f64>,
    /// Peak resident memory in bytes.
    pub peak: u64,
}

/// Runs a workload once.
pub(crate) fn run(name: &str, n: usize) -> Result<Figures> {
    let dir = data_dir()?;
    let dir = dir.path();
    let figures = match name {
        "fanout" | "pg-fanout" => flow::fanout(&flow::Base::of(name)?, dir, n),
        "many" | "pg-many" => flow::many(&flow::Base::of(name)?, dir, n),
        "chain" | "pg-chain" => flow::chain(&flow::Base::of(name)?, dir, n),
        "runs" | "pg-runs" => flow::runs(&flow::Base::of(name)?, dir, n),
        "shell" => process::shell(dir, n),
        "python" => process::python(dir, n),
        "fib" => process::fib(dir, n),
        "start" => start::start(dir, n),
        "recover" => recover::recover(dir, recover::Case::Items, n),
        "recover-groups" => recover::recover(dir, recover::Case::Groups, n),
        "recover-runs" => recover::recover(dir, recover::Case::Runs, n),
        "recover-ended" => recover::recover(dir, recover::Case::Ended, n),
        "starts" => api::starts(dir, n),
        "batch" => api::batch(dir, n),
        "signal" => api::signal(dir, n),
        "schedules" => api::schedules(dir, n),
        "list" => api::list(dir, n),
        "event" => api::event(dir, n),
        "server" => api::idle(dir, n),
        "pg-long" => flow::long(&flow::Base::of(name)?, dir, n),
        "pg-nodes1" => cluster::cost(dir, 1, n),
        "pg-nodes2" => cluster::cost(dir, 2, n),
        "pg-nodes4" => cluster::cost(dir, 4, n),
        "pg-idle" => cluster::idle(dir, n),
        "pg-takeover" => cluster::takeover(dir, n),
        "remote" => remote::remote(dir, n),
        "parked" => parked::parked(dir, n),
        _ => bail!("there is no workload `{name}`"),
    }?;
    Ok(Figures {
        peak: peak_memory().unwrap_or(0).max(figures.peak),
        ..figures
    })
}

/// A directory beside the binary: the same disk as the build, never a memory file system.
fn data_dir() -> Result<tempfile::TempDir> {
    let beside = std::env::current_exe()?;
    let parent = beside.parent().context("the binary is in no directory")?;
    Ok(tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(parent)?)
}

fn peak_memory() -> Option<u64> {
    kapell::memory("self", "VmHWM:")
}

fn per_second(count: usize, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}

fn figures(value: f64) -> Figures {
    Figures {
        value,
        others: BTreeMap::new(),
        raw: None,
        peak: 0,
    }
}

impl Figures {
    fn with(mut self, name: &str, value: f64) -> Self {
        self.others.insert(name.to_owned(), value);
        self
    }
}

/// Text made line by line.
fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    let lines: Vec<String> = (0..count).map(line).collect();
    lines.concat()
}

/// The middle of some numbers.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Writes a workflow file.
fn write(dir: &Path, file: &str, text: &str) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    Ok(std::fs::write(dir.join(file), text)?)
}
