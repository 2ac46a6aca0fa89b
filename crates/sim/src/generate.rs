//! Random scenarios: workflows over every construct of the language, people, faults.

mod cluster;
mod steps;
mod triggers;
mod workflow;

pub use cluster::cluster;
use kapell_model::spec::StrategyMode;
use serde_json::Value;

use crate::rng::Rng;
use crate::scenario::{Ask, FarFault, FarWorker, Fate, Fault, Knobs, Planned, Scenario, Steer};

const SECOND: i64 = 1_000_000;

/// The scenario of a seed.
pub fn scenario(seed: u64) -> Scenario {
    let mut rng = Rng::new(seed);
    let count = 1 + rng.place(4);
    let mut workflows: Vec<Value> = (0..count)
        .map(|index| workflow::Writer::new(&mut rng, index, count).workflow())
        .collect();
    for index in 0..count {
        if rng.chance(200) {
            let next = workflow::next_version(&mut rng, index, &workflows[index]);
            workflows.push(next);
        }
    }
    let span = rng.magnitude(20 * SECOND, 1_800 * SECOND);
    let mut requests = requests(&mut rng, span, count, workflows.len());
    let far = far(&mut rng);
    let faults = if rng.chance(250) {
        Vec::new()
    } else {
        faults(&mut rng, span, far.len())
    };
    let seed = rng.bits();
    let knobs = knobs(&mut rng);
    triggers::add(&mut rng, &mut workflows, count, span, &mut requests);
    // Due times and what people do to whole workflows are two subjects.
    if workflows
        .iter()
        .all(|workflow| workflow.get("triggers").is_none())
    {
        steering(seed, span, count, &mut requests);
    }
    requests.sort_by_key(|planned| planned.at);
    Scenario {
        note: String::new(),
        seed,
        workflows,
        requests,
        faults,
        knobs,
        far,
        cluster: None,
    }
}

/// Workers in other processes.
fn far(rng: &mut Rng) -> Vec<FarWorker> {
    let count = if rng.chance(600) { 0 } else { 1 + rng.place(3) };
    let queues: [&[&str]; 4] = [&[], &["default"], &["small", "large"], &["large"]];
    let worker = |rng: &mut Rng| FarWorker {
        queues: rng.pick(&queues).iter().map(ToString::to_string).collect(),
        slots: 1 + rng.place(8),
    };
    (0..count).map(|_| worker(rng)).collect()
}

fn far_fault(rng: &mut Rng) -> FarFault {
    match rng.below(8) {
        0 | 1 => FarFault::Dies {
            down: rng.magnitude(1_000, 90 * SECOND),
        },
        number @ 2..=5 => FarFault::Cut {
            up: number != 2,
            down: number != 3,
            span: rng.magnitude(SECOND, 90 * SECOND),
        },
        6 => FarFault::Slow {
            span: rng.magnitude(SECOND, 120 * SECOND),
            wire: rng.magnitude(SECOND, 60 * SECOND),
        },
        _ => FarFault::Drain {
            grace: rng.magnitude(SECOND, 60 * SECOND),
        },
    }
}

/// People who pause workflows, change their strategies and delete them.
fn steering(seed: u64, span: i64, workflows: usize, requests: &mut Vec<Planned<Ask>>) {
    let mut rng = Rng::new(seed ^ 0x5354_4545_5221);
    if !rng.chance(400) {
        return;
    }
    let modes = [
        StrategyMode::Parallel,
        StrategyMode::Sequential,
        StrategyMode::StrictSequential,
        StrategyMode::FirstOnly,
        StrategyMode::LastOnly,
        StrategyMode::SerialLatest,
    ];
    for _ in 0..=rng.place(8) {
        let how = match rng.below(20) {
            0 | 1 => Steer::PauseWorkflow,
            2 | 3 => Steer::ResumeWorkflow,
            4 => Steer::PauseAll,
            5 => Steer::ResumeAll,
            6..=14 => Steer::Override {
                mode: *rng.pick(&modes),
                limit: rng
                    .chance(600)
                    .then(|| u32::try_from(rng.between(1, 3)).unwrap_or(1)),
            },
            15 | 16 => Steer::Default,
            17 => Steer::Deactivate,
            18 => Steer::Reactivate,
            _ => Steer::Delete,
        };
        requests.push(Planned {
            at: rng.between(0, span),
            what: Ask::Steer {
                workflow: rng.place(workflows),
                how,
            },
        });
    }
}

fn knobs(rng: &mut Rng) -> Knobs {
    Knobs {
        commit: rng.magnitude(100, 200_000),
        read: rng.magnitude(10, 50_000),
        wire: rng.magnitude(10, 5_000),
        lump: if rng.chance(500) {
            0
        } else {
            rng.magnitude(100, 20_000)
        },
        attempt: rng.magnitude(100_000, 60 * SECOND),
        slots: 1 + rng.place(32),
        process_window: 1 + rng.place(200),
        light_window: 1 + rng.place(4_000),
        idle: rng.magnitude(SECOND, 600 * SECOND),
        fails: *rng.pick(&[0, 50, 150, 400]),
        repeats: *rng.pick(&[0, 50, 300]),
        deaf: *rng.pick(&[0, 0, 100]),
        lost: *rng.pick(&[0, 0, 20, 100]),
        big: *rng.pick(&[0, 0, 50, 300]),
        late: *rng.pick(&[0, 0, 0, 30, 200]),
        follow: *rng.pick(&[0, 1, 1, 2, 10]),
    }
}

fn requests(rng: &mut Rng, span: i64, workflows: usize, definitions: usize) -> Vec<Planned<Ask>> {
    let mut list = Vec::new();
    for workflow in workflows..definitions {
        list.push(Planned {
            at: rng.between(0, span),
            what: Ask::Register { workflow },
        });
    }
    let starts = 1 + rng.place(12);
    for _ in 0..starts {
        let key = rng.chance(200).then(|| rng.below(4));
        let start = Ask::Start {
            workflow: rng.place(workflows),
            n: rng.between(0, 4),
            key,
            version: rng.chance(100).then_some(1),
            by: rng.chance(400).then(|| rng.below(4)),
        };
        let burst = if rng.chance(200) { 4 } else { 1 };
        let at = rng.between(0, span);
        for turn in 0..burst {
            list.push(Planned {
                at: at + turn * rng.between(0, SECOND),
                what: start.clone(),
            });
        }
    }
    let others = if rng.chance(300) { 0 } else { rng.place(32) };
    for _ in 0..others {
        let dice = rng.bits();
        let what = match rng.below(26) {
            0 | 1 => Ask::Cancel {
                dice,
                now: rng.chance(300),
            },
            2 => Ask::Pause { dice },
            3 => Ask::Resume { dice },
            4 | 5 => Ask::Retry { dice },
            6 => Ask::Restart { dice },
            7 => Ask::Skip { dice },
            8 => Ask::SetOutput { dice },
            9 => Ask::Fork {
                dice,
                n: rng.chance(300).then(|| rng.between(0, 4)),
                version: rng.chance(300).then_some(2),
            },
            10 => Ask::Priority { dice },
            11 => Ask::Dismiss { dice },
            12..=15 => Ask::Signal {
                dice,
                n: rng.between(0, 4),
            },
            16..=19 => Ask::Answer { dice },
            20 => Ask::Break { dice },
            21 => Ask::BreakAll {
                workflow: rng.place(workflows),
                dice,
            },
            22 | 23 => Ask::SetParam {
                dice,
                n: rng.between(0, 4),
            },
            24 => Ask::Evaluate { dice },
            _ => Ask::View { dice },
        };
        list.push(Planned {
            at: rng.between(0, span),
            what,
        });
    }
    list.sort_by_key(|planned| planned.at);
    list
}

fn faults(rng: &mut Rng, span: i64, far: usize) -> Vec<Planned<Fault>> {
    let count = rng.magnitude(1, 24);
    let mut list = Vec::new();
    for _ in 0..count {
        let sorts = if far > 0 { 20 } else { 12 };
        let what = match rng.below(sorts) {
            12.. => Fault::Far {
                worker: rng.place(far),
                what: far_fault(rng),
            },
            0..=2 => Fault::Crash {
                down: rng.magnitude(1_000, 60 * SECOND),
            },
            3 | 4 => Fault::LostAnswer {
                fate: *rng.pick(&[Fate::Landed, Fate::Never, Fate::Later]),
            },
            5 | 6 => Fault::Thief { dice: rng.bits() },
            7 => Fault::Full {
                span: rng.magnitude(SECOND, 60 * SECOND),
            },
            8 => Fault::Slow {
                span: rng.magnitude(SECOND, 60 * SECOND),
                factor: rng.magnitude(2, 1_000),
            },
            9 => {
                let jump = rng.magnitude(1_000, 3_600 * SECOND);
                Fault::Clock {
                    jump: if rng.chance(500) { jump } else { -jump },
                }
            }
            10 => Fault::Reads {
                span: rng.magnitude(100_000, 30 * SECOND),
            },
            _ => Fault::Worker,
        };
        list.push(Planned {
            at: rng.between(0, span),
            what,
        });
    }
    list.sort_by_key(|planned| planned.at);
    list
}
