//! What people ask, as requests: of what there is by the histories.

use std::collections::BTreeSet;
use std::sync::Arc;

use kapell_engine::Request;
use kapell_engine::backfill::{AskBackfill, Only};
use kapell_engine::message::Signal;
use kapell_engine::run_queue::{Activate, Bounds, Change, Mark};
use kapell_expr::Value;
use kapell_model::{EntityKey, Time};
use kapell_node::{ClientRequest, StartRun};

use crate::check::{Checks, breakpoints};
use crate::rng::Rng;
use crate::scenario::{Ask, Steer};
use crate::world::{BEGINNING, NAMESPACE};

/// Makes requests of what people ask.
pub(crate) struct Asker<'a> {
    pub(crate) checks: &'a Checks,
    /// Definitions.
    pub(crate) workflows: &'a [serde_json::Value],
    pub(crate) wall: Time,
    /// Who asks: what was refused is recognised by that.
    pub(crate) by: String,
}

/// Something from outside; some have an id that others have too.
fn from_outside(rng: &mut Rng, name: Arc<str>, n: i64, by: &str) -> Signal {
    let known = rng.chance(300).then(|| format!("k{}", rng.below(3)));
    let key = rng.chance(700).then_some(Value::Int(n % 2));
    Signal {
        id: known.unwrap_or_default().into(),
        name,
        key: key.unwrap_or_default(),
        payload: Value::map([("n", Value::Int(n)), ("ok", Value::Bool(rng.chance(700)))]),
        sent_at: Time::ZERO,
        hops: 0,
        by: by.into(),
    }
}

/// A signal of a topic.
fn signal(dice: u64, n: i64, by: &str) -> ClientRequest {
    let mut rng = Rng::new(dice);
    let name: Arc<str> = match rng.below(5) {
        number @ 0..=2 => format!("t{number}"),
        number => format!("x{}", number - 3),
    }
    .into();
    let signal = from_outside(&mut rng, name.clone(), n, by);
    ClientRequest::Ask {
        key: EntityKey::Topic {
            namespace: NAMESPACE.into(),
            name,
        },
        ask: kapell_engine::Ask::Send(Box::new(signal)),
    }
}

impl Asker<'_> {
    /// Something that people ask of what starts runs by itself.
    fn to_trigger(&self, rng: &mut Rng) -> Option<ClientRequest> {
        let keys = self.checks.starters();
        if keys.is_empty() {
            return None;
        }
        let key = rng.pick(&keys).clone();
        let by = "sim".to_owned();
        let backfill = matches!(key, EntityKey::Backfill { .. });
        let ask = match (backfill, rng.below(6)) {
            (false, 0) => kapell_engine::Ask::PauseTrigger { by },
            (false, 1 | 2) => kapell_engine::Ask::ResumeTrigger { by },
            (false, _) => {
                let only = [Only::Missing, Only::Failed, Only::All];
                let from = Time(BEGINNING + rng.between(-3_600_000_000, 3_600_000_000));
                let id = rng.chance(300).then(|| format!("given{}", rng.below(3)));
                kapell_engine::Ask::Backfill(Box::new(AskBackfill {
                    id: id.unwrap_or_default().into(),
                    from,
                    until: self.wall,
                    only: *rng.pick(&only),
                    newest_first: rng.chance(300),
                    concurrency: u32::try_from(rng.between(1, 4)).ok()?,
                    by,
                }))
            }
            (true, 0) => kapell_engine::Ask::PauseBackfill { by },
            (true, 1) => kapell_engine::Ask::CancelBackfill { by },
            (true, _) => kapell_engine::Ask::ResumeBackfill { by },
        };
        Some(ClientRequest::Ask { key, ask })
    }

    fn break_all(&self, workflow: usize, rng: &mut Rng) -> Option<ClientRequest> {
        let name = self.workflows.get(workflow)?.get("workflow")?;
        let Request::Breakpoints { breakpoints, .. } = breakpoints(rng) else {
            return None;
        };
        let change = match rng.below(3) {
            0 => Change {
                breaks_of: Some((1, breakpoints)),
                ..Change::default()
            },
            1 => Change {
                breaks: Some(Vec::new()),
                ..Change::default()
            },
            _ => Change {
                breaks: Some(breakpoints),
                ..Change::default()
            },
        };
        Some(ClientRequest::Ask {
            key: EntityKey::RunQueue {
                namespace: NAMESPACE.into(),
                workflow: name.as_str()?.into(),
                key: "".into(),
            },
            ask: kapell_engine::Ask::Change(Box::new(change)),
        })
    }

    #[expect(
        clippy::too_many_lines,
        reason = "one arm for each thing that is asked"
    )]
    pub(crate) fn request(&self, ask: &Ask) -> Option<ClientRequest> {
        let by = self.by.clone();
        Some(match *ask {
            Ask::Start {
                workflow,
                n,
                key,
                version,
                by: person,
            } => {
                let workflow = self.workflows.get(workflow)?.get("workflow")?.as_str()?;
                ClientRequest::Start(Box::new(StartRun {
                    namespace: NAMESPACE.into(),
                    workflow: workflow.into(),
                    version,
                    params: Value::map([("n", Value::Int(n))]),
                    text: false,
                    by: person.map_or(by, |person| format!("p{person}")),
                    scheduled_at: None,
                    priority: None,
                    idempotency_key: key.map(|key| key.to_string()),
                }))
            }
            Ask::Cancel { dice, now } => self.to_run(dice, |_| {
                Some(Request::Cancel {
                    by,
                    reason: "no more".to_owned(),
                    now,
                })
            })?,
            Ask::Pause { dice } => self.to_run(dice, |_| Some(Request::Pause { by }))?,
            Ask::Resume { dice } => self.to_run(dice, |_| Some(Request::Resume { by }))?,
            Ask::Retry { dice } => self.to_run(dice, |_| Some(Request::Retry { by }))?,
            Ask::Priority { dice } => self.to_run(dice, |rng| {
                Some(Request::Priority {
                    by,
                    priority: u8::try_from(rng.below(101)).ok()?,
                })
            })?,
            Ask::Restart { dice } => {
                let run = self.checks.any_run(&mut Rng::new(dice))?;
                let from = self.checks.any_step(run, &mut Rng::new(dice), true)?;
                self.to_run(dice, |_| Some(Request::Restart { by, from }))?
            }
            Ask::Skip { dice } => {
                let run = self.checks.any_run(&mut Rng::new(dice))?;
                let step = self.checks.any_step(run, &mut Rng::new(dice), false)?;
                self.to_run(dice, |_| Some(skip(by, dice, step)))?
            }
            Ask::SetOutput { dice } => {
                let run = self.checks.any_run(&mut Rng::new(dice))?;
                let step = self.checks.any_step(run, &mut Rng::new(dice), false)?;
                let output = Value::map([("n", Value::Int(1)), ("ok", Value::Bool(true))]);
                self.to_run(dice, |_| Some(set_output(by, dice, step, output)))?
            }
            Ask::Signal { dice, n } => signal(dice, n, &by),
            Ask::Answer { dice } => self.checks.any_answer(&mut Rng::new(dice))?,
            Ask::Break { dice } => self.to_run(dice, |rng| Some(breakpoints(rng)))?,
            Ask::BreakAll { workflow, dice } => self.break_all(workflow, &mut Rng::new(dice))?,
            Ask::SetParam { dice, n } => self.to_run(dice, |_| {
                Some(Request::SetParam {
                    by,
                    name: "n".into(),
                    value: Value::Int(n),
                    text: false,
                })
            })?,
            Ask::Evaluate { dice } => {
                let mut rng = Rng::new(dice);
                let run = self.checks.any_run(&mut rng)?;
                let step = self.checks.any_step(run, &mut rng, false);
                let expressions = ["params.n + 1", "steps", "run.status", "nothing.there"];
                ClientRequest::Evaluate {
                    run,
                    step: step.filter(|_| rng.chance(800)).unwrap_or_default(),
                    expression: (*rng.pick(&expressions)).to_owned(),
                }
            }
            Ask::Deliver { dice, n } => {
                let mut rng = Rng::new(dice);
                let hooks = self.checks.webhooks();
                let key = (!hooks.is_empty()).then(|| rng.pick(&hooks).clone())?;
                let signal = from_outside(&mut rng, "call".into(), n, &by);
                let ask = kapell_engine::Ask::Deliver(Box::new(signal));
                ClientRequest::Ask { key, ask }
            }
            Ask::Activate { workflow, version } => self.activation(workflow, version)?,
            Ask::Steer { workflow, how } => self.steering(workflow, how)?,
            Ask::Trigger { dice } => self.to_trigger(&mut Rng::new(dice))?,
            Ask::Register { .. } => return None,
            Ask::Fork { dice, n, version } => {
                let run = self.checks.any_run(&mut Rng::new(dice))?;
                let from = self.checks.any_step(run, &mut Rng::new(dice), true)?;
                ClientRequest::Fork {
                    run,
                    from,
                    params: n.map_or(Value::Null, |n| Value::map([("n", Value::Int(n))])),
                    text: false,
                    version,
                    by,
                    idempotency_key: None,
                }
            }
            Ask::View { dice } => ClientRequest::View {
                run: self.checks.any_run(&mut Rng::new(dice))?,
            },
            Ask::Dismiss { dice } => ClientRequest::Dismiss {
                run: self.checks.any_run(&mut Rng::new(dice))?,
            },
        })
    }

    fn queue_of(&self, workflow: usize) -> Option<(Arc<str>, EntityKey)> {
        let name = self.workflows.get(workflow)?.get("workflow")?;
        let name: Arc<str> = name.as_str()?.into();
        let key = EntityKey::RunQueue {
            namespace: NAMESPACE.into(),
            workflow: name.clone(),
            key: "".into(),
        };
        Some((name, key))
    }

    fn activation(&self, workflow: usize, version: u32) -> Option<ClientRequest> {
        let (name, key) = self.queue_of(workflow)?;
        let plan = self.checks.plans.get(&(name, version))?;
        let activate = Activate {
            version,
            triggers: plan.spec.triggers.clone(),
            timezone: plan.spec.timezone.clone(),
            rule: plan.rule,
        };
        let ask = kapell_engine::Ask::Activate(Box::new(activate));
        Some(ClientRequest::Ask { key, ask })
    }

    fn steering(&self, workflow: usize, how: Steer) -> Option<ClientRequest> {
        let (name, key) = self.queue_of(workflow)?;
        let by = || Some("sim".to_owned());
        let mut change = Change::default();
        match how {
            Steer::PauseWorkflow => change.paused = Some(by()),
            Steer::ResumeWorkflow => change.paused = Some(None),
            Steer::PauseAll | Steer::ResumeAll => {
                let mark = Mark {
                    by: "sim".to_owned(),
                    at: self.wall.0,
                };
                change.held = Some(matches!(how, Steer::PauseAll).then_some(mark));
                let all = (0..self.workflows.len()).filter_map(|of| self.queue_of(of));
                let keys: BTreeSet<EntityKey> = all.map(|(_, key)| key).collect();
                let ask = |key| (key, kapell_engine::Ask::Change(Box::new(change.clone())));
                return Some(ClientRequest::AskTogether(
                    keys.into_iter().map(ask).collect(),
                ));
            }
            Steer::Override { mode, limit } => {
                let bounds = Bounds {
                    mode,
                    limit,
                    total: None,
                };
                change.strategy = Some(Some(bounds));
                change.rule = Some(bounds.rule());
            }
            Steer::Default => {
                let plans = &self.checks.plans;
                let newest = plans.get(&(name.clone(), 2)).or(plans.get(&(name, 1)));
                let rule = newest?.rule;
                change.strategy = Some(None);
                change.rule = Some(rule.unwrap_or_default());
            }
            Steer::Deactivate => change.deactivate = true,
            Steer::Reactivate => return self.activation(workflow, 1),
            Steer::Delete => change.delete = true,
        }
        let ask = kapell_engine::Ask::Change(Box::new(change));
        Some(ClientRequest::Ask { key, ask })
    }

    fn to_run(
        &self,
        dice: u64,
        what: impl FnOnce(&mut Rng) -> Option<Request>,
    ) -> Option<ClientRequest> {
        let mut rng = Rng::new(dice);
        let run = self.checks.any_run(&mut rng)?;
        Some(ClientRequest::Run {
            run,
            request: what(&mut rng)?,
        })
    }
}

/// A step skipped, by an admin in half of all cases.
fn skip(by: String, dice: u64, step: String) -> Request {
    Request::Skip {
        by,
        groups: Vec::new(),
        admin: dice.is_multiple_of(2),
        step,
        below: Vec::new(),
    }
}

/// An output given by hand, by an admin in half of all cases.
fn set_output(by: String, dice: u64, step: String, output: Value) -> Request {
    Request::SetOutput {
        by,
        groups: Vec::new(),
        admin: dice.is_multiple_of(2),
        step,
        below: Vec::new(),
        output,
    }
}
