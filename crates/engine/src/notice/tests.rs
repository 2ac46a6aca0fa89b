use kapell_expr::Value;
use kapell_model::{EntityKey, Time, limits};
use proptest::prelude::*;

use super::{Channel, Notice, NoticeAsk};
use crate::chunk;
use crate::message::Message;
use crate::small::{Ask, Small, SmallInput};

fn key() -> EntityKey {
    EntityKey::Channel {
        namespace: "default".into(),
        name: "on-call".into(),
    }
}

fn give(channel: &mut Channel, input: SmallInput, now: i64) -> Value {
    let mut copy = channel.clone();
    let decided = channel.decide(&key(), input, Time(now)).unwrap();
    for event in chunk::decode(&decided.chunk).unwrap() {
        copy.apply(&event);
    }
    assert_eq!(copy, *channel, "facts make another state");
    decided.answer
}

fn tell(channel: &mut Channel, id: &str, now: i64) {
    let notice = Notice {
        id: id.into(),
        at: Time(now),
        content: Value::map([("text", Value::string(id))]),
    };
    give(
        channel,
        SmallInput::Message(Box::new(Message::Notice(Box::new(notice)))),
        now,
    );
}

fn ask(channel: &mut Channel, ask: NoticeAsk, now: i64) -> Value {
    give(channel, SmallInput::Ask(Ask::Notice(ask)), now)
}

fn due(channel: &mut Channel, now: i64) -> Vec<String> {
    let due = ask(channel, NoticeAsk::Due { limit: 100 }, now).to_json();
    let ids = due.as_array().unwrap().iter();
    ids.map(|notice| notice["id"].as_str().unwrap().to_owned())
        .collect()
}

fn failed(number: u64, hopeless: bool) -> NoticeAsk {
    NoticeAsk::Failed {
        number,
        error: "503".to_owned(),
        after: None,
        hopeless,
    }
}

#[test]
fn the_same_notice_twice_is_one() {
    let mut channel = Channel::default();
    tell(&mut channel, "a", 1);
    tell(&mut channel, "a", 2);
    tell(&mut channel, "b", 3);
    assert_eq!(due(&mut channel, 3), ["a", "b"]);
    ask(&mut channel, NoticeAsk::Delivered { number: 0 }, 4);
    tell(&mut channel, "a", 5);
    assert_eq!(
        due(&mut channel, 5),
        ["b"],
        "one that has arrived is still known"
    );
}

#[test]
fn a_failed_try_is_made_again_later_and_later() {
    let mut channel = Channel::default();
    tell(&mut channel, "a", 0);
    let mut now = 0;
    let mut waits = Vec::new();
    for _ in 1..limits::NOTICE_TRIES {
        ask(&mut channel, failed(0, false), now);
        let next = channel.due_at().unwrap().0;
        assert!(due(&mut channel, next - 1).is_empty());
        assert_eq!(due(&mut channel, next), ["a"]);
        waits.push((next - now) / 1_000_000);
        now = next;
    }
    assert_eq!(
        waits,
        [
            10, 30, 90, 270, 810, 2_430, 3_600, 3_600, 3_600, 3_600, 3_600
        ]
    );
    ask(&mut channel, failed(0, false), now);
    assert_eq!((channel.waiting.len(), channel.failed.len()), (0, 1));
}

#[test]
fn a_receiver_that_asks_for_time_is_given_it() {
    let mut channel = Channel::default();
    tell(&mut channel, "a", 0);
    let after = NoticeAsk::Failed {
        number: 0,
        error: "429".to_owned(),
        after: Some(jiff::SignedDuration::from_secs(60)),
        hopeless: false,
    };
    ask(&mut channel, after, 0);
    assert_eq!(channel.due_at(), Some(Time(60_000_000)));
}

#[test]
fn a_long_wait_that_a_receiver_asks_for_is_kept_within_its_bound() {
    for (asked, kept) in [(2, 2), (24, 24), (100, 24)] {
        let mut channel = Channel::default();
        tell(&mut channel, "a", 0);
        let after = NoticeAsk::Failed {
            number: 0,
            error: "503".to_owned(),
            after: Some(jiff::SignedDuration::from_hours(asked)),
            hopeless: false,
        };
        ask(&mut channel, after, 0);
        assert_eq!(channel.due_at(), Some(Time(kept * 3_600_000_000)));
    }
}

#[test]
fn one_that_waits_is_shown_with_its_error_and_can_be_sent_now() {
    let mut channel = Channel::default();
    tell(&mut channel, "a", 0);
    ask(&mut channel, failed(0, false), 0);
    let view = channel.view().to_json();
    let waiting = &view["queue"][0];
    assert_eq!(waiting["tries"], 1, "{view}");
    assert!(
        waiting["error"]
            .as_str()
            .is_some_and(|error| !error.is_empty())
    );
    assert_eq!(waiting["next_at"], "1970-01-01T00:00:10Z");
    assert!(due(&mut channel, 1).is_empty());
    ask(&mut channel, NoticeAsk::Again { number: 0 }, 1);
    assert_eq!(due(&mut channel, 1), ["a"]);
}

#[test]
fn what_was_given_up_can_be_sent_again_or_forgotten() {
    let mut channel = Channel::default();
    for id in ["a", "b"] {
        tell(&mut channel, id, 0);
    }
    ask(&mut channel, failed(0, true), 1);
    ask(&mut channel, failed(1, true), 1);
    assert_eq!(channel.failed.len(), 2);
    ask(&mut channel, NoticeAsk::Again { number: 0 }, 2);
    assert_eq!(due(&mut channel, 2), ["a"]);
    ask(&mut channel, NoticeAsk::Forget { number: 1 }, 2);
    assert!(channel.failed.is_empty());
    let again = SmallInput::Ask(Ask::Notice(NoticeAsk::Again { number: 1 }));
    assert!(channel.decide(&key(), again, Time(3)).is_err());
}

#[test]
fn too_many_that_wait_push_out_the_oldest() {
    let mut channel = Channel::default();
    for number in 0..=limits::NOTICES {
        tell_quickly(&mut channel, &number.to_string());
    }
    assert_eq!(channel.waiting.len(), limits::NOTICES);
    let (_, oldest) = channel.failed.first_key_value().unwrap();
    assert_eq!(&*oldest.notice.id, "0");
    assert!(oldest.error.contains("10000"), "{}", oldest.error);
}

/// Without the comparison, which copies all of it.
fn tell_quickly(channel: &mut Channel, id: &str) {
    let notice = Notice {
        id: id.into(),
        at: Time(0),
        content: Value::Null,
    };
    let message = Message::Notice(Box::new(notice));
    channel
        .decide(&key(), SmallInput::Message(Box::new(message)), Time(0))
        .unwrap();
}

#[test]
fn lists_show_a_channel_while_something_waits_or_was_given_up() {
    let mut channel = Channel::default();
    assert_eq!(channel.document(), None);
    tell(&mut channel, "a", 7);
    let document: serde_json::Value = serde_json::from_str(&channel.document().unwrap()).unwrap();
    assert_eq!(
        document,
        serde_json::json!({ "waiting": 1, "failed": 0, "delivered": 0, "due_at": 7 })
    );
    ask(&mut channel, NoticeAsk::Delivered { number: 0 }, 8);
    assert_eq!(channel.document(), None);
}

proptest! {
    #[test]
    fn a_channel_comes_back_as_it_was(steps in prop::collection::vec((0_u8..6, 0_u64..8), 0..60)) {
        let mut channel = Channel::default();
        for (now, (what, number)) in (0_i64..).zip(steps) {
            match what {
                0 | 1 => tell(&mut channel, &number.to_string(), now),
                2 => { ask(&mut channel, NoticeAsk::Delivered { number }, now); }
                3 => { ask(&mut channel, failed(number, false), now); }
                4 => { ask(&mut channel, failed(number, true), now); }
                _ => {
                    let again = SmallInput::Ask(Ask::Notice(NoticeAsk::Again { number }));
                    let _ = channel.decide(&key(), again, Time(now));
                }
            }
            prop_assert_eq!(&Channel::from_snapshot(&channel.snapshot()).unwrap(), &channel);
        }
    }
}
