//! Control groups: every attempt is born in one, so that none of its descendants can hide.
//!
//! Version 2 where it is writable: groups are pooled, since making one costs more than the rest of
//! a start. Memory and CPU bounds come from version 2 if it has those controllers here, else from
//! version 1, else memory is bounded by an rlimit.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use kapell_api::task::TaskResources;
use parking_lot::Mutex;

use crate::os;

#[cfg(test)]
mod tests;

/// Groups kept for reuse.
const POOLED: usize = 64;
/// CPU that a group of default weight stands for.
const PLAIN_CPU_MILLIS: u64 = 1000;

/// The groups of one worker.
pub(crate) struct Cgroups {
    unified: Option<PathBuf>,
    unified_limits: bool,
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    pool: Mutex<Vec<Unified>>,
    /// Groups to remove once the last process in them is gone.
    leaving: Mutex<Vec<PathBuf>>,
    next: AtomicU64,
}

/// Where one attempt lives.
#[derive(Default)]
pub(crate) struct Group {
    unified: Option<Unified>,
    limits: Vec<Limit>,
    /// Set if memory is to be bounded by an rlimit.
    pub(crate) data_limit: Option<u64>,
}

struct Unified {
    path: PathBuf,
    directory: File,
    procs: File,
    pooled: bool,
}

/// A group that holds a bound: of version 1, or the version 2 group itself.
struct Limit {
    path: PathBuf,
    procs: Option<File>,
    peak: &'static str,
    kills: &'static str,
}

impl Cgroups {
    /// Finds what is writable, below groups named after `id`; kills what still lives there.
    pub(crate) fn open(id: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let unified = place(&mounts, &own, None).and_then(|parent| {
            let path = parent.join(format!("kapell-{id}"));
            kill_all(&path);
            remove_tree(&path);
            fs::create_dir(&path).ok()?;
            // Root's group may have no kill file, and a child of ours may be refused.
            let usable = path.join("cgroup.kill").exists() && path.join("cgroup.procs").exists();
            usable.then_some(path)
        });
        let unified_limits = unified.as_ref().is_some_and(|path| {
            if let Some(parent) = path.parent() {
                let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory +cpu");
            }
            fs::write(path.join("cgroup.subtree_control"), "+memory +cpu").is_ok()
        });
        let version1 = |controller: &str| {
            if unified_limits {
                return None;
            }
            let path = place(&mounts, &own, Some(controller))?.join(format!("kapell-{id}"));
            kill_listed(&path);
            remove_tree(&path);
            fs::create_dir(&path).ok().map(|()| path)
        };
        Self {
            memory: version1("memory"),
            cpu: version1("cpu"),
            unified,
            unified_limits,
            pool: Mutex::default(),
            leaving: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    /// No groups at all.
    pub(crate) fn none() -> Self {
        Self {
            unified: None,
            unified_limits: false,
            memory: None,
            cpu: None,
            pool: Mutex::default(),
            leaving: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    /// True if no descendant of an attempt can leave its group.
    pub(crate) fn contains(&self) -> bool {
        self.unified.is_some()
    }

    /// A group with no process in it and these bounds.
    pub(crate) fn take(&self, resources: &TaskResources) -> io::Result<Group> {
        let bounded = resources.memory_bytes > 0 || is_weighted(resources);
        let mut group = Group {
            unified: self.take_unified(bounded)?,
            ..Group::default()
        };
        if bounded {
            self.bound(&mut group, resources)?;
        }
        Ok(group)
    }

    fn take_unified(&self, bounded: bool) -> io::Result<Option<Unified>> {
        let Some(root) = &self.unified else {
            return Ok(None);
        };
        if !bounded || !self.unified_limits {
            // Those in the pool are empty: what was left in them by a process is killed at its end,
            // and a group in which something was killed never comes here.
            if let Some(unified) = self.pool.lock().pop() {
                return Ok(Some(unified));
            }
        }
        let path = root.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&path)?;
        Ok(Some(Unified {
            directory: File::options()
                .read(true)
                .custom_flags(libc::O_DIRECTORY)
                .open(&path)?,
            procs: File::open(path.join("cgroup.procs"))?,
            path,
            pooled: !bounded || !self.unified_limits,
        }))
    }

    fn bound(&self, group: &mut Group, resources: &TaskResources) -> io::Result<()> {
        let memory = resources.memory_bytes;
        // Ten thousandths of a core's weight: 100 is the kernel's default, ours for one core.
        let weight = (resources.cpu_millis / 10).clamp(1, 10_000);
        if self.unified_limits
            && let Some(unified) = &group.unified
        {
            if memory > 0 {
                fs::write(unified.path.join("memory.max"), memory.to_string())?;
                let _ = fs::write(unified.path.join("memory.swap.max"), "0");
                let _ = fs::write(unified.path.join("memory.oom.group"), "1");
            }
            if is_weighted(resources) {
                let _ = fs::write(unified.path.join("cpu.weight"), weight.to_string());
            }
            group.limits.push(Limit {
                path: unified.path.clone(),
                procs: None,
                peak: "memory.peak",
                kills: "memory.events",
            });
            return Ok(());
        }
        if memory > 0 {
            match &self.memory {
                Some(root) => {
                    let limit =
                        self.version1(root, "memory.max_usage_in_bytes", "memory.oom_control")?;
                    fs::write(limit.path.join("memory.limit_in_bytes"), memory.to_string())?;
                    let _ = fs::write(
                        limit.path.join("memory.memsw.limit_in_bytes"),
                        memory.to_string(),
                    );
                    group.limits.push(limit);
                }
                None => group.data_limit = Some(memory),
            }
        }
        if let (true, Some(root)) = (is_weighted(resources), &self.cpu) {
            let limit = self.version1(root, "", "")?;
            let shares = (resources.cpu_millis * 1024 / 1000).max(2);
            let _ = fs::write(limit.path.join("cpu.shares"), shares.to_string());
            group.limits.push(limit);
        }
        Ok(())
    }

    fn version1(&self, root: &Path, peak: &'static str, kills: &'static str) -> io::Result<Limit> {
        let path = root.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&path)?;
        let procs = File::options()
            .write(true)
            .open(path.join("cgroup.procs"))?;
        Ok(Limit {
            path,
            procs: Some(procs),
            peak,
            kills,
        })
    }

    /// Removes all groups; one that still holds a dying process stays for the next start.
    pub(crate) fn close(&self) {
        self.pool.lock().clear();
        for path in [&self.unified, &self.memory, &self.cpu]
            .into_iter()
            .flatten()
        {
            remove_tree(path);
        }
    }

    /// Takes a group back after its attempt; whatever still runs in it is killed.
    pub(crate) fn give_back(&self, group: Group) {
        let mut leaving = self.leaving.lock();
        leaving.extend(group.limits.into_iter().map(|limit| limit.path));
        if let Some(unified) = group.unified {
            let mut pool = self.pool.lock();
            if unified.pooled && pool.len() < POOLED {
                pool.push(unified);
            } else {
                leaving.push(unified.path);
            }
        }
        leaving.retain(|path| fs::remove_dir(path).is_err() && path.exists());
    }
}

/// True if the task asks for another share of the CPU than a group has by itself.
fn is_weighted(resources: &TaskResources) -> bool {
    !matches!(resources.cpu_millis, 0 | PLAIN_CPU_MILLIS)
}

impl Group {
    /// The version 2 directory to be born in.
    pub(crate) fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.unified
            .as_ref()
            .map(|unified| unified.directory.as_fd())
    }

    /// Version 1 files to enter by.
    pub(crate) fn join(&self) -> Vec<BorrowedFd<'_>> {
        self.limits
            .iter()
            .filter_map(|limit| limit.procs.as_ref().map(AsFd::as_fd))
            .collect()
    }

    /// Kills whatever runs in it.
    pub(crate) fn kill(&mut self) {
        if let Some(unified) = &mut self.unified {
            unified.kill();
        }
    }

    /// Kills what runs in it besides a process that is gone but not yet waited for, and so may still
    /// be listed.
    pub(crate) fn kill_rest(&mut self, gone: i32) {
        if let Some(unified) = &mut self.unified
            && unified.holds_others(gone)
        {
            unified.kill();
        }
    }

    /// Peak memory in bytes, if a bound is held.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        let limit = self.limits.iter().find(|limit| !limit.peak.is_empty())?;
        fs::read_to_string(limit.path.join(limit.peak))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// True if the kernel killed a process here for want of memory.
    pub(crate) fn out_of_memory(&self) -> bool {
        self.limits
            .iter()
            .filter(|limit| !limit.kills.is_empty())
            .any(|limit| {
                fs::read_to_string(limit.path.join(limit.kills)).is_ok_and(|text| {
                    text.lines()
                        .filter_map(|line| line.strip_prefix("oom_kill "))
                        .any(|count| count.trim() != "0")
                })
            })
    }
}

impl Unified {
    /// True if a process of another number is in it.
    fn holds_others(&self, gone: i32) -> bool {
        // Room for two numbers: the first that differs decides.
        let mut start = [0; 24];
        let Ok(count) = self.procs.read_at(&mut start, 0) else {
            return true;
        };
        let listed = String::from_utf8_lossy(&start[..count]);
        listed.lines().any(|pid| pid.parse() != Ok(gone))
    }

    /// Kills everything in it. The group is never used again: a kernel that counts kills takes one
    /// that is born in it later for one that escaped.
    fn kill(&mut self) {
        self.pooled = false;
        let file = File::options()
            .write(true)
            .open(self.path.join("cgroup.kill"));
        // A group that is gone holds nothing.
        let _ = file.and_then(|mut file| file.write_all(b"1"));
    }
}

/// The directory of this process's own group in the hierarchy of `controller`, or of version 2.
fn place(mounts: &str, own: &str, controller: Option<&str>) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (path, kind, options) = (words.next()?, words.next()?, words.next()?);
        let right = match controller {
            None => kind == "cgroup2",
            Some(name) => kind == "cgroup" && options.split(',').any(|option| option == name),
        };
        right.then_some(path)
    })?;
    let group = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next()?, parts.next()?);
        let right = match controller {
            None => names.is_empty(),
            Some(name) => names.split(',').any(|n| n == name),
        };
        right.then_some(path)
    })?;
    let path = Path::new(mount).join(group.trim_start_matches('/'));
    // A container may see a group path of the host below a mount of its own.
    Some(if path.is_dir() {
        path
    } else {
        PathBuf::from(mount)
    })
}

fn kill_all(path: &Path) {
    if fs::write(path.join("cgroup.kill"), "1").is_err() {
        kill_listed(path);
    }
    let Ok(mut events) = File::open(path.join("cgroup.events")) else {
        return;
    };
    for _ in 0..50 {
        let mut text = String::new();
        if events
            .rewind()
            .and_then(|()| events.read_to_string(&mut text))
            .is_err()
            || text.contains("populated 0")
        {
            return;
        }
        let mut fds = [rustix::event::PollFd::new(
            &events,
            rustix::event::PollFlags::PRI,
        )];
        let wait = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        let _ = rustix::event::poll(&mut fds, Some(&wait));
    }
}

fn kill_listed(path: &Path) {
    let groups = fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    for group in groups.chain([path.to_owned()]) {
        for pid in fs::read_to_string(group.join("cgroup.procs"))
            .unwrap_or_default()
            .lines()
        {
            os::signal_process(pid.parse().unwrap_or(0), libc::SIGKILL);
        }
    }
}

/// Removes a group and those below it; one that still holds a dying process stays for the next time.
fn remove_tree(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}
