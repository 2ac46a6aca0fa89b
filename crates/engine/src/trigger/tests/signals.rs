//! Triggers that listen.

use kapell_expr::Value;
use kapell_model::spec::{SignalSource, SignalTrigger, Webhook};

use super::*;
use crate::message::Signal;

pub(super) fn payload(fields: &[(&str, i64)]) -> Value {
    Value::map(
        fields
            .iter()
            .map(|(name, value)| (name, Value::Int(*value))),
    )
}

pub(super) fn signal(name: &str, id: &str, payload: Value, sent_at: &str) -> Signal {
    Signal {
        id: id.into(),
        name: name.into(),
        key: Value::Null,
        payload,
        sent_at: at(sent_at),
        hops: 2,
        by: "run 7".into(),
    }
}

fn source(alias: &str, name: &str, matches: Option<&str>, key: Option<&str>) -> SignalSource {
    SignalSource {
        alias: alias.into(),
        signal: name.into(),
        matches: matches.map(|text| Program::parse(text).unwrap()),
        key: key.map(|text| Template::parse(text).unwrap()),
    }
}

fn by_signals(sources: Vec<SignalSource>, with: &str) -> spec::Trigger {
    spec::Trigger {
        kind: TriggerKind::Signal(Box::new(SignalTrigger {
            sources,
            within: Some(SignedDuration::from_hours(24)),
            dedupe: None,
        })),
        with: Some(Template::parse(with).unwrap()),
        ..on(hourly())
    }
}

pub(super) const NOW: &str = "2026-05-01T10:00:00Z";

impl Bench {
    pub(super) fn signal(
        &mut self,
        name: &str,
        id: &str,
        fields: &[(&str, i64)],
        now: &str,
    ) -> usize {
        let before = self.starts.len();
        let signal = signal(name, id, payload(fields), now);
        self.tell(Message::Signal(Arc::new(signal)), now);
        self.starts.len() - before
    }
}

pub(super) fn hook() -> spec::Trigger {
    spec::Trigger {
        kind: TriggerKind::Webhook(Webhook {
            path: "hook".into(),
            secret: None,
            dedupe: None,
        }),
        with: Some(Template::parse("${{ {'n': signal.payload.n} }}").unwrap()),
        ..on(hourly())
    }
}

pub(super) fn orders() -> spec::Trigger {
    by_signals(
        vec![source(
            "",
            "orders",
            Some("signal.payload.table == 1"),
            None,
        )],
        "${{ {'day': signal.payload.day} }}",
    )
}

#[test]
fn a_signal_that_matches_starts_a_run() {
    let mut bench = Bench::new(orders(), NOW);
    let topic = EntityKey::Topic {
        namespace: "default".into(),
        name: "orders".into(),
    };
    assert!(
        matches!(&bench.others[..], [(to, Message::Subscribe(of))] if *to == topic && of.who == key())
    );
    assert_eq!(
        bench.signal("orders", "a", &[("table", 1), ("day", 4)], NOW),
        1
    );
    assert_eq!(
        bench.signal("orders", "b", &[("table", 2), ("day", 4)], NOW),
        0
    );
    // What is not there is not equal.
    assert_eq!(bench.signal("orders", "c", &[("day", 4)], NOW), 0);
    assert_eq!(bench.trigger.state.refused, 0);
    let start = &bench.starts[0];
    assert_eq!((start.kind, &*start.by, start.hops), ("signal", "run 7", 2));
    assert_eq!(*field(&start.params, "day"), Value::Int(4));
    assert_eq!(start.scheduled_at, at(NOW));
    bench.tell(Message::TriggerRemoved, NOW);
    assert!(matches!(&bench.others[1], (to, Message::Unsubscribe { .. }) if *to == topic));
    assert_eq!(
        bench.signal("orders", "d", &[("table", 1), ("day", 4)], NOW),
        0
    );
}

#[test]
fn other_signals_than_before_are_listened_to_anew() {
    let mut bench = Bench::new(orders(), NOW);
    bench.set(2, orders(), NOW);
    assert_eq!(bench.others.len(), 1, "another version with the same");
    let rates = by_signals(vec![source("", "rates", None, None)], "${{ {} }}");
    bench.set(3, rates, NOW);
    assert!(matches!(&bench.others[1].1, Message::Unsubscribe { .. }));
    assert!(matches!(&bench.others[2].1, Message::Subscribe(_)));
}

fn joined() -> spec::Trigger {
    by_signals(
        vec![
            source("orders", "orders", None, Some("${{ signal.payload.day }}")),
            source("rates", "rates", None, Some("${{ signal.payload.date }}")),
        ],
        "${{ {'order': signals.orders.id, 'rate': signals.rates.id} }}",
    )
}

#[test]
fn signals_are_joined_on_equal_keys_the_oldest_first_and_used_once() {
    let mut bench = Bench::new(joined(), NOW);
    assert_eq!(bench.signal("orders", "o1", &[("day", 1)], NOW), 0);
    assert_eq!(bench.signal("orders", "o2", &[("day", 1)], NOW), 0);
    assert_eq!(bench.signal("rates", "r2", &[("date", 2)], NOW), 0);
    assert_eq!(bench.signal("rates", "none", &[("day", 1)], NOW), 0);
    assert_eq!(bench.signal("rates", "r1", &[("date", 1)], NOW), 1);
    assert_eq!(
        *field(&bench.starts[0].params, "order"),
        Value::string("o1")
    );
    assert_eq!(bench.signal("rates", "r3", &[("date", 1)], NOW), 1);
    assert_eq!(
        *field(&bench.starts[1].params, "order"),
        Value::string("o2")
    );
    assert_eq!(*field(&bench.starts[1].params, "rate"), Value::string("r3"));
    assert_eq!(bench.signal("rates", "r4", &[("date", 1)], NOW), 0);
    assert_eq!(bench.signal("orders", "o3", &[("day", 2)], NOW), 1);
    assert_eq!(bench.trigger.state.pending.len(), 1);
}

#[test]
fn signals_too_far_apart_are_not_joined() {
    let mut bench = Bench::new(joined(), NOW);
    bench.signal("orders", "o1", &[("day", 1)], NOW);
    assert_eq!(
        bench.signal("rates", "r1", &[("date", 1)], "2026-05-02T10:00:01Z"),
        0
    );
    assert_eq!(
        bench.signal("orders", "o2", &[("day", 1)], "2026-05-03T10:00:00Z"),
        1
    );
}

#[test]
fn numbers_that_are_equal_join_whatever_their_types() {
    let mut bench = Bench::new(joined(), NOW);
    let tell = |bench: &mut Bench, name: &str, field: &str, value: Value| {
        let payload = Value::map([(field, value)]);
        bench.tell(
            Message::Signal(Arc::new(signal(name, name, payload, NOW))),
            NOW,
        );
        bench.starts.len()
    };
    assert_eq!(tell(&mut bench, "orders", "day", Value::Int(1)), 0);
    assert_eq!(tell(&mut bench, "rates", "date", Value::string("1")), 0);
    assert_eq!(tell(&mut bench, "rates", "date", Value::Float(1.0)), 1);
}

#[test]
fn a_signal_that_nothing_can_be_joined_with_any_more_waits_no_longer() {
    let mut bench = Bench::new(joined(), NOW);
    bench.signal("orders", "o1", &[("day", 1)], NOW);
    let last = at("2026-05-02T10:00:00Z");
    assert_eq!(bench.trigger.wake_at(), Some(Time(last.0 + 1)));
    let mut wake = |now| {
        let mut again = bench.trigger.state.clone();
        let decided = bench.trigger.decide(&key(), SmallInput::Wake, now).unwrap();
        for event in chunk::decode(&decided.chunk).unwrap() {
            again.apply(&event);
        }
        assert_eq!(again, bench.trigger.state);
        (again.pending.len(), again.missed)
    };
    assert_eq!(wake(last), (1, 0), "the other may just come");
    assert_eq!(wake(Time(last.0 + 1)), (0, 1));
    assert_eq!(bench.trigger.wake_at(), None);
}

#[test]
fn of_signals_with_an_equal_value_one_starts_a_run() {
    let mut trigger = orders();
    if let TriggerKind::Signal(of) = &mut trigger.kind {
        of.dedupe = Some(Template::parse("${{ signal.payload.day }}").unwrap());
    }
    let mut bench = Bench::new(trigger, NOW);
    assert_eq!(
        bench.signal("orders", "a", &[("table", 1), ("day", 4)], NOW),
        1
    );
    assert_eq!(
        bench.signal("orders", "b", &[("table", 1), ("day", 4)], NOW),
        0
    );
    assert_eq!(
        bench.signal("orders", "c", &[("table", 1), ("day", 5)], NOW),
        1
    );
    assert_eq!(bench.trigger.state.duplicates, 1);
    // It is remembered for as long as topics keep signals.
    let later = "2026-05-09T10:00:00Z";
    assert_eq!(
        bench.signal("orders", "d", &[("table", 1), ("day", 5)], later),
        1
    );
}

#[test]
fn a_paused_trigger_hears_nothing_and_circles_end() {
    let mut bench = Bench::new(orders(), NOW);
    let by = || "ann".to_owned();
    bench.ask(Ask::PauseTrigger { by: by() }, NOW).unwrap();
    assert_eq!(
        bench.signal("orders", "a", &[("table", 1), ("day", 4)], NOW),
        0
    );
    // What does not match is not missed.
    bench.signal("orders", "z", &[("table", 2), ("day", 4)], NOW);
    assert_eq!(bench.trigger.state.missed, 1);
    bench.ask(Ask::ResumeTrigger { by: by() }, NOW).unwrap();
    let mut far = signal("orders", "b", payload(&[("table", 1), ("day", 4)]), NOW);
    far.hops = limits::HOPS + 1;
    bench.tell(Message::Signal(Arc::new(far.clone())), NOW);
    assert_eq!(bench.starts.len(), 0);
    far.hops = limits::HOPS;
    bench.tell(Message::Signal(Arc::new(far)), NOW);
    assert_eq!(
        bench.starts[0].hops,
        limits::HOPS,
        "whoever sent it has counted"
    );
    let problem = bench.trigger.state.problem.clone().unwrap();
    assert!(problem.message.contains("in a row"), "{}", problem.message);
}

#[test]
fn a_request_from_outside_starts_a_run_and_the_same_request_none() {
    let mut bench = Bench::new(hook(), NOW);
    let mut deliver = |id: &str, fields: &[(&str, i64)]| {
        let signal = signal("hook", id, payload(fields), NOW);
        let answer = bench.ask(Ask::Deliver(Box::new(signal)), NOW).unwrap();
        ["outcome", "run", "error"].map(|name| field(&answer, name).text())
    };
    assert_eq!(deliver("", &[("n", 1)])[0], "started");
    // Of the two an id of its own is given to each, and no caller can name one of them.
    assert_eq!(deliver("n2", &[("n", 1)])[0], "started");
    assert_eq!(deliver("", &[("n", 1)])[0], "started");
    let [_, run, _] = deliver("x", &[("n", 2)]);
    assert_eq!(
        deliver("x", &[("n", 2)])[..2],
        ["duplicate".to_owned(), run.clone()]
    );
    // Nobody can make a run of it.
    let [outcome, _, error] = deliver("y", &[("m", 2)]);
    assert!(
        outcome == "refused" && error.contains("`with`"),
        "{outcome}: {error}"
    );
    // A start that was refused is no start: the same may come again.
    let refused = Message::StartRefused {
        run: run.parse().unwrap(),
        scheduled_at: at(NOW),
        error: Error::new(ErrorCode::BadParams, "`n` is required: int"),
    };
    bench.tell(refused, NOW);
    let shown = bench.ask(Ask::View, NOW).unwrap();
    assert_eq!(field(field(&shown, "problem"), "run").text(), run);
    let again = signal("hook", "x", payload(&[("n", 2)]), NOW);
    let answer = bench.ask(Ask::Deliver(Box::new(again)), NOW).unwrap();
    assert_eq!(field(&answer, "outcome").text(), "started");
    assert_eq!(bench.starts.len(), 5);
    assert_eq!(bench.starts[2].kind, "webhook");
    let taken = signal("hook", "kapell:9", payload(&[("n", 2)]), NOW);
    let refused = bench.ask(Ask::Deliver(Box::new(taken)), NOW).unwrap_err();
    assert_eq!(refused.code, ErrorCode::BadRequest);
    assert_eq!(bench.trigger.state.refused, 2);
    let error = Bench::new(orders(), NOW)
        .ask(
            Ask::Deliver(Box::new(signal("hook", "", Value::Null, NOW))),
            NOW,
        )
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::BadRequest);
}

#[test]
fn the_same_request_starts_one_run_also_beside_a_dedupe() {
    let mut trigger = hook();
    if let TriggerKind::Webhook(of) = &mut trigger.kind {
        of.dedupe = Some(Template::parse("${{ signal.payload.n }}").unwrap());
    }
    let mut bench = Bench::new(trigger, NOW);
    let mut deliver = |id: &str, n: i64| {
        let signal = signal("hook", id, payload(&[("n", n)]), NOW);
        let answer = bench.ask(Ask::Deliver(Box::new(signal)), NOW).unwrap();
        ["outcome", "run"].map(|name| field(&answer, name).text())
    };
    let [started, run] = deliver("x", 1);
    assert_eq!(started, "started");
    let same = ["duplicate".to_owned(), run];
    assert_eq!(deliver("x", 2), same, "by its id");
    assert_eq!(deliver("y", 1), same, "by its value");
    assert_eq!(deliver("", 1), same);
    assert_eq!(deliver("y", 2)[0], "started");
    assert_eq!(deliver("", 3)[0], "started");
}

#[test]
fn runs_of_one_id_at_two_times_differ_in_their_last_letters() {
    let mut bench = Bench::new(hook(), NOW);
    let later = "2026-05-09T10:00:00Z";
    let runs = [NOW, later].map(|now| {
        let signal = signal("hook", "x", payload(&[("n", 1)]), now);
        let answer = bench.ask(Ask::Deliver(Box::new(signal)), now).unwrap();
        field(&answer, "run").text()
    });
    let last = runs.map(|run| run[run.len() - 8..].to_owned());
    assert_ne!(last[0], last[1]);
}

#[test]
fn a_webhook_says_whether_it_or_its_workflow_is_paused() {
    let mut bench = Bench::new(hook(), NOW);
    let refused = |bench: &mut Bench| {
        let signal = signal("hook", "x", payload(&[("n", 1)]), NOW);
        let answer = bench.ask(Ask::Deliver(Box::new(signal)), NOW);
        answer.unwrap_err().message
    };
    bench.tell(Message::WorkflowPaused(true), NOW);
    assert_eq!(refused(&mut bench), "the workflow `w` is paused");
    let by = "ann".to_owned();
    bench.ask(Ask::PauseTrigger { by }, NOW).unwrap();
    assert_eq!(refused(&mut bench), "the trigger `nightly` is paused");
}

#[test]
fn a_call_is_remembered_for_as_long_as_it_can_be_sent_again() {
    let mut state = State::default();
    let see = |state: &mut State, number: u64, at: i64| {
        let started = super::super::fact::Started {
            seen: number.to_be_bytes().to_vec(),
            ..Default::default()
        };
        let fact = Some(Fact::Started(started));
        state.apply(&TriggerEvent { at, fact });
    };
    let second = 1_000_000;
    for number in 0..15_000 {
        see(&mut state, number, second);
    }
    assert_eq!(state.seen.len(), 15_000, "all of one second");
    assert!(!state.has_seen_too_much(Time(second)));
    see(&mut state, 15_000, 602 * second);
    assert_eq!(
        state.seen.len(),
        limits::DEDUPE_VALUES,
        "the last ones of the window before"
    );
    for number in 0..60_000 {
        see(&mut state, number, 603 * second);
    }
    assert_eq!(state.seen.len(), limits::WEBHOOK_CALLS);
    assert!(state.has_seen_too_much(Time(603 * second)));
    assert!(!state.has_seen_too_much(Time(1_300 * second)));
}

#[test]
fn signals_that_wait_for_others_are_shown_with_source_and_key() {
    let mut bench = Bench::new(joined(), NOW);
    bench.signal("orders", "o1", &[("day", 1)], NOW);
    let shown = bench.ask(Ask::View, NOW).unwrap().to_json();
    let waiting = &shown["waiting"][0];
    assert_eq!(waiting["source"], "orders");
    assert_eq!((&waiting["id"], &waiting["key"]), (&"o1".into(), &1.into()));
}

#[test]
fn equal_numbers_of_two_types_are_one_key() {
    let mut trigger = by_signals(vec![source("", "orders", None, None)], "${{ {} }}");
    if let TriggerKind::Signal(of) = &mut trigger.kind {
        of.dedupe = Some(Template::parse("${{ signal.payload }}").unwrap());
    }
    let mut bench = Bench::new(trigger, NOW);
    let mut starts = |id: &str, payload: Value| {
        let before = bench.starts.len();
        let signal = signal("orders", id, payload, NOW);
        bench.tell(Message::Signal(Arc::new(signal)), NOW);
        bench.starts.len() - before
    };
    assert_eq!(starts("a", Value::Int(1)), 1);
    assert_eq!(starts("b", Value::Float(1.0)), 0);
    assert_eq!(starts("c", Value::Float(1.5)), 1);
    assert_eq!(starts("d", Value::list(vec![Value::Float(2.0)])), 1);
    assert_eq!(starts("e", Value::list(vec![Value::Int(2)])), 0);
    assert_eq!(starts("f", Value::string("1")), 1, "text is no number");
}
