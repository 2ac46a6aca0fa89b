use kapell_api::task::Place;
use kapell_model::{Offer, RunId, Shard};
use kapell_store::EntityWrite;

use super::*;

fn row(number: u128, trigger: &str, status: RunStatus) -> RunRow {
    RunRow {
        id: RunId::new(Time(5_000_000), Shard(0), number),
        namespace: "default".into(),
        workflow: "w".into(),
        version: 1,
        status,
        created_at: Time(5_000_000),
        started_at: None,
        ended_at: status.ended().then_some(Time(7_000_000)),
        parent: None,
        trigger: trigger.into(),
        counts: [2, 1, 3],
        error: None,
        labels: "{}".to_owned(),
        scheduled_at: Some(Time(4_999_000)),
        trigger_name: None,
        backfill: None,
    }
}

fn commit(rows: Vec<(u64, RunRow)>) -> Commit {
    let write = |(seq, row): &(u64, RunRow)| EntityWrite {
        key: row.id.into(),
        seq: *seq,
        chunk: vec![1],
        wake_at: None,
        snapshot: None,
        forget: false,
        pages: Vec::new(),
    };
    Commit {
        entities: rows.iter().map(write).collect(),
        runs: rows.into_iter().map(|(_, row)| row).collect(),
        ..Commit::default()
    }
}

#[test]
fn classes_hold_what_is_no_greater_than_their_ends() {
    let histogram = Histogram::new(&[10, 20]);
    for value in [0, 10, 11, 20, 21, 1_000] {
        histogram.observe(value);
    }
    histogram.observe_span(SignedDuration::from_secs(-5));
    assert_eq!(histogram.read(), (vec![(10, 3), (20, 5)], 7, 1_062));
}

#[test]
fn runs_are_counted_once_when_they_are_made_and_when_they_end() {
    let metrics = Metrics::default();
    metrics.committed(&commit(vec![
        (1, row(1, "manual", RunStatus::Running)),
        (1, row(2, "schedule", RunStatus::Queued)),
        (9, row(3, "manual", RunStatus::Running)),
        (1, row(4, "manual", RunStatus::Succeeded)),
    ]));
    metrics.committed(&commit(vec![(2, row(1, "manual", RunStatus::Failed))]));
    let made = metrics.made();
    assert_eq!(made, [("manual".into(), 2), ("schedule".into(), 1)]);
    let of = metrics.workflow(Some("w"));
    let ends = RunStatus::ALL.iter().zip(&of.run_ends);
    let ends: Vec<_> = ends
        .map(|(status, ends)| (*status, ends.load(Ordering::Relaxed)))
        .filter(|(_, ends)| *ends > 0)
        .collect();
    assert_eq!(ends, [(RunStatus::Succeeded, 1), (RunStatus::Failed, 1)]);
    assert_eq!(of.run_duration.read().2, 4_000_000);
    let steps = || {
        let steps = of.steps.each_ref();
        steps.map(|steps| steps.load(Ordering::Relaxed))
    };
    assert_eq!(steps(), [0, 0], "they are told when they end");
    metrics.steps_ended(&[("w".into(), [2, 1]), ("v".into(), [9, 9])]);
    metrics.steps_ended(&[("w".into(), [2, 0])]);
    assert_eq!(steps(), [4, 1]);
    let (_, late, sum) = metrics.lateness.read();
    assert_eq!((late, sum), (1, 1_000), "a start by hand is not late");
}

#[test]
fn kinds_without_end_are_counted_together() {
    let metrics = Metrics::default();
    for number in 0..50 {
        let kind = format!("kind {number}");
        metrics.committed(&commit(vec![(1, row(1, &kind, RunStatus::Running))]));
    }
    let made = metrics.made();
    assert_eq!(made.len(), KINDS + 1);
    assert_eq!(made.iter().map(|(_, runs)| runs).sum::<u64>(), 50);
}

#[test]
fn attempts_are_counted_by_how_they_ended() {
    let metrics = Metrics::default();
    let report = |outcome| Report {
        run: RunId::default(),
        place: Place {
            scope: 0,
            step: 0,
            item: Place::NO_ITEM,
        },
        offer: Offer::default(),
        worker: std::sync::Arc::default(),
        event: TaskEvent::Ended {
            started_at: Time(1_000),
            ended_at: Time(3_000),
            outcome,
            usage: None,
        },
    };
    let reports = [
        report(Outcome::Cancelled),
        report(Outcome::Lost {
            reason: String::new(),
            explained: true,
        }),
        report(Outcome::Lost {
            reason: String::new(),
            explained: false,
        }),
    ];
    metrics.reported(&reports, |_| Some("w"));
    let of = metrics.workflow(Some("w"));
    let counts = of
        .attempts
        .each_ref()
        .map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts, [0, 0, 1, 2]);
    assert_eq!(of.attempt_duration.read().2, 6_000);
}

#[test]
fn workflows_beyond_the_bound_are_counted_together() {
    let metrics = Metrics::default();
    for number in 0..limits::METRIC_WORKFLOWS + 20 {
        let mut row = row(1, "manual", RunStatus::Succeeded);
        row.workflow = format!("w{number}").into();
        metrics.committed(&commit(vec![(1, row)]));
    }
    let all = metrics.workflows();
    assert_eq!(all.len(), limits::METRIC_WORKFLOWS + 1);
    let others = all.iter().find(|(name, _)| **name == *OTHERS).unwrap();
    assert_eq!(others.1.run_duration.read().1, 20);
}
