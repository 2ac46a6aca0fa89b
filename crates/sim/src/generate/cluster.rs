//! Random scenarios of several nodes. They are shorter than those of one node: every second of a cluster has
//! its heartbeats, and what a scenario is about is over soon.

use serde_json::Value;

use super::{SECOND, far_fault, knobs, requests, steering, triggers, workflow};
use crate::rng::Rng;
use crate::scenario::{FarWorker, Fate, Fault, NodeFault, Nodes, Planned, Scenario};

/// The longest span of a definition, in seconds: whoever waits longer tells nothing new.
const LONGEST: u64 = 20;

/// The scenario of a seed.
pub fn cluster(seed: u64) -> Scenario {
    let mut rng = Rng::new(seed ^ 0x636c_7573_7465_7221);
    let count = 1 + rng.place(4);
    let mut workflows: Vec<Value> = (0..count)
        .map(|index| workflow::Writer::new(&mut rng, index, count).workflow())
        .collect();
    for index in 0..count {
        if rng.chance(150) {
            let next = workflow::next_version(&mut rng, index, &workflows[index]);
            workflows.push(next);
        }
    }
    let span = rng.magnitude(20 * SECOND, 100 * SECOND);
    let mut requests = requests(&mut rng, span, count, workflows.len());
    let many = rng.chance(50);
    let nodes = Nodes {
        count: if many { 5 } else { 2 + rng.place(4) },
        lease: *rng.pick(&[5 * SECOND, 5 * SECOND, 10 * SECOND]),
        skew: *rng.pick(&[0, 100_000, 5 * SECOND, 60 * SECOND]),
    };
    let workers = if many { 50 } else { 1 + rng.place(8) };
    let far = workers_of(&mut rng, workers);
    let faults = if rng.chance(150) {
        Vec::new()
    } else {
        faults(&mut rng, span, nodes.count, far.len())
    };
    let seed = rng.bits();
    let mut knobs = knobs(&mut rng);
    knobs.attempt = knobs.attempt.min(20 * SECOND);
    triggers::add(&mut rng, &mut workflows, count, span, &mut requests);
    if workflows
        .iter()
        .all(|workflow| workflow.get("triggers").is_none())
    {
        steering(seed, span, count, &mut requests);
    }
    for workflow in &mut workflows {
        shorten(workflow);
    }
    for planned in &mut requests {
        planned.at = planned.at.min(2 * span) + 5 * SECOND;
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
        cluster: Some(nodes),
    }
}

/// Workers, of which one at least serves what nobody names.
fn workers_of(rng: &mut Rng, count: usize) -> Vec<FarWorker> {
    let queues: [&[&str]; 5] = [&[], &[], &["default"], &["small", "large"], &["large"]];
    let worker = |rng: &mut Rng, index: usize| {
        let queues = if index == 0 {
            queues[0]
        } else {
            *rng.pick(&queues)
        };
        FarWorker {
            queues: queues.iter().map(ToString::to_string).collect(),
            slots: 1 + rng.place(8),
        }
    };
    (0..count).map(|index| worker(rng, index)).collect()
}

/// No span of a definition is long, and no due time comes after a few minutes.
fn shorten(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields.iter_mut() {
                match inner {
                    Value::String(text) if name == "end" => {
                        "2027-01-15T08:04:00Z".clone_into(text);
                    }
                    Value::String(text) if name == "start" => {
                        "2027-01-15T08:01:00Z".clone_into(text);
                    }
                    Value::String(text) if name == "jitter" => "5s".clone_into(text),
                    Value::String(text) if name == "cron" => "* * * * *".clone_into(text),
                    Value::String(text) if is_span(text) => *text = short(text),
                    inner => shorten(inner),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(shorten),
        Value::String(text) if is_span(text) => *text = short(text),
        _ => {}
    }
}

fn parts(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    Some((text[..digits].parse().ok()?, &text[digits..]))
}

fn is_span(text: &str) -> bool {
    parts(text).is_some_and(|(_, unit)| matches!(unit, "s" | "m" | "h"))
}

fn short(text: &str) -> String {
    match parts(text) {
        Some((number, "s")) => format!("{}s", number.min(LONGEST)),
        _ => format!("{LONGEST}s"),
    }
}

fn faults(rng: &mut Rng, span: i64, nodes: usize, far: usize) -> Vec<Planned<Fault>> {
    let count = rng.magnitude(1, 16);
    let mut list = Vec::new();
    for _ in 0..count {
        let what = match rng.below(24) {
            0..=11 => Fault::Node {
                node: rng.place(nodes),
                what: node_fault(rng),
            },
            12..=15 => Fault::Part {
                from: rng.place(nodes),
                to: rng.chance(600).then(|| rng.place(nodes)),
                both: rng.chance(500),
                span: rng.magnitude(SECOND, 90 * SECOND),
            },
            16 => Fault::Stall {
                span: rng.magnitude(SECOND, 30 * SECOND),
            },
            17 => Fault::Failover {
                span: rng.magnitude(100_000, 20 * SECOND),
            },
            18 => Fault::LostAnswer {
                fate: *rng.pick(&[Fate::Landed, Fate::Never, Fate::Later]),
            },
            19 => Fault::Slow {
                span: rng.magnitude(SECOND, 60 * SECOND),
                factor: rng.magnitude(2, 1_000),
            },
            _ => Fault::Far {
                worker: rng.place(far),
                what: far_fault(rng),
            },
        };
        list.push(Planned {
            at: rng.between(0, span),
            what,
        });
    }
    list.sort_by_key(|planned| planned.at);
    list
}

fn node_fault(rng: &mut Rng) -> NodeFault {
    match rng.below(12) {
        0..=2 => NodeFault::Dies {
            down: rng.magnitude(1_000, 60 * SECOND),
        },
        3..=5 => NodeFault::Pauses {
            span: rng.magnitude(SECOND, 60 * SECOND),
            torn: rng.chance(400),
        },
        6 | 7 => NodeFault::Away {
            span: rng.magnitude(SECOND, 60 * SECOND),
        },
        8 | 9 => NodeFault::Leaves {
            down: rng.magnitude(1_000, 60 * SECOND),
        },
        _ => {
            let jump = rng.magnitude(1_000, 600 * SECOND);
            NodeFault::Sets {
                jump: if rng.chance(500) { jump } else { -jump },
            }
        }
    }
}
