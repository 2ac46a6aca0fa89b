//! Calls the built binary.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

/// How long one call may take. Making the Python environment of an example is most of it.
const PATIENCE: Duration = Duration::from_mins(10);

/// The binary with a data directory of its own.
pub(super) struct Kapell {
    binary: PathBuf,
    examples: PathBuf,
    folder: PathBuf,
}

/// What a call left behind.
struct Ended {
    success: bool,
    stdout: String,
    stderr: String,
}

impl Kapell {
    /// `folder` is empty and belongs to this example alone.
    pub(super) fn new(binary: &Path, examples: &Path, folder: &Path) -> Self {
        Self {
            binary: binary.to_owned(),
            examples: examples.to_owned(),
            folder: folder.to_owned(),
        }
    }

    /// A folder for what the example needs from outside.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs a workflow to its success; its outputs.
    pub(super) fn run(&self, file: &str, params: &[&str]) -> Result<Value> {
        let mut arguments = vec!["run", file, "--json"];
        arguments.extend(params.iter().flat_map(|param| ["-p", param]));
        outputs(&self.succeeds(&arguments)?)
    }

    /// Retries the last run to its success; its outputs.
    pub(super) fn retry(&self) -> Result<Value> {
        outputs(&self.succeeds(&["retry", "--json"])?)
    }

    /// What a call prints that must succeed.
    pub(super) fn succeeds(&self, arguments: &[&str]) -> Result<String> {
        let ended = self.call(arguments)?;
        ensure!(
            ended.success,
            "`kapell {}` failed:\n{}{}",
            arguments.join(" "),
            ended.stdout,
            ended.stderr
        );
        Ok(ended.stdout)
    }

    /// What a call prints, on both streams, that must fail.
    pub(super) fn fails(&self, arguments: &[&str]) -> Result<String> {
        let ended = self.call(arguments)?;
        ensure!(
            !ended.success,
            "`kapell {}` should have failed:\n{}",
            arguments.join(" "),
            ended.stdout
        );
        Ok(ended.stdout + &ended.stderr)
    }

    fn call(&self, arguments: &[&str]) -> Result<Ended> {
        let mut child = Command::new(&self.binary)
            .args(arguments)
            .current_dir(&self.examples)
            .env("KAPELL_DATA", self.folder.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.binary.display()))?;
        let stdout = read(child.stdout.take());
        let stderr = read(child.stderr.take());
        let (Ok(stdout), Ok(stderr)) =
            (stdout.recv_timeout(PATIENCE), stderr.recv_timeout(PATIENCE))
        else {
            child.kill()?;
            child.wait()?;
            bail!(
                "`kapell {}` did not end in {} s",
                arguments.join(" "),
                PATIENCE.as_secs()
            );
        };
        Ok(Ended {
            success: child.wait()?.success(),
            stdout: stdout?,
            stderr: stderr?,
        })
    }
}

/// Reads a stream to its end on a thread, so that neither fills up and the wait can be bounded.
fn read(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<std::io::Result<String>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        let result = stream
            .map_or(Ok(0), |mut stream| stream.read_to_string(&mut text))
            .map(|_| text);
        // Nobody listens once the patience is over.
        let _ = sender.send(result);
    });
    receiver
}

/// `outputs` of the run that a call printed as JSON.
fn outputs(text: &str) -> Result<Value> {
    let run: Value = serde_json::from_str(text).with_context(|| format!("not JSON: {text}"))?;
    run.get("outputs")
        .cloned()
        .ok_or_else(|| anyhow!("no outputs in {text}"))
}
