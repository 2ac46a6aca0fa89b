//! Ends of steps are told when they are durable, once each.

use kapell_engine::Request;

use super::*;

const TWO: &str =
    "workflow: w\nsteps:\n  a: { shell: 'true' }\n  b: { shell: 'true', needs: [a] }\n";

impl World {
    fn does_next(&mut self) {
        let tasks = std::mem::take(&mut self.offers);
        self.succeeds(&tasks);
        self.go();
    }

    fn asks(&mut self, run: RunId, request: Request) {
        let reply = self.ask(ClientRequest::Run { run, request });
        self.go();
        assert!(matches!(self.answer(reply), Some(Ok(_))));
    }
}

#[test]
fn ends_of_steps_are_told_while_their_run_goes_on() {
    let mut world = World::new(&[TWO]);
    let run = world.started("w");
    assert_eq!(world.told(), [0, 0]);
    world.does_next();
    assert_eq!(world.status(run), Some(RunStatus::Running));
    assert_eq!(world.told(), [1, 0]);
    // What was told before it left memory is not told again.
    world.lane.drop_slot(&run.into());
    let by = "ann".to_owned();
    world.asks(run, Request::Pause { by: by.clone() });
    world.asks(run, Request::Resume { by: by.clone() });
    assert_eq!(world.told(), [0, 0]);
    let cancel = Request::Cancel {
        by: by.clone(),
        reason: String::new(),
        now: true,
    };
    world.asks(run, cancel);
    let task = world.offers.pop().unwrap();
    let report = world.report(&task, Outcome::Cancelled);
    world.lane.on(world.now, Input::Reports(vec![report]));
    world.go();
    assert_eq!(world.status(run), Some(RunStatus::Cancelled));
    assert_eq!(world.told(), [0, 1]);
    // What a retry does again ends again.
    world.asks(run, Request::Retry { by });
    world.does_next();
    assert_eq!(world.status(run), Some(RunStatus::Succeeded));
    assert_eq!(world.told(), [1, 0]);
}

#[test]
fn an_end_that_is_not_durable_is_not_told() {
    let mut world = World::new(&[ONE]);
    world.started("w");
    world.commits = Commits::Hang;
    world.does_next();
    assert_eq!(world.told(), [0, 0]);
    world.lane.on(world.now, Input::Committed(Ok(())));
    world.go();
    assert_eq!(world.told(), [1, 0]);
}
