//! The API of a real server against its own document: schemathesis makes requests that fit the document and
//! requests that do not, and no answer may be a fault of the server or other than the document says.
//!
//! The seed is fixed and the time bounded, so that two runs do the same.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// What is installed, from the Python package index.
const SCHEMATHESIS: &str = "schemathesis==4.32.*";

/// What must hold of every answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

/// What is done of each operation: what the document shows, values at the bounds of its schemas, and
/// values made up at random, of which some fit the document and some do not.
const PHASES: &str = "examples,coverage,fuzzing";

/// Requests of each kind and operation.
const EXAMPLES: &str = "15";

/// All of it takes less than a minute on two free cores.
const PATIENCE: Duration = Duration::from_mins(15);

/// A stream begins within this.
const STREAM_PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks whether it is over.
const PAUSE: Duration = Duration::from_millis(200);

const WORKFLOW: &str = "\
workflow: hello
params:
  name: { type: string, default: world }
steps:
  greet: { noop: }
  after: { needs: [greet], noop: }
";

/// Tests the API of the binary that `arguments` name.
pub(crate) fn run(root: &Path, arguments: &[String], out: &mut dyn Write) -> Result<()> {
    let own = root.join("target/debug/kapell");
    let (binary, phases) = match arguments {
        [flag, path] if flag == "--bin" => (PathBuf::from(path), PHASES),
        [flag, path, phases] if flag == "--bin" => (PathBuf::from(path), phases.as_str()),
        [] => (own, PHASES),
        [phases] => (own, phases.as_str()),
        _ => bail!("usage: xtask api [--bin PATH] [PHASES]"),
    };
    let binary = binary
        .canonicalize()
        .with_context(|| format!("cannot find {}; build it first", binary.display()))?;
    let st = installed(&root.join("target/schemathesis"))?;
    let folder = tempfile::tempdir()?;
    let server = Server::start(&binary, folder.path())?;
    std::fs::write(folder.path().join("hello.yaml"), WORKFLOW)?;
    server.kapell(&["run", "hello.yaml"])?;
    let document = format!("{}/api/v1/openapi.json", server.url);
    let mut tests = Command::new(st);
    tests.args(["run", &document, "--checks", CHECKS]);
    tests.args(["--seed", "1", "--max-examples", EXAMPLES]);
    tests.args(["--phases", phases]);
    // Streams have no end, and what waits for a change does so for a while: `streams` asks for them.
    tests.args(["--exclude-tag", "events", "--request-timeout", "45"]);
    tests.args(["--exclude-operation-id", "wait_for_run"]);
    tests.args([
        "--suppress-health-check",
        "all",
        "--warnings",
        "off",
        "--no-color",
    ]);
    let mut tests = tests
        .current_dir(folder.path())
        .spawn()
        .context("cannot start schemathesis")?;
    let mut left = PATIENCE;
    let status = loop {
        if let Some(status) = tests.try_wait()? {
            break status;
        }
        if left.is_zero() {
            tests.kill()?;
            tests.wait()?;
            bail!(
                "the API was not tested in {} s: something hangs",
                PATIENCE.as_secs()
            );
        }
        thread::park_timeout(PAUSE);
        left = left.saturating_sub(PAUSE);
    };
    ensure!(status.success(), "the API does not keep to its document");
    streams(&server.url)?;
    // After all of it the server still works, once what was paused goes on and nothing stops.
    server.kapell(&["workflow", "resume", "--all"])?;
    server.kapell(&["breakpoint", "remove", "--all-workflows", "--all"])?;
    std::fs::write(
        folder.path().join("again.yaml"),
        WORKFLOW.replace("hello", "again"),
    )?;
    // The worker inside may have been drained, as the API allows: another one does the work.
    let mut worker = Command::new(&server.binary)
        .args(["worker", "--server", &server.url, "--data-dir", "worker"])
        .current_dir(folder.path())
        .spawn()
        .context("cannot start a worker")?;
    let ran = server.kapell(&["run", "again.yaml"]);
    worker.kill()?;
    worker.wait()?;
    ran?;
    writeln!(out, "ok      the API keeps to its document")?;
    Ok(())
}

/// Asks for streams, which have no end, with all kinds of places to go on from, and to wait for all kinds of
/// short times: each begins, or is refused, at once.
fn streams(url: &str) -> Result<()> {
    let address = url.split_once("//").map_or(url, |(_, address)| address);
    let long = "9".repeat(2_000);
    let ids = [
        "0-0",
        "-",
        "--",
        "0",
        "-1",
        "0-",
        "-0",
        "1-18446744073709551616",
        "zz-1",
        "%00",
        "%FF",
        "%F0%9F%A6%80",
        "0-0%0A",
        &long,
    ];
    let paths = [
        "/events",
        "/workflows/hello/events",
        "/workflows/none/events",
        "/workflows/%F0%9F/events",
        "/runs/last/events",
        "/runs/none/events",
        "/runs/%00%00%00%00/events",
    ];
    for time in ["", "0", "1", "-1", "1.5", "1e3", "many", "%00", &long] {
        for run in ["last", "none", "%00%00%00%00"] {
            begins(
                address,
                &format!("/api/v1/runs/{run}/wait?timeout_ms={time}"),
            )?;
        }
    }
    for path in paths {
        for id in ids {
            for target in [
                format!("/api/v1{path}?last_event_id={id}"),
                format!("/api/v1{path}?last_event_id={id}&last_event_id={id}"),
                format!("/api/v1{path}?{id}=1"),
            ] {
                begins(address, &target)?;
            }
        }
    }
    Ok(())
}

/// An answer begins at once, and is none of a fault.
fn begins(address: &str, target: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(STREAM_PATIENCE))?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream)
        .read_line(&mut line)
        .with_context(|| format!("{target} hangs"))?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    ensure!(
        status.is_some_and(|status: u16| status == 200 || (400..500).contains(&status)),
        "{target} answers: {line}"
    );
    Ok(())
}

/// The program of an environment in a folder, made if it is not there.
fn installed(folder: &Path) -> Result<PathBuf> {
    let st = folder.join("bin/st");
    if st.exists() {
        return Ok(st);
    }
    let folder = folder.to_str().context("the path is no text")?;
    let commands: [(&str, &[&str]); 2] = [
        ("python3", &["-m", "venv", folder]),
        (
            &format!("{folder}/bin/pip"),
            &[
                "install",
                "--quiet",
                "--disable-pip-version-check",
                SCHEMATHESIS,
            ],
        ),
    ];
    for (program, arguments) in commands {
        let status = Command::new(program).args(arguments).status();
        let status = status.with_context(|| format!("cannot start {program}"))?;
        ensure!(status.success(), "{program} {} failed", arguments.join(" "));
    }
    Ok(st)
}

/// A server with a directory of its own. Dropping it ends it.
struct Server {
    child: Child,
    /// Kept open: it goes on to say things.
    _output: Option<BufReader<ChildStdout>>,
    binary: PathBuf,
    folder: PathBuf,
    url: String,
}

impl Server {
    fn start(binary: &Path, folder: &Path) -> Result<Self> {
        let mut child = Command::new(binary)
            .args(["server", "--listen", "127.0.0.1:0"])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let mut line = String::new();
        let mut output = child.stdout.take().map(BufReader::new);
        if let Some(output) = &mut output {
            output.read_line(&mut line)?;
        }
        let url = line.split_whitespace().find(|word| word.contains("://"));
        let mut server = Self {
            child,
            _output: output,
            binary: binary.to_owned(),
            folder: folder.to_owned(),
            url: String::new(),
        };
        let url = url.with_context(|| format!("the server said: {line}"))?;
        url.clone_into(&mut server.url);
        Ok(server)
    }

    fn kapell(&self, arguments: &[&str]) -> Result<()> {
        let ended = Command::new(&self.binary)
            .args(arguments)
            .args(["--server", &self.url])
            .current_dir(&self.folder)
            .output()?;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(
            ended.status.success(),
            "`kapell {}` failed:\n{said}",
            arguments.join(" ")
        );
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already cannot be ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
