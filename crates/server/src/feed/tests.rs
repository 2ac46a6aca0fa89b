use kapell_model::{RunStatus, Time};

use super::*;

fn row(number: u128, workflow: &str) -> RunRow {
    RunRow {
        id: RunId(number),
        namespace: "default".into(),
        workflow: workflow.into(),
        version: 1,
        status: RunStatus::Running,
        created_at: Time(1),
        started_at: None,
        ended_at: None,
        parent: None,
        trigger: "manual".into(),
        counts: [0; 3],
        error: None,
        labels: String::new(),
        scheduled_at: None,
        trigger_name: None,
        backfill: None,
    }
}

fn commit(rows: Vec<RunRow>) -> Commit {
    Commit {
        runs: rows,
        ..Commit::default()
    }
}

fn runs(missed: Missed) -> Option<Vec<u128>> {
    match missed {
        Missed::Changes(changes) => Some(changes.iter().map(|change| change.row.id.0).collect()),
        Missed::TooMany => None,
    }
}

#[test]
fn who_was_away_goes_on_where_it_stopped() {
    let feed = Feed::new(7);
    let mut first = feed.rows(None, None).unwrap();
    feed.take(&commit(vec![row(1, "a"), row(2, "b")]));
    let seen = first.changes.try_recv().unwrap();
    assert_eq!((seen.number, seen.row.id.0), (1, 1));
    let id = feed.id(seen.number);
    drop(first);
    feed.take(&commit(vec![row(3, "a")]));
    assert_eq!(
        runs(feed.rows(None, Some(&id)).unwrap().missed),
        Some(vec![2, 3])
    );
    assert_eq!(
        runs(feed.rows(Some("a"), Some(&id)).unwrap().missed),
        Some(vec![3])
    );
    assert_eq!(
        runs(feed.rows(None, Some(&feed.id(3))).unwrap().missed),
        Some(vec![])
    );
}

#[test]
fn who_was_away_too_long_or_comes_from_another_life_is_told_so() {
    let feed = Feed::new(7);
    for number in 0..=limits::FEED_CHANGES {
        feed.take(&commit(vec![row(number as u128, "a")]));
    }
    assert_eq!(
        runs(feed.rows(None, Some(&feed.id(0))).unwrap().missed),
        None
    );
    let rest = runs(feed.rows(None, Some(&feed.id(1))).unwrap().missed).unwrap();
    assert_eq!(rest.len(), limits::FEED_CHANGES);
    for id in [&Feed::new(8).id(5), "x", "", "7-", &feed.id(u64::MAX)] {
        assert_eq!(
            runs(feed.rows(None, Some(id)).unwrap().missed),
            None,
            "{id}"
        );
    }
}

#[test]
fn subscribers_hear_of_their_workflow_alone_and_one_that_is_slow_stops_nobody() {
    let feed = Feed::new(7);
    let mut ours = feed.rows(Some("a"), None).unwrap();
    let mut all = feed.rows(None, None).unwrap();
    for number in 0..limits::FEED_BEHIND * 2 {
        feed.take(&commit(vec![row(number as u128, "b")]));
    }
    feed.take(&commit(vec![row(9, "a")]));
    assert_eq!(ours.changes.try_recv().unwrap().row.id.0, 9);
    assert!(ours.changes.try_recv().is_err());
    let behind = all.changes.try_recv().unwrap_err();
    assert!(
        matches!(behind, broadcast::error::TryRecvError::Lagged(_)),
        "{behind:?}"
    );
}

#[test]
fn places_of_subscribers_are_bounded_and_free_again() {
    let feed = Feed::new(7);
    let all: Vec<Rows> = (0..limits::SUBSCRIBERS)
        .map(|_| feed.rows(None, None).unwrap())
        .collect();
    assert_eq!(
        feed.rows(None, None).err().unwrap().code,
        ErrorCode::TooManyRequests
    );
    drop(all);
    assert!(feed.rows(None, None).is_ok());
}

#[test]
fn whoever_may_have_missed_something_looks_again() {
    let feed = Feed::new(7);
    feed.take(&commit(vec![row(1, "a")]));
    let mut all = feed.rows(None, None).unwrap();
    let mut one = feed.rows(Some("a"), None).unwrap();
    let mut run = feed.run(RunId(1));
    run.mark_unchanged();
    let before = feed.id(feed.count());
    feed.gap();
    assert!(run.has_changed().unwrap());
    for rows in [&mut all, &mut one] {
        let closed = rows.changes.try_recv();
        assert!(matches!(
            closed,
            Err(broadcast::error::TryRecvError::Closed)
        ));
    }
    let back = feed.rows(None, Some(&before)).unwrap();
    assert_eq!(runs(back.missed), None);
    let now = feed.id(feed.count());
    feed.take(&commit(vec![row(2, "a")]));
    let back = feed.rows(None, Some(&now)).unwrap();
    assert_eq!(runs(back.missed), Some(vec![2]));
}

#[test]
fn it_is_known_whether_anybody_subscribes() {
    let feed = Feed::new(7);
    assert!(!feed.has_subscribers());
    let rows = feed.rows(None, None).unwrap();
    assert!(feed.has_subscribers());
    drop(rows);
    assert!(!feed.has_subscribers());
    let run = feed.run(RunId(1));
    assert!(feed.has_subscribers());
    drop(run);
    assert!(!feed.has_subscribers());
}
