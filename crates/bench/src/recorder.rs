//! The store of a workload: takes note of what is committed, or stands still at a chosen moment.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use kapell_model::{EntityKey, RunId, RunStatus, ShardSet, Time};
use kapell_node::engine::event::{AttemptResult, Event, Fact};
use kapell_store::{Commit, EntityWrite, Mail, RunRow, Store, VersionRow};
use parking_lot::Mutex;

/// One commit as the raw store repeats it.
#[derive(Clone)]
pub(crate) struct Recorded {
    pub entities: Vec<Written>,
    pub runs: Vec<RunRow>,
}

/// What was written of an entity, with lengths in place of bytes.
#[derive(Clone)]
pub(crate) struct Written {
    pub key: EntityKey,
    seq: u64,
    chunk: usize,
    wake_at: Option<Time>,
    snapshot: Option<usize>,
    forget: bool,
    pages: Vec<(u32, usize)>,
}

impl Written {
    fn of(write: &EntityWrite) -> Self {
        let page = |(number, bytes): &(u32, Vec<u8>)| (*number, bytes.len());
        Self {
            key: write.key.clone(),
            seq: write.seq,
            chunk: write.chunk.len(),
            wake_at: write.wake_at,
            snapshot: write.snapshot.as_ref().map(Vec::len),
            forget: write.forget,
            pages: write.pages.iter().map(page).collect(),
        }
    }

    /// All bytes of it together, in one row for each chunk, state or page.
    pub(crate) fn bytes(&self) -> impl Iterator<Item = Vec<u8>> {
        let pages = self.pages.iter().map(|(_, len)| *len);
        let lengths = [self.chunk, self.snapshot.unwrap_or(0)].into_iter();
        let lengths = lengths.chain(pages).filter(|len| *len > 0);
        lengths.map(|len| vec![7; len])
    }

    /// As many bytes again.
    pub(crate) fn again(self) -> EntityWrite {
        let bytes = |len: usize| vec![7; len];
        let page = |(number, len)| (number, bytes(len));
        EntityWrite {
            key: self.key,
            seq: self.seq,
            chunk: bytes(self.chunk),
            wake_at: self.wake_at,
            snapshot: self.snapshot.map(bytes),
            forget: self.forget,
            pages: self.pages.into_iter().map(page).collect(),
        }
    }
}

/// A store that takes note of the shape of every commit, or has a gate.
pub(crate) struct Recorder {
    pub inner: Arc<dyn Store>,
    pub commits: Mutex<Vec<Recorded>>,
    gate: Option<Gate>,
}

/// Lets commits through until so many steps have ended, then none for ever: as if the process had
/// been killed there.
pub(crate) struct Gate {
    left: Mutex<usize>,
    shut: Sender<()>,
}

impl Gate {
    /// A gate that shuts after `steps`, and says so once.
    pub(crate) fn new(steps: usize, shut: Sender<()>) -> Self {
        Self {
            left: Mutex::new(steps),
            shut,
        }
    }

    fn passed(&self, commit: &Commit) {
        let ended: usize = commit
            .entities
            .iter()
            .filter_map(|write| kapell_node::engine::chunk::decode::<Event>(&write.chunk).ok())
            .map(|events| events.iter().filter(|event| succeeded(event)).count())
            .sum();
        let mut left = self.left.lock();
        *left = left.saturating_sub(ended);
        if *left == 0 {
            // Nobody may listen any more.
            let _ = self.shut.send(());
            loop {
                std::thread::park();
            }
        }
    }
}

/// True for the good end of a step's attempt.
pub(crate) fn succeeded(event: &Event) -> bool {
    matches!(&event.fact, Some(Fact::AttemptEnded(ended))
        if AttemptResult::from_number(ended.result) == AttemptResult::Succeeded)
}

impl Recorder {
    pub(crate) fn new(inner: Arc<dyn Store>, gate: Option<Gate>) -> Self {
        Self {
            inner,
            commits: Mutex::default(),
            gate,
        }
    }
}

impl Store for Recorder {
    fn acquire(
        &self,
        shards: &[kapell_model::Shard],
    ) -> kapell_store::Result<Vec<kapell_store::Lease>> {
        self.inner.acquire(shards)
    }

    fn commit(&self, commit: &Commit) -> kapell_store::Result<()> {
        if let Some(gate) = &self.gate {
            self.inner.commit(commit)?;
            gate.passed(commit);
            return Ok(());
        }
        self.commits.lock().push(Recorded {
            entities: commit.entities.iter().map(Written::of).collect(),
            runs: commit.runs.clone(),
        });
        self.inner.commit(commit)
    }

    fn load(&self, key: &EntityKey) -> kapell_store::Result<Option<kapell_store::Loaded>> {
        self.inner.load(key)
    }

    fn due(
        &self,
        now: Time,
        after: Option<&(Time, EntityKey)>,
        limit: usize,
    ) -> kapell_store::Result<Vec<(Time, EntityKey)>> {
        self.inner.due(now, after, limit)
    }

    fn mail(&self, shards: &ShardSet, limit: usize) -> kapell_store::Result<Vec<Mail>> {
        self.inner.mail(shards, limit)
    }

    fn next_wake(&self, now: Time) -> kapell_store::Result<Option<Time>> {
        self.inner.next_wake(now)
    }

    fn history(
        &self,
        key: &EntityKey,
        from: u64,
        limit: usize,
    ) -> kapell_store::Result<Vec<(u64, Vec<u8>)>> {
        self.inner.history(key, from, limit)
    }

    fn page(&self, key: &EntityKey, page: u32) -> kapell_store::Result<Option<Vec<u8>>> {
        self.inner.page(key, page)
    }

    fn run(&self, id: RunId) -> kapell_store::Result<Option<RunRow>> {
        self.inner.run(id)
    }

    fn find_runs(&self, suffix: &str, limit: usize) -> kapell_store::Result<Vec<RunId>> {
        self.inner.find_runs(suffix, limit)
    }

    fn search_runs(
        &self,
        filter: &kapell_store::RunFilter,
        limit: usize,
    ) -> kapell_store::Result<kapell_store::RunsFound> {
        self.inner.search_runs(filter, limit)
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

    fn version_numbers(
        &self,
        namespace: &str,
        workflow: &str,
        hash: &str,
    ) -> kapell_store::Result<(Option<u32>, u32)> {
        self.inner.version_numbers(namespace, workflow, hash)
    }

    fn versions(
        &self,
        namespace: &str,
        workflow: &str,
        before: Option<u32>,
        limit: usize,
    ) -> kapell_store::Result<Vec<VersionRow>> {
        self.inner.versions(namespace, workflow, before, limit)
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

    fn blobs_of(
        &self,
        key: &EntityKey,
        after: &str,
        limit: usize,
    ) -> kapell_store::Result<Vec<Arc<str>>> {
        self.inner.blobs_of(key, after, limit)
    }

    fn blobs_referred(&self, hashes: &[Arc<str>]) -> kapell_store::Result<Vec<bool>> {
        self.inner.blobs_referred(hashes)
    }

    fn documents(
        &self,
        prefix: &[u8],
        beyond: Option<&[u8]>,
        order: kapell_store::Order,
        limit: usize,
    ) -> kapell_store::Result<Vec<(Vec<u8>, String)>> {
        self.inner.documents(prefix, beyond, order, limit)
    }

    fn put_documents(&self, documents: &[kapell_store::Document]) -> kapell_store::Result<()> {
        self.inner.put_documents(documents)
    }

    fn tidy(&self) -> kapell_store::Result<()> {
        self.inner.tidy()
    }
}
