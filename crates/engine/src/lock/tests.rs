use kapell_model::Shard;

use super::*;

fn place(step: u16) -> Place {
    Place {
        scope: 0,
        step,
        item: Place::NO_ITEM,
    }
}

fn run(number: u8) -> RunId {
    RunId::new(Time(0), Shard(1), number.into())
}

fn acquire(number: u8, path: &str, period: i64) -> Message {
    Message::Acquire {
        run: run(number),
        place: place(0),
        max: 1,
        period,
        path: path.into(),
        asked: None,
    }
}

fn decide(lock: &mut Lock, message: &Message, at: i64) {
    lock.decide(&Arc::from("db"), Some(message), Time(at));
}

fn shown(lock: &Lock) -> serde_json::Value {
    lock.shown().to_json()
}

#[test]
fn a_lock_shows_who_holds_it_since_when_and_who_waits_in_order() {
    let mut lock = Lock::default();
    assert_eq!(lock.document(), None);
    decide(&mut lock, &acquire(1, "load", 0), 1_000_000);
    decide(&mut lock, &acquire(2, "copy[3]", 0), 2_000_000);
    decide(&mut lock, &acquire(3, "sum", 0), 3_000_000);
    let seen = shown(&lock);
    assert_eq!(seen["holding"][0]["step"], "load");
    assert_eq!(seen["holding"][0]["since"], "1970-01-01T00:00:01Z");
    assert_eq!(seen["queue"][0]["step"], "copy[3]");
    assert_eq!(seen["queue"][0]["run"], run(2).to_string());
    assert_eq!(seen["queue"][1]["step"], "sum");
    let release = Message::Release {
        run: run(1),
        place: place(0),
        unused: None,
        asked: None,
    };
    decide(&mut lock, &release, 4_000_000);
    let seen = shown(&lock);
    assert_eq!(seen["holding"][0]["step"], "copy[3]");
    assert_eq!(seen["holding"][0]["since"], "1970-01-01T00:00:04Z");
    let document: serde_json::Value = serde_json::from_str(&lock.document().unwrap()).unwrap();
    assert_eq!(
        (&document["holders"], &document["waiting"]),
        (&1.into(), &1.into())
    );
    assert_eq!(document["oldest_at"], "1970-01-01T00:00:03Z");
}

#[test]
fn a_lock_that_nobody_holds_or_wants_leaves_the_list_and_forgets_names() {
    let mut lock = Lock::default();
    decide(&mut lock, &acquire(1, "load", 0), 1);
    let release = Message::Release {
        run: run(1),
        place: place(0),
        unused: None,
        asked: None,
    };
    decide(&mut lock, &release, 2);
    assert_eq!(lock.document(), None);
    assert!(lock.about.is_empty());
}

#[test]
fn a_rate_says_when_the_next_one_starts() {
    let mut lock = Lock::default();
    decide(&mut lock, &acquire(1, "load", 60_000_000), 1_000_000);
    decide(&mut lock, &acquire(2, "copy", 60_000_000), 2_000_000);
    let seen = shown(&lock);
    assert_eq!(seen["per_ms"], 60_000);
    assert_eq!(seen["holding"], serde_json::json!([]));
    assert_eq!(seen["queue"][0]["step"], "copy");
    assert_eq!(seen["next_at"], "1970-01-01T00:01:01Z");
}

#[test]
fn a_request_of_an_earlier_version_has_no_path_and_is_shown_all_the_same() {
    let mut lock = Lock::default();
    decide(&mut lock, &acquire(1, "", 0), 1);
    let seen = shown(&lock);
    assert_eq!(seen["holding"][0]["run"], run(1).to_string());
    assert_eq!(seen["holding"][0]["step"], "");
}

#[test]
fn what_is_in_use_as_a_lock_is_no_rate_and_the_other_way_round() {
    let name = Arc::from("db");
    let minute = 60_000_000;
    for (first, other) in [(0, minute), (minute, 0)] {
        let mut lock = Lock::default();
        decide(&mut lock, &acquire(1, "load", first), 1);
        let before = lock.clone();
        let decided = lock.decide(&name, Some(&acquire(2, "call", other)), Time(2));
        let told = &decided.messages[..];
        assert!(
            matches!(told, [(who, Message::LockRefused { .. })] if *who == run(2).into()),
            "{told:?}"
        );
        assert!(decided.events.is_empty());
        assert_eq!(lock, before, "its bounds are as they were");
        // Once nobody uses it, it may become the other.
        let release = Message::Release {
            run: run(1),
            place: place(0),
            unused: None,
            asked: None,
        };
        decide(&mut lock, &release, 3);
        decide(&mut lock, &acquire(2, "call", other), 10 * minute);
        assert_eq!(lock.period, other);
        assert!(lock.waiting.is_empty());
    }
}

/// Whoever asks beyond the bound is told so, rather than waiting for ever.
#[test]
fn a_request_beyond_the_bound_is_refused() {
    let mut lock = Lock::default();
    for number in 0..=limits::LOCK_REQUESTS {
        let holder = (RunId::new(Time(0), Shard(1), number as u128), place(0));
        let mut asked = fact(Time(1), ASKED, holder);
        asked.max = 1;
        lock.apply(&asked);
        if number == 0 {
            lock.apply(&fact(Time(1), GRANTED, holder));
        }
    }
    let late = Message::Acquire {
        run: RunId::new(Time(9), Shard(1), 1),
        place: place(3),
        max: 1,
        period: 0,
        path: "load".into(),
        asked: None,
    };
    let name: Arc<str> = "db".into();
    let decided = lock.decide(&name, Some(&late), Time(2));
    assert!(decided.events.is_empty());
    assert_eq!(lock.waiting.len(), limits::LOCK_REQUESTS);
    let [
        (
            to,
            Message::LockRefused {
                place: of, name, ..
            },
        ),
    ] = &decided.messages[..]
    else {
        panic!("{:?}", decided.messages);
    };
    assert_eq!(*to, RunId::new(Time(9), Shard(1), 1).into());
    assert_eq!((*of, &**name), (place(3), "db"));
}

#[test]
fn what_is_given_back_by_a_request_that_is_over_takes_nothing_from_the_next() {
    let asks = |number: i64, period: i64| match acquire(1, "load", period) {
        Message::Acquire {
            run,
            place,
            max,
            period,
            path,
            ..
        } => Message::Acquire {
            run,
            place,
            max,
            period,
            path,
            asked: Some(Time(number)),
        },
        other => other,
    };
    let gives_back = |number: i64, unused: Option<Time>| Message::Release {
        run: run(1),
        place: place(0),
        unused,
        asked: Some(Time(number)),
    };
    let mut lock = Lock::default();
    decide(&mut lock, &asks(1, 0), 1);
    decide(&mut lock, &gives_back(1, None), 2);
    decide(&mut lock, &asks(2, 0), 3);
    // The grant of the first request came late, and what came is given back.
    decide(&mut lock, &gives_back(1, Some(Time(1))), 4);
    assert_eq!(lock.holders.len(), 1);
    decide(&mut lock, &gives_back(2, None), 5);
    assert_eq!(lock.holders.len(), 0);
    // What a rate gave for nothing comes back, and the next request stays in line.
    let mut rate = Lock::default();
    decide(&mut rate, &asks(1, 1_000), 10);
    decide(&mut rate, &asks(2, 1_000), 11);
    assert_eq!((rate.waiting.len(), rate.granted_at.len()), (1, 1));
    decide(&mut rate, &gives_back(1, Some(Time(10))), 12);
    assert_eq!((rate.waiting.len(), rate.granted_at.len()), (0, 1));
    assert_eq!(rate.granted_at[0], Time(12));
}
