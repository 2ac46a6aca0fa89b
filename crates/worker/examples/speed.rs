//! Measures the worker: attempts a second of `noop`, `shell` and `python`, and a bare loop that starts
//! the same program, side by side.
//!
//! `cargo run --release -p kapell-worker --example speed [shell|python|noop] [concurrency]`
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program of its own that measures"
)]

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};

use kapell_api::task::{
    Blobs, Outcome, Place, Process, Report, Task, TaskEvent, TaskResources, Work,
};
use kapell_expr::{BlobRef, Value};
use kapell_model::spec::PythonSource;
use kapell_model::{Offer, RunId, Time};
use kapell_worker::{Capacity, Config, Worker};

struct NoBlobs;

impl Blobs for NoBlobs {
    fn put(&self, _: &[u8]) -> io::Result<BlobRef> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn put_file(&self, _: &Path) -> io::Result<BlobRef> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn get(&self, _: &BlobRef, _: u64) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn get_file(&self, _: &BlobRef, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

fn clock() -> Time {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Time(i64::try_from(since.as_micros()).unwrap_or(0))
}

fn process(with: Value) -> Box<Process> {
    Box::new(Process {
        path: "step".into(),
        namespace: "default".into(),
        workflow: "speed".into(),
        with: kapell_api::task::Input {
            value: with,
            secrets: Vec::new(),
        },
        env: Vec::new(),
        idempotency_key: "key".into(),
        timeout: None,
        grace: Duration::from_secs(1),
        resources: TaskResources::default(),
        output_file: None,
        artifacts_in: Vec::new(),
        artifacts_out: Vec::new(),
        bundle: None,
    })
}

fn tasks(count: u64, first: u64, work: impl Fn() -> Work) -> Vec<Task> {
    (0..count)
        .map(|number| Task {
            offer: Offer {
                epoch: 1,
                counter: first + number,
            },
            run: RunId(1),
            place: Place {
                scope: 0,
                step: 0,
                item: u32::try_from(number).unwrap_or(0),
            },
            attempt: 1,
            alone: false,
            work: work(),
        })
        .collect()
}

fn wait(reports: &Receiver<Vec<Report>>, mut count: u64) {
    while count > 0 {
        for report in reports
            .recv_timeout(Duration::from_mins(1))
            .expect("reports")
        {
            if let TaskEvent::Ended { outcome, .. } = report.event {
                assert!(matches!(outcome, Outcome::Succeeded(_)), "{outcome:?}");
                count -= 1;
            }
        }
    }
}

fn measure(name: &str, count: u32, run: impl FnOnce()) {
    let start = Instant::now();
    run();
    let took = start.elapsed();
    println!(
        "{name}: {:.0}/s ({count} in {took:.3?})",
        f64::from(count) / took.as_secs_f64()
    );
}

fn bare(program: &'static str, count: u32, concurrency: u32) {
    measure(&format!("bare {program}"), count, || {
        std::thread::scope(|scope| {
            for _ in 0..concurrency {
                scope.spawn(move || {
                    for _ in 0..count / concurrency {
                        let mut child = Command::new(program)
                            .stdin(Stdio::null())
                            .spawn()
                            .expect("start");
                        child.wait().expect("wait");
                    }
                });
            }
        });
    });
}

fn main() {
    let what = std::env::args().nth(1).unwrap_or_else(|| "all".to_owned());
    let concurrency: u32 = std::env::args()
        .nth(2)
        .and_then(|text| text.parse().ok())
        .unwrap_or(2);
    let data_dir = tempfile::tempdir().expect("a directory");
    let (sender, reports) = channel();
    let config = Config {
        data_dir: data_dir.path().to_owned(),
        capacity: Capacity {
            cpu_millis: u64::from(concurrency) * 1000,
            memory_bytes: 1 << 30,
            gpus: 0,
            slots: concurrency as usize,
        },
        secrets: Arc::new(|_| None),
        inherit_env: std::env::vars_os().collect(),
        clock,
        python: None,
        uv: None,
        keep_failed: Duration::ZERO,
    };
    let deliver = Box::new(move |batch| {
        let _ = sender.send(batch);
    });
    let (worker, _) = Worker::start(config, Arc::new(NoBlobs), deliver).expect("a worker");
    let is = |name| what == name || what == "all";
    if is("noop") {
        measure("noop", 1_000_000, || {
            for round in 0..1000 {
                worker.offer(tasks(1000, round * 1000, || Work::Noop));
                wait(&reports, 1000);
            }
        });
    }
    if is("shell") {
        for round in 0..3_u64 {
            bare("/bin/true", 2000, concurrency);
            measure("shell /bin/true", 2000, || {
                worker.offer(tasks(2000, round * 10_000, || Work::Shell {
                    script: "/bin/true\n".into(),
                    interpreter: vec!["sh".into(), "-eu".into()],
                    args: Vec::new(),
                    process: process(Value::Null),
                }));
                wait(&reports, 2000);
            });
        }
        measure("shell echo", 2000, || {
            worker.offer(tasks(2000, 50_000, || Work::Shell {
                script: "echo $KAPELL_STEP\n".into(),
                interpreter: vec!["sh".into(), "-eu".into()],
                args: Vec::new(),
                process: process(Value::Null),
            }));
            wait(&reports, 2000);
        });
    }
    if is("python") {
        python(&worker, &reports);
    }
    worker.stop(Duration::from_secs(1));
}

fn python(worker: &Worker, reports: &Receiver<Vec<Report>>) {
    let source = "def nothing():\n    return None\ndef fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\n";
    let call = |function: &'static str, with: fn() -> Value| {
        move || Work::Python {
            source: PythonSource::Code(source.into()),
            function: function.into(),
            requirements: Vec::new(),
            concurrency: 1,
            process: process(with()),
        }
    };
    let nothing = call("nothing", || Value::Null);
    let fib = call("fib", || Value::map([("n", Value::Int(10))]));
    measure("python, two hosts cold", 2, || {
        worker.offer(tasks(2, 100_000, nothing));
        wait(reports, 2);
    });
    for round in 0..3 {
        measure("python nothing()", 10_000, || {
            worker.offer(tasks(10_000, 200_000 + round * 10_000, nothing));
            wait(reports, 10_000);
        });
        measure("python fib(10), one after another", 40, || {
            for number in 0..40 {
                worker.offer(tasks(1, 500_000 + round * 100 + number, fib));
                wait(reports, 1);
            }
        });
    }
}
