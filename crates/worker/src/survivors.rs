//! Finds and kills processes of attempts that nobody watches any more.
//!
//! Four nets: cgroups (see [`crate::cgroup`]), process groups of the slot file, the mark that every
//! child carries in its environment, which also finds children in sessions of their own, and, where no
//! cgroup can be made, orphans that come to this process as a subreaper. Then what left its group and
//! emptied its environment ends with the last attempt that could have started it, and outlives a
//! worker that is killed: nothing tells whose it was.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::os;
use crate::slots::Record;

/// Name of the environment variable that marks every child.
pub(crate) const MARK: &str = "KAPELL_ATTEMPT";

/// Kills process groups that a former worker of this directory left. Only groups that are certainly
/// its own: the leader's start time must lie where the record says, or, if the leader is gone, what is
/// left of the group must be of its session and no older.
pub(crate) fn kill_groups(records: &[Record]) {
    let recorded = records.iter().filter(|record| record.pid > 1);
    for record in recorded {
        let leader = Process::read(record.pid);
        let ours = match &leader {
            Some(leader) => (record.born.0..=record.born.1).contains(&leader.start_ticks),
            None => processes().any(|process| {
                process.group == record.pid
                    && process.session == record.session
                    && process.start_ticks >= record.born.0
            }),
        };
        if ours {
            os::signal_group(record.pid, libc::SIGKILL);
        }
    }
}

/// Kills every process whose environment holds a mark that starts with `mark` and is none of `keep`;
/// again until none is left, since one may fork between being seen and being killed.
pub(crate) fn kill_marked(mark: &str, keep: &HashSet<i32>) -> bool {
    let needle = format!("{MARK}={mark}");
    let mut found = false;
    for _ in 0..20 {
        let marked: Vec<i32> = pids()
            .filter(|pid| !keep.contains(pid) && carries(*pid, needle.as_bytes()))
            .collect();
        if marked.is_empty() {
            break;
        }
        found = true;
        for pid in marked {
            os::signal_process(pid, libc::SIGKILL);
        }
    }
    found
}

/// Children of this process's main thread: orphans that came to it as a subreaper. `None` if the
/// system does not tell.
pub(crate) fn orphans() -> Option<Vec<i32>> {
    let own = std::process::id();
    let text = fs::read_to_string(format!("/proc/self/task/{own}/children")).ok()?;
    Some(
        text.split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect(),
    )
}

/// Kills orphans that came to us, carry no mark of ours and are older than every process that still
/// runs here (`oldest`, in clock ticks since boot): only attempts that are over can have left them.
/// Those of our own group were started by somebody else in this process. Again until none is left,
/// since the children of one come to us when it dies.
pub(crate) fn kill_unmarked(id: &str, oldest: Option<u64>) {
    let needle = format!("{MARK}={id}/");
    let own = std::process::id().try_into().ok().and_then(Process::read);
    let is_nobodys = |pid: i32| {
        Process::read(pid).is_some_and(|process| {
            process.state != "Z"
                && own.as_ref().is_some_and(|own| own.group != process.group)
                && oldest.is_none_or(|oldest| process.start_ticks < oldest)
        }) && !carries(pid, needle.as_bytes())
    };
    for _ in 0..20 {
        let mut found = orphans().unwrap_or_default();
        found.retain(|pid| is_nobodys(*pid));
        if found.is_empty() {
            return;
        }
        for pid in found {
            os::signal_process(pid, libc::SIGKILL);
        }
    }
}

fn carries(pid: i32, needle: &[u8]) -> bool {
    // A dead process that nobody has waited for yet has an empty environment.
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
        environ
            .split(|byte| *byte == 0)
            .any(|entry| entry.starts_with(needle))
    })
}

fn pids() -> impl Iterator<Item = i32> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    fs::read_dir(Path::new("/proc"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(move |pid| *pid != own)
}

fn processes() -> impl Iterator<Item = Process> {
    pids().filter_map(Process::read)
}

struct Process {
    state: String,
    group: i32,
    session: i32,
    start_ticks: u64,
}

impl Process {
    /// Reads `/proc/<pid>/stat`: after the name in brackets come state, parent, group, session, …,
    /// the start time as the 20th.
    fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat
            .get(stat.rfind(')')? + 1..)?
            .split_ascii_whitespace()
            .collect();
        Some(Self {
            state: (*fields.first()?).to_owned(),
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            start_ticks: fields.get(19)?.parse().ok()?,
        })
    }
}
