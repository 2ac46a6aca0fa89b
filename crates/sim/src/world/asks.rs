//! What people ask, and what they are answered.

use std::sync::Arc;

use kapell_engine::Request;
use kapell_engine::backfill::{AskBackfill, Only};
use kapell_engine::message::Signal;
use kapell_engine::run_queue::{Activate, Change};
use kapell_expr::Value;
use kapell_model::{EntityKey, Time};
use kapell_node::lane::Input;
use kapell_node::{Answer, ClientRequest, ReplyId, StartRun};

use super::brief::brief_answer;
use super::{Asked, BEGINNING, Happening, NAMESPACE, World};
use crate::check::breakpoints;
use crate::rng::Rng;
use crate::scenario::Ask;

/// Something from outside; some have an id that others have too.
fn from_outside(rng: &mut Rng, name: Arc<str>, n: i64) -> Signal {
    let known = rng.chance(300).then(|| format!("k{}", rng.below(3)));
    let key = rng.chance(700).then(|| Value::Int(n % 2));
    Signal {
        id: known.unwrap_or_default().into(),
        name,
        key: key.unwrap_or_default(),
        payload: Value::map([("n", Value::Int(n)), ("ok", Value::Bool(rng.chance(700)))]),
        sent_at: Time::ZERO,
        hops: 0,
        by: "sim".into(),
    }
}

/// A signal of a topic.
fn signal(dice: u64, n: i64) -> ClientRequest {
    let mut rng = Rng::new(dice);
    let name: Arc<str> = match rng.below(5) {
        number @ 0..=2 => format!("t{number}"),
        number => format!("x{}", number - 3),
    }
    .into();
    let signal = from_outside(&mut rng, name.clone(), n);
    ClientRequest::Ask {
        key: EntityKey::Topic {
            namespace: NAMESPACE.into(),
            name,
        },
        ask: kapell_engine::Ask::Send(Box::new(signal)),
    }
}

impl World<'_> {
    pub(super) fn ask(&mut self, ask: &Ask) {
        if self.lane.is_none() {
            self.plan(1_000_000, Happening::AskAgain(ask.clone()));
            return;
        }
        if let Some(request) = self.request(ask) {
            self.send(request);
        }
    }

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
                    until: self.wall(),
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
        let name = self.scenario.workflows.get(workflow)?.get("workflow")?;
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

    pub(super) fn send(&mut self, request: ClientRequest) {
        self.replies += 1;
        let reply = ReplyId(self.replies);
        self.asked.insert(
            reply,
            Asked {
                request: request.clone(),
                at: self.now,
            },
        );
        self.give_lane(Input::Request(reply, request));
    }

    #[expect(
        clippy::too_many_lines,
        reason = "one arm for each thing that is asked"
    )]
    fn request(&mut self, ask: &Ask) -> Option<ClientRequest> {
        let by = "sim".to_owned();
        Some(match *ask {
            Ask::Start {
                workflow,
                n,
                key,
                version,
                by: person,
            } => {
                let workflow = self
                    .scenario
                    .workflows
                    .get(workflow)?
                    .get("workflow")?
                    .as_str()?;
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
                self.to_run(dice, |_| Some(Request::Skip { by, step }))?
            }
            Ask::SetOutput { dice } => {
                let run = self.checks.any_run(&mut Rng::new(dice))?;
                let step = self.checks.any_step(run, &mut Rng::new(dice), false)?;
                let output = Value::map([("n", Value::Int(1)), ("ok", Value::Bool(true))]);
                self.to_run(dice, |_| Some(Request::SetOutput { by, step, output }))?
            }
            Ask::Signal { dice, n } => signal(dice, n),
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
                let signal = from_outside(&mut rng, "call".into(), n);
                let ask = kapell_engine::Ask::Deliver(Box::new(signal));
                ClientRequest::Ask { key, ask }
            }
            Ask::Activate { workflow, version } => {
                let name = self.scenario.workflows.get(workflow)?.get("workflow")?;
                let name: Arc<str> = name.as_str()?.into();
                let plan = self.checks.plans.get(&(name.clone(), version))?;
                let activate = Activate {
                    version,
                    triggers: plan.spec.triggers.clone(),
                    timezone: plan.spec.timezone.clone(),
                    rule: plan.rule,
                };
                ClientRequest::Ask {
                    key: EntityKey::RunQueue {
                        namespace: NAMESPACE.into(),
                        workflow: name,
                        key: "".into(),
                    },
                    ask: kapell_engine::Ask::Activate(Box::new(activate)),
                }
            }
            Ask::Trigger { dice } => self.to_trigger(&mut Rng::new(dice))?,
            Ask::Register { workflow } => {
                match self.register(workflow) {
                    Ok(()) => self.give_lane(Input::VersionsChanged),
                    Err(error) => self.fail("generator", error),
                }
                return None;
            }
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

    pub(super) fn answered(&mut self, reply: ReplyId, answer: Result<Answer, kapell_model::Error>) {
        let Some(asked) = self.asked.remove(&reply) else {
            self.fail(
                "answers",
                format!("an answer to {reply:?}, which nobody asked or which had one"),
            );
            return;
        };
        self.trace(4, &[u8::from(answer.is_ok())]);
        self.note(|| match &answer {
            Ok(answer) => format!("answer to {:?}: {}", asked.request, brief_answer(answer)),
            Err(error) => format!("answer to {:?}: {}", asked.request, error.message),
        });
        if let Ok(answer) = answer {
            let verdict = self.checks.answered(&asked.request, &answer, &self.store);
            self.judge(verdict);
        }
    }
}
