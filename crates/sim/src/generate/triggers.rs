//! What starts runs by itself: schedules, signals, joins, requests from outside, ends of other runs; and
//! people who steer that.
//!
//! Everything must have an end. Schedules stop after an hour; signals that steps send start runs only
//! where `n` is 4, and such runs have a smaller `n`; how a run ends starts only runs of workflows after
//! its own, as children are.

use serde_json::{Value, json};

use crate::rng::Rng;
use crate::scenario::{Ask, Planned};

/// An hour after the world begins no due time is left.
const END: &str = "2027-01-15T09:00:00Z";

/// Gives some workflows triggers. The first `count` are the first versions, others newer ones.
pub(super) fn add(
    rng: &mut Rng,
    workflows: &mut [Value],
    count: usize,
    span: i64,
    requests: &mut Vec<Planned<Ask>>,
) {
    for index in 0..count {
        if !rng.chance(350) {
            continue;
        }
        let triggers = triggers(rng, index);
        let hears = triggers
            .iter()
            .any(|trigger| trigger.get("signal").is_some());
        let hears = hears
            || triggers
                .iter()
                .any(|trigger| trigger.get("signals").is_some());
        let called = triggers
            .iter()
            .any(|trigger| trigger.get("webhook").is_some());
        set(&mut workflows[index], &triggers);
        let first = rng.between(0, span / 2);
        requests.push(Planned {
            at: first,
            what: Ask::Activate {
                workflow: index,
                version: 1,
            },
        });
        edit(rng, workflows, (index, count), &triggers, requests, span);
        for _ in 0..rng.place(6) {
            requests.push(Planned {
                at: rng.between(0, 3 * span),
                what: Ask::Trigger { dice: rng.bits() },
            });
        }
        if hears {
            for _ in 0..2 + rng.place(14) {
                requests.push(Planned {
                    at: rng.between(first, first + span),
                    what: Ask::Signal {
                        dice: rng.bits(),
                        n: *rng.pick(&[0, 1, 1, 2, 4]),
                    },
                });
            }
        }
        if called {
            for _ in 0..=rng.place(8) {
                requests.push(Planned {
                    at: rng.between(first, first + span),
                    what: Ask::Deliver {
                        dice: rng.bits(),
                        n: rng.between(0, 4),
                    },
                });
            }
        }
    }
}

/// Another version has other triggers, and becomes the active one; some go back.
fn edit(
    rng: &mut Rng,
    workflows: &mut [Value],
    (index, count): (usize, usize),
    triggers: &[Value],
    requests: &mut Vec<Planned<Ask>>,
    span: i64,
) {
    let name = format!("w{index}");
    let newer = workflows[count..]
        .iter()
        .position(|workflow| workflow["workflow"] == json!(name));
    let Some(newer) = newer else { return };
    let mut others = triggers.to_vec();
    match rng.below(4) {
        0 => drop(others.pop()),
        1 => others[0]["with"]["n"] = json!(rng.between(0, 3)),
        2 => others[0] = self::triggers(rng, index).swap_remove(0),
        _ => {}
    }
    set(&mut workflows[count + newer], &others);
    for version in [2, 1] {
        if rng.chance(700) {
            requests.push(Planned {
                at: rng.between(span / 4, 2 * span),
                what: Ask::Activate {
                    workflow: index,
                    version,
                },
            });
        }
    }
}

fn set(workflow: &mut Value, triggers: &[Value]) {
    workflow["params"]["from"] = json!({ "type": "string", "default": "" });
    workflow["triggers"] = json!(triggers);
}

fn triggers(rng: &mut Rng, index: usize) -> Vec<Value> {
    let mut triggers = Vec::new();
    for number in 0..=rng.place(3) {
        let mut trigger = match rng.below(10) {
            0..=3 => schedule(rng),
            4 | 5 => signal(rng),
            6 | 7 => join(rng),
            8 if index > 0 => finished(rng, index),
            _ => webhook(rng, index, number),
        };
        trigger["name"] = json!(format!("by{number}"));
        if rng.chance(50) {
            trigger["paused"] = json!(true);
        }
        triggers.push(trigger);
    }
    triggers
}

fn schedule(rng: &mut Rng) -> Value {
    let catchup = match rng.below(6) {
        0 => json!("latest"),
        1 => json!("none"),
        2 | 3 => json!({ "mode": "all", "max": 10_000 }),
        _ => {
            let mut all = json!({ "mode": "all", "max": rng.magnitude(1, 20) });
            if rng.chance(400) {
                all["within"] = json!(format!("{}m", rng.between(2, 40)));
            }
            if rng.chance(400) {
                all["pace"] = json!(format!("{}s", rng.magnitude(1, 120)));
            }
            all
        }
    };
    let mut trigger = json!({ "catchup": catchup, "with": { "n": rng.between(0, 4) }, "end": END });
    let every = rng.chance(500);
    if every {
        trigger["every"] = json!(format!("{}s", rng.between(100, 900)));
    } else {
        trigger["cron"] = match rng.below(4) {
            // The same hour in both zones of a schedule.
            0 => json!(format!("*/{} 8,9,13 * * *", rng.between(2, 12))),
            _ => json!(format!("*/{} * * * *", rng.between(2, 12))),
        };
    }
    if rng.chance(300) {
        trigger["jitter"] = json!("1m");
    }
    if rng.chance(250) {
        trigger["start"] = json!(format!("2027-01-15T08:{:02}:00Z", rng.between(1, 40)));
    }
    if rng.chance(300) {
        let zones = ["Europe/Berlin", "America/New_York", "Asia/Kolkata"];
        trigger["timezone"] = json!(*rng.pick(&zones));
    }
    if rng.chance(200) {
        let whens = [
            "${{ run.scheduled_at.getMinutes() % 2 == 0 }}",
            "${{ run.scheduled_at < timestamp('2027-01-15T08:30:00Z') }}",
        ];
        trigger["when"] = json!(*rng.pick(&whens));
    }
    trigger
}

/// Names of signals: steps send some of them too.
const TOPICS: [&str; 5] = ["t0", "t1", "t2", "x0", "x1"];

fn is_sent_by_steps(topic: &str) -> bool {
    topic.starts_with('t')
}

fn condition(rng: &mut Rng, topic: &str) -> Option<&'static str> {
    if is_sent_by_steps(topic) {
        let four = [
            "${{ signal.payload.n == 4 }}",
            "${{ signal.payload.n == 4 && signal.payload.ok == true }}",
            "${{ signal.payload.n > 3 }}",
        ];
        return Some(*rng.pick(&four));
    }
    let any = [
        "${{ signal.payload.n == 1 }}",
        "${{ signal.payload.ok }}",
        "${{ signal.payload.n < 3 && signal.payload.ok == true }}",
        "${{ signal.payload.nothing == 1 }}",
    ];
    let condition = *rng.pick(&any);
    rng.chance(700).then_some(condition)
}

fn signal(rng: &mut Rng) -> Value {
    let topic = *rng.pick(&TOPICS);
    let with = match rng.below(12) {
        // What is not there, and what is no number.
        0 => json!("${{ signal.payload.nothing }}"),
        1 => json!("${{ signal.payload.ok }}"),
        2..=5 if !is_sent_by_steps(topic) => json!("${{ signal.payload.n }}"),
        _ => json!(rng.between(0, 3)),
    };
    let mut trigger = json!({ "signal": topic, "with": { "n": with, "from": "${{ signal.id }}" } });
    if let Some(condition) = condition(rng, topic) {
        trigger["match"] = json!(condition);
    }
    if rng.chance(300) {
        let same = [
            "${{ signal.payload.n }}",
            "${{ string(signal.payload.ok) }}",
        ];
        trigger["dedupe"] = json!(*rng.pick(&same));
    }
    if rng.chance(200) {
        trigger["when"] = json!("${{ signal.payload.n != 2 }}");
    }
    trigger
}

fn join(rng: &mut Rng) -> Value {
    let count = 2 + rng.place(2);
    let mut sources = json!({});
    let mut from = Vec::new();
    for number in 0..count {
        let topic = *rng.pick(&TOPICS);
        let alias = format!("a{number}");
        let mut source = json!({ "signal": topic });
        if let Some(condition) =
            condition(rng, topic).filter(|_| number == 0 || is_sent_by_steps(topic))
        {
            source["match"] = json!(condition);
        }
        let keys = [
            "${{ signal.payload.n }}",
            "${{ signal.payload.ok ? 'yes' : 'no' }}",
            "${{ signal.payload.n == 2 ? null : 'all' }}",
        ];
        if rng.chance(700) {
            source["key"] = json!(*rng.pick(&keys));
        }
        from.push(format!("${{{{ signals.{alias}.id }}}}"));
        sources[&alias] = source;
    }
    if rng.chance(700) {
        // Most joins look at one thing: else their keys are seldom equal.
        let key = json!(*rng.pick(&["${{ signal.payload.n }}", "${{ signal.payload.ok }}"]));
        for number in 0..count {
            sources[format!("a{number}")]["key"] = key.clone();
        }
    }
    let mut trigger =
        json!({ "signals": sources, "with": { "n": rng.between(0, 3), "from": from.join(",") } });
    if rng.chance(500) {
        trigger["within"] = json!(format!("{}s", rng.magnitude(5, 1_200)));
    }
    if rng.chance(200) {
        trigger["dedupe"] = json!("${{ signals.a0.payload.n }}");
    }
    if rng.chance(200) {
        trigger["when"] = json!("${{ signals.a1.payload.ok == true }}");
    }
    trigger
}

/// A workflow before this one has ended.
fn finished(rng: &mut Rng, index: usize) -> Value {
    let before = rng.place(index);
    let how = *rng.pick(&["succeeded", "succeeded", "failed"]);
    let mut trigger = json!({
        "signal": format!("workflow.w{before}.{how}"),
        "with": { "n": rng.between(0, 3), "from": "${{ signal.id }}" },
    });
    if rng.chance(500) {
        trigger["match"] = json!("${{ signal.payload.params.n >= 1 }}");
    }
    trigger
}

fn webhook(rng: &mut Rng, index: usize, number: usize) -> Value {
    let mut trigger = json!({
        "webhook": { "path": format!("p{index}-{number}"), "secret": "v1:secret" },
        "with": { "n": rng.between(0, 4), "from": "${{ signal.id }}" },
    });
    if rng.chance(300) {
        trigger["dedupe"] = json!("${{ signal.payload.n }}");
    }
    if rng.chance(200) {
        trigger["when"] = json!("${{ signal.payload.n != 2 }}");
    }
    trigger
}
