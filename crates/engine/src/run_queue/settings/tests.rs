use std::sync::Arc;

use kapell_model::spec::{StrategyMode, Timing, Trigger, TriggerKind};
use kapell_model::{EntityKey, RunId, RunStatus, Time};

use super::*;
use crate::run_queue::{Entry, RunQueue};
use crate::small::{Ask, Decided, Small, SmallInput};

fn key() -> EntityKey {
    EntityKey::RunQueue {
        namespace: "default".into(),
        workflow: "w".into(),
        key: "".into(),
    }
}

fn take(queue: &mut RunQueue, input: SmallInput, at: i64) -> Decided {
    let before = queue.to_bytes();
    let decided = Small::decide(queue, &key(), input, Time(at)).expect("nothing is refused");
    // Facts alone give the same state.
    let mut again = if before.is_empty() {
        RunQueue::default()
    } else {
        RunQueue::from_snapshot(&before).expect("a snapshot")
    };
    again.replay(&decided.chunk).expect("facts");
    assert_eq!(again, *queue);
    decided
}

fn start(queue: &mut RunQueue, run: u128, rule: Rule, at: i64) -> Decided {
    let entry = Entry {
        run: RunId(run),
        key: "".into(),
        rule,
        ..Entry::default()
    };
    let message = Message::Enqueue(Box::new(entry));
    take(queue, SmallInput::Message(Box::new(message)), at)
}

fn change(queue: &mut RunQueue, change: Change, at: i64) -> Decided {
    take(queue, SmallInput::Ask(Ask::Change(Box::new(change))), at)
}

fn admitted(decided: &Decided) -> Vec<u128> {
    let runs = decided
        .messages
        .iter()
        .filter_map(|(to, message)| matches!(message, Message::Admitted { .. }).then_some(to));
    runs.map(|to| match to {
        EntityKey::Run(id) => id.0,
        other => panic!("{other:?} is no run"),
    })
    .collect()
}

fn nightly(name: &str) -> Trigger {
    Trigger {
        name: name.into(),
        kind: TriggerKind::Schedule(Box::new(kapell_model::spec::Schedule {
            timing: Timing::Every(jiff::SignedDuration::from_hours(24)),
            timezone: None,
            catchup: kapell_model::spec::Catchup::default(),
            jitter: None,
            start: None,
            end: None,
        })),
        with: None,
        when: None,
        paused: false,
    }
}

fn activate(queue: &mut RunQueue, version: u32, triggers: &[&str], at: i64) -> Decided {
    let to = Activate {
        version,
        triggers: triggers.iter().map(|name| nightly(name)).collect(),
        timezone: "UTC".into(),
        rule: None,
    };
    take(queue, SmallInput::Ask(Ask::Activate(Box::new(to))), at)
}

fn told(decided: &Decided) -> Vec<(String, &'static str)> {
    let told = decided.messages.iter().map(|(to, message)| {
        let EntityKey::Trigger { name, .. } = to else {
            panic!("{to:?} is no trigger")
        };
        let what = match message {
            Message::TriggerSet(_) => "set",
            Message::TriggerRemoved => "removed",
            Message::WorkflowPaused(true) => "paused",
            Message::WorkflowPaused(false) => "goes on",
            other => panic!("{other:?} is nothing for a trigger"),
        };
        (name.to_string(), what)
    });
    told.collect()
}

#[test]
fn a_paused_workflow_starts_nothing_and_then_all_in_order() {
    let mut queue = RunQueue::default();
    let pause = Change {
        paused: Some(Some("ann".to_owned())),
        ..Change::default()
    };
    change(&mut queue, pause, 1);
    let free = queue.rule(None).expect("a paused workflow queues");
    assert_eq!(admitted(&start(&mut queue, 1, free, 2)), []);
    assert_eq!(admitted(&start(&mut queue, 2, free, 3)), []);
    let why = queue.why("w", RunId(2)).expect("it waits");
    assert!(why.contains("paused by ann"), "{why}");
    let resume = Change {
        paused: Some(None),
        ..Change::default()
    };
    assert_eq!(admitted(&change(&mut queue, resume, 4)), [1, 2]);
    assert_eq!(queue.rule(None), None);
}

#[test]
fn a_workflow_is_paused_while_either_it_or_all_are() {
    let mut queue = RunQueue::default();
    let both = Change {
        paused: Some(Some("ann".to_owned())),
        held: Some(Some(Mark {
            by: "bob".to_owned(),
            at: 7,
        })),
        ..Change::default()
    };
    change(&mut queue, both, 1);
    start(&mut queue, 1, Rule::default(), 2);
    let one = Change {
        paused: Some(None),
        ..Change::default()
    };
    assert_eq!(admitted(&change(&mut queue, one, 3)), []);
    let other = Change {
        held: Some(None),
        ..Change::default()
    };
    assert_eq!(admitted(&change(&mut queue, other, 4)), [1]);
}

#[test]
fn another_strategy_counts_for_what_waits() {
    let mut queue = RunQueue::default();
    let one = Rule {
        limit: 1,
        ..Rule::default()
    };
    for run in 1..=4 {
        start(&mut queue, run, one, 1);
    }
    let bounds = Bounds {
        mode: StrategyMode::Parallel,
        limit: Some(3),
        total: None,
    };
    let three = Change {
        strategy: Some(Some(bounds)),
        rule: Some(bounds.rule()),
        ..Change::default()
    };
    assert_eq!(admitted(&change(&mut queue, three, 2)), [2, 3]);
    let ended = Message::RunEnded {
        run: RunId(1),
        status: RunStatus::Succeeded,
        by_person: false,
        success: None,
        blocks: None,
    };
    let ended = take(&mut queue, SmallInput::Message(Box::new(ended)), 3);
    assert_eq!(admitted(&ended), [4]);
    // What comes later goes by it too, whatever its version says.
    assert_eq!(admitted(&start(&mut queue, 5, one, 4)), []);
}

#[test]
fn triggers_come_and_go_with_the_active_version() {
    let mut queue = RunQueue::default();
    let first = activate(&mut queue, 1, &["day", "night"], 1);
    assert_eq!(
        told(&first),
        [("day".to_owned(), "set"), ("night".to_owned(), "set")]
    );
    let expected: (Arc<str>, Arc<str>, u32) = ("default".into(), "w".into(), 1);
    assert_eq!(first.activated, [expected]);
    let second = activate(&mut queue, 2, &["night"], 2);
    assert_eq!(
        told(&second),
        [("day".to_owned(), "removed"), ("night".to_owned(), "set")]
    );
    let pause = Change {
        paused: Some(Some("ann".to_owned())),
        ..Change::default()
    };
    assert_eq!(
        told(&change(&mut queue, pause, 3)),
        [("night".to_owned(), "paused")]
    );
    let delete = Change {
        delete: true,
        ..Change::default()
    };
    let deleted = change(&mut queue, delete, 4);
    assert_eq!(told(&deleted), [("night".to_owned(), "removed")]);
    assert_eq!(deleted.activated[0].2, 0);
    assert!(queue.settings.deleted);
    activate(&mut queue, 3, &[], 5);
    assert!(!queue.settings.deleted);
}
