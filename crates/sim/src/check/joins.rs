//! Signals that are joined: one of each source with an equal key, the oldest that is not used yet, each
//! once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kapell_engine::message::Signal;
use kapell_engine::topic::signal_value;
use kapell_engine::trigger::{Fact, TriggerEvent};
use kapell_expr::{Budget, Map, MapScope, Value};
use kapell_model::spec::{self, SignalSource, SignalTrigger, TriggerKind};
use kapell_model::{EntityKey, RunId, Time, limits};

use super::triggers::{Wanted, scope_of, takes};
use super::{Checks, Verdict, wrong};

/// Signals of one trigger that wait, oldest first.
pub(super) type Waiting = Vec<Waits>;

/// A signal that waits.
pub(super) struct Waits {
    source: usize,
    key: Vec<u8>,
    signal: Arc<Signal>,
}

type Facts = [(TriggerEvent, Option<Arc<spec::Trigger>>)];

/// The source that takes a signal, and what it is joined by; none if no source does, or it has no key.
fn waits(of: &SignalTrigger, signal: &Signal) -> Option<(usize, Vec<u8>)> {
    let scope = scope_of(signal);
    let mut sources = of.sources.iter().enumerate();
    let (place, source) = sources.find(|(_, source)| takes(source, signal, &scope))?;
    key_of(source, signal, &scope).map(|key| (place, key))
}

fn key_of(source: &SignalSource, signal: &Signal, scope: &MapScope) -> Option<Vec<u8>> {
    match &source.key {
        None => Some(signal.key.to_stored()),
        Some(key) => match key.eval(scope, Budget::default()) {
            // A failure is said, and waits for nothing.
            Ok(Value::Null) | Err(_) => None,
            Ok(key) => Some(key.to_stored()),
        },
    }
}

impl Checks {
    /// Each signal that came and that a source takes waits, if only for a moment; nothing else does.
    pub(super) fn all_wait(
        (key, of): (&EntityKey, &SignalTrigger),
        steady: bool,
        facts: &Facts,
        came: &BTreeMap<Arc<str>, Vec<Arc<Signal>>>,
    ) -> Verdict {
        if !steady {
            return Ok(());
        }
        let topics: BTreeSet<&Arc<str>> = of.sources.iter().map(|source| &source.signal).collect();
        let came = topics
            .into_iter()
            .filter_map(|topic| came.get(topic))
            .flatten();
        let came = came.filter_map(|signal| {
            let (place, key) = waits(of, signal)?;
            Some((signal.name.to_string(), signal.id.to_string(), place, key))
        });
        let came: BTreeSet<_> = came.collect();
        let taken = facts.iter().filter_map(|(event, _)| match &event.fact {
            Some(Fact::Waits(pending)) => {
                let place = pending.source as usize;
                let (name, id) = (pending.signal.name.clone(), pending.signal.id.clone());
                Some((name, id, place, pending.key.clone()))
            }
            _ => None,
        });
        let taken: BTreeSet<_> = taken.collect();
        if came == taken {
            return Ok(());
        }
        let detail = format!("{key:?} takes {taken:?}, and these came: {came:?}");
        wrong("joins", detail)
    }

    /// What is joined is joined as soon as there is one of each, with the oldest.
    pub(super) fn joined(
        &mut self,
        key: &EntityKey,
        facts: &Facts,
        made: &BTreeMap<RunId, String>,
    ) -> Verdict {
        let mut expected = None;
        for (event, spec) in facts {
            match &event.fact {
                Some(Fact::Set(set)) if set.anew => {
                    self.starts.joins.remove(key);
                }
                Some(Fact::Removed(_)) => {
                    self.starts.joins.remove(key);
                }
                Some(Fact::Waits(pending)) => {
                    if expected.is_some() {
                        return wrong("joins", format!("{key:?} joins nothing with {expected:?}"));
                    }
                    let waiting = self.starts.joins.entry(key.clone()).or_default();
                    waiting.push(Waits {
                        source: pending.source as usize,
                        key: pending.key.clone(),
                        signal: Arc::new(Signal::from(&pending.signal)),
                    });
                    let of = spec.as_ref().and_then(|spec| match &spec.kind {
                        TriggerKind::Signal(of) => Some(of),
                        TriggerKind::Schedule(_) | TriggerKind::Webhook(_) => None,
                    });
                    expected = of.and_then(|of| first_of_each(of, waiting, &pending.key, event.at));
                }
                Some(Fact::Started(_) | Fact::Duplicate(_)) => {
                    let taken = expected.take();
                    let Some(spec) = spec else { continue };
                    self.uses((key, spec), taken, event, made)?;
                }
                Some(Fact::Declined(_)) => {
                    // One whose key cannot be looked at is declined by itself.
                    let (Some(taken), Some(spec)) = (expected.take(), spec) else {
                        continue;
                    };
                    self.uses((key, spec), Some(taken), event, made)?;
                }
                _ => {}
            }
        }
        match expected {
            None => Ok(()),
            Some(left) => wrong("joins", format!("{key:?} joins nothing with {left:?}")),
        }
    }

    fn uses(
        &mut self,
        (key, spec): (&EntityKey, &Arc<spec::Trigger>),
        taken: Option<Vec<usize>>,
        event: &TriggerEvent,
        made: &BTreeMap<RunId, String>,
    ) -> Verdict {
        let of = match &spec.kind {
            TriggerKind::Signal(of) if of.sources.len() > 1 => of,
            // It was something else before this commit.
            TriggerKind::Signal(_) | TriggerKind::Schedule(_) | TriggerKind::Webhook(_) => {
                return Ok(());
            }
        };
        let Some(mut taken) = taken else {
            return wrong("joins", format!("{key:?} joins what is not all there"));
        };
        let waiting = self.starts.joins.entry(key.clone()).or_default();
        let signals: Vec<Arc<Signal>> = taken
            .iter()
            .filter_map(|place| waiting.get(*place).map(|waits| waits.signal.clone()))
            .collect();
        taken.sort_unstable();
        for place in taken.into_iter().rev() {
            waiting.remove(place);
        }
        let names = of.sources.iter().map(|source| source.alias.clone());
        let names = names.zip(signals.iter().map(|signal| signal_value(signal)));
        let ids: Vec<&str> = signals.iter().map(|signal| &*signal.id).collect();
        let wanted = Wanted {
            key,
            spec,
            scope: MapScope(Map::from([("signals".into(), Value::map(names))])),
            from: ids.join(","),
        };
        self.right_join(&wanted, event, made)
    }
}

/// The places of the oldest of each source with this key, if none is missing.
fn first_of_each(of: &SignalTrigger, waiting: &Waiting, key: &[u8], at: i64) -> Option<Vec<usize>> {
    let within = match of.within {
        Some(within) => i64::try_from(within.as_micros()),
        None => i64::try_from(limits::TOPIC_KEEPS.as_micros()),
    };
    let since = Time(at.saturating_sub(within.unwrap_or(i64::MAX)));
    let first = |source: usize| {
        waiting.iter().position(|waits| {
            waits.source == source && waits.key == key && waits.signal.sent_at >= since
        })
    };
    (0..of.sources.len()).map(first).collect()
}
