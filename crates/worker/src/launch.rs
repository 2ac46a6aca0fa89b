//! From a task to a running process: directory, input, environment, program, pipes.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kapell_api::task::{Process, Task, TaskError, TaskResources, Work};
use kapell_model::Time;
use parking_lot::Mutex;
use rustix::pipe::PipeFlags;

use crate::bundle::checked_path;
use crate::cgroup::Group;
use crate::dirs::AttemptDir;
use crate::failure;
use crate::input::{self, Resolver, Variables};
use crate::mask::Masker;
use crate::os::{self, SpawnError, Spawner};
use crate::shared::{Shared, Source};
use crate::slots::Record;
use crate::survivors::MARK;

/// An admitted task on its way.
pub(crate) struct Job {
    /// Names it in this worker.
    pub(crate) key: u64,
    /// The task.
    pub(crate) task: Task,
    /// Its slot in the slot file.
    pub(crate) slot: u32,
    /// When it was admitted, in clock ticks since boot: no process of it is older.
    pub(crate) admitted: u64,
    /// The devices it got.
    pub(crate) devices: Vec<u32>,
    /// Set once nobody wants it any more.
    pub(crate) cancelled: AtomicBool,
    /// Set once the event loop waits to hear of its start.
    pub(crate) awaited: AtomicBool,
}

impl Job {
    /// The common part of its verb.
    pub(crate) fn process(&self) -> Option<&Process> {
        self.task.work.process()
    }

    /// A place for a file of the attempt beside its directory.
    pub(crate) fn io_path(&self, shared: &Shared, kind: &str) -> PathBuf {
        shared.dirs.io.join(format!("{}.{kind}", self.key))
    }
}

/// What to start.
pub(crate) struct Plan {
    /// The argv that the user asked for.
    pub(crate) argv: Vec<String>,
    /// Arguments that need not pass through the shell; tried first.
    pub(crate) direct: Option<Vec<String>>,
    /// A script and the file it goes to.
    pub(crate) script: Option<(Arc<str>, PathBuf)>,
    /// The whole environment.
    pub(crate) env: Vec<CString>,
    /// `PATH` in it.
    pub(crate) search: Vec<u8>,
    /// Its bounds.
    pub(crate) resources: TaskResources,
}

/// An attempt ready to start.
pub(crate) struct Prepared {
    pub(crate) plan: Plan,
    /// True if it has a file of inputs.
    pub(crate) has_input: bool,
    pub(crate) dir: AttemptDir,
    pub(crate) masker: Arc<Masker>,
}

/// A started attempt.
pub(crate) struct Launched {
    pub(crate) dir: AttemptDir,
    /// Kinds of files made for it beside its directory.
    pub(crate) made: Vec<&'static str>,
    pub(crate) masker: Arc<Masker>,
    pub(crate) running: Running,
}

/// A started process with its pipes.
pub(crate) struct Running {
    pub(crate) child: os::Child,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) group: Group,
    pub(crate) has_script: bool,
    pub(crate) started_at: Time,
}

/// Where programs were found, by name and `PATH`.
#[derive(Default)]
pub(crate) struct Programs(Mutex<HashMap<(String, Vec<u8>), CString>>);

/// True if preparing may take long: then it must not keep other starts waiting.
pub(crate) fn is_long(shared: &Shared, process: &Process) -> bool {
    let bundle = process
        .bundle
        .as_ref()
        .map(|blob| shared.bundles.known(blob));
    matches!(bundle, Some(None))
        || bundle
            .flatten()
            .is_some_and(|bundle| bundle.paths().count() > 32)
        || !process.artifacts_in.is_empty()
        || input::has_blobs(&process.with.value)
        || shared.far.is_some() && input::names_secrets(process)
}

/// Makes everything ready for the process of a `shell` or `exec` task. Blocks.
pub(crate) fn prepare(shared: &Shared, job: &Job) -> Result<Prepared, Box<TaskError>> {
    let process = job
        .process()
        .ok_or_else(|| failure::platform("spawn", "the task starts no process"))?;
    let mut resolver = Resolver::new(shared, &job.task);
    let mut variables = variables(shared, job, &mut resolver)?;
    let with = resolver.with(&process.with, &*shared.blobs)?;
    let has_input = with.is_some();
    if let Some(with) = with {
        let path = job.io_path(shared, "input");
        write_private(&path, with.to_string().as_bytes()).map_err(|error| no_room(&error))?;
        variables.path("KAPELL_INPUT", &path)?;
    }
    variables.path("KAPELL_OUTPUT", &job.io_path(shared, "output"))?;
    let search = variables
        .get("PATH")
        .or_else(|| shared.env.get("PATH"))
        .unwrap_or(b"/usr/local/bin:/usr/bin:/bin")
        .to_vec();
    let mut plan = plan(shared, job)?;
    let dir = directory(shared, process)?;
    let placed = place_artifacts(shared, job, process, &dir)
        .and_then(|()| variables.path("TMPDIR", &dir.tmp))
        .and_then(|()| variables.path("PWD", &dir.files));
    if let Err(error) = placed {
        shared.dirs.give_back(dir);
        return Err(error);
    }
    plan.env = shared.env.with(&variables);
    plan.search = search;
    plan.resources = process.resources.clone();
    Ok(Prepared {
        plan,
        has_input,
        dir,
        masker: resolver.masker(),
    })
}

fn plan(shared: &Shared, job: &Job) -> Result<Plan, Box<TaskError>> {
    match &job.task.work {
        Work::Shell {
            script,
            interpreter,
            args,
            ..
        } => Ok(crate::runtime::shell::plan(
            script,
            interpreter,
            args,
            job.io_path(shared, "script"),
        )),
        Work::Exec { argv, .. } => crate::runtime::exec::plan(argv),
        Work::Noop | Work::Fail { .. } | Work::Python { .. } | Work::Http { .. } => {
            Err(failure::platform("spawn", "the task starts no process"))
        }
    }
}

/// Variables of a task: its own `env:`, then what Kapell says of the attempt.
fn variables(
    shared: &Shared,
    job: &Job,
    resolver: &mut Resolver<'_>,
) -> Result<Variables, Box<TaskError>> {
    let mut variables = Variables::default();
    if let Some(process) = job.process() {
        for (name, value) in resolver.env(&process.env)? {
            variables.set(&name, value.as_deref().map(str::as_bytes))?;
        }
    }
    for (name, value) in input::identity(&job.task) {
        variables.own(name, &value)?;
    }
    variables.own(MARK, &shared.mark(&job.task))?;
    devices(shared, &job.devices, &mut variables)?;
    Ok(variables)
}

/// Which devices a child may see. Says nothing on a worker without any.
pub(crate) fn devices(
    shared: &Shared,
    devices: &[u32],
    variables: &mut Variables,
) -> Result<(), Box<TaskError>> {
    if shared.has_gpus {
        let list: Vec<String> = devices.iter().map(u32::to_string).collect();
        variables.own("CUDA_VISIBLE_DEVICES", &list.join(","))?;
    }
    Ok(())
}

/// A fresh directory with the task's bundle.
pub(crate) fn directory(shared: &Shared, process: &Process) -> Result<AttemptDir, Box<TaskError>> {
    let bundle = match &process.bundle {
        None => None,
        Some(blob) => Some(match shared.bundles.known(blob) {
            Some(known) => known,
            None => shared
                .bundles
                .fetch(blob, &*shared.blobs)
                .map_err(|error| {
                    failure::platform(
                        "artifact",
                        format!("cannot unpack the workflow's files: {error}"),
                    )
                })?,
        }),
    };
    shared
        .dirs
        .take(bundle.as_ref())
        .map_err(|error| no_room(&error))
}

/// Puts artifacts where the task wants them.
pub(crate) fn place_artifacts(
    shared: &Shared,
    job: &Job,
    process: &Process,
    dir: &AttemptDir,
) -> Result<(), Box<TaskError>> {
    for (path, artifact) in &process.artifacts_in {
        if job.cancelled.load(Ordering::Relaxed) {
            return Err(failure::platform("lost", "cancelled before it began"));
        }
        let name =
            checked_path(path).map_err(|error| failure::user("artifact", error.to_string()))?;
        let target = dir.files.join(name);
        let placed = target
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| match fs::remove_file(&target) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => shared.blobs.get_file(&artifact.blob, &target),
            });
        placed.map_err(|error| {
            failure::platform(
                "artifact",
                format!("cannot place the artifact `{path}`: {error}"),
            )
        })?;
    }
    Ok(())
}

fn no_room(error: &io::Error) -> Box<TaskError> {
    failure::platform(
        "spawn",
        format!("cannot prepare the attempt's directory: {error}"),
    )
}

/// Writes a file that only this user may read.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let mut file = File::create(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(bytes)
}

/// Starts the process of a prepared attempt, writes down that it runs, and lets the event loop watch
/// it.
pub(crate) fn launch(
    shared: &Shared,
    spawner: &mut Spawner,
    job: &Job,
    prepared: Prepared,
) -> Result<Launched, Box<TaskError>> {
    let Prepared {
        plan,
        has_input,
        dir,
        masker,
    } = prepared;
    let started = start(shared, spawner, &plan, &dir.files_c, &[]);
    match started.and_then(|running| watch(shared, job, running)) {
        Ok(running) => {
            let made = [("input", has_input), ("script", running.has_script)];
            Ok(Launched {
                dir,
                made: made
                    .into_iter()
                    .filter_map(|(kind, made)| made.then_some(kind))
                    .collect(),
                masker,
                running,
            })
        }
        Err(error) => {
            shared.dirs.give_back(dir);
            Err(error)
        }
    }
}

/// A process that cannot be watched must not run.
fn watch(shared: &Shared, job: &Job, running: Running) -> Result<Running, Box<TaskError>> {
    let task = &job.task;
    shared.slots.set(
        job.slot,
        &Record {
            attempt: Some((task.run, task.place, task.offer, task.attempt)),
            pid: running.child.pid,
            session: running.child.session,
            born: running.child.born,
        },
    );
    let watched = shared
        .watch(&running.stdout, job.key, Source::Stdout)
        .and_then(|()| shared.watch(&running.stderr, job.key, Source::Stderr))
        .and_then(|()| shared.watch(&running.child.pidfd, job.key, Source::Process));
    match watched {
        Ok(()) => Ok(running),
        Err(error) => {
            end(shared, running);
            Err(failure::platform(
                "spawn",
                format!("cannot watch a process: {error}"),
            ))
        }
    }
}

/// Ends a process that was just started.
pub(crate) fn end(shared: &Shared, mut running: Running) {
    let pid = running.child.pid;
    os::signal_group(pid, libc::SIGKILL);
    running.group.kill();
    let _ = os::wait_for(pid);
    shared.cgroups.give_back(running.group);
}

/// Starts a process with pipes for its output; `extra` become its descriptors from 3.
pub(crate) fn start(
    shared: &Shared,
    spawner: &mut Spawner,
    plan: &Plan,
    directory: &CStr,
    extra: &[BorrowedFd<'_>],
) -> Result<Running, Box<TaskError>> {
    let system =
        |error: &io::Error| failure::platform("spawn", format!("cannot start a process: {error}"));
    let pipe = || -> io::Result<(OwnedFd, OwnedFd)> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        Ok((read, high(write)?))
    };
    let (stdout, out) = pipe().map_err(|error| system(&error))?;
    let (stderr, err) = pipe().map_err(|error| system(&error))?;
    let group = shared
        .cgroups
        .take(&plan.resources)
        .map_err(|error| system(&error))?;
    let mut fds = vec![shared.nothing.as_fd(), out.as_fd(), err.as_fd()];
    fds.extend_from_slice(extra);
    let join = group.join();
    let mut spawn = |argv: &[String]| {
        spawn_program(
            shared,
            spawner,
            plan,
            argv,
            &os::Command {
                program: c"",
                argv: &[],
                env: &plan.env,
                directory,
                fds: &fds,
                cgroup: group.directory(),
                join: &join,
                data_limit: group.data_limit,
            },
        )
    };
    let direct = plan.direct.as_deref().and_then(|argv| spawn(argv).ok());
    let has_script = direct.is_none() && plan.script.is_some();
    let started = match direct {
        Some(child) => Ok(child),
        None => write_script(plan).and_then(|()| spawn(&plan.argv)),
    };
    drop(join);
    match started {
        Ok(child) => Ok(Running {
            child,
            stdout,
            stderr,
            group,
            has_script,
            started_at: (shared.clock)(),
        }),
        Err(error) => {
            shared.cgroups.give_back(group);
            Err(error)
        }
    }
}

fn write_script(plan: &Plan) -> Result<(), Box<TaskError>> {
    match &plan.script {
        None => Ok(()),
        Some((script, path)) => fs::write(path, script.as_bytes()).map_err(|error| no_room(&error)),
    }
}

fn spawn_program(
    shared: &Shared,
    spawner: &mut Spawner,
    plan: &Plan,
    argv: &[String],
    command: &os::Command<'_>,
) -> Result<os::Child, Box<TaskError>> {
    let name = argv.first().map_or("", String::as_str);
    let zero = |_| failure::user("spawn", "an argument holds a zero byte");
    let argv: Vec<CString> = argv
        .iter()
        .map(|text| CString::new(text.as_str()))
        .collect::<Result<_, _>>()
        .map_err(zero)?;
    let mut busy = 0;
    loop {
        let program = shared.programs.find(name, &plan.search)?;
        let error = match spawner.spawn(&os::Command {
            program: &program,
            argv: &argv,
            ..*command
        }) {
            Ok(child) => return Ok(child),
            Err(error) => error,
        };
        match &error {
            SpawnError::Exec(error)
                if error.kind() == io::ErrorKind::NotFound
                    && shared.programs.forget(name, &plan.search) => {}
            // Another start holds a file of ours open for a moment between its clone and its exec.
            SpawnError::Exec(error)
                if error.raw_os_error() == Some(libc::ETXTBSY) && busy < 100 =>
            {
                busy += 1;
                std::thread::yield_now();
            }
            _ => return Err(refused(&error, name, command.directory)),
        }
    }
}

fn refused(error: &SpawnError, name: &str, directory: &CStr) -> Box<TaskError> {
    match error {
        SpawnError::Clone(error) | SpawnError::Setup(error) => {
            failure::platform("spawn", format!("cannot start a process: {error}"))
        }
        SpawnError::Directory(error) => failure::platform(
            "spawn",
            format!("cannot enter the attempt's directory: {error}"),
        ),
        SpawnError::Exec(error) => match error.raw_os_error() {
            Some(libc::ENOMEM | libc::EAGAIN | libc::EMFILE | libc::ENFILE | libc::ETXTBSY) => {
                failure::platform("spawn", format!("cannot run `{name}`: {error}"))
            }
            Some(libc::E2BIG) => failure::user(
                "spawn",
                format!("cannot run `{name}`: its arguments and environment are too long"),
            ),
            Some(libc::ENOEXEC) => failure::user(
                "spawn",
                format!(
                    "cannot run `{name}`: it is no program; a script needs a first line like `#!/bin/sh`"
                ),
            ),
            Some(libc::ENOENT) if exists(name, directory) => failure::user(
                "spawn",
                format!("cannot run `{name}`: the interpreter named in it was not found"),
            ),
            _ => failure::user("spawn", format!("cannot run `{name}`: {}", plain(error))),
        },
    }
}

fn exists(name: &str, directory: &CStr) -> bool {
    let directory = Path::new(std::ffi::OsStr::from_bytes(directory.to_bytes()));
    name.contains('/') && directory.join(name).exists()
}

/// The error without the number that means nothing to most people.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_lowercase()
}

impl Programs {
    /// The file of a program.
    fn find(&self, name: &str, search: &[u8]) -> Result<CString, Box<TaskError>> {
        if name.contains('/') {
            return CString::new(name)
                .map_err(|_| failure::user("spawn", "the program's name holds a zero byte"));
        }
        let key = (name.to_owned(), search.to_vec());
        if let Some(found) = self.0.lock().get(&key) {
            return Ok(found.clone());
        }
        let found = search
            .split(|byte| *byte == b':')
            .filter(|directory| !directory.is_empty())
            .map(|directory| Path::new(std::ffi::OsStr::from_bytes(directory)).join(name))
            .find(|path| !name.is_empty() && is_program(path))
            .and_then(|path| CString::new(path.as_os_str().as_bytes()).ok())
            .ok_or_else(|| {
                let path = String::from_utf8_lossy(search).into_owned();
                failure::user(
                    "spawn",
                    format!("the program `{name}` was not found in PATH ({path})"),
                )
            })?;
        self.0.lock().insert(key, found.clone());
        Ok(found)
    }

    /// The path of a program, or its name if it was not found.
    pub(crate) fn path(&self, name: &str, search: &[u8]) -> PathBuf {
        match self.find(name, search) {
            Ok(path) => PathBuf::from(std::ffi::OsStr::from_bytes(path.to_bytes())),
            Err(_) => PathBuf::from(name),
        }
    }

    /// Forgets where a program was; true if that was known.
    fn forget(&self, name: &str, search: &[u8]) -> bool {
        self.0
            .lock()
            .remove(&(name.to_owned(), search.to_vec()))
            .is_some()
    }
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// The descriptor with a number above those that children give theirs.
pub(crate) fn high(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 9 {
        Ok(fd)
    } else {
        Ok(rustix::io::fcntl_dupfd_cloexec(&fd, 10)?)
    }
}
