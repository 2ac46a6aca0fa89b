//! What goes into one commit, and what follows it.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::fast::FixedState;
use indexmap::IndexMap;
use kapell_api::task::{Place, Report, Task};
use kapell_expr::BlobRef;
use kapell_model::{EntityKey, Error, Offer, RunId, Shard};
use kapell_store::VersionRow;

use crate::lane::Grant;
use crate::request::{Answer, ReplyId};

/// Decisions that are committed together.
#[derive(Debug, Default)]
pub struct Batch {
    /// What each touched entity appends. There are few enough that keys which collide do no harm.
    pub touched: IndexMap<EntityKey, Touched, FixedState>,
    /// Contents to store before the commit.
    pub blobs: Vec<(BlobRef, Vec<u8>)>,
    /// Attempts to hand out after it.
    pub offers: Vec<Task>,
    /// Attempts to stop after it.
    pub stops: Vec<(RunId, Place, Offer)>,
    /// Clients to answer after it.
    pub replies: Vec<(ReplyId, Result<Answer, Error>)>,
    /// Reports that were taken, to be taken again if the commit fails, with the attempts that they
    /// ended.
    pub reports: Vec<(Report, Option<Grant>)>,
    /// Versions that become the active ones of their workflows: namespace, workflow, version.
    pub activated: Vec<(Arc<str>, Arc<str>, u32)>,
    /// Messages to entities of shards that others own, with the shards that send them.
    pub mail: Vec<(Shard, EntityKey, Vec<u8>)>,
    /// The last message that was taken for a shard from another.
    pub marks: BTreeMap<(Shard, Shard), u64>,
    /// Versions that are registered with them.
    pub versions: Vec<VersionRow>,
    /// Inputs in it.
    pub inputs: usize,
    /// Of them requests of clients.
    pub requests: usize,
    /// Bytes of events in it.
    pub bytes: usize,
}

/// What one entity appends.
#[derive(Debug, Default)]
pub struct Touched {
    /// Encoded events.
    pub chunk: Vec<u8>,
    /// Pages that left memory.
    pub pages: Vec<(u32, Vec<u8>)>,
    /// State after the chunk, if it is time for a snapshot.
    pub snapshot: Option<Vec<u8>>,
}

impl Batch {
    /// True if there is nothing to write.
    pub fn is_read_only(&self) -> bool {
        self.touched.is_empty()
            && self.blobs.is_empty()
            && self.versions.is_empty()
            && self.mail.is_empty()
            && self.marks.is_empty()
    }

    /// True if there is nothing at all.
    pub fn is_empty(&self) -> bool {
        self.is_read_only()
            && self.offers.is_empty()
            && self.stops.is_empty()
            && self.replies.is_empty()
            && self.reports.is_empty()
    }
}
