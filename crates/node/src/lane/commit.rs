//! Granting, sealing, committing, and what follows a commit.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use kapell_api::task::{Report, TaskEvent};
use kapell_engine::Run;
use kapell_engine::run::grant::Offers;
use kapell_engine::run::room::{Allowance, Room};
use kapell_model::{EntityKey, Error, ErrorCode, Offer, RunId, Time};
use kapell_store::{Commit, EntityWrite};

use crate::batch::Batch;
use crate::dispatch::Turn;
use crate::entity::Entity;
use crate::perform::Size;
use crate::rows;

use super::post::marks;
use super::{Committing, Lane, Output, SHORT_RUNS, StepsEnded, ToEntity, full};

/// Commits under way: one at the store, one that waits for it.
const COMMITS: usize = 2;

/// The outcome of a commit is not known.
pub(crate) fn unconfirmed() -> Error {
    Error::new(
        ErrorCode::StoreUnavailable,
        "the store did not confirm the change: it may or may not have been made",
    )
    .hint("look before you try again")
}

/// Ends of a run's steps and items: good ones, others.
pub(super) fn ends(run: &Run) -> [u64; 2] {
    let [good, other, _] = run.state.counts;
    [good, other]
}

impl Lane {
    /// Grants what there is room for, seals the open batch if nothing is being committed, and
    /// returns what is to be done.
    pub fn flush(&mut self, now: Time) -> Vec<Output> {
        self.now = now;
        if self.broken && self.committing.is_empty() {
            self.broken = false;
            self.reset(None, &self.void());
        }
        while self.holds == 0 && !self.broken {
            // Also while a commit is under way: the next one then starts as soon as it has ended.
            self.dispatch();
            self.post();
            if self.holds > 0 || !self.may_seal() {
                break;
            }
            // A batch that writes nothing is over at once, and the next may wait already.
            self.seal();
        }
        self.let_go();
        self.say_wants();
        self.look_for_room();
        self.reads += self.out.iter().filter(|output| output.reads()).count();
        std::mem::take(&mut self.out)
    }

    /// Says what waits for workers, where the room of some is lent by other nodes.
    fn say_wants(&mut self) {
        if self.config.alone {
            return;
        }
        let wants = self.demand.wants(self.now);
        if wants != self.wants {
            self.wants = wants.clone();
            self.out.push(Output::Wants(wants));
        }
    }

    pub(super) fn dispatch(&mut self) {
        if self.recovering {
            return;
        }
        self.look_at_quotas();
        let mut queues = self.demand.queues();
        if !queues.is_empty() {
            // Queues that share a worker take turns.
            self.turn = (self.turn + 1) % queues.len();
            queues.rotate_left(self.turn);
        }
        for queue in queues {
            self.dispatch_queue(&queue);
        }
    }

    fn dispatch_queue(&mut self, queue: &Arc<str>) {
        let mut short = Vec::new();
        let mut room = self.seats.room(queue);
        let unheard = self.seats.is_unheard(queue);
        while !self.is_full() && short.len() < SHORT_RUNS && !room.is_empty() {
            let Some(turn) = self.demand.first(queue) else {
                break;
            };
            let id = turn.id;
            if self.owns.gives(id.shard()) {
                self.demand.leave(&turn, queue);
                continue;
            }
            if unheard && self.stood_before(id) {
                self.demand.leave(&turn, queue);
                self.parked.insert(id);
                continue;
            }
            room.short = false;
            room.unfit = false;
            room.over = false;
            if !self.seats.quotas.is_empty() {
                room.quota = self.allowance(id);
            }
            let granted = self.grant(&turn, queue, &mut room);
            self.demand.charge(&turn, queue, granted, self.now);
            if room.over && self.waits_for_quota(&turn, queue) {
                continue;
            }
            if granted < turn.share {
                self.demand.leave(&turn, queue);
                if room.short {
                    short.push(turn);
                } else if room.unfit {
                    self.parked.insert(id);
                }
            }
        }
        for turn in short {
            self.demand.wait(&turn, queue, self.now);
        }
    }

    /// Namespaces that have less in flight than before may start something.
    fn look_at_quotas(&mut self) {
        for namespace in self.seats.quotas.freed() {
            self.demand.unblock(&namespace);
            for id in self.over.remove(&namespace).unwrap_or_default() {
                self.wants(id);
            }
        }
    }

    /// What the namespace of a run may have in flight besides what it has.
    fn allowance(&self, id: RunId) -> Option<Allowance> {
        let namespace = self.namespace_of(id)?;
        self.seats.quotas.allowance(namespace, self.leases.len())
    }

    pub(super) fn namespace_of(&self, id: RunId) -> Option<&Arc<str>> {
        match self.slots.get(&id.into()).map(|slot| &slot.entity) {
            Some(Entity::Run(run)) => Some(&run.state.meta.namespace),
            _ => None,
        }
    }

    /// Nothing of a run's namespace starts until it has less in flight.
    fn waits_for_quota(&mut self, turn: &Turn, queue: &Arc<str>) -> bool {
        let Some(namespace) = self.namespace_of(turn.id).cloned() else {
            return false;
        };
        if !self.demand.block(&namespace) {
            self.demand.leave(turn, queue);
            self.over.entry(namespace).or_default().insert(turn.id);
        }
        true
    }

    fn stood_before(&self, id: RunId) -> bool {
        let slot = self.slots.get(&id.into());
        slot.is_some_and(|slot| slot.stood_before)
    }

    /// Grants a run its share of a queue's work; returns how many attempts.
    fn grant(&mut self, turn: &Turn, queue: &Arc<str>, room: &mut Room) -> usize {
        let id = turn.id;
        let key = EntityKey::Run(id);
        let epoch = self.leases.get(&id.shard()).map_or(0, |lease| lease.epoch);
        let Some(slot) = self.slots.get_mut(&key) else {
            return 0;
        };
        let Entity::Run(run) = &mut slot.entity else {
            return 0;
        };
        slot.touched_at = self.now;
        let mut offers = Offers {
            next: Offer {
                epoch,
                counter: self.offers,
            },
        };
        let pick = (&**queue, turn.pick());
        let (granted, decision) = run.grant(pick, turn.share, room, self.now, &mut offers);
        self.offers = offers.next.counter;
        self.demand.granting(Some(id));
        self.absorb(&key, decision);
        self.demand.granting(None);
        granted
    }

    /// True if the open batch is to be made a commit now. A second one follows the one under way if it is as big:
    /// small ones cost the store more each. What only reads is told once all is durable that it may have seen.
    fn may_seal(&self) -> bool {
        let Some(last) = self.committing.back() else {
            return !self.open.is_empty();
        };
        let big = self.open.inputs >= self.follow_inputs.max(last.batch.inputs) || self.is_full();
        self.committing.len() < COMMITS && big && !self.open.is_read_only()
    }

    /// True if a commit under way or the open batch writes this entity.
    pub(super) fn is_written(&self, key: &EntityKey) -> bool {
        let under = self.committing.iter().map(|under| &under.batch);
        let mut batches = under.chain([&self.open]);
        batches.any(|batch| batch.touched.contains_key(key))
    }

    /// Makes the open batch one commit.
    pub(super) fn seal(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.open);
        if batch.is_read_only() {
            self.release(batch);
            return;
        }
        let mut batch = batch;
        // What is new in one place of the store is written one after another.
        batch.touched.sort_unstable_keys();
        self.seats.commit_begins();
        let steps = self.steps_ended(&batch);
        let (commit, ended) = self.commit_of(&mut batch);
        let commit = Arc::new(commit);
        let contents = std::mem::take(&mut batch.blobs);
        // Before what follows from the commit before: the store has nothing to do until then.
        let output = Output::Commit {
            commit: commit.clone(),
            contents,
            follows: !self.committing.is_empty(),
        };
        self.out.insert(0, output);
        self.committing.push_back(Committing {
            batch,
            commit,
            steps,
            ended,
        });
    }

    /// Steps and items that ended in a batch. A retry takes ends back: what ends again is told again.
    fn steps_ended(&mut self, batch: &Batch) -> Vec<StepsEnded> {
        let mut steps = Vec::new();
        for key in batch.touched.keys() {
            let Some(slot) = self.slots.get_mut(key) else {
                continue;
            };
            let Entity::Run(run) = &slot.entity else {
                continue;
            };
            let now = ends(run);
            let new = [0, 1].map(|end| now[end].saturating_sub(slot.told[end]));
            slot.told = now;
            if new != [0; 2] {
                steps.push((Arc::clone(&run.state.meta.workflow), new));
            }
        }
        steps
    }

    pub(super) fn commit_of(&mut self, batch: &mut Batch) -> (Commit, Vec<EntityKey>) {
        let mut commit = Commit {
            activated: std::mem::take(&mut batch.activated),
            versions: std::mem::take(&mut batch.versions),
            ..Commit::default()
        };
        commit.entities.reserve(batch.touched.len());
        commit.runs.reserve(batch.touched.len());
        let mut ended = Vec::new();
        let mut shards = BTreeSet::new();
        for (key, touched) in &mut batch.touched {
            shards.insert(key.shard());
            let Some(slot) = self.slots.get_mut(key) else {
                continue;
            };
            slot.seq += 1;
            slot.size.bytes += touched.chunk.len();
            slot.size.chunks += 1;
            let forgets = slot.entity.forgets();
            let snapshot = slot.wants_snapshot().then(|| slot.entity.snapshot());
            let document = slot.entity.document();
            if slot.document != document {
                commit.documents.push((key.to_bytes(), document.clone()));
                slot.document = document;
            }
            if let Entity::Run(run) = &slot.entity {
                let shown = Some(rows::Shown::of(run));
                if slot.shown != shown {
                    commit.runs.push(rows::row(run));
                    slot.shown = shown;
                }
                if run.state.ended() {
                    ended.push(key.clone());
                }
            }
            if let Some(snapshot) = &snapshot {
                slot.size = Size {
                    snapshot: snapshot.len(),
                    ..Size::default()
                };
            }
            commit.entities.push(EntityWrite {
                key: key.clone(),
                seq: slot.seq,
                chunk: std::mem::take(&mut touched.chunk),
                wake_at: slot.entity.wake_at(),
                forget: snapshot.is_some() && forgets,
                snapshot,
                pages: std::mem::take(&mut touched.pages),
            });
        }
        shards.extend(batch.mail.iter().map(|(from, _, _)| *from));
        shards.extend(batch.marks.keys().map(|(to, _)| *to));
        commit.marks = marks(batch);
        commit.mail = self.numbered(std::mem::take(&mut batch.mail));
        for shard in shards {
            if let Some(lease) = self.leases.get_mut(&shard) {
                commit.shards.push(*lease);
                lease.seq += 1;
            }
        }
        (commit, ended)
    }

    /// The batch is durable: what follows from it goes out.
    pub(super) fn release(&mut self, batch: Batch) {
        if !batch.offers.is_empty() {
            self.out.push(Output::Offer(batch.offers));
        }
        if !batch.stops.is_empty() {
            self.out.push(Output::Stop(batch.stops));
        }
        let ends = batch.reports.iter().map(|(report, _)| report);
        let ends = ends.filter(|report| matches!(report.event, TaskEvent::Ended { .. }));
        let taken: Vec<_> = ends
            .map(|report| (report.run, report.place, report.offer))
            .collect();
        if !taken.is_empty() {
            self.out.push(Output::Taken(taken));
        }
        self.out.reserve(batch.replies.len());
        for (reply, answer) in batch.replies {
            self.out.push(Output::Reply(reply, answer));
        }
    }

    pub(super) fn committed(&mut self, result: kapell_store::Result<()>) {
        if self.owns.is_stale() {
            return;
        }
        let Some(committing) = self.committing.pop_front() else {
            return;
        };
        self.commit_ended(result.is_ok());
        match result {
            Ok(()) => {
                self.has_room();
                self.release(committing.batch);
                self.mail_written(&committing.commit.mail);
                if !committing.commit.entities.is_empty() || !committing.commit.mail.is_empty() {
                    self.out
                        .push(Output::RowsChanged(committing.commit, committing.steps));
                }
                for key in committing.ended {
                    let over = self.slots.get(&key).is_some_and(|slot| {
                        matches!(&slot.entity, Entity::Run(run) if run.state.ended())
                            && slot.asked.is_empty()
                    });
                    if over && !self.is_written(&key) {
                        self.drop_slot(&key);
                    }
                }
                self.take_waiting();
            }
            Err(kapell_store::Error::Full(error)) => {
                self.no_room(&error);
                self.reset(Some(committing.batch), &full::refusal());
            }
            Err(error) => {
                tracing::error!(%error, "a commit failed; reading everything again");
                self.reset(Some(committing.batch), &unconfirmed());
            }
        }
    }

    /// What clients of decisions are told that were not committed.
    fn void(&self) -> Error {
        if self.store_is_full() {
            full::refusal()
        } else {
            unconfirmed()
        }
    }

    /// Drops all memory: what was decided on top of a commit that may not have landed is void. Clients
    /// that wait are told the error.
    pub(super) fn reset(&mut self, failed: Option<Batch>, error: &Error) {
        self.owns.give_up(self.committing.len());
        let following = self.committing.drain(..).map(|under| under.batch);
        let open = std::mem::take(&mut self.open);
        let batches: Vec<Batch> = failed.into_iter().chain(following).chain([open]).collect();
        let mut reports = Vec::new();
        for batch in batches {
            for (reply, _) in batch.replies {
                self.out.push(Output::Reply(reply, Err(error.clone())));
            }
            for task in &batch.offers {
                self.held
                    .land(task.run, task.place, task.offer, &mut self.seats);
            }
            reports.extend(batch.reports);
        }
        let waiting: Vec<ToEntity> = self
            .loading
            .values_mut()
            .flat_map(std::mem::take)
            .chain(
                self.slots
                    .iter_mut()
                    .flat_map(|(_, slot)| std::mem::take(&mut slot.waiting)),
            )
            .map(|(input, _)| input)
            .collect();
        for reply in waiting.iter().filter_map(ToEntity::reply) {
            self.out.push(Output::Reply(reply, Err(error.clone())));
        }
        for (_, reply, _) in std::mem::take(&mut self.forks).into_values().flatten() {
            self.out.push(Output::Reply(reply, Err(error.clone())));
        }
        for making in std::mem::take(&mut self.making).into_values().flatten() {
            if let Some(reply) = making.reply() {
                self.out.push(Output::Reply(reply, Err(error.clone())));
            }
        }
        // Reports that will be taken again still hold their attempts until then; those of runs that are no longer
        // owned here are taken by others.
        let owned = self.owned().clone();
        for (report, landed) in &reports {
            if let Some(grant) = landed
                && owned.contains(report.run.shard())
            {
                self.held.take_back(report, grant.clone(), &mut self.seats);
            }
        }
        let untaken = waiting.iter().filter_map(|input| input.report().cloned());
        let reports = reports.into_iter().map(|(report, _)| report);
        let reports: VecDeque<Report> = reports.chain(untaken).collect();
        self.out.retain(|output| !output.reads());
        self.stale_reads = self.reads;
        self.failed_reads.clear();
        self.read_again_at = None;
        self.slots.clear();
        self.loading.clear();
        self.counting.clear();
        self.leases.clear();
        self.timers.clear();
        self.again.clear();
        self.outbox.clear();
        self.drop_mail(error);
        self.demand.clear();
        self.parked.clear();
        self.over.clear();
        self.holds = 0;
        self.looked_due = false;
        self.reports.push_front(reports);
        self.outdated.clear();
        self.ahead.reset();
        self.recover();
    }
}
