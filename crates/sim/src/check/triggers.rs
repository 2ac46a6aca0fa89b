//! Signals and requests that start runs: each that matches and comes while its trigger is active starts
//! exactly one, whatever crashes; what is the same as one before, or is not wanted, starts none.
//!
//! Runs say by their parameter `from` which signals they are for: a trigger without it is not looked at.
//! What came in the commit that also changed a trigger may have come before or after that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kapell_engine::Ask;
use kapell_engine::event::{self, Event, RunCreated, Stored, run_id};
use kapell_engine::message::Signal;
use kapell_engine::topic::signal_value;
use kapell_engine::trigger::{Fact, Trigger, TriggerEvent};
use kapell_expr::{Budget, Map, MapScope, Value};
use kapell_model::spec::{self, SignalSource, SignalTrigger, TriggerKind};
use kapell_model::{EntityKey, RunId, RunStatus};
use kapell_node::{ClientRequest, Entity};

use super::{Checks, Verdict, joins, wrong};

/// What is known of starts by signals and requests.
#[derive(Default)]
pub(super) struct Starts {
    /// Of the commit that is read.
    now: Now,
    /// Trigger, and the signals that it has started a run with.
    started: BTreeSet<(String, String, String)>,
    /// The same of calls that somebody made and that started no run yet, with how many there are; those
    /// without an id are together.
    calls: BTreeMap<(String, String, String), u64>,
    /// Values of `dedupe` that started a run, by trigger.
    seen: BTreeMap<EntityKey, BTreeSet<Vec<u8>>>,
    /// Signals that wait to be joined, by trigger.
    pub(super) joins: BTreeMap<EntityKey, joins::Waiting>,
    /// Triggers that started runs by what is not known here: their `dedupe` is not looked at.
    vague: BTreeSet<EntityKey>,
    /// Runs that triggers wanted and that could not be made.
    refused: BTreeSet<RunId>,
}

/// What one commit says.
#[derive(Default)]
struct Now {
    /// Signals that topics have kept, in order.
    came: BTreeMap<Arc<str>, Vec<Arc<Signal>>>,
    facts: BTreeMap<EntityKey, Vec<Decided>>,
    /// Triggers that were set, paused or resumed.
    changed: BTreeSet<EntityKey>,
    /// Runs that were made, and what they are for.
    made: BTreeMap<RunId, String>,
    /// Runs that ended, by the topic that tells so.
    ended: Vec<(Arc<str>, RunId)>,
}

/// A fact of a trigger, and its definition before it.
type Decided = (TriggerEvent, Option<Arc<spec::Trigger>>);

/// What a trigger decided about one start.
enum Fate {
    Started(RunId),
    Duplicate,
    Declined(String),
}

/// A start that was wanted, with what its expressions see.
pub(super) struct Wanted<'a> {
    pub(super) key: &'a EntityKey,
    pub(super) spec: &'a spec::Trigger,
    pub(super) scope: MapScope,
    /// What the run says that it is for.
    pub(super) from: String,
}

impl Starts {
    /// A run was made.
    pub(super) fn created(&mut self, id: RunId, created: &RunCreated) -> Verdict {
        if !matches!(created.trigger.as_str(), "signal" | "webhook") {
            return Ok(());
        }
        let params = created.params.as_ref().map(Stored::value);
        let params = params.as_ref().and_then(Value::as_map);
        let from = params.and_then(|params| params.get("from")?.as_str().map(str::to_owned));
        let from = from.unwrap_or_default();
        if !from.is_empty() {
            let (workflow, name) = (&created.workflow, &created.trigger_name);
            let by = (workflow.clone(), name.clone(), from.clone());
            let first = if created.trigger == "signal" {
                self.started.insert(by)
            } else {
                self.uses_call(by)
            };
            if !first {
                let detail = format!("`{name}` starts another run by {from}");
                return wrong("triggers", detail);
            }
        }
        self.now.made.insert(id, from);
        Ok(())
    }

    /// Somebody calls a webhook.
    pub(super) fn called(&mut self, request: &ClientRequest) {
        if let ClientRequest::Ask {
            key: EntityKey::Trigger { workflow, name, .. },
            ask: Ask::Deliver(signal),
        } = request
        {
            let call = (
                workflow.to_string(),
                name.to_string(),
                signal.id.to_string(),
            );
            *self.calls.entry(call).or_default() += 1;
        }
    }

    /// Takes a call that made a run: each makes one at most, the same id or not. False if there is none.
    fn uses_call(&mut self, call: (String, String, String)) -> bool {
        let nameless = (call.0.clone(), call.1.clone(), String::new());
        [call, nameless].iter().any(|call| {
            let calls = self.calls.get_mut(call).filter(|calls| **calls > 0);
            calls.map(|calls| *calls -= 1).is_some()
        })
    }

    /// A trigger has decided something; `trigger` is what it was before.
    pub(super) fn note(&mut self, key: &EntityKey, trigger: &Trigger, event: &TriggerEvent) {
        let changes = match &event.fact {
            Some(
                Fact::Set(_)
                | Fact::Removed(_)
                | Fact::Paused(_)
                | Fact::Resumed(_)
                | Fact::WorkflowPaused(_),
            ) => true,
            Some(
                Fact::Missed(_)
                | Fact::CatchingUp(_)
                | Fact::Started(_)
                | Fact::Declined(_)
                | Fact::Refused(_)
                | Fact::Ended(_)
                | Fact::Reopened(_)
                | Fact::Rotated(_)
                | Fact::Backfilled(_)
                | Fact::Waits(_)
                | Fact::Duplicate(_)
                | Fact::NoRoom(_)
                | Fact::Taken(_)
                | Fact::HasRoom(_)
                | Fact::Holds(_)
                | Fact::Expired(_),
            )
            | None => false,
        };
        if changes {
            self.now.changed.insert(key.clone());
        }
        let facts = self.now.facts.entry(key.clone()).or_default();
        facts.push((event.clone(), definition(trigger)));
    }

    /// True if the same value has started a run before.
    pub(super) fn known(&self, wanted: &Wanted<'_>) -> bool {
        let same = dedupe(wanted);
        same.is_some_and(|same| {
            let seen = self.seen.get(wanted.key);
            seen.is_some_and(|seen| seen.contains(&same))
        })
    }
}

fn definition(trigger: &Trigger) -> Option<Arc<spec::Trigger>> {
    serde_json::from_str(&trigger.state.definition)
        .ok()
        .map(Arc::new)
}

/// The value that no other run is to be started with.
fn dedupe(wanted: &Wanted<'_>) -> Option<Vec<u8>> {
    let template = match &wanted.spec.kind {
        TriggerKind::Signal(of) => of.dedupe.as_ref(),
        TriggerKind::Webhook(of) => of.dedupe.as_ref(),
        TriggerKind::Schedule(_) => None,
    };
    let value = template?.eval(&wanted.scope, Budget::default());
    Some(value.ok()?.to_stored())
}

/// True if runs say what they are for.
fn says_from(spec: &spec::Trigger) -> bool {
    let with = serde_json::to_value(&spec.with).unwrap_or_default();
    with.to_string().contains("\"from\"")
}

/// True if the trigger's source takes the signal.
pub(super) fn takes(source: &SignalSource, signal: &Signal, scope: &MapScope) -> bool {
    source.signal == signal.name
        && source
            .matches
            .as_ref()
            .is_none_or(|matches| matches.eval(scope, Budget::default()) == Ok(Value::Bool(true)))
}

pub(super) fn scope_of(signal: &Signal) -> MapScope {
    MapScope(Map::from([("signal".into(), signal_value(signal))]))
}

fn fate(event: &TriggerEvent) -> Option<Fate> {
    match &event.fact {
        Some(Fact::Started(started)) if !started.due => Some(Fate::Started(run_id(&started.run))),
        Some(Fact::Duplicate(_)) => Some(Fate::Duplicate),
        Some(Fact::Declined(declined)) if declined.due.is_none() => {
            Some(Fate::Declined(declined.error.clone()))
        }
        _ => None,
    }
}

impl Checks {
    /// Triggers that are webhooks.
    pub(crate) fn webhooks(&self) -> Vec<EntityKey> {
        let hook = |(key, entity): (&EntityKey, &Entity)| {
            let Entity::Trigger(trigger) = entity else {
                return None;
            };
            let spec = definition(trigger)?;
            matches!(spec.kind, TriggerKind::Webhook(_)).then(|| key.clone())
        };
        self.smalls.iter().filter_map(hook).collect()
    }

    /// A topic has changed: what it keeps has come now.
    pub(super) fn topic_written(&mut self, key: &EntityKey, chunk: &[u8]) -> Verdict {
        let last = self.topic(key).and_then(|topic| topic.kept().next_back());
        let last = last.map(|signal| signal.id.clone());
        self.small_written(key, chunk)?;
        let (Some(topic), EntityKey::Topic { name, .. }) = (self.topic(key), key) else {
            return Ok(());
        };
        let new = topic.kept().rev();
        let new = new.take_while(|signal| Some(&signal.id) != last.as_ref());
        let mut new: Vec<_> = new.cloned().collect();
        new.reverse();
        if !new.is_empty() {
            self.starts.now.came.insert(name.clone(), new);
        }
        Ok(())
    }

    /// A run may have ended, and others may wait for that.
    pub(super) fn note_ended(&mut self, id: RunId, event: &Event) {
        let Some(event::Fact::RunEnded(_)) = event.fact else {
            return;
        };
        let Some(shadow) = self.runs.get(&id) else {
            return;
        };
        let how = match shadow.state.status {
            RunStatus::Succeeded => "succeeded",
            RunStatus::Failed | RunStatus::TimedOut => "failed",
            _ => return,
        };
        let topic = format!("workflow.{}.{how}", shadow.state.meta.workflow);
        self.starts.now.ended.push((topic.into(), id));
    }

    /// The commit is over: what came in it has started what it is to start.
    pub(super) fn signals_started(&mut self) -> Verdict {
        let now = std::mem::take(&mut self.starts.now);
        for (key, facts) in &now.facts {
            self.starts_made(key, facts, &now)?;
        }
        self.note_owed(&now);
        let keys: Vec<EntityKey> = if self.spread || now.came.is_empty() && now.ended.is_empty() {
            now.facts.keys().cloned().collect()
        } else {
            let triggers = self.smalls.iter();
            let triggers = triggers.filter(|(_, entity)| matches!(entity, Entity::Trigger(_)));
            triggers.map(|(key, _)| key.clone()).collect()
        };
        for key in keys {
            let Some(Entity::Trigger(trigger)) = self.smalls.get(&key) else {
                continue;
            };
            let state = &trigger.state;
            let active = state.defined() && state.paused_by.is_none() && !state.workflow_paused;
            let steady = active && !now.changed.contains(&key);
            let spec = definition(trigger);
            let facts = now.facts.get(&key).map_or(&[][..], Vec::as_slice);
            let started = |(event, _): &Decided| matches!(fate(event), Some(Fate::Started(_)));
            let of_one = |spec: &Arc<spec::Trigger>| match &spec.kind {
                TriggerKind::Signal(of) => of.sources.len() == 1 && !steady,
                TriggerKind::Webhook(_) => true,
                TriggerKind::Schedule(_) => false,
            };
            if spec.as_ref().is_some_and(of_one) && facts.iter().any(started) {
                self.starts.vague.insert(key.clone());
            }
            match spec.as_ref().map(|spec| (spec, &spec.kind)) {
                Some((spec, TriggerKind::Signal(of))) if says_from(spec) => {
                    if self.spread {
                        // What came in other commits: see `owed`.
                        if of.sources.len() > 1 {
                            self.joined(&key, facts, &now.made)?;
                        }
                        continue;
                    }
                    if steady {
                        Self::ends_told(&key, of, &now)?;
                    }
                    if of.sources.len() == 1 {
                        self.one_source(&key, (spec, of), steady.then_some(facts), &now)?;
                    } else {
                        Self::all_wait((&key, of), steady, facts, &now.came)?;
                        self.joined(&key, facts, &now.made)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Of several lanes: a signal that a topic keeps, and tells a trigger of, has a fate there later.
    fn note_owed(&mut self, now: &Now) {
        if !self.spread {
            return;
        }
        for key in &now.changed {
            // What is on its way may come before or after that.
            self.owed.remove(key);
        }
        for (key, facts) in &now.facts {
            let fates = facts
                .iter()
                .filter(|(event, _)| fate(event).is_some())
                .count();
            self.owed.entry(key.clone()).or_default().1 += fates as u64;
        }
        for (name, signals) in &now.came {
            for (key, entity) in &self.smalls {
                let Entity::Trigger(trigger) = entity else {
                    continue;
                };
                let state = &trigger.state;
                if !state.defined() || state.paused_by.is_some() || state.workflow_paused {
                    continue;
                }
                let Some(spec) = definition(trigger) else {
                    continue;
                };
                let TriggerKind::Signal(of) = &spec.kind else {
                    continue;
                };
                let [source] = of.sources.as_slice() else {
                    continue;
                };
                let topic = EntityKey::Topic {
                    namespace: crate::world::NAMESPACE.into(),
                    name: name.clone(),
                };
                let told = self
                    .topic(&topic)
                    .is_some_and(|topic| topic.tells(key, None));
                let wanted = signals
                    .iter()
                    .filter(|signal| takes(source, signal, &scope_of(signal)));
                let wanted = wanted.count() as u64;
                if told && wanted > 0 {
                    self.owed.entry(key.clone()).or_default().0 += wanted;
                }
            }
        }
    }

    /// Of several lanes: no message is under way, and every signal has had its fate.
    pub(super) fn nothing_owed(&self) -> Verdict {
        match self.owed.iter().find(|(_, (owed, fates))| owed > fates) {
            None => Ok(()),
            Some((key, (owed, fates))) => {
                let detail = format!("{key:?} was sent {owed} signals and decided about {fates}");
                wrong("triggers", detail)
            }
        }
    }

    /// A start that a trigger says it made was made, or was refused.
    fn starts_made(&mut self, key: &EntityKey, facts: &[Decided], now: &Now) -> Verdict {
        let mut refusals = 0;
        let mut missing = Vec::new();
        for (event, _) in facts {
            match (&event.fact, fate(event)) {
                (Some(Fact::Refused(_)), _) => refusals += 1,
                (_, Some(Fate::Started(run))) if !now.made.contains_key(&run) => missing.push(run),
                _ => {}
            }
        }
        if missing.len() > refusals {
            let detail = format!("{key:?} says it started {missing:?}, and they were not made");
            return wrong("triggers", detail);
        }
        self.starts.refused.extend(missing);
        Ok(())
    }

    /// The end of each run that somebody waits for is told.
    fn ends_told(key: &EntityKey, of: &SignalTrigger, now: &Now) -> Verdict {
        for (topic, run) in &now.ended {
            if !of.sources.iter().any(|source| source.signal == *topic) {
                continue;
            }
            let run = run.to_string();
            let told = now.came.get(topic).is_some_and(|came| {
                came.iter().any(|signal| {
                    let payload = signal.payload.as_map();
                    let of = payload.and_then(|payload| payload.get("run")?.as_str());
                    of == Some(&run)
                })
            });
            if !told {
                let detail =
                    format!("{key:?} listens to `{topic}`, and {run} has not told its end");
                return wrong("triggers", detail);
            }
        }
        Ok(())
    }

    /// Of a trigger of one signal: each that matches has one fate, in order.
    fn one_source(
        &mut self,
        key: &EntityKey,
        (spec, of): (&spec::Trigger, &SignalTrigger),
        facts: Option<&[Decided]>,
        now: &Now,
    ) -> Verdict {
        let (Some(source), Some(facts)) = (of.sources.first(), facts) else {
            return Ok(());
        };
        let came = now.came.get(&source.signal).into_iter().flatten();
        let mut fates: VecDeque<Fate> = facts.iter().filter_map(|(event, _)| fate(event)).collect();
        for signal in came {
            let scope = scope_of(signal);
            if !takes(source, signal, &scope) {
                continue;
            }
            let Some(fate) = fates.pop_front() else {
                let detail = format!("{} started nothing by {key:?}", signal.id);
                return wrong("triggers", detail);
            };
            let wanted = Wanted {
                key,
                spec,
                scope,
                from: signal.id.to_string(),
            };
            self.right_fate(&wanted, fate, &now.made)?;
        }
        if fates.is_empty() {
            return Ok(());
        }
        wrong("triggers", format!("{key:?} starts by what does not match"))
    }

    /// The trigger has decided about a start as its definition says.
    fn right_fate(
        &mut self,
        wanted: &Wanted<'_>,
        fate: Fate,
        made: &BTreeMap<RunId, String>,
    ) -> Verdict {
        let (key, from) = (wanted.key, &wanted.from);
        let known = match &fate {
            _ if !self.starts.vague.contains(key) => self.starts.known(wanted),
            Fate::Duplicate => true,
            Fate::Started(_) | Fate::Declined(_) => false,
        };
        let when = match &wanted.spec.when {
            Some(when) => when.eval(&wanted.scope, Budget::default()),
            None => Ok(Value::Bool(true)),
        };
        match fate {
            Fate::Started(run) => {
                if known || when != Ok(Value::Bool(true)) {
                    let detail = format!("{key:?} starts {run} by {from}, which it is not to");
                    return wrong("triggers", detail);
                }
                if made.get(&run).is_some_and(|made| made != from) {
                    let detail = format!("{run} is for {:?}, and not {from}", made.get(&run));
                    return wrong("triggers", detail);
                }
                let seen = self.starts.seen.entry(key.clone()).or_default();
                seen.extend(dedupe(wanted));
                Ok(())
            }
            Fate::Duplicate if known => Ok(()),
            Fate::Declined(error) if !known => {
                let with = wanted.spec.with.as_ref();
                let with = with.map(|with| with.eval(&wanted.scope, Budget::default()));
                let fails = with.is_some_and(|with| with.is_err());
                let same = match &wanted.spec.kind {
                    TriggerKind::Signal(of) => of.dedupe.as_ref(),
                    TriggerKind::Webhook(_) | TriggerKind::Schedule(_) => None,
                };
                let same = same.map(|same| same.eval(&wanted.scope, Budget::default()));
                let fails = fails || same.is_some_and(|same| same.is_err());
                let right = match when {
                    Ok(Value::Bool(true)) => fails || error.contains("in a row"),
                    Ok(_) => error.is_empty() || fails,
                    Err(_) => true,
                };
                if right {
                    return Ok(());
                }
                wrong("triggers", format!("{key:?} declines {from}: `{error}`"))
            }
            Fate::Duplicate | Fate::Declined(_) => {
                let detail = format!("{key:?} starts nothing by {from}, known before: {known}");
                wrong("triggers", detail)
            }
        }
    }

    /// A join was decided about, with these signals.
    pub(super) fn right_join(
        &mut self,
        wanted: &Wanted<'_>,
        event: &TriggerEvent,
        made: &BTreeMap<RunId, String>,
    ) -> Verdict {
        match fate(event) {
            Some(fate) => self.right_fate(wanted, fate, made),
            None => Ok(()),
        }
    }

    /// Somebody asks for something.
    pub(crate) fn asked(&mut self, request: &ClientRequest) {
        self.starts.called(request);
    }

    /// Somebody called a webhook and is answered: the run is there.
    pub(super) fn call_answered(&self, request: &ClientRequest, answer: &Value) -> Verdict {
        let ClientRequest::Ask {
            key,
            ask: Ask::Deliver(signal),
        } = request
        else {
            return Ok(());
        };
        let run = answer
            .as_map()
            .and_then(|answer| answer.get("run").cloned());
        let run = run.as_ref().and_then(Value::as_str);
        let Some(run) = run.and_then(|run| run.parse::<RunId>().ok()) else {
            return self.call_repeated(key, signal);
        };
        if self.runs.contains_key(&run) || self.starts.refused.contains(&run) {
            return Ok(());
        }
        let detail = format!("{key:?} was called and answers {run}, which is not there");
        wrong("triggers", detail)
    }

    /// A call that starts nothing has started something before, or is not wanted.
    fn call_repeated(&self, key: &EntityKey, signal: &Signal) -> Verdict {
        let (Some(Entity::Trigger(trigger)), EntityKey::Trigger { workflow, name, .. }) =
            (self.smalls.get(key), key)
        else {
            return Ok(());
        };
        let Some(spec) = definition(trigger).filter(|spec| says_from(spec)) else {
            return Ok(());
        };
        let TriggerKind::Webhook(hook) = &spec.kind else {
            return Ok(());
        };
        let from = (
            workflow.to_string(),
            name.to_string(),
            signal.id.to_string(),
        );
        let repeated = !signal.id.is_empty() && self.starts.started.contains(&from);
        // A refused start counts as one, and an edit may have changed what is wanted.
        let edited = trigger.state.generation > 1 || trigger.state.refused > 0;
        if repeated || edited || hook.dedupe.is_some() || spec.when.is_some() {
            return Ok(());
        }
        let detail = format!(
            "{key:?} was called with `{}` and started nothing",
            signal.id
        );
        wrong("triggers", detail)
    }
}
