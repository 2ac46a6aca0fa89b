//! What goes wrong.

use kapell_node::lane::{Input, Output};
use kapell_node::members;
use kapell_node::relay::Word;
use kapell_store::{Cluster as _, Commit, Mail};

use super::node::Step;
use super::{Cluster, Happening};
use crate::scenario::{Fault, NodeFault};
use crate::world::Sabotage;

impl Cluster<'_> {
    pub(super) fn fault(&mut self, fault: &Fault) {
        self.note(|| format!("fault: {fault:?}"));
        match *fault {
            Fault::Node { node, ref what } => {
                if node < self.nodes.len() {
                    self.node_fault(node, what);
                }
            }
            Fault::Part {
                from,
                to,
                both,
                span,
            } => self.parts(from, to, both, span),
            Fault::Stall { span } => {
                self.stalled_until = self.stalled_until.max(self.now + span);
                self.owners.stalled(self.now - 2 * self.about.lease, span);
            }
            Fault::Failover { span } => {
                self.store_life += 1;
                self.down_until = self.now + span;
            }
            Fault::Slow { span, factor } => {
                self.slow_until = self.now + span;
                self.slow = factor;
            }
            Fault::LostAnswer { fate } => self.fates.push_back(fate),
            Fault::Far { worker, ref what } => self.far_fault(worker, what),
            // Of one node that is alone.
            Fault::Crash { .. }
            | Fault::Thief { .. }
            | Fault::Full { .. }
            | Fault::Clock { .. }
            | Fault::Reads { .. }
            | Fault::Worker => {}
        }
    }

    fn parts(&mut self, from: usize, to: Option<usize>, both: bool, span: i64) {
        let count = self.nodes.len();
        let others = (0..count).filter(|other| *other != from && to.is_none_or(|to| to == *other));
        for other in others.collect::<Vec<_>>() {
            if from >= count {
                return;
            }
            self.part(from, other, span);
            if both {
                self.part(other, from, span);
            }
        }
    }

    /// The process of a node does nothing for so long.
    pub(super) fn stands_still(&mut self, at: usize, span: i64) {
        let who = (at, self.nodes[at].life);
        self.owners.troubled(who, self.now + 2 * span + 10_000_000);
        self.nodes[at].paused_until = self.now + span;
    }

    fn node_fault(&mut self, at: usize, fault: &NodeFault) {
        if self.nodes[at].process.is_none() {
            return;
        }
        let who = (at, self.nodes[at].life);
        let now = self.now;
        match *fault {
            NodeFault::Dies { down } => {
                self.end_process(at);
                self.plan(down, Happening::Start(at));
            }
            NodeFault::Pauses { span, torn } => {
                if self.nodes[at].paused_until > now {
                    // It stands still already.
                } else if torn {
                    // It begins when its lane has something to say.
                    self.nodes[at].torn = Some(span);
                } else {
                    self.stands_still(at, span);
                    self.links_pause(at, span);
                }
            }
            NodeFault::Away { span } => {
                self.owners.troubled(who, now + span);
                self.nodes[at].away_until = now + span;
            }
            NodeFault::Leaves { down } => {
                self.nodes[at].leaves = Some(down);
                self.later(at, 0, Step::Members(members::Input::Leave));
                let life = self.nodes[at].life;
                self.plan(10_000_000, Happening::Goes(at, life));
            }
            NodeFault::Sets { jump } => {
                self.nodes[at].skew += jump;
                self.flush(at);
            }
        }
    }

    /// A process that was to go goes.
    pub(super) fn goes(&mut self, at: usize) {
        if let Some(down) = self.nodes[at].leaves.take() {
            self.end_process(at);
            self.plan(down, Happening::Start(at));
        }
    }
}

/// Promises broken on purpose, so that tests know that the checkers see it.
impl Cluster<'_> {
    /// What becomes of an output of a lane; none if nothing does.
    pub(super) fn spoil_output(&mut self, output: Output) -> Option<Output> {
        match (self.sabotage, output) {
            (Some(Sabotage::Twice), Output::Offer(tasks)) => {
                Some(Output::Offer(tasks.iter().chain(&tasks).cloned().collect()))
            }
            (Some(Sabotage::Mute), Output::Reply(..)) => None,
            (_, output) => Some(output),
        }
    }

    /// The commit that reaches the store, if it is another.
    pub(super) fn spoil_commit(&self, commit: &Commit) -> Option<Commit> {
        let Some(Sabotage::Fence) = self.sabotage else {
            return None;
        };
        let mut commit = commit.clone();
        for lease in &mut commit.shards {
            if let Some(held) = self.checks.leases.get(&lease.shard) {
                *lease = *held;
            }
        }
        Some(commit)
    }

    /// What the store answers.
    pub(super) fn spoil_input(&self, input: Input) -> Input {
        match (self.sabotage, input) {
            (Some(Sabotage::Doubles), Input::Mail(Ok(mail))) => {
                let twice = mail.into_iter().flat_map(|mail| {
                    let again = Mail {
                        number: mail.number + 1,
                        ..mail.clone()
                    };
                    [mail, again]
                });
                Input::Mail(Ok(twice.collect()))
            }
            (_, input) => input,
        }
    }

    /// Somebody who lives is said to be gone, before another takes shards.
    pub(super) fn robs(&self, at: usize, output: &Output) {
        let (Some(Sabotage::Robs), Output::Acquire(..)) = (self.sabotage, output) else {
            return;
        };
        let others = (0..self.nodes.len()).filter(|other| *other != at);
        let mut processes = others.filter_map(|other| self.nodes[other].process.as_ref());
        if let Some(process) = processes.next() {
            // The store of a simulation does not fail.
            let _ = self.store.leave(process.id);
        }
    }

    /// True if a node does not hear what workers of others hold.
    pub(super) fn is_deaf_to(&self, word: &Word) -> bool {
        let answers = matches!(word, Word::Holds(..) | Word::Told(_));
        answers && matches!(self.sabotage, Some(Sabotage::Deafens))
    }

    pub(super) fn forgets_sessions(&self) -> bool {
        matches!(self.sabotage, Some(Sabotage::Unnamed))
    }

    pub(super) fn ends_sessions_early(&self) -> bool {
        matches!(self.sabotage, Some(Sabotage::Impatient))
    }

    pub(super) fn acknowledges_early(&self) -> bool {
        matches!(self.sabotage, Some(Sabotage::Hasty))
    }
}
