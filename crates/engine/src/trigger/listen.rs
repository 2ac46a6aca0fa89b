//! Signals to starts: conditions, joins, and what is the same as before.

use std::collections::BTreeSet;
use std::sync::Arc;

use kapell_expr::{Budget, EvalError, Map, MapScope, Template, Value};
use kapell_model::spec::{SignalSource, SignalTrigger, TriggerKind};
use kapell_model::{EntityKey, Error, ErrorCode, RunId, Time, limits};

use super::fact::{Declined, Fact, Missed, Started, Used};
use super::fire::params;
use super::state::{Pending, Seen};
use super::{Deciding, Made, Trigger};
use crate::event::run_id;
use crate::message::{Message, Signal, StartClass, StartTriggered, Subscribe};
use crate::start::{Start, derived_id};
use crate::topic::{equals, given_id, may_name, signal_value};

/// What became of what could have started a run.
enum Outcome {
    Started(RunId),
    /// The same did so before: this run, if that is still known.
    Duplicate(Option<RunId>),
    /// `when` does not hold.
    Declined,
    /// Something cannot be evaluated.
    Failed(String),
}

/// A start with what is to start no other, or why there is none.
type Starting = Result<(StartTriggered, Same), Outcome>;

/// What makes two starts the same: hashes, of which an equal one is enough. Empty where there is none.
#[derive(Default)]
pub(super) struct Same {
    /// Of the value of `dedupe`; without one, of the id that came with the request.
    pub hash: Vec<u8>,
    /// Beside a `dedupe`: of the id that came with the request.
    pub id: Vec<u8>,
}

impl Same {
    /// What is to start no other run. A topic keeps no signal twice and tells each once, so that their ids
    /// say nothing; a request may come again.
    fn of(made: &Made, found: &Found, (scope, ids): (&MapScope, &str)) -> Result<Self, Outcome> {
        let webhook = found.kind == "webhook";
        let of_ids = |counts: bool| {
            let ids = counts.then_some(ids.as_bytes());
            ids.map(Self::hash).unwrap_or_default()
        };
        let Some(dedupe) = made.dedupe() else {
            return Ok(Self {
                hash: of_ids(webhook),
                id: Vec::new(),
            });
        };
        let value = dedupe.eval(scope, Budget::default());
        let value = value.map_err(|error| Outcome::Failed(format!("`dedupe`: {error}")))?;
        Ok(Self {
            hash: Self::hash(&value.as_key().to_stored()),
            // An id that it was given here is of one request.
            id: of_ids(webhook && may_name(ids).is_ok()),
        })
    }

    fn hash(bytes: &[u8]) -> Vec<u8> {
        blake3::hash(bytes).as_bytes()[..16].to_vec()
    }

    fn is(&self, seen: &Seen) -> bool {
        let equal = |own: &[u8], other: &[u8]| !own.is_empty() && own == other;
        equal(&self.hash, &seen.hash) || equal(&self.id, &seen.id)
    }
}

/// What a run is started with.
struct Found {
    kind: &'static str,
    /// `signal`, or `signals`.
    names: Map,
    /// They are told by these.
    signals: Vec<Arc<Signal>>,
    /// Numbers of those that waited.
    used: Vec<u64>,
}

impl Made {
    /// Topics that it listens to, in order.
    fn topics(&self) -> BTreeSet<&Arc<str>> {
        match &self.spec.kind {
            TriggerKind::Signal(of) => of.sources.iter().map(|source| &source.signal).collect(),
            TriggerKind::Schedule(_) | TriggerKind::Webhook(_) => BTreeSet::new(),
        }
    }

    fn dedupe(&self) -> Option<&Template> {
        match &self.spec.kind {
            TriggerKind::Signal(of) => of.dedupe.as_ref(),
            TriggerKind::Webhook(of) => of.dedupe.as_ref(),
            TriggerKind::Schedule(_) => None,
        }
    }
}

impl Deciding<'_> {
    fn topic(&self, name: &Arc<str>) -> EntityKey {
        EntityKey::Topic {
            namespace: self.of.namespace.clone(),
            name: name.clone(),
        }
    }

    /// Listens to the topics of its definition, and no more to those of the one before.
    pub(super) fn listen(&mut self, before: Option<&Made>) {
        let made = self.trigger.made.clone();
        let now = made.as_ref().map(|made| made.topics()).unwrap_or_default();
        for name in before.map(Made::topics).unwrap_or_default() {
            if !now.contains(name) {
                let message = Message::Unsubscribe {
                    who: self.of.key.clone(),
                    place: None,
                };
                self.messages.push((self.topic(name), message));
            }
        }
        let Some(TriggerKind::Signal(of)) = made.as_ref().map(|made| &made.spec.kind) else {
            return;
        };
        for name in now {
            let mut sources = of.sources.iter().filter(|source| source.signal == *name);
            let first = sources.next().and_then(|source| source.matches.as_ref());
            // Where two look at one topic, what one asks for says nothing of the other.
            let alone = sources.next().is_none();
            let subscribe = Subscribe {
                who: self.of.key.clone(),
                place: None,
                since: None,
                before: None,
                equal: equals(first.filter(|_| alone), &MapScope::default()),
            };
            self.messages
                .push((self.topic(name), Message::Subscribe(Box::new(subscribe))));
        }
    }

    /// A signal has come on a topic.
    pub(super) fn signalled(&mut self, signal: &Arc<Signal>) {
        let Some(made) = self.trigger.made.clone() else {
            return;
        };
        let TriggerKind::Signal(of) = &made.spec.kind else {
            return;
        };
        let value = signal_value(signal);
        let scope = MapScope(Map::from([("signal".into(), value.clone())]));
        let mut fits = of.sources.iter().enumerate();
        let found = fits.find(|(_, source)| {
            source.signal == signal.name
                && source.matches.as_ref().is_none_or(|matches| {
                    // What is not there does not match, and neither does what cannot be compared.
                    matches.eval(&scope, Budget::default()) == Ok(Value::Bool(true))
                })
        });
        let Some((place, source)) = found else { return };
        if !self.trigger.is_active() {
            return self.emit(Fact::Missed(Missed { until: 0, count: 1 }));
        }
        if of.sources.len() == 1 {
            let found = Found {
                kind: "signal",
                names: scope.0,
                signals: vec![signal.clone()],
                used: Vec::new(),
            };
            self.start_by(&made, found);
            return;
        }
        let key = match key_of(source, signal, &scope) {
            Ok(Some(key)) => key,
            Ok(None) => return,
            Err(error) => return self.decline(None, error),
        };
        self.emit(Fact::Waits(Box::new(Pending {
            number: self.trigger.state.last_pending + 1,
            source: u32::try_from(place).unwrap_or(u32::MAX),
            key: key.to_stored(),
            signal: (&**signal).into(),
        })));
        if let Some(found) = self.joined(&of.sources, &key, self.now.plus(-within(of))) {
            self.start_by(&made, found);
        }
    }

    /// The oldest of each source with this key, if there is one of each that is not too old.
    fn joined(&self, sources: &[SignalSource], key: &Value, since: Time) -> Option<Found> {
        let stored = key.to_stored();
        // Numbers of two types may be equal, also inside of others.
        let numbers = !matches!(key, Value::Null | Value::Bool(_) | Value::String(_));
        let is = |other: &[u8]| {
            other == stored || numbers && Value::from_stored(other).is_ok_and(|other| other == *key)
        };
        let mut signals = Vec::new();
        let mut used = Vec::new();
        let mut names = Vec::new();
        for (place, source) in sources.iter().enumerate() {
            let pending = self.trigger.state.pending.iter().find(|pending| {
                pending.source as usize == place
                    && is(&pending.key)
                    && pending.signal.sent_at >= since.0
            })?;
            let signal = Arc::new(Signal::from(&pending.signal));
            names.push((source.alias.clone(), signal_value(&signal)));
            used.push(pending.number);
            signals.push(signal);
        }
        Some(Found {
            kind: "signal",
            names: Map::from([("signals".into(), Value::map(names))]),
            signals,
            used,
        })
    }

    /// Signals that nothing can be joined with any more wait no longer.
    pub(super) fn expire(&mut self) {
        let now = self.now;
        let over = |pending: &&Pending| self.trigger.waits_until(pending) <= now;
        let pending = self.trigger.state.pending.iter().filter(over);
        let numbers: Vec<u64> = pending.map(|pending| pending.number).collect();
        if !numbers.is_empty() {
            self.emit(Fact::Expired(Used { numbers }));
        }
    }

    /// A request from outside: its signal starts a run by itself.
    pub(super) fn delivered(&mut self, mut signal: Signal) -> Result<Value, Error> {
        let Some(made) = self.trigger.made.clone() else {
            return Err(super::unknown(self.of));
        };
        if !matches!(made.spec.kind, TriggerKind::Webhook(_)) {
            let message = format!("the trigger `{}` is no webhook", self.of.name);
            return Err(Error::new(ErrorCode::BadRequest, message)
                .hint("send a signal to start the runs of a signal's trigger"));
        }
        if !self.trigger.is_active() {
            let message = match self.trigger.state.paused_by {
                Some(_) => format!("the trigger `{}` is paused", self.of.name),
                None => format!("the workflow `{}` is paused", self.of.workflow),
            };
            return Err(Error::new(ErrorCode::NotAllowedNow, message)
                .hint("send the request again once it is resumed"));
        }
        let state = &self.trigger.state;
        if state.has_seen_too_much(self.now) {
            let message = format!(
                "the webhook `{}` was called more than {} times in ten minutes",
                self.of.name,
                limits::WEBHOOK_CALLS
            );
            return Err(Error::new(ErrorCode::TooManyRequests, message)
                .hint("send less often, or several things in one call"));
        }
        let taken = state.started + state.declined + state.refused + state.duplicates;
        if signal.id.is_empty() {
            signal.id = given_id(taken + 1);
        } else {
            may_name(&signal.id)?;
        }
        signal.sent_at = self.now;
        let names = Map::from([("signal".into(), signal_value(&signal))]);
        let outcome = self.start_by(
            &made,
            Found {
                kind: "webhook",
                names,
                signals: vec![Arc::new(signal)],
                used: Vec::new(),
            },
        );
        let (outcome, run, error) = match outcome {
            Outcome::Started(run) => ("started", Some(run), None),
            Outcome::Duplicate(run) => ("duplicate", run, None),
            Outcome::Declined => ("declined", None, None),
            Outcome::Failed(error) => ("refused", None, Some(error)),
        };
        let text = |text: Option<String>| text.map_or(Value::Null, Value::string);
        Ok(Value::map([
            ("outcome", Value::string(outcome)),
            ("run", text(run.map(|run| run.to_string()))),
            ("error", text(error)),
        ]))
    }

    /// Starts a run with what was found, unless it is the same as before, or is not wanted.
    fn start_by(&mut self, made: &Made, found: Found) -> Outcome {
        let refused = match self.made_of(made, &found) {
            Ok((start, same)) if self.trigger.state.room.is_some() => {
                match self.hold(&start, found.used.clone(), same) {
                    Ok(()) => return Outcome::Started(start.id),
                    Err(full) => Outcome::Failed(full),
                }
            }
            Ok((start, same)) => {
                let run = start.id;
                self.emit(Fact::Started(Started {
                    scheduled_at: start.scheduled_at.0,
                    run: run.to_bytes().to_vec(),
                    due: false,
                    class: StartClass::Regular as u32,
                    used: found.used,
                    seen: same.hash,
                    seen_id: same.id,
                    waited: false,
                }));
                self.messages
                    .push((run.into(), Message::StartTriggered(Box::new(start))));
                return Outcome::Started(run);
            }
            Err(refused) => refused,
        };
        let error = match &refused {
            Outcome::Failed(error) => error.clone(),
            Outcome::Declined | Outcome::Started(_) | Outcome::Duplicate(_) => String::new(),
        };
        self.emit(if let Outcome::Duplicate(_) = refused {
            Fact::Duplicate(Used {
                numbers: found.used,
            })
        } else {
            Fact::Declined(Declined {
                due: None,
                error,
                used: found.used,
            })
        });
        refused
    }

    fn made_of(&self, made: &Made, found: &Found) -> Starting {
        let state = &self.trigger.state;
        let hops = found.signals.iter().map(|signal| signal.hops).max();
        let hops = hops.unwrap_or(0);
        if hops > limits::HOPS {
            return Err(Outcome::Failed(format!(
                "more than {} runs in a row were each started by a signal of the one before",
                limits::HOPS
            )));
        }
        let senders: BTreeSet<&str> = found.signals.iter().map(|signal| &*signal.by).collect();
        let by = senders.into_iter().collect::<Vec<_>>().join(", ");
        let timezone: Arc<str> = state.timezone.as_str().into();
        let run = Start {
            namespace: self.of.namespace,
            workflow: self.of.workflow,
            kind: found.kind,
            name: self.of.name,
            by: &by,
            created_at: self.now,
            scheduled_at: self.now,
            interval: (self.now, self.now),
            timezone: &timezone,
        };
        let mut names = found.names.clone();
        names.insert("run".into(), run.value(Value::Null));
        let scope = MapScope(names);
        let ids: Vec<&str> = found.signals.iter().map(|signal| &*signal.id).collect();
        let ids = ids.join("\n");
        let same = Same::of(made, found, (&scope, &ids))?;
        let kept = i64::try_from(limits::TOPIC_KEEPS.as_micros()).unwrap_or(i64::MAX);
        let since = self.now.0.saturating_sub(kept);
        let known = |known: &&Seen| known.at > since && same.is(known);
        if let Some(known) = state.seen.iter().find(known) {
            let run = Some(&known.run).filter(|run| !run.is_empty());
            return Err(Outcome::Duplicate(run.map(|run| run_id(run))));
        }
        let params = params(made, &scope).map_err(Outcome::Failed)?;
        let params = params.ok_or(Outcome::Declined)?;
        let generation = state.generation.to_string();
        // The time is part of it: what has the same id again, because it is remembered no longer, is
        // another run to the last letter. That the same starts none is seen before.
        let now = self.now.0.to_string();
        let names = [
            self.of.namespace,
            self.of.workflow,
            self.of.name,
            &*generation,
            &ids,
            &now,
        ];
        let start = StartTriggered {
            id: derived_id(self.now, self.of.key.shard(), &names),
            from: self.of.key.clone(),
            namespace: self.of.namespace.clone(),
            workflow: self.of.workflow.clone(),
            version: Some(state.version),
            params,
            kind: found.kind,
            name: self.of.name.clone(),
            by,
            scheduled_at: self.now,
            interval: (self.now, self.now),
            timezone,
            hops,
            class: StartClass::Regular,
            backfill: None,
            waited: false,
        };
        Ok((start, same))
    }
}

/// How far apart signals that are joined may have been sent.
fn within(of: &SignalTrigger) -> jiff::SignedDuration {
    let kept = || jiff::SignedDuration::try_from(limits::TOPIC_KEEPS).unwrap_or_default();
    of.within.unwrap_or_else(kept)
}

impl Trigger {
    /// When nothing can be joined any more with a signal that waits.
    fn waits_until(&self, pending: &Pending) -> Time {
        let spec = self.made.as_ref().map(|made| &made.spec.kind);
        match spec {
            Some(TriggerKind::Signal(of)) => {
                let last = Time(pending.signal.sent_at).plus(within(of));
                Time(last.0.saturating_add(1))
            }
            _ => Time(i64::MAX),
        }
    }

    /// When the first of the signals that wait does so no longer.
    pub(super) fn next_expiry(&self) -> Option<Time> {
        let pending = self.state.pending.iter();
        pending.map(|pending| self.waits_until(pending)).min()
    }
}

/// What a signal is joined by; none if it has not what `key` asks for.
fn key_of(
    source: &SignalSource,
    signal: &Signal,
    scope: &MapScope,
) -> Result<Option<Value>, String> {
    match &source.key {
        None => Ok(Some(signal.key.clone())),
        Some(key) => match key.eval(scope, Budget::default()) {
            Ok(value) => Ok((!value.is_null()).then_some(value)),
            Err(EvalError::Missing(_)) => Ok(None),
            Err(error) => Err(format!("`signals.{}.key`: {error}", source.alias)),
        },
    }
}
