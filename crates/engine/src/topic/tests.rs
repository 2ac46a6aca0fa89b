use kapell_api::task::Place;
use kapell_expr::{MapScope, Program};
use kapell_model::{ErrorCode, RunId, Shard};
use proptest::prelude::*;

use super::*;

fn key() -> EntityKey {
    EntityKey::Topic {
        namespace: "default".into(),
        name: "orders".into(),
    }
}

fn place(step: u16) -> Place {
    Place {
        scope: 0,
        step,
        item: Place::NO_ITEM,
    }
}

fn run(number: u32) -> EntityKey {
    RunId::new(Time(0), Shard(1), number.into()).into()
}

fn trigger(name: &str) -> EntityKey {
    EntityKey::Trigger {
        namespace: "default".into(),
        workflow: "w".into(),
        name: name.into(),
    }
}

fn signal(id: &str, table: &str, n: i64) -> Signal {
    Signal {
        id: id.into(),
        name: "orders".into(),
        key: Value::Null,
        payload: Value::map([("table", Value::string(table)), ("n", Value::Int(n))]),
        sent_at: Time(0),
        hops: 1,
        by: "test".into(),
    }
}

fn wanted(who: EntityKey, place: Option<Place>, matches: &str) -> Subscribe {
    let program = (!matches.is_empty()).then(|| Program::parse(matches).unwrap());
    Subscribe {
        who,
        place,
        since: None,
        before: None,
        equal: equals(program.as_ref(), &MapScope::default()),
    }
}

/// What a topic does with an input: what it sends, after it was proved that its facts make it.
fn give(topic: &mut Topic, input: SmallInput, at: i64) -> Decided {
    let mut other = Topic::from_snapshot(&topic.snapshot()).unwrap();
    let decided = Small::decide(topic, &key(), input, Time(at)).unwrap();
    other.replay(&decided.chunk).unwrap();
    assert_eq!(other.snapshot(), topic.snapshot());
    decided
}

fn tell(topic: &mut Topic, message: Message, at: i64) -> Vec<(EntityKey, Message)> {
    give(topic, SmallInput::Message(Box::new(message)), at).messages
}

fn send(topic: &mut Topic, signal: Signal, at: i64) -> Vec<(EntityKey, Message)> {
    tell(topic, Message::Signal(Arc::new(signal)), at)
}

fn subscribe(topic: &mut Topic, wanted: Subscribe, at: i64) -> Vec<(EntityKey, Message)> {
    tell(topic, Message::Subscribe(Box::new(wanted)), at)
}

fn who(messages: &[(EntityKey, Message)]) -> Vec<EntityKey> {
    messages.iter().map(|(who, _)| who.clone()).collect()
}

/// Ids of the signals in the only message, and where older ones begin.
fn ids(messages: &[(EntityKey, Message)]) -> (Vec<String>, Option<u64>) {
    match messages {
        [(_, Message::Signals { signals, older, .. })] => (
            signals.iter().map(|signal| signal.id.to_string()).collect(),
            *older,
        ),
        [] => (Vec::new(), None),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_those_are_told_whom_it_may_concern_in_the_order_they_came() {
    let mut topic = Topic::default();
    let wants = [
        (run(1), "signal.payload.table == 'orders'"),
        (run(2), "signal.payload.table == 'other'"),
        (run(3), ""),
        (
            run(4),
            "signal.payload.n == 7.0 && signal.payload.table == 'orders'",
        ),
        (run(5), "signal.payload.missing == null"),
        (run(6), "signal.payload.n > 100 && signal.name == 'orders'"),
    ];
    for (who, matches) in wants {
        subscribe(&mut topic, wanted(who, Some(place(0)), matches), 1);
    }
    subscribe(
        &mut topic,
        wanted(trigger("t"), None, "signal.payload.n == 7"),
        1,
    );
    let told = send(&mut topic, signal("a", "orders", 7), 2);
    assert_eq!(who(&told), [run(1), run(3), run(4), run(6), trigger("t")]);
    assert!(matches!(&told[0].1, Message::Signals { place: at, .. } if *at == place(0)));
    assert!(matches!(&told[4].1, Message::Signal(signal) if &*signal.id == "a"));
    let told = send(&mut topic, signal("b", "other", 8), 3);
    assert_eq!(who(&told), [run(2), run(3), run(6)]);
}

#[test]
fn the_same_id_is_one_signal() {
    let mut topic = Topic::default();
    subscribe(&mut topic, wanted(run(1), Some(place(0)), ""), 1);
    assert_eq!(send(&mut topic, signal("a", "x", 1), 2).len(), 1);
    assert_eq!(send(&mut topic, signal("a", "y", 2), 3).len(), 0);
    let again = give(
        &mut topic,
        SmallInput::Ask(Ask::Send(Box::new(signal("a", "z", 3)))),
        4,
    );
    let answer = again.answer.as_map().unwrap().clone();
    assert_eq!(answer["known"], Value::Bool(true));
    assert_eq!(answer["sent_at"], Value::Timestamp(Time(2).timestamp()));
    assert!(again.chunk.is_empty());
}

#[test]
fn a_signal_without_an_id_is_given_one() {
    let mut topic = Topic::default();
    for expected in ["kapell:1", "kapell:2"] {
        let asked = SmallInput::Ask(Ask::Send(Box::new(signal("", "x", 1))));
        let sent = give(&mut topic, asked, 1).answer;
        assert_eq!(sent.as_map().unwrap()["id"], Value::string(expected));
    }
}

#[test]
fn an_id_that_could_be_given_to_another_signal_is_refused() {
    let mut topic = Topic::default();
    let mut ask = |id: &str| {
        let asked = SmallInput::Ask(Ask::Send(Box::new(signal(id, "x", 1))));
        topic.decide(&key(), asked, Time(1))
    };
    let refused = ask("kapell:1").unwrap_err();
    assert_eq!(refused.code, ErrorCode::BadRequest);
    for id in ["n1", "kapell", "1", ""] {
        let known = ask(id).unwrap().answer;
        assert_eq!(known.as_map().unwrap()["known"], Value::Bool(false), "{id}");
    }
}

#[test]
fn who_listens_no_more_is_not_told_and_who_listens_anew_is_told_once() {
    let mut topic = Topic::default();
    subscribe(&mut topic, wanted(run(1), Some(place(0)), ""), 1);
    subscribe(&mut topic, wanted(run(1), Some(place(1)), ""), 1);
    subscribe(
        &mut topic,
        wanted(run(1), Some(place(1)), "signal.payload.n == 1"),
        1,
    );
    assert_eq!(send(&mut topic, signal("a", "x", 1), 2).len(), 2);
    assert_eq!(send(&mut topic, signal("b", "x", 2), 2).len(), 1);
    let gone = Message::Unsubscribe {
        who: run(1),
        place: Some(place(0)),
    };
    tell(&mut topic, gone.clone(), 3);
    tell(&mut topic, gone, 3);
    assert_eq!(send(&mut topic, signal("c", "x", 2), 4).len(), 0);
}

#[test]
fn kept_signals_are_told_newest_first_a_page_at_a_time() {
    let mut topic = Topic::default();
    for n in 0..200 {
        let table = if n % 2 == 0 { "even" } else { "odd" };
        send(&mut topic, signal(&format!("s{n}"), table, n), n);
    }
    let mut wanted = wanted(run(1), Some(place(0)), "signal.payload.table == 'even'");
    wanted.since = Some(Time(10));
    let mut seen = Vec::new();
    loop {
        let told = subscribe(&mut topic, wanted.clone(), 300);
        let (page, older) = ids(&told);
        assert!(page.len() <= limits::SIGNALS_PAGE);
        seen.extend(page);
        if older.is_none() {
            break;
        }
        wanted.before = older;
    }
    let expected: Vec<String> = (10..200)
        .rev()
        .filter(|n| n % 2 == 0)
        .map(|n| format!("s{n}"))
        .collect();
    assert_eq!(seen, expected);
    assert_eq!(topic.listeners.len(), 1);
}

#[test]
fn a_subscription_without_since_gets_what_comes_later_only() {
    let mut topic = Topic::default();
    send(&mut topic, signal("a", "x", 1), 1);
    assert_eq!(
        subscribe(&mut topic, wanted(run(1), Some(place(0)), ""), 2).len(),
        0
    );
    assert_eq!(send(&mut topic, signal("b", "x", 1), 3).len(), 1);
    let mut later = wanted(run(2), Some(place(0)), "");
    later.since = Some(Time(100));
    assert_eq!(subscribe(&mut topic, later, 4).len(), 0);
    assert_eq!(who(&send(&mut topic, signal("c", "x", 1), 99)), [run(1)]);
    assert_eq!(
        who(&send(&mut topic, signal("d", "x", 1), 100)),
        [run(1), run(2)]
    );
}

#[test]
fn many_listeners_are_told_in_pieces_each_once() {
    let mut topic = Topic::default();
    let many = 2 * limits::TOPIC_TELLS + 10;
    for number in 0..many {
        let number = u32::try_from(number).unwrap();
        let wanted = wanted(run(number), Some(place(0)), "");
        // The facts of so many are not proved one by one.
        let input = SmallInput::Message(Box::new(Message::Subscribe(Box::new(wanted))));
        Small::decide(&mut topic, &key(), input, Time(1)).unwrap();
    }
    let mut told = who(&send(&mut topic, signal("a", "x", 1), 2));
    assert_eq!(told.len(), limits::TOPIC_TELLS);
    // Who comes now has looked at what is kept.
    subscribe(&mut topic, wanted(run(1_000_000), Some(place(0)), ""), 2);
    send(&mut topic, signal("b", "x", 1), 2);
    let mut again = Vec::new();
    while topic.wake_at() <= Some(Time(2)) {
        for (who, message) in give(&mut topic, SmallInput::Wake, 2).messages {
            match message {
                Message::Signals { signals, .. } if &*signals[0].id == "a" => told.push(who),
                _ => again.push(who),
            }
        }
    }
    assert_eq!(told.len(), many);
    assert!(!told.contains(&run(1_000_000)));
    told.sort();
    told.dedup();
    assert_eq!(told.len(), many);
    // The first were told of `b` when it came, as far as there was room for them.
    assert!(again.contains(&run(1_000_000)));
}

#[test]
fn old_signals_and_those_without_room_are_dropped() {
    let mut topic = Topic::default();
    let day = 24 * 3_600_000_000;
    for n in 0..10 {
        send(&mut topic, signal(&format!("s{n}"), "x", n), n * day);
    }
    assert_eq!(topic.signals.len(), 8);
    assert_eq!(topic.signals.front().map(|kept| kept.number), Some(3));
    let wake = topic.wake_at().unwrap();
    assert!(wake >= Time(9 * day));
    give(&mut topic, SmallInput::Wake, 30 * day);
    assert_eq!(
        (topic.signals.len(), topic.bytes, topic.ids.len()),
        (0, 0, 0)
    );
    assert_eq!(topic.wake_at(), None);
    let big = "x".repeat(limits::SIGNAL_BYTES - 100);
    let fit = limits::TOPIC_BYTES / limits::SIGNAL_BYTES;
    for n in 0..fit + 20 {
        let input = Message::Signal(Arc::new(signal(&format!("b{n}"), &big, 1)));
        let input = SmallInput::Message(Box::new(input));
        Small::decide(&mut topic, &key(), input, Time(31 * day)).unwrap();
    }
    assert!(topic.bytes <= limits::TOPIC_BYTES);
    assert!(topic.signals.len() > fit - 20);
}

#[test]
fn a_topic_keeps_as_long_and_as_many_as_it_is_told() {
    let second = 1_000_000;
    let numbers = |topic: &Topic| {
        let kept = topic.signals.iter().map(|kept| kept.number);
        kept.collect::<Vec<_>>()
    };
    let mut topic = Topic::default();
    for n in 0..5 {
        send(&mut topic, signal(&format!("s{n}"), "x", n), n * second);
    }
    // Another setting counts from the next input on.
    topic.keep(Keeps {
        signals: 3,
        ..Keeps::default()
    });
    assert_eq!(numbers(&topic).len(), 5);
    send(&mut topic, signal("s5", "x", 5), 5 * second);
    let last = numbers(&topic);
    assert_eq!(last.len(), 3);
    assert_eq!(last[2], 5 + last[0] - 3);
    topic.keep(Keeps {
        micros: 60 * second,
        signals: 3,
    });
    let wake = topic.wake_at().unwrap();
    assert!(
        wake > Time(63 * second) && wake < Time(68 * second),
        "{wake}"
    );
    give(&mut topic, SmallInput::Wake, 64 * second);
    assert_eq!(
        numbers(&topic),
        last[1..],
        "the first is older than a minute"
    );
    give(&mut topic, SmallInput::Wake, 66 * second);
    assert_eq!(numbers(&topic), [0; 0]);
    assert_eq!(topic.wake_at(), None);
}

#[test]
fn what_is_too_big_or_reserved_is_refused_and_changes_nothing() {
    let mut topic = Topic::default();
    let big = signal("a", &"x".repeat(limits::SIGNAL_BYTES), 1);
    let input = SmallInput::Ask(Ask::Send(Box::new(big)));
    let error = Small::decide(&mut topic, &key(), input, Time(1)).unwrap_err();
    assert_eq!(error.code, ErrorCode::LimitReached);
    let finished = EntityKey::Topic {
        namespace: "default".into(),
        name: "workflow.w.failed".into(),
    };
    let input = SmallInput::Ask(Ask::Send(Box::new(signal("a", "x", 1))));
    let error = Small::decide(&mut topic, &finished, input, Time(1)).unwrap_err();
    assert_eq!(error.code, ErrorCode::BadRequest);
    assert_eq!(topic.snapshot(), Topic::default().snapshot());
    assert_eq!(topic.document(), None);
}

/// A list of topics shows those in use: one that keeps nothing and has nobody to tell is no news.
#[test]
fn a_topic_is_listed_while_it_keeps_something_or_somebody_listens() {
    let mut topic = Topic::default();
    subscribe(&mut topic, wanted(trigger("t"), None, ""), 1);
    assert!(topic.document().is_some());
    let gone = Message::Unsubscribe {
        who: trigger("t"),
        place: None,
    };
    give(&mut topic, SmallInput::Message(Box::new(gone)), 2);
    assert_eq!(topic.document(), None);
    send(&mut topic, signal("a", "x", 3), 3);
    assert!(topic.document().is_some());
}

#[test]
fn how_runs_end_is_kept_from_when_somebody_first_asked() {
    let mut topic = Topic::default();
    let mut end = signal("r1", "x", 1);
    end.name = "workflow.w.succeeded".into();
    assert!(
        give(
            &mut topic,
            SmallInput::Message(Box::new(Message::Signal(Arc::new(end.clone())))),
            1
        )
        .chunk
        .is_empty()
    );
    subscribe(&mut topic, wanted(trigger("t"), None, ""), 2);
    assert_eq!(send(&mut topic, end, 3).len(), 1);
}

#[test]
fn more_listeners_than_there_is_room_for_are_told_so() {
    let mut topic = Topic::default();
    for number in 0..limits::TOPIC_SUBSCRIPTIONS {
        let wanted = Subscribe {
            who: run(u32::try_from(number).unwrap()),
            place: None,
            since: None,
            before: None,
            equal: Vec::new(),
        };
        topic.listeners.add(
            number as u64 + 1,
            Listener {
                who: wanted.who,
                place: None,
                since: None,
                equal: Vec::new(),
            },
        );
    }
    let input = Message::Subscribe(Box::new(wanted(trigger("t"), None, "")));
    let input = SmallInput::Message(Box::new(input));
    let told = Small::decide(&mut topic, &key(), input, Time(1))
        .unwrap()
        .messages;
    assert!(
        matches!(&told[..], [(who, Message::SubscriptionRefused { .. })] if *who == trigger("t"))
    );
}

/// The plainest topic: looks at everything.
fn expected(listeners: &[(u32, &'static str)], table: &str, n: i64) -> Vec<EntityKey> {
    let scope = MapScope([("signal".into(), signal_value(&signal("x", table, n)))].into());
    let holds = |matches: &str| {
        matches.is_empty()
            || Program::parse(matches)
                .unwrap()
                .eval(&scope, kapell_expr::Budget::default())
                == Ok(Value::Bool(true))
    };
    let hold = listeners.iter().filter(|(_, matches)| holds(matches));
    hold.map(|(number, _)| run(*number)).collect()
}

const MATCHES: [&str; 6] = [
    "",
    "signal.payload.n == 1",
    "signal.payload.n == 1.0 && signal.payload.table == 'a'",
    "signal.payload.table == 'b'",
    "signal.payload.other == 1",
    "signal.payload.n == 2 || signal.payload.table == 'a'",
];

proptest! {
    /// Everybody whose condition holds is told, whatever came and went before, and through a restart.
    #[test]
    fn nobody_misses_a_signal(
        inputs in prop::collection::vec((0_u32..6, 0_usize..8, 0_i64..4, any::<bool>()), 0..80),
    ) {
        let mut topic = Topic::default();
        let mut listeners: Vec<(u32, &'static str)> = Vec::new();
        for (number, (who_is, what, n, other)) in inputs.into_iter().enumerate() {
            let at = i64::try_from(number).unwrap();
            if let Some(matches) = MATCHES.get(what).filter(|_| other) {
                listeners.retain(|(number, _)| *number != who_is);
                listeners.push((who_is, matches));
                subscribe(&mut topic, wanted(run(who_is), Some(place(0)), matches), at);
            } else if what == 6 {
                listeners.retain(|(number, _)| *number != who_is);
                tell(&mut topic, Message::Unsubscribe { who: run(who_is), place: Some(place(0)) }, at);
            } else if what == 7 {
                topic = Topic::from_snapshot(&topic.snapshot()).unwrap();
            } else {
                let table = if other { "a" } else { "b" };
                let told = who(&send(&mut topic, signal(&format!("s{number}"), table, n), at));
                for who in expected(&listeners, table, n) {
                    prop_assert!(told.contains(&who));
                }
                // Conditions that are all equalities tell no one else.
                for who in &told {
                    let holds = expected(&listeners, table, n).contains(who);
                    let or = listeners.iter().any(|(number, matches)| run(*number) == *who && matches.contains("||"));
                    prop_assert!(holds || or);
                }
            }
        }
    }
}
