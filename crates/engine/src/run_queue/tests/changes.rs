//! What a change of strategy, a pause, a retry and a deletion do to what is active and to what waits.

use super::*;

impl Bench {
    fn key() -> EntityKey {
        EntityKey::RunQueue {
            namespace: "default".into(),
            workflow: "w".into(),
            key: "".into(),
        }
    }

    fn asks(&mut self, ask: Ask) -> Result<(), Error> {
        self.now += 1;
        let mut again = RunQueue::from_snapshot(&self.queue.snapshot()).unwrap();
        let ask = SmallInput::Ask(ask);
        let decided = Small::decide(&mut self.queue, &Self::key(), ask, Time(self.now))?;
        again.replay(&decided.chunk).unwrap();
        assert_eq!(again, self.queue);
        self.hears(decided.messages);
        Ok(())
    }

    fn changes(&mut self, change: Change) {
        self.asks(Ask::Change(Box::new(change))).unwrap();
    }

    fn strategy(&mut self, mode: StrategyMode, limit: Option<u32>) {
        let bounds = Bounds {
            mode,
            limit,
            total: None,
        };
        self.changes(Change {
            strategy: Some(Some(bounds)),
            rule: Some(bounds.rule()),
            ..Change::default()
        });
        self.mode = mode;
    }

    fn pauses(&mut self, paused: bool) {
        self.changes(Change {
            paused: Some(paused.then(|| "ann".to_owned())),
            ..Change::default()
        });
    }

    fn retries(&mut self, run: u128) {
        let entry = self.entry(run, StartClass::Regular, 0);
        self.tell(&Message::Reenter(Box::new(entry)));
    }

    fn why(&self, run: u128) -> String {
        self.queue.why("w", RunId(run)).unwrap_or_default()
    }

    fn fails(&mut self, run: u128) {
        self.ends(run, Failed);
    }
}

fn discards(queue: &RunQueue) -> Vec<(u128, &str)> {
    let discards = queue.discards.iter();
    discards
        .map(|discard| (discard.run.0, &*discard.reason))
        .collect()
}

#[test]
fn under_last_only_each_newer_start_says_so_to_the_active_run() {
    let mut bench = Bench::new(StrategyMode::Sequential);
    bench.regular(1);
    bench.regular(2);
    bench.strategy(StrategyMode::LastOnly, None);
    assert_eq!(bench.heard(), [(1, "admitted")], "a change stops nobody");
    bench.regular(3);
    assert_eq!(bench.heard(), [(1, "superseded"), (2, "discarded")]);
    bench.ends(1, RunStatus::Cancelled);
    assert_eq!(bench.heard(), [(3, "admitted")]);
}

#[test]
fn of_what_waits_a_change_keeps_what_the_new_mode_would_have_kept() {
    for (mode, stays) in [
        (StrategyMode::LastOnly, 4),
        (StrategyMode::SerialLatest, 4),
        (StrategyMode::FirstOnly, 2),
    ] {
        let mut bench = Bench::new(StrategyMode::Sequential);
        for run in 1..=4 {
            bench.regular(run);
        }
        bench.start(9, Catchup, 5);
        bench.heard();
        bench.strategy(mode, None);
        let dropped: Vec<u128> = (2..=4).filter(|run| *run != stays).collect();
        let heard: Vec<_> = dropped.iter().map(|run| (*run, "discarded")).collect();
        assert_eq!(bench.heard(), heard, "{mode:?}");
        assert_eq!(discards(&bench.queue).len(), 2);
        bench.ends(1, Succeeded);
        assert_eq!(bench.heard(), [(stays, "admitted")], "{mode:?}");
        bench.ends(stays, Succeeded);
        assert_eq!(bench.heard(), [(9, "admitted")], "never discarded");
    }
}

#[test]
fn runs_that_went_past_the_queue_are_counted_before_another_may_have_to_wait() {
    let mut bench = Bench::new(StrategyMode::Parallel);
    assert_eq!(bench.queue.rule(None), None, "every start goes at once");
    bench.strategy(StrategyMode::Sequential, None);
    let entry = bench.entry(3, StartClass::Regular, 0);
    let start = Message::Enqueue(Box::new(entry));
    assert!(bench.queue.must_count(&start));
    bench.tell(&Message::Active(vec![RunId(1), RunId(2)]));
    assert!(!bench.queue.must_count(&start));
    bench.tell(&start);
    bench.ends(2, Succeeded);
    assert_eq!(bench.heard(), []);
    bench.ends(1, Succeeded);
    assert_eq!(bench.heard(), [(3, "admitted")]);
    assert!(bench.queue.rule(None).is_some(), "nothing goes past it now");
    bench.strategy(StrategyMode::Parallel, None);
    assert_eq!(bench.queue.rule(None), None);
    assert!(!bench.queue.must_count(&start), "nobody waits for others");
}

#[test]
fn a_block_ends_where_the_strategy_is_strict_no_more() {
    let mut bench = Bench::new(StrategyMode::StrictSequential);
    bench.regular(1);
    bench.fails(1);
    bench.regular(2);
    bench.regular(3);
    assert_eq!(bench.heard(), [(1, "admitted")]);
    bench.strategy(StrategyMode::Parallel, Some(1));
    assert_eq!(bench.heard(), [(2, "admitted")]);
    assert_eq!(bench.queue.blocking().count(), 0);
    assert_eq!(
        bench.why(3),
        format!(
            "the run waits for its turn: 1 of at most 1 active ({}), 0 waiting before it",
            RunId(2)
        )
    );
    bench.retries(1);
    assert_eq!(bench.heard(), [], "there is no room for it");
    bench.ends(2, Succeeded);
    bench.ends(3, Succeeded);
    assert_eq!(bench.heard(), [(3, "admitted"), (1, "admitted")]);
}

#[test]
fn a_failure_blocks_nobody_once_the_strategy_is_strict_no_more() {
    let mut bench = Bench::new(StrategyMode::StrictSequential);
    bench.regular(1);
    bench.regular(2);
    bench.strategy(StrategyMode::Sequential, None);
    bench.fails(1);
    assert_eq!(bench.heard(), [(1, "admitted"), (2, "admitted")]);
    assert_eq!(bench.queue.blocking().count(), 0);
}

#[test]
fn a_retried_run_takes_its_old_place_where_order_is_strict() {
    let mut bench = Bench::new(StrategyMode::StrictSequential);
    bench.regular(1);
    bench.fails(1);
    bench.queue.dismiss(RunId(1), Time(9)).unwrap();
    for run in 2..=4 {
        bench.regular(run);
    }
    bench.fails(2);
    bench.retries(1);
    assert_eq!(bench.heard(), [(1, "admitted"), (2, "admitted")]);
    bench.retries(2);
    bench.ends(2, Succeeded);
    for run in [1, 3, 4] {
        bench.ends(run, Succeeded);
    }
    let order = [2, 1, 3, 4].map(|run| (run, "admitted"));
    assert_eq!(
        bench.heard(),
        order,
        "who blocks goes first, then by creation"
    );
}

#[test]
fn a_retry_in_a_paused_workflow_waits_in_front_of_its_line() {
    let mut bench = Bench::new(StrategyMode::StrictSequential);
    bench.regular(1);
    bench.regular(2);
    bench.fails(1);
    bench.pauses(true);
    bench.retries(1);
    assert_eq!(bench.heard(), [(1, "admitted")]);
    assert!(
        bench
            .why(1)
            .ends_with("`kapell workflow resume w` lets it start"),
        "{}",
        bench.why(1)
    );
    bench.pauses(false);
    assert_eq!(bench.heard(), [(1, "admitted")]);
    assert_eq!(
        bench.why(2),
        format!(
            "the run waits for its turn: 1 of at most 1 active ({}), 0 waiting before it",
            RunId(1)
        )
    );
}

#[test]
fn a_blocking_run_that_is_cancelled_while_it_waits_blocks_no_more() {
    let mut bench = Bench::new(StrategyMode::StrictSequential);
    bench.regular(1);
    bench.regular(2);
    bench.ends(1, RunStatus::TimedOut);
    assert_eq!(
        bench.why(2),
        format!(
            "the run waits: the workflow is strict_sequential and run {0} timed out; `kapell retry \
             {0}` or `kapell dismiss {0}` lets it go on",
            RunId(1)
        )
    );
    bench.pauses(true);
    bench.retries(1);
    bench.tell(&Message::RunEnded {
        run: RunId(1),
        status: RunStatus::Cancelled,
        by_person: true,
        success: None,
        blocks: None,
    });
    bench.pauses(false);
    assert_eq!(bench.heard(), [(1, "admitted"), (2, "admitted")]);
}

#[test]
fn a_line_is_freed_by_its_key_too() {
    let mut bench = Bench::new(StrategyMode::StrictSequential);
    bench.regular(1);
    bench.regular(2);
    let dismiss = |key: &str| Ask::Dismiss {
        key: key.into(),
        by: "ann".to_owned(),
    };
    let refused = bench.asks(dismiss("")).unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotAllowedNow);
    bench.fails(1);
    assert!(bench.asks(dismiss("other")).is_err());
    bench.asks(dismiss("")).unwrap();
    assert_eq!(bench.heard(), [(1, "admitted"), (2, "admitted")]);
}

#[test]
fn the_strategy_in_force_decides_whether_a_retry_is_refused() {
    let mut bench = Bench::new(StrategyMode::Parallel);
    let rule = bench.entry(0, StartClass::Regular, 0).rule;
    bench.strategy(StrategyMode::FirstOnly, None);
    bench.regular(1);
    let retry = |bench: &Bench, version| bench.queue.may_reenter(RunId(7), "", version);
    assert!(retry(&bench, None).is_err());
    bench.strategy(StrategyMode::Parallel, None);
    let first = Rule {
        mode: StrategyMode::FirstOnly,
        ..rule
    };
    assert!(retry(&bench, Some(first)).is_ok());
    bench.changes(Change {
        delete: true,
        ..Change::default()
    });
    assert!(retry(&bench, Some(first)).is_err(), "nothing of it starts");
}

#[test]
fn what_waits_of_a_deleted_workflow_is_discarded() {
    let mut bench = Bench::new(StrategyMode::Sequential);
    bench.regular(1);
    let waiting = u128::try_from(limits::QUEUE_SWEEP).unwrap() + 3;
    for run in 2..2 + waiting {
        bench.regular(run);
    }
    bench.heard();
    bench.changes(Change {
        delete: true,
        ..Change::default()
    });
    assert_eq!(bench.heard().len(), limits::QUEUE_SWEEP);
    let rest = bench.queue.decide(None, bench.queue.wake_at().unwrap());
    assert_eq!(rest.messages.len(), 3);
    assert_eq!(bench.queue.wake_at(), None);
    bench.ends(1, Succeeded);
    assert!(bench.queue.runs.is_empty());
    assert_eq!(bench.queue.discards.len(), limits::QUEUE_DISCARDS);
    assert_eq!(discards(&bench.queue)[0].1, "its workflow was deleted");
}

#[test]
fn why_names_what_keeps_a_run_from_starting() {
    let mut bench = Bench::new(StrategyMode::Sequential);
    for (run, key) in [(1, "a"), (2, "b"), (3, "c"), (4, "a")] {
        let mut entry = bench.entry(run, StartClass::Regular, 0);
        entry.key = key.into();
        entry.rule.total = 2;
        bench.tell(&Message::Enqueue(Box::new(entry)));
    }
    let [one, two] = [RunId(1), RunId(2)];
    assert_eq!(
        bench.why(3),
        format!(
            "the run waits for its turn of key `c`: 2 of at most 2 active over all keys ({one}, \
             {two}), 0 waiting before it"
        )
    );
    assert_eq!(
        bench.why(4),
        format!(
            "the run waits for its turn of key `a`: 1 of at most 1 active ({one}), 0 waiting before it"
        )
    );
}

#[test]
fn a_start_that_first_only_drops_while_paused_hears_who_waits() {
    let mut bench = Bench::new(StrategyMode::FirstOnly);
    bench.pauses(true);
    bench.regular(1);
    bench.regular(2);
    let reason = format!("first_only: run {} came before it, and waits", RunId(1));
    assert_eq!(discards(&bench.queue), [(2, &*reason)]);
}

#[test]
fn a_decision_looks_at_no_more_lines_where_there_are_more() {
    let mut most = Vec::new();
    for lines in [10_u128, 2_000] {
        let mut bench = Bench::new(StrategyMode::Sequential);
        let mut looked = 0;
        for run in 0..3 * lines {
            let mut entry = bench.entry(run, StartClass::Regular, 0);
            entry.key = (run % lines).to_string().into();
            entry.rule.quiet = i64::from(run >= 2 * lines) * 1_000_000;
            let start = Message::Enqueue(Box::new(entry));
            looked = looked.max(bench.queue.decide(Some(&start), Time(1)).looked);
        }
        for run in 0..lines {
            let ended = Message::RunEnded {
                run: RunId(run),
                status: Succeeded,
                by_person: false,
                success: None,
                blocks: None,
            };
            let decided = bench.queue.decide(Some(&ended), Time(2));
            assert_eq!(decided.messages.len(), 1, "the next of its line");
            looked = looked.max(decided.looked);
        }
        most.push(looked);
    }
    assert_eq!(most[0], most[1]);
    assert!(most[0] <= 3, "{most:?}");
}

#[test]
fn a_dismissal_without_a_key_names_the_keys_that_are_blocked() {
    let mut bench = Bench::new(StrategyMode::StrictSequential);
    let start = |bench: &mut Bench, run: u128, key: &str| {
        let entry = Entry {
            key: key.into(),
            ..bench.entry(run, StartClass::Regular, 0)
        };
        bench.tell(&Message::Enqueue(Box::new(entry)));
    };
    let dismiss = |bench: &mut Bench, key: &str| {
        let (key, by) = (key.into(), "ann".to_owned());
        bench
            .asks(Ask::Dismiss { key, by })
            .map_err(|error| error.message)
    };
    let refused = dismiss(&mut bench, "").unwrap_err();
    assert_eq!(refused, "no run blocks the run queue of `w`");
    for (run, key) in [(1, "a"), (2, "b")] {
        start(&mut bench, run, key);
        bench.fails(run);
    }
    let refused = dismiss(&mut bench, "").unwrap_err();
    assert!(
        refused.ends_with("runs block those of the keys `a`, `b`"),
        "{refused}"
    );
    dismiss(&mut bench, "a").unwrap();
    let refused = dismiss(&mut bench, "").unwrap_err();
    assert!(
        refused.ends_with("a run blocks those of key `b`"),
        "{refused}"
    );
}

#[test]
fn a_line_is_shown_with_its_own_discarded_runs() {
    let mut bench = Bench::new(StrategyMode::FirstOnly);
    for (run, key) in [(1, "a"), (2, "b"), (3, "a"), (4, "b"), (5, "b")] {
        let entry = Entry {
            key: key.into(),
            ..bench.entry(run, StartClass::Regular, 0)
        };
        bench.tell(&Message::Enqueue(Box::new(entry)));
    }
    let discarded = |key: Option<&str>| {
        let which = LinesAsk {
            key: key.map(Into::into),
            after: None,
        };
        let view = bench.queue.view("w", &which).to_json();
        let runs = view["discarded"].as_array().unwrap();
        let runs = runs.iter().map(|of| of["run"].as_str().unwrap().to_owned());
        runs.collect::<Vec<_>>()
    };
    let names =
        |runs: &[u128]| -> Vec<String> { runs.iter().map(|run| RunId(*run).to_string()).collect() };
    assert_eq!(discarded(Some("a")), names(&[3]));
    assert_eq!(discarded(Some("b")), names(&[5, 4]));
    assert_eq!(discarded(None), names(&[5, 4, 3]));
}
