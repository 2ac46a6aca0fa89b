//! Rows of runs: lists, counts and retention.

use std::collections::BTreeMap;
use std::sync::Arc;

use kapell_model::{EntityKey, RunId, RunStatus, Time};

use super::lists::many;
use super::{Case, append, id, row, wrote};
use crate::{EntityWrite, RunFilter, RunRow, Store};

pub(super) const CASES: &[Case] = &[
    ("a row comes back as it was last written", a_row_is_replaced),
    (
        "runs are found by the end of their id",
        runs_are_found_by_suffix,
    ),
    (
        "lists go by the time of creation, whatever the id says",
        lists_go_by_creation,
    ),
    (
        "a list goes on after a run that is gone",
        a_list_goes_on_after_a_run_that_is_gone,
    ),
    (
        "a place stays when its run with a derived id is gone",
        a_place_stays_when_its_run_with_a_derived_id_is_gone,
    ),
    ("counts follow every change", counts_follow_every_change),
    (
        "expired runs come by their end",
        expired_runs_come_by_their_end,
    ),
    (
        "deleting takes ended runs with all they have",
        deleting_takes_ended_runs,
    ),
];

fn a_row_is_replaced(store: &dyn Store) {
    let run = id(1, 1, 1);
    assert_eq!(store.run(run).expect("run"), None);
    let mut all = Vec::new();
    for status in RunStatus::ALL {
        all.push(row(run, "w", status));
    }
    let running = row(run, "w", RunStatus::Running);
    all.push(RunRow {
        counts: [4, 5, 6],
        labels: "{}".to_owned(),
        ..running.clone()
    });
    all.push(RunRow {
        ended_at: Some(Time(5)),
        started_at: None,
        ..running.clone()
    });
    all.push(RunRow {
        parent: Some(id(0, 1, 9)),
        error: None,
        ..running.clone()
    });
    all.push(RunRow {
        trigger_name: Some(Arc::from("nightly")),
        scheduled_at: None,
        ..running.clone()
    });
    all.push(RunRow {
        backfill: Some(Arc::from("nightly-1")),
        ..running.clone()
    });
    all.push(RunRow {
        workflow: Arc::from("other"),
        trigger: Arc::from("fork"),
        ..running
    });
    all.push(RunRow {
        ended_at: None,
        ..row(run, "w", RunStatus::Failed)
    });
    for row in all {
        wrote(store, vec![], vec![row.clone()]);
        assert_eq!(store.run(run).expect("run"), Some(row.clone()));
        assert_eq!(
            store.list_runs(&RunFilter::default(), 9).expect("list"),
            vec![row.clone()]
        );
        let counts = store.run_counts("default").expect("counts");
        assert_eq!(counts, [(row.workflow, row.status, 1)]);
    }
}

fn runs_are_found_by_suffix(store: &dyn Store) {
    let runs = [
        id(1, 1, 0x1234_5678),
        id(2, 1, 0x1234_5678),
        id(3, 1, 0x0f34_5678),
        id(4, 1, 1),
    ];
    for (at, run) in (1..).zip(runs) {
        let row = RunRow {
            created_at: Time(at),
            ..row(run, "w", RunStatus::Running)
        };
        wrote(store, vec![], vec![row]);
    }
    let find = |suffix: &str, limit| store.find_runs(suffix, limit).expect("find");
    let text = runs[0].to_string();
    assert_eq!(find(&text, 9), [runs[0]]);
    assert_eq!(find(&text.to_uppercase(), 9), [runs[0]]);
    assert_eq!(find(&text[19..], 9), [runs[1], runs[0]]);
    assert_eq!(find(&text[22..], 9), [runs[2], runs[1], runs[0]]);
    assert_eq!(find(&text[22..], 2), [runs[2], runs[1]]);
    assert_eq!(find(&text[22..].to_uppercase(), 1), [runs[2]]);
    assert_eq!(find("", 2), [runs[3], runs[2]]);
    for nothing in [
        "uuuu",
        "é",
        "1111",
        &format!("0{text}"),
        &id(9, 1, 1).to_string(),
    ] {
        assert_eq!(find(nothing, 9), [], "{nothing}");
    }
}

fn lists_go_by_creation(store: &dyn Store) {
    let made = |millis: i64, id: RunId| RunRow {
        created_at: Time(millis * 1000),
        ..row(id, "w", RunStatus::Running)
    };
    // The middle one was made by a key: its id has no time.
    let rows = [
        made(1_000, id(1_000, 1, 1)),
        made(2_000, id(0, 1, 2)),
        made(3_000, id(3_000, 1, 3)),
    ];
    wrote(store, vec![], rows.to_vec());
    let list = |filter: RunFilter| {
        let rows = store.list_runs(&filter, 9).expect("list");
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let ids = |places: &[usize]| {
        places
            .iter()
            .map(|place| rows[*place].id)
            .collect::<Vec<_>>()
    };
    for workflow in [None, Some(Arc::from("w"))] {
        let filter = RunFilter {
            workflow,
            ..RunFilter::default()
        };
        assert_eq!(list(filter.clone()), ids(&[2, 1, 0]));
        let before = |place: usize| RunFilter {
            before: Some(rows[place].id.into()),
            ..filter.clone()
        };
        assert_eq!(list(before(2)), ids(&[1, 0]));
        assert_eq!(list(before(1)), ids(&[0]));
        let since = RunFilter {
            since: Some(Time(2_000_000)),
            ..filter
        };
        assert_eq!(list(since), ids(&[2, 1]));
    }
    assert_eq!(store.find_runs("", 9).expect("find"), ids(&[2, 1, 0]));
    // A row that says another time moves.
    wrote(store, vec![], vec![made(4_000, rows[0].id)]);
    assert_eq!(list(RunFilter::default()), ids(&[0, 2, 1]));
}

fn a_list_goes_on_after_a_run_that_is_gone(store: &dyn Store) {
    let rows: Vec<RunRow> = (1..=4)
        .map(|millis| RunRow {
            created_at: Time(millis * 1000),
            ..row(id(millis, 1, 1), "w", RunStatus::Failed)
        })
        .collect();
    wrote(store, vec![], rows.clone());
    store.delete_runs(&[rows[2].id]).expect("delete");
    let filter = RunFilter {
        before: Some(rows[2].id.into()),
        ..RunFilter::default()
    };
    let rest = store.list_runs(&filter, 9).expect("list");
    assert_eq!(rest, [rows[1].clone(), rows[0].clone()]);
}

fn a_place_stays_when_its_run_with_a_derived_id_is_gone(store: &dyn Store) {
    let rows: Vec<RunRow> = (1..=4)
        .map(|millis| RunRow {
            created_at: Time(millis * 1000),
            // No time is in it.
            ..row(
                id(0, 1, millis.unsigned_abs().into()),
                "w",
                RunStatus::Failed,
            )
        })
        .collect();
    wrote(store, vec![], rows.clone());
    let page = store.search_runs(&RunFilter::default(), 2).expect("search");
    assert_eq!(page.rows, [rows[3].clone(), rows[2].clone()]);
    store
        .delete_runs(&[rows[3].id, rows[2].id])
        .expect("delete");
    let filter = RunFilter {
        before: page.next,
        ..RunFilter::default()
    };
    assert!(filter.before.is_some());
    let rest = store.search_runs(&filter, 9).expect("search").rows;
    assert_eq!(rest, [rows[1].clone(), rows[0].clone()]);
}

fn counts_follow_every_change(store: &dyn Store) {
    let check = |rows: &[RunRow]| {
        for namespace in ["default", "other", "nowhere"] {
            let mut expected = BTreeMap::new();
            for row in rows.iter().filter(|row| *row.namespace == *namespace) {
                *expected
                    .entry((row.workflow.clone(), row.status))
                    .or_insert(0_u64) += 1;
            }
            let counts = store.run_counts(namespace).expect("counts").into_iter();
            let counts: Vec<_> = counts
                .map(|(workflow, status, count)| ((workflow, status), count))
                .collect();
            assert_eq!(counts, expected.into_iter().collect::<Vec<_>>());
        }
    };
    let mut rows = many(store);
    check(&rows);
    for (place, row) in rows.iter_mut().enumerate() {
        row.status = RunStatus::ALL[place % 4 + 3];
        row.ended_at = row.status.ended().then_some(Time(9));
    }
    wrote(store, vec![], rows.clone());
    check(&rows);
    let ended: Vec<RunId> = rows
        .iter()
        .filter(|row| row.status.ended())
        .map(|row| row.id)
        .collect();
    store.delete_runs(&ended).expect("delete");
    rows.retain(|row| !row.status.ended());
    check(&rows);
}

fn expired_runs_come_by_their_end(store: &dyn Store) {
    let rows = many(store);
    // Ended, but nobody knows when: never expires.
    let odd = RunRow {
        ended_at: None,
        ..row(id(1, 1, 77), "a", RunStatus::Failed)
    };
    let unended = RunRow {
        ended_at: Some(Time(1)),
        ..row(id(1, 1, 78), "a", RunStatus::Running)
    };
    wrote(store, vec![], vec![odd, unended]);
    for workflow in [
        None,
        Some(("default", "a")),
        Some(("other", "b")),
        Some(("default", "nowhere")),
    ] {
        for before in [Time(0), Time(50), Time(i64::MAX)] {
            let mut expected: Vec<(Time, RunId)> = rows
                .iter()
                .filter(|row| workflow.is_none_or(|of| of == (&*row.namespace, &*row.workflow)))
                .filter_map(|row| Some((row.ended_at?, row.id)))
                .filter(|(at, _)| *at < before)
                .collect();
            expected.sort_unstable();
            let expected: Vec<RunId> = expected.into_iter().map(|(_, id)| id).collect();
            for limit in [0, 1, 10, 1000] {
                let expired = store
                    .expired_runs(workflow, before, limit)
                    .expect("expired");
                assert_eq!(expired, expected[..limit.min(expected.len())]);
            }
        }
    }
}

fn deleting_takes_ended_runs(store: &dyn Store) {
    let (ended, running, unknown) = (id(1, 1, 1), id(2, 1, 2), id(3, 1, 3));
    for (run, status) in [(ended, RunStatus::Succeeded), (running, RunStatus::Running)] {
        let mut write = append(run, 1, "x");
        write.snapshot = Some(b"state".to_vec());
        write.pages = vec![(1, b"page".to_vec())];
        write.wake_at = Some(Time(1));
        wrote(store, vec![write], vec![row(run, "w", status)]);
    }
    assert_eq!(store.delete_runs(&[]).expect("delete"), 0);
    assert_eq!(
        store
            .delete_runs(&[ended, running, unknown, ended])
            .expect("delete"),
        1
    );
    let key = EntityKey::from(ended);
    assert_eq!(store.run(ended).expect("run"), None);
    assert_eq!(store.load(&key).expect("load"), None);
    assert_eq!(store.history(&key, 0, 9).expect("history"), []);
    assert_eq!(store.page(&key, 1).expect("page"), None);
    assert_eq!(
        store.due(Time(9), None, 9).expect("due"),
        [(Time(1), running.into())]
    );
    assert_eq!(
        store
            .expired_runs(None, Time(i64::MAX), 9)
            .expect("expired"),
        []
    );
    assert_eq!(store.find_runs("", 9).expect("find"), [running]);
    assert_eq!(
        store.run_counts("default").expect("counts"),
        [(Arc::from("w"), RunStatus::Running, 1)]
    );
    assert!(store.load(&running.into()).expect("load").is_some());
    // A run that ends later is deleted then.
    let end = EntityWrite {
        wake_at: None,
        ..append(running, 2, "end")
    };
    wrote(
        store,
        vec![end],
        vec![row(running, "w", RunStatus::Cancelled)],
    );
    assert_eq!(store.delete_runs(&[running]).expect("delete"), 1);
    assert_eq!(store.run_counts("default").expect("counts"), []);
}
