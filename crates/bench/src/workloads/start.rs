//! The `kapell` binary with next to nothing to do.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use kapell_store::SqliteStore;

use super::{Figures, figures, median, write};
use crate::kapell::{Kapell, binary};

/// Until a process that has nothing to do has settled.
const SETTLED: Duration = Duration::from_secs(3);

/// Milliseconds of `kapell run` of one no-op step in a new directory, the whole process; raw is a
/// process that does nothing and a store that is made. And MiB of one that waits.
pub(crate) fn start(dir: &Path, n: usize) -> Result<Figures> {
    let kapell = binary()?;
    let (mut times, mut raws) = (Vec::new(), Vec::new());
    for round in 0..n {
        let folder = dir.join(format!("start-{round}"));
        let text = "workflow: one\nsteps:\n  a: { noop: {} }\n";
        write(&folder, "one.yaml", text)?;
        let started = Instant::now();
        let output = Command::new(&kapell)
            .args(["run", "one.yaml"])
            .current_dir(&folder)
            .output()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        let started = Instant::now();
        Command::new("/bin/true").output()?;
        drop(SqliteStore::open(&folder.join("raw"))?);
        raws.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Figures {
        raw: Some(median(raws)),
        ..figures(median(times))
    }
    .with("memory", idle(&dir.join("idle"))?))
}

/// MiB that a process keeps resident while its only run waits.
fn idle(dir: &Path) -> Result<f64> {
    let text = "workflow: idle\nsteps:\n  a: { noop: {} }\n  b: { needs: [a], wait: 365d }\n";
    write(dir, "idle.yaml", text)?;
    let kapell = Kapell::spawn(dir, &["run", "--json", "idle.yaml"])?;
    std::thread::sleep(SETTLED);
    kapell.resident()
}
