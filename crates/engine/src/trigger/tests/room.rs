//! Triggers whose run queue has no room.

use super::signals::{NOW, hook, orders, payload, signal};
use super::*;
use crate::trigger::listen::Same;

impl Bench {
    /// The run queue does not take the last start.
    fn no_room(&mut self, now: &str) {
        let start = Box::new(self.starts.last().unwrap().clone());
        let error = Error::new(ErrorCode::LimitReached, "the run queue of `w` is full");
        self.tell(Message::NoRoom { start, error }, now);
    }

    fn taken(&mut self, now: &str) {
        let start = self.starts.last().unwrap();
        assert!(start.waited);
        let run = start.id;
        self.tell(Message::StartTaken { run }, now);
    }

    fn last_due(&self) -> String {
        self.starts.last().unwrap().scheduled_at.to_string()
    }
}

#[test]
fn a_due_time_that_finds_no_room_is_tried_again_and_those_after_it_follow_in_order() {
    let mut bench = Bench::new(on(hourly()), "2026-05-01T10:30:00Z");
    assert_eq!(bench.wake("2026-05-01T11:00:00Z"), ["2026-05-01T11:00:00Z"]);
    let run = bench.starts[0].id;
    bench.no_room("2026-05-01T11:00:00Z");
    assert_eq!(bench.trigger.wake_at(), Some(at("2026-05-01T11:00:01Z")));
    let shown = bench.ask(Ask::View, "2026-05-01T11:00:00Z").unwrap();
    assert_eq!(*field(&shown, "waiting_starts"), Value::Int(1));
    assert_eq!(*field(&shown, "started"), Value::Int(0));
    assert!(field(&shown, "last").is_null());
    let problem = field(field(&shown, "problem"), "message").text();
    assert!(
        problem.contains("the run queue of `w` is full"),
        "{problem}"
    );
    // Longer each time, up to a bound.
    let mut waits = Vec::new();
    let mut now = at("2026-05-01T11:00:00Z");
    for _ in 0..9 {
        let next = bench.trigger.wake_at().unwrap();
        waits.push(next.since(now).as_secs());
        now = next;
        assert_eq!(bench.wake(&now.to_string()), ["2026-05-01T11:00:00Z"]);
        assert_eq!(
            bench.trigger.wake_at(),
            None,
            "it hears whether it was taken"
        );
        bench.no_room(&now.to_string());
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    // Three due times come meanwhile: none is passed over.
    bench.wake("2026-05-01T14:10:00Z");
    assert_eq!(bench.last_due(), "2026-05-01T11:00:00Z");
    assert!(bench.starts.iter().all(|start| start.id == run));
    let tries = bench.starts.len();
    bench.taken("2026-05-01T14:10:00Z");
    assert_eq!(bench.starts.len(), tries + 1, "one at a time");
    assert_eq!(bench.last_due(), "2026-05-01T12:00:00Z");
    assert_eq!(bench.starts[tries].class, StartClass::Regular);
    bench.no_room("2026-05-01T14:10:00Z");
    bench.wake("2026-05-01T14:10:01Z");
    assert_eq!(bench.last_due(), "2026-05-01T12:00:00Z");
    bench.taken("2026-05-01T14:10:01Z");
    assert_eq!(bench.last_due(), "2026-05-01T13:00:00Z");
    bench.taken("2026-05-01T14:10:01Z");
    assert_eq!(bench.last_due(), "2026-05-01T14:00:00Z");
    bench.taken("2026-05-01T14:10:01Z");
    let state = &bench.trigger.state;
    assert_eq!((state.started, state.missed, state.refused), (4, 0, 0));
    assert_eq!((&state.room, state.open.len()), (&None, 4));
    assert_eq!(bench.trigger.wake_at(), Some(at("2026-05-01T15:00:00Z")));
    assert_eq!(bench.wake("2026-05-01T15:00:00Z"), ["2026-05-01T15:00:00Z"]);
    assert!(!bench.starts.last().unwrap().waited);
}

#[test]
fn a_start_that_waited_and_is_refused_makes_way_for_the_next() {
    let mut bench = Bench::new(on(hourly()), "2026-05-01T10:30:00Z");
    bench.wake("2026-05-01T11:00:00Z");
    bench.no_room("2026-05-01T11:00:00Z");
    bench.wake("2026-05-01T12:10:00Z");
    let refused = Message::StartRefused {
        run: bench.starts.last().unwrap().id,
        scheduled_at: at("2026-05-01T11:00:00Z"),
        error: Error::new(ErrorCode::BadParams, "`n` is required: int"),
    };
    bench.tell(refused, "2026-05-01T12:10:00Z");
    assert_eq!(bench.last_due(), "2026-05-01T12:00:00Z");
    bench.taken("2026-05-01T12:10:00Z");
    let state = &bench.trigger.state;
    assert_eq!((state.refused, state.failed.len()), (1, 1));
    // What was refused never started, and the last is one that did.
    assert_eq!(state.started, 1);
    let last = bench.starts.last().unwrap().id.to_bytes().to_vec();
    assert_eq!(state.last.as_ref().unwrap().run, last);
    assert_eq!(state.room, None);
}

#[test]
fn what_waits_for_room_is_neither_backfilled_nor_kept_over_a_pause() {
    let mut bench = Bench::new(on(hourly()), "2026-05-01T10:30:00Z");
    bench.wake("2026-05-01T11:00:00Z");
    bench.no_room("2026-05-01T11:00:00Z");
    let found = |bench: &mut Bench, only: Only| {
        let ask = AskBackfill {
            id: "".into(),
            from: at("2026-05-01T11:00:00Z"),
            until: at("2026-05-01T12:00:00Z"),
            only,
            newest_first: false,
            concurrency: 1,
            by: "ann".to_owned(),
        };
        let ask = Ask::Backfill(Box::new(ask));
        let answer = bench.ask(ask, "2026-05-01T11:00:00.5Z").unwrap();
        field(&answer, "due").clone()
    };
    assert_eq!(found(&mut bench, Only::Missing), Value::Int(0));
    assert_eq!(found(&mut bench, Only::All), Value::Int(0));
    let by = || "ann".to_owned();
    bench
        .ask(Ask::PauseTrigger { by: by() }, "2026-05-01T11:00:00.6Z")
        .unwrap();
    assert_eq!(bench.trigger.wake_at(), None);
    bench
        .ask(Ask::ResumeTrigger { by: by() }, "2026-05-01T11:00:00.7Z")
        .unwrap();
    assert_eq!(bench.trigger.state.missed, 1);
    assert_eq!(bench.trigger.state.room, None);
    assert_eq!(found(&mut bench, Only::Missing), Value::Int(1));
}

#[test]
fn signals_wait_for_room_in_order() {
    let mut bench = Bench::new(orders(), NOW);
    let table = |day| [("table", 1), ("day", day)];
    assert_eq!(bench.signal("orders", "o1", &table(1), NOW), 1);
    bench.no_room(NOW);
    assert_eq!(bench.signal("orders", "o2", &table(2), NOW), 0);
    assert_eq!(bench.signal("orders", "o3", &table(3), NOW), 0);
    let shown = bench.ask(Ask::View, NOW).unwrap();
    assert_eq!(*field(&shown, "waiting_starts"), Value::Int(3));
    let wake = bench.trigger.wake_at().unwrap().to_string();
    bench.wake(&wake);
    for _ in 0..3 {
        bench.taken(&wake);
    }
    let starts: Vec<_> = bench.starts[1..]
        .iter()
        .map(|start| (field(&start.params, "day").clone(), start.kind, start.hops))
        .collect();
    let wanted = [1, 2, 3].map(|day| (Value::Int(day), "signal", 2));
    assert_eq!(starts, wanted);
    assert_eq!(bench.starts[0].id, bench.starts[1].id);
    assert_eq!(bench.trigger.state.started, 3);
    assert_eq!(bench.trigger.state.room, None);
    assert_eq!(bench.signal("orders", "o4", &table(4), NOW), 1);
}

#[test]
fn more_signals_than_may_wait_are_refused() {
    let mut bench = Bench::new(orders(), NOW);
    bench.signal("orders", "o", &[("table", 1), ("day", 0)], NOW);
    bench.no_room(NOW);
    let start = bench.starts[0].clone();
    // As many as there may be, by their facts.
    let key = key();
    let of = Names::of(&key).unwrap();
    let mut deciding = bench.trigger.deciding(of, at(NOW));
    for _ in 1..limits::HELD_STARTS {
        deciding.hold(&start, Vec::new(), Same::default()).unwrap();
    }
    bench.signal("orders", "p", &[("table", 1), ("day", 0)], NOW);
    let shown = bench.ask(Ask::View, NOW).unwrap();
    assert_eq!(*field(&shown, "refused"), Value::Int(1));
    assert_eq!(
        bench.trigger.state.room.as_ref().unwrap().held.len(),
        limits::HELD_STARTS
    );
}

#[test]
fn a_webhook_that_finds_no_room_tells_its_caller() {
    let mut bench = Bench::new(hook(), NOW);
    let signal = signal("hook", "x", payload(&[("n", 1)]), NOW);
    bench.ask(Ask::Deliver(Box::new(signal)), NOW).unwrap();
    bench.no_room(NOW);
    assert_eq!(bench.trigger.state.refused, 1);
    assert_eq!(bench.trigger.state.room, None);
    assert!(bench.trigger.state.seen.is_empty(), "it may come again");
}
