//! Lists of runs: every filter alone and with others, page after page.

use std::sync::Arc;

use kapell_model::{RunStatus, Time};

use super::{Case, id, row, wrote};
use crate::{RunFilter, RunPlace, RunRow, Store};

pub(super) const CASES: &[Case] = &[
    ("lists filter, newest first", lists_filter),
    ("pages of a list meet without gaps", pages_of_a_list_meet),
    (
        "a search takes a short time, and goes on where it stopped",
        a_search_goes_on_where_it_stopped,
    ),
    (
        "a row that is written anew is found by what it says now",
        a_changed_row_is_found_by_what_it_says,
    ),
];

/// Runs of several namespaces, workflows, statuses and parents, newest last.
pub(super) fn many(store: &dyn Store) -> Vec<RunRow> {
    let parents = [None, Some(id(1, 0, 1)), Some(id(1, 0, 2))];
    let rows: Vec<RunRow> = (0_u16..240)
        .map(|number| {
            let place = usize::from(number);
            let status = RunStatus::ALL[place * 7 % 9];
            let run = id(
                if number % 10 == 7 {
                    0
                } else {
                    i64::from(number / 3)
                },
                number * 17 % 4096,
                1000 + u128::from(number),
            );
            RunRow {
                namespace: Arc::from(["default", "other"][place / 5 % 2]),
                parent: parents[place % 3],
                ended_at: status.ended().then_some(Time(i64::from(number * 31 % 100))),
                trigger: Arc::from(["manual", "schedule", "signal", "nightly"][place % 4]),
                trigger_name: (place % 4 == 1)
                    .then(|| Arc::from(["nightly", "hourly", "schedule"][place / 4 % 3])),
                backfill: (place % 4 == 2).then(|| Arc::from(["nightly-1", "b"][place / 4 % 2])),
                labels: labels(place),
                error: (place % 7 == 3).then(|| format!("step{} BROKE", place % 5)),
                // Three at a time are made at once; of every ten one has an id from a key, which is
                // as old as can be.
                created_at: Time(i64::from(number / 3) * 1000),
                ..row(run, ["a", "b", "c"][place % 3], status)
            }
        })
        .collect();
    for rows in rows.chunks(50) {
        wrote(store, vec![], rows.to_vec());
    }
    let mut rows = rows;
    rows.sort_unstable_by_key(|row| (row.created_at, row.id));
    rows
}

fn labels(place: usize) -> String {
    match place % 5 {
        0 => "{}".to_owned(),
        1 => format!(r#"{{"team":"a","n":"{}"}}"#, place % 3),
        2 => r#"{"team":"b"}"#.to_owned(),
        3 => format!(r#"{{"team":"{}","n":"1"}}"#, long()),
        _ => r#"{"n":"1","team":"a"}"#.to_owned(),
    }
}

/// A value that differs from others only far behind its start.
fn long() -> String {
    "é".repeat(400)
}

/// What filters of a search name beside namespace, workflow, status, parent and time.
fn searches() -> Vec<RunFilter> {
    let label = |key: &str, value: &str| (Arc::from(key), Arc::from(value));
    let labelled = |labels: &[(Arc<str>, Arc<str>)]| RunFilter {
        labels: labels.to_vec(),
        ..RunFilter::default()
    };
    let triggered = |trigger: &str| RunFilter {
        trigger: Some(Arc::from(trigger)),
        ..RunFilter::default()
    };
    let backfilled = |backfill: &str| RunFilter {
        backfill: Some(Arc::from(backfill)),
        ..RunFilter::default()
    };
    let failed = |error: &str| RunFilter {
        error: Some(Arc::from(error)),
        ..RunFilter::default()
    };
    let mut searches = vec![
        labelled(&[label("team", "a")]),
        labelled(&[label("team", "a"), label("n", "1")]),
        labelled(&[label("n", "1"), label("team", "b")]),
        labelled(&[label("team", &long())]),
        labelled(&[label("team", &(long() + "!"))]),
        labelled(&[label("nobody", "a")]),
        triggered("nightly"),
        triggered("schedule"),
        triggered("manual"),
        triggered("nothing"),
        backfilled("nightly-1"),
        backfilled("nothing"),
        RunFilter {
            labels: vec![label("team", "a")],
            ..backfilled("b")
        },
        failed("step3 broke"),
        failed("broke"),
        failed("nowhere"),
        RunFilter {
            until: Some(Time(60_000)),
            ..RunFilter::default()
        },
    ];
    searches.push(RunFilter {
        workflow: Some(Arc::from("a")),
        statuses: vec![RunStatus::Failed, RunStatus::Running],
        since: Some(Time(10_000)),
        until: Some(Time(70_000)),
        ..triggered("nightly")
    });
    searches.push(RunFilter {
        trigger: Some(Arc::from("schedule")),
        namespace: Some(Arc::from("default")),
        error: Some(Arc::from("broke")),
        ..labelled(&[label("n", "1")])
    });
    searches
}

fn filters() -> Vec<RunFilter> {
    let mut filters = plain_filters();
    filters.extend(searches());
    filters
}

fn plain_filters() -> Vec<RunFilter> {
    let mut filters = Vec::new();
    let statuses: [&[RunStatus]; 4] = [
        &[],
        &[RunStatus::Failed],
        &[
            RunStatus::Succeeded,
            RunStatus::Queued,
            RunStatus::Succeeded,
        ],
        &RunStatus::ALL,
    ];
    for namespace in [None, Some("default"), Some("nowhere")] {
        for workflow in [None, Some("b")] {
            for parent in [None, Some(id(1, 0, 1))] {
                for statuses in statuses {
                    for since in [None, Some(Time(40_000))] {
                        filters.push(RunFilter {
                            namespace: namespace.map(Arc::from),
                            workflow: workflow.map(Arc::from),
                            statuses: statuses.to_vec(),
                            parent,
                            since,
                            ..RunFilter::default()
                        });
                    }
                }
            }
        }
    }
    filters
}

fn wanted(rows: &[RunRow], filter: &RunFilter) -> Vec<RunRow> {
    let wanted = rows.iter().rev().filter(|row| {
        filter
            .namespace
            .as_ref()
            .is_none_or(|namespace| row.namespace == *namespace)
            && filter
                .workflow
                .as_ref()
                .is_none_or(|workflow| row.workflow == *workflow)
            && (filter.statuses.is_empty() || filter.statuses.contains(&row.status))
            && (filter.parent.is_none() || row.parent == filter.parent)
            && filter.since.is_none_or(|since| row.created_at >= since)
            && filter.until.is_none_or(|until| row.created_at < until)
            && is_found(row, filter)
            && filter.before.is_none_or(|before| {
                let place = rows.iter().find(|row| row.id == before.run);
                place.is_some_and(|place| (row.created_at, row.id) < (place.created_at, place.id))
            })
    });
    wanted.cloned().collect()
}

/// Searching as it is meant, by the plainest means: these rows hold their labels as written here.
fn is_found(row: &RunRow, filter: &RunFilter) -> bool {
    let labelled =
        |(key, value): &(Arc<str>, Arc<str>)| row.labels.contains(&format!(r#""{key}":"{value}""#));
    let error = row.error.as_deref().unwrap_or_default().to_lowercase();
    filter.labels.iter().all(labelled)
        && filter.trigger.as_ref().is_none_or(|trigger| {
            *trigger == row.trigger || Some(trigger) == row.trigger_name.as_ref()
        })
        && (filter.backfill.is_none() || row.backfill == filter.backfill)
        && filter
            .error
            .as_deref()
            .is_none_or(|wanted| error.contains(wanted))
}

fn lists_filter(store: &dyn Store) {
    let rows = many(store);
    for filter in filters() {
        let list = store.list_runs(&filter, 1000).expect("list");
        assert!(list == wanted(&rows, &filter), "{filter:?}");
        assert!(store.list_runs(&filter, 0).expect("list").is_empty());
        for before in [rows[0].id, rows[100].id, rows[101].id, rows[239].id] {
            let filter = RunFilter {
                before: Some(before.into()),
                ..filter.clone()
            };
            let list = store.list_runs(&filter, 1000).expect("list");
            assert!(list == wanted(&rows, &filter), "{filter:?}");
        }
    }
}

fn pages_of_a_list_meet(store: &dyn Store) {
    let rows = many(store);
    for filter in filters() {
        let mut paged: Vec<RunRow> = Vec::new();
        loop {
            let before = paged.last().map(RunPlace::of);
            let page = store
                .list_runs(
                    &RunFilter {
                        before,
                        ..filter.clone()
                    },
                    7,
                )
                .expect("list");
            let last = page.len() < 7;
            paged.extend(page);
            if last {
                break;
            }
        }
        assert!(paged == wanted(&rows, &filter), "{filter:?}");
    }
}

fn a_search_goes_on_where_it_stopped(store: &dyn Store) {
    const RUNS: u32 = 12_000;
    // Only the oldest has what is searched for, behind more than one search looks at.
    let made = |number: u32| RunRow {
        created_at: Time(i64::from(number) * 1_000),
        labels: if number == 1 {
            r#"{"wanted":"yes","all":"yes"}"#.to_owned()
        } else {
            r#"{"all":"yes"}"#.to_owned()
        },
        error: (number % 2 == 1)
            .then(|| format!("it is {}", if number == 1 { "this" } else { "another" })),
        ..row(id(i64::from(number), 1, 1), "w", RunStatus::Failed)
    };
    let rows: Vec<RunRow> = (1..=RUNS).map(made).collect();
    for rows in rows.chunks(4_000) {
        wrote(store, vec![], rows.to_vec());
    }
    let label = |key: &str| (Arc::from(key), Arc::from("yes"));
    let filters = [
        RunFilter {
            error: Some(Arc::from("THIS")),
            ..RunFilter::default()
        },
        RunFilter {
            labels: vec![label("all"), label("wanted")],
            ..RunFilter::default()
        },
        RunFilter {
            labels: vec![label("wanted")],
            ..RunFilter::default()
        },
    ];
    for mut filter in filters {
        let list = store.list_runs(&filter, 5).expect("list");
        assert_eq!(list, rows[..1], "{filter:?}");
        let mut found = Vec::new();
        for _ in 0..9 {
            let part = store.search_runs(&filter, 1).expect("search");
            found.extend(part.rows);
            if part.next.is_none() {
                break;
            }
            assert!(
                part.next < filter.before || filter.before.is_none(),
                "it goes on"
            );
            filter.before = part.next;
        }
        assert_eq!(found, rows[..1], "{filter:?}");
    }
}

fn a_changed_row_is_found_by_what_it_says(store: &dyn Store) {
    let run = id(1, 1, 1);
    let was = row(run, "w", RunStatus::Failed);
    let is = RunRow {
        labels: r#"{"team":"b"}"#.to_owned(),
        trigger: Arc::from("schedule"),
        trigger_name: Some(Arc::from("nightly")),
        backfill: Some(Arc::from("nightly-1")),
        error: None,
        ..was.clone()
    };
    let team = |value: &str| RunFilter {
        labels: vec![(Arc::from("team"), Arc::from(value))],
        ..RunFilter::default()
    };
    let trigger = |name: &str| RunFilter {
        trigger: Some(Arc::from(name)),
        ..RunFilter::default()
    };
    let broke = RunFilter {
        error: Some(Arc::from("it broke")),
        ..RunFilter::default()
    };
    let before = [team("a"), trigger("manual"), broke];
    let backfill = RunFilter {
        backfill: Some(Arc::from("nightly-1")),
        ..RunFilter::default()
    };
    let after = [team("b"), trigger("schedule"), trigger("nightly"), backfill];
    let list = |filter: &RunFilter| store.list_runs(filter, 9).expect("list");
    wrote(store, vec![], vec![was.clone()]);
    for filter in &before {
        assert_eq!(list(filter), std::slice::from_ref(&was));
    }
    wrote(store, vec![], vec![is.clone()]);
    for (filter, found) in before
        .iter()
        .map(|f| (f, false))
        .chain(after.iter().map(|f| (f, true)))
    {
        assert_eq!(list(filter).len(), usize::from(found), "{filter:?}");
    }
    store.delete_runs(&[run]).expect("delete");
    for filter in before.iter().chain(&after) {
        assert_eq!(list(filter), []);
    }
}
