//! Backfills: the due times that are wanted and no others, each once, in order, and no more at a time
//! than they may.

use std::collections::{BTreeMap, BTreeSet};

use kapell_engine::backfill::{self, Fact, Only, State};
use kapell_engine::event::{RunCreated, run_id};
use kapell_engine::trigger::Trigger;
use kapell_model::{EntityKey, RunId, RunStatus, Time, limits};
use kapell_node::Entity;
use kapell_store::Commit;

use super::{Checks, Verdict, wrong};
use crate::world::{Failure, NAMESPACE};

/// Workflow, trigger and due time.
type Due = (String, String, i64);

/// What is known of backfills.
#[derive(Default)]
pub(super) struct Backfills {
    known: BTreeMap<EntityKey, Filling>,
    /// Runs for each due time, of schedules and of backfills.
    runs: BTreeMap<Due, Vec<Run>>,
    /// Backfills that were written in the commit that is read, and their runs that were made.
    written: BTreeSet<EntityKey>,
    made: BTreeMap<RunId, i64>,
}

/// One backfill.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Filling {
    made: State,
    next: usize,
    runs: Vec<RunId>,
    paused: bool,
    /// The run that keeps back the others.
    blocked: Option<RunId>,
    cancelled: bool,
    /// Starts of this commit, and how many of them could not be made.
    started: Vec<(RunId, i64)>,
    refused: usize,
    is_new: bool,
    over: bool,
}

#[derive(Clone, Copy)]
struct Run {
    id: RunId,
    of_backfill: bool,
    created_at: i64,
}

impl Backfills {
    /// A run was made.
    pub(super) fn created(&mut self, id: RunId, created: &RunCreated, at: i64) {
        let of_backfill = created.trigger == "backfill";
        if !of_backfill && created.trigger != "schedule" {
            return;
        }
        let due = (
            created.workflow.clone(),
            created.trigger_name.clone(),
            created.scheduled_at,
        );
        self.runs.entry(due).or_default().push(Run {
            id,
            of_backfill,
            created_at: at,
        });
        if of_backfill {
            self.made.insert(id, created.scheduled_at);
        }
    }
}

impl Filling {
    fn new(made: &State) -> Self {
        Self {
            made: made.clone(),
            next: 0,
            runs: Vec::new(),
            paused: false,
            blocked: None,
            cancelled: false,
            started: Vec::new(),
            refused: 0,
            is_new: true,
            over: false,
        }
    }

    /// Why this may not be.
    fn event(&mut self, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Made(_) => return Err("is made twice".to_owned()),
            Fact::Started(started) => {
                let due = self.made.due.get(self.next);
                if due != Some(&started.due) {
                    return Err(format!("starts {} and not {due:?}", Time(started.due)));
                }
                if self.paused || self.blocked.is_some() || self.cancelled || self.over {
                    return Err(format!("starts {} while it is to rest", Time(started.due)));
                }
                let run = run_id(&started.run);
                self.next += 1;
                self.runs.push(run);
                self.started.push((run, started.due));
            }
            Fact::Declined(_) => self.next += 1,
            Fact::Refused(_) => self.refused += 1,
            Fact::Ended(ended) => {
                let run = run_id(&ended.run);
                if ended.succeeded {
                    self.blocked.take_if(|blocked| *blocked == run);
                } else if ended.blocks {
                    self.blocked = Some(run);
                }
            }
            // What it blocks stays so until it succeeds.
            Fact::Reopened(_) => {}
            Fact::Paused(_) => self.paused = true,
            Fact::Resumed(_) => (self.paused, self.blocked) = (false, None),
            Fact::Cancelled(_) => self.cancelled = true,
            Fact::Over(_) => {
                self.over = true;
                if !self.cancelled && self.next != self.made.due.len() {
                    let all = self.made.due.len();
                    return Err(format!("is over after {} of {all}", self.next));
                }
            }
        }
        Ok(())
    }
}

impl Checks {
    pub(super) fn backfill_written(&mut self, key: &EntityKey, chunk: &[u8]) -> Verdict {
        let events =
            kapell_engine::chunk::decode::<backfill::BackfillEvent>(chunk).map_err(|error| {
                Failure {
                    what: "history",
                    detail: format!("{key:?}: {error}"),
                }
            })?;
        for fact in events.iter().filter_map(|event| event.fact.as_ref()) {
            match (self.backfills.known.get_mut(key), fact) {
                (None, Fact::Made(made)) => {
                    let filling = Filling::new(made);
                    self.backfills.known.insert(key.clone(), filling);
                }
                (None, _) => return wrong("backfill", format!("{key:?} is used and not made")),
                (Some(filling), fact) => filling.event(fact).map_err(|why| Failure {
                    what: "backfill",
                    detail: format!("{key:?} {why}"),
                })?,
            }
        }
        self.backfills.written.insert(key.clone());
        self.small_written(key, chunk)
    }

    /// The commit is over: what backfills say of it is so.
    pub(super) fn backfills_kept(&mut self, commit: &Commit) -> Verdict {
        let mut made = std::mem::take(&mut self.backfills.made);
        for key in std::mem::take(&mut self.backfills.written) {
            let Some(filling) = self.backfills.known.get_mut(&key) else {
                continue;
            };
            let started = std::mem::take(&mut filling.started);
            let refused = std::mem::take(&mut filling.refused);
            let is_new = std::mem::take(&mut filling.is_new);
            let missing = started
                .iter()
                .filter(|(run, due)| made.remove(run) != Some(*due))
                .count();
            if missing > refused {
                return wrong(
                    "backfill",
                    format!("{key:?} starts runs that were not made"),
                );
            }
            if is_new {
                self.wanted(&key, commit)?;
            }
            self.few_at_a_time(&key)?;
        }
        match made.first_key_value() {
            None => Ok(()),
            Some((run, _)) => wrong("backfill", format!("no backfill says that it made {run}")),
        }
    }

    fn few_at_a_time(&self, key: &EntityKey) -> Verdict {
        let Some(filling) = self.backfills.known.get(key) else {
            return Ok(());
        };
        let shadows = filling.runs.iter().filter_map(|run| self.runs.get(run));
        // One that was retried has its turn beside them.
        let active = shadows
            .filter(|shadow| shadow.generation == 0 && !shadow.state.ended())
            .count();
        if active > filling.made.concurrency as usize {
            let most = filling.made.concurrency;
            return wrong("backfill", format!("{key:?} has {active} runs of {most}"));
        }
        Ok(())
    }

    /// A new backfill has the due times that were asked for.
    fn wanted(&self, key: &EntityKey, commit: &Commit) -> Verdict {
        let (Some(filling), EntityKey::Backfill { workflow, .. }) =
            (self.backfills.known.get(key), key)
        else {
            return Ok(());
        };
        let made = &filling.made;
        let sorted = made.due.windows(2).all(|pair| {
            let (first, second) = (pair[0], pair[1]);
            if made.newest_first {
                first > second
            } else {
                first < second
            }
        });
        let inside = |due: &i64| (made.from..made.until).contains(due);
        if !sorted || !made.due.iter().all(inside) {
            return wrong("backfill", format!("{key:?} has {:?}", made.due));
        }
        let of = EntityKey::Trigger {
            namespace: NAMESPACE.into(),
            workflow: workflow.clone(),
            name: made.trigger.as_str().into(),
        };
        let Some(Entity::Trigger(trigger)) = self.smalls.get(&of) else {
            return wrong("backfill", format!("{key:?} is of no trigger"));
        };
        let Some((_, calendar)) = trigger.schedule() else {
            return Ok(());
        };
        if trigger.state.definition != made.definition {
            // It was edited in the same commit.
            return Ok(());
        }
        let last = made.until.saturating_sub(1).min(made.created_at);
        let all = calendar.first(Time(made.from - 1), Time(last), limits::BACKFILL);
        for due in all {
            let has = made.due.contains(&due.0);
            let due_of = (workflow.to_string(), made.trigger.clone(), due.0);
            let wants = self.wants(made, trigger, &due_of, commit);
            if wants.is_some_and(|wants| wants != has) {
                let only = Only::from_number(made.only).name();
                let detail = format!("{key:?}, only {only}: {due} is in it: {has}");
                return wrong("backfill", detail);
            }
        }
        Ok(())
    }

    /// True if a backfill is to take a due time; none where that may be either way.
    fn wants(&self, made: &State, trigger: &Trigger, due: &Due, commit: &Commit) -> Option<bool> {
        let state = &trigger.state;
        if due.2 > state.watermark || due.2 > made.created_at - state.delay {
            // The schedule may be about to start it.
            return None;
        }
        if made.only == Only::All as u32 {
            return Some(true);
        }
        let runs = self.backfills.runs.get(due).map_or(&[][..], Vec::as_slice);
        let mut failed = false;
        let mut succeeded = false;
        for run in runs {
            let shadow = self.runs.get(&run.id)?;
            let key = EntityKey::Run(run.id);
            let written = commit.entities.iter().any(|write| write.key == key);
            // What was edited since forgets what was before.
            let before = state.generation > 1 || run.created_at > made.created_at;
            if written || before || shadow.generation > 0 {
                return None;
            }
            match (shadow.state.ended(), shadow.state.status) {
                (true, RunStatus::Succeeded) => succeeded = true,
                (true, _) => failed = true,
                // Another backfill's.
                (false, _) if run.of_backfill => return None,
                (false, _) => return Some(false),
            }
        }
        if made.only == Only::Missing as u32 {
            return Some(!succeeded);
        }
        // A start that was refused counts as one that failed, and has no run.
        (state.refused == 0 || failed || succeeded).then_some(failed && !succeeded)
    }
}
