use std::collections::BTreeMap;

use kapell_api::task::{Custom, Outcome, Report, Task, TaskEvent};
use kapell_model::{StepStatus, Time};

use super::*;
use crate::run::grant::Offers;
use crate::run::ready::Pick;
use crate::run::{Effect, Input, Run, testing};

const START: Time = Time(1_000_000);

fn run(steps: &str) -> Run {
    let text = format!("workflow: w\nparams: {{ n: {{ type: int, default: 2 }} }}\n{steps}");
    testing::begun(&text, 2, START)
}

/// The session of each attempt that is granted.
fn grant(run: &mut Run, room: &mut Room, now: Time, offers: &mut Offers) -> Vec<Task> {
    let (_, decision) = run.grant(("default", Pick::All), 1_000, room, now, offers);
    let tasks = decision
        .effects
        .into_iter()
        .find_map(|effect| match effect {
            Effect::Offer(tasks) => Some(tasks),
            _ => None,
        });
    tasks.unwrap_or_default()
}

/// How many attempts each session gets.
fn shared(run: &mut Run, seats: Vec<Seat>) -> BTreeMap<u64, usize> {
    let mut room = Room {
        seats,
        ..Room::default()
    };
    let mut had = BTreeMap::new();
    for task in grant(run, &mut room, START, &mut Offers::default()) {
        *had.entry(task.session.0).or_default() += 1;
    }
    had
}

fn seat(session: u64, process: usize) -> Seat {
    Seat::unmeasured(SessionId(session), process, 4)
}

fn labelled(session: u64, process: usize, labels: &[(&str, &str)]) -> Seat {
    let labels = labels.iter();
    let labels = labels.map(|(name, value)| ((*name).into(), (*value).into()));
    Seat {
        labels: Arc::new(labels.collect()),
        ..seat(session, process)
    }
}

fn spot(session: u64, process: usize) -> Seat {
    Seat {
        spot: true,
        ..seat(session, process)
    }
}

fn why(run: &Run) -> String {
    let view = run.view(START);
    view.steps[0].waits_for.clone().unwrap_or_default()
}

#[test]
fn what_workers_offer_under_names_of_users_is_given_once() {
    let items = "steps:\n  a: { shell: x, foreach: { i: \"${{ range(5) }}\" }, resources: { custom: { license: \"${{ params.n }}\" } } }\n";
    let with = |session, licenses| {
        let custom: Custom = [("license".into(), licenses)].into_iter().collect();
        let all = TaskResources::all_with(custom);
        Seat {
            free: all.clone(),
            total: all,
            ..seat(session, 10)
        }
    };
    let had = shared(&mut run(items), vec![with(1, 5), with(2, 2), seat(3, 10)]);
    assert_eq!(had, BTreeMap::from([(1, 2), (2, 1)]));
    let mut short = run(items);
    assert!(shared(&mut short, vec![with(1, 1), seat(2, 1)]).is_empty());
    let view = short.view(START);
    let waits = &view.steps[0].items.as_ref().unwrap().waiting[0].waits_for;
    assert_eq!(
        waits,
        "a worker in queue `default` that has 2 `license`; the closest there now has 1 `license`"
    );
}

#[test]
fn labels_that_are_needed_are_met_or_named() {
    let text = "steps:\n  a: { shell: x, resources: { labels: { zone: \"z${{ params.n }}\", disk: ssd } } }\n";
    let both = [("zone", "z2"), ("disk", "ssd")];
    let seats = || {
        vec![
            seat(1, 9),
            labelled(2, 9, &both[..1]),
            labelled(3, 1, &both),
        ]
    };
    assert_eq!(shared(&mut run(text), seats()), BTreeMap::from([(3, 1)]));
    let mut nowhere = run(text);
    let two = seats()[..2].to_vec();
    assert!(shared(&mut nowhere, two).is_empty());
    assert_eq!(
        why(&nowhere),
        "a worker in queue `default` with the labels `zone=z2` and `disk=ssd`: none there has the label `disk=ssd`"
    );
    let mut apart = run(text);
    let apart_seats = vec![labelled(1, 1, &both[..1]), labelled(2, 1, &both[1..])];
    assert!(shared(&mut apart, apart_seats).is_empty());
    assert!(
        why(&apart).ends_with("none there has all of them"),
        "{}",
        why(&apart)
    );
}

#[test]
fn labels_that_are_preferred_go_first_while_there_is_room() {
    let text = "steps:\n  a: { shell: x, foreach: { i: \"${{ range(5) }}\" }, resources: { prefer: { zone: eu } } }\n";
    let seats = vec![seat(1, 9), labelled(2, 3, &[("zone", "eu")])];
    assert_eq!(
        shared(&mut run(text), seats),
        BTreeMap::from([(1, 2), (2, 3)])
    );
}

#[test]
fn spot_workers_get_only_what_allows_them_and_get_it_first() {
    let items = |resources: &str| {
        run(&format!(
            "steps:\n  a: {{ shell: x, foreach: {{ i: \"${{{{ range(5) }}}}\" }}, resources: {{ {resources} }} }}\n"
        ))
    };
    let seats = || vec![spot(1, 3), seat(2, 4)];
    assert_eq!(
        shared(&mut items("cpu: 1"), seats()),
        BTreeMap::from([(2, 4)])
    );
    assert_eq!(
        shared(&mut items("spot: true"), seats()),
        BTreeMap::from([(1, 3), (2, 2)])
    );
    let mut alone = run("steps:\n  a: { shell: x }\n");
    assert!(shared(&mut alone, vec![spot(1, 3)]).is_empty());
    assert!(
        why(&alone).contains("all there are spot workers"),
        "{}",
        why(&alone)
    );
}

/// Loses the attempt of a task with its worker.
fn lose(run: &mut Run, task: &Task, now: Time) {
    let event = TaskEvent::Ended {
        started_at: now,
        ended_at: now,
        outcome: Outcome::Lost {
            reason: "its worker is gone".to_owned(),
            explained: false,
        },
        usage: None,
    };
    let report = Report {
        run: task.run,
        place: task.place,
        offer: task.offer,
        worker: "".into(),
        event,
    };
    run.decide(Input::Report(report), now).unwrap();
    testing::settle(run, now);
}

#[test]
fn after_its_preemptions_an_attempt_goes_where_it_is_not_taken_away() {
    let text = "steps:\n  a: { shell: x, retry: { platform: 9 }, resources: { spot: true, preemptions: 3 } }\n";
    let mut run = run(text);
    let (mut now, mut offers) = (START, Offers::default());
    let mut sessions = Vec::new();
    let mut next = |run: &mut Run, seats: Vec<Seat>| {
        now = Time(now.0 + 3_600_000_000);
        run.decide(Input::Wake, now).unwrap();
        testing::settle(run, now);
        let mut room = Room {
            seats,
            ..Room::default()
        };
        let tasks = grant(run, &mut room, now, &mut offers);
        if let [task] = tasks.as_slice() {
            sessions.push(task.session.0);
            lose(run, task, now);
        }
        (tasks.len(), room.short)
    };
    for _ in 0..4 {
        next(&mut run, vec![spot(1, 1), seat(2, 1)]);
    }
    // It waits for one that has no room rather than going back.
    assert_eq!(next(&mut run, vec![spot(1, 1), seat(2, 0)]), (0, true));
    // Where there is no other it goes on as before.
    assert_eq!(next(&mut run, vec![spot(1, 1)]).0, 1);
    assert_eq!(sessions, [1, 1, 1, 2, 1]);
    // Four losses of spot workers say nothing of the step, which three that nothing explains would end.
    let unit = run.view(now).steps[0].status;
    assert_eq!(unit, StepStatus::Retrying);
}

#[test]
fn an_environment_is_used_again_unless_another_worker_has_far_more_room() {
    let text = "steps:\n  a: { python: { code: \"def f(): pass\", function: f, requirements: [numpy] } }\n";
    let task = grant(
        &mut run(text),
        &mut Room {
            seats: vec![seat(1, 1)],
            ..Room::default()
        },
        START,
        &mut Offers::default(),
    );
    let environment = environment(&task[0].work).unwrap();
    let warm = |process| Seat {
        warm: Arc::new(BTreeSet::from([environment])),
        ..seat(2, process)
    };
    assert_eq!(
        shared(&mut run(text), vec![seat(1, 8), warm(4)]),
        BTreeMap::from([(2, 1)])
    );
    assert_eq!(
        shared(&mut run(text), vec![seat(1, 9), warm(4)]),
        BTreeMap::from([(1, 1)])
    );
    assert_eq!(
        shared(&mut run(text), vec![seat(1, 1), warm(0)]),
        BTreeMap::from([(1, 1)])
    );
}

#[test]
fn a_quota_bounds_what_is_granted() {
    let text = "steps:\n  a: { shell: x, foreach: { i: \"${{ range(9) }}\" }, resources: { cpu: 2 } }\n  b: { noop: }\n";
    let quota = Quota {
        cpu_millis: Some(7_000),
        ..Quota::default()
    };
    let mut room = Room {
        seats: vec![seat(1, 100)],
        quota: Some(Allowance {
            quota,
            left: quota,
            idle: true,
        }),
        ..Room::default()
    };
    let granted =
        |run: &mut Run, room: &mut Room| grant(run, room, START, &mut Offers::default()).len();
    let mut first = run(text);
    // Three, and what starts nothing.
    assert_eq!(granted(&mut first, &mut room), 4);
    assert!(room.over && !room.short && !room.unfit);
    // A part that is too small takes one at a time; a quota that is too small is said.
    let small = |cpu_millis| Quota {
        cpu_millis: Some(cpu_millis),
        ..Quota::default()
    };
    for (bound, expected) in [(7_000, 2), (1_000, 1)] {
        room.quota = Some(Allowance {
            quota: small(bound),
            left: small(1_000),
            idle: true,
        });
        let mut run = run(text);
        assert_eq!(granted(&mut run, &mut room), expected, "{bound}");
        let view = run.view(START);
        let waits = &view.steps[0].items.as_ref().unwrap().waiting[0].waits_for;
        let never = waits.contains("the quota of its namespace to allow 2 cores: it is 1 core");
        assert_eq!(never, bound == 1_000, "{waits}");
    }
}
