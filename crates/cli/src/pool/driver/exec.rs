//! Workers by a command of the user's, which starts machines, containers, jobs of a batch system: whatever runs
//! `kapell worker`.
//!
//! The command is run by `sh -c` for each action, with what it is about in its environment. `list` prints the names
//! of the workers that are there or on their way, one a line. An exit status other than 0 is a failure, said with
//! what was printed. Each run is bounded in time and output.
//!
//! - **Slow command**: it is ended after [`PATIENCE`]; starts of one tick run side by side.
//! - **Crash** of the pool's process: the next one asks for the list. A command under way is not waited for: `start`
//!   of a worker that is there must be taken for done.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use kapell_model::{Error, ErrorCode};
use kapell_node::clock;
use rustix::process::{Pid, Signal, kill_process_group};

use super::super::decide::is_number;
use super::Driver;

/// How long a command may take.
pub(in super::super) const PATIENCE: Duration = Duration::from_mins(1);

/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(20);

/// Bytes of its output that are read, of each stream.
const OUTPUT: usize = 256 << 10;

/// Bytes of it that are shown.
const SHOWN: usize = 2 << 10;

/// How long the last of the output may take.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// Commands at a time.
const AT_A_TIME: usize = 8;

/// See the module.
pub(in super::super) struct Exec {
    /// The pool's name.
    pub(in super::super) pool: String,
    /// The command.
    pub(in super::super) command: String,
    /// What each run of it gets in its environment.
    pub(in super::super) variables: Vec<(&'static str, String)>,
    /// How long it may take.
    pub(in super::super) patience: Duration,
}

impl Driver for Exec {
    fn list(&mut self) -> Result<BTreeSet<String>, Error> {
        let said = self.run("list", "")?;
        let start = format!("{}-", self.pool);
        let names = said.lines().map(str::trim);
        let is_one = |name: &&str| name.strip_prefix(&start).is_some_and(is_number);
        Ok(names.filter(is_one).map(str::to_owned).collect())
    }

    fn start(&mut self, names: &[String]) -> Vec<Result<(), Error>> {
        let exec = &*self;
        let mut all = Vec::with_capacity(names.len());
        for names in names.chunks(AT_A_TIME) {
            std::thread::scope(|scope| {
                let runs: Vec<_> = names
                    .iter()
                    .map(|name| scope.spawn(move || exec.run("start", name).map(drop)))
                    .collect();
                for run in runs {
                    all.push(run.join().unwrap_or_else(|_| {
                        Err(Error::new(ErrorCode::Internal, "the command was not run"))
                    }));
                }
            });
        }
        all
    }

    fn stop(&mut self, name: &str) -> Result<(), Error> {
        self.run("stop", name).map(drop)
    }

    fn is_immediate(&self) -> bool {
        false
    }

    fn last_words(&self, _name: &str) -> Option<String> {
        None
    }

    /// Workers stay: the next process of the pool asks for them.
    fn end(&mut self) {}
}

impl Exec {
    /// Runs the command; what it printed.
    fn run(&self, action: &str, name: &str) -> Result<String, Error> {
        let of = if name.is_empty() {
            format!("`{action}` of pool `{}`", self.pool)
        } else {
            format!("`{action}` of worker `{name}`")
        };
        let failed = |why: String| {
            let message = format!("the command for {of} {why}");
            let hint = format!("the command is `{}`", self.command);
            Error::new(ErrorCode::NotAvailable, message).hint(hint)
        };
        let mut child = Command::new("/bin/sh")
            .arg("-c")
            .arg(&self.command)
            .env("KAPELL_POOL", &self.pool)
            .env("KAPELL_POOL_ACTION", action)
            .env("KAPELL_WORKER_NAME", name)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| failed(format!("cannot be run: {error}")))?;
        let out = child.stdout.take().map(reader);
        let errors = child.stderr.take().map(reader);
        let Some(status) = ended(&mut child, self.patience) else {
            let seconds = self.patience.as_secs();
            return Err(failed(format!("did not end within {seconds} s")));
        };
        let errors = read(errors);
        if !status.success() {
            return Err(failed(said(status, errors.trim())));
        }
        Ok(read(out))
    }
}

/// How a command ended, and the beginning of what it said of that.
fn said(status: ExitStatus, errors: &str) -> String {
    let shown = &errors[..errors.floor_char_boundary(SHOWN)];
    let how = status.code().map_or_else(
        || "was ended by a signal".to_owned(),
        |code| format!("failed with exit status {code}"),
    );
    if shown.is_empty() {
        how
    } else {
        format!("{how}: {shown}")
    }
}

/// Its status, if it ends in time; else it is ended with all that it started.
fn ended(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let until = clock::steady() + patience;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if clock::steady() >= until {
            let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            if let Some(group) = group {
                // It is not reaped yet, so the group is its own.
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = child.wait();
            return None;
        }
        std::thread::park_timeout(LOOK);
    }
}

/// Reads all, and keeps the first of it. What a command left behind may hold the stream open: nobody waits for that.
fn reader(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut kept = 0;
        let mut part = vec![0; 8 << 10];
        loop {
            match from.read(&mut part) {
                Ok(0) => return,
                Ok(length) => {
                    let length_kept = length.min(OUTPUT - kept);
                    kept += length_kept;
                    if length_kept > 0 && send.send(part[..length_kept].to_vec()).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receive
}

/// What has come once the command has ended.
fn read(received: Option<Receiver<Vec<u8>>>) -> String {
    let Some(received) = received else {
        return String::new();
    };
    let mut all = Vec::new();
    // What the command itself printed is in the pipe by now, and is read at once.
    while let Ok(part) = received.recv_timeout(LAST_OUTPUT) {
        all.extend(part);
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(command: &str) -> Exec {
        Exec {
            pool: "p".to_owned(),
            command: command.to_owned(),
            variables: vec![("KAPELL_SLOTS", "3".to_owned())],
            patience: PATIENCE,
        }
    }

    #[test]
    fn the_list_is_of_names_of_the_pool() {
        let mut exec = exec("echo 'p-1\n p-22 \nq-1\np-x\np-\n'; echo noise >&2");
        let list = exec.list().unwrap();
        assert_eq!(list, ["p-1", "p-22"].map(str::to_owned).into());
    }

    #[test]
    fn the_command_is_told_what_to_do_and_failures_are_each_worker_s_own() {
        let mut exec = exec(
            "test $KAPELL_POOL/$KAPELL_POOL_ACTION/$KAPELL_SLOTS = p/start/3 || exit 9\n\
             test $KAPELL_WORKER_NAME != p-2 || { echo no room >&2; exit 4; }",
        );
        let started = exec.start(&["p-1", "p-2", "p-3"].map(str::to_owned));
        let failed = started[1].as_ref().unwrap_err();
        assert_eq!(
            failed.message,
            "the command for `start` of worker `p-2` failed with exit status 4: no room"
        );
        assert!(started[0].is_ok() && started[2].is_ok());
        let other = exec.stop("p-1").unwrap_err();
        assert!(other.message.contains("exit status 9"), "{other}");
    }

    #[test]
    fn a_command_that_does_not_end_is_ended_with_what_it_started() {
        let exec = Exec {
            patience: Duration::from_millis(50),
            ..exec("sleep 1000 & sleep 1000")
        };
        let failed = exec.run("list", "").unwrap_err();
        assert!(failed.message.contains("did not end within"), "{failed}");
    }

    #[test]
    fn what_it_prints_is_bounded() {
        let mut long = exec("yes p-1 | head -c 2000000; yes wrong | head -c 2000000 >&2; exit 1");
        let failed = long.stop("p-1").unwrap_err();
        assert!(
            failed.message.len() < SHOWN + 200,
            "{}",
            failed.message.len()
        );
        let mut long = exec("yes p-1 | head -c 2000000");
        assert_eq!(long.list().unwrap().len(), 1);
    }
}
