//! Steps that do nothing, at a worker in another process.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kapell_api::client::{HttpServer, Target};
use kapell_api::http::{RegisterWorkflow, StartRun};
use kapell_expr::Value;
use kapell_model::RunStatus;
use kapell_node::clock;
use kapell_server::local::{self, Listen, Opened, Want};
use kapell_server::workers::Settings;
use kapell_worker::remote::{Event, Remote, RemoteConfig, Server};
use kapell_worker::{Capacity, Config};

use super::{Figures, figures, per_second};

const TEXT: &str = "workflow: far\nparams:\n  n: { type: int }\nsteps:\n  work:\n    queue: far\n    foreach: { i: \"${{ range(params.n) }}\" }\n    noop: {}\n";

/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(5);

/// The worker's process; it ends with its standard input.
struct Far {
    child: Child,
    input: Option<ChildStdin>,
}

impl Far {
    fn start(url: &str, dir: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["work", url])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().context("no output")?;
        let input = child.stdin.take();
        let far = Self { child, input };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line == "welcome\n", "the worker says `{}`", line.trim());
        Ok(far)
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.input.take();
        // It may have ended by itself.
        let _ = self.child.wait();
    }
}

/// The worker's process: works until its standard input ends.
pub(crate) fn work(url: &str, dir: &str) -> Result<()> {
    let config = Config {
        data_dir: dir.into(),
        capacity: Capacity {
            cpu_millis: 2_000,
            memory_bytes: 1 << 30,
            gpus: 0,
            slots: 16,
        },
        secrets: Arc::new(|_| None),
        inherit_env: Vec::new(),
        clock: clock::now,
        python: None,
        uv: None,
        keep_failed: Duration::ZERO,
        http: kapell_worker::HttpRules::default(),
    };
    let remote = RemoteConfig {
        server: Server::At(Target::Http(Box::new(HttpServer::new(url, None, None)?))),
        name: "bench".to_owned(),
        labels: std::collections::BTreeMap::new(),
        resources: std::collections::BTreeMap::new(),
        spot: false,
        pool: None,
        queues: vec!["far".to_owned()],
        version: "bench".to_owned(),
    };
    let remote = Remote::start(config, remote)?;
    match remote.next(PATIENCE) {
        Some(Event::Welcome(..)) => println!("welcome"),
        other => bail!("{other:?}"),
    }
    std::io::stdout().flush()?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    remote.leave(Duration::ZERO);
    Ok(())
}

pub(crate) fn remote(dir: &Path, n: usize) -> Result<Figures> {
    let want = Want::Work(Settings::default());
    let Opened::Here(mut local) =
        local::open(&dir.join("data"), want, &kapell_server::Options::default())?
    else {
        bail!("somebody is there");
    };
    let address = local.listen(&Listen {
        address: ([127, 0, 0, 1], 0).into(),
        tls: local::Tls::Plain,
        insecure: false,
        require_token: false,
        request_rate: local::REQUEST_RATE,
    })?;
    let far = Far::start(&format!("http://{address}"), &dir.join("far"))?;
    let api = local.api();
    api.register(&RegisterWorkflow {
        file: "far.yaml".to_owned(),
        source: TEXT.to_owned(),
        bundle: None,
        by: String::new(),
    })?;
    let started = Instant::now();
    let n_value = Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
    let run = api
        .start(&StartRun {
            workflow: "far".to_owned(),
            params: Value::map([("n", n_value)]),
            ..StartRun::default()
        })?
        .run;
    let mut status = RunStatus::Running;
    while !status.ended() {
        ensure!(started.elapsed() < PATIENCE, "the run does not end");
        status = api.wait(run, Duration::from_secs(10))?.status;
    }
    let value = per_second(n, started);
    ensure!(status == RunStatus::Succeeded, "the run ended {status}");
    drop(far);
    local.stop(Duration::ZERO);
    Ok(figures(value))
}
