//! Which process owns which shard, as the store was told: nobody else writes it, and nobody alive is robbed.

use std::collections::BTreeMap;

use kapell_model::Shard;
use kapell_store::{Commit, Lease};

use crate::check::{Verdict, wrong};

/// A process: where, and which of those there.
pub(super) type Who = (usize, u64);

/// See the module.
#[derive(Default)]
pub(super) struct Owners {
    of: BTreeMap<Shard, (Who, u64)>,
    /// Until when a process had trouble of its own: it may be taken for dead for a while after that.
    trouble: BTreeMap<Who, i64>,
    /// Messages written, by receiver and sender: the last number; and the last one taken.
    written: BTreeMap<(Shard, Shard), u64>,
    taken: BTreeMap<(Shard, Shard), u64>,
}

impl Owners {
    /// True if the store says that a shard is this process's.
    pub(super) fn is_of(&self, shard: Shard, who: Who) -> bool {
        self.of.get(&shard).is_some_and(|(owner, _)| *owner == who)
    }

    /// A process cannot act, or cannot reach the store, until then.
    pub(super) fn troubled(&mut self, who: Who, until: i64) {
        let known = self.trouble.entry(who).or_default();
        *known = until.max(*known);
    }

    /// Nobody reaches the store for so long: who was in trouble since a time and cannot have come out of it is so
    /// for longer. A stall alone is no trouble.
    pub(super) fn stalled(&mut self, since: i64, span: i64) {
        for until in self.trouble.values_mut().filter(|until| **until > since) {
            *until += span;
        }
    }

    /// A process takes shards. An owner that lives, and could beat for two leases, is not robbed.
    pub(super) fn took(
        &mut self,
        who: Who,
        leases: &[Lease],
        lives: impl Fn(Who) -> bool,
        since: i64,
    ) -> Verdict {
        for lease in leases {
            let before = self.of.insert(lease.shard, (who, lease.epoch));
            let Some((owner, epoch)) = before else {
                continue;
            };
            if epoch >= lease.epoch {
                let detail = format!("{lease:?} is taken after epoch {epoch}");
                return wrong("epoch", detail);
            }
            let troubled = self.trouble.get(&owner).is_some_and(|until| *until > since);
            if owner != who && lives(owner) && !troubled {
                let detail = format!("{who:?} takes {lease:?} from {owner:?}, which lives");
                return wrong("robbed", detail);
            }
        }
        Ok(())
    }

    /// A process gives shards away.
    pub(super) fn gave(&mut self, who: Who, leases: &[Lease]) {
        for lease in leases {
            if self.of.get(&lease.shard) == Some(&(who, lease.epoch)) {
                self.of.remove(&lease.shard);
            }
        }
    }

    /// A commit of a process has landed: all that it writes is its own, in this epoch; messages are numbered
    /// upwards and none is passed over by the mark of those that were taken.
    pub(super) fn committed(&mut self, who: Who, commit: &Commit) -> Verdict {
        for lease in &commit.shards {
            let owner = self.of.get(&lease.shard);
            if owner != Some(&(who, lease.epoch)) {
                let detail = format!("{who:?} commits {lease:?}, which is {owner:?}'s");
                return wrong("owner", detail);
            }
        }
        for mail in &commit.mail {
            let way = (mail.to.shard(), mail.from);
            let last = self.written.get(&way).max(self.taken.get(&way)).copied();
            if last.is_some_and(|last| mail.number <= last) {
                let detail = format!("message {} of {way:?} comes after {last:?}", mail.number);
                return wrong("mail", detail);
            }
            self.written.insert(way, mail.number);
        }
        for mark in &commit.marks {
            let way = (mark.to, mark.from);
            let before = self.taken.insert(way, mark.number);
            let written = self.written.get(&way).copied();
            if before >= Some(mark.number) || written < Some(mark.number) {
                let detail = format!(
                    "{way:?} takes {} after {before:?}, written {written:?}",
                    mark.number
                );
                return wrong("mail", detail);
            }
        }
        Ok(())
    }
}
