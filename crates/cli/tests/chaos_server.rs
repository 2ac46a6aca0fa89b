//! Kill -9 of a server and of its worker at random moments, fifty times, while a schedule, signals, locks,
//! approvals and run queues are at work and a client notes what was acknowledged to it. Then count.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use kapell_api::client::{
    ApprovalCalls, Client, HttpServer, LockCalls, RunCalls, SignalCalls, Target, TriggerCalls,
};
use kapell_api::http::{
    Action, ApprovalQuery, LockQuery, RunQuery, RunSummary, SendSignal, StartRun,
};
use kapell_expr::Value;
use kapell_model::{Error, ErrorCode, RunId, RunStatus};

const KILLS: u32 = 50;

/// Every second, and whatever is missed is made up for.
const TICK: &str = r#"workflow: tick
triggers:
  - { name: due, cron: "* * * * * *", catchup: { mode: all, max: 10000 } }
steps:
  a: { noop: {} }
"#;

const HEARD: &str = r#"workflow: heard
params: { n: { type: int } }
triggers:
  - { signal: landed, with: { n: "${{ signal.payload.n }}" } }
steps:
  work:
    queue: far
    shell: "true"
    retry: { platform: 1000, backoff: { initial: 10ms, factor: 1 } }
"#;

/// Both at the server's own worker and at the other one, under one lock: whoever finds the file held says so.
const LOCKED: &str = r#"workflow: locked
params: { here: { type: string } }
defaults:
  env: { HERE: "${{ params.here }}" }
  retry: { platform: 1000, backoff: { initial: 10ms, factor: 1 } }
steps:
  near:
    locks: [{ name: door, max: 1 }]
    shell: flock -n "$HERE/door" sleep 0.1 || echo near >> "$HERE/overlaps"
  far:
    queue: far
    locks: [{ name: door, max: 1 }]
    shell: flock -n "$HERE/door" sleep 0.1 || echo far >> "$HERE/overlaps"
"#;

const LINE: &str = r"workflow: line
strategy: { mode: sequential }
steps:
  work:
    shell: sleep 0.05
    retry: { platform: 1000, backoff: { initial: 10ms, factor: 1 } }
";

const ASKED: &str = r"workflow: asked
steps:
  ask: { approval: { by: [ann] } }
  then: { needs: [ask], noop: {} }
";

const AWAITS: &str = r#"workflow: awaits
params: { n: { type: int } }
steps:
  hear: { await: { signal: late, match: "${{ signal.payload.n == params.n }}", since: "${{ run.created_at - duration('1h') }}" } }
  then: { needs: [hear], set: { n: "${{ steps.hear.output.payload.n }}" } }
"#;

/// A server and a worker on one directory.
struct World {
    folder: PathBuf,
    port: u16,
    server: Option<Child>,
    worker: Option<Child>,
}

impl World {
    fn new(folder: &Path) -> Self {
        for (name, text) in [
            ("tick", TICK),
            ("heard", HEARD),
            ("locked", LOCKED),
            ("line", LINE),
            ("asked", ASKED),
            ("awaits", AWAITS),
        ] {
            let file = folder.join(format!("flows/{name}.yaml"));
            std::fs::create_dir_all(folder.join("flows")).expect("a folder for workflows");
            std::fs::write(file, text).expect("a workflow is written");
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("a port is free")
            .port();
        let mut world = Self {
            folder: folder.to_owned(),
            port,
            server: None,
            worker: None,
        };
        world.start_server();
        world.start_worker();
        world
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn kapell(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kapell"));
        command
            .args(arguments)
            .current_dir(&self.folder)
            .env_remove("KAPELL_SERVER")
            .env("KAPELL_WORKER_LEASE", "3")
            .env("USER", "ann")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn start_server(&mut self) {
        let listen = format!("127.0.0.1:{}", self.port);
        let server = self.kapell(&["server", "--listen", &listen]).spawn();
        self.server = Some(server.expect("the server starts"));
    }

    fn start_worker(&mut self) {
        let url = self.url();
        let words = [
            "worker", "--server", &url, "--queue", "far", "--name", "far",
        ];
        let worker = self.kapell(&words).args(["--data-dir", "far"]).spawn();
        self.worker = Some(worker.expect("the worker starts"));
    }

    fn kill(child: &mut Option<Child>) {
        if let Some(mut child) = child.take() {
            child.kill().expect("a process is killed");
            child.wait().expect("a process is gone");
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        Self::kill(&mut self.worker);
        Self::kill(&mut self.server);
    }
}

/// A client that asks until it has its answer.
struct Patient {
    url: String,
    client: Option<Client>,
}

impl Patient {
    fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            client: None,
        }
    }

    fn ask<T>(&mut self, what: impl Fn(&Client) -> Result<T, Error>) -> Result<T, Error> {
        for _ in 0..3_000 {
            match self.try_once(&what) {
                Ok(answer) => return Ok(answer),
                Err(error) if error.code.retryable() => {
                    self.client = None;
                    wait(20);
                }
                Err(error) => return Err(error),
            }
        }
        panic!("no answer in a minute");
    }

    fn try_once<T>(&mut self, what: impl Fn(&Client) -> Result<T, Error>) -> Result<T, Error> {
        let client = if let Some(client) = &self.client {
            client
        } else {
            let server = HttpServer::new(&self.url, None, None)?;
            self.client
                .insert(Client::to(Target::Http(Box::new(server)))?)
        };
        what(client)
    }

    fn good<T>(&mut self, what: impl Fn(&Client) -> Result<T, Error>) -> T {
        self.ask(what).unwrap_or_else(|error| panic!("{error:?}"))
    }

    fn start(&mut self, workflow: &str, n: i64, params: Value) -> RunId {
        let start = StartRun {
            workflow: workflow.to_owned(),
            params,
            by: "bob".to_owned(),
            idempotency_key: Some(format!("{workflow}-{n}")),
            ..StartRun::default()
        };
        self.good(|client| client.start(&start)).run
    }

    fn signal(&mut self, name: &str, n: i64) {
        let signal = SendSignal {
            payload: Value::map([("n", Value::Int(n))]),
            id: Some(n.to_string()),
            by: "bob".to_owned(),
            ..SendSignal::default()
        };
        self.good(|client| client.send_signal(name, &signal));
    }

    fn approve(&mut self, run: RunId) {
        let yes = Action::Approve {
            by: "ann".to_owned(),
            groups: Vec::new(),
            step: "ask".to_owned(),
            comment: String::new(),
            input: Value::Null,
            text: false,
        };
        match self.ask(|client| client.act(run, &yes)) {
            Ok(_) => {}
            // The one before was taken, and its answer lost.
            Err(error) if error.code == ErrorCode::NotAllowedNow => {}
            Err(error) => panic!("{error:?}"),
        }
    }

    fn runs(&mut self, workflow: &str) -> Vec<RunSummary> {
        let mut query = RunQuery {
            workflow: Some(workflow.to_owned()),
            ..RunQuery::default()
        };
        let mut all = Vec::new();
        loop {
            let page = self.good(|client| client.list(&query));
            all.extend(page.runs);
            match page.next {
                Some(next) => query.before = Some(next),
                None => return all,
            }
        }
    }
}

/// What was acknowledged.
#[derive(Default)]
struct Ledger {
    signals: BTreeSet<i64>,
    runs: BTreeMap<&'static str, BTreeSet<RunId>>,
}

/// Asks for everything, again and again, until it is told to stop.
fn ask_for_everything(url: &str, here: &str, stop: &AtomicBool) -> Ledger {
    let mut patient = Patient::new(url);
    let mut ledger = Ledger::default();
    let mut open = Vec::new();
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        patient.signal("landed", n);
        ledger.signals.insert(n);
        let name = ["locked", "line", "asked", "awaits"][usize::try_from(n % 4).unwrap_or(0)];
        let params = match name {
            "locked" => Value::map([("here", Value::from(here))]),
            "awaits" => Value::map([("n", Value::Int(n))]),
            _ => Value::Null,
        };
        // Half of the signals come before the run that waits for them.
        if name == "awaits" && n % 8 == 3 {
            patient.signal("late", n);
        }
        let run = patient.start(name, n, params);
        ledger.runs.entry(name).or_default().insert(run);
        if name == "awaits" {
            patient.signal("late", n);
        }
        if name == "asked" {
            open.push(run);
        }
        // Some wait for their answer over some deaths.
        if open.len() > 5 {
            patient.approve(open.remove(0));
        }
        wait(30);
    }
    for run in open {
        patient.approve(run);
    }
    ledger
}

/// Waits so long, on a clock that nothing here depends on.
fn wait(millis: u64) {
    let (keep, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis(millis));
    drop(keep);
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn fifty_kills_of_server_and_worker_break_no_promise() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = World::new(folder.path());
    let here = folder.path().display().to_string();
    let url = world.url();
    // Everything is in force before the first death.
    let mut patient = Patient::new(&url);
    patient.good(|client| client.triggers(&kapell_api::http::TriggerQuery::default()));
    let deployed = world
        .kapell(&["deploy", "flows", "--server", &url])
        .status();
    assert!(deployed.expect("a deploy ends").success());
    let stop = AtomicBool::new(false);
    let ledger = std::thread::scope(|scope| {
        let client = scope.spawn(|| ask_for_everything(&url, &here, &stop));
        let mut seed = 0x5eed_u64;
        for _ in 0..KILLS {
            wait(150 + random(&mut seed) % 1_300);
            if random(&mut seed).is_multiple_of(3) {
                World::kill(&mut world.worker);
                world.start_worker();
            } else {
                World::kill(&mut world.server);
                wait(random(&mut seed) % 400);
                world.start_server();
            }
            if client.is_finished() {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        client.join().expect("the client goes on over all deaths")
    });
    patient.good(|client| client.pause_trigger("tick", "due", "ann"));
    let runs = ended(&mut patient);
    check(&runs, &ledger);
    assert!(
        !folder.path().join("overlaps").exists(),
        "two attempts held the lock"
    );
    let locks = patient.good(|client| client.locks(&LockQuery::default()));
    let held: Vec<_> = locks.locks.iter().filter(|lock| lock.holders > 0).collect();
    assert!(held.is_empty(), "locks are held by nobody: {held:?}");
    let asked = patient.good(|client| client.approvals(&ApprovalQuery::default()));
    assert!(asked.approvals.is_empty(), "{:?}", asked.approvals);
}

/// The runs of each workflow, once all have ended.
fn ended(patient: &mut Patient) -> BTreeMap<&'static str, Vec<RunSummary>> {
    let names = ["tick", "heard", "locked", "line", "asked", "awaits"];
    for _ in 0..3_000 {
        let runs: BTreeMap<_, _> = names
            .iter()
            .map(|name| (*name, patient.runs(name)))
            .collect();
        if runs.values().flatten().all(|run| run.status.ended()) {
            return runs;
        }
        wait(50);
    }
    panic!("runs that never end: {:?}", {
        let mut left = Vec::new();
        for name in names {
            left.extend(
                patient
                    .runs(name)
                    .into_iter()
                    .filter(|run| !run.status.ended()),
            );
        }
        left
    });
}

fn check(runs: &BTreeMap<&'static str, Vec<RunSummary>>, ledger: &Ledger) {
    for (name, runs) in runs {
        assert!(runs.len() > 20, "{} runs of {name}", runs.len());
        for run in runs {
            assert_eq!(run.status, RunStatus::Succeeded, "{run:?}");
        }
    }
    // One run for each second from the first to the last.
    let mut due: Vec<i64> = runs["tick"]
        .iter()
        .map(|run| run.scheduled_at.unwrap_or(run.created_at).0)
        .collect();
    due.sort_unstable();
    for pair in due.windows(2) {
        assert_eq!(pair[1] - pair[0], 1_000_000, "after {}: {due:?}", pair[0]);
    }
    // One run for each signal, and none for any other.
    assert_eq!(runs["heard"].len(), ledger.signals.len());
    // What was acknowledged is there; nothing was asked for twice.
    for (name, acknowledged) in &ledger.runs {
        let made: BTreeSet<RunId> = runs[name].iter().map(|run| run.run).collect();
        assert_eq!(&made, acknowledged, "runs of {name}");
    }
    // One at a time, in order.
    let mut line: Vec<_> = runs["line"]
        .iter()
        .map(|run| {
            (
                run.started_at.expect("a start"),
                run.ended_at.expect("an end"),
                run,
            )
        })
        .collect();
    line.sort_by_key(|(started, _, _)| *started);
    for pair in line.windows(2) {
        assert!(pair[1].0 >= pair[0].1, "two at a time: {pair:?}");
        assert!(pair[1].2.created_at >= pair[0].2.created_at, "{pair:?}");
    }
}
