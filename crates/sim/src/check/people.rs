//! What people see and ask for: nothing undurable is shown.

use std::collections::BTreeSet;

use kapell_api::task::Place;
use kapell_engine::event;
use kapell_engine::run_queue::{Change, Settings};
use kapell_engine::{Ask, Request, backfill, lock, run_queue, trigger};
use kapell_model::spec::StepIndex;
use kapell_model::{EntityKey, RunId, RunStatus};
use kapell_node::{Answer, ClientRequest, Entity};
use kapell_store::{Commit, MemoryStore, RunRow, Store};

use super::{Checks, Verdict, wrong};
use crate::rng::Rng;

impl Checks {
    /// A client is told something: it is durable.
    pub(crate) fn answered(
        &mut self,
        request: &ClientRequest,
        answer: &Answer,
        store: &MemoryStore,
    ) -> Verdict {
        match answer {
            Answer::Started(run) => {
                if !matches!(store.load(&(*run).into()), Ok(Some(_))) {
                    return wrong("durable", format!("{run} is acknowledged and not durable"));
                }
                self.acknowledged.insert(*run);
                Ok(())
            }
            Answer::View(view) => {
                let shown = (view.status, view.counts);
                match self.runs.get(&view.id) {
                    Some(shadow) if shadow.seen.contains(&shown) => Ok(()),
                    Some(_) => wrong(
                        "durable",
                        format!("{} is shown as {shown:?}, never durable", view.id),
                    ),
                    None => wrong("durable", format!("{} is shown and not durable", view.id)),
                }
            }
            Answer::Value(value) => {
                self.signal_taken(request, value)?;
                self.call_answered(request, value)
            }
            // One lane has all there is, and of several whoever asked sees to it.
            Answer::Sent(shards) => wrong("owner", format!("{shards:?} are said to be another's")),
            Answer::Done => {
                self.answer_counts(request)?;
                let ClientRequest::Run {
                    run,
                    request: Request::Cancel { .. },
                } = request
                else {
                    return Ok(());
                };
                match self.runs.get(run) {
                    Some(shadow) if shadow.state.cancel.is_some() => Ok(()),
                    Some(shadow) if shadow.state.ended() || shadow.generation > 0 => Ok(()),
                    _ => wrong(
                        "durable",
                        format!("the cancel of {run} is acknowledged and not durable"),
                    ),
                }
            }
        }
    }

    /// A client is told that nothing came of what it asked.
    pub(crate) fn refused(&mut self, request: &ClientRequest) -> Verdict {
        let by = match request {
            ClientRequest::Start(start) => start.by.clone(),
            ClientRequest::Ask {
                ask: Ask::Send(signal),
                ..
            } => signal.by.to_string(),
            _ => return Ok(()),
        };
        // Others ask more than once.
        if !by.starts_with("sim-") {
            return Ok(());
        }
        if self.asked_by.contains(&by) {
            return wrong(
                "refused",
                format!("what {by} asked was refused and is durable"),
            );
        }
        self.refused.insert(by);
        Ok(())
    }

    /// Something that this one asked is durable.
    pub(super) fn took_effect(&mut self, by: &str) -> Verdict {
        if self.refused.contains(by) {
            return wrong(
                "refused",
                format!("what {by} asked was refused and took effect"),
            );
        }
        self.asked_by.insert(by.to_owned());
        Ok(())
    }

    /// The same of signals that a topic keeps.
    pub(super) fn signals_took_effect(&mut self, key: &EntityKey) -> Verdict {
        let Some(Entity::Topic(topic)) = self.smalls.get(key) else {
            return Ok(());
        };
        let by: Vec<_> = topic.kept().map(|signal| signal.by.clone()).collect();
        by.iter().try_for_each(|by| self.took_effect(by))
    }

    /// A row goes to whoever watches.
    pub(crate) fn row_shown(&self, row: &RunRow) -> Verdict {
        let known = self
            .runs
            .get(&row.id)
            .is_some_and(|shadow| shadow.seen.iter().any(|(status, _)| *status == row.status));
        if known {
            Ok(())
        } else {
            wrong("durable", format!("{} is shown as {}", row.id, row.status))
        }
    }

    /// Any run.
    pub(crate) fn any_run(&self, rng: &mut Rng) -> Option<RunId> {
        let place = rng.place(self.runs.len());
        self.runs.keys().nth(place).copied()
    }

    /// The path of any step of a run; with `top` one of the workflow itself.
    pub(crate) fn any_step(&self, run: RunId, rng: &mut Rng, top: bool) -> Option<String> {
        let shadow = self.runs.get(&run)?;
        let scopes: Vec<u32> = shadow
            .state
            .scopes
            .keys()
            .copied()
            .filter(|scope| !top || *scope == 0)
            .collect();
        if scopes.is_empty() {
            return None;
        }
        let scope = *rng.pick(&scopes);
        let steps = &shadow.state.scopes.get(&scope)?.steps;
        if steps.is_empty() {
            return None;
        }
        let step = StepIndex::try_from(rng.place(steps.len())).ok()?;
        let count = steps[usize::from(step)]
            .foreach
            .as_ref()
            .map_or(0, |foreach| foreach.count);
        let item = if !top && count > 0 && rng.chance(500) {
            u32::try_from(rng.below(u64::from(count))).ok()?
        } else {
            Place::NO_ITEM
        };
        Some(shadow.state.path(&shadow.plan, Place { scope, step, item }))
    }

    /// What people do after all is over, so that nothing waits for them: resume and dismiss.
    pub(crate) fn care(&self) -> Vec<ClientRequest> {
        let mut requests: Vec<ClientRequest> = self
            .runs
            .iter()
            .filter(|(_, shadow)| shadow.state.status == RunStatus::Paused)
            .map(|(run, _)| ClientRequest::Run {
                run: *run,
                request: Request::Resume {
                    by: "care".to_owned(),
                },
            })
            .collect();
        self.care_for_waits(&mut requests);
        for (key, queue) in &self.queues {
            if queue.settings.stopped() {
                let change = run_queue::Change {
                    paused: Some(None),
                    held: Some(None),
                    ..run_queue::Change::default()
                };
                requests.push(ClientRequest::Ask {
                    key: key.clone(),
                    ask: kapell_engine::Ask::Change(Box::new(change)),
                });
            }
            let settings = &queue.settings;
            if !settings.breaks.is_empty() || !settings.breaks_of.is_empty() {
                requests.extend(no_breaks(key, settings));
            }
            for line in queue.lines.values() {
                requests.extend(line.blocked.map(|run| ClientRequest::Dismiss { run }));
            }
            requests.extend(no_holds(key, queue));
        }
        requests
    }

    /// True if no run is left.
    pub(crate) fn all_ended(&self) -> bool {
        self.runs.values().all(|shadow| shadow.state.ended()) && self.starts_no_more()
    }

    /// Runs that have not ended, for people.
    pub(crate) fn open(&self) -> String {
        let open: Vec<String> = self
            .runs
            .iter()
            .filter(|(_, shadow)| !shadow.state.ended())
            .take(5)
            .map(|(run, shadow)| {
                let state = &shadow.state;
                let units: Vec<String> = state
                    .scopes
                    .iter()
                    .flat_map(|(number, scope)| {
                        scope.steps.iter().enumerate().filter(|(_, step)| !step.unit.status.ended()).map(
                            move |(index, step)| {
                                let items = step.foreach.as_ref().map(|foreach| {
                                    format!(
                                        " of {} good {} bad {} other {} open {} next {} again {}",
                                        foreach.count,
                                        foreach.good,
                                        foreach.bad,
                                        foreach.other,
                                        foreach.open,
                                        foreach.next,
                                        foreach.again.len()
                                    )
                                });
                                format!("{number}.{index} {}{}", step.unit.status, items.unwrap_or_default())
                            },
                        )
                    })
                    .take(12)
                    .collect();
                let why = format!(
                    "workflow {} units [{}] ready {:?} locks {:?} started {:?} todo {:?} timer {:?}",
                    state.meta.workflow,
                    units.join(", "),
                    state.ready,
                    state.locks,
                    state.started.len(),
                    state.todo,
                    state.timers.next()
                );
                format!("{run} is {}: {why}", state.status)
            })
            .collect();
        open.join("; ")
    }
}

/// Backfills that keep their runs from starting go on.
fn no_holds(key: &EntityKey, queue: &run_queue::RunQueue) -> Vec<ClientRequest> {
    let EntityKey::RunQueue {
        namespace,
        workflow,
        ..
    } = key
    else {
        return Vec::new();
    };
    let waiting = queue.lines.values().flat_map(|line| &line.waiting);
    let held = waiting.filter(|entry| queue.is_held(entry.run));
    let backfills: BTreeSet<_> = held.filter_map(|entry| entry.backfill.clone()).collect();
    let resume = |id| ClientRequest::Ask {
        key: EntityKey::Backfill {
            namespace: namespace.clone(),
            workflow: workflow.clone(),
            id,
        },
        ask: kapell_engine::Ask::ResumeBackfill {
            by: "care".to_owned(),
        },
    };
    backfills.into_iter().map(resume).collect()
}

/// New runs stop nowhere any more.
fn no_breaks(key: &EntityKey, settings: &Settings) -> Vec<ClientRequest> {
    let all = Change {
        breaks: Some(Vec::new()),
        ..Change::default()
    };
    let of = settings.breaks_of.keys().map(|version| Change {
        breaks_of: Some((*version, Vec::new())),
        ..Change::default()
    });
    let changes = [all].into_iter().chain(of);
    changes
        .map(|change| ClientRequest::Ask {
            key: key.clone(),
            ask: kapell_engine::Ask::Change(Box::new(change)),
        })
        .collect()
}

/// The facts of a commit, for people.
pub(crate) fn facts(commit: &Commit) -> Vec<String> {
    let mut lines = Vec::new();
    for write in &commit.entities {
        let facts: Vec<String> = match &write.key {
            EntityKey::Run(_) => kapell_engine::chunk::decode::<event::Event>(&write.chunk)
                .unwrap_or_default()
                .iter()
                .map(|event| format!("{:?}", event.fact))
                .collect(),
            EntityKey::RunQueue { .. } => {
                kapell_engine::chunk::decode::<run_queue::QueueEvent>(&write.chunk)
                    .unwrap_or_default()
                    .iter()
                    .map(|event| format!("{event:?}"))
                    .collect()
            }
            EntityKey::Lock { .. } => kapell_engine::chunk::decode::<lock::LockEvent>(&write.chunk)
                .unwrap_or_default()
                .iter()
                .map(|event| format!("{event:?}"))
                .collect(),
            EntityKey::Trigger { .. } => {
                kapell_engine::chunk::decode::<trigger::TriggerEvent>(&write.chunk)
                    .unwrap_or_default()
                    .iter()
                    .map(|event| format!("{event:?}"))
                    .collect()
            }
            EntityKey::Backfill { .. } => {
                kapell_engine::chunk::decode::<backfill::BackfillEvent>(&write.chunk)
                    .unwrap_or_default()
                    .iter()
                    .map(|event| format!("{event:?}"))
                    .collect()
            }
            EntityKey::Topic { .. } | EntityKey::Channel { .. } => {
                vec![format!("{} bytes", write.chunk.len())]
            }
        };
        for fact in facts {
            lines.push(format!(
                "   {:?} {}",
                write.key,
                fact.chars().take(400).collect::<String>()
            ));
        }
    }
    lines
}
