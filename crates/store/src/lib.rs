//! Where everything that must be remembered is kept: one trait, no rules.
//!
//! Start reading at [`Store`] and [`Commit`]; then `memory` (the plainest implementation, which the
//! simulator drives), then `sqlite` and `postgres`. What every store must do is in [`conformance`]; big things lie
//! beside it, in a [`BlobStore`]: files beside SQLite, rows of their own in PostgreSQL.
//!
//! Invariants
//! - State changes only in [`Store::commit`], which is atomic, durable when it returns, and fenced:
//!   it writes only if every shard it names still has the epoch and sequence number that it names.
//! - The store looks inside chunks for one thing, hashes of blobs, and by their text alone. It knows no
//!   rule of a run.
//! - No list is unbounded and nothing is counted by scanning.
//!
//! Not here: what events mean (`engine`), when to commit (`node`).

use std::sync::Arc;

use kapell_model::{EntityKey, RunId, RunStatus, Shard, ShardSet, Time};
use serde::{Deserialize, Serialize};

mod blob_store;
mod blobs;
mod check;
mod cluster;
pub mod conformance;
mod directory;
mod filter;
mod memory;
mod postgres;
mod refs;
mod sqlite;
mod steps;
mod suffix;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use blob_store::BlobStore;
pub use blobs::{CachedBlobs, FileBlobs, Sweep, Swept};
pub use cluster::{Beat, Cluster, NodeAbout, NodeRow};
pub use memory::MemoryStore;
pub use postgres::{
    LogLines, MOVED_BLOBS, MOVED_DATABASE, MovedTable, PostgresBlobs, PostgresLog, PostgresLogs,
    PostgresStatus, PostgresStore, PostgresUrl, move_store,
};
pub use sqlite::{SqliteStore, check_database, copy_database, database_step};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A shard is no longer as the commit named it: somebody else owns it. Drop what was decided,
    /// and load again.
    #[error("shard {} is owned by somebody else", .0.0)]
    Conflict(Shard),
    /// The store does not answer or cannot write now. Whether a commit that got this answer has
    /// landed is unknown: acquire again before reading.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// No room is left. The commit did not land.
    #[error("the disk is full: {0}")]
    Full(String),
    /// The request itself cannot be done, however often it is tried.
    #[error("the store refuses: {0}")]
    Invalid(String),
    /// What is stored cannot be read, or was written by a newer version.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// The store was written by a newer version of Kapell.
    #[error("the store has schema version {found}, this Kapell knows up to {known}")]
    TooNew {
        /// The version found.
        found: u32,
        /// The newest version known.
        known: u32,
    },
    /// Another process holds the data directory.
    #[error("the data directory is held by process {pid}")]
    Held {
        /// Its process id.
        pid: u32,
    },
    /// The data directory cannot be used: read-only, on a network file system, not a directory.
    #[error("{0}")]
    Unusable(String),
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The right to write a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The shard.
    pub shard: Shard,
    /// Goes up at each acquisition.
    pub epoch: u64,
    /// Goes up at each commit to the shard.
    pub seq: u64,
}

/// Everything that changes at once.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Every shard that is written, as held, in order of shard. The commit advances each `seq` by one.
    pub shards: Vec<Lease>,
    /// Touched entities; at most one write for each.
    pub entities: Vec<EntityWrite>,
    /// Rows of runs that are new or whose row changed; at most one for each.
    pub runs: Vec<RunRow>,
    /// Documents that change, as [`Store::put_documents`] takes them.
    pub documents: Vec<Document>,
    /// Versions that become the active ones of their workflows: namespace, workflow, version. 0 is
    /// none: the workflow starts by no trigger and no name alone any more.
    pub activated: Vec<(Arc<str>, Arc<str>, u32)>,
    /// Messages to entities of other shards.
    pub mail: Vec<Mail>,
    /// Up to which message the shards have taken what others sent them; at most one for each two.
    pub marks: Vec<Mark>,
    /// Versions that are registered, before any is activated. Each has the number after the newest of its
    /// workflow and a hash that none of it has, or the commit is refused. Unlike [`Store::register`] it
    /// makes none of them the active one by that.
    pub versions: Vec<VersionRow>,
}

impl Commit {
    /// True if it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
            && self.entities.is_empty()
            && self.runs.is_empty()
            && self.documents.is_empty()
            && self.activated.is_empty()
            && self.versions.is_empty()
            && self.mail.is_empty()
            && self.marks.is_empty()
    }
}

/// A message on its way from one shard to another, which may have another owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The shard that sends it, which the commit writes.
    pub from: Shard,
    /// Greater than that of every message which the shard sent before.
    pub number: u64,
    /// Who gets it. It waits in that one's shard.
    pub to: EntityKey,
    /// What it says.
    pub message: Vec<u8>,
}

/// What a shard has taken of what another sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The shard that took it, which the commit writes.
    pub to: Shard,
    /// The shard that sent it.
    pub from: Shard,
    /// The last message that was taken: it and all before it are over.
    pub number: u64,
}

/// A document by its key, or that there is none of it any more. The first byte of a key says what it
/// is: those of entities (`EntityKey::to_bytes`) are below 64.
pub type Document = (Vec<u8>, Option<String>);

/// In which order a list goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By key.
    Forward,
    /// The greatest key first.
    Backward,
}

/// What changes in one entity.
#[derive(Clone, Debug)]
pub struct EntityWrite {
    /// Which.
    pub key: EntityKey,
    /// Place of the chunk in the entity's history: 1 for the first, then one more each. A place that
    /// is taken is refused.
    pub seq: u64,
    /// The events, encoded. Empty: nothing is appended (a snapshot or page alone is written). The
    /// entity refers to every blob whose hash stands in it.
    pub chunk: Vec<u8>,
    /// When the entity must be in memory: [`Time::ZERO`] for at once, `None` for only when it gets
    /// a message. Always the whole truth. Instants before zero are zero.
    pub wake_at: Option<Time>,
    /// State after `seq`, so that loading need not start at the first chunk.
    pub snapshot: Option<Vec<u8>>,
    /// True: chunks up to `seq` are dropped, the snapshot alone stays, and must be given; the entity
    /// refers to the blobs whose hashes stand in that, and in its pages. For
    /// entities without a history that people look at. With an empty snapshot nothing stays: the
    /// entity is dropped, pages and all.
    pub forget: bool,
    /// Pages that left memory: their numbers and contents. Written once each; a number that is
    /// taken is refused.
    pub pages: Vec<(u32, Vec<u8>)>,
}

/// What is needed to have an entity in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The newest snapshot and the `seq` it stands for.
    pub snapshot: Option<(u64, Vec<u8>)>,
    /// The chunks after it, in order.
    pub chunks: Vec<(u64, Vec<u8>)>,
}

/// What lists and people need of a run without loading it. Written when it changes, not with every
/// event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRow {
    /// The run.
    pub id: RunId,
    /// Namespace of the workflow.
    pub namespace: Arc<str>,
    /// Name of the workflow.
    pub workflow: Arc<str>,
    /// Number of the version.
    pub version: u32,
    /// Where it stands.
    pub status: RunStatus,
    /// When it was made.
    pub created_at: Time,
    /// When it started.
    pub started_at: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// The run whose step made it.
    pub parent: Option<RunId>,
    /// What made it: `manual`, `workflow`, `fork`.
    pub trigger: Arc<str>,
    /// Steps and items that ended well, that ended otherwise, and all that are known.
    pub counts: [u64; 3],
    /// The first error, cut to 1 KiB.
    pub error: Option<String>,
    /// Labels as JSON.
    pub labels: String,
    /// Its due time, if it is not when it was made.
    pub scheduled_at: Option<Time>,
    /// The name of what made it, where its kind has names.
    pub trigger_name: Option<Arc<str>>,
    /// The backfill that made it.
    pub backfill: Option<Arc<str>>,
}

/// Which runs to list. All conditions hold at once.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Of this namespace.
    pub namespace: Option<Arc<str>>,
    /// Of this workflow.
    pub workflow: Option<Arc<str>>,
    /// In one of these statuses; empty is all.
    pub statuses: Vec<RunStatus>,
    /// Made by this run.
    pub parent: Option<RunId>,
    /// Made at or after.
    pub since: Option<Time>,
    /// Made before.
    pub until: Option<Time>,
    /// Made by a trigger of this kind or name.
    pub trigger: Option<Arc<str>>,
    /// Made by this backfill.
    pub backfill: Option<Arc<str>>,
    /// With all these labels: name and value.
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// With this text in the error, whatever the case of its ASCII letters.
    pub error: Option<Arc<str>>,
    /// After this place in the list: the last of the page before.
    pub before: Option<RunPlace>,
}

/// A run's place in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunPlace {
    /// When it was made. None: as its row says; a run that is gone stands where the time in its id puts
    /// it, which an id that was derived from a key or a due time does not have.
    pub created_at: Option<Time>,
    /// The run.
    pub run: RunId,
}

impl RunPlace {
    /// That of a row: it stays when the run is gone.
    pub fn of(row: &RunRow) -> Self {
        Self {
            created_at: Some(row.created_at),
            run: row.id,
        }
    }
}

impl From<RunId> for RunPlace {
    fn from(run: RunId) -> Self {
        Self {
            created_at: None,
            run,
        }
    }
}

/// Runs that were searched for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunsFound {
    /// Last made first.
    pub rows: Vec<RunRow>,
    /// Where to go on, as `before` of the filter; none: there are no more. There may be no more all
    /// the same.
    pub next: Option<RunPlace>,
}

/// A registered version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRow {
    /// Namespace of the workflow.
    pub namespace: Arc<str>,
    /// Name of the workflow.
    pub workflow: Arc<str>,
    /// 1 for the first.
    pub version: u32,
    /// Hash of the normalised spec and the bundle.
    pub hash: Arc<str>,
    /// The normalised spec as JSON.
    pub spec: Arc<str>,
    /// The file as its author wrote it.
    pub source: Arc<str>,
    /// The bundle's blob as JSON, if there is one: the version refers to every blob whose hash stands
    /// in it.
    pub bundle: Option<Arc<str>>,
    /// When it was registered.
    pub created_at: Time,
    /// Who registered it; empty if nobody said.
    pub author: Arc<str>,
}

/// A place to keep everything. Calls block; whoever must not wait calls from a thread of its own.
pub trait Store: Send + Sync {
    /// Takes shards over: each gets a greater epoch, so that whoever held them can write no more.
    /// The leases come in the order asked.
    fn acquire(&self, shards: &[Shard]) -> Result<Vec<Lease>>;

    /// Writes all of it, or nothing. Durable when it returns. What it writes lies in the shards that
    /// it names, or it is refused.
    fn commit(&self, commit: &Commit) -> Result<()>;

    /// Everything to have an entity in memory; `None` if there is no such entity.
    fn load(&self, key: &EntityKey) -> Result<Option<Loaded>>;

    /// Entities that must be in memory at `now`, by `wake_at` then key, after the given one.
    fn due(
        &self,
        now: Time,
        after: Option<&(Time, EntityKey)>,
        limit: usize,
    ) -> Result<Vec<(Time, EntityKey)>>;

    /// The earliest `wake_at` after `now`.
    fn next_wake(&self, now: Time) -> Result<Option<Time>>;

    /// Messages to entities of these shards that no mark is past, by the shard they are for, the one they
    /// come from and their number.
    fn mail(&self, shards: &ShardSet, limit: usize) -> Result<Vec<Mail>>;

    /// Chunks of an entity's history from `from` on, in order.
    fn history(&self, key: &EntityKey, from: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>)>>;

    /// One page that left memory.
    fn page(&self, key: &EntityKey, page: u32) -> Result<Option<Vec<u8>>>;

    /// The row of a run.
    fn run(&self, id: RunId) -> Result<Option<RunRow>>;

    /// Runs whose id ends in this text, last made first; at most `limit`. A whole id is always found,
    /// a part of one among the newest 100,000 runs.
    fn find_runs(&self, suffix: &str, limit: usize) -> Result<Vec<RunId>>;

    /// Rows of runs, last made first; of those made at once, the greatest id first. Takes a short time
    /// however many runs there are: fewer than `limit`, even none, may come with a place to go on from.
    fn search_runs(&self, filter: &RunFilter, limit: usize) -> Result<RunsFound>;

    /// As [`Store::search_runs`], until there are `limit` or no more: as long as that takes.
    fn list_runs(&self, filter: &RunFilter, limit: usize) -> Result<Vec<RunRow>> {
        let mut filter = filter.clone();
        let mut rows = Vec::new();
        while rows.len() < limit {
            let found = self.search_runs(&filter, limit - rows.len())?;
            rows.extend(found.rows);
            if found.next.is_none() {
                break;
            }
            filter.before = found.next;
        }
        Ok(rows)
    }

    /// How many runs of each workflow are in each status, kept and never counted. By name, then
    /// status; none that is zero.
    fn run_counts(&self, namespace: &str) -> Result<Vec<(Arc<str>, RunStatus, u64)>>;

    /// Registers a version: one with the same hash as a version of the workflow changes nothing.
    /// Returns its number. `version` of the row is ignored.
    fn register(&self, row: &VersionRow) -> Result<u32>;

    /// The number of the version of a workflow with this hash, if there is one, and that of its newest
    /// version, 0 for none.
    fn version_numbers(
        &self,
        namespace: &str,
        workflow: &str,
        hash: &str,
    ) -> Result<(Option<u32>, u32)>;

    /// Versions of a workflow, newest first, before the given one.
    fn versions(
        &self,
        namespace: &str,
        workflow: &str,
        before: Option<u32>,
        limit: usize,
    ) -> Result<Vec<VersionRow>>;

    /// A version of a workflow; none is the active one: the one activated last, or of a workflow none
    /// of whose versions was ever activated the one registered last.
    fn version(
        &self,
        namespace: &str,
        workflow: &str,
        version: Option<u32>,
    ) -> Result<Option<VersionRow>>;

    /// Names of workflows after the given one, with their active versions, 0 for none.
    fn list_workflows(
        &self,
        namespace: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(Arc<str>, u32)>>;

    /// Ended runs that are older than `before` by their end, oldest first.
    fn expired_runs(
        &self,
        workflow: Option<(&str, &str)>,
        before: Time,
        limit: usize,
    ) -> Result<Vec<RunId>>;

    /// Drops ended runs with all that belongs to them. Runs that have not ended are left alone.
    fn delete_runs(&self, ids: &[RunId]) -> Result<u64>;

    /// Blobs that an entity refers to, by hash, after the given one; empty is before all.
    fn blobs_of(&self, key: &EntityKey, after: &str, limit: usize) -> Result<Vec<Arc<str>>>;

    /// Of each of these blobs whether anything stored refers to it. A text that is no hash is refused.
    fn blobs_referred(&self, hashes: &[Arc<str>]) -> Result<Vec<bool>>;

    /// Documents whose keys start so, in order, beyond the given key.
    fn documents(
        &self,
        prefix: &[u8],
        beyond: Option<&[u8]>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, String)>>;

    /// Writes documents that belong to no entity, all or none. Durable when it returns.
    fn put_documents(&self, documents: &[Document]) -> Result<()>;

    /// Upkeep that may take a while: called when there is nothing else to do.
    fn tidy(&self) -> Result<()>;
}

/// The time in the id of a run: a whole millisecond, zero in an id that was derived from a key.
fn time_in(id: RunId) -> Time {
    Time(i64::try_from(id.0 >> 80).unwrap_or(0) * 1000)
}
