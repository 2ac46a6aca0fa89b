//! Which shards the lane owns: all of them, or those that it is told to take and not yet to give.
//!
//! A shard that is given away is first let go of at a moment when no decision about it is open: what is in
//! memory of it is dropped, who waits for it is told to ask elsewhere, and once the commit under way is over
//! the store says that nobody owns it. A shard that is taken is the lane's when the store says so; what is due in
//! it and the messages to it are then read. A lane that is stopped drops everything at once.
//!
//! - **Crash**: the store knows who owned what; others take it when the lease is over.
//! - **Unknown outcome or conflict**: the shards that were owned are acquired anew; one that another took
//!   meanwhile is left out, and whoever says what to own hears of it.

use kapell_api::task::Place;
use kapell_model::{EntityKey, NodeId, Offer, RunId, Shard, ShardSet};
use kapell_store::Lease;

use super::post::not_here;
use super::start::Making;
use super::{Lane, Output, ToEntity, commit};

/// What a lane is told of the shards that it is to own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Own {
    /// Take these, also from these dead nodes; answered by [`Output::Holds`].
    Take(ShardSet, Vec<NodeId>),
    /// Give these away; answered by [`Output::Holds`].
    Give(ShardSet),
    /// Drop everything at once; answered by [`Output::Holds`] of none.
    Stop,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Owns {
    /// Nobody else owns any shard of this store.
    alone: bool,
    /// Shards that are owned, also while they are acquired anew.
    shards: ShardSet,
    /// Shards that are to be taken beside those, and whether they were asked for.
    taking: Option<(ShardSet, Vec<NodeId>)>,
    asked: bool,
    giving: Option<ShardSet>,
    /// Let go of: to be given away once so many commits under way are over.
    leaving: Vec<Lease>,
    leaving_after: usize,
    /// Answers to come of commits that nobody waits for.
    stale_commits: usize,
}

impl Owns {
    /// Those of a lane that owns every shard, or none until it is told.
    pub(super) fn new(alone: bool) -> Self {
        Self {
            alone,
            shards: if alone {
                ShardSet::all()
            } else {
                ShardSet::default()
            },
            ..Self::default()
        }
    }

    /// True if a shard is to be given away: nothing of it is granted any more.
    pub(super) fn gives(&self, shard: Shard) -> bool {
        let giving = self.giving.as_ref();
        giving.is_some_and(|shards| shards.contains(shard))
    }

    /// Nobody waits for the answers to so many commits.
    pub(super) fn give_up(&mut self, commits: usize) {
        self.stale_commits += commits;
    }

    /// True if the answer to a commit is of one that nobody waits for.
    pub(super) fn is_stale(&mut self) -> bool {
        let stale = self.stale_commits > 0;
        self.stale_commits = self.stale_commits.saturating_sub(1);
        stale
    }
}

impl Lane {
    /// The shards that the lane owns or acquires anew.
    pub fn owned(&self) -> &ShardSet {
        &self.owns.shards
    }

    /// The shards that it may write now.
    pub(super) fn held_shards(&self) -> ShardSet {
        if self.leases.len() == self.owns.shards.len() {
            // It holds what it owns: no need to look at each.
            return self.owns.shards.clone();
        }
        self.leases.keys().copied().collect()
    }

    pub(super) fn own(&mut self, change: Own) {
        match change {
            Own::Take(shards, dead) => {
                self.owns.taking = Some((shards, dead));
                self.owns.asked = false;
                self.take_shards();
            }
            Own::Give(shards) => self.owns.giving = Some(shards),
            Own::Stop => self.stop(),
        }
    }

    /// Asks for the shards that are to be taken, once nothing else is acquired.
    pub(super) fn take_shards(&mut self) {
        if self.recovering || self.owns.asked || self.store_is_full() {
            return;
        }
        if let Some((shards, dead)) = self.owns.taking.clone() {
            self.owns.asked = true;
            self.out.push(Output::Acquire(shards, dead));
        }
    }

    /// Everything that is owned, and what is to be taken, is acquired anew.
    pub(super) fn acquire_all(&mut self) {
        let mut shards = self.owns.shards.clone();
        let mut dead = Vec::new();
        if let Some((more, of)) = &self.owns.taking {
            shards.extend(more.iter());
            dead.clone_from(of);
            self.owns.asked = true;
        }
        if shards.is_empty() {
            self.recovering = false;
            self.looked_due = true;
            return;
        }
        self.out.push(Output::Acquire(shards, dead));
    }

    pub(super) fn acquired(&mut self, result: kapell_store::Result<Vec<Lease>>) {
        let leases = match result {
            Ok(leases) => leases,
            Err(error) => {
                if let kapell_store::Error::Full(error) = &error {
                    self.no_room(error);
                } else {
                    tracing::error!(%error, "shards could not be acquired; trying again");
                }
                if self.recovering {
                    return;
                }
                match self.owns.taking.clone() {
                    // They may have been taken: until that is known nothing is said of them.
                    Some((shards, dead)) if !self.store_is_full() => {
                        self.read_again(Output::Acquire(shards, dead));
                    }
                    // Whoever wants them asks again.
                    _ => {
                        self.owns.taking = None;
                        self.tell_held();
                    }
                }
                return;
            }
        };
        if leases.is_empty() && !self.recovering && !self.owns.alone {
            // Others still own what was to be taken: whoever wants it asks again, and nothing is new to read.
            self.owns.taking = None;
            self.tell_held();
            return;
        }
        let taken: ShardSet = leases.iter().map(|lease| lease.shard).collect();
        self.leases
            .extend(leases.into_iter().map(|lease| (lease.shard, lease)));
        if !self.owns.alone {
            self.mail_before(&taken);
            self.owns.taking = None;
            let owned = self.leases.keys().copied().collect();
            let lost = self.owns.shards.without(&owned);
            self.forget_attempts(&lost);
            self.owns.shards = owned;
            // Others may have listened to ends of runs since these were read.
            self.heard.forget();
            self.out.push(Output::FindHeard);
            self.tell_held();
        }
        self.find_due();
        self.look_for_mail();
    }

    /// Whoever says what to own hears what is owned.
    fn tell_held(&mut self) {
        self.seats.quotas.shards_changed();
        self.out.push(Output::Holds(self.owns.shards.clone()));
    }

    /// Gives shards away at a moment when nothing about them is open.
    pub(super) fn let_go(&mut self) {
        if self.holds > 0
            || !self.open.is_empty()
            || self.recovering
            || self.broken
            || self.is_leaving()
        {
            return;
        }
        let Some(shards) = self.owns.giving.take() else {
            return;
        };
        let grants = self.committing.iter().flat_map(|under| &under.batch.offers);
        if grants
            .into_iter()
            .any(|task| shards.contains(task.run.shard()))
        {
            // They go out when their commit is over, and the next owner is to hear of them.
            self.owns.giving = Some(shards);
            return;
        }
        let gone = |key: &EntityKey| shards.contains(key.shard());
        let keys = self.slots.iter().map(|(key, _)| key);
        let keys: Vec<EntityKey> = keys.filter(|key| gone(key)).cloned().collect();
        let mut waiting = Vec::new();
        for key in keys {
            if let Some(slot) = self.slots.get_mut(&key) {
                waiting.extend(std::mem::take(&mut slot.waiting));
            }
            self.drop_slot(&key);
        }
        let loading = self.loading.extract_if(.., |key, _| gone(key));
        waiting.extend(loading.flat_map(|(_, waiting)| waiting));
        let inputs: Vec<ToEntity> = waiting.into_iter().map(|(input, _)| input).collect();
        let mut replies: Vec<_> = inputs.iter().filter_map(ToEntity::reply).collect();
        for makings in self.making.values_mut() {
            let moved = makings.extract_if(.., |making| gone(&making.run_queue()));
            replies.extend(moved.filter_map(|making| Making::reply(&making)));
        }
        for forks in self.forks.values_mut() {
            let moved = forks.extract_if(.., |(key, ..)| gone(key));
            replies.extend(moved.map(|(_, reply, _)| reply));
        }
        for reply in replies {
            self.out.push(Output::Reply(reply, Err(not_here())));
        }
        self.counting.retain(|key, _| !gone(key));
        self.again.retain(|key| !gone(key));
        self.quarantined.retain(|key| !gone(key));
        self.ahead.reset();
        self.post.forget(&shards);
        self.forget_attempts(&shards);
        let leases = self
            .leases
            .extract_if(.., |shard, _| shards.contains(*shard));
        self.owns.leaving = leases.map(|(_, lease)| lease).collect();
        self.owns.shards = self.owns.shards.without(&shards);
        self.owns.leaving_after = self.committing.len();
        if self.committing.is_empty() {
            self.give_away();
        }
    }

    /// A commit has ended: once it is the last that may be about what was let go of, that is given away. What
    /// follows a commit that failed does not land.
    pub(super) fn commit_ended(&mut self, landed: bool) {
        if self.owns.leaving.is_empty() {
            return;
        }
        self.owns.leaving_after -= 1;
        if self.owns.leaving_after == 0 || !landed {
            self.give_away();
        }
    }

    /// What was let go of is nobody's from now on.
    fn give_away(&mut self) {
        let leaving = std::mem::take(&mut self.owns.leaving);
        if leaving.is_empty() {
            self.tell_held();
        } else {
            self.out.push(Output::Release(leaving));
        }
    }

    /// True if shards wait for the end of commits under way to be given away.
    fn is_leaving(&self) -> bool {
        !self.owns.leaving.is_empty()
    }

    pub(super) fn released(&mut self, leases: Vec<Lease>, result: kapell_store::Result<()>) {
        if let Err(error) = result {
            tracing::error!(%error, "shards could not be given away; trying again");
            for lease in leases {
                self.owns.shards.insert(lease.shard);
                self.leases.insert(lease.shard, lease);
            }
        }
        self.tell_held();
    }

    /// Attempts in shards are another's, who hears what becomes of them.
    fn forget_attempts(&mut self, shards: &ShardSet) {
        self.held.forget(shards, &mut self.seats);
        let owned = |name: &(RunId, Place, Offer)| !shards.contains(name.0.shard());
        self.early.retain(|name, _| owned(name));
    }

    /// The right to act is over: nothing is owned.
    fn stop(&mut self) {
        // Others may own them before this one does again: then it is told anew what workers hold.
        self.forget_attempts(&ShardSet::all());
        let stale_commits = self.owns.stale_commits;
        self.owns = Owns {
            stale_commits,
            ..Owns::new(false)
        };
        self.reset(None, &commit::unconfirmed());
        self.tell_held();
    }
}
