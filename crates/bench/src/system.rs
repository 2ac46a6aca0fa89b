//! Kapell as one process runs it: SQLite, one node, one worker.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kapell_api::task::{Blobs, Place, Report, Task};
use kapell_expr::Value;
use kapell_model::{Offer, RunId, RunStatus};
use kapell_node::drive::{Node, Threads, Workers};
use kapell_node::{Answer, BlobFolder, ClientRequest, Config, StartRun, clock};
use kapell_store::{FileBlobs, RunRow, SqliteStore, Store, VersionRow};
use kapell_worker::{Capacity, Worker};

use crate::recorder::{Gate, Recorder};

/// A whole Kapell on a directory.
pub(crate) struct System {
    pub node: Node,
    pub store: Arc<Recorder>,
    pub ended: Receiver<(RunId, RunStatus)>,
    threads: Option<Threads>,
    worker: Arc<Local>,
}

struct Local(Worker);

impl Workers for Local {
    fn offer(&self, tasks: Vec<Task>) {
        self.0.offer(tasks);
    }

    fn stop(&self, attempts: &[(RunId, Place, Offer)]) {
        self.0.cancel(attempts);
    }
}

impl System {
    /// Opens a directory; 0 slots hand out no step that starts a process.
    pub(crate) fn open(dir: &Path, slots: usize) -> Result<Self> {
        Self::with_gate(dir, slots, None)
    }

    /// Like [`System::open`], with a gate before the store.
    pub(crate) fn with_gate(dir: &Path, slots: usize, gate: Option<Gate>) -> Result<Self> {
        Self::over(Arc::new(SqliteStore::open(dir)?), dir, slots, gate)
    }

    /// Over a store that is not in the directory.
    pub(crate) fn over(
        store: Arc<dyn Store>,
        dir: &Path,
        slots: usize,
        gate: Option<Gate>,
    ) -> Result<Self> {
        let store = Arc::new(Recorder::new(store, gate));
        let blobs: Arc<dyn Blobs> = Arc::new(BlobFolder(FileBlobs::open(dir)?));
        let prepared = Node::prepare();
        let node = prepared.node();
        let to_node = node.clone();
        let config = kapell_worker::Config {
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
        let reports = Box::new(move |reports: Vec<Report>| to_node.reports(reports));
        let (worker, _lost) = Worker::start(config, blobs.clone(), reports)?;
        let worker = Arc::new(Local(worker));
        let (send, ended) = mpsc::channel();
        node.watch(Box::new(move |row: &RunRow| {
            if row.status.ended() {
                // The benchmark may be over.
                let _ = send.send((row.id, row.status));
            }
        }));
        let lane = Config {
            seed: u64::try_from(clock::now().0).unwrap_or(1),
            process_window: slots * 2,
            light_window: 16_384,
            idle_micros: 30_000_000,
            keeps: kapell_node::engine::topic::Keeps::default(),
            dispatch: kapell_node::DispatchSettings::default(),
        };
        let threads = prepared.start(lane, store.clone(), blobs, worker.clone())?;
        Ok(Self {
            node,
            store,
            ended,
            threads: Some(threads),
            worker,
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
        if let Some(threads) = self.threads.take() {
            threads.stop();
        }
        let _ = &self.worker;
    }
}
