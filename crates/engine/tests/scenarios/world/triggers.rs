//! Triggers and backfills: what a node does for them.

use super::starts::Making;
use super::{BEGIN, World};
use crate::script::What;
use kapell_engine::backfill::{AskBackfill, Backfill, Only};
use kapell_engine::message::{StartClass, StartTriggered, TriggerSet};
use kapell_engine::trigger::Trigger;
use kapell_engine::{Ask, Message, Small, SmallInput};
use kapell_expr::Value;
use kapell_model::{EntityKey, Error, ErrorCode, Time};
use std::sync::Arc;

/// What starts runs by itself.
#[derive(Clone, Debug)]
pub(super) enum Starter {
    Trigger(Box<Trigger>),
    Backfill(Box<Backfill>),
}

/// A starter, and what its facts make of a fresh one.
pub(super) type Both = (Starter, Starter);

impl Starter {
    fn fresh(key: &EntityKey) -> Self {
        match key {
            EntityKey::Backfill { .. } => Self::Backfill(Box::default()),
            _ => Self::Trigger(Box::default()),
        }
    }

    fn small(&self) -> &dyn Small {
        match self {
            Self::Trigger(trigger) => &**trigger,
            Self::Backfill(backfill) => &**backfill,
        }
    }

    fn small_mut(&mut self) -> &mut dyn Small {
        match self {
            Self::Trigger(trigger) => &mut **trigger,
            Self::Backfill(backfill) => &mut **backfill,
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.small().to_bytes()
    }
}

/// What timelines say of a run that was not started by hand.
pub(super) fn made_by(start: &StartTriggered) -> String {
    let mut how = format!("made by `{}`", start.name);
    if matches!(start.kind, "schedule" | "backfill") {
        how = format!("{how} for {}", start.scheduled_at);
    }
    match (&start.backfill, start.class) {
        (Some(backfill), _) => format!("{how}, backfill `{backfill}`"),
        (None, StartClass::Catchup) => format!("{how}, catching up"),
        (None, _) => how,
    }
}

/// When something happens in it by itself.
pub(super) fn wake_at((starter, _): &Both) -> Option<Time> {
    starter.small().wake_at()
}

impl World {
    fn key(&self, name: &str) -> EntityKey {
        EntityKey::Trigger {
            namespace: "default".into(),
            workflow: self.first.clone(),
            name: name.into(),
        }
    }

    pub(super) fn trigger(&mut self, key: &EntityKey, input: SmallInput) -> Result<Value, Error> {
        let fresh = || (Starter::fresh(key), Starter::fresh(key));
        let (starter, replayed) = self.triggers.entry(key.clone()).or_insert_with(fresh);
        let decided = starter.small_mut().decide(key, input, self.now)?;
        replayed
            .small_mut()
            .replay(&decided.chunk)
            .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
        self.messages.extend(decided.messages);
        Ok(decided.answer)
    }

    pub(super) fn due_trigger(&self) -> Option<EntityKey> {
        let due = |both: &Both| wake_at(both).is_some_and(|at| at <= self.now);
        let mut triggers = self.triggers.iter();
        triggers
            .find(|(_, both)| due(both))
            .map(|(key, _)| key.clone())
    }

    pub(super) fn start_triggered(&mut self, start: Box<StartTriggered>) -> Result<(), String> {
        let (id, due, from) = (start.id, start.scheduled_at, start.from.clone());
        let refused = self.start(Making {
            id: Some(id),
            workflow: start.workflow.clone(),
            params: start.params.clone(),
            text: true,
            by_trigger: Some(start),
            ..Making::default()
        })?;
        if let Some(error) = refused {
            let message = Message::StartRefused {
                run: id,
                scheduled_at: due,
                error: Error::new(ErrorCode::BadParams, error),
            };
            self.messages.push_back((from, message));
        }
        Ok(())
    }

    fn deploy(&mut self) {
        for (workflow, plan) in self.plans.clone() {
            for trigger in &plan.spec.triggers {
                let key = EntityKey::Trigger {
                    namespace: "default".into(),
                    workflow: workflow.clone(),
                    name: trigger.name.clone(),
                };
                let set = TriggerSet {
                    version: 1,
                    trigger: trigger.clone(),
                    timezone: plan.spec.timezone.clone(),
                    workflow_paused: false,
                };
                self.messages
                    .push_back((key, Message::TriggerSet(Box::new(set))));
            }
        }
    }

    /// Does what is said to triggers. False if it is said to something else.
    pub(super) fn steers_triggers(&mut self, what: &What) -> Result<bool, String> {
        let by = "ann".to_owned();
        let (name, ask) = match what {
            What::Deploy => {
                if self.script.until.is_none() {
                    return Err("triggers have no end: say `until` when".to_owned());
                }
                self.deploy();
                return Ok(true);
            }
            What::Away(span) => {
                self.now = self.now.plus(*span);
                return Ok(true);
            }
            What::Trigger(name, true) => (name, Ask::PauseTrigger { by }),
            What::Trigger(name, false) => (name, Ask::ResumeTrigger { by }),
            What::HoldBackfill(id, true) => (id, Ask::PauseBackfill { by }),
            What::HoldBackfill(id, false) => (id, Ask::ResumeBackfill { by }),
            What::Backfill(name, from, until, only, concurrency) => {
                let ask = AskBackfill {
                    id: Arc::from(""),
                    from: BEGIN.plus(*from),
                    until: BEGIN.plus(*until),
                    only: match only.as_str() {
                        "failed" => Only::Failed,
                        "all" => Only::All,
                        _ => Only::Missing,
                    },
                    newest_first: false,
                    concurrency: *concurrency,
                    by,
                };
                (name, Ask::Backfill(Box::new(ask)))
            }
            _ => return Ok(false),
        };
        let key = match what {
            What::HoldBackfill(id, _) => EntityKey::Backfill {
                namespace: "default".into(),
                workflow: self.first.clone(),
                id: id.as_str().into(),
            },
            _ => self.key(name),
        };
        let answer = self.trigger(&key, SmallInput::Ask(ask));
        let said = answer.map_err(|error| error.message)?;
        if let Some(id) = said.as_map().and_then(|map| map.get("id")) {
            let due = said.as_map().and_then(|map| map.get("due"));
            let due = due.map(Value::text).unwrap_or_default();
            let said = format!("backfill `{}` of {due} due times", id.text());
            let nobody = kapell_model::RunId::default();
            self.timeline.say(self.now.since(BEGIN), nobody, name, said);
        }
        Ok(true)
    }
}
