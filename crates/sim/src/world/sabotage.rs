//! Promises broken on purpose, so that tests know that the checkers see it.

use std::sync::Arc;

use kapell_api::task::{Outcome, TaskEvent};
use kapell_engine::Ask;
use kapell_engine::run_queue::{Kind, QueueEvent};
use kapell_expr::Value;
use kapell_node::lane::{Input, Output};
use kapell_node::{ClientRequest, Entity};
use kapell_store::{Commit, VersionRow};

use super::World;

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
    /// A schedule is loaded as it was an hour ago.
    Rewinds,
    /// A backfill is loaded without its last due time.
    Shortens,
    /// A run queue is loaded with a success that never was.
    Invents,
    /// A run queue is loaded without what it says of breakpoints.
    Forgives,
    /// Signals do not come to triggers.
    Silences,
    /// What waits in a trigger is loaded in another order.
    Shuffles,
    /// What waits in a trigger is not loaded.
    Misplaces,
    /// Calls of webhooks come twice.
    Repeats,
    /// Sessions that were there before are not named to an owner that starts.
    Unnamed,
    /// The server does not wait until a worker must have stopped.
    Impatient,
    /// Results are acknowledged before they are durable.
    Hasty,
    /// Of several nodes: one that lives is said to be gone.
    Robs,
    /// Of several nodes: messages come twice.
    Doubles,
    /// Of several nodes: nobody hears what workers of others hold.
    Deafens,
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
        crate::versions::version_row(&changed, self.wall())
    }

    /// What becomes of an output of the lane; none if nothing does.
    pub(super) fn spoil_output(&mut self, output: Output) -> Option<Output> {
        match (self.sabotage, output) {
            (
                Some(Sabotage::Sleeps),
                Output::Commit {
                    commit,
                    contents,
                    follows,
                },
            ) => {
                let mut commit = Commit::clone(&commit);
                for write in &mut commit.entities {
                    write.wake_at = None;
                }
                Some(Output::Commit {
                    commit: Arc::new(commit),
                    contents,
                    follows,
                })
            }
            (Some(Sabotage::Twice), Output::Offer(tasks)) => {
                let twice = tasks.iter().chain(&tasks).cloned().collect();
                Some(Output::Offer(twice))
            }
            (Some(Sabotage::Mute), Output::Reply(..)) => None,
            (_, output) => Some(output),
        }
    }

    /// True if a commit is said to have landed and goes nowhere.
    pub(super) fn forgets(&self) -> bool {
        matches!(self.sabotage, Some(Sabotage::Forgets)) && self.commits >= 5
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

    pub(super) fn comes_twice(&self, request: &ClientRequest) -> bool {
        let call = matches!(
            request,
            ClientRequest::Ask {
                ask: Ask::Deliver(_),
                ..
            }
        );
        call && matches!(self.sabotage, Some(Sabotage::Repeats))
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
            (Some(Sabotage::Overflows), Input::Loaded(_, Ok(Some(found)))) => {
                if let Entity::Run(run) = &mut found.entity {
                    run.state.counts = [u64::MAX; 3];
                }
            }
            (Some(sabotage), Input::Loaded(_, Ok(Some(found)))) => {
                other_entity(sabotage, &mut found.entity);
            }
            _ => {}
        }
        input
    }
}

/// An entity as it never was.
fn other_entity(sabotage: Sabotage, entity: &mut Entity) {
    match (sabotage, entity) {
        (Sabotage::Rewinds, Entity::Trigger(trigger)) => {
            trigger.state.watermark -= 3_600_000_000;
        }
        (Sabotage::Shortens, Entity::Backfill(backfill)) => {
            backfill.state.due.pop();
        }
        (Sabotage::Invents, Entity::Queue(queue)) => queue.apply(&QueueEvent {
            kind: Kind::Succeeded as u32,
            run: vec![1; 16],
            scheduled_at: 1,
            ..QueueEvent::default()
        }),
        (Sabotage::Forgives, Entity::Queue(queue)) => {
            queue.settings.breaks.clear();
            queue.settings.breaks_of.clear();
            queue.settings.breaks_of_all.clear();
        }
        (Sabotage::Silences, Entity::Trigger(trigger)) if trigger.schedule().is_none() => {
            trigger.state.paused_by = Some("nobody".to_owned());
        }
        (Sabotage::Shuffles, Entity::Trigger(trigger)) => trigger.state.pending.reverse(),
        (Sabotage::Misplaces, Entity::Trigger(trigger)) => trigger.state.pending.clear(),
        _ => {}
    }
}
