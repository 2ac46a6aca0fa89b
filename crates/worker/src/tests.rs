//! Tests on real processes. Nothing sleeps: every wait is for a report, with a bound.

mod containment;
mod http;
mod logging;
mod neighbours;
mod outputs;
mod processes;
mod python;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use kapell_api::log::Line;
use kapell_api::task::{
    Blobs, Bundle, BundleFile, Input, Outcome, Place, Process, Report, SecretText, Task, TaskError,
    TaskEvent, TaskResources, TextPart, Usage, Work,
};
use kapell_expr::{BlobRef, Value};
use kapell_model::{Offer, RunId, SessionId, Time};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::worker::Containment;
use crate::{Capacity, Config, LostAttempt, Worker};

const PATIENCE: Duration = Duration::from_secs(30);
const RUN: RunId = RunId(7);

#[expect(
    clippy::disallowed_methods,
    reason = "real processes live in real time"
)]
fn clock() -> Time {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    Time(i64::try_from(since.as_micros()).unwrap())
}

#[derive(Default)]
struct MemoryBlobs(Mutex<HashMap<Arc<str>, Vec<u8>>>);

impl Blobs for MemoryBlobs {
    fn put(&self, bytes: &[u8]) -> io::Result<BlobRef> {
        let hash: Arc<str> = blake3::hash(bytes).to_hex().as_str().into();
        self.0.lock().insert(Arc::clone(&hash), bytes.to_vec());
        Ok(BlobRef {
            hash,
            size: bytes.len() as u64,
        })
    }

    fn put_file(&self, path: &Path) -> io::Result<BlobRef> {
        self.put(&std::fs::read(path)?)
    }

    fn get(&self, blob: &BlobRef, limit: u64) -> io::Result<Vec<u8>> {
        let bytes = self
            .0
            .lock()
            .get(&blob.hash)
            .cloned()
            .ok_or(io::ErrorKind::NotFound)?;
        if bytes.len() as u64 > limit {
            Err(io::ErrorKind::FileTooLarge.into())
        } else {
            Ok(bytes)
        }
    }

    fn get_file(&self, blob: &BlobRef, path: &Path) -> io::Result<()> {
        std::fs::write(path, self.get(blob, u64::MAX)?)
    }
}

struct Setup {
    worker: Worker,
    reports: Receiver<Vec<Report>>,
    early: std::cell::RefCell<Vec<Report>>,
    blobs: Arc<MemoryBlobs>,
    dir: TempDir,
    lost: Vec<LostAttempt>,
    next: AtomicU64,
}

fn config(dir: &Path) -> Config {
    Config {
        data_dir: dir.to_owned(),
        capacity: Capacity {
            cpu_millis: 4000,
            memory_bytes: 1 << 30,
            gpus: 2,
            slots: 4,
        },
        secrets: Arc::new(|name| match name {
            "token" => Some("s3cret+value/long".to_owned()),
            "lines" => Some("first line\nsecond line\n".to_owned()),
            _ => None,
        }),
        inherit_env: vec![
            ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()),
            ("LANG".into(), "C.UTF-8".into()),
        ],
        clock,
        python: Some(python()),
        uv: None,
        keep_failed: Duration::from_hours(1),
        http: crate::HttpRules::default(),
    }
}

/// The interpreter itself, which a shim would hide behind a shell.
fn python() -> PathBuf {
    let output = std::process::Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .unwrap();
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

fn setup() -> Setup {
    setup_with(|_| {}, Containment::Cgroups)
}

fn setup_with(change: impl FnOnce(&mut Config), containment: Containment) -> Setup {
    let dir = TempDir::new().unwrap();
    let mut config = config(dir.path());
    change(&mut config);
    let (sender, reports) = channel();
    let blobs = Arc::new(MemoryBlobs::default());
    let deliver = Box::new(move |batch| {
        let _ = sender.send(batch);
    });
    let (worker, lost) = Worker::start_with(config, blobs.clone(), deliver, containment).unwrap();
    Setup {
        worker,
        reports,
        early: std::cell::RefCell::default(),
        blobs,
        dir,
        lost,
        next: AtomicU64::new(1),
    }
}

#[derive(Debug)]
struct Ended {
    outcome: Outcome,
    usage: Option<Usage>,
    took: Duration,
}

impl Ended {
    fn value(&self) -> &Value {
        match &self.outcome {
            Outcome::Succeeded(value) => value,
            other => panic!("expected success, got {other:?}"),
        }
    }

    fn error(&self) -> &TaskError {
        match &self.outcome {
            Outcome::Failed(error) => error,
            other => panic!("expected a failure, got {other:?}"),
        }
    }

    fn json(&self) -> String {
        self.value().to_json().to_string()
    }
}

impl Setup {
    fn task(&self, work: Work) -> Task {
        let counter = self.next.fetch_add(1, Ordering::Relaxed);
        Task {
            offer: Offer { epoch: 1, counter },
            session: SessionId(1),
            queue: "default".into(),
            run: RUN,
            place: Place::default(),
            attempt: 1,
            alone: false,
            work,
        }
    }

    fn offer(&self, work: Work) -> Offer {
        let task = self.task(work);
        let offer = task.offer;
        self.worker.offer(vec![task]);
        offer
    }

    fn run(&self, work: Work) -> Ended {
        let offer = self.offer(work);
        self.ended(offer)
    }

    fn cancel(&self, offer: Offer) {
        self.worker.cancel(&[(RUN, Place::default(), offer)]);
    }

    /// The end of an attempt; reports of others are kept for their own wait.
    fn ended(&self, offer: Offer) -> Ended {
        self.wait(|report| match &report.event {
            TaskEvent::Ended {
                started_at,
                ended_at,
                outcome,
                usage,
            } if report.offer == offer => Some(Ended {
                outcome: outcome.clone(),
                usage: *usage,
                took: Duration::try_from(ended_at.since(*started_at)).unwrap(),
            }),
            _ => None,
        })
    }

    fn wait<T>(&self, mut wanted: impl FnMut(&Report) -> Option<T>) -> T {
        let mut early = self.early.borrow_mut();
        let mut checked = 0;
        loop {
            while let Some(report) = early.get(checked) {
                if let Some(found) = wanted(report) {
                    early.remove(checked);
                    return found;
                }
                checked += 1;
            }
            early.extend(
                self.reports
                    .recv_timeout(PATIENCE)
                    .expect("a report in time"),
            );
        }
    }

    fn log_path(&self, step: &str) -> PathBuf {
        kapell_api::log::file(&self.dir.path().join("logs"), RUN, step, 1)
    }

    fn log(&self, step: &str) -> Vec<Line> {
        let bytes = std::fs::read(self.log_path(step)).unwrap_or_default();
        bytes
            .split(|byte| *byte == b'\n')
            .filter_map(Line::decode)
            .collect()
    }

    fn log_text(&self, step: &str) -> Vec<String> {
        self.log(step).into_iter().map(|line| line.text).collect()
    }

    fn bundle(&self, files: &[(&str, &str, bool)]) -> BlobRef {
        let files = files.iter().map(|(path, text, executable)| BundleFile {
            path: (*path).to_owned(),
            blob: self.blobs.put(text.as_bytes()).unwrap(),
            executable: *executable,
        });
        let bundle = Bundle {
            files: files.collect(),
        };
        self.blobs
            .put(&serde_json::to_vec(&bundle).unwrap())
            .unwrap()
    }
}

fn process() -> Process {
    Process {
        path: "step".into(),
        namespace: "default".into(),
        workflow: "tests".into(),
        with: Input::default(),
        env: Vec::new(),
        idempotency_key: "idempotent".into(),
        timeout: None,
        grace: Duration::from_millis(200),
        resources: TaskResources::default(),
        output_file: None,
        artifacts_in: Vec::new(),
        artifacts_out: Vec::new(),
        bundle: None,
    }
}

fn shell(script: &str) -> Work {
    shell_with(script, |_| {})
}

fn shell_with(script: &str, change: impl FnOnce(&mut Process)) -> Work {
    let mut process = process();
    change(&mut process);
    Work::Shell {
        script: script.into(),
        interpreter: vec!["sh".into(), "-eu".into()],
        args: Vec::new(),
        process: Box::new(process),
    }
}

fn exec(argv: &[&str]) -> Work {
    Work::Exec {
        argv: argv.iter().map(|text| (*text).to_owned()).collect(),
        process: Box::new(process()),
    }
}

fn secret(name: &str) -> SecretText {
    SecretText(vec![TextPart::Secret(name.into())])
}

/// True while a process of this number runs (and is no zombie).
fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']))
    })
}

fn wait_until_dead(pid: &str) {
    let patience = clock().0 + 5_000_000;
    while is_alive(pid) {
        assert!(clock().0 < patience, "process {pid} lives on");
        std::thread::yield_now();
    }
}

/// Waits until a step has written a file.
fn wait_for_file(path: &Path) -> String {
    let patience = clock().0 + 20_000_000;
    loop {
        if let Ok(text) = std::fs::read_to_string(path)
            && text.ends_with('\n')
        {
            return text;
        }
        assert!(clock().0 < patience, "{} was not written", path.display());
        std::thread::yield_now();
    }
}
