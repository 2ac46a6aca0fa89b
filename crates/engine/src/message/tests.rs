use std::sync::Arc;

use kapell_api::task::Place;
use kapell_expr::Value;
use kapell_model::{EntityKey, RunId, RunStatus, Shard, Time};

use super::{Equal, LockRefusal, Message, Signal, StartChild, Subscribe};
use crate::run::state::ParentUnit;

fn run() -> RunId {
    RunId::new(Time(1_000_000), Shard(7), 42)
}

fn place() -> Place {
    Place {
        scope: 1,
        step: 2,
        item: Place::NO_ITEM,
    }
}

/// Values of every type, some of which JSON does not have.
fn value() -> Value {
    Value::map([
        ("date", Value::Timestamp(Time(5).timestamp())),
        ("bytes", Value::Bytes(Arc::from([0_u8, 255].as_slice()))),
        ("nan", Value::Float(f64::INFINITY)),
        ("$ts", Value::string("\u{0}not a marker")),
        ("list", Value::list(vec![Value::Int(i64::MAX), Value::Null])),
    ])
}

fn signal() -> Arc<Signal> {
    Arc::new(Signal {
        id: "a".into(),
        name: "landed".into(),
        key: Value::Null,
        payload: value(),
        sent_at: Time(3),
        hops: 4,
        by: "me".into(),
    })
}

#[test]
fn what_goes_to_another_shard_arrives_as_it_was_sent() {
    let child = StartChild {
        id: run(),
        namespace: "default".into(),
        workflow: "w".into(),
        version: Some(3),
        params: value(),
        parent: ParentUnit {
            run: run(),
            place: place(),
            waits: true,
        },
        root_by: "me".into(),
        depth: 1,
        priority: 50,
        scheduled_at: 7,
        interval: (Time(1), Time(2)),
        timezone: "UTC".into(),
        hops: 0,
        held_queues: vec![("default".into(), "w".into(), "".into())],
    };
    let subscribe = Subscribe {
        who: EntityKey::Run(run()),
        place: Some(place()),
        since: Some(Time(1)),
        before: None,
        equal: vec![Equal {
            path: vec!["payload".into()],
            value: Value::Int(1),
        }],
    };
    let messages = [
        Message::StartChild(Box::new(child)),
        Message::ChildEnded {
            place: place(),
            run: run(),
            status: RunStatus::Failed,
            outputs: value(),
            error: "no \"good\"".to_owned(),
        },
        Message::CancelChild {
            reason: "r".to_owned(),
            now: true,
        },
        Message::RetryChild,
        Message::PauseChild { paused: true },
        Message::Acquire {
            run: run(),
            place: place(),
            max: 2,
            period: 0,
            path: "a".into(),
            asked: Some(Time(2)),
        },
        Message::Release {
            run: run(),
            place: place(),
            unused: Some(Time(3)),
            asked: Some(Time(2)),
        },
        Message::LockGranted {
            place: place(),
            name: "l".into(),
            at: Some(Time(3)),
            asked: Some(Time(2)),
        },
        Message::LockRefused {
            place: place(),
            name: "l".into(),
            why: LockRefusal::Full,
        },
        Message::Signal(signal()),
        Message::Subscribe(Box::new(subscribe)),
        Message::Unsubscribe {
            who: EntityKey::Run(run()),
            place: None,
        },
        Message::Signals {
            place: place(),
            signals: vec![signal()],
            older: Some(2),
        },
        Message::SubscriptionRefused {
            place: None,
            topic: "t".into(),
        },
        Message::Notice(Box::new(crate::notice::Notice {
            id: "n".into(),
            at: Time(9),
            content: value(),
        })),
    ];
    for message in messages {
        let bytes = message.to_bytes().unwrap();
        let again = Message::from_bytes(&bytes).unwrap();
        assert_eq!(format!("{again:?}"), format!("{message:?}"));
    }
    assert!(Message::from_bytes(b"{\"Unheard\":1}").is_err());
}
