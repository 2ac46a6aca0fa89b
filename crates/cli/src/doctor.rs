//! `kapell doctor`

mod certificates;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command as Process;

use kapell_api::client::{Client, HealthCalls, HttpServer, Target};
use kapell_model::{Error, Time};
use kapell_node::clock;
use serde::Serialize;

use crate::args::Doctor;
use crate::config::{self, Config};
use crate::paint::{BOLD, DIM, GREEN, Line, PLAIN, RED, YELLOW};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, words};

/// Syncs that are timed.
const SYNCS: usize = 20;
/// A sync slower than this holds commits up.
const SLOW_SYNC_MICROS: i64 = 20_000;
/// Open files that many attempts at a time need.
const FILES: u64 = 4_096;
/// Room that a data directory should have, and must have.
const ROOM: u64 = 2 << 30;
const LITTLE_ROOM: u64 = 100 << 20;
/// Seconds that two clocks may be apart.
const CLOCKS_APART: i64 = 5;
/// A clock before this is not set.
const BUILT: Time = Time(1_735_689_600_000_000);

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

fn ok(name: &'static str, found: impl Into<String>) -> Check {
    Check {
        name,
        verdict: Verdict::Ok,
        found: found.into(),
        hint: None,
    }
}

fn warn(name: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Check {
    Check {
        name,
        verdict: Verdict::Warn,
        found: found.into(),
        hint: Some(hint.into()),
    }
}

fn fail(name: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Check {
    Check {
        name,
        verdict: Verdict::Fail,
        found: found.into(),
        hint: Some(hint.into()),
    }
}

pub(crate) fn doctor(doctor: &Doctor, config: &Config, printer: &mut Printer) -> Ended {
    let mut checks = vec![ok(
        "kapell",
        format!("version {}", env!("CARGO_PKG_VERSION")),
    )];
    let trusted = config.ca().map(certificates::trusted);
    let refused = trusted.as_ref().is_some_and(is_failed);
    checks.extend(trusted);
    match config.server() {
        Ok(Some(server)) => checks.extend(of_server(server)),
        Ok(None) => checks.extend(of_directory(config)),
        // Said already.
        Err(_) if refused => {}
        Err(error) => return Err(error),
    }
    let failed = checks.iter().any(is_failed);
    if doctor.json {
        printer.json(&checks)?;
    } else {
        printer.lines(&rows(&checks))?;
    }
    Ok(if failed { Exit::Failed } else { Exit::Success })
}

fn is_failed(check: &Check) -> bool {
    check.verdict == Verdict::Fail
}

/// What can be said of a server from here.
fn of_server(server: HttpServer) -> Vec<Check> {
    const NAME: &str = "server";
    let url = server.url().to_owned();
    let failed = |name, error: Error| fail(name, error.message, error.hint.unwrap_or_default());
    let client = match Client::to(Target::Http(Box::new(server))) {
        Ok(client) => client,
        Err(error) => return vec![failed(NAME, error)],
    };
    let mut checks = vec![match client.ready() {
        Ok(()) => ok(NAME, format!("{url} takes requests")),
        Err(error) => failed(NAME, error),
    }];
    if !url.starts_with("https:") && !is_here(&url) {
        checks.push(warn(
            "encryption",
            "none: others on the way can read along",
            "https, where the server is not on this machine",
        ));
    }
    let health = match client.health() {
        Ok(health) => health,
        Err(error) => {
            checks.push(failed("token", error));
            return checks;
        }
    };
    checks.push(ok("token", "lets in, to look at least"));
    let own = env!("CARGO_PKG_VERSION");
    checks.push(if health.version == own {
        ok("version", "the same as here")
    } else {
        warn(
            "version",
            format!("{} there, {own} here", health.version),
            "a command may lack what the server knows, or know what it lacks",
        )
    });
    if let Some(there) = health.at {
        let apart = clock::now().since(there).as_secs().abs();
        let found = format!("{} apart", words::count(apart.unsigned_abs(), "second"));
        checks.push(if apart > CLOCKS_APART {
            warn(
                "clocks",
                found,
                "set both by NTP: ages and deadlines seem other than they are",
            )
        } else {
            ok("clocks", found)
        });
    }
    checks
}

/// What can be said of a data directory and this machine.
fn of_directory(config: &Config) -> Vec<Check> {
    let folder = existing(&config.data_dir);
    let mut checks = vec![
        writable(&config.data_dir, folder),
        access(&config.data_dir),
        data(config),
        sync(folder),
        room(folder),
        machine(config),
        files(),
        cgroups(),
        python(),
        uv(),
        time(),
    ];
    checks.extend(certificates::shown(config));
    checks
}

fn rows(checks: &[Check]) -> Vec<Line> {
    let mut lines = Vec::new();
    for check in checks {
        let (sign, style) = match check.verdict {
            Verdict::Ok => ("✓ ok  ", GREEN),
            Verdict::Warn => ("! warn", YELLOW),
            Verdict::Fail => ("✗ fail", RED),
        };
        let mut line = Line::default()
            .with(style, sign)
            .with(PLAIN, "  ")
            .with(BOLD, check.name);
        line.pad(24);
        lines.push(line.with(PLAIN, &check.found));
        if let Some(hint) = &check.hint {
            let mut line = Line::default();
            line.pad(24);
            lines.push(line.with(DIM, hint));
        }
    }
    lines
}

/// The folder itself, or the nearest above it that is there.
fn existing(path: &Path) -> &Path {
    path.ancestors()
        .find(|path| path.is_dir())
        .unwrap_or(Path::new("."))
}

fn writable(data_dir: &Path, folder: &Path) -> Check {
    const NAME: &str = "data directory";
    let probe = folder.join(format!(".kapell-doctor-{}", std::process::id()));
    let shown = data_dir.display();
    let made = if data_dir.is_dir() {
        ""
    } else {
        ", not made yet"
    };
    match File::create(&probe) {
        Ok(_) => {
            let _ = fs::remove_file(&probe);
            ok(NAME, format!("`{shown}`{made}, {}", file_system(folder)))
        }
        Err(error) => fail(
            NAME,
            format!("`{shown}` cannot be written: {error}"),
            "choose another with `--data-dir` or KAPELL_DATA_DIR",
        ),
    }
}

/// Whether others may look into what is kept.
fn access(data_dir: &Path) -> Check {
    const NAME: &str = "access";
    let Ok(found) = fs::metadata(data_dir) else {
        return ok(NAME, "its owner alone, once it is made");
    };
    let mode = found.permissions().mode() & 0o777;
    if mode.trailing_zeros() >= 6 {
        return ok(NAME, "its owner alone");
    }
    warn(
        NAME,
        format!("others may enter: its mode is {mode:o}"),
        format!(
            "logs and outputs are in it: `chmod 700 {}`",
            data_dir.display()
        ),
    )
}

/// The kind of file system a folder is on, from the mounts of this process.
fn file_system(folder: &Path) -> String {
    let Ok(path) = folder.canonicalize() else {
        return "unknown file system".to_owned();
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let innermost = mounts
        .lines()
        .filter_map(|line| {
            let (place, kind) = line.split_once(" - ")?;
            let point = place.split(' ').nth(4)?.to_owned();
            path.starts_with(&point)
                .then_some((point.len(), kind.split(' ').next()?))
        })
        .max_by_key(|(length, _)| *length);
    innermost.map_or_else(
        || "unknown file system".to_owned(),
        |(_, kind)| kind.to_owned(),
    )
}

/// Whether what is there can be opened.
fn data(config: &Config) -> Check {
    const NAME: &str = "store";
    if !config.has_store() {
        return ok(NAME, "none yet");
    }
    match session::open(config, Need::Look) {
        Ok(session) => match session.holder() {
            Some(holder) => ok(NAME, format!("held by {holder}, which answers")),
            None => ok(NAME, "can be opened"),
        },
        Err(error) => fail(NAME, error.message, error.hint.unwrap_or_default()),
    }
}

fn sync(folder: &Path) -> Check {
    const NAME: &str = "sync to disk";
    let path = folder.join(format!(".kapell-doctor-sync-{}", std::process::id()));
    let measure = || -> std::io::Result<i64> {
        let mut file = File::create(&path)?;
        let mut times = Vec::new();
        for _ in 0..SYNCS {
            let before = clock::now();
            file.write_all(&[0; 512])?;
            file.sync_data()?;
            times.push(clock::now().0 - before.0);
        }
        times.sort_unstable();
        Ok(times[SYNCS / 2])
    };
    let measured = measure();
    let _ = fs::remove_file(&path);
    match measured {
        Ok(micros) => {
            let found = format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100);
            if micros > SLOW_SYNC_MICROS {
                warn(
                    NAME,
                    found,
                    "each step waits for such syncs: a local SSD is much faster",
                )
            } else {
                ok(NAME, found)
            }
        }
        Err(error) => fail(
            NAME,
            format!("not possible: {error}"),
            "use a data directory on a local disk",
        ),
    }
}

fn room(folder: &Path) -> Check {
    const NAME: &str = "free space";
    match rustix::fs::statvfs(folder) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let text = words::bytes(free);
            if free < LITTLE_ROOM {
                fail(NAME, text, "runs stop where the disk is full: make room")
            } else if free < ROOM {
                warn(NAME, text, "logs, outputs and artifacts need room")
            } else {
                ok(NAME, text)
            }
        }
        Err(error) => warn(NAME, format!("unknown: {error}"), "look at it with `df`"),
    }
}

fn machine(config: &Config) -> Check {
    let capacity = config.capacity(None);
    let mut found = format!(
        "{}, {} of memory",
        words::count(capacity.cpu_millis / 1_000, "core"),
        words::bytes(capacity.memory_bytes)
    );
    if capacity.gpus > 0 {
        found += &format!(", {}", words::count(u64::from(capacity.gpus), "GPU"));
    }
    ok(
        "machine",
        format!(
            "{found}: {} at a time",
            words::count(capacity.slots as u64, "attempt")
        ),
    )
}

fn files() -> Check {
    const NAME: &str = "open files";
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    match limit {
        Some(limit) if limit < FILES => warn(
            NAME,
            format!("at most {limit}"),
            format!("many attempts at a time need more: `ulimit -n {FILES}`"),
        ),
        Some(limit) => ok(NAME, format!("at most {limit}")),
        None => ok(NAME, "no bound"),
    }
}

fn cgroups() -> Check {
    const NAME: &str = "cgroups";
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let v2 = own.lines().find_map(|line| line.strip_prefix("0::"));
    let folder = v2.map(|path| Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/')));
    let can = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    match folder {
        Some(folder) if folder.join("cgroup.procs").exists() && can(&folder) => {
            ok(NAME, "version 2, writable")
        }
        _ if can(Path::new("/sys/fs/cgroup/memory")) => ok(NAME, "version 1, writable"),
        _ => warn(
            NAME,
            "not writable",
            "steps run all the same; bounds on memory hold each process, not all of a step together",
        ),
    }
}

/// What a program says of its version.
fn version(program: &Path) -> Option<String> {
    let said = Process::new(program).arg("--version").output().ok()?;
    let text = if said.stdout.is_empty() {
        said.stderr
    } else {
        said.stdout
    };
    Some(words::first_line(&String::from_utf8_lossy(&text)).to_owned())
        .filter(|_| said.status.success())
}

fn python() -> Check {
    const NAME: &str = "python3";
    let Some(program) = config::program("python3") else {
        return warn(
            NAME,
            "not found",
            "needed by `python:` steps alone: install Python 3.9 or newer",
        );
    };
    let Some(found) = version(&program) else {
        return warn(
            NAME,
            format!("`{}` does not run", program.display()),
            "needed by `python:` steps alone",
        );
    };
    let minor = found
        .split('.')
        .nth(1)
        .and_then(|minor| minor.parse::<u32>().ok());
    if minor.is_some_and(|minor| minor < 9) {
        return warn(NAME, found, "`python:` steps need Python 3.9 or newer");
    }
    ok(NAME, format!("{found}, `{}`", program.display()))
}

fn uv() -> Check {
    const NAME: &str = "uv";
    match config::program("uv").and_then(|program| version(&program)) {
        Some(found) => ok(NAME, found),
        None => ok(
            NAME,
            "not found: `requirements` are installed by venv and pip, which is slower",
        ),
    }
}

fn time() -> Check {
    const NAME: &str = "clock";
    let now = clock::now();
    if now < BUILT {
        return fail(
            NAME,
            words::moment(now),
            "the clock is not set: ids and histories would lie",
        );
    }
    ok(
        NAME,
        format!(
            "{} here, {} in UTC",
            words::moment(now),
            now.timestamp().strftime("%H:%M:%S")
        ),
    )
}

/// True for an address that nobody else is on the way to.
fn is_here(url: &str) -> bool {
    let host = url.split_once("//").map_or(url, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name == "[::1]" || name.starts_with("127.")
}

#[cfg(test)]
mod tests {
    use super::is_here;

    #[test]
    fn only_what_leaves_the_machine_can_be_read_on_the_way() {
        for here in [
            "http://127.0.0.1:7420",
            "http://localhost:7420/x",
            "http://[::1]:80",
            "http://localhost",
        ] {
            assert!(is_here(here), "{here}");
        }
        for far in [
            "http://kapell.example.org:7420",
            "http://10.0.0.1",
            "http://[fd00::1]:80",
        ] {
            assert!(!is_here(far), "{far}");
        }
    }
}
