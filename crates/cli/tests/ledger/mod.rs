//! A workload that waits, hears, locks, queues, approves and fans out; what was acknowledged of it; and the count
//! at the end: nothing lost, nothing twice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
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
  ask: { approval: { by: [ann], allow_self: true } }
  then: { needs: [ask], noop: {} }
";

const AWAITS: &str = r#"workflow: awaits
params: { n: { type: int } }
steps:
  hear: { await: { signal: late, match: "${{ signal.payload.n == params.n }}", since: "${{ run.created_at - duration('1h') }}" } }
  then: { needs: [hear], set: { n: "${{ steps.hear.output.payload.n }}" } }
"#;

/// Items at both kinds of workers, few at a time; some fail once, one for good; what was done is written down.
const FAN: &str = r#"workflow: fan
params: { here: { type: string } }
defaults:
  env: { HERE: "${{ params.here }}", RUN: "${{ run.id }}" }
  retry: { limit: 3, platform: 1000, backoff: { initial: 10ms, factor: 1 } }
steps:
  far:
    foreach: { item: "${{ range(9) }}", concurrency: 3, min_success: 80% }
    queue: far
    env: { ITEM: "${{ item }}" }
    shell: |
      if [ "$ITEM" = 4 ]; then exit 1; fi
      if [ "$ITEM" = 7 ] && [ "$KAPELL_ATTEMPT_NUMBER" = 1 ]; then exit 1; fi
      echo "$RUN far $ITEM" >> "$HERE/done"
      echo "{\"n\": $ITEM}" > "$KAPELL_OUTPUT"
  near:
    foreach: { item: "${{ range(4) }}", concurrency: 2 }
    env: { ITEM: "${{ item }}" }
    shell: |
      echo "$RUN near $ITEM" >> "$HERE/done"
      echo "{\"n\": $ITEM}" > "$KAPELL_OUTPUT"
  sum:
    needs: [far, near]
    set: { n: "${{ steps.far.results.map(one, one.n).sum() + steps.near.output.map(one, one.n).sum() }}" }
outputs: { n: "${{ steps.sum.output.n }}" }
"#;

/// Runs of another workflow, which lies elsewhere, and a loop.
const PARENT: &str = r#"workflow: parent
steps:
  children:
    foreach: { n: "${{ range(3) }}" }
    workflow: child
    with: { n: "${{ n }}" }
  count:
    loop:
      vars: { n: 0 }
      while: "${{ vars.n < 5 }}"
      next: { n: "${{ steps.more.output.n }}" }
      steps:
        more: { set: { n: "${{ vars.n + 1 }}" } }
outputs: { n: "${{ steps.children.output.map(child, child.n).sum() + steps.count.output.n }}" }
"#;

const CHILD: &str = r#"workflow: child
params: { n: { type: int } }
defaults: { retry: { platform: 1000, backoff: { initial: 10ms, factor: 1 } } }
steps:
  double: { queue: far, shell: 'echo "{\"n\": $((N * 2))}" > "$KAPELL_OUTPUT"', env: { N: "${{ params.n }}" } }
outputs: { n: "${{ steps.double.output.n }}" }
"#;

/// Writes the workflows into a folder.
pub(crate) fn write_flows(folder: &Path) {
    std::fs::create_dir_all(folder).expect("a folder for workflows");
    for (name, text) in [
        ("tick", TICK),
        ("heard", HEARD),
        ("locked", LOCKED),
        ("line", LINE),
        ("asked", ASKED),
        ("awaits", AWAITS),
        ("fan", FAN),
        ("parent", PARENT),
        ("child", CHILD),
    ] {
        std::fs::write(folder.join(format!("{name}.yaml")), text).expect("a workflow is written");
    }
}

/// A client that asks until it has its answer.
pub(crate) struct Patient {
    url: String,
    token: Option<String>,
    client: Option<Client>,
}

impl Patient {
    pub(crate) fn new(url: &str, token: Option<&str>) -> Self {
        Self {
            url: url.to_owned(),
            token: token.map(str::to_owned),
            client: None,
        }
    }

    fn ask<T>(&mut self, what: impl Fn(&Client) -> Result<T, Error>) -> Result<T, Error> {
        for _ in 0..10_000 {
            match self.try_once(&what) {
                Ok(answer) => return Ok(answer),
                Err(error) if error.code.retryable() => {
                    self.client = None;
                    wait(20);
                }
                Err(error) => return Err(error),
            }
        }
        panic!("no answer in several minutes");
    }

    fn try_once<T>(&mut self, what: impl Fn(&Client) -> Result<T, Error>) -> Result<T, Error> {
        let client = if let Some(client) = &self.client {
            client
        } else {
            let server = HttpServer::new(&self.url, self.token.clone(), None)?;
            self.client
                .insert(Client::to(Target::Http(Box::new(server)))?)
        };
        what(client)
    }

    pub(crate) fn good<T>(&mut self, what: impl Fn(&Client) -> Result<T, Error>) -> T {
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
pub(crate) struct Ledger {
    signals: BTreeSet<i64>,
    runs: BTreeMap<&'static str, BTreeSet<RunId>>,
}

impl Ledger {
    /// What it holds, in one line.
    #[allow(dead_code, reason = "whoever runs for minutes says it")]
    pub(crate) fn summary(&self) -> String {
        let runs: Vec<String> = self
            .runs
            .iter()
            .map(|(name, runs)| format!("{} {name}", runs.len()))
            .collect();
        format!(
            "all is there: {} signals, runs: {}",
            self.signals.len(),
            runs.join(", ")
        )
    }
}

/// Asks for everything, again and again, until it is told to stop.
pub(crate) fn ask_for_everything(mut patient: Patient, here: &str, stop: &AtomicBool) -> Ledger {
    let mut ledger = Ledger::default();
    let mut open = Vec::new();
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        patient.signal("landed", n);
        ledger.signals.insert(n);
        let name = ["locked", "line", "asked", "awaits", "fan", "parent"]
            [usize::try_from(n % 6).unwrap_or(0)];
        let params = match name {
            "locked" | "fan" => Value::map([("here", Value::from(here))]),
            "awaits" => Value::map([("n", Value::Int(n))]),
            _ => Value::Null,
        };
        // Half of the signals come before the run that waits for them.
        if name == "awaits" && n % 12 == 3 {
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
pub(crate) fn wait(millis: u64) {
    let (keep, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis(millis));
    drop(keep);
}

pub(crate) fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Waits for the end of all runs, and counts: nothing that was acknowledged is lost, nothing was done twice.
pub(crate) fn settle(patient: &mut Patient, ledger: &Ledger, here: &Path) {
    patient.good(|client| client.pause_trigger("tick", "due", "ann"));
    let runs = ended(patient, ledger);
    check(&runs, ledger, here);
    assert!(
        !here.join("overlaps").exists(),
        "two attempts held the lock"
    );
    let locks = patient.good(|client| client.locks(&LockQuery::default()));
    let held: Vec<_> = locks.locks.iter().filter(|lock| lock.holders > 0).collect();
    assert!(held.is_empty(), "locks are held by nobody: {held:?}");
    let asked = patient.good(|client| client.approvals(&ApprovalQuery::default()));
    assert!(asked.approvals.is_empty(), "{:?}", asked.approvals);
}

/// The runs of each workflow, once all have ended and each signal has had one: whoever sends it hears that it is kept,
/// and what it starts may come later.
fn ended(patient: &mut Patient, ledger: &Ledger) -> BTreeMap<&'static str, Vec<RunSummary>> {
    let names = [
        "tick", "heard", "locked", "line", "asked", "awaits", "fan", "parent", "child",
    ];
    for _ in 0..3_000 {
        let runs: BTreeMap<_, _> = names
            .iter()
            .map(|name| (*name, patient.runs(name)))
            .collect();
        let heard = runs["heard"].len() >= ledger.signals.len();
        if heard && runs.values().flatten().all(|run| run.status.ended()) {
            return runs;
        }
        wait(50);
    }
    panic!(
        "{} signals, and runs that never end: {:?}",
        ledger.signals.len(),
        {
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
        }
    );
}

fn check(runs: &BTreeMap<&'static str, Vec<RunSummary>>, ledger: &Ledger, here: &Path) {
    for (name, runs) in runs {
        assert!(runs.len() > 10, "{} runs of {name}", runs.len());
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
    // Three children of each parent, no more.
    assert_eq!(runs["child"].len(), 3 * runs["parent"].len());
    // What succeeded was done: each item of each run is written down, the one that always fails is not.
    let done = std::fs::read_to_string(here.join("done")).expect("something was done");
    let done: BTreeSet<&str> = done.lines().collect();
    let mut wanted = BTreeSet::new();
    for run in &runs["fan"] {
        let far = [0, 1, 2, 3, 5, 6, 7, 8].map(|item| format!("{} far {item}", run.run));
        wanted.extend(far);
        wanted.extend([0, 1, 2, 3].map(|item| format!("{} near {item}", run.run)));
    }
    assert_eq!(done, wanted.iter().map(String::as_str).collect());
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
