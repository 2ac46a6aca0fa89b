//! How attempts end: by their result, by a cancel, by their time, by the worker's end.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kapell_api::log;
use kapell_api::task::{Outcome, Place, TaskError, TaskEvent, Work};
use kapell_expr::Value;
use kapell_model::{Offer, RunId, limits};

use crate::attempt::{Attempt, Phase, Proc, Stop};
use crate::dirs::Dirs;
use crate::executor::{Executor, ended, report};
use crate::mask::Masker;
use crate::os;
use crate::shared::Shared;
use crate::survivors;
use crate::timers::{Due, Timer};

/// The longest grace once the worker itself ends.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

impl Executor {
    /// Ends an attempt with a result, unless it was ended from outside before.
    pub(crate) fn end_with(&mut self, key: u64, result: Result<Value, Box<TaskError>>) {
        let Some(attempt) = self.attempts.get(&key) else {
            return;
        };
        let outcome = attempt.stopped().unwrap_or_else(|| attempt.outcome(result));
        self.end(key, outcome);
    }

    /// Reports an attempt, cleans up after it and starts what fits now.
    pub(crate) fn end(&mut self, key: u64, outcome: Outcome) {
        let Some(mut attempt) = self.attempts.remove(&key) else {
            return;
        };
        let job = Arc::clone(&attempt.job);
        let task = &job.task;
        self.offers.remove(&(task.run, task.place, task.offer));
        attempt
            .timers
            .drain(..)
            .for_each(|timer: Timer| self.timers.clear(timer));
        attempt.log.finish(self.now);
        self.clean_up(&mut attempt, &outcome);
        let started_at = attempt.started_at.unwrap_or(self.now);
        let ended = TaskEvent::Ended {
            started_at,
            ended_at: self.now,
            outcome,
            usage: attempt.usage,
        };
        self.reports.push(report(task, ended));
        let admitted = {
            let mut admission = self.shared.admission.lock();
            admission.release(task, &job.devices);
            admission.admit()
        };
        for job in self.shared.jobs(admitted, Some(job.slot)) {
            self.begin(job);
        }
    }

    fn clean_up(&mut self, attempt: &mut Attempt, outcome: &Outcome) {
        let shared = &self.shared;
        let Some(dir) = attempt.dir.take() else {
            return;
        };
        let is_function = matches!(attempt.job.task.work, Work::Python { .. });
        let files: Vec<_> = attempt
            .made
            .iter()
            .map(|kind| attempt.job.io_path(shared, kind))
            .collect();
        let keep = matches!(outcome, Outcome::Failed(_)) && !shared.keep_failed.is_zero();
        if keep && !(is_function && Dirs::is_clean(&dir)) {
            let task = &attempt.job.task;
            let path = attempt.job.process().map_or("", |process| &*process.path);
            let name = log::file(Path::new(""), task.run, path, task.attempt);
            let name = format!(
                "{}.{}",
                task.run,
                name.file_stem().unwrap_or_default().to_string_lossy()
            );
            let until = crate::timers::later(self.now, shared.keep_failed);
            for file in &files {
                masked(file, &attempt.masker);
            }
            shared.dirs.keep(&dir, name, files, until);
        } else {
            for file in files {
                let _ = std::fs::remove_file(file);
            }
            shared.dirs.give_back(dir);
        }
    }

    pub(crate) fn cancel(&mut self, offer: (RunId, Place, Offer)) {
        if let Some(key) = self.offers.get(&offer) {
            self.end_from_outside(*key, Stop::Cancel);
            return;
        }
        let waiting = self
            .shared
            .admission
            .lock()
            .withdraw(|task| (task.run, task.place, task.offer) == offer);
        for task in waiting {
            let ended = TaskEvent::Ended {
                started_at: self.now,
                ended_at: self.now,
                outcome: Outcome::Cancelled,
                usage: None,
            };
            self.reports.push(report(&task, ended));
        }
    }

    /// Ends an attempt that nobody wants any more, or whose time is over.
    pub(crate) fn end_from_outside(&mut self, key: u64, why: Stop) {
        let Some(attempt) = self.attempts.get_mut(&key) else {
            return;
        };
        if attempt.stop.is_some() || matches!(attempt.phase, Phase::Collecting) {
            return;
        }
        attempt.stop = Some(why);
        attempt.job.cancelled.store(true, Ordering::Relaxed);
        match &attempt.phase {
            Phase::Preparing => {
                attempt.job.awaited.store(true, Ordering::Release);
                self.recheck = true;
            }
            Phase::Collecting => {}
            Phase::Running(_) | Phase::InHost(_) => self.terminate(key, why),
            // Nothing to wait for: a host or a response that comes later meets no attempt.
            Phase::Waiting => self.end_with(key, Ok(Value::Null)),
            Phase::Request => {
                self.shared.client.cancel(key);
                self.end_with(key, Ok(Value::Null));
            }
        }
    }

    /// TERM now, KILL after the grace.
    pub(crate) fn terminate(&mut self, key: u64, why: Stop) {
        match self.attempts.get(&key).map(|attempt| &attempt.phase) {
            Some(Phase::Running(proc)) => os::signal_group(proc.child.pid, libc::SIGTERM),
            Some(Phase::InHost(host)) => {
                let host = *host;
                self.terminate_host(host);
            }
            Some(Phase::Preparing | Phase::Waiting | Phase::Request | Phase::Collecting) | None => {
            }
        }
        let Some(attempt) = self.attempts.get_mut(&key) else {
            return;
        };
        let grace = attempt
            .job
            .process()
            .map_or(limits::GRACE, |process| process.grace);
        let grace = if matches!(why, Stop::Shutdown | Stop::Away) {
            grace.min(SHUTDOWN_GRACE)
        } else {
            grace
        };
        attempt
            .timers
            .push(self.timers.set(self.now, grace, Due::Kill(key)));
    }

    pub(crate) fn kill(&mut self, key: u64) {
        let Some(attempt) = self.attempts.get_mut(&key) else {
            return;
        };
        match &mut attempt.phase {
            Phase::Running(proc) => {
                os::signal_group(proc.child.pid, libc::SIGKILL);
                proc.group.kill();
            }
            Phase::InHost(host) => {
                let host = *host;
                self.kill_host(host);
            }
            Phase::Preparing | Phase::Waiting | Phase::Request | Phase::Collecting => {}
        }
    }

    /// Ends what is here as lost, and goes on.
    pub(crate) fn abandon(&mut self) {
        let waiting = self.shared.admission.lock().withdraw(|_| true);
        let lost = || Outcome::Lost {
            reason: "its worker could not reach the server".to_owned(),
            explained: true,
        };
        for task in waiting {
            self.reports.push(ended(&task, self.now, lost()));
        }
        let keys: Vec<u64> = self.attempts.keys().copied().collect();
        for key in keys {
            self.end_from_outside(key, Stop::Away);
        }
    }

    pub(crate) fn stop(&mut self, grace: Duration) {
        self.stopping = true;
        self.timers.set(self.now, grace, Due::Shutdown);
        self.stop_idle_hosts();
    }
}

/// Kills what a process that is gone (but not yet waited for) left running.
///
/// `mark` is that of its processes; `oldest` says since when others run here, in clock ticks since boot.
pub(crate) fn end_descendants(shared: &Shared, proc: &mut Proc, mark: &str, oldest: Option<u64>) {
    // Not yet waited for, so its number cannot be another group's.
    os::signal_group(proc.child.pid, libc::SIGKILL);
    proc.group.kill_rest(proc.child.pid);
    if shared.cgroups.contains() {
        return;
    }
    let Some(orphans) = survivors::orphans() else {
        survivors::kill_marked(mark, &[proc.child.pid].into());
        return;
    };
    if !orphans.is_empty() {
        survivors::kill_marked(mark, &[proc.child.pid].into());
        survivors::kill_unmarked(&shared.id, oldest);
        for pid in survivors::orphans().unwrap_or_default() {
            let _ = os::reap(pid);
        }
    }
}

/// Hides secrets in a file that is kept for people. One that cannot be written anew is not kept.
fn masked(path: &Path, masker: &Masker) {
    if masker.longest() == 0 {
        return;
    }
    let hidden = std::fs::read(path).and_then(|text| match masker.bytes(&text) {
        Cow::Borrowed(_) => Ok(()),
        Cow::Owned(hidden) => std::fs::write(path, hidden),
    });
    if hidden.is_err() {
        // It may never have been written.
        let _ = std::fs::remove_file(path);
    }
}
