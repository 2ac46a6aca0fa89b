use std::collections::BTreeSet;

use kapell_api::task::{Outcome, Place, TaskEvent, TaskResources, Work as Does};
use kapell_expr::Value;
use kapell_model::{Offer, RunId, Time};

use super::*;

fn name(number: u64) -> Name {
    let run = RunId::new(Time(1), Shard(9), number.into());
    let offer = Offer {
        epoch: 3,
        counter: number,
    };
    (run, Place::default(), offer)
}

fn task(number: u64, message: String) -> Task {
    let (run, place, offer) = name(number);
    Task {
        offer,
        session: SessionId(number),
        queue: "far".into(),
        run,
        place,
        attempt: 2,
        alone: false,
        work: Does::Fail { message },
    }
}

fn ended(number: u64) -> Report {
    let (run, place, offer) = name(number);
    Report {
        run,
        place,
        offer,
        worker: "a".into(),
        event: TaskEvent::Ended {
            started_at: Time(1),
            ended_at: Time(2),
            outcome: Outcome::Succeeded(Value::Bool(true)),
            usage: None,
        },
    }
}

fn seat(queues: Queues) -> Seat {
    Seat {
        queues,
        process_window: 3,
        light_window: usize::MAX,
        total: TaskResources::ALL,
        share: TaskResources {
            cpu_millis: 1,
            memory_bytes: 2,
            gpus: 3,
            custom: [("license".into(), 4)].into_iter().collect(),
        },
        labels: Arc::new([("zone".into(), "a".into())].into()),
        spot: true,
    }
}

fn holding(number: u64) -> Holding {
    let (run, place, offer) = name(number);
    Holding {
        run,
        place,
        offer,
        attempt: 2,
        light: true,
        needs: TaskResources::default(),
    }
}

/// There and back.
fn passed(word: Word) -> Vec<Word> {
    let works = encoded(word).into_iter();
    works
        .map(|(work, _)| decoded(work).unwrap().unwrap())
        .collect()
}

#[test]
fn every_word_arrives_as_it_was_said() {
    let names = || vec![name(1), name(2)];
    let queues = Queues::Named(BTreeSet::from(["far".into()]));
    let open = SessionChange::Open {
        seat: seat(queues.clone()),
        holds: vec![holding(1)],
        hello: 7,
    };
    let of = |change| Word::Session(SessionId(7), change);
    let words = [
        Word::Again,
        Word::Offer(vec![task(1, "no".to_owned())]),
        Word::Got(names()),
        Word::Stop(names()),
        Word::Taken(names()),
        Word::Reports(vec![ended(1)]),
        Word::Sessions(vec![SessionId(u64::MAX)]),
        of(open),
        of(SessionChange::Seat(seat(Queues::Others))),
        of(SessionChange::Unheard(queues)),
        of(SessionChange::Over),
        Word::Wants([(("far".into(), 50), 4)].into_iter().collect()),
        Word::Took(4, vec![(Shard(4_095), u64::MAX)]),
        Word::Holds(4, SessionId(7), vec![holding(1)]),
        Word::Told(4),
    ];
    for word in words {
        let said = format!("{word:?}");
        let heard = passed(word);
        assert_eq!(heard.len(), 1, "{said}");
        assert_eq!(format!("{:?}", heard[0]), said);
    }
}

#[test]
fn many_attempts_go_in_several_frames_and_in_order() {
    let tasks: Vec<Task> = (0..10)
        .map(|number| task(number, "x".repeat(BYTES / 3)))
        .collect();
    let words = passed(Word::Offer(tasks));
    assert!(words.len() > 3, "{}", words.len());
    let numbers: Vec<u64> = words
        .iter()
        .flat_map(|word| match word {
            Word::Offer(tasks) => tasks.iter().map(|task| task.offer.counter).collect(),
            _ => Vec::new(),
        })
        .collect();
    assert_eq!(numbers, (0..10).collect::<Vec<_>>());
}

#[test]
fn what_a_later_version_says_is_left_alone() {
    assert!(decoded(Work { word: None }).unwrap().is_none());
}
