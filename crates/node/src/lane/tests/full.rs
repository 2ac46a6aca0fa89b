//! A disk without room: requests are refused and take no effect, what is under way waits.

use kapell_engine::Request;

use super::*;

const WAITS: &str = "workflow: t\nsteps:\n  a: { wait: 30s }\n";

impl World {
    fn is_refused(&self, reply: ReplyId) -> bool {
        let answer = self.answer(reply);
        matches!(answer, Some(Err(error)) if error.code == ErrorCode::DiskFull)
    }

    fn made(&self) -> usize {
        let runs = self.store.run_counts("default").unwrap();
        runs.iter()
            .map(|(_, _, runs)| usize::try_from(*runs).unwrap())
            .sum()
    }
}

#[test]
fn a_start_that_finds_no_room_is_refused_at_once_and_never_happens() {
    let mut world = World::new(&[ONE]);
    world.commits = Commits::Full;
    let first = world.start("w");
    world.go();
    assert!(world.is_refused(first), "{:?}", world.answer(first));
    assert!(world.lane.store_is_full());
    world.seconds(3);
    let second = world.start("w");
    world.go();
    assert!(world.is_refused(second));
    world.commits = Commits::Land;
    world.seconds(5);
    assert_eq!(world.made(), 0, "what was refused takes no effect");
    assert!(!world.lane.store_is_full());
    let run = world.started("w");
    assert_eq!(world.status(run), Some(RunStatus::Running));
}

#[test]
fn whatever_decides_something_is_refused_while_there_is_no_room() {
    let mut world = World::new(&[ONE]);
    let run = world.started("w");
    world.commits = Commits::Full;
    let by = "me".to_owned();
    let pause = |world: &mut World| {
        let reply = world.ask(ClientRequest::Run {
            run,
            request: Request::Pause { by: by.clone() },
        });
        world.go();
        reply
    };
    let first = pause(&mut world);
    assert!(world.is_refused(first));
    let second = pause(&mut world);
    assert!(world.is_refused(second));
    let view = world.ask(ClientRequest::View { run });
    world.go();
    assert!(world.is_refused(view), "nobody waits");
    world.commits = Commits::Land;
    world.seconds(5);
    assert_eq!(world.status(run), Some(RunStatus::Running));
    assert_eq!(
        world.offers.len(),
        1,
        "what is held is not handed out again"
    );
}

#[test]
fn requests_that_came_while_the_commit_was_under_way_are_refused_too() {
    let mut world = World::new(&[ONE]);
    world.commits = Commits::Hang;
    let first = world.start("w");
    world.go();
    let decided = world.start("w");
    world.go();
    world.deaf = true;
    let loads = world.ask(ClientRequest::View {
        run: RunId::new(START, Shard(9), 9),
    });
    world.go();
    world.commits = Commits::Full;
    world.lane.on(world.now, Input::Committed(Err(no_room())));
    world.go();
    for reply in [first, decided, loads] {
        assert!(world.is_refused(reply), "{:?}", world.answer(reply));
    }
    world.deaf = false;
    for output in std::mem::take(&mut world.unread) {
        world.read(output);
    }
    world.commits = Commits::Land;
    world.seconds(5);
    assert_eq!(world.made(), 0);
}

#[test]
fn reports_and_what_falls_due_wait_for_room() {
    let mut world = World::new(&[ONE, WAITS]);
    let run = world.started("w");
    let waits = world.started("t");
    let tasks = std::mem::take(&mut world.offers);
    world.commits = Commits::Full;
    world.succeeds(&tasks);
    world.go();
    assert!(world.lane.store_is_full());
    world.seconds(60);
    assert_eq!(world.status(run), Some(RunStatus::Running));
    world.commits = Commits::Land;
    world.seconds(3);
    assert_eq!(world.status(run), Some(RunStatus::Succeeded));
    assert_eq!(world.status(waits), Some(RunStatus::Succeeded));
    assert_eq!(world.offers.len(), 0, "nothing is done twice");
    assert_eq!(world.lane.in_flight(), 0);
    assert!(!world.lane.store_is_full());
}

#[test]
fn an_owner_that_begins_without_room_refuses_and_goes_on_later() {
    let mut world = World::new(&[ONE]);
    let run = world.started("w");
    world.commits = Commits::Full;
    let config = Config {
        seed: 9,
        alone: true,
        idle_micros: 1,
        keeps: kapell_engine::topic::Keeps::default(),
        dispatch: crate::DispatchSettings::default(),
    };
    world.lane = with_worker(config, world.now, 10);
    world.offers.clear();
    let early = world.start("w");
    world.go();
    assert!(world.is_refused(early), "{:?}", world.answer(early));
    assert!(world.lane.may_stop(), "its end is not held up");
    world.commits = Commits::Land;
    world.seconds(3);
    assert_eq!(world.offers.len(), 1, "what was lost is done again");
    assert_eq!(world.status(run), Some(RunStatus::Running));
}
