//! Promises broken on purpose, so that tests know that the checkers see it.

use std::sync::Arc;

use kapell_api::task::{Outcome, TaskEvent};
use kapell_expr::Value;
use kapell_node::Entity;
use kapell_node::lane::{Input, Output};
use kapell_store::{Commit, VersionRow};

use super::{Happening, World};

/// What is broken.
#[derive(Clone, Copy, Debug)]
pub enum Sabotage {
    /// The node goes by another definition than the one that was registered.
    Definition(fn(&mut serde_json::Value)),
    /// Commits are said to be made, and are not.
    Forgets,
    /// Whoever commits owns the shards, whoever took them over.
    Fence,
    /// Nobody is ever to be woken.
    Sleeps,
    /// Attempts are handed out twice.
    Twice,
    /// Nobody is answered.
    Mute,
    /// Workers' results are not what attempts gave.
    Forges,
    /// Rows of active runs are overlooked.
    Overlooks,
    /// Runs are loaded with counts at their end, so that deciding panics where overflows are checked.
    Overflows,
}

impl World<'_> {
    /// The definition that the node sees.
    pub(super) fn other_definition(
        &self,
        definition: &serde_json::Value,
        row: &VersionRow,
    ) -> Result<VersionRow, String> {
        let Some(Sabotage::Definition(change)) = self.sabotage else {
            return Ok(row.clone());
        };
        let mut changed = definition.clone();
        change(&mut changed);
        self.row(&changed)
    }

    /// What becomes of an output of the lane; none if nothing does.
    pub(super) fn spoil_output(&mut self, output: Output) -> Option<Output> {
        match (self.sabotage, output) {
            (Some(Sabotage::Forgets), Output::Commit(commit, contents)) => {
                if self.commits < 5 {
                    return Some(Output::Commit(commit, contents));
                }
                let answer = Happening::ToLane(self.life, Input::Committed(Ok(())));
                self.plan(1, answer);
                None
            }
            (Some(Sabotage::Sleeps), Output::Commit(commit, contents)) => {
                let mut commit = Commit::clone(&commit);
                for write in &mut commit.entities {
                    write.wake_at = None;
                }
                Some(Output::Commit(Arc::new(commit), contents))
            }
            (Some(Sabotage::Twice), Output::Offer(tasks)) => {
                let twice = tasks.iter().chain(&tasks).cloned().collect();
                Some(Output::Offer(twice))
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

    /// What reaches the lane.
    pub(super) fn spoil_input(&self, mut input: Input) -> Input {
        match (self.sabotage, &mut input) {
            (Some(Sabotage::Forges), Input::Reports(reports)) => {
                for report in reports {
                    if let TaskEvent::Ended { outcome, .. } = &mut report.event
                        && let Outcome::Succeeded(value) = outcome
                        && !value.is_null()
                    {
                        *value = Value::string("forged");
                    }
                }
            }
            (Some(Sabotage::Overlooks), Input::Active(_, Ok(runs))) => runs.clear(),
            (Some(Sabotage::Overflows), Input::Loaded(_, Ok((_, Some(found))))) => {
                if let Entity::Run(run) = &mut found.entity {
                    run.state.counts = [u64::MAX; 3];
                }
            }
            _ => {}
        }
        input
    }
}
