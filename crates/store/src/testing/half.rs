//! A store of which one node gets a part of the shards.

use std::sync::Arc;

use crate::{
    Commit, Document, Lease, Loaded, Mail, Order, Result, RunFilter, RunRow, RunsFound, Store,
    VersionRow,
};
use kapell_model::{EntityKey, RunId, RunStatus, Shard, ShardSet, Time};

/// See the module. All else is as the store says.
pub struct Half {
    store: Arc<dyn Store>,
    shards: ShardSet,
}

impl Half {
    /// For a node that gets these shards.
    pub fn new(store: Arc<dyn Store>, shards: ShardSet) -> Self {
        Self { store, shards }
    }
}

impl Store for Half {
    fn acquire(&self, shards: &[Shard]) -> Result<Vec<Lease>> {
        let own: Vec<Shard> = shards
            .iter()
            .copied()
            .filter(|shard| self.shards.contains(*shard))
            .collect();
        self.store.acquire(&own)
    }

    fn commit(&self, commit: &Commit) -> Result<()> {
        self.store.commit(commit)
    }

    fn load(&self, key: &EntityKey) -> Result<Option<Loaded>> {
        self.store.load(key)
    }

    fn due(
        &self,
        now: Time,
        after: Option<&(Time, EntityKey)>,
        limit: usize,
    ) -> Result<Vec<(Time, EntityKey)>> {
        self.store.due(now, after, limit)
    }

    fn next_wake(&self, now: Time) -> Result<Option<Time>> {
        self.store.next_wake(now)
    }

    fn mail(&self, shards: &ShardSet, limit: usize) -> Result<Vec<Mail>> {
        self.store.mail(shards, limit)
    }

    fn history(&self, key: &EntityKey, from: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>)>> {
        self.store.history(key, from, limit)
    }

    fn page(&self, key: &EntityKey, page: u32) -> Result<Option<Vec<u8>>> {
        self.store.page(key, page)
    }

    fn run(&self, id: RunId) -> Result<Option<RunRow>> {
        self.store.run(id)
    }

    fn find_runs(&self, suffix: &str, limit: usize) -> Result<Vec<RunId>> {
        self.store.find_runs(suffix, limit)
    }

    fn search_runs(&self, filter: &RunFilter, limit: usize) -> Result<RunsFound> {
        self.store.search_runs(filter, limit)
    }

    fn run_counts(&self, namespace: &str) -> Result<Vec<(Arc<str>, RunStatus, u64)>> {
        self.store.run_counts(namespace)
    }

    fn register(&self, row: &VersionRow) -> Result<u32> {
        self.store.register(row)
    }

    fn version_numbers(
        &self,
        namespace: &str,
        workflow: &str,
        hash: &str,
    ) -> Result<(Option<u32>, u32)> {
        self.store.version_numbers(namespace, workflow, hash)
    }

    fn versions(
        &self,
        namespace: &str,
        workflow: &str,
        before: Option<u32>,
        limit: usize,
    ) -> Result<Vec<VersionRow>> {
        self.store.versions(namespace, workflow, before, limit)
    }

    fn version(
        &self,
        namespace: &str,
        workflow: &str,
        version: Option<u32>,
    ) -> Result<Option<VersionRow>> {
        self.store.version(namespace, workflow, version)
    }

    fn list_workflows(
        &self,
        namespace: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(Arc<str>, u32)>> {
        self.store.list_workflows(namespace, after, limit)
    }

    fn expired_runs(
        &self,
        workflow: Option<(&str, &str)>,
        before: Time,
        limit: usize,
    ) -> Result<Vec<RunId>> {
        self.store.expired_runs(workflow, before, limit)
    }

    fn delete_runs(&self, ids: &[RunId]) -> Result<u64> {
        self.store.delete_runs(ids)
    }

    fn blobs_of(&self, key: &EntityKey, after: &str, limit: usize) -> Result<Vec<Arc<str>>> {
        self.store.blobs_of(key, after, limit)
    }

    fn blobs_referred(&self, hashes: &[Arc<str>]) -> Result<Vec<bool>> {
        self.store.blobs_referred(hashes)
    }

    fn documents(
        &self,
        prefix: &[u8],
        beyond: Option<&[u8]>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, String)>> {
        self.store.documents(prefix, beyond, order, limit)
    }

    fn put_documents(&self, documents: &[Document]) -> Result<()> {
        self.store.put_documents(documents)
    }

    fn tidy(&self) -> Result<()> {
        self.store.tidy()
    }
}
