//! The API of a real server on loopback: `kapell server` in a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use kapell_api::client::{Client, DeployCalls, HttpServer, RunCalls, Target, WorkflowCalls};
use kapell_api::http::{BASE, Deploy, RegisterWorkflow, RunPage, RunQuery, SendSignal};
use kapell_api::http::{RecordQuery, RunSummary, StartRun, StartRuns, StartedRuns};
use kapell_model::{RunId, RunStatus, Time};

use super::{Figures, figures, median};
use crate::kapell::{Kapell, binary};
use crate::load::{self, Connection};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(10);

/// Connections at a time.
const CONNECTIONS: usize = 64;

/// Runs that one call of a batch starts.
const BATCH: usize = 1_000;

/// Connections that send batches.
const BATCHES: usize = 4;

/// Requests by which the server's own limit is measured.
const RAW: usize = 50_000;

const ONE: &str = "workflow: one\nsteps:\n  a: { noop: {} }\n";

/// A server on a directory of its own.
struct Server {
    kapell: Kapell,
    address: SocketAddr,
}

impl Server {
    fn start(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        // Nobody is kept from asking as fast as can be.
        let mut child = Command::new(binary()?)
            .args(["server", "--listen", "127.0.0.1:0"])
            .args(["--request-rate", "10000000"])
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let address = said(&mut child);
        let kapell = Kapell::of(child);
        Ok(Self {
            kapell,
            address: address?,
        })
    }

    fn client(&self) -> Result<Client> {
        let url = format!("http://{}", self.address);
        let server = HttpServer::new(&url, None, None)?;
        Ok(Client::to(Target::Http(Box::new(server)))?)
    }
}

/// The address that a server says it answers at.
fn said(child: &mut Child) -> Result<SocketAddr> {
    let output = child.stdout.take().context("no output")?;
    let mut output = BufReader::new(output);
    let mut line = String::new();
    output.read_line(&mut line)?;
    let url = line.split_whitespace().find(|word| word.contains("://"));
    let url = url.with_context(|| format!("the server said: {line}"))?;
    let address = url.rsplit('/').next().unwrap_or_default().parse()?;
    // It goes on to say things, and nobody reads them.
    std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    Ok(address)
}

/// Puts workflows in force.
pub(crate) fn deploy(client: &Client, sources: impl IntoIterator<Item = String>) -> Result<()> {
    let files = sources.into_iter().enumerate();
    let workflows = files.map(|(number, source)| RegisterWorkflow {
        file: format!("bench-{number}.yaml"),
        source,
        bundle: None,
        by: String::new(),
    });
    client.deploy(&Deploy {
        workflows: workflows.collect(),
        by: "bench".to_owned(),
        ..Deploy::default()
    })?;
    Ok(())
}

pub(crate) fn start_of(workflow: &str) -> StartRun {
    StartRun {
        workflow: workflow.to_owned(),
        by: "bench".to_owned(),
        ..StartRun::default()
    }
}

/// Waits until so many runs of a workflow have succeeded.
pub(crate) fn succeeded(client: &Client, workflow: &str, n: usize) -> Result<()> {
    let since = Instant::now();
    loop {
        let page = client.workflows("", 1_000)?;
        let found = page.workflows.iter().find(|found| found.name == workflow);
        let runs = found.and_then(|found| found.runs.get("succeeded"));
        if runs.is_some_and(|runs| usize::try_from(*runs).is_ok_and(|runs| runs >= n)) {
            return Ok(());
        }
        ensure!(since.elapsed() < PATIENCE, "not all runs succeed: {page:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn now() -> Result<Time> {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
    Ok(Time(i64::try_from(micros)?))
}

fn millis(from: Time, to: Time) -> f64 {
    (to.0 - from.0) as f64 / 1e3
}

/// The number below which so many percent of them are.
fn below(percent: usize, numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let last = numbers.len().saturating_sub(1);
    numbers
        .get((numbers.len() * percent / 100).min(last))
        .copied()
        .unwrap_or(f64::NAN)
}

/// Runs started a second by single requests; raw is the same server asked for next to nothing.
pub(crate) fn starts(dir: &Path, n: usize) -> Result<Figures> {
    let server = Server::start(dir)?;
    let client = server.client()?;
    deploy(&client, [ONE.to_owned()])?;
    let request = load::post("/runs", &start_of("one"))?;
    let value = load::rate(server.address, CONNECTIONS, n, &request)?;
    succeeded(&client, "one", n)?;
    let raw = load::rate(server.address, CONNECTIONS, RAW, &load::get("/health/live"))?;
    Ok(Figures {
        raw: Some(raw),
        ..figures(value)
    })
}

/// Runs started a second by the call that starts many, and how many ended a second meanwhile.
pub(crate) fn batch(dir: &Path, n: usize) -> Result<Figures> {
    let server = Server::start(dir)?;
    let client = server.client()?;
    deploy(&client, [ONE.to_owned()])?;
    let since = Instant::now();
    let value = many(&server, n, &StartRun { ..start_of("one") })?;
    succeeded(&client, "one", n)?;
    let ended = n as f64 / since.elapsed().as_secs_f64();
    Ok(figures(value).with("ended", ended))
}

/// Starts runs by batches; how many a second.
fn many(server: &Server, n: usize, start: &StartRun) -> Result<f64> {
    let batch = StartRuns {
        runs: vec![start.clone(); BATCH],
        by: "bench".to_owned(),
    };
    let mut first = Connection::open(server.address)?;
    let request = load::post("/runs/batch", &batch)?;
    // The first shows that none is refused.
    let since = Instant::now();
    let started: StartedRuns = serde_json::from_slice(first.ask(&request)?)?;
    ensure!(
        started.runs.iter().all(|run| run.run.is_some()),
        "starts are refused: {:?}",
        started.runs.iter().find(|run| run.run.is_none())
    );
    load::rate(server.address, BATCHES, n / BATCH - 1, &request)?;
    Ok(n as f64 / since.elapsed().as_secs_f64())
}

/// Milliseconds from when a signal is sent until the first step of the run that it starts has ended.
pub(crate) fn signal(dir: &Path, n: usize) -> Result<Figures> {
    let server = Server::start(dir)?;
    let client = server.client()?;
    let text = "workflow: heard\ntriggers:\n  - signal: landed\nsteps:\n  a: { noop: {} }\n";
    deploy(&client, [text.to_owned()])?;
    let mut sender = Connection::open(server.address)?;
    let mut sent = Vec::with_capacity(n);
    for number in 0..n {
        let signal = SendSignal {
            id: Some(number.to_string()),
            by: "bench".to_owned(),
            ..SendSignal::default()
        };
        let request = load::post("/signals/landed", &signal)?;
        sent.push(now()?);
        sender.ask(&request)?;
        succeeded(&client, "heard", number + 1)?;
    }
    let mut runs = listed(&client, "heard")?;
    runs.sort_by_key(|run| run.0);
    ensure!(runs.len() == n, "{} runs for {n} signals", runs.len());
    let mut times = Vec::with_capacity(n);
    for (sent, (_, run)) in sent.into_iter().zip(runs) {
        let record = client.record(run, &RecordQuery::default())?;
        let ended = record.steps.first().and_then(|step| step.ended_at);
        times.push(millis(sent, ended.context("a step without an end")?));
    }
    let p99 = below(99, &mut times);
    Ok(figures(median(times)).with("p99", p99))
}

/// All runs of a workflow, with when they were made.
fn listed(client: &Client, workflow: &str) -> Result<Vec<(Time, RunId)>> {
    let mut query = RunQuery {
        workflow: Some(workflow.to_owned()),
        limit: 1_000,
        ..RunQuery::default()
    };
    let mut all = Vec::new();
    loop {
        let page: RunPage = client.list(&query)?;
        all.extend(page.runs.iter().map(|run| (run.created_at, run.run)));
        match page.next {
            Some(next) => query.before = Some(next),
            None => return Ok(all),
        }
    }
}

/// Seconds until the runs of `n` schedules that are due at the same time have all started, milliseconds after
/// which the one in the middle had, and both for the ends of the runs: each has a step that does nothing.
pub(crate) fn schedules(dir: &Path, n: usize) -> Result<Figures> {
    let server = Server::start(dir)?;
    let client = server.client()?;
    // Whatever the machine: the whole minute before is left to put them in force.
    let minute = now()?.0 / 60_000_000 + 3;
    let due = Time(minute * 60_000_000);
    let cron = format!("{} * * * *", minute % 60);
    let all: Vec<usize> = (0..n).collect();
    for some in all.chunks(1_000) {
        let text = |number| {
            format!(
                "workflow: due-{number}\ntriggers:\n  - cron: \"{cron}\"\nsteps:\n  a: {{ noop: {{}} }}\n"
            )
        };
        deploy(&client, some.iter().map(text))?;
    }
    ensure!(now()? < due, "it takes too long to put {n} in force");
    let left = u64::try_from(due.0 - now()?.0)?;
    std::thread::sleep(Duration::from_micros(left) + Duration::from_secs(2));
    let since = Instant::now();
    let runs = loop {
        let mut query = RunQuery {
            limit: 1_000,
            ..RunQuery::default()
        };
        let mut runs = Vec::new();
        loop {
            let page = client.list(&query)?;
            runs.extend(page.runs);
            match page.next {
                Some(next) => query.before = Some(next),
                None => break,
            }
        }
        if runs.len() >= n && runs.iter().all(|run| run.status == RunStatus::Succeeded) {
            break runs;
        }
        ensure!(
            since.elapsed() < Duration::from_mins(1),
            "{} of {n} schedules started a run",
            runs.len()
        );
        std::thread::sleep(Duration::from_millis(500));
    };
    ensure!(runs.len() == n, "{} runs for {n} schedules", runs.len());
    let late = |at: fn(&RunSummary) -> Option<Time>| -> Result<(f64, f64)> {
        let late: Option<Vec<f64>> = runs
            .iter()
            .map(|run| at(run).map(|at| millis(due, at)))
            .collect();
        let mut late = late.context("a run that never started, or never ended")?;
        Ok((below(100, &mut late) / 1e3, median(late)))
    };
    let (last, middle) = late(|run| run.started_at)?;
    let (ended, middle_ended) = late(|run| run.ended_at)?;
    Ok(figures(last)
        .with("median", middle)
        .with("ended", ended)
        .with("median ended", middle_ended))
}

/// Milliseconds of a page of 100 runs where `n` are stored: the slowest of what a person asks for.
pub(crate) fn list(dir: &Path, n: usize) -> Result<Figures> {
    let server = Server::start(dir)?;
    let client = server.client()?;
    let text = |name: &str, step: &str| {
        format!(
            "workflow: {name}\nparams:\n  team: {{ type: string, default: a }}\nlabels: {{ team: \"${{{{ params.team }}}}\" }}\nsteps:\n  a: {step}\n"
        )
    };
    let bad = text("bad", "{ fail: { message: out of cheese } }");
    deploy(&client, [text("good", "{ noop: {} }"), bad])?;
    let few = (n / 1_000).max(BATCH);
    many(&server, few, &start_of("bad"))?;
    many(&server, n - 2 * few, &start_of("good"))?;
    many(&server, few, &start_of("good"))?;
    succeeded(&client, "good", n - few)?;
    let middle = listed(&client, "bad")?;
    let (_, middle) = middle.get(few / 2).context("no run failed")?;
    let pages = [
        "/runs".to_owned(),
        "/runs?workflow=good".to_owned(),
        "/runs?workflow=bad&status=failed".to_owned(),
        "/runs?status=failed".to_owned(),
        "/runs?label=team=a".to_owned(),
        "/runs?error=cheese".to_owned(),
        "/runs?trigger=manual&status=succeeded".to_owned(),
        format!("/runs?before={middle}"),
    ];
    let mut connection = Connection::open(server.address)?;
    let mut result = figures(0.0);
    for path in pages {
        let request = load::get(&format!("{BASE}{path}"));
        let mut times = Vec::new();
        for _ in 0..50 {
            let since = Instant::now();
            connection.ask(&request)?;
            times.push(since.elapsed().as_secs_f64() * 1e3);
        }
        let page: RunPage = serde_json::from_slice(connection.ask(&request)?)?;
        ensure!(page.runs.len() == 100, "{path}: {} runs", page.runs.len());
        let time = median(times);
        result.value = result.value.max(time);
        result = result.with(&path, time);
    }
    Ok(result)
}

/// Milliseconds from when a start is asked for until whoever follows all runs has read of it.
pub(crate) fn event(dir: &Path, n: usize) -> Result<Figures> {
    let server = Server::start(dir)?;
    let client = server.client()?;
    deploy(&client, [ONE.to_owned()])?;
    let mut follower = Connection::open(server.address)?;
    follower.stream(&format!("{BASE}/events"))?;
    let mut asker = Connection::open(server.address)?;
    let request = load::post("/runs", &start_of("one"))?;
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        let since = Instant::now();
        let body = asker.ask(&request)?;
        let started: kapell_api::http::Started = serde_json::from_slice(body)?;
        let id = started.run.to_string();
        let mut first = true;
        // To its end, so that the next begins with nothing under way.
        loop {
            let line = follower.line()?;
            if !line.starts_with("data:") || !line.contains(&id) {
                continue;
            }
            if std::mem::take(&mut first) {
                times.push(since.elapsed().as_secs_f64() * 1e3);
            }
            if line.contains("\"succeeded\"") {
                break;
            }
        }
    }
    let p99 = below(99, &mut times);
    Ok(figures(median(times)).with("p99", p99))
}

/// Percent of a core and MiB of a server that nobody asks anything, with `n` schedules far away.
pub(crate) fn idle(dir: &Path, n: usize) -> Result<Figures> {
    let server = Server::start(dir)?;
    let client = server.client()?;
    let far = |number| {
        format!(
            "workflow: far-{number}\ntriggers:\n  - cron: \"0 0 1 1 *\"\nsteps:\n  a: {{ noop: {{}} }}\n"
        )
    };
    deploy(&client, (0..n).map(far))?;
    drop(client);
    std::thread::sleep(Duration::from_secs(5));
    let load = server.kapell.load(Duration::from_secs(20))?;
    Ok(figures(load).with("memory", server.kapell.resident()?))
}
