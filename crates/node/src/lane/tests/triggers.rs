//! Triggers in a lane: what they start is made in the commit that holds their watermark.

use kapell_engine::Ask;
use kapell_engine::run_queue::Activate;
use kapell_store::{Order, RunFilter, RunRow};

use super::*;

const EVERY_MINUTE: &str = "
workflow: w
params:
  from: { type: timestamp, default: \"${{ run.interval.start }}\" }
triggers:
  - { cron: '* * * * *', catchup: { mode: all, max: 100 } }
steps:
  a: { set: { x: 1 } }
";

const STRICT_MINUTE: &str = "
workflow: w
strategy: { mode: sequential }
triggers:
  - { cron: '* * * * *' }
steps:
  a: { wait: 10h }
";

const HOURLY: &str = "
workflow: w
params:
  n: { type: int, min: 5 }
triggers:
  - { cron: '0 * * * *', with: { n: \"${{ 1 + 1 }}\" } }
steps:
  a: { set: { x: 1 } }
";

impl World {
    /// Makes the version in the file the active one.
    fn activate(&mut self, file: &str) {
        let spec = kapell_model::parse("w.yaml", file).spec.unwrap();
        let to = Activate {
            version: 1,
            triggers: spec.triggers.clone(),
            timezone: spec.timezone.clone(),
            rule: None,
        };
        let key = EntityKey::RunQueue {
            namespace: "default".into(),
            workflow: spec.workflow.clone(),
            key: "".into(),
        };
        let ask = Ask::Activate(Box::new(to));
        self.ask(ClientRequest::Ask { key, ask });
        self.go();
    }

    fn runs(&self) -> Vec<RunRow> {
        let mut rows = self.store.list_runs(&RunFilter::default(), 1_000).unwrap();
        rows.reverse();
        rows
    }

    /// The document of the one trigger.
    fn trigger(&self) -> serde_json::Value {
        let key = trigger();
        let found = self
            .store
            .documents(&key.to_bytes(), None, Order::Forward, 10)
            .unwrap();
        assert_eq!(found.len(), 1);
        serde_json::from_str(&found[0].1).unwrap()
    }
}

fn trigger() -> EntityKey {
    EntityKey::Trigger {
        namespace: "default".into(),
        workflow: "w".into(),
        name: "cron".into(),
    }
}

#[test]
fn a_due_time_makes_a_run_in_one_commit() {
    let mut world = World::new(&[EVERY_MINUTE]);
    world.activate(EVERY_MINUTE);
    world.commits = Commits::Hang;
    world.pass(60_000_000);
    assert_eq!(world.hung.len(), 1, "watermark and run are one commit");
    let keys: Vec<&EntityKey> = world.hung[0]
        .entities
        .iter()
        .map(|write| &write.key)
        .collect();
    assert!(keys.contains(&&trigger()), "{keys:?}");
    assert!(
        keys.iter().any(|key| matches!(key, EntityKey::Run(_))),
        "{keys:?}"
    );
    let run = world.hung[0].runs[0].clone();
    assert_eq!(&*run.trigger, "schedule");
    let params = world
        .lane
        .runs()
        .find(|other| other.state.meta.id == run.id);
    let meta = params.unwrap().state.meta.clone();
    assert_eq!(meta.scheduled_at.0, START.0 + 60_000_000);
    let from = meta.params.as_map().unwrap()["from"].clone();
    assert_eq!(from, Value::Timestamp(START.timestamp()));
    assert_eq!(&*meta.trigger_name, "cron");
}

#[test]
fn what_a_due_time_needs_was_read_before() {
    let mut world = World::new(&[EVERY_MINUTE]);
    world.activate(EVERY_MINUTE);
    for minute in 1..=3 {
        world.seconds(59);
        world.deaf = true;
        world.seconds(1);
        assert_eq!(world.runs().len(), minute);
        world.deaf = false;
        for output in std::mem::take(&mut world.unread) {
            assert!(matches!(output, Output::FindDue(..)), "{output:?}");
            world.read(output);
        }
    }
}

#[test]
fn a_run_that_was_made_before_is_not_made_again_by_what_was_read_ahead() {
    let mut world = World::new(&[EVERY_MINUTE]);
    world.activate(EVERY_MINUTE);
    world.seconds(55);
    world.commits = Commits::LandUnheard;
    world.seconds(6);
    assert_eq!(world.runs().len(), 1);
    assert_eq!(world.trigger()["started"], 1);
    assert_eq!(world.trigger()["refused"], 0);
}

#[test]
fn a_commit_that_vanished_makes_no_due_time_twice_and_none_is_missed() {
    for commits in [Commits::Vanish, Commits::LandUnheard] {
        let mut world = World::new(&[EVERY_MINUTE]);
        world.activate(EVERY_MINUTE);
        world.pass(60_000_000);
        world.commits = commits;
        world.pass(60_000_000);
        world.seconds(5);
        world.pass(55_000_000);
        let runs = world.runs();
        assert_eq!(runs.len(), 3);
        assert!(runs.iter().all(|run| run.status == RunStatus::Succeeded));
        let known = world.trigger();
        assert_eq!(known["started"], 3);
    }
}

#[test]
fn what_was_due_while_nobody_was_there_is_caught_up() {
    let mut world = World::new(&[EVERY_MINUTE]);
    world.activate(EVERY_MINUTE);
    world.pass(60_000_000);
    world.now = Time(world.now.0 + 180_000_000);
    let config = Config {
        seed: 8,
        alone: true,
        idle_micros: 1_000_000,
        keeps: kapell_engine::topic::Keeps::default(),
        dispatch: crate::DispatchSettings::default(),
    };
    world.lane = with_worker(config, world.now, 10);
    world.go();
    assert_eq!(world.runs().len(), 4);
    // It comes back into memory for what is due.
    world.seconds(59);
    assert_eq!(world.runs().len(), 4);
    world.seconds(2);
    assert_eq!(world.runs().len(), 5);
}

#[test]
fn a_start_that_is_refused_is_shown() {
    let mut world = World::new(&[HOURLY]);
    world.activate(HOURLY);
    world.pass(3_600_000_000);
    assert_eq!(world.runs().len(), 0);
    let known = world.trigger();
    assert_eq!(known["refused"], 1);
    let message = known["problem"]["message"].as_str().unwrap();
    assert!(message.contains("`n` must be at least 5"), "{message}");
}

#[test]
fn a_due_time_for_which_the_queue_has_no_room_is_made_once_there_is() {
    let mut world = World::new(&[STRICT_MINUTE]);
    world.activate(STRICT_MINUTE);
    world.started("w");
    world.fill_queue();
    let before = world.runs().len();
    world.pass(60_000_000);
    let known = world.trigger();
    assert_eq!(
        (&known["waiting_starts"], &known["refused"]),
        (&1.into(), &0.into())
    );
    let message = known["problem"]["message"].as_str().unwrap();
    assert!(message.contains("takes no more"), "{message}");
    world.seconds(110);
    assert_eq!(world.runs().len(), before);
    world.make_room(7);
    world.seconds(60);
    assert_eq!(world.runs().len(), before + 1, "there was room for one");
    world.make_room(8);
    world.make_room(9);
    world.make_room(10);
    world.seconds(60);
    let due = |minutes: i64| Time(START.0 + minutes * 60_000_000);
    let runs = world.runs();
    let made: Vec<Time> = runs[before..]
        .iter()
        .map(|run| run.scheduled_at.unwrap_or(run.created_at))
        .collect();
    assert_eq!(made, [1, 2, 3, 4].map(due), "in order, and none is missed");
    assert!(
        runs[before..]
            .iter()
            .all(|run| run.status == RunStatus::Queued)
    );
    assert_eq!(world.trigger()["missed"], 0);
}

#[test]
fn a_start_by_hand_stands_for_the_last_interval_of_the_first_schedule() {
    let mut world = World::new(&[EVERY_MINUTE]);
    world.activate(EVERY_MINUTE);
    world.pass(30_000_000);
    world.started("w");
    let meta = world.runs()[0].clone();
    assert_eq!(&*meta.trigger, "manual");
    let chunks = world.store.history(&meta.id.into(), 0, 10).unwrap();
    let events = kapell_engine::chunk::decode::<kapell_engine::event::Event>(&chunks[0].1).unwrap();
    let Some(kapell_engine::event::Fact::RunCreated(created)) = &events[0].fact else {
        panic!("{events:?}")
    };
    let interval = created.interval.unwrap();
    assert_eq!(
        (interval.start, interval.end),
        (START.0 - 60_000_000, START.0)
    );
}
