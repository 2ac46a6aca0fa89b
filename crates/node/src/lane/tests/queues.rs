//! Run queues of a lane: what went past them, and what they refuse.

use kapell_engine::run_queue::{Bounds, Change, Entry, RunQueue};
use kapell_engine::{Ask, Message, Request};
use kapell_model::spec::StrategyMode;

use super::*;

const LONG: &str = "workflow: w\nsteps:\n  a: { wait: 10h }\n";

fn queue_key() -> EntityKey {
    EntityKey::RunQueue {
        namespace: "default".into(),
        workflow: "w".into(),
        key: "".into(),
    }
}

impl World {
    fn strategy(&mut self, mode: StrategyMode, limit: Option<u32>) {
        let bounds = Bounds {
            mode,
            limit,
            total: None,
        };
        let change = Change {
            strategy: Some(Some(bounds)),
            rule: Some(bounds.rule()),
            ..Change::default()
        };
        self.changes(change);
    }

    fn changes(&mut self, change: Change) {
        let ask = Ask::Change(Box::new(change));
        let key = queue_key();
        self.ask(ClientRequest::Ask { key, ask });
        self.go();
    }

    fn does(&mut self, run: RunId, request: Request) -> Result<(), ErrorCode> {
        let reply = self.ask(ClientRequest::Run { run, request });
        self.go();
        match self.answer(reply) {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(error.code),
            None => panic!("no answer"),
        }
    }

    fn cancels(&mut self, run: RunId) {
        let request = Request::Cancel {
            by: "ann".to_owned(),
            reason: "no more".to_owned(),
            now: true,
        };
        self.does(run, request).unwrap();
        self.seconds(1);
    }

    fn retries(&mut self, run: RunId) -> Result<(), ErrorCode> {
        let by = "ann".to_owned();
        self.does(run, Request::Retry { by })
    }

    /// From now on its queue takes no more.
    pub(super) fn fill_queue(&mut self) {
        let held = self.queue().runs.len();
        for number in held..limits::RUN_QUEUE {
            let entry = Entry {
                run: filler(number),
                ..Entry::default()
            };
            let now = self.now;
            self.queue()
                .decide(Some(&Message::Enqueue(Box::new(entry))), now);
        }
        // None of that is stored: it stays in memory.
        let slot = self.lane.slots.get_mut(&queue_key()).unwrap();
        slot.touched_at = Time(i64::MAX);
    }

    /// Room for one more.
    pub(super) fn make_room(&mut self, number: usize) {
        let ended = Message::RunEnded {
            run: filler(number),
            status: RunStatus::Cancelled,
            by_person: true,
            success: None,
            blocks: None,
        };
        let now = self.now;
        self.queue().decide(Some(&ended), now);
    }

    fn queue(&mut self) -> &mut RunQueue {
        match self
            .lane
            .slots
            .get_mut(&queue_key())
            .map(|slot| &mut slot.entity)
        {
            Some(Entity::Queue(queue)) => queue,
            other => panic!("{other:?}"),
        }
    }
}

fn filler(number: usize) -> RunId {
    RunId::new(Time(1), Shard(1), number as u128)
}

#[test]
fn runs_that_went_past_the_queue_count_when_the_strategy_changes() {
    let mut world = World::new(&[LONG]);
    let [idle, near] = [300, 1].map(|seconds| {
        let run = world.started("w");
        world.seconds(seconds);
        run
    });
    assert!(!world.lane.slots.contains_key(&idle.into()));
    world.strategy(StrategyMode::Sequential, None);
    assert_eq!(world.queue().active, 2, "also before another run comes");
    let next = world.started("w");
    assert_eq!(world.status(next), Some(RunStatus::Queued));
    world.cancels(idle);
    assert_eq!(world.status(next), Some(RunStatus::Queued));
    world.cancels(near);
    assert_eq!(world.status(next), Some(RunStatus::Running));
}

#[test]
fn a_run_that_ends_while_active_ones_are_counted_holds_no_place() {
    let mut world = World::new(&[LONG]);
    let run = world.started("w");
    world.deaf = true;
    world.strategy(StrategyMode::Sequential, None);
    let reply = world.start("w");
    world.go();
    let request = Request::Cancel {
        by: "ann".to_owned(),
        reason: "no more".to_owned(),
        now: true,
    };
    world.ask(ClientRequest::Run { run, request });
    world.go();
    world.deaf = false;
    for output in std::mem::take(&mut world.unread) {
        world.read(output);
    }
    world.go();
    let Some(Ok(Answer::Started(next))) = world.answer(reply) else {
        panic!("it starts");
    };
    let next = *next;
    world.seconds(1);
    assert_eq!(world.status(run), Some(RunStatus::Cancelled));
    assert_eq!(world.status(next), Some(RunStatus::Running));
    assert_eq!(world.queue().active, 1);
}

#[test]
fn many_starts_that_go_at_once_are_not_known_to_the_queue() {
    let mut world = World::new(&[LONG]);
    for _ in 0..20 {
        let run = world.started("w");
        world.cancels(run);
    }
    let key = queue_key();
    assert!(
        world.store.load(&key).unwrap().is_none(),
        "nothing is written of it"
    );
    assert!(world.queue().runs.is_empty());
}

#[test]
fn a_retry_goes_by_the_strategy_in_force() {
    let mut world = World::new(&[LONG]);
    let run = world.started("w");
    world.cancels(run);
    let other = world.started("w");
    world.strategy(StrategyMode::FirstOnly, None);
    assert_eq!(world.retries(run), Err(ErrorCode::NotAllowedNow));
    world.strategy(StrategyMode::Sequential, None);
    assert_eq!(world.retries(run), Ok(()));
    assert_eq!(world.status(run), Some(RunStatus::Queued));
    world.cancels(other);
    assert_eq!(world.status(run), Some(RunStatus::Running));
}

#[test]
fn a_retry_in_a_paused_workflow_waits() {
    let mut world = World::new(&[LONG]);
    let run = world.started("w");
    world.cancels(run);
    world.changes(Change {
        paused: Some(Some("ann".to_owned())),
        ..Change::default()
    });
    assert_eq!(world.retries(run), Ok(()));
    assert_eq!(world.status(run), Some(RunStatus::Queued));
    world.changes(Change {
        paused: Some(None),
        ..Change::default()
    });
    assert_eq!(world.status(run), Some(RunStatus::Running));
}

#[test]
fn a_start_for_which_the_queue_has_no_room_is_refused() {
    let mut world = World::new(&[LONG]);
    world.strategy(StrategyMode::Sequential, None);
    world.started("w");
    world.fill_queue();
    let reply = world.start("w");
    world.go();
    match world.answer(reply) {
        Some(Err(error)) => assert_eq!(error.code, ErrorCode::LimitReached),
        other => panic!("{other:?}"),
    }
}
