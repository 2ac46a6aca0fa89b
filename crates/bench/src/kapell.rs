//! The `kapell` binary as others use it, and what the system says of its process.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kapell_api::client::Client;
use kapell_api::http::SOCKET;

/// How long a process may take until it answers.
const PATIENCE: Duration = Duration::from_mins(2);

/// Where the binary is.
pub(crate) fn binary() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("kapell");
    if !path.exists() {
        bail!("build the `kapell` binary first: `cargo build --release -p kapell-cli`");
    }
    Ok(path)
}

/// Ticks of the system's accounts in a second.
const TICKS: f64 = 100.0;

/// A `kapell` process that is killed when it is dropped.
pub(crate) struct Kapell(Child);

impl Kapell {
    /// A process that was started.
    pub(crate) fn of(child: Child) -> Self {
        Self(child)
    }

    /// Starts a command in a directory, whose output nobody reads.
    pub(crate) fn spawn(dir: &Path, args: &[&str]) -> Result<Self> {
        let child = Command::new(binary()?)
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()?;
        Ok(Self(child))
    }

    /// A client of this process, which holds `.kapell` of its directory, once it answers.
    pub(crate) fn client(&mut self, dir: &Path) -> Result<Client> {
        let since = Instant::now();
        loop {
            match Client::connect(&dir.join(".kapell").join(SOCKET)) {
                Ok(client) => return Ok(client),
                Err(error) if since.elapsed() > PATIENCE => return Err(error.into()),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
            if let Some(status) = self.0.try_wait()? {
                bail!("`kapell` ended: {status}");
            }
        }
    }

    /// Waits for its good end.
    pub(crate) fn ended(mut self) -> Result<()> {
        let status = self.0.wait()?;
        if !status.success() {
            bail!("`kapell` ended: {status}");
        }
        Ok(())
    }

    /// MiB that are resident now.
    pub(crate) fn resident(&self) -> Result<f64> {
        let bytes = memory(&self.0.id().to_string(), "VmRSS:").context("no resident memory")?;
        Ok(bytes as f64 / 1024.0 / 1024.0)
    }

    /// Seconds of CPU that it has used, to a hundredth.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The name may hold anything; what follows its bracket are numbers.
        let (_, fields) = stat.rsplit_once(')').context("no such line")?;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: f64 = ticks.map(|field| field.parse::<f64>().unwrap_or(0.0)).sum();
        Ok(ticks / TICKS)
    }

    /// Percent of one core that it uses over a while, to a hundredth.
    pub(crate) fn load(&self, over: Duration) -> Result<f64> {
        let (before, since) = (self.cpu()?, Instant::now());
        std::thread::sleep(over);
        let used = (self.cpu()? - before) / since.elapsed().as_secs_f64() * 100.0;
        Ok((used * 100.0).round() / 100.0)
    }
}

impl Drop for Kapell {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bytes that a line of a process's status names.
pub(crate) fn memory(process: &str, line: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|text| text.starts_with(line))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
