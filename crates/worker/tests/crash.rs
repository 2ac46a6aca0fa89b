//! A worker that is killed: nothing it started may live on, and the next one tells what was lost.
//!
//! This program starts itself again as the worker to be killed, which a test harness cannot.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program of its own"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use kapell_api::task::{
    Input, NoBlobs, Outcome, Place, Process, Report, Task, TaskEvent, TaskResources, Work,
};
use kapell_model::{FailureKind, Offer, RunId, SessionId, Time};
use kapell_worker::{Capacity, Config, LostAttempt, Worker};

type Test = (&'static str, fn());

const TESTS: [Test; 2] = [
    (
        "a_killed_worker_leaves_nothing_behind_and_its_attempts_are_lost",
        check,
    ),
    (
        "without_descriptors_attempts_fail_as_the_platforms_and_the_worker_lives_on",
        check_starved,
    ),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["doomed", dir] => doomed(Path::new(dir)),
        ["starved", dir] => starved(Path::new(dir)),
        ref asked if asked.contains(&"--list") => {
            for (name, _) in TESTS {
                if !asked.contains(&"--ignored") {
                    println!("{name}: test");
                }
            }
        }
        ref asked => {
            for (name, test) in TESTS {
                if asked
                    .iter()
                    .all(|word| word.starts_with("--") || name.contains(word))
                {
                    test();
                }
            }
        }
    }
}

fn clock() -> Time {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Time(i64::try_from(since.as_micros()).unwrap_or(0))
}

fn start(dir: &Path) -> (Worker, Vec<LostAttempt>) {
    start_with(dir, 8, Box::new(|_| {}))
}

type Reports = Box<dyn Fn(Vec<Report>) + Send + Sync>;

fn start_with(dir: &Path, slots: usize, reports: Reports) -> (Worker, Vec<LostAttempt>) {
    let config = Config {
        data_dir: dir.to_owned(),
        capacity: Capacity {
            cpu_millis: 8000,
            memory_bytes: 1 << 30,
            gpus: 0,
            slots,
        },
        secrets: Arc::new(|_| None),
        inherit_env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        clock,
        python: None,
        uv: None,
        keep_failed: Duration::ZERO,
        http: kapell_worker::HttpRules::default(),
    };
    Worker::start(config, Arc::new(NoBlobs), reports).expect("a worker")
}

fn task(offer: Offer, script: &str) -> Task {
    let process = Process {
        path: "doomed".into(),
        namespace: "default".into(),
        workflow: "tests".into(),
        with: Input::default(),
        env: Vec::new(),
        idempotency_key: "key".into(),
        timeout: None,
        grace: Duration::from_secs(1),
        resources: TaskResources::default(),
        output_file: None,
        artifacts_in: Vec::new(),
        artifacts_out: Vec::new(),
        bundle: None,
    };
    Task {
        offer,
        session: SessionId(1),
        queue: "default".into(),
        run: RunId(5),
        place: Place::default(),
        attempt: 2,
        alone: false,
        work: Work::Shell {
            script: script.into(),
            interpreter: vec!["sh".into()],
            args: Vec::new(),
            process: Box::new(process),
        },
    }
}

/// Offers more than there are descriptors for, then one more.
fn starved(dir: &Path) {
    let (sender, reports) = std::sync::mpsc::channel();
    let deliver: Reports = Box::new(move |batch| {
        let _ = sender.send(batch);
    });
    let (worker, _) = start_with(dir, 100, deliver);
    let ended = |count: usize| -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        while outcomes.len() < count {
            let batch = reports
                .recv_timeout(Duration::from_secs(30))
                .expect("a report");
            outcomes.extend(batch.into_iter().filter_map(|report| match report.event {
                TaskEvent::Ended { outcome, .. } => Some(outcome),
                TaskEvent::Started { .. } => None,
            }));
        }
        outcomes
    };
    let tasks = (0..100).map(|counter| task(Offer { epoch: 1, counter }, "sleep 1"));
    worker.offer(tasks.collect());
    let outcomes = ended(100);
    let failed: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Failed(error) => Some(error),
            Outcome::Succeeded(_) | Outcome::Cancelled | Outcome::Lost { .. } => None,
        })
        .collect();
    assert!(
        !failed.is_empty() && failed.len() < 100,
        "{} failed",
        failed.len()
    );
    for error in failed {
        assert_eq!(
            (error.kind, error.reason.as_str()),
            (FailureKind::Platform, "spawn"),
            "{error:?}"
        );
    }
    let last = Offer {
        epoch: 2,
        counter: 1,
    };
    worker.offer(vec![task(last, "true")]);
    assert!(matches!(ended(1)[..], [Outcome::Succeeded(_)]));
    worker.stop(Duration::ZERO);
    println!("lived on");
}

fn check_starved() {
    let dir = tempfile::tempdir().expect("a directory");
    let own = std::env::current_exe().expect("this program");
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 64; exec \"$0\" starved \"$1\""])
        .arg(own)
        .arg(dir.path())
        .stderr(Stdio::inherit())
        .output()
        .expect("a worker");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "lived on\n");
}

/// Starts a script with a child, a daemon that kept its mark and one that did not; then waits for its
/// death.
fn doomed(dir: &Path) {
    let (worker, _) = start(dir);
    let script = format!(
        "echo $$ >> {0}; sleep 300 & echo $! >> {0}
         setsid sh -c 'echo $$ >> {0}; exec sleep 300' >/dev/null 2>&1 &
         setsid env -i /bin/sh -c 'echo $$ >> {0}; exec /bin/sleep 300' >/dev/null 2>&1 &
         while test $(grep -c . {0}) -lt 4; do sleep 0.01; done
         echo done >> {0}; trap '' TERM; while :; do sleep 300; done",
        dir.join("pids").display()
    );
    let offer = Offer {
        epoch: 3,
        counter: 9,
    };
    worker.offer(vec![task(offer, &script)]);
    let pids = dir.join("pids");
    while !std::fs::read_to_string(&pids).is_ok_and(|text| text.ends_with("done\n")) {
        std::thread::yield_now();
    }
    println!("ready");
    loop {
        std::thread::park();
    }
}

fn check() {
    let dir = tempfile::tempdir().expect("a directory");
    let own = std::env::current_exe().expect("this program");
    let mut doomed = Command::new(own)
        .arg("doomed")
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a worker");
    let mut line = String::new();
    BufReader::new(doomed.stdout.take().expect("its output"))
        .read_line(&mut line)
        .expect("a line");
    assert_eq!(line, "ready\n");
    let pids = std::fs::read_to_string(dir.path().join("pids")).expect("the processes");
    let pids: Vec<&str> = pids.lines().filter(|line| *line != "done").collect();
    assert_eq!(pids.len(), 4);
    assert!(
        pids.iter().all(|pid| is_alive(pid)),
        "all run before the kill"
    );
    doomed.kill().expect("kill -9");
    doomed.wait().expect("its end");
    let (_worker, lost) = start(dir.path());
    assert_eq!(
        lost,
        [LostAttempt {
            run: RunId(5),
            place: Place::default(),
            offer: Offer {
                epoch: 3,
                counter: 9
            },
            attempt: 2,
            explained: false
        }]
    );
    let patience = Instant::now() + Duration::from_secs(5);
    while pids.iter().any(|pid| is_alive(pid)) {
        assert!(Instant::now() < patience, "processes live on");
        std::thread::yield_now();
    }
}

fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']))
    })
}
