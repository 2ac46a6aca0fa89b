//! Backfills that start nothing: their runs that wait here wait on, and others go past them.

use super::*;

impl Bench {
    fn of_backfill(&mut self, run: u128, backfill: &str) {
        let entry = Entry {
            backfill: Some(backfill.into()),
            ..self.entry(run, Backfill, 10)
        };
        self.tell(&Message::Enqueue(Box::new(entry)));
    }

    fn holds(&mut self, backfill: &str, hold: Option<Hold>) {
        let backfill = backfill.into();
        self.tell(&Message::BackfillHeld { backfill, hold });
    }

    fn why_of(&self, run: u128) -> String {
        self.queue.why("w", RunId(run)).unwrap_or_default()
    }
}

#[test]
fn runs_of_a_paused_backfill_wait_and_others_start() {
    for mode in [StrategyMode::Parallel, StrategyMode::Sequential] {
        let mut bench = Bench::new(mode);
        for (run, backfill) in [(1, "one"), (2, "one"), (3, "one"), (4, "two")] {
            bench.of_backfill(run, backfill);
        }
        bench.holds("one", Some(Hold::Paused("ann".to_owned())));
        bench.ends(1, Succeeded);
        assert_eq!(
            bench.heard(),
            [(1, "admitted"), (4, "admitted")],
            "{mode:?}"
        );
        let why = bench.why_of(2);
        assert!(
            why.contains("its backfill `one` was paused by ann; `kapell backfill resume w one`"),
            "{why}"
        );
        bench.regular(5);
        bench.ends(4, Succeeded);
        bench.ends(5, Succeeded);
        assert_eq!(bench.heard(), [(5, "admitted")]);
        bench.holds("one", None);
        bench.ends(2, Succeeded);
        assert_eq!(bench.heard(), [(2, "admitted"), (3, "admitted")]);
        assert!(bench.queue.holds.is_empty());
    }
}

#[test]
fn a_failed_run_of_a_backfill_holds_the_rest_at_once_but_for_what_is_retried() {
    let mut bench = Bench::new(StrategyMode::StrictSequential);
    for run in [1, 2, 3] {
        bench.of_backfill(run, "one");
    }
    bench.tell(&Message::RunEnded {
        run: RunId(1),
        status: Failed,
        by_person: false,
        success: None,
        blocks: Some("one".into()),
    });
    assert_eq!(bench.heard(), [(1, "admitted")], "the next one waits");
    let why = bench.why_of(2);
    assert!(
        why.contains(&format!("run {} of its backfill `one` failed", RunId(1))),
        "{why}"
    );
    bench.holds("one", Some(Hold::Blocked(RunId(1))));
    let entry = Entry {
        backfill: Some("one".into()),
        ..bench.entry(1, Backfill, 10)
    };
    bench.tell(&Message::Reenter(Box::new(entry)));
    assert_eq!(bench.heard(), [(1, "admitted")]);
    bench.ends(1, Succeeded);
    bench.holds("one", None);
    assert_eq!(bench.heard(), [(2, "admitted")]);
}

#[test]
fn a_failure_holds_nothing_where_nothing_of_its_backfill_waits() {
    let mut bench = Bench::new(StrategyMode::StrictSequential);
    bench.of_backfill(1, "one");
    bench.of_backfill(2, "two");
    bench.tell(&Message::RunEnded {
        run: RunId(1),
        status: Failed,
        by_person: false,
        success: None,
        blocks: Some("one".into()),
    });
    assert_eq!(bench.heard(), [(1, "admitted"), (2, "admitted")]);
    assert!(bench.queue.holds.is_empty());
}
