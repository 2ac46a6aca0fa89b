//! `python`: functions in warm host processes.
//!
//! A host serves one key: namespace, bundle, requirements, environment, bounds and devices. It runs
//! `host.py` and the package `kapell_host`, which speak length-prefixed JSON on descriptor 3 and leave
//! standard output to the user. Tasks of a key wait for one of its hosts; there are never more hosts than slots, the one idle
//! for longest makes room. A host that dies loses only the tasks it runs.
//!
//! Standard output goes to the log of the running task: a host writes its answer after it has flushed,
//! and gets its next call after the answer was read and the pipes were drained. Where several tasks
//! run in one host, it sends what they print as frames.

mod calls;
mod environments;
mod hosts;

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use kapell_api::task::{Process, TaskError, TaskResources, Work};
use kapell_model::spec::PythonSource;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::bundle::Unpacked;
use crate::dirs::AttemptDir;
use crate::failure;
use crate::input::{self, Resolver, Variables};
use crate::launch::{self, Job, Plan, Running};
use crate::mask::Masker;
use crate::os::Spawner;
use crate::shared::{Message, Shared};
use crate::survivors::MARK;

pub(crate) use environments::Environments;
pub(crate) use hosts::Hosts;

/// The host's own files; the first is what is started, and written last.
const OWN_FILES: [(&str, &str); 11] = [
    ("host.py", include_str!("python/host.py")),
    (
        "kapell_host/__init__.py",
        include_str!("python/kapell_host/__init__.py"),
    ),
    (
        "kapell_host/arguments.py",
        include_str!("python/kapell_host/arguments.py"),
    ),
    (
        "kapell_host/convert.py",
        include_str!("python/kapell_host/convert.py"),
    ),
    (
        "kapell_host/errors.py",
        include_str!("python/kapell_host/errors.py"),
    ),
    (
        "kapell_host/frames.py",
        include_str!("python/kapell_host/frames.py"),
    ),
    (
        "kapell_host/loading.py",
        include_str!("python/kapell_host/loading.py"),
    ),
    (
        "kapell_host/serve.py",
        include_str!("python/kapell_host/serve.py"),
    ),
    (
        "kapell_host/together.py",
        include_str!("python/kapell_host/together.py"),
    ),
    (
        "kapell_host/values.py",
        include_str!("python/kapell_host/values.py"),
    ),
    (
        "kapell/__init__.py",
        include_str!("../../../sdk/python/kapell/__init__.py"),
    ),
];

/// What one host serves.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct HostKey {
    namespace: Arc<str>,
    bundle: Option<Arc<str>>,
    requirements: Vec<Arc<str>>,
    env: Vec<(Arc<str>, Option<String>)>,
    concurrency: u32,
    bounds: (u64, u64),
    devices: Vec<u32>,
}

/// A task ready for a host.
pub(crate) struct Ready {
    key: Arc<HostKey>,
    python: PathBuf,
    bundle: Option<Arc<Unpacked>>,
    dir: AttemptDir,
    masker: Arc<Masker>,
    /// `"f":…,"w":…,"s":…`: the fields of the call that do not depend on the host.
    call: String,
    /// Inline code and what names it.
    code: Option<(String, Arc<str>)>,
}

/// What starts a host.
pub(crate) struct HostPlan {
    plan: Plan,
    directory: PathBuf,
}

/// A started host.
pub(crate) struct HostProcess {
    running: Running,
    socket: OwnedFd,
}

/// True if getting ready may take long.
pub(crate) fn is_long(shared: &Shared, process: &Process, requirements: &[Arc<str>]) -> bool {
    launch::is_long(shared, process) || !shared.environments.is_ready(requirements)
}

/// Gets a task ready for a host. Blocks.
pub(crate) fn prepare(shared: &Shared, job: &Job) -> Result<Ready, Box<TaskError>> {
    let Work::Python {
        source,
        function,
        requirements,
        concurrency,
        process,
    } = &job.task.work
    else {
        return Err(failure::platform("spawn", "the task is no function"));
    };
    let mut resolver = Resolver::new(shared, &job.task);
    let env = resolver.env(&process.env)?;
    let with = if process.with.secrets.is_empty() && !input::has_blobs(&process.with.value) {
        if process.with.value.is_null() {
            "{}".to_owned()
        } else {
            json(&process.with.value)
        }
    } else {
        resolver
            .with(&process.with, &*shared.blobs)?
            .map_or_else(|| "{}".to_owned(), |with| with.to_string())
    };
    let note = |text: &str| shared.inbox.send(Message::Note(job.key, text.to_owned()));
    let python = shared.environments.python(shared, requirements, &note)?;
    let dir = launch::directory(shared, process)?;
    if let Err(error) = launch::place_artifacts(shared, job, process, &dir) {
        shared.dirs.give_back(dir);
        return Err(error);
    }
    let (code, kind, place) = match source {
        PythonSource::File(path) => (None, "file", path.to_string()),
        PythonSource::Module(name) => (None, "module", name.to_string()),
        PythonSource::Code(code) => {
            let hash = blake3::hash(code.as_bytes()).to_hex()[..16].to_owned();
            (Some((hash.clone(), Arc::clone(code))), "code", hash)
        }
    };
    let call = format!(
        r#""f":{},"s":["{kind}",{}],"w":{with}"#,
        json(&**function),
        json(&place)
    );
    let bundle = process
        .bundle
        .as_ref()
        .and_then(|blob| shared.bundles.known(blob));
    let resources = &process.resources;
    let key = HostKey {
        namespace: Arc::clone(&process.namespace),
        bundle: bundle.as_ref().map(|bundle| Arc::clone(&bundle.hash)),
        requirements: requirements.clone(),
        env,
        concurrency: (*concurrency).max(1),
        bounds: (resources.memory_bytes, resources.cpu_millis),
        devices: job.devices.clone(),
    };
    Ok(Ready {
        key: Arc::new(key),
        python,
        bundle,
        dir,
        masker: resolver.masker(),
        call,
        code,
    })
}

fn json(value: &(impl serde::Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

/// What starts a host for this task and others like it.
fn host_plan(shared: &Shared, ready: &Ready, number: u64) -> Result<HostPlan, Box<TaskError>> {
    let own = own_files(&shared.cache).map_err(|error| {
        failure::platform("spawn", format!("cannot write the Python host: {error}"))
    })?;
    let mut variables = Variables::default();
    for (name, value) in &ready.key.env {
        variables.set(name, value.as_deref().map(str::as_bytes))?;
    }
    variables.own("KAPELL_NAMESPACE", &ready.key.namespace)?;
    variables.own(MARK, &shared.host_mark(number))?;
    launch::devices(shared, &ready.key.devices, &mut variables)?;
    let path = |path: &Path| path.display().to_string();
    let search = variables
        .get("PATH")
        .or_else(|| shared.env.get("PATH"))
        .unwrap_or(b"/usr/local/bin:/usr/bin:/bin")
        .to_vec();
    let bundle = ready
        .bundle
        .as_ref()
        .map_or(String::new(), |bundle| path(&bundle.path));
    let argv = vec![
        path(&ready.python),
        path(&own.join("host.py")),
        path(&own),
        bundle,
        path(&shared.cache.join("pycache")),
        ready.key.concurrency.to_string(),
    ];
    let (memory_bytes, cpu_millis) = ready.key.bounds;
    let resources = TaskResources {
        cpu_millis,
        memory_bytes,
        ..TaskResources::default()
    };
    let env = shared.env.with(&variables);
    let plan = Plan {
        argv,
        direct: None,
        script: None,
        env,
        search,
        resources,
    };
    Ok(HostPlan {
        plan,
        directory: shared.dirs.io.clone(),
    })
}

/// The host's own files, in a folder named after their content.
fn own_files(cache: &Path) -> io::Result<PathBuf> {
    static HASH: LazyLock<String> = LazyLock::new(|| {
        let all: Vec<String> = OWN_FILES
            .iter()
            .map(|(name, text)| format!("{name}\0{text}\0"))
            .collect();
        blake3::hash(all.concat().as_bytes()).to_hex()[..16].to_owned()
    });
    let folder = cache.join("python").join(&*HASH);
    if folder.join("host.py").is_file() {
        return Ok(folder);
    }
    for inner in ["kapell", "kapell_host"] {
        fs::create_dir_all(folder.join(inner))?;
    }
    for (name, text) in OWN_FILES.iter().rev() {
        let partial = folder.join(format!("{name}.partial"));
        fs::write(&partial, text)?;
        fs::rename(partial, folder.join(name))?;
    }
    Ok(folder)
}

/// Starts a host, on a thread that never ends.
pub(crate) fn start_host(
    shared: &Shared,
    spawner: &mut Spawner,
    plan: &HostPlan,
) -> Result<HostProcess, Box<TaskError>> {
    let system = |error: &dyn std::fmt::Display| {
        failure::platform("spawn", format!("cannot start a Python host: {error}"))
    };
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|error| system(&error))?;
    rustix::io::ioctl_fionbio(&ours, true).map_err(|error| system(&error))?;
    let theirs = launch::high(theirs).map_err(|error| system(&error))?;
    let directory = std::ffi::CString::new(plan.directory.as_os_str().as_encoded_bytes())
        .map_err(|error| system(&error))?;
    let running = launch::start(shared, spawner, &plan.plan, &directory, &[theirs.as_fd()])?;
    Ok(HostProcess {
        running,
        socket: ours,
    })
}
