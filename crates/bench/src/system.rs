//! Kapell as one process runs it: SQLite, one node, one worker.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kapell_api::task::{Blobs, Place, Report, Task};
use kapell_expr::{BlobRef, Value};
use kapell_model::{Offer, RunId, RunStatus, Time};
use kapell_node::drive::{Node, Threads, Workers};
use kapell_node::{Answer, ClientRequest, Config, StartRun, clock};
use kapell_store::{Commit, FileBlobs, RunRow, SqliteStore, Store, VersionRow};
use kapell_worker::{Capacity, Worker};
use parking_lot::Mutex;

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

struct Files(FileBlobs);

impl Blobs for Files {
    fn put(&self, bytes: &[u8]) -> std::io::Result<BlobRef> {
        self.0.put(bytes)
    }

    fn put_file(&self, path: &Path) -> std::io::Result<BlobRef> {
        self.0.put_file(path)
    }

    fn get(&self, blob: &BlobRef, limit: u64) -> std::io::Result<Vec<u8>> {
        self.0.get(blob, limit)
    }

    fn get_file(&self, blob: &BlobRef, path: &Path) -> std::io::Result<()> {
        self.0.get_file(blob, path)
    }
}

impl System {
    pub(crate) fn open(dir: &Path, slots: usize) -> Result<Self> {
        let store = Arc::new(Recorder {
            inner: SqliteStore::open(dir)?,
            commits: Mutex::default(),
        });
        let blobs: Arc<dyn Blobs> = Arc::new(Files(FileBlobs::open(&dir.join("blobs"))?));
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

/// One commit as the raw store repeats it: for each entity its key and the length of its chunk, and
/// its rows.
pub(crate) type Recorded = (
    Vec<(kapell_model::EntityKey, usize, Option<Time>)>,
    Vec<RunRow>,
);

/// A store that takes note of the shape of every commit.
pub(crate) struct Recorder {
    pub inner: SqliteStore,
    pub commits: Mutex<Vec<Recorded>>,
}

impl Store for Recorder {
    fn acquire(
        &self,
        shards: &[kapell_model::Shard],
    ) -> kapell_store::Result<Vec<kapell_store::Lease>> {
        self.inner.acquire(shards)
    }

    fn commit(&self, commit: &Commit) -> kapell_store::Result<()> {
        let shape = commit
            .entities
            .iter()
            .map(|write| (write.key.clone(), write.chunk.len(), write.wake_at))
            .collect();
        self.commits.lock().push((shape, commit.runs.clone()));
        self.inner.commit(commit)
    }

    fn load(
        &self,
        key: &kapell_model::EntityKey,
    ) -> kapell_store::Result<Option<kapell_store::Loaded>> {
        self.inner.load(key)
    }

    fn due(
        &self,
        now: Time,
        after: Option<&(Time, kapell_model::EntityKey)>,
        limit: usize,
    ) -> kapell_store::Result<Vec<(Time, kapell_model::EntityKey)>> {
        self.inner.due(now, after, limit)
    }

    fn next_wake(&self, now: Time) -> kapell_store::Result<Option<Time>> {
        self.inner.next_wake(now)
    }

    fn history(
        &self,
        key: &kapell_model::EntityKey,
        from: u64,
        limit: usize,
    ) -> kapell_store::Result<Vec<(u64, Vec<u8>)>> {
        self.inner.history(key, from, limit)
    }

    fn page(
        &self,
        key: &kapell_model::EntityKey,
        page: u32,
    ) -> kapell_store::Result<Option<Vec<u8>>> {
        self.inner.page(key, page)
    }

    fn run(&self, id: RunId) -> kapell_store::Result<Option<RunRow>> {
        self.inner.run(id)
    }

    fn find_runs(&self, suffix: &str, limit: usize) -> kapell_store::Result<Vec<RunId>> {
        self.inner.find_runs(suffix, limit)
    }

    fn list_runs(
        &self,
        filter: &kapell_store::RunFilter,
        limit: usize,
    ) -> kapell_store::Result<Vec<RunRow>> {
        self.inner.list_runs(filter, limit)
    }

    fn run_counts(&self, namespace: &str) -> kapell_store::Result<Vec<(Arc<str>, RunStatus, u64)>> {
        self.inner.run_counts(namespace)
    }

    fn register(&self, row: &VersionRow) -> kapell_store::Result<u32> {
        self.inner.register(row)
    }

    fn version(
        &self,
        namespace: &str,
        workflow: &str,
        version: Option<u32>,
    ) -> kapell_store::Result<Option<VersionRow>> {
        self.inner.version(namespace, workflow, version)
    }

    fn list_workflows(
        &self,
        namespace: &str,
        after: &str,
        limit: usize,
    ) -> kapell_store::Result<Vec<(Arc<str>, u32)>> {
        self.inner.list_workflows(namespace, after, limit)
    }

    fn expired_runs(
        &self,
        workflow: Option<(&str, &str)>,
        before: Time,
        limit: usize,
    ) -> kapell_store::Result<Vec<RunId>> {
        self.inner.expired_runs(workflow, before, limit)
    }

    fn delete_runs(&self, ids: &[RunId]) -> kapell_store::Result<u64> {
        self.inner.delete_runs(ids)
    }

    fn tidy(&self) -> kapell_store::Result<()> {
        self.inner.tidy()
    }
}
