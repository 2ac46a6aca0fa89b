//! Workers as processes of this machine, each with a directory of its own under that of the pool.
//!
//! They are in process groups of their own and outlive the pool's process when that is killed: the next one finds
//! them by their directories, which a worker holds locked for as long as it lives. So a worker is never there
//! twice. What a worker prints is in `worker.log` beside.
//!
//! - **Crash** of a worker: it is started again in the same directory, and says what was lost with it.
//! - **Crash** of the pool's process between launch and note: the worker is found by its lock. It cannot be asked to
//!   end by a signal, but leaves when it is drained.
//! - **Full disk**: no worker can be started, which is said.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kapell_model::{Error, ErrorCode};
use kapell_node::clock;
use rustix::process::{Pid, Signal, kill_process};

use super::super::decide::is_number;
use super::Driver;

/// Bytes of a log that are said of a worker that ended.
const WORDS: u64 = 2 << 10;

/// Between two looks whether workers have ended.
const LOOK: Duration = Duration::from_millis(100);

/// How long workers that are asked to end may take beyond what they run.
const LAST_WORDS: Duration = Duration::from_secs(15);

/// See the module.
pub(in super::super) struct Processes {
    /// The pool's name.
    pub(in super::super) pool: String,
    /// Where the directories are.
    pub(in super::super) folder: PathBuf,
    /// The program, and what it is given beside name and directory.
    pub(in super::super) program: PathBuf,
    pub(in super::super) arguments: Vec<String>,
    pub(in super::super) variables: Vec<(&'static str, String)>,
    /// How long what workers run may take when the pool's process ends.
    pub(in super::super) grace: Duration,
    /// Those that this process started.
    pub(in super::super) children: BTreeMap<String, Child>,
}

impl Driver for Processes {
    fn list(&mut self) -> Result<BTreeSet<String>, Error> {
        self.children
            .retain(|_, child| matches!(child.try_wait(), Ok(None)));
        let mut alive: BTreeSet<String> = self.children.keys().cloned().collect();
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(alive),
            Err(error) => return Err(self.unusable(&error)),
        };
        let start = format!("{}-", self.pool);
        for entry in entries {
            let entry = entry.map_err(|error| self.unusable(&error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_one = name.strip_prefix(&start).is_some_and(is_number);
            if is_one && !alive.contains(&name) && is_held(&entry.path()) {
                alive.insert(name);
            }
        }
        Ok(alive)
    }

    fn start(&mut self, names: &[String]) -> Vec<Result<(), Error>> {
        names.iter().map(|name| self.launch(name)).collect()
    }

    fn stop(&mut self, name: &str) -> Result<(), Error> {
        if let Some(pid) = self.pid(name) {
            // It may have ended by now.
            let _ = kill_process(pid, Signal::TERM);
        }
        Ok(())
    }

    fn is_immediate(&self) -> bool {
        true
    }

    fn last_words(&self, name: &str) -> Option<String> {
        let mut file = File::open(self.folder.join(name).join("worker.log")).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(WORDS)))
            .ok()?;
        let mut text = Vec::new();
        file.take(WORDS).read_to_end(&mut text).ok()?;
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }

    fn end(&mut self) {
        let alive = self.list().unwrap_or_default();
        for name in &alive {
            let _ = self.stop(name);
        }
        let until = clock::steady() + self.grace + LAST_WORDS;
        while clock::steady() < until && self.list().is_ok_and(|alive| !alive.is_empty()) {
            std::thread::park_timeout(LOOK);
        }
    }
}

impl Processes {
    fn launch(&mut self, name: &str) -> Result<(), Error> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).map_err(|error| self.unusable(&error))?;
        let log = File::create(folder.join("worker.log")).map_err(|error| self.unusable(&error))?;
        let errors = log.try_clone().map_err(|error| self.unusable(&error))?;
        let child = Command::new(&self.program)
            .arg("worker")
            .args(["--name", name, "--pool", &self.pool, "--data-dir"])
            .arg(&folder)
            .args(&self.arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|error| {
                let message = format!("the worker `{name}` cannot be started: {error}");
                Error::new(ErrorCode::Internal, message)
            })?;
        let pid = child.id();
        self.children.insert(name.to_owned(), child);
        if let Some(started) = started(pid) {
            // Without it the worker is found by its lock all the same.
            let _ = fs::write(folder.join("worker.pid"), format!("{pid} {started}\n"));
        }
        Ok(())
    }

    /// The process of a worker that lives, as far as it is known.
    fn pid(&self, name: &str) -> Option<Pid> {
        if let Some(child) = self.children.get(name) {
            return pid_of(child.id());
        }
        let noted = fs::read_to_string(self.folder.join(name).join("worker.pid")).ok()?;
        let (pid, begun) = noted.trim().split_once(' ')?;
        let pid: u32 = pid.parse().ok()?;
        // Another process may have its number by now.
        (started(pid)?.to_string() == begun).then(|| pid_of(pid))?
    }

    fn unusable(&self, error: &std::io::Error) -> Error {
        let message = format!(
            "the directory of pool `{}`, `{}`, cannot be used: {error}",
            self.pool,
            self.folder.display()
        );
        if error.kind() == std::io::ErrorKind::StorageFull {
            return Error::new(ErrorCode::DiskFull, message).hint("make room");
        }
        Error::new(ErrorCode::DirectoryUnusable, message).hint("`--data-dir` names another")
    }
}

fn pid_of(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// When a process began, in ticks since the machine did.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything: the fields are counted from behind it.
    let rest = stat.rsplit(") ").next()?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// True if a worker works in a directory.
fn is_held(folder: &Path) -> bool {
    let Ok(file) = File::open(folder.join("worker.lock")) else {
        return false;
    };
    matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}
