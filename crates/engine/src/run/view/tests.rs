use kapell_api::task::{Outcome, Report, Task, TaskEvent, TaskResources, Usage};
use kapell_model::SessionId;

use super::*;
use crate::run::grant::Offers;
use crate::run::ready::Pick;
use crate::run::room::{Room, Seat};
use crate::run::{Effect, Input, Request, testing};

/// A run that has begun, at second 1.
fn begun(steps: &str) -> Run {
    let text = format!("workflow: w\nparams: {{ n: {{ type: int, default: 2 }} }}\n{steps}");
    testing::begun(&text, 2, second(1))
}

fn second(second: i64) -> Time {
    Time(second * 1_000_000)
}

/// Grants what fits.
fn grant(run: &mut Run, room: &mut Room) -> Vec<Task> {
    let mut offers = Offers::default();
    let (_, decision) = run.grant(("default", Pick::All), 1_000, room, second(1), &mut offers);
    let tasks = decision
        .effects
        .into_iter()
        .find_map(|effect| match effect {
            Effect::Offer(tasks) => Some(tasks),
            _ => None,
        });
    tasks.unwrap_or_default()
}

fn slots(count: usize) -> Room {
    Room {
        seats: vec![Seat::unmeasured(SessionId(1), count, count)],
        ..Room::default()
    }
}

fn fail(run: &mut Run, task: &Task) {
    let error = TaskError {
        message: "no".into(),
        ..TaskError::default()
    };
    let event = TaskEvent::Ended {
        started_at: second(1),
        ended_at: second(2),
        outcome: Outcome::Failed(Box::new(error)),
        usage: None::<Usage>,
    };
    let report = Report {
        run: task.run,
        place: task.place,
        offer: task.offer,
        worker: "".into(),
        event,
    };
    run.decide(Input::Report(report), second(2)).unwrap();
}

/// Of the first step's items: how many run, and what how many of the others wait for.
fn items(run: &Run) -> (u32, Vec<(ItemsWait, u32, String)>) {
    let view = run.view(second(2));
    let items = view.steps[0].items.clone().unwrap();
    let waiting = items.waiting.into_iter();
    let waiting = waiting.map(|of| (of.reason, of.items, of.waits_for));
    (items.running, waiting.collect())
}

fn item_waits_for(run: &Run, path: &str) -> String {
    let view = run.view_of(path, second(2));
    view.steps[0].waits_for.clone().unwrap_or_default()
}

#[test]
fn items_that_wait_for_a_lock_name_it() {
    let run = begun(
        "steps:\n  f: { foreach: { i: [1, 2, 3, 4] }, shell: x, locks: [{ name: warehouse }] }\n",
    );
    let lock = (ItemsWait::Lock, 4, "the lock `warehouse`".to_owned());
    assert_eq!(items(&run), (0, vec![lock]));
    assert_eq!(item_waits_for(&run, "f[1]"), "the lock `warehouse`");
}

#[test]
fn locks_of_many_names_are_counted_together() {
    let run = begun(
        "steps:\n  f: { foreach: { i: \"${{ range(8) }}\" }, shell: x, locks: [{ name: \"c-${{ i }}\" }] }\n",
    );
    let (_, waiting) = items(&run);
    assert_eq!(waiting.len(), 6, "{waiting:?}");
    assert_eq!(
        waiting[5],
        (ItemsWait::Lock, 3, "locks beside these 5".to_owned())
    );
}

#[test]
fn items_in_backoff_say_when_the_first_is_tried_again() {
    let mut run = begun(
        "steps:\n  f: { foreach: { i: [1, 2, 3] }, shell: x, retry: { limit: 1, backoff: { initial: 20m, jitter: false } } }\n",
    );
    for task in grant(&mut run, &mut slots(3)) {
        if task.place.item > 0 {
            fail(&mut run, &task);
        }
    }
    testing::settle(&mut run, second(1));
    let (running, waiting) = items(&run);
    assert_eq!(running, 1);
    let first = "their next try, the first at 1970-01-01T00:20:02Z".to_owned();
    assert_eq!(waiting, [(ItemsWait::Retry, 2, first)]);
    let why = item_waits_for(&run, "f[2]");
    assert_eq!(why, "try 2 at 1970-01-01T00:20:02Z, after: no");
    let first = run.view_of("f[0]", second(2));
    assert_eq!(first.steps[0].status, StepStatus::Running);
    assert_eq!(first.steps[0].waits_for, None);
}

#[test]
fn items_over_a_bound_wait_for_their_turn() {
    let mut run =
        begun("steps:\n  f: { foreach: { i: [1, 2, 3, 4], concurrency: 1 }, shell: x }\n");
    assert_eq!(grant(&mut run, &mut slots(9)).len(), 1);
    let turn = "their turn, 1 at a time (`concurrency`)".to_owned();
    assert_eq!(items(&run), (1, vec![(ItemsWait::Turn, 3, turn)]));
    let why = item_waits_for(&run, "f[3]");
    assert_eq!(why, "its turn, 1 at a time (`concurrency`)");
    let mut run =
        begun("max_parallelism: 2\nsteps:\n  f: { foreach: { i: [1, 2, 3] }, shell: x }\n");
    assert_eq!(grant(&mut run, &mut slots(9)).len(), 2);
    let (running, waiting) = items(&run);
    assert_eq!(
        (running, waiting[0].0, waiting[0].1),
        (2, ItemsWait::Turn, 1)
    );
    assert!(waiting[0].2.contains("max_parallelism"), "{waiting:?}");
}

#[test]
fn items_without_a_worker_name_its_queue_and_those_of_a_paused_run_the_pause() {
    let mut run = begun("steps:\n  f: { foreach: { i: [1, 2] }, shell: x }\n");
    let room = "a worker with room in queue `default`".to_owned();
    assert_eq!(items(&run), (0, vec![(ItemsWait::Worker, 2, room)]));
    let pause = Request::Pause { by: "bob".into() };
    run.decide(Input::Request(pause), second(2)).unwrap();
    let paused = "the run to be resumed".to_owned();
    assert_eq!(items(&run), (0, vec![(ItemsWait::Paused, 2, paused)]));
    let why = run.view(second(3)).waits_for.unwrap();
    assert_eq!(
        why,
        "somebody to resume it: bob paused it at 1970-01-01T00:00:02Z: `kapell resume`"
    );
}

#[test]
fn items_that_wait_for_times_signals_and_people_do_not_run() {
    for (step, reason, words) in [
        (
            "wait: 1h",
            ItemsWait::Time,
            "their time, the first at 1970-01-01T01:00:01Z",
        ),
        (
            "await: { signal: go }",
            ItemsWait::Signal,
            "a signal `go` each",
        ),
        (
            "approval: {}",
            ItemsWait::People,
            "people to approve them: `kapell approvals`",
        ),
    ] {
        let steps =
            format!("steps:\n  f:\n    foreach: {{ i: [1, 2, 3], concurrency: 2 }}\n    {step}\n");
        let run = begun(&steps);
        let turn = "their turn, 2 at a time (`concurrency`)".to_owned();
        let waiting = vec![(reason, 2, words.to_owned()), (ItemsWait::Turn, 1, turn)];
        assert_eq!(items(&run), (0, waiting), "{step}");
        assert!(
            item_waits_for(&run, "f[2]").starts_with("its turn"),
            "{step}"
        );
    }
}

#[test]
fn of_very_many_items_that_wait_the_first_are_counted_and_it_says_so() {
    let run = begun("steps:\n  f: { foreach: { i: \"${{ range(12000) }}\" }, wait: 1h }\n");
    let view = run.view(second(2));
    let items = view.steps[0].items.as_ref().unwrap();
    let first = &items.waiting[0];
    assert_eq!((first.items, first.more), (10_000, true));
    assert_eq!(items.waiting[1].items, 2_000);
    assert!(view.steps.len() < 100, "{}", view.steps.len());
}

#[test]
fn what_no_worker_has_in_all_is_said_with_what_the_closest_has() {
    let mut run = begun("steps:\n  a: { shell: x, resources: { cpu: 0.5, memory: 20Gi } }\n");
    let total = TaskResources {
        cpu_millis: 4_000,
        memory_bytes: 8 << 30,
        ..TaskResources::default()
    };
    let seat = |total: TaskResources| Seat {
        free: total.clone(),
        total,
        ..Seat::unmeasured(SessionId(1), 4, 4)
    };
    let mut room = Room {
        seats: vec![seat(TaskResources::default()), seat(total)],
        ..Room::default()
    };
    assert!(grant(&mut run, &mut room).is_empty());
    let view = run.view(second(2));
    assert_eq!(
        view.steps[0].waits_for.as_deref(),
        Some(
            "a worker in queue `default` that has 0.5 cores and 20 GiB of memory; the closest there now has 4 cores and 8 GiB of memory"
        )
    );
    assert_eq!(grant(&mut run, &mut slots(1)).len(), 1);
    assert_eq!(run.view(second(2)).steps[0].waits_for, None);
}

#[test]
fn one_step_or_item_is_shown_alone() {
    let run =
        begun("steps:\n  f: { foreach: { i: [1, 2] }, shell: x }\n  g: { needs: f, noop: }\n");
    let paths = |path: &str| {
        let steps = run.view_of(path, second(2)).steps.into_iter();
        steps.map(|step| step.path).collect::<Vec<_>>()
    };
    assert_eq!(paths("f[1]"), ["f[1]"]);
    assert_eq!(paths("g"), ["g"]);
    assert!(paths("f[2]").is_empty());
    assert!(paths("nothing").is_empty());
}
