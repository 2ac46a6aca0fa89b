//! Which due times succeeded, and what is left for a backfill.

use super::*;

#[test]
fn which_due_times_succeeded_is_known_as_stretches() {
    let mut bench = Bench::new(on(all()), "2026-05-01T00:30:00Z");
    let hour = |hour: u32| format!("2026-05-01T{hour:02}:00:00Z");
    let end = |bench: &mut Bench, due: u32, status| {
        let ended = Message::DueRunEnded {
            run: RunId(1),
            scheduled_at: at(&hour(due)),
            status,
            blocks: false,
        };
        bench.tell(ended, "2026-05-01T00:40:00Z");
    };
    for due in [3, 1, 4, 6, 2] {
        end(&mut bench, due, RunStatus::Succeeded);
    }
    for due in [5, 6, 8] {
        end(&mut bench, due, RunStatus::Failed);
    }
    let state = &bench.trigger.state;
    assert_eq!(state.succeeded.len(), 2);
    assert!((1..=4).all(|due| state.has_succeeded(at(&hour(due)))));
    assert!(!state.has_succeeded(at(&hour(5))) && state.has_failed(at(&hour(5))));
    assert!(state.has_succeeded(at(&hour(6))) && !state.has_failed(at(&hour(6))));
    assert!(!state.has_succeeded(at(&hour(7))) && !state.has_failed(at(&hour(7))));
    // Retried to success.
    end(&mut bench, 5, RunStatus::Succeeded);
    let state = &bench.trigger.state;
    assert_eq!(state.succeeded.len(), 1);
    assert_eq!(state.failed, [at(&hour(8)).0]);
}

/// A run for this hour of the day has ended.
fn ended(bench: &mut Bench, hour: u32, status: RunStatus) {
    let ended = Message::DueRunEnded {
        run: RunId(1),
        scheduled_at: at(&format!("2026-05-01T{hour:02}:00:00Z")),
        status,
        blocks: false,
    };
    bench.tell(ended, "2026-05-01T00:40:00Z");
}

/// The due times that a backfill of the day would make up for.
fn missing(bench: &mut Bench, now: &str) -> Vec<String> {
    let ask = AskBackfill {
        id: "".into(),
        from: at("2026-05-01T00:00:00Z"),
        until: at("2026-05-02T00:00:00Z"),
        only: Only::Missing,
        newest_first: false,
        concurrency: 1,
        by: "ann".to_owned(),
    };
    bench.ask(Ask::Backfill(Box::new(ask)), now).unwrap();
    match &bench.others.last().unwrap().1 {
        Message::BackfillMade(made) => made.due.iter().map(|due| Time(*due).to_string()).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_edit_forgets_no_due_time_that_succeeded() {
    let day = |hours: &[u32]| -> Vec<String> {
        let due = hours.iter();
        due.map(|hour| format!("2026-05-01T{hour:02}:00:00Z"))
            .collect()
    };
    let mut bench = Bench::new(on(all()), "2026-05-01T00:30:00Z");
    for hour in 0..=6 {
        ended(&mut bench, hour, RunStatus::Succeeded);
    }
    ended(&mut bench, 7, RunStatus::Failed);
    // Another end: the same due times.
    let end = Schedule {
        end: Some(at("2026-05-01T12:00:00Z")),
        ..all()
    };
    bench.set(2, on(end), "2026-05-01T09:30:00Z");
    assert_eq!(bench.trigger.state.succeeded.len(), 1);
    assert!(bench.trigger.state.has_failed(at("2026-05-01T07:00:00Z")));
    assert_eq!(missing(&mut bench, "2026-05-01T09:40:00Z"), day(&[7, 8, 9]));
    // Every third hour: fewer, all of which have succeeded.
    let third = Schedule {
        timing: Timing::Cron("0 0,3,6,9 * * *".into()),
        timezone: Some("UTC".into()),
        ..all()
    };
    bench.set(3, on(third), "2026-05-01T09:50:00Z");
    assert_eq!(missing(&mut bench, "2026-05-01T09:55:00Z"), day(&[9]));
    // Every half hour: what lies between has not.
    let half = Schedule {
        timing: Timing::Cron("0,30 * * * *".into()),
        ..all()
    };
    bench.set(4, on(half), "2026-05-01T10:05:00Z");
    let found = missing(&mut bench, "2026-05-01T10:10:00Z");
    assert_eq!(found.len(), 14, "{found:?}");
    assert!(
        found
            .iter()
            .all(|due| due[14..16] == *"30" || due[11..13] > *"06")
    );
}

#[test]
fn who_paused_a_trigger_and_what_succeeded_survive_its_removal() {
    let mut bench = Bench::new(on(all()), "2026-05-01T00:30:00Z");
    ended(&mut bench, 1, RunStatus::Succeeded);
    ended(&mut bench, 2, RunStatus::Succeeded);
    let by = "ann".to_owned();
    bench
        .ask(Ask::PauseTrigger { by }, "2026-05-01T03:10:00Z")
        .unwrap();
    bench.tell(Message::TriggerRemoved, "2026-05-01T03:20:00Z");
    // A run that was under way ends meanwhile.
    ended(&mut bench, 3, RunStatus::Succeeded);
    bench.set(1, on(all()), "2026-05-01T03:30:00Z");
    assert_eq!(bench.trigger.state.paused_by.as_deref(), Some("ann"));
    let state = &bench.trigger.state;
    assert!(
        [1, 2, 3]
            .iter()
            .all(|due| state.has_succeeded(at(&format!("2026-05-01T{due:02}:00:00Z"))))
    );
    // Its own word is no person's: another word of it counts.
    let paused = spec::Trigger {
        paused: true,
        ..on(all())
    };
    let mut bench = Bench::new(paused, "2026-05-01T00:30:00Z");
    bench.tell(Message::TriggerRemoved, "2026-05-01T01:20:00Z");
    bench.set(2, on(all()), "2026-05-01T01:30:00Z");
    assert!(bench.trigger.wake_at().is_some());
}

#[test]
fn a_backfill_leaves_to_the_schedule_what_it_is_still_to_start() {
    let late = Schedule {
        jitter: Some(SignedDuration::from_mins(50)),
        ..hourly()
    };
    let mut bench = Bench::new(on(late), "2026-05-01T09:59:00Z");
    let wake = bench.trigger.wake_at().unwrap();
    let just_before = Time(wake.0 - 1).to_string();
    assert!(!missing(&mut bench, &just_before).contains(&"2026-05-01T10:00:00Z".to_owned()));
    assert_eq!(bench.wake(&wake.to_string()), ["2026-05-01T10:00:00Z"]);
    // Catching up in its own time.
    let paced = Schedule {
        catchup: Catchup::All {
            max: 1_000,
            within: None,
            pace: Some(SignedDuration::from_mins(10)),
        },
        ..hourly()
    };
    let mut bench = Bench::new(on(paced), "2026-05-01T10:30:00Z");
    let found = missing(&mut bench, "2026-05-01T14:30:00Z");
    assert_eq!(found.last().unwrap(), "2026-05-01T10:00:00Z");
    let made = bench.others.last().unwrap();
    assert!(
        matches!(&made.1, Message::BackfillMade(made) if made.ahead == at("2026-05-01T12:00:00Z").0)
    );
    // A paused one starts nothing more of them.
    let by = "ann".to_owned();
    bench
        .ask(Ask::PauseTrigger { by }, "2026-05-01T14:30:00Z")
        .unwrap();
    let found = missing(&mut bench, "2026-05-01T14:31:00Z");
    assert_eq!(found.last().unwrap(), "2026-05-01T14:00:00Z");
}

#[test]
fn a_run_that_goes_on_is_under_way_again() {
    let mut bench = Bench::new(on(hourly()), "2026-05-01T00:30:00Z");
    bench.wake("2026-05-01T01:00:00Z");
    ended(&mut bench, 1, RunStatus::Failed);
    bench.tell(
        Message::DueRunReopened {
            run: RunId(1),
            scheduled_at: at("2026-05-01T01:00:00Z"),
        },
        "2026-05-01T01:10:00Z",
    );
    assert_eq!(
        missing(&mut bench, "2026-05-01T01:20:00Z"),
        ["2026-05-01T00:00:00Z"]
    );
    ended(&mut bench, 1, RunStatus::Failed);
    assert_eq!(missing(&mut bench, "2026-05-01T01:30:00Z").len(), 2);
}
