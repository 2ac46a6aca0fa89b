//! A cluster on this machine: a database, three nodes and two workers do the flights example while a node and a
//! worker are killed. It prints who took over, when, and what was done again.

#![allow(clippy::disallowed_methods, reason = "it shows how long things took")]

mod town;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use self::town::{NODES, Town};

/// Between two looks at what goes on.
const PAUSE: Duration = Duration::from_millis(100);

/// All of it takes a few minutes, most of them to make the Python environments.
const PATIENCE: Duration = Duration::from_mins(20);

/// Shards that somebody must own.
const SHARDS: u64 = 4_096;

/// Runs it with the binary that `arguments` name, over the database they name or one of its own.
pub(crate) fn run(root: &Path, arguments: &[String], out: &mut dyn Write) -> Result<()> {
    let (mut binary, mut store, mut parameters) =
        (root.join("target/debug/kapell"), None, Vec::new());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let value = words.next().cloned();
        let value = value.with_context(|| format!("{word} names nothing"))?;
        match word.as_str() {
            "--bin" => binary = PathBuf::from(value),
            "--store" => store = Some(value),
            "-p" => parameters.extend(["-p".to_owned(), value]),
            _ => bail!("usage: xtask cluster [--bin PATH] [--store URL] [-p NAME=VALUE]…"),
        }
    }
    let binary = binary
        .canonicalize()
        .with_context(|| format!("cannot find {}; build it first", binary.display()))?;
    let mut town = Town::new(&binary, store)?;
    let began = Instant::now();
    let mut tell = |what: &str| -> Result<()> {
        writeln!(out, "{:7.1} s  {what}", began.elapsed().as_secs_f64())?;
        Ok(out.flush()?)
    };
    tell(&format!("{NODES} nodes over {}", town.store))?;
    town.settled(PATIENCE)?;
    for node in town.nodes()? {
        tell(&format!(
            "node {} at {} owns {} shards",
            node.id, node.address, node.shards
        ))?;
    }
    town.kapell(&[
        "deploy",
        &root
            .join("examples/flights/flights.yaml")
            .display()
            .to_string(),
    ])?;
    let mut start = vec!["start", "flights", "--json"];
    start.extend(parameters.iter().map(String::as_str));
    let started = town.json(&start)?;
    let run = started["run"]
        .as_str()
        .context("a start names its run")?
        .to_owned();
    tell(&format!("run {run} of flights has begun"))?;

    // A worker dies while it works.
    let (number, step) = until("a worker has a step", || town.busy(&run))?;
    town.kill_worker(number);
    tell(&format!("worker-{number} is killed while it runs `{step}`"))?;
    let before = losses(&town.json(&["show", &run, "--json"])?);
    until("what it ran is given to the other", || {
        let view = town.json(&["show", &run, "--json"])?;
        Ok((losses(&view) > before || view["status"] == "succeeded").then_some(()))
    })?;
    tell("its step was lost with it, and is tried again at the other")?;
    town.start_worker(number)?;
    tell(&format!("worker-{number} is started again"))?;

    // A node dies while it owns things.
    let killed = town.kill_node(0)?;
    let at = Instant::now();
    tell(&format!("node {killed} is killed"))?;
    town.settled(Duration::from_mins(1))?;
    let took = at.elapsed();
    let left = town.nodes()?;
    ensure!(
        left.iter().all(|node| node.id != killed),
        "{killed} is still listed"
    );
    for node in left {
        tell(&format!("node {} owns {} shards", node.id, node.shards))?;
    }
    tell(&format!(
        "all shards had an owner {:.1} s after the kill",
        took.as_secs_f64()
    ))?;
    town.start_node(0)?;
    town.settled(Duration::from_mins(1))?;
    tell("another node has come in its place")?;

    let view = until("the run ends", || {
        let view = town.json(&["show", &run, "--json"])?;
        let ended = !matches!(
            view["status"].as_str(),
            Some("running" | "queued" | "paused")
        );
        Ok(ended.then_some(view))
    })?;
    tell(&format!(
        "the run has ended: {}",
        view["status"].as_str().unwrap_or("?")
    ))?;
    ensure!(view["status"] == "succeeded", "{view:#}");
    count(&town, &run, &view, &mut tell)?;
    Ok(())
}

/// Counts what every step and item came to: one result each.
fn count(
    town: &Town,
    run: &str,
    view: &Value,
    tell: &mut impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    let mut all = Vec::new();
    steps(view, &mut all);
    for (path, results) in &all {
        let good = results
            .iter()
            .filter(|result| *result == "succeeded")
            .count();
        ensure!(good == 1, "{path} has succeeded {good} times: {results:?}");
    }
    tell(&format!(
        "nothing was lost: {} steps and items succeeded, each once; {} attempts were lost and done again",
        all.len(),
        losses(view)
    ))?;
    tell(&format!(
        "`kapell why` says:\n{}",
        town.kapell(&["why", run])?.trim_end()
    ))
}

/// Steps and items that had attempts, with the results of those.
fn steps(view: &Value, all: &mut Vec<(String, Vec<String>)>) {
    match view {
        Value::Object(map) => {
            if let (Some(path), Some(attempts)) = (map.get("path"), map.get("attempts")) {
                let attempts = attempts.as_array().into_iter().flatten();
                let results = attempts.filter_map(|one| one["result"].as_str().map(str::to_owned));
                let results: Vec<String> = results.collect();
                if !results.is_empty() {
                    all.push((path.as_str().unwrap_or_default().to_owned(), results));
                }
            }
            map.values().for_each(|inner| steps(inner, all));
        }
        Value::Array(list) => list.iter().for_each(|inner| steps(inner, all)),
        _ => {}
    }
}

/// Attempts of a run that were lost.
fn losses(view: &Value) -> usize {
    let mut all = Vec::new();
    steps(view, &mut all);
    let results = all.iter().flat_map(|(_, results)| results);
    results.filter(|result| *result == "lost").count()
}

/// Waits until there is something.
fn until<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    let mut last = None;
    while Instant::now() < end {
        match look() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            // While a node is away a request may fail.
            Err(error) => last = Some(error),
        }
        thread::sleep(PAUSE);
    }
    match last {
        Some(error) => Err(error.context(format!("waited in vain until {what}"))),
        None => bail!("waited in vain until {what}"),
    }
}
