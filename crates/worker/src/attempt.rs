//! An attempt in the event loop: what it is doing, what it left, and how it ended.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use kapell_api::task::{Outcome, TaskError, Usage, Work};
use kapell_expr::Value;
use kapell_model::{FailureKind, Time, limits};

use crate::cgroup::Group;
use crate::dirs::AttemptDir;
use crate::failure;
use crate::launch::Job;
use crate::logs::AttemptLog;
use crate::mask::Masker;
use crate::os::{self, Exit};
use crate::shared::Far;
use crate::timers::Timer;

/// An attempt from its admission to its report.
pub(crate) struct Attempt {
    pub(crate) job: Arc<Job>,
    pub(crate) phase: Phase,
    /// Why it is being ended from outside.
    pub(crate) stop: Option<Stop>,
    pub(crate) started_at: Option<Time>,
    pub(crate) log: AttemptLog,
    pub(crate) masker: Arc<Masker>,
    pub(crate) dir: Option<AttemptDir>,
    /// Kinds of files beside its directory that may be there.
    pub(crate) made: Vec<&'static str>,
    /// Events that came before word of its start.
    pub(crate) early: Vec<u64>,
    pub(crate) usage: Option<Usage>,
    pub(crate) timers: Vec<Timer>,
}

/// What an attempt is doing.
pub(crate) enum Phase {
    /// On its way to a process, a host or a response.
    Preparing,
    /// A process runs, or its last output is read.
    Running(Box<Proc>),
    /// Waits for a host.
    Waiting,
    /// Runs in a host.
    InHost(u64),
    /// A request is under way.
    Request,
    /// Its output is collected.
    Collecting,
}

/// Why an attempt is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Nobody wants it any more.
    Cancel,
    /// Its time is over.
    Timeout,
    /// The worker ends.
    Shutdown,
    /// The worker's server cannot be reached.
    Away,
}

/// A process with its pipes, of an attempt or of a host.
pub(crate) struct Proc {
    pub(crate) child: os::Child,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) group: Group,
    pub(crate) exit: Option<Exit>,
}

impl Proc {
    /// True once it is gone and everything it printed is read.
    pub(crate) fn is_over(&self) -> bool {
        self.exit.is_some() && self.stdout.is_none() && self.stderr.is_none()
    }

    /// CPU and memory it used.
    pub(crate) fn usage(&self) -> Usage {
        let exit = self.exit.as_ref();
        Usage {
            cpu_millis: exit.map_or(0, |exit| exit.cpu_millis),
            memory_bytes: self
                .group
                .peak_memory()
                .or(exit.map(|exit| exit.memory_bytes))
                .unwrap_or(0),
        }
    }
}

impl Attempt {
    /// Just admitted.
    pub(crate) fn new(job: Arc<Job>, log: PathBuf, far: Option<Arc<dyn Far>>) -> Self {
        let masker = Arc::<Masker>::default();
        let mut log = AttemptLog::new(log, Arc::clone(&masker));
        if let Some(far) = far {
            log = log.sent_to(far, Arc::clone(&job));
        }
        Self {
            job,
            phase: Phase::Preparing,
            stop: None,
            started_at: None,
            log,
            masker,
            dir: None,
            made: Vec::new(),
            early: Vec::new(),
            usage: None,
            timers: Vec::new(),
        }
    }

    /// How it ended, if something from outside ended it.
    pub(crate) fn stopped(&self) -> Option<Outcome> {
        Some(match self.stop? {
            Stop::Cancel => Outcome::Cancelled,
            Stop::Shutdown => Outcome::Lost {
                reason: "its worker was stopped".to_owned(),
                explained: true,
            },
            Stop::Away => Outcome::Lost {
                reason: "its worker could not reach the server".to_owned(),
                explained: true,
            },
            Stop::Timeout => {
                let timeout = self
                    .job
                    .process()
                    .and_then(|process| process.timeout)
                    .unwrap_or_default();
                Outcome::Failed(failure::error(
                    FailureKind::Timeout,
                    "timeout",
                    format!("it ran for longer than {timeout:?}"),
                ))
            }
        })
    }

    /// The outcome of a result, its message masked.
    pub(crate) fn outcome(&self, result: Result<Value, Box<TaskError>>) -> Outcome {
        match result {
            Ok(value) => Outcome::Succeeded(value),
            Err(mut error) => {
                error.message =
                    failure::bounded(self.masker.text(&error.message), limits::ERROR_BYTES);
                error.traceback = error.traceback.map(|text| self.masker.text(&text));
                Outcome::Failed(error)
            }
        }
    }
}

/// The error of a process that ended badly; `None` if it ended well.
pub(crate) fn exit_error(
    exit: &Exit,
    group: &Group,
    work: &Work,
    last_words: &str,
) -> Option<Box<TaskError>> {
    let what = match work {
        Work::Python { .. } => "the Python process",
        Work::Noop
        | Work::Fail { .. }
        | Work::Shell { .. }
        | Work::Exec { .. }
        | Work::Http { .. } => "it",
    };
    let with_words = |message: String| {
        if last_words.is_empty() {
            message
        } else {
            format!("{message}: {last_words}")
        }
    };
    let code = exit.code();
    if code == Some(0) {
        return None;
    }
    let mut error = if group.out_of_memory() {
        let bound = work
            .process()
            .map_or(0, |process| process.resources.memory_bytes);
        failure::user(
            "oom",
            format!("{what} ran out of memory: it may use {bound} bytes"),
        )
    } else if let Some(code) = code {
        failure::user(
            "exit_code",
            with_words(format!("{what} ended with exit code {code}")),
        )
    } else {
        let signal = exit.signal().unwrap_or(0);
        failure::user(
            "signal",
            with_words(format!(
                "{what} was ended by signal {signal} ({})",
                signal_name(signal)
            )),
        )
    };
    error.exit_code = code;
    error.permanent = code == Some(78);
    Some(error)
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        libc::SIGHUP => "HUP",
        libc::SIGINT => "INT",
        libc::SIGQUIT => "QUIT",
        libc::SIGILL => "ILL",
        libc::SIGTRAP => "TRAP",
        libc::SIGABRT => "ABRT",
        libc::SIGBUS => "BUS",
        libc::SIGFPE => "FPE",
        libc::SIGKILL => "KILL",
        libc::SIGSEGV => "SEGV",
        libc::SIGPIPE => "PIPE",
        libc::SIGALRM => "ALRM",
        libc::SIGTERM => "TERM",
        libc::SIGXCPU => "XCPU",
        libc::SIGXFSZ => "XFSZ",
        libc::SIGSYS => "SYS",
        _ => "?",
    }
}
