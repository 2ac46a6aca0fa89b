//! What a worker is told at its start.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kapell_api::task::{Place, TaskResources};
use kapell_model::{Offer, RunId, Time};

use crate::input::Secrets;
use crate::runtime::guard::HttpRules;

/// What a worker is told at its start. It reads nothing else of its surroundings.
pub struct Config {
    /// Holds `work/`, `logs/`, `cache/` and `slots/`. One worker at a time.
    pub data_dir: PathBuf,
    /// What it has to give.
    pub capacity: Capacity,
    /// Gives a secret by its name.
    pub secrets: Arc<Secrets>,
    /// What children get besides their own variables: `PATH`, `HOME`, `LANG`, proxies.
    pub inherit_env: Vec<(OsString, OsString)>,
    /// The time.
    pub clock: fn() -> Time,
    /// The Python of hosts without requirements; `python3` of the `PATH` if none.
    pub python: Option<PathBuf>,
    /// The `uv` that installs requirements; `venv` and `pip` if none is given or found.
    pub uv: Option<PathBuf>,
    /// How long directories of failed attempts are kept.
    pub keep_failed: Duration,
    /// What `http` steps may reach.
    pub http: HttpRules,
}

/// What a worker has, or has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Devices.
    pub gpus: u32,
    /// Attempts at a time.
    pub slots: usize,
}

impl Capacity {
    /// True if a task with these needs fits.
    pub fn fits(&self, needs: &TaskResources) -> bool {
        self.slots > 0
            && needs.cpu_millis <= self.cpu_millis
            && needs.memory_bytes <= self.memory_bytes
            && needs.gpus <= self.gpus
    }

    /// What is left beside such a task; never below zero.
    #[must_use]
    pub(crate) fn less(self, needs: &TaskResources) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_sub(needs.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(needs.memory_bytes),
            gpus: self.gpus.saturating_sub(needs.gpus),
            slots: self.slots.saturating_sub(1),
        }
    }

    /// What is there once such a task is over.
    #[must_use]
    pub(crate) fn more(self, needs: &TaskResources) -> Self {
        Self {
            cpu_millis: self.cpu_millis + needs.cpu_millis,
            memory_bytes: self.memory_bytes + needs.memory_bytes,
            gpus: self.gpus + needs.gpus,
            slots: self.slots + 1,
        }
    }
}

/// An attempt that a former worker of the same directory held when it died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostAttempt {
    /// The run.
    pub run: RunId,
    /// The place in the run.
    pub place: Place,
    /// The grant.
    pub offer: Offer,
    /// The number of the try.
    pub attempt: u32,
    /// The machine was restarted since, so the loss says nothing of the attempt.
    pub explained: bool,
}

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory of the worker cannot be used.
    #[error("cannot use `{}`: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The server does not let it in.
    #[error("the server does not take it: {0}")]
    Refused(String),
    /// The system refuses something a worker cannot do without.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// What kind of thing the system said.
    pub fn source_kind(&self) -> io::ErrorKind {
        match self {
            Self::Directory { source, .. } | Self::System { source, .. } => source.kind(),
            Self::Refused(_) => io::ErrorKind::Other,
        }
    }
}
