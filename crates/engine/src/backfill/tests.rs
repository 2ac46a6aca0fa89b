use jiff::{SignedDuration, Timestamp};
use kapell_model::spec::{self, Catchup, Schedule, Timing, TriggerKind};

use super::*;
use crate::message::{StartTriggered, TriggerSet};
use crate::trigger::Trigger;

fn at(text: &str) -> Time {
    text.parse::<Timestamp>().unwrap().into()
}

fn hour(hour: u32) -> Time {
    at(&format!("2026-05-01T{hour:02}:00:00Z"))
}

fn trigger_key() -> EntityKey {
    EntityKey::Trigger {
        namespace: "default".into(),
        workflow: "w".into(),
        name: "hourly".into(),
    }
}

fn hourly() -> spec::Trigger {
    spec::Trigger {
        name: "hourly".into(),
        kind: TriggerKind::Schedule(Box::new(Schedule {
            timing: Timing::Every(SignedDuration::from_hours(1)),
            timezone: None,
            catchup: Catchup::Latest,
            jitter: None,
            start: None,
            end: None,
        })),
        with: None,
        when: None,
        paused: false,
    }
}

/// A backfill of an hourly schedule, made through its trigger.
struct Bench {
    key: EntityKey,
    trigger: Trigger,
    backfill: Backfill,
    starts: Vec<StartTriggered>,
    cancelled: Vec<RunId>,
    /// What the run queue was told.
    held: Vec<Option<Hold>>,
}

fn wanted() -> AskBackfill {
    AskBackfill {
        id: "fill".into(),
        from: hour(0),
        until: hour(6),
        only: Only::Missing,
        newest_first: false,
        concurrency: 2,
        by: "ann".to_owned(),
    }
}

impl Bench {
    /// Runs for these hours are known: succeeded, and failed.
    fn new(known: [&[u32]; 2], ask: AskBackfill) -> Self {
        let mut trigger = Trigger::default();
        let set = TriggerSet {
            version: 3,
            trigger: hourly(),
            timezone: "UTC".into(),
            workflow_paused: false,
        };
        let mut tell = |message, now| {
            let input = SmallInput::Message(Box::new(message));
            trigger.decide(&trigger_key(), input, now).unwrap();
        };
        tell(Message::TriggerSet(Box::new(set)), Time(hour(0).0 - 1));
        for (place, hours) in known.iter().enumerate() {
            for due in *hours {
                let status = [RunStatus::Succeeded, RunStatus::Failed][place];
                let ended = Message::DueRunEnded {
                    run: RunId(1),
                    scheduled_at: hour(*due),
                    status,
                    blocks: false,
                };
                tell(ended, Time(hour(0).0 - 1));
            }
        }
        let decided = trigger
            .decide(
                &trigger_key(),
                SmallInput::Ask(Ask::Backfill(Box::new(ask))),
                at("2026-05-02T00:30:00Z"),
            )
            .unwrap();
        let mut bench = Self {
            key: trigger_key(),
            trigger,
            backfill: Backfill::default(),
            starts: Vec::new(),
            cancelled: Vec::new(),
            held: Vec::new(),
        };
        for (to, message) in decided.messages {
            if matches!(to, EntityKey::Backfill { .. }) {
                bench.key = to;
                bench.tell(message);
            }
        }
        bench
    }

    fn take(&mut self, input: SmallInput) -> Result<Value, Error> {
        let mut again = Backfill::from_snapshot(&self.backfill.to_bytes()).unwrap();
        let decided = self
            .backfill
            .decide(&self.key, input, at("2026-05-02T00:30:00Z"))?;
        again.replay(&decided.chunk).unwrap();
        // Facts alone give the same state.
        assert_eq!(again.state, self.backfill.state);
        assert_eq!(again.document(), self.backfill.document());
        for (to, message) in decided.messages {
            match (to, message) {
                (_, Message::StartTriggered(start)) => self.starts.push(*start),
                (EntityKey::RunQueue { .. }, Message::BackfillHeld { hold, .. }) => {
                    self.held.push(hold);
                }
                (EntityKey::Run(run), Message::CancelRun { .. }) => self.cancelled.push(run),
                other => panic!("{other:?}"),
            }
        }
        Ok(decided.answer)
    }

    fn tell(&mut self, message: Message) {
        self.take(SmallInput::Message(Box::new(message))).unwrap();
    }

    fn ends(&mut self, run: usize, status: RunStatus, blocks: bool) {
        self.tell(Message::DueRunEnded {
            run: self.starts[run].id,
            scheduled_at: self.starts[run].scheduled_at,
            status,
            blocks,
        });
    }

    fn due(&self) -> Vec<Time> {
        self.starts.iter().map(|start| start.scheduled_at).collect()
    }

    fn shown(&self, field: &str) -> serde_json::Value {
        self.backfill.shown().unwrap()[field].clone()
    }
}

#[test]
fn missing_due_times_are_started_so_many_at_a_time() {
    let mut bench = Bench::new([&[1, 2], &[4]], wanted());
    assert_eq!(bench.due(), [hour(0), hour(3)]);
    let start = &bench.starts[0];
    assert_eq!((start.kind, &*start.name), ("backfill", "hourly"));
    assert_eq!(start.class, StartClass::Backfill);
    assert_eq!(start.backfill.as_deref(), Some("fill"));
    assert_eq!(start.version, Some(3));
    assert_eq!(start.interval, (Time(hour(0).0 - 3_600_000_000), hour(0)));
    bench.ends(1, RunStatus::Succeeded, false);
    bench.ends(0, RunStatus::Failed, false);
    assert_eq!(bench.due(), [hour(0), hour(3), hour(4), hour(5)]);
    bench.ends(2, RunStatus::Succeeded, false);
    assert_eq!(bench.shown("status"), "running");
    bench.ends(3, RunStatus::Cancelled, false);
    assert_eq!(bench.shown("status"), "ended");
    assert_eq!(bench.shown("succeeded"), 2);
    assert_eq!(bench.shown("failed"), 1);
    assert_eq!(bench.shown("cancelled"), 1);
    // Retried to success.
    bench.ends(0, RunStatus::Succeeded, false);
    assert_eq!(bench.shown("failed"), 0);
    let ids: std::collections::BTreeSet<RunId> = bench.starts.iter().map(|s| s.id).collect();
    assert_eq!(ids.len(), 4);
}

#[test]
fn only_failed_ones_or_all_and_the_newest_first() {
    let failed = AskBackfill {
        only: Only::Failed,
        ..wanted()
    };
    let bench = Bench::new([&[1], &[1, 2, 5]], failed);
    assert_eq!(bench.due(), [hour(2), hour(5)]);
    let all = AskBackfill {
        only: Only::All,
        newest_first: true,
        concurrency: 10,
        ..wanted()
    };
    let bench = Bench::new([&[1], &[2]], all);
    assert_eq!(bench.due(), [5, 4, 3, 2, 1, 0].map(hour));
}

#[test]
fn a_paused_backfill_starts_nothing_until_it_is_resumed() {
    let mut bench = Bench::new([&[], &[]], wanted());
    let by = || "ann".to_owned();
    bench
        .take(SmallInput::Ask(Ask::PauseBackfill { by: by() }))
        .unwrap();
    bench.ends(0, RunStatus::Succeeded, false);
    assert_eq!(bench.starts.len(), 2);
    assert_eq!(bench.shown("status"), "paused");
    assert_eq!(bench.held, [Some(Hold::Paused("ann".to_owned()))]);
    bench
        .take(SmallInput::Ask(Ask::ResumeBackfill { by: by() }))
        .unwrap();
    assert_eq!(bench.starts.len(), 3);
    assert_eq!(bench.held[1..], [None]);
}

#[test]
fn a_cancelled_backfill_cancels_what_runs() {
    let mut bench = Bench::new([&[], &[]], wanted());
    let by = || "ann".to_owned();
    bench
        .take(SmallInput::Ask(Ask::PauseBackfill { by: by() }))
        .unwrap();
    bench
        .take(SmallInput::Ask(Ask::CancelBackfill { by: by() }))
        .unwrap();
    assert_eq!(bench.cancelled.len(), 2);
    bench.ends(0, RunStatus::Cancelled, false);
    bench.ends(1, RunStatus::Cancelled, false);
    assert_eq!(bench.starts.len(), 2);
    assert!(bench.backfill.state.ended_at > 0);
    assert_eq!(
        bench.held.len(),
        2,
        "what is cancelled is kept back no longer"
    );
    assert_eq!(bench.shown("failed"), 0);
    assert_eq!(bench.shown("failed_runs"), serde_json::json!([]));
    assert_eq!(bench.shown("cancelled"), 2);
    assert_eq!(bench.shown("paused_by"), serde_json::Value::Null);
    let refused = bench.take(SmallInput::Ask(Ask::ResumeBackfill { by: by() }));
    assert_eq!(refused.unwrap_err().code, ErrorCode::NotAllowedNow);
}

#[test]
fn a_failed_run_of_a_strict_workflow_blocks_its_backfill() {
    let mut bench = Bench::new([&[], &[]], wanted());
    bench.ends(0, RunStatus::Failed, true);
    bench.ends(1, RunStatus::Succeeded, false);
    assert_eq!(bench.starts.len(), 2);
    assert_eq!(bench.shown("status"), "blocked");
    let failed = bench.starts[0].id;
    assert_eq!(bench.held, [Some(Hold::Blocked(failed))]);
    bench.ends(0, RunStatus::Succeeded, false);
    assert_eq!(bench.held[1..], [None]);
    assert_eq!(bench.starts.len(), 4);
    bench.ends(2, RunStatus::TimedOut, true);
    let by = "ann".to_owned();
    bench
        .take(SmallInput::Ask(Ask::ResumeBackfill { by }))
        .unwrap();
    assert_eq!(bench.starts.len(), 5);
}

#[test]
fn a_retried_run_takes_its_place_again_until_it_ends() {
    let mut bench = Bench::new([&[0, 1, 2], &[]], wanted());
    bench.ends(0, RunStatus::Failed, false);
    assert_eq!(bench.starts.len(), 3);
    bench.ends(1, RunStatus::Succeeded, false);
    let reopened = Message::DueRunReopened {
        run: bench.starts[0].id,
        scheduled_at: hour(3),
    };
    bench.tell(reopened);
    bench.ends(2, RunStatus::Succeeded, false);
    assert_eq!(
        (bench.shown("status"), bench.shown("failed")),
        ("running".into(), 0.into())
    );
    bench.ends(0, RunStatus::Succeeded, false);
    assert_eq!(
        (bench.shown("status"), bench.shown("succeeded")),
        ("ended".into(), 3.into())
    );
}

#[test]
fn a_start_that_cannot_be_made_is_counted_and_the_next_follows() {
    let mut bench = Bench::new([&[], &[]], wanted());
    let run = bench.starts[0].id;
    bench.tell(Message::StartRefused {
        run,
        scheduled_at: hour(0),
        error: Error::new(ErrorCode::BadParams, "`n` is required: int"),
    });
    assert_eq!(bench.starts.len(), 3);
    assert_eq!(bench.shown("refused"), 1);
    assert_eq!(bench.shown("problem"), "`n` is required: int");
}

#[test]
fn due_times_still_to_come_and_runs_under_way_are_the_schedules_own() {
    // The trigger is woken, and its run for 00:00 of the next day has not ended.
    let mut bench = Bench::new([&[], &[]], wanted());
    let ask = AskBackfill {
        id: "".into(),
        from: at("2026-05-01T22:00:00Z"),
        until: at("2026-05-03T00:00:00Z"),
        ..wanted()
    };
    let ask = SmallInput::Ask(Ask::Backfill(Box::new(ask)));
    let now = at("2026-05-02T00:30:00Z");
    let decided = bench.trigger.decide(&trigger_key(), ask, now).unwrap();
    let made = decided
        .messages
        .iter()
        .find_map(|(to, message)| match message {
            Message::BackfillMade(state) => Some((to.clone(), state.due.clone())),
            _ => None,
        });
    let (to, due) = made.unwrap();
    assert_eq!(
        due,
        ["2026-05-01T22:00:00Z", "2026-05-01T23:00:00Z"].map(|due| at(due).0)
    );
    assert!(matches!(to, EntityKey::Backfill { id, .. } if &*id == "hourly-2"));
}

#[test]
fn too_long_a_range_and_what_is_not_there_are_refused() {
    let mut bench = Bench::new([&[], &[]], wanted());
    let ask = AskBackfill {
        from: at("2020-01-01T00:00:00Z"),
        ..wanted()
    };
    let ask = SmallInput::Ask(Ask::Backfill(Box::new(ask)));
    let now = at("2026-05-02T00:30:00Z");
    let error = bench.trigger.decide(&trigger_key(), ask, now).unwrap_err();
    assert_eq!(error.code, ErrorCode::LimitReached);
    let mut none = Backfill::default();
    let error = none
        .decide(&bench.key, SmallInput::Ask(Ask::View), now)
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::TriggerNotFound);
}
