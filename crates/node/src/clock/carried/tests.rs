use std::collections::BTreeSet;

use kapell_engine::message::{Message, TriggerSet};
use kapell_engine::small::{Small, SmallInput};
use kapell_engine::trigger::Trigger;
use kapell_model::EntityKey;
use kapell_model::spec::{self, Catchup, Schedule, Timing, TriggerKind};

use super::*;

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;
const BEGIN: i64 = 1_780_000_000 * SECOND;

/// A machine whose clock is set, and the time that follows it.
struct Machine {
    passed: i64,
    set_by: i64,
    clock: Carried,
    noticed: Vec<Noticed>,
}

impl Machine {
    fn new() -> Self {
        Self {
            passed: 0,
            set_by: 0,
            clock: Carried::new(Time(BEGIN), 7),
            noticed: Vec::new(),
        }
    }

    fn wall(&self) -> i64 {
        BEGIN + self.passed + self.set_by
    }

    fn after(&mut self, micros: i64) -> Time {
        self.passed += micros;
        let (now, noticed) = self.clock.at(Time(self.wall()), self.passed + 7);
        self.noticed.extend(noticed);
        now
    }
}

#[test]
fn a_clock_that_is_not_set_is_followed_exactly() {
    let mut machine = Machine::new();
    for micros in [0, 1, 999, SECOND, 30 * SECOND, HOUR, 0] {
        let now = machine.after(micros);
        assert_eq!(now.0, machine.wall());
    }
    // Sleep is time that passes, however long.
    assert_eq!(machine.after(100 * HOUR).0, machine.wall());
    assert_eq!(machine.noticed, []);
}

#[test]
fn a_clock_that_is_set_is_followed_by_a_quarter_of_the_time_at_most() {
    for set_by in [HOUR, -HOUR] {
        let mut machine = Machine::new();
        machine.set_by = set_by;
        let mut before = machine.after(0);
        assert!((before.0 - BEGIN).abs() <= 1);
        for second in 1..=4 * 3_600 {
            let now = machine.after(SECOND);
            let went = now.0 - before.0;
            let least = SECOND - SECOND / PART - 1;
            let most = SECOND + SECOND / PART + 1;
            assert!((least..=most).contains(&went), "{second}: {went}");
            before = now;
        }
        assert_eq!(before.0, machine.wall());
        assert_eq!(
            machine.noticed,
            [Noticed::Jump(SignedDuration::from_micros(set_by))]
        );
    }
}

#[test]
fn readings_close_together_follow_too_and_never_go_back() {
    let mut machine = Machine::new();
    machine.set_by = -400;
    let mut before = machine.after(0);
    for _ in 0..1_000 {
        let now = machine.after(1);
        assert!(now >= before);
        before = now;
    }
    assert_eq!(before.0, machine.wall());
    assert_eq!(machine.noticed, []);
}

#[test]
fn a_clock_that_is_set_by_days_is_taken_at_once() {
    for set_by in [48 * HOUR, -48 * HOUR] {
        let mut machine = Machine::new();
        machine.set_by = set_by;
        assert_eq!(machine.after(SECOND).0, machine.wall());
        assert_eq!(
            machine.noticed,
            [Noticed::Adopted(SignedDuration::from_micros(set_by))]
        );
    }
}

/// Due times of an eager schedule while the clock is set there and back, under each way to catch up.
#[test]
fn an_hour_forward_and_back_misses_no_due_time_and_doubles_none() {
    let all = Catchup::All {
        max: 2,
        within: None,
        pace: None,
    };
    for catchup in [Catchup::Latest, Catchup::None, all] {
        let key = EntityKey::Trigger {
            namespace: "default".into(),
            workflow: "w".into(),
            name: "every".into(),
        };
        let set = TriggerSet {
            version: 1,
            trigger: spec::Trigger {
                name: "every".into(),
                kind: TriggerKind::Schedule(Box::new(Schedule {
                    timing: Timing::Every(SignedDuration::from_secs(10)),
                    timezone: None,
                    catchup,
                    jitter: None,
                    start: None,
                    end: None,
                })),
                with: None,
                when: None,
                paused: false,
            },
            timezone: "UTC".into(),
            workflow_paused: false,
        };
        let mut trigger = Trigger::default();
        let set = SmallInput::Message(Box::new(Message::TriggerSet(Box::new(set))));
        trigger.decide(&key, set, Time(BEGIN)).unwrap();
        let mut machine = Machine::new();
        let mut due = Vec::new();
        let mut now = Time(BEGIN);
        for second in 1..12 * 3_600 {
            match second {
                60 | 20_000 => machine.set_by += HOUR,
                9_000 | 30_000 => machine.set_by -= HOUR,
                _ => {}
            }
            now = machine.after(SECOND);
            while trigger.wake_at().is_some_and(|at| at <= now) {
                let decided = trigger.decide(&key, SmallInput::Wake, now).unwrap();
                for (_, message) in decided.messages {
                    if let Message::StartTriggered(start) = message {
                        due.push(start.scheduled_at.0);
                    }
                }
            }
        }
        assert_eq!(trigger.state.missed, 0, "{catchup:?}");
        let expected: Vec<i64> = (BEGIN / (10 * SECOND) + 1..=now.0 / (10 * SECOND))
            .map(|number| number * 10 * SECOND)
            .collect();
        assert_eq!(due, expected, "{catchup:?}");
        let different: BTreeSet<i64> = due.iter().copied().collect();
        assert_eq!(different.len(), due.len());
    }
}
