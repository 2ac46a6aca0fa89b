//! Signals, people and breakpoints: nothing that was sent or answered is lost, and nobody waits for
//! what is there.

use kapell_api::task::Place;
use kapell_engine::event::{Event, Fact};
use kapell_engine::run::Request;
use kapell_engine::run::waiting::Waiting;
use kapell_engine::topic::{Topic, signal_value};
use kapell_engine::{Ask, run};
use kapell_expr::{Budget, MapScope, Value};
use kapell_model::spec::Verb;
use kapell_model::{EntityKey, RunId, Time};
use kapell_node::{ClientRequest, Entity};

use super::{Checks, Shadow, Verdict, approvals, wrong};
use crate::rng::Rng;

fn topic_key(shadow: &Shadow, name: &str) -> EntityKey {
    EntityKey::Topic {
        namespace: shadow.state.meta.namespace.clone(),
        name: name.into(),
    }
}

impl Checks {
    pub(super) fn topic(&self, key: &EntityKey) -> Option<&Topic> {
        match self.smalls.get(key) {
            Some(Entity::Topic(topic)) => Some(topic),
            _ => None,
        }
    }

    /// Signals that a run says it sent, to be looked for once the whole commit was read.
    pub(super) fn note_sent(&mut self, id: RunId, event: &Event) {
        let (Some(shadow), Some(Fact::SignalsSent(sent))) = (self.runs.get(&id), &event.fact)
        else {
            return;
        };
        let sent = sent.sent.iter();
        let sent: Vec<_> = sent
            .map(|sent| (topic_key(shadow, &sent.signal), sent.id.clone()))
            .collect();
        self.sent.extend(sent);
    }

    /// A signal that a step sent is kept by the commit that says so; of several lanes later.
    pub(super) fn sent_kept(&mut self) -> Verdict {
        if self.spread {
            let sent = std::mem::take(&mut self.sent);
            let open = |(key, id): &(EntityKey, String)| !self.keeps(key, id);
            self.sent = sent.into_iter().filter(open).collect();
            return Ok(());
        }
        self.sent_settled()
    }

    /// Every signal that a step sent is kept.
    pub(super) fn sent_settled(&mut self) -> Verdict {
        for (key, id) in std::mem::take(&mut self.sent) {
            if !self.keeps(&key, &id) {
                return wrong(
                    "signals",
                    format!("{id} was sent and {key:?} has not kept it"),
                );
            }
        }
        Ok(())
    }

    fn keeps(&self, key: &EntityKey, id: &str) -> bool {
        self.topic(key)
            .is_some_and(|topic| topic.kept().any(|signal| *signal.id == *id))
    }

    /// A client is told that its signal was taken: it is durable.
    pub(super) fn signal_taken(&self, request: &ClientRequest, answer: &Value) -> Verdict {
        let ClientRequest::Ask {
            key,
            ask: Ask::Send(_),
        } = request
        else {
            return Ok(());
        };
        let id = answer.as_map().and_then(|answer| answer.get("id").cloned());
        let id = id.as_ref().and_then(Value::as_str).unwrap_or_default();
        if self.keeps(key, id) {
            return Ok(());
        }
        wrong(
            "signals",
            format!("`{id}` was taken and {key:?} has not kept it"),
        )
    }

    /// An answer that was taken counts: the question is over, or holds it.
    pub(super) fn answer_counts(&self, request: &ClientRequest) -> Verdict {
        let ClientRequest::Run {
            run,
            request: Request::Answer(said),
        } = request
        else {
            return Ok(());
        };
        let Some(shadow) = self.runs.get(run) else {
            return wrong("approval", format!("{run} was answered and is not durable"));
        };
        let place = shadow.state.find(&shadow.plan, &said.step);
        let place = place.filter(|place| {
            // The iteration that it was about may be over.
            shadow.state.path(&shadow.plan, *place) == said.step
        });
        let waits = place.and_then(|place| shadow.state.waits.get(&place));
        match waits {
            // Of several lanes the answer takes its time, and another question may be asked by then.
            Some(Waiting::Approval { given, .. })
                if !self.spread
                    && shadow.generation == 0
                    && !given.iter().any(|given| *given.by == *said.by) =>
            {
                let detail = format!("{run} forgot what `{}` said to `{}`", said.by, said.step);
                wrong("approval", detail)
            }
            _ => Ok(()),
        }
    }

    /// Nothing is under way: who waits for a signal is told of it, has not been sent it, and nobody else
    /// is told.
    pub(super) fn waits_for_nothing_there(&self) -> Verdict {
        let mut listening: std::collections::BTreeMap<EntityKey, usize> =
            std::collections::BTreeMap::new();
        for (id, shadow) in &self.runs {
            if shadow.state.ended() && !shadow.state.waits.is_empty() {
                return wrong("signals", format!("{id} has ended and waits"));
            }
            for (place, waits) in &shadow.state.waits {
                let Waiting::Signal { signal, since } = waits else {
                    continue;
                };
                let key = topic_key(shadow, signal);
                let Some(topic) = self.topic(&key) else {
                    return wrong(
                        "signals",
                        format!("{id} waits for {key:?}, which is not there"),
                    );
                };
                if !topic.tells(&(*id).into(), Some(*place)) {
                    return wrong("signals", format!("{key:?} does not tell {id}"));
                }
                if let Some(there) = wanted(shadow, *place, *since, topic) {
                    let detail = format!("{id} waits for {key:?}, which has {there} for it");
                    return wrong("signals", detail);
                }
                *listening.entry(key).or_default() += 1;
            }
        }
        for (key, small) in &self.smalls {
            let Entity::Topic(topic) = small else {
                continue;
            };
            let expected = listening.get(key).copied().unwrap_or(0);
            if topic.runs_that_listen() != expected {
                let detail = format!(
                    "{} runs listen to {key:?} and {expected} wait for it",
                    topic.runs_that_listen()
                );
                return wrong("signals", detail);
            }
        }
        Ok(())
    }

    /// What somebody may say to a unit that waits for a person.
    pub(crate) fn any_answer(&self, rng: &mut Rng) -> Option<ClientRequest> {
        let waits: Vec<(RunId, String, &Waiting)> = self
            .runs
            .iter()
            .flat_map(|(id, shadow)| {
                let waits = shadow.state.waits.iter();
                waits.map(|(place, waits)| (*id, shadow.state.path(&shadow.plan, *place), waits))
            })
            .collect();
        if waits.is_empty() {
            return None;
        }
        let (run, step, waits) = rng.pick(&waits).clone();
        let request = match waits {
            Waiting::Signal { .. } => return None,
            Waiting::Approval { .. } => {
                let by = format!("p{}", rng.below(4));
                let (input, text) = approvals::some_input(rng);
                approvals::said(by, step, rng.chance(700), (input, text))
            }
            Waiting::Break { .. } => Request::Continue {
                by: "sim".to_owned(),
                step: rng.chance(700).then_some(step),
                stepping: rng.chance(200),
            },
        };
        Some(ClientRequest::Run { run, request })
    }

    /// What people do in the end with what waits for them, or for signals that nobody sends.
    pub(super) fn care_for_waits(&self, requests: &mut Vec<ClientRequest>) {
        let by = || "care".to_owned();
        for (id, shadow) in &self.runs {
            let mut ask = |request| requests.push(ClientRequest::Run { run: *id, request });
            if shadow.state.stepping || !shadow.state.breaks.is_empty() {
                ask(Request::Breakpoints {
                    by: by(),
                    breakpoints: Vec::new(),
                    stepping: false,
                });
            }
            for (place, waits) in &shadow.state.waits {
                let step = shadow.state.path(&shadow.plan, *place);
                ask(match waits {
                    Waiting::Signal { .. } => Request::Skip {
                        by: by(),
                        groups: Vec::new(),
                        admin: true,
                        step,
                        below: Vec::new(),
                    },
                    Waiting::Approval { given, .. } => {
                        let by = format!("care{}", given.len());
                        let input = approvals::right_input(shadow, *place);
                        approvals::said(by, step, true, (input, false))
                    }
                    Waiting::Break { .. } => Request::Continue {
                        by: by(),
                        step: Some(step),
                        stepping: false,
                    },
                });
            }
        }
    }
}

pub(super) fn verb(shadow: &Shadow, place: Place) -> Option<&Verb> {
    let scope = shadow.state.scopes.get(&place.scope)?;
    let graph = shadow.plan.graphs.get(scope.graph as usize)?;
    Some(&graph.steps.get(usize::from(place.step))?.step.verb)
}

/// The id of a kept signal that a unit waits for.
fn wanted(shadow: &Shadow, place: Place, since: Time, topic: &Topic) -> Option<String> {
    let Some(Verb::Await(wanted)) = verb(shadow, place) else {
        return None;
    };
    let found = topic.kept().find(|signal| {
        signal.sent_at >= since
            && wanted.matches.as_ref().is_none_or(|matches| {
                let names = [
                    ("signal".into(), signal_value(signal)),
                    ("params".into(), shadow.state.meta.params.clone()),
                ];
                let scope = MapScope(names.into());
                matches.eval(&scope, Budget::default()) == Ok(Value::Bool(true))
            })
    });
    found.map(|signal| signal.id.to_string())
}

/// Breakpoints as somebody may set them.
pub(crate) fn breakpoints(rng: &mut Rng) -> Request {
    use kapell_engine::event::BreakAt;
    let step = rng
        .chance(700)
        .then(|| format!("s{:02}", 1 + rng.below(6)).into());
    let at = *rng.pick(&[BreakAt::Before, BreakAt::After, BreakAt::OnFailure]);
    let when = rng.chance(300).then(|| "params.n > 1".into());
    Request::Breakpoints {
        by: "sim".to_owned(),
        breakpoints: vec![run::waiting::Break {
            step,
            at,
            when,
            by: None,
        }],
        stepping: rng.chance(100),
    }
}
