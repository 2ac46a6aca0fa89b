//! The operating system where safe wrappers end: starting and reaping children.
//!
//! The one module of the project with unsafe code. Each block says why it is sound. A child is made
//! by `clone3` with `CLONE_VM | CLONE_VFORK` (no page tables are copied; the caller sleeps until the
//! child has called `exec`), on a stack of its own, straight into its cgroup, with a pidfd. Where
//! `clone3` is refused, `clone` does the same without the cgroup.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// What a child needs; made beforehand since a child that shares our memory must not allocate.
pub(crate) struct Command<'a> {
    /// Path of the program.
    pub(crate) program: &'a CStr,
    /// Its arguments, the name first.
    pub(crate) argv: &'a [CString],
    /// `NAME=value`.
    pub(crate) env: &'a [CString],
    /// Its working directory.
    pub(crate) directory: &'a CStr,
    /// What become its descriptors 0, 1, 2, …
    pub(crate) fds: &'a [BorrowedFd<'a>],
    /// The cgroup v2 directory it is born in.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// `cgroup.procs` files of version 1 that it enters before it runs.
    pub(crate) join: &'a [BorrowedFd<'a>],
    /// Bound of its data segment in bytes, where no cgroup does it.
    pub(crate) data_limit: Option<u64>,
}

/// A started child.
#[derive(Debug)]
pub(crate) struct Child {
    /// Its process id, which is also that of its group.
    pub(crate) pid: i32,
    /// Its session: its own, or that of this process.
    pub(crate) session: i32,
    /// Readable once it has ended.
    pub(crate) pidfd: OwnedFd,
    /// Clock ticks since boot before and after it was made: its start time lies between them.
    pub(crate) born: (u64, u64),
}

/// Why no child runs.
#[derive(Debug)]
pub(crate) enum SpawnError {
    /// The system made no process.
    Clone(io::Error),
    /// The working directory cannot be entered.
    Directory(io::Error),
    /// Something else before `exec`.
    Setup(io::Error),
    /// The program cannot be run.
    Exec(io::Error),
}

/// How a child ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exit {
    /// As `wait4` gives it.
    pub(crate) status: i32,
    /// CPU time of it and the children it waited for, in milliseconds.
    pub(crate) cpu_millis: u64,
    /// Peak resident memory in bytes.
    pub(crate) memory_bytes: u64,
}

impl Exit {
    /// The exit code, unless a signal ended it.
    pub(crate) fn code(&self) -> Option<i32> {
        libc::WIFEXITED(self.status).then(|| libc::WEXITSTATUS(self.status))
    }

    /// The signal that ended it.
    pub(crate) fn signal(&self) -> Option<i32> {
        libc::WIFSIGNALED(self.status).then(|| libc::WTERMSIG(self.status))
    }
}

const STACK_BYTES: usize = 128 << 10;

/// Starts children. One lives on each permanent thread that does: a child is killed when the thread
/// that made it ends (`PR_SET_PDEATHSIG`).
pub(crate) struct Spawner {
    stack: *mut c_void,
    parent: i32,
    session: Option<i32>,
    /// This process has done without huge pages since its allocator began, which a program must not take over.
    small_pages: bool,
    with_clone3: bool,
}

impl Spawner {
    /// Blocks all signals of the calling thread, so that no handler can run in a child while it
    /// shares our memory.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: an anonymous mapping touches no existing memory; the result is checked. The signal
        // set is a plain value that `sigfillset` initialises.
        unsafe {
            let stack = libc::mmap(
                ptr::null_mut(),
                STACK_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                -1,
                0,
            );
            if stack == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let mut all: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, ptr::null_mut());
            Ok(Self {
                stack,
                parent: libc::getpid(),
                session: (!has_terminal()).then(|| libc::getsid(0)),
                small_pages: libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1,
                with_clone3: cfg!(target_arch = "x86_64"),
            })
        }
    }

    /// Uses `clone` even where `clone3` works.
    #[cfg(test)]
    pub(crate) fn without_clone3(mut self) -> Self {
        self.with_clone3 = false;
        self
    }

    /// Starts a child in a process group of its own, killed when this thread ends. Also in a session of
    /// its own if we have a terminal, which the child must not share; else not, since the kernel makes
    /// a scheduling group for each session, a tenth of the cost of a start.
    pub(crate) fn spawn(&mut self, command: &Command<'_>) -> Result<Child, SpawnError> {
        let pointers = |strings: &[CString]| -> Vec<*const c_char> {
            strings
                .iter()
                .map(|text| text.as_ptr())
                .chain([ptr::null()])
                .collect()
        };
        let (argv, env) = (pointers(command.argv), pointers(command.env));
        let mut plan = Plan {
            program: command.program.as_ptr(),
            argv: argv.as_ptr(),
            env: env.as_ptr(),
            directory: command.directory.as_ptr(),
            fds: command.fds,
            join: command.join,
            data_limit: command.data_limit,
            parent: self.parent,
            own_session: self.session.is_none(),
            small_pages: self.small_pages,
            stage: Stage::Setup,
            errno: 0,
        };
        let before = boot_ticks();
        let (pid, pidfd) = self
            .make(&mut plan, command.cgroup)
            .map_err(SpawnError::Clone)?;
        if self.small_pages {
            // SAFETY: a system call that touches no memory.
            unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
        }
        let born = (before, boot_ticks());
        if plan.errno != 0 {
            let _ = wait(pid, 0);
            let error = io::Error::from_raw_os_error(plan.errno);
            return Err(match plan.stage {
                Stage::Setup => SpawnError::Setup(error),
                Stage::Directory => SpawnError::Directory(error),
                Stage::Exec => SpawnError::Exec(error),
            });
        }
        Ok(Child {
            pid,
            session: self.session.unwrap_or(pid),
            pidfd,
            born,
        })
    }

    fn make(
        &mut self,
        plan: &mut Plan<'_>,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> io::Result<(i32, OwnedFd)> {
        #[cfg(target_arch = "x86_64")]
        if self.with_clone3 {
            match self.clone3(plan, cgroup) {
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::ENOSYS | libc::EPERM | libc::EINVAL)
                    ) =>
                {
                    self.with_clone3 = false;
                }
                result => return result,
            }
        }
        let _ = cgroup;
        self.clone(plan)
    }

    #[cfg(target_arch = "x86_64")]
    fn clone3(
        &mut self,
        plan: &mut Plan<'_>,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> io::Result<(i32, OwnedFd)> {
        const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
        const INTO_CGROUP: u64 = 0x2_0000_0000;
        let mut pidfd: c_int = -1;
        // SAFETY: `clone_args` is plain data for which zero means "not asked".
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.flags =
            u64::from((libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD).cast_unsigned())
                | CLEAR_SIGHAND;
        args.pidfd = ptr::from_mut(&mut pidfd) as u64;
        args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
        args.stack = self.stack as u64;
        args.stack_size = STACK_BYTES as u64;
        if let Some(cgroup) = cgroup {
            args.flags |= INTO_CGROUP;
            args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
        }
        let result: i64;
        // SAFETY: the child starts with our registers, on `self.stack` (page aligned, so aligned for
        // a call), which nothing else uses since this thread sleeps until the child has called
        // `exec` or ended. It jumps into `child`, never returns here and never touches this frame.
        // The memory it writes (`plan.stage`, `plan.errno`, `pidfd` by the kernel) is read only
        // afterwards; the asm block has no `nomem`, so the compiler reloads it.
        unsafe {
            std::arch::asm!(
                "syscall",
                "test rax, rax",
                "jnz 2f",
                "xor ebp, ebp",
                "mov rdi, {plan}",
                "call {child}",
                "ud2",
                "2:",
                inlateout("rax") libc::SYS_clone3 => result,
                in("rdi") &raw const args,
                in("rsi") size_of::<libc::clone_args>(),
                plan = in(reg) ptr::from_mut(plan).cast::<c_void>(),
                child = sym child,
                // Clobbered by the call itself, so `plan` may not be in them: no `lateout`.
                out("rcx") _,
                out("r11") _,
            );
        }
        let code = i32::try_from(result).unwrap_or(-libc::EIO);
        if code < 0 {
            return Err(io::Error::from_raw_os_error(-code));
        }
        // SAFETY: the kernel gave us this new descriptor, and nobody else has it.
        Ok((code, unsafe { OwnedFd::from_raw_fd(pidfd) }))
    }

    fn clone(&mut self, plan: &mut Plan<'_>) -> io::Result<(i32, OwnedFd)> {
        let mut pidfd: c_int = -1;
        // SAFETY: as in `clone3`; the stack grows down from its end, and glibc's wrapper runs `child`
        // on it.
        let pid = unsafe {
            libc::clone(
                child,
                self.stack.byte_add(STACK_BYTES),
                libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD,
                ptr::from_mut(plan).cast(),
                &raw mut pidfd,
            )
        };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel gave us this new descriptor, and nobody else has it.
        Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no child uses it: each has called `exec` or ended.
        unsafe { libc::munmap(self.stack, STACK_BYTES) };
    }
}

#[derive(Clone, Copy)]
enum Stage {
    Setup,
    Directory,
    Exec,
}

/// What the child reads, and where it writes why it failed.
struct Plan<'a> {
    program: *const c_char,
    argv: *const *const c_char,
    env: *const *const c_char,
    directory: *const c_char,
    fds: &'a [BorrowedFd<'a>],
    join: &'a [BorrowedFd<'a>],
    data_limit: Option<u64>,
    parent: i32,
    own_session: bool,
    small_pages: bool,
    stage: Stage,
    errno: c_int,
}

/// The child between `clone` and `exec`. Shares the parent's memory: only system calls here.
extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: the parent passes its `Plan` and sleeps until we are gone, so the reference is unique
    // and everything it points to lives. All calls below are async-signal-safe.
    unsafe {
        let plan = &mut *plan.cast::<Plan<'_>>();
        if let Err(stage) = become_program(plan) {
            plan.stage = stage;
            plan.errno = *libc::__errno_location();
        }
        libc::_exit(127)
    }
}

/// # Safety
/// Only in a child made by [`Spawner`].
unsafe fn become_program(plan: &Plan<'_>) -> Result<(), Stage> {
    let check = |result: c_int| {
        if result < 0 {
            Err(Stage::Setup)
        } else {
            Ok(())
        }
    };
    // SAFETY: the caller's word; pointers in `plan` were made from live C strings by `spawn`.
    unsafe {
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0))?;
        if libc::getppid() != plan.parent && libc::getppid() != 0 {
            // Killed between clone and prctl: nobody is left to report to.
            libc::_exit(127);
        }
        if plan.small_pages {
            // That is said of the memory which both share until `exec`: `spawn` takes it back.
            libc::prctl(libc::PR_SET_THP_DISABLE, 0, 0, 0, 0);
        }
        check(if plan.own_session {
            libc::setsid()
        } else {
            libc::setpgid(0, 0)
        })?;
        for signal in [
            libc::SIGPIPE,
            libc::SIGINT,
            libc::SIGTERM,
            libc::SIGHUP,
            libc::SIGCHLD,
            libc::SIGUSR1,
            libc::SIGUSR2,
        ] {
            libc::signal(signal, libc::SIG_DFL);
        }
        for procs in plan.join {
            if libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) < 0 {
                return Err(Stage::Setup);
            }
        }
        if let Some(bytes) = plan.data_limit {
            let limit = libc::rlimit {
                rlim_cur: bytes,
                rlim_max: bytes,
            };
            check(libc::setrlimit(libc::RLIMIT_DATA, &raw const limit))?;
        }
        let mut target: RawFd = 0;
        for source in plan.fds {
            check(libc::dup2(source.as_raw_fd(), target))?;
            target += 1;
        }
        // Everything of ours is close-on-exec already; this holds it for what libraries open.
        libc::syscall(
            libc::SYS_close_range,
            target,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        );
        if libc::chdir(plan.directory) < 0 {
            return Err(Stage::Directory);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        libc::execve(plan.program, plan.argv, plan.env);
    }
    Err(Stage::Exec)
}

/// True if this process has a controlling terminal.
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// The result of a child that has ended; `None` while it runs.
pub(crate) fn reap(pid: i32) -> io::Result<Option<Exit>> {
    wait(pid, libc::WNOHANG)
}

/// Waits for the end of a child.
pub(crate) fn wait_for(pid: i32) -> io::Result<Option<Exit>> {
    wait(pid, 0)
}

fn wait(pid: i32, flags: c_int) -> io::Result<Option<Exit>> {
    let mut status = 0;
    // SAFETY: plain data, filled in by the kernel.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live locals.
        let got = unsafe { libc::wait4(pid, &raw mut status, flags, &raw mut usage) };
        if got == 0 {
            return Ok(None);
        }
        if got > 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let millis = |time: libc::timeval| time.tv_sec * 1000 + time.tv_usec / 1000;
    Ok(Some(Exit {
        status,
        cpu_millis: u64::try_from(millis(usage.ru_utime) + millis(usage.ru_stime)).unwrap_or(0),
        memory_bytes: own_peak(usage.ru_maxrss),
    }))
}

/// A child starts in our memory, and the kernel counts that as its peak until its own is higher:
/// a peak that is not above ours says nothing, and is 0.
fn own_peak(child_kib: libc::c_long) -> u64 {
    // SAFETY: a zeroed rusage is a valid value, and getrusage only writes into it.
    let ours = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        if libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) == 0 {
            usage.ru_maxrss
        } else {
            0
        }
    };
    if child_kib <= ours {
        return 0;
    }
    u64::try_from(child_kib).unwrap_or(0) * 1024
}

/// Sends a signal to every process of a group; that there is none is fine.
pub(crate) fn signal_group(group: i32, signal: i32) {
    if group > 1 {
        // SAFETY: sends a signal; touches no memory.
        unsafe { libc::kill(-group, signal) };
    }
}

/// Sends a signal to one process; that it is gone is fine.
pub(crate) fn signal_process(pid: i32, signal: i32) {
    if pid > 1 {
        // SAFETY: sends a signal; touches no memory.
        unsafe { libc::kill(pid, signal) };
    }
}

/// Makes this process the parent of its descendants' orphans, so that they can be found.
pub(crate) fn become_subreaper() {
    // SAFETY: changes a flag of this process; touches no memory.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// Milliseconds since boot, suspended time included.
pub(crate) fn boot_millis() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live local.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    u64::try_from(now.tv_sec * 1_000 + now.tv_nsec / 1_000_000).unwrap_or(0)
}

/// Clock ticks since boot, suspended time included: the unit of a process's start time.
pub(crate) fn boot_ticks() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live local; `sysconf` touches no memory of ours.
    let ticks = unsafe {
        libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now);
        libc::sysconf(libc::_SC_CLK_TCK).max(1)
    };
    u64::try_from(now.tv_sec * ticks + now.tv_nsec / (1_000_000_000 / ticks)).unwrap_or(0)
}
