//! Runs that wait for a time far away: they should cost next to nothing.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use kapell_api::client::{Client, RunCalls, WorkflowCalls};
use kapell_api::http::StartRun;

use super::{Figures, figures, write};
use crate::kapell::Kapell;

/// Clients that start runs at a time: commits are shared.
const CLIENTS: usize = 16;

/// A minute until idle runs leave memory, and the next looks for them.
const LEFT: Duration = Duration::from_secs(75);

/// What a start does is over.
const RESTARTED: Duration = Duration::from_secs(15);

/// How long CPU time is measured.
const MEASURED: Duration = Duration::from_secs(20);

const FILE: &str = "parked.yaml";
const RUN: [&str; 3] = ["run", "--json", FILE];

/// Percent of a core and MiB of a `kapell` process with `n` runs that wait a year: the process that
/// started them, once they have left memory, and one after it on the same directory.
pub(crate) fn parked(dir: &Path, n: usize) -> Result<Figures> {
    write(dir, FILE, "workflow: parked\nsteps:\n  a: { wait: 365d }\n")?;
    let mut kapell = Kapell::spawn(dir, &RUN)?;
    // It registers the workflow before its own run starts.
    let client = kapell.client(dir)?;
    while client.workflows("", 1)?.workflows.is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    start(&mut kapell, dir, n)?;
    std::thread::sleep(LEFT);
    let (cpu, memory) = (kapell.load(MEASURED)?, kapell.resident()?);
    waiting(&client, n)?;
    drop(kapell);

    let mut kapell = Kapell::spawn(dir, &RUN)?;
    let client = kapell.client(dir)?;
    std::thread::sleep(RESTARTED);
    let (again, after) = (kapell.load(MEASURED)?, kapell.resident()?);
    waiting(&client, n)?;
    Ok(figures(cpu)
        .with("memory", memory)
        .with("cpu after restart", again)
        .with("memory after restart", after))
}

fn start(kapell: &mut Kapell, dir: &Path, n: usize) -> Result<()> {
    let started = AtomicUsize::new(0);
    let clients = (0..CLIENTS)
        .map(|_| kapell.client(dir))
        .collect::<Result<Vec<_>>>()?;
    let ask = StartRun {
        workflow: "parked".to_owned(),
        version: None,
        params: kapell_expr::Value::Null,
        text: false,
        by: "bench".to_owned(),
        priority: None,
        idempotency_key: None,
        scheduled_at: None,
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .map(|client| {
                scope.spawn(|| {
                    let client = client;
                    while started.fetch_add(1, Ordering::Relaxed) < n {
                        client.start(&ask)?;
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| anyhow::bail!("a client panicked"))
        })
    })
}

/// Makes sure that the runs are there and wait.
fn waiting(client: &Client, n: usize) -> Result<()> {
    let page = client.workflows("", 1)?;
    let runs = page.workflows.first().map(|workflow| &workflow.runs);
    let running = runs.and_then(|runs| runs.get("running")).copied();
    ensure!(
        running.unwrap_or(0) >= u64::try_from(n)?,
        "not all {n} runs wait: {runs:?}"
    );
    Ok(())
}
