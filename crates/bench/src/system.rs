//! Kapell as one process runs it: SQLite, one node, one worker.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kapell_expr::Value;
use kapell_model::{Error, ErrorCode, RunId, RunStatus};
use kapell_node::drive::Node;
use kapell_node::{Answer, ClientRequest, StartRun, clock};
use kapell_server::Options;
use kapell_server::local::{self, Local, Want};
use kapell_server::workers::{Hire, Leave, OwnQueues, Settings};
use kapell_store::{RunRow, SqliteStore, Store, VersionRow};
use kapell_worker::Capacity;
use kapell_worker::remote::{self, RemoteConfig};

use crate::recorder::{Gate, Recorder};

/// Attempts at a time where nothing else is said.
pub(crate) const SLOTS: usize = 16;

/// A whole Kapell on a directory, put together as the binary does it.
pub(crate) struct System {
    pub node: Node,
    pub store: Arc<Recorder>,
    pub ended: Receiver<(RunId, RunStatus)>,
    local: Option<Local>,
}

impl System {
    /// Opens a directory.
    pub(crate) fn open(dir: &Path, slots: usize) -> Result<Self> {
        Self::over(Arc::new(SqliteStore::open(dir)?), dir, slots)
    }

    /// Opens a directory whose worker serves these queues, with a gate before the store.
    pub(crate) fn with_gate(dir: &Path, own: OwnQueues, gate: Gate) -> Result<Self> {
        let store = Recorder::new(Arc::new(SqliteStore::open(dir)?), Some(gate));
        Self::of(store, dir, SLOTS, own)
    }

    /// Over a store that is not in the directory.
    pub(crate) fn over(store: Arc<dyn Store>, dir: &Path, slots: usize) -> Result<Self> {
        Self::of(Recorder::new(store, None), dir, slots, OwnQueues::Free)
    }

    fn of(store: Recorder, dir: &Path, slots: usize, own: OwnQueues) -> Result<Self> {
        let store = Arc::new(store);
        let want = Want::Work(Settings {
            hire: Some(hire(dir, slots, &own)),
            own,
            ..Settings::default()
        });
        let local = local::over(dir, store.clone(), want, &Options::default())?;
        let node = local.node().context("nobody decides here")?.clone();
        let (send, ended) = mpsc::channel();
        node.watch(Box::new(move |row: &RunRow| {
            if row.status.ended() {
                // The benchmark may be over.
                let _ = send.send((row.id, row.status));
            }
        }));
        Ok(Self {
            node,
            store,
            ended,
            local: Some(local),
        })
    }

    /// Registers a workflow from its text.
    pub(crate) fn register(&self, text: &str) -> Result<Arc<str>> {
        let parsed = kapell_model::parse("bench.yaml", text);
        let Some(spec) = parsed.spec else {
            bail!("{:?}", parsed.diagnostics)
        };
        let json = serde_json::to_string(&*spec)?;
        self.store.inner.register(&VersionRow {
            namespace: "default".into(),
            workflow: spec.workflow.clone(),
            version: 0,
            hash: blake3::hash(json.as_bytes()).to_hex().as_str().into(),
            spec: json.into(),
            source: text.into(),
            bundle: None,
            created_at: clock::now(),
            author: "".into(),
        })?;
        self.node.versions_changed();
        Ok(spec.workflow.clone())
    }

    /// Starts a run without waiting for the answer.
    pub(crate) fn start(&self, workflow: &Arc<str>, params: Value) {
        let start = StartRun {
            namespace: "default".into(),
            workflow: workflow.clone(),
            version: None,
            params,
            text: false,
            by: "bench".to_owned(),
            scheduled_at: None,
            priority: None,
            idempotency_key: None,
        };
        self.node.ask(
            ClientRequest::Start(Box::new(start)),
            Box::new(|answer| {
                assert!(
                    matches!(answer, Ok(Answer::Started(_))),
                    "a start was refused: {answer:?}"
                );
            }),
        );
    }

    /// Waits until so many runs have ended well.
    pub(crate) fn wait(&self, runs: usize) -> Result<()> {
        for _ in 0..runs {
            let (id, status) = self
                .ended
                .recv_timeout(Duration::from_mins(10))
                .context("no run ended in 10 minutes")?;
            if status != RunStatus::Succeeded {
                let row = self.store.inner.run(id)?;
                bail!("run {id} ended {status}: {row:?}");
            }
        }
        Ok(())
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if let Some(local) = self.local.take() {
            local.stop(Duration::ZERO);
        }
    }
}

/// Starts the worker inside.
fn hire(dir: &Path, slots: usize, own: &OwnQueues) -> Hire {
    let worker = kapell_worker::Config {
        data_dir: dir.to_owned(),
        capacity: Capacity {
            cpu_millis: 64_000,
            memory_bytes: 64 << 30,
            gpus: 0,
            slots,
        },
        secrets: Arc::new(|_| None),
        inherit_env: std::env::vars_os().collect(),
        clock: clock::now,
        python: None,
        uv: None,
        keep_failed: Duration::ZERO,
        http: kapell_worker::HttpRules::default(),
    };
    let queues = match own {
        OwnQueues::Free | OwnQueues::NeverNamed => Vec::new(),
        OwnQueues::Named(names) => names.iter().map(ToString::to_string).collect(),
    };
    Box::new(move |calls, blobs, logs_here| {
        let server = RemoteConfig {
            server: remote::Server::Inside {
                calls,
                blobs,
                logs_here,
            },
            name: "bench".to_owned(),
            labels: BTreeMap::new(),
            resources: BTreeMap::new(),
            spot: false,
            pool: None,
            queues,
            version: "bench".to_owned(),
        };
        let inside = remote::Inside::start(worker, server)
            .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
        let leave: Leave = Box::new(move |grace| inside.stop(grace));
        Ok(leave)
    })
}
