//! Catch-up and backfill starts under each strategy.

use kapell_model::RunStatus::{self, Failed, Succeeded};

use super::StartClass::{Backfill, Catchup};
use super::*;

mod changes;
mod hold;
mod why;

struct Bench {
    queue: RunQueue,
    mode: StrategyMode,
    now: i64,
    told: Vec<(u128, &'static str)>,
}

impl Bench {
    fn new(mode: StrategyMode) -> Self {
        Self {
            queue: RunQueue::default(),
            mode,
            now: 0,
            told: Vec::new(),
        }
    }

    fn tell(&mut self, message: &Message) {
        self.now += 1;
        let mut again = RunQueue::from_snapshot(&self.queue.snapshot()).unwrap();
        let decided = self.queue.decide(Some(message), Time(self.now));
        for event in &decided.events {
            again.apply(event);
        }
        assert_eq!(again, self.queue);
        self.hears(decided.messages);
    }

    fn hears(&mut self, messages: Vec<(EntityKey, Message)>) {
        for (to, message) in messages {
            let EntityKey::Run(run) = to else {
                panic!("{to:?}")
            };
            let what = match message {
                Message::Admitted { .. } => "admitted",
                Message::Discarded { .. } => "discarded",
                Message::Superseded { .. } => "superseded",
                other => panic!("{other:?}"),
            };
            self.told.push((run.0, what));
        }
    }

    fn entry(&self, run: u128, class: StartClass, due: i64) -> Entry {
        Entry {
            run: RunId(run),
            rule: Rule {
                mode: self.mode,
                limit: 1,
                ..Rule::default()
            },
            class,
            scheduled_at: Time(due),
            created_at: Time(i64::try_from(run).unwrap()),
            ..Entry::default()
        }
    }

    fn start(&mut self, run: u128, class: StartClass, due: i64) {
        let entry = self.entry(run, class, due);
        self.tell(&Message::Enqueue(Box::new(entry)));
    }

    fn regular(&mut self, run: u128) {
        self.start(run, StartClass::Regular, 0);
    }

    fn ends(&mut self, run: u128, status: RunStatus) {
        self.tell(&Message::RunEnded {
            run: RunId(run),
            status,
            by_person: false,
            success: None,
            blocks: None,
        });
    }

    fn heard(&mut self) -> Vec<(u128, &'static str)> {
        std::mem::take(&mut self.told)
    }
}

#[test]
fn catch_up_goes_in_due_order_and_backfill_last() {
    for mode in [StrategyMode::Parallel, StrategyMode::Sequential] {
        let mut bench = Bench::new(mode);
        bench.regular(1);
        bench.start(2, Backfill, 10);
        bench.start(3, Catchup, 30);
        bench.start(4, Catchup, 20);
        bench.regular(5);
        bench.start(6, Catchup, 25);
        bench.start(7, Backfill, 5);
        for run in [1, 4, 3, 5, 6, 2, 7] {
            assert_eq!(bench.heard(), [(run, "admitted")], "{mode:?}");
            bench.ends(run, Succeeded);
        }
    }
}

#[test]
fn where_starts_are_discarded_catch_up_and_backfill_wait_until_nothing_else_is_there() {
    for mode in [
        StrategyMode::FirstOnly,
        StrategyMode::LastOnly,
        StrategyMode::SerialLatest,
    ] {
        let mut bench = Bench::new(mode);
        bench.regular(1);
        bench.start(2, Backfill, 10);
        bench.start(3, Catchup, 30);
        bench.start(4, Catchup, 20);
        assert_eq!(
            bench.heard(),
            [(1, "admitted")],
            "they stop nobody: {mode:?}"
        );
        bench.ends(1, Succeeded);
        for run in [4, 3, 2] {
            assert_eq!(bench.heard(), [(run, "admitted")], "{mode:?}");
            bench.ends(run, Succeeded);
        }
    }
}

#[test]
fn a_regular_start_goes_before_those_that_wait() {
    for mode in [StrategyMode::LastOnly, StrategyMode::SerialLatest] {
        let mut bench = Bench::new(mode);
        bench.start(1, Catchup, 10);
        bench.start(2, Catchup, 20);
        bench.start(3, Backfill, 5);
        bench.regular(4);
        bench.regular(5);
        // Nobody stops the one that runs, and of the regular ones the newest stays.
        assert_eq!(
            bench.heard(),
            [(1, "admitted"), (4, "discarded")],
            "{mode:?}"
        );
        bench.ends(1, Succeeded);
        for run in [5, 2, 3] {
            assert_eq!(bench.heard(), [(run, "admitted")], "{mode:?}");
            bench.ends(run, Succeeded);
        }
    }
}

#[test]
fn under_first_only_a_catch_up_that_is_active_discards_and_one_that_waits_does_not() {
    let mut bench = Bench::new(StrategyMode::FirstOnly);
    bench.start(1, Catchup, 10);
    bench.regular(2);
    assert_eq!(bench.heard(), [(1, "admitted"), (2, "discarded")]);
}

#[test]
fn a_catch_up_is_no_part_of_a_burst() {
    let mut bench = Bench::new(StrategyMode::Sequential);
    let mut entry = bench.entry(1, Catchup, 10);
    entry.rule.quiet = 1_000;
    bench.tell(&Message::Enqueue(Box::new(entry)));
    assert_eq!(bench.heard(), [(1, "admitted")]);
}

#[test]
fn a_failed_backfill_run_does_not_block_a_strict_queue() {
    let mut bench = Bench::new(StrategyMode::StrictSequential);
    bench.start(1, Backfill, 10);
    bench.start(2, Backfill, 20);
    bench.start(3, Catchup, 30);
    bench.ends(1, Failed);
    assert_eq!(bench.heard(), [(1, "admitted"), (3, "admitted")]);
    bench.ends(3, Failed);
    assert_eq!(bench.heard(), [], "a catch-up run that failed blocks");
    let again = bench.entry(3, Catchup, 30);
    bench.tell(&Message::Reenter(Box::new(again)));
    assert_eq!(bench.heard(), [(3, "admitted")]);
    bench.ends(3, Succeeded);
    assert_eq!(bench.heard(), [(2, "admitted")]);
}
