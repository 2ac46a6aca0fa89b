use std::collections::BTreeMap;

use jiff::Timestamp;
use kapell_expr::{Program, Template, Value};
use kapell_model::spec::{Catchup, Schedule, Timing};
use kapell_model::{RunId, RunStatus, limits};
use proptest::prelude::*;

use super::*;

use crate::backfill::{AskBackfill, Only};
use crate::message::{StartClass, StartTriggered, TriggerSet};
use crate::small::Ask;

mod account;
mod room;
mod signals;

fn at(text: &str) -> Time {
    text.parse::<Timestamp>().unwrap().into()
}

fn key() -> EntityKey {
    EntityKey::Trigger {
        namespace: "default".into(),
        workflow: "w".into(),
        name: "nightly".into(),
    }
}

fn hourly() -> Schedule {
    Schedule {
        timing: Timing::Cron("0 * * * *".into()),
        timezone: None,
        catchup: Catchup::Latest,
        jitter: None,
        start: None,
        end: None,
    }
}

fn on(schedule: Schedule) -> spec::Trigger {
    spec::Trigger {
        name: "nightly".into(),
        kind: TriggerKind::Schedule(Box::new(schedule)),
        with: None,
        when: None,
        paused: false,
    }
}

fn all() -> Schedule {
    Schedule {
        catchup: Catchup::All {
            max: 1_000,
            within: None,
            pace: None,
        },
        ..hourly()
    }
}

/// A trigger with what it started.
#[derive(Default)]
struct Bench {
    trigger: Trigger,
    starts: Vec<StartTriggered>,
    /// What it told others.
    others: Vec<(EntityKey, Message)>,
}

impl Bench {
    fn new(trigger: spec::Trigger, now: &str) -> Self {
        let mut bench = Self::default();
        bench.set(1, trigger, now);
        bench
    }

    fn take(&mut self, input: SmallInput, now: Time) -> Result<Value, Error> {
        let mut again = Trigger::from_snapshot(&self.trigger.to_bytes()).unwrap();
        let decided = self.trigger.decide(&key(), input, now)?;
        again.replay(&decided.chunk).unwrap();
        // Facts alone give the same state, and what follows by itself.
        assert_eq!(again.state, self.trigger.state);
        assert_eq!(again.wake_at(), self.trigger.wake_at());
        assert_eq!(again.document(), self.trigger.document());
        for (to, message) in decided.messages {
            match message {
                Message::StartTriggered(start) => {
                    assert_eq!(to, start.id.into());
                    self.starts.push(*start);
                }
                other => self.others.push((to, other)),
            }
        }
        Ok(decided.answer)
    }

    fn tell(&mut self, message: Message, now: &str) {
        let _ = self.take(SmallInput::Message(Box::new(message)), at(now));
    }

    fn set(&mut self, version: u32, trigger: spec::Trigger, now: &str) {
        let set = TriggerSet {
            version,
            trigger,
            timezone: "Europe/Berlin".into(),
            workflow_paused: false,
        };
        self.tell(Message::TriggerSet(Box::new(set)), now);
    }

    /// Wakes it at this time as often as it wants; the due times that it started.
    fn wake(&mut self, now: &str) -> Vec<String> {
        let before = self.starts.len();
        self.take(SmallInput::Wake, at(now)).unwrap();
        while self.trigger.wake_at().is_some_and(|wake| wake <= at(now)) {
            self.take(SmallInput::Wake, at(now)).unwrap();
        }
        let due = self.starts[before..]
            .iter()
            .map(|start| start.scheduled_at.to_string());
        due.collect()
    }

    fn ask(&mut self, ask: Ask, now: &str) -> Result<Value, Error> {
        self.take(SmallInput::Ask(ask), at(now))
    }
}

fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.as_map().unwrap().get(name).unwrap()
}

#[test]
fn a_due_time_starts_one_run_with_what_is_known_of_it() {
    let mut bench = Bench::new(
        spec::Trigger {
            with: Some(
                Template::parse("${{ {'day': run.interval.start, 'by': run.trigger.name} }}")
                    .unwrap(),
            ),
            ..on(hourly())
        },
        "2026-05-01T10:30:00Z",
    );
    assert_eq!(bench.trigger.wake_at(), Some(at("2026-05-01T11:00:00Z")));
    assert!(bench.wake("2026-05-01T10:59:59Z").is_empty());
    assert_eq!(
        bench.wake("2026-05-01T11:00:00.25Z"),
        ["2026-05-01T11:00:00Z"]
    );
    assert!(bench.wake("2026-05-01T11:00:01Z").is_empty());
    let start = &bench.starts[0];
    assert_eq!(start.interval.0, at("2026-05-01T10:00:00Z"));
    assert_eq!(start.interval.1, start.scheduled_at);
    assert_eq!(&*start.timezone, "Europe/Berlin");
    assert_eq!((start.kind, &*start.name), ("schedule", "nightly"));
    assert_eq!(start.version, Some(1));
    assert_eq!(start.class, StartClass::Regular);
    assert_eq!(start.id.shard(), key().shard());
    assert_eq!(
        *field(&start.params, "day"),
        Value::Timestamp(start.interval.0.timestamp())
    );
    assert_eq!(*field(&start.params, "by"), Value::string("nightly"));
}

#[test]
fn the_run_to_come_is_known_before() {
    let mut bench = Bench::new(on(hourly()), "2026-05-01T10:30:00Z");
    let coming = bench.trigger.coming(&key()).unwrap();
    assert_eq!((coming.at, coming.version), (at("2026-05-01T11:00:00Z"), 1));
    bench.wake("2026-05-01T11:00:00Z");
    assert_eq!(bench.starts[0].id, coming.run);
    assert_ne!(bench.trigger.coming(&key()).unwrap().run, coming.run);
}

#[test]
fn both_times_of_a_repeated_hour_have_ids_of_their_own() {
    let mut bench = Bench::new(on(hourly()), "2026-10-25T00:30:00Z");
    bench.wake("2026-10-25T01:00:00Z");
    let mut again = Bench::new(on(hourly()), "2026-10-24T23:30:00Z");
    again.wake("2026-10-25T00:00:00Z");
    again.wake("2026-10-25T01:00:00Z");
    assert_eq!(again.starts[1].id, bench.starts[0].id);
    assert_ne!(again.starts[0].id, again.starts[1].id);
}

#[test]
fn of_missed_due_times_the_latest_is_made_up_for() {
    let mut bench = Bench::new(on(hourly()), "2026-05-01T10:30:00Z");
    assert_eq!(bench.wake("2026-05-01T15:20:00Z"), ["2026-05-01T15:00:00Z"]);
    assert_eq!(bench.starts[0].class, StartClass::Catchup);
    assert_eq!(bench.trigger.state.missed, 4);
    assert_eq!(bench.wake("2026-05-01T16:00:00Z"), ["2026-05-01T16:00:00Z"]);
    assert_eq!(bench.starts[1].class, StartClass::Regular);
}

#[test]
fn nothing_is_made_up_for_under_none() {
    let none = Schedule {
        catchup: Catchup::None,
        ..hourly()
    };
    let mut bench = Bench::new(on(none), "2026-05-01T10:30:00Z");
    assert!(bench.wake("2026-05-01T15:20:00Z").is_empty());
    assert_eq!(bench.trigger.state.missed, 5);
    // What is due just now starts, whatever was missed before.
    assert_eq!(bench.wake("2026-05-01T18:00:30Z"), ["2026-05-01T18:00:00Z"]);
    assert_eq!(bench.trigger.state.missed, 7);
}

#[test]
fn all_that_was_missed_is_made_up_for_in_order() {
    let mut bench = Bench::new(on(all()), "2026-05-01T10:30:00Z");
    assert_eq!(
        bench.wake("2026-05-01T13:00:10Z"),
        [
            "2026-05-01T11:00:00Z",
            "2026-05-01T12:00:00Z",
            "2026-05-01T13:00:00Z"
        ]
    );
    let classes: Vec<StartClass> = bench.starts.iter().map(|start| start.class).collect();
    assert_eq!(
        classes,
        [
            StartClass::Catchup,
            StartClass::Catchup,
            StartClass::Regular
        ]
    );
}

#[test]
fn catching_up_is_bounded_by_count_and_age() {
    let bounded = Schedule {
        catchup: Catchup::All {
            max: 3,
            within: Some(SignedDuration::from_hours(48)),
            pace: None,
        },
        ..hourly()
    };
    let mut bench = Bench::new(on(bounded.clone()), "2026-05-01T10:30:00Z");
    assert_eq!(
        bench.wake("2026-05-02T10:30:00Z"),
        [
            "2026-05-02T08:00:00Z",
            "2026-05-02T09:00:00Z",
            "2026-05-02T10:00:00Z"
        ]
    );
    assert_eq!(bench.trigger.state.missed, 21);
    let old = Schedule {
        catchup: Catchup::All {
            max: 1_000,
            within: Some(SignedDuration::from_hours(2)),
            pace: None,
        },
        ..hourly()
    };
    let mut bench = Bench::new(on(old), "2026-05-01T10:30:00Z");
    assert_eq!(
        bench.wake("2026-05-02T10:30:00Z"),
        ["2026-05-02T09:00:00Z", "2026-05-02T10:00:00Z"]
    );
}

#[test]
fn catching_up_keeps_its_pace() {
    let paced = Schedule {
        catchup: Catchup::All {
            max: 1_000,
            within: None,
            pace: Some(SignedDuration::from_mins(10)),
        },
        ..hourly()
    };
    let mut bench = Bench::new(on(paced), "2026-05-01T10:30:00Z");
    assert_eq!(bench.wake("2026-05-01T12:30:00Z"), ["2026-05-01T11:00:00Z"]);
    assert_eq!(bench.trigger.wake_at(), Some(at("2026-05-01T12:40:00Z")));
    assert!(bench.wake("2026-05-01T12:39:59Z").is_empty());
    assert_eq!(bench.wake("2026-05-01T12:40:00Z"), ["2026-05-01T12:00:00Z"]);
    assert_eq!(bench.trigger.wake_at(), Some(at("2026-05-01T13:00:00Z")));
}

#[test]
fn many_starts_are_several_decisions() {
    let often = Schedule {
        timing: Timing::Every(SignedDuration::from_secs(1)),
        ..all()
    };
    let mut bench = Bench::new(on(often), "2026-05-01T10:00:00Z");
    bench
        .take(SmallInput::Wake, at("2026-05-01T10:10:00Z"))
        .unwrap();
    assert!(bench.starts.len() <= limits::TRIGGER_STARTS);
    assert!(bench.trigger.wake_at().unwrap() < at("2026-05-01T10:10:00Z"));
    bench.wake("2026-05-01T10:10:00Z");
    assert_eq!(bench.starts.len(), 600);
}

#[test]
fn jitter_is_a_fixed_part_and_leaves_the_due_time_as_it_is() {
    let late = Schedule {
        jitter: Some(SignedDuration::from_mins(10)),
        ..hourly()
    };
    let mut bench = Bench::new(on(late), "2026-05-01T10:30:00Z");
    let wake = bench.trigger.wake_at().unwrap();
    let delay = wake.since(at("2026-05-01T11:00:00Z"));
    assert!(delay > SignedDuration::ZERO && delay < SignedDuration::from_mins(10));
    assert!(bench.wake("2026-05-01T11:00:00Z").is_empty());
    assert_eq!(bench.wake(&wake.to_string()), ["2026-05-01T11:00:00Z"]);
    let next = bench.trigger.wake_at().unwrap();
    assert_eq!(next.since(wake), SignedDuration::from_hours(1));
}

#[test]
fn an_edit_goes_on_from_now_and_an_equal_definition_changes_the_version_alone() {
    let mut bench = Bench::new(on(all()), "2026-05-01T10:30:00Z");
    bench.set(2, on(all()), "2026-05-01T13:30:00Z");
    // What was missed until then is made up for, by the new version.
    let due: Vec<String> = bench
        .starts
        .iter()
        .map(|s| s.scheduled_at.to_string())
        .collect();
    assert_eq!(due.len(), 3);
    assert!(bench.starts.iter().all(|start| start.version == Some(2)));
    let half = Schedule {
        timing: Timing::Cron("30 * * * *".into()),
        ..all()
    };
    bench.set(3, on(half), "2026-05-01T16:40:00Z");
    assert_eq!(bench.starts.len(), 3);
    assert_eq!(bench.wake("2026-05-01T17:30:00Z"), ["2026-05-01T17:30:00Z"]);
    assert_eq!(bench.trigger.state.generation, 2);
    let events = bench.trigger.state.last_at;
    bench.set(
        3,
        bench.trigger.made.as_ref().unwrap().spec.clone(),
        "2026-05-01T17:40:00Z",
    );
    assert_eq!(bench.trigger.state.last_at, events);
}

#[test]
fn due_times_while_paused_are_not_made_up_for() {
    let mut bench = Bench::new(on(all()), "2026-05-01T10:30:00Z");
    let by = || "ann".to_owned();
    let shown = bench
        .ask(Ask::PauseTrigger { by: by() }, "2026-05-01T10:40:00Z")
        .unwrap();
    assert_eq!(*field(&shown, "paused_by"), Value::string("ann"));
    assert_eq!(bench.trigger.wake_at(), None);
    assert!(bench.wake("2026-05-01T13:10:00Z").is_empty());
    bench
        .ask(Ask::ResumeTrigger { by: by() }, "2026-05-01T13:20:00Z")
        .unwrap();
    assert_eq!(bench.wake("2026-05-01T14:00:00Z"), ["2026-05-01T14:00:00Z"]);
    bench.tell(Message::WorkflowPaused(true), "2026-05-01T14:10:00Z");
    assert!(bench.wake("2026-05-01T16:10:00Z").is_empty());
    bench.tell(Message::WorkflowPaused(false), "2026-05-01T16:20:00Z");
    assert_eq!(bench.wake("2026-05-01T17:00:00Z"), ["2026-05-01T17:00:00Z"]);
}

#[test]
fn a_definition_pauses_and_resumes_when_it_changes_its_word() {
    let paused = spec::Trigger {
        paused: true,
        ..on(hourly())
    };
    let mut bench = Bench::new(paused.clone(), "2026-05-01T10:30:00Z");
    assert_eq!(bench.trigger.wake_at(), None);
    let by = "ann".to_owned();
    bench
        .ask(Ask::ResumeTrigger { by }, "2026-05-01T10:40:00Z")
        .unwrap();
    bench.set(2, paused, "2026-05-01T10:50:00Z");
    assert!(bench.trigger.wake_at().is_some());
    let by = "ann".to_owned();
    bench
        .ask(Ask::PauseTrigger { by }, "2026-05-01T10:55:00Z")
        .unwrap();
    bench.set(3, on(hourly()), "2026-05-01T10:56:00Z");
    assert!(bench.trigger.wake_at().is_some());
}

#[test]
fn a_removed_trigger_starts_nothing_and_begins_anew() {
    let mut bench = Bench::new(on(all()), "2026-05-01T10:30:00Z");
    bench.tell(Message::TriggerRemoved, "2026-05-01T10:40:00Z");
    assert_eq!(
        (bench.trigger.wake_at(), bench.trigger.document()),
        (None, None)
    );
    let error = bench.ask(Ask::View, "2026-05-01T12:40:00Z").unwrap_err();
    assert_eq!(error.code, ErrorCode::TriggerNotFound);
    bench.set(2, on(all()), "2026-05-01T12:40:00Z");
    assert_eq!(bench.wake("2026-05-01T13:00:00Z"), ["2026-05-01T13:00:00Z"]);
    assert_eq!(bench.trigger.state.generation, 2);
}

#[test]
fn when_declines_and_errors_are_shown() {
    let picky = spec::Trigger {
        when: Some(Program::parse("run.scheduled_at.getHours() % 2 == 0").unwrap()),
        ..on(hourly())
    };
    let mut bench = Bench::new(picky, "2026-05-01T10:30:00Z");
    assert!(bench.wake("2026-05-01T11:00:00Z").is_empty());
    assert_eq!(bench.wake("2026-05-01T12:00:00Z"), ["2026-05-01T12:00:00Z"]);
    assert_eq!(bench.trigger.state.declined, 1);
    let broken = spec::Trigger {
        with: Some(
            Template::parse("${{ {'n': 1 / (run.interval.end == run.interval.start ? 1 : 0)} }}")
                .unwrap(),
        ),
        ..on(hourly())
    };
    bench.set(2, broken, "2026-05-01T12:30:00Z");
    assert!(bench.wake("2026-05-01T13:00:00Z").is_empty());
    let shown = bench.ask(Ask::View, "2026-05-01T13:00:01Z").unwrap();
    let problem = field(field(&shown, "problem"), "message").text();
    assert!(problem.contains("`with`"), "{problem}");
    bench.tell(
        Message::StartRefused {
            run: RunId(1),
            scheduled_at: at("2026-05-01T14:00:00Z"),
            error: Error::new(ErrorCode::BadParams, "`n` is required: int"),
        },
        "2026-05-01T13:30:00Z",
    );
    let shown = bench.ask(Ask::View, "2026-05-01T13:30:01Z").unwrap();
    let problem = field(field(&shown, "problem"), "message").text();
    assert!(problem.contains("`n` is required"), "{problem}");
    assert_eq!(*field(&shown, "refused"), Value::Int(2));
}

#[derive(Clone, Debug)]
enum Act {
    /// The clock moves, and the trigger is woken if it wants to.
    Passes(i64),
    /// The clock is set, by up to some hours either way.
    Jumps(i64),
    /// Woken although nothing is due.
    Woken,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0_i64..7_200).prop_map(Act::Passes),
        1 => (-10_800_i64..10_800).prop_map(Act::Jumps),
        1 => Just(Act::Woken),
    ];
    prop::collection::vec(act, 1..40)
}

proptest! {
    /// Whatever the clock does, each due time up to the last instant seen makes exactly one run.
    #[test]
    fn each_due_time_makes_one_run(acts in acts()) {
        let begin = at("2026-10-24T22:10:00Z");
        let often = Schedule {
            timing: Timing::Cron("*/20 * * * *".into()),
            ..all()
        };
        let mut bench = Bench::new(on(often.clone()), "2026-10-24T22:10:00Z");
        let (mut now, mut last) = (begin.0, begin.0);
        for act in acts {
            match act {
                Act::Passes(seconds) => now += seconds * 1_000_000,
                Act::Jumps(seconds) => now = (now + seconds * 1_000_000).max(begin.0),
                Act::Woken => bench.take(SmallInput::Wake, Time(now)).map(drop).unwrap(),
            }
            while bench.trigger.wake_at().is_some_and(|wake| wake.0 <= now) {
                bench.take(SmallInput::Wake, Time(now)).unwrap();
                last = last.max(now);
            }
            if !matches!(act, Act::Woken) {
                last = last.max(now);
            }
        }
        let calendar = Calendar::new(&often, "Europe/Berlin").unwrap();
        let expected = calendar.first(begin, Time(last), 100_000);
        let started: Vec<Time> = bench.starts.iter().map(|start| start.scheduled_at).collect();
        prop_assert_eq!(&started, &expected);
        let ids: BTreeMap<RunId, Time> = bench.starts.iter().map(|start| (start.id, start.scheduled_at)).collect();
        prop_assert_eq!(ids.len(), started.len());
    }
}
