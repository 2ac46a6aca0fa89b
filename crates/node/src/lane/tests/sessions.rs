//! Who gets what, and what becomes of attempts at workers of other processes.

use std::collections::BTreeSet;

use kapell_api::task::{TaskResources, Work};
use kapell_api::worker::{Holding, Queues};
use kapell_engine::run::room::Labels;
use kapell_model::StepStatus;

use super::*;

const FAR: SessionId = SessionId(7);

const ON_FAR: &str = "workflow: w\nsteps:\n  a: { shell: 'true', queue: far }\n";

fn named(queue: &str) -> Queues {
    Queues::Named(BTreeSet::from([queue.into()]))
}

const HAS: TaskResources = TaskResources {
    cpu_millis: 4_000,
    memory_bytes: 1 << 30,
    gpus: 0,
    custom: kapell_api::task::Custom::NONE,
};

fn seat(queue: &str, window: usize) -> Seat {
    Seat {
        queues: named(queue),
        process_window: window,
        light_window: 10,
        total: HAS,
        share: HAS,
        labels: Labels::default(),
        spot: false,
    }
}

pub(super) fn holding(task: &Task) -> Holding {
    Holding {
        run: task.run,
        place: task.place,
        offer: task.offer,
        attempt: task.attempt,
        light: false,
        needs: TaskResources::default(),
    }
}

impl World {
    /// A world whose own worker takes nothing.
    fn without_worker(files: &[&str]) -> Self {
        let mut world = Self::new(files);
        world
            .lane
            .on(world.now, Input::Session(NEAR, SessionChange::Over));
        world
    }

    fn say(&mut self, session: SessionId, change: SessionChange) {
        self.lane.on(self.now, Input::Session(session, change));
        self.go();
    }

    pub(super) fn open(&mut self, session: SessionId, seat: Seat, holds: Vec<Holding>) {
        self.say(
            session,
            SessionChange::Open {
                seat,
                holds,
                hello: 0,
            },
        );
    }

    /// The process dies and another one begins, which knows of these sessions.
    pub(super) fn restart(&mut self, unheard: &[(SessionId, Queues)]) {
        let config = Config {
            seed: 8,
            ..self.lane.config.clone()
        };
        self.offers.clear();
        self.taken.clear();
        self.lane = Lane::new(config, self.now);
        for (session, queues) in unheard {
            let change = SessionChange::Unheard(queues.clone());
            self.lane.on(self.now, Input::Session(*session, change));
        }
        self.go();
    }

    fn waits_for(&mut self, run: RunId) -> Option<String> {
        let reply = self.ask(ClientRequest::View { run });
        self.go();
        match self.answer(reply) {
            Some(Ok(Answer::View(view))) => view.steps[0].waits_for.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// What the items of the first step wait for.
    pub(super) fn items_wait_for(&mut self, run: RunId) -> String {
        let reply = self.ask(ClientRequest::View { run });
        self.go();
        match self.answer(reply) {
            Some(Ok(Answer::View(view))) => {
                let items = view.steps[0].items.as_ref().unwrap();
                items.waiting[0].waits_for.clone()
            }
            other => panic!("{other:?}"),
        }
    }

    fn step_status(&mut self, run: RunId) -> StepStatus {
        let reply = self.ask(ClientRequest::View { run });
        self.go();
        match self.answer(reply) {
            Some(Ok(Answer::View(view))) => view.steps[0].status,
            other => panic!("{other:?}"),
        }
    }

    fn started_report(&mut self, task: &Task) {
        let report = Report {
            run: task.run,
            place: task.place,
            offer: task.offer,
            worker: std::sync::Arc::default(),
            event: TaskEvent::Started { at: self.now },
        };
        self.lane.on(self.now, Input::Reports(vec![report]));
        self.go();
    }
}

#[test]
fn what_no_worker_serves_waits_and_says_so() {
    let mut world = World::without_worker(&[ON_FAR]);
    let run = world.started("w");
    assert_eq!(world.offers.len(), 0);
    let why = world.waits_for(run).unwrap();
    assert_eq!(why, "a worker that serves queue `far`: there is none now");
    world.open(FAR, seat("far", 1), Vec::new());
    assert_eq!(world.offers.len(), 1);
    assert_eq!(world.offers[0].session, FAR);
    assert_eq!(&*world.offers[0].queue, "far");
}

#[test]
fn who_names_a_queue_goes_before_who_serves_all() {
    let mut world = World::new(&[ON_FAR]);
    world.open(FAR, seat("far", 1), Vec::new());
    world.started("w");
    world.started("w");
    let sessions: Vec<SessionId> = world.offers.iter().map(|task| task.session).collect();
    assert_eq!(sessions, [FAR], "the second waits for it");
    world.say(FAR, SessionChange::Over);
    assert_eq!(world.offers[1].session, NEAR);
}

#[test]
fn workers_get_no_more_than_they_have_room_for() {
    let items = "workflow: w\nsteps:\n  a: { shell: 'true', queue: far, foreach: { i: '${{ range(20) }}' } }\n";
    let mut world = World::without_worker(&[items]);
    world.open(FAR, seat("far", 3), Vec::new());
    world.open(SessionId(8), seat("far", 5), Vec::new());
    world.started("w");
    let at = |world: &World, session| {
        let tasks = world.offers.iter();
        tasks.filter(|task| task.session == session).count()
    };
    assert_eq!((at(&world, FAR), at(&world, SessionId(8))), (3, 5));
    let tasks: Vec<Task> = world.offers[..2].to_vec();
    world.succeeds(&tasks);
    world.go();
    // What ended since the last commit is handed out ahead as well.
    assert!(world.offers.len() >= 10);
}

#[test]
fn what_needs_more_than_a_worker_has_goes_to_another() {
    let big = "workflow: w\nsteps:\n  a: { shell: 'true', queue: far, resources: { cpu: 8 } }\n";
    let mut world = World::without_worker(&[big]);
    world.open(FAR, seat("far", 3), Vec::new());
    world.started("w");
    assert_eq!(world.offers.len(), 0);
    let more = Seat {
        total: TaskResources::ALL,
        share: TaskResources::ALL,
        labels: Labels::default(),
        spot: false,
        ..seat("far", 3)
    };
    world.open(SessionId(8), more, Vec::new());
    assert_eq!(world.offers.len(), 1);
    assert_eq!(world.offers[0].session, SessionId(8));
}

#[test]
fn cores_of_a_worker_are_given_once() {
    let two = "workflow: w\nsteps:\n  a: { shell: 'true', queue: far, resources: { cpu: 2 }, foreach: { i: '${{ range(5) }}' } }\n";
    let mut world = World::without_worker(&[two]);
    world.open(FAR, seat("far", 100), Vec::new());
    world.started("w");
    assert_eq!(world.offers.len(), 2);
    let tasks = vec![world.offers[0].clone()];
    world.succeeds(&tasks);
    world.go();
    assert_eq!(world.offers.len(), 3);
}

#[test]
fn ends_are_acknowledged_once_they_are_durable() {
    let mut world = World::without_worker(&[ON_FAR]);
    world.open(FAR, seat("far", 1), Vec::new());
    world.started("w");
    let tasks = world.offers.clone();
    world.commits = Commits::Hang;
    world.succeeds(&tasks);
    world.go();
    assert_eq!(world.taken.len(), 0);
    world.commits = Commits::Land;
    let commit = world.hung.pop().unwrap();
    let result = perform::commit(&world.store, &NoBlobs, &[], &commit);
    world.lane.on(world.now, Input::Committed(result));
    world.go();
    let name = (tasks[0].run, tasks[0].place, tasks[0].offer);
    assert_eq!(world.taken, [name]);
    // Said again it is refused, and that is an answer too.
    world.succeeds(&tasks);
    world.go();
    assert_eq!(world.taken, [name, name]);
}

#[test]
fn an_attempt_goes_on_over_a_restart_of_the_owner() {
    let mut world = World::without_worker(&[ON_FAR]);
    world.open(FAR, seat("far", 1), Vec::new());
    let run = world.started("w");
    let task = world.offers[0].clone();
    world.started_report(&task);
    world.restart(&[(FAR, named("far"))]);
    world.seconds(3);
    assert_eq!(world.offers.len(), 0, "it is not handed out twice");
    assert_eq!(world.status(run), Some(RunStatus::Running));
    world.open(FAR, seat("far", 1), vec![holding(&task)]);
    assert_eq!(world.step_status(run), StepStatus::Running);
    world.succeeds(&[task]);
    world.go();
    assert_eq!(world.status(run), Some(RunStatus::Succeeded));
    assert_eq!(world.offers.len(), 0);
}

#[test]
fn an_attempt_that_was_never_recorded_goes_on_too() {
    let mut world = World::without_worker(&[ON_FAR]);
    world.open(FAR, seat("far", 1), Vec::new());
    let run = world.started("w");
    let task = world.offers[0].clone();
    world.restart(&[(FAR, named("far"))]);
    let why = world.waits_for(run).unwrap();
    assert!(why.contains("to say what they run"), "{why}");
    // Another worker of the queue gets what is new, and nothing that may be at the first.
    world.open(SessionId(8), seat("far", 5), Vec::new());
    assert_eq!(world.offers.len(), 0);
    world.started("w");
    assert_eq!(world.offers.len(), 1);
    world.open(FAR, seat("far", 1), vec![holding(&task)]);
    world.succeeds(&[task]);
    world.go();
    assert_eq!(world.status(run), Some(RunStatus::Succeeded));
    assert_eq!(world.offers.len(), 1);
}

#[test]
fn what_a_session_held_is_done_again_once_it_is_over() {
    let mut world = World::without_worker(&[ON_FAR]);
    world.open(FAR, seat("far", 1), Vec::new());
    let run = world.started("w");
    let task = world.offers[0].clone();
    world.started_report(&task);
    world.restart(&[(FAR, named("far"))]);
    world.open(SessionId(8), seat("far", 5), Vec::new());
    world.say(FAR, SessionChange::Over);
    world.seconds(60);
    assert_eq!(world.offers.len(), 1);
    assert_eq!(
        (world.offers[0].session, world.offers[0].attempt),
        (SessionId(8), 2)
    );
    // The result of the first try comes late.
    world.succeeds(&[task]);
    world.go();
    assert_eq!(world.status(run), Some(RunStatus::Running));
}

#[test]
fn what_nobody_waits_for_any_more_is_stopped() {
    let mut world = World::without_worker(&[ON_FAR]);
    world.open(FAR, seat("far", 1), Vec::new());
    let run = world.started("w");
    let task = world.offers[0].clone();
    world.restart(&[]);
    world.open(SessionId(8), seat("far", 5), Vec::new());
    assert_eq!(
        world.offers.len(),
        1,
        "nobody said that it may be elsewhere"
    );
    world.open(FAR, seat("far", 1), vec![holding(&task)]);
    assert_eq!(world.stops, [(run, task.place, task.offer)]);
    let of_nothing = Holding {
        run: RunId(9),
        ..holding(&task)
    };
    world.stops.clear();
    world.open(FAR, seat("far", 1), vec![of_nothing]);
    assert_eq!(world.stops, [(RunId(9), task.place, task.offer)]);
}

#[test]
fn a_worker_that_drains_gets_nothing_more() {
    let mut world = World::without_worker(&[ON_FAR]);
    world.open(FAR, seat("far", 0), Vec::new());
    let run = world.started("w");
    assert_eq!(world.offers.len(), 0);
    assert_eq!(
        world.waits_for(run).unwrap(),
        "a worker with room in queue `far`"
    );
    assert!(matches!(world.lane.runs().next(), Some(run) if run.live.flights.is_empty()));
    world.open(FAR, seat("far", 1), Vec::new());
    assert!(matches!(world.offers[0].work, Work::Shell { .. }));
}

#[test]
fn what_a_session_held_is_lost_with_it_though_nobody_reports_it() {
    let mut world = World::without_worker(&[ON_FAR]);
    world.open(FAR, seat("far", 3), Vec::new());
    let run = world.started("w");
    assert_eq!(world.offers.len(), 1);
    world.say(FAR, SessionChange::Over);
    world.open(SessionId(8), seat("far", 3), Vec::new());
    world.seconds(5);
    assert_eq!(world.offers.len(), 2, "it is tried elsewhere");
    assert_eq!(world.offers[1].attempt, 2);
    let tasks = vec![world.offers[1].clone()];
    world.succeeds(&tasks);
    world.go();
    assert_eq!(world.status(run), Some(RunStatus::Succeeded));
}

#[test]
fn a_new_owner_grants_what_stood_ready_once_it_heard_who_runs_what() {
    let store = World::new(&[ON_FAR]).store;
    let mut one = World::node(&store, 1, START);
    let mut two = World::node(&store, 2, START);
    let seat_of = || seat("far", 3);
    one.own(Own::Take(ShardSet::all(), Vec::new()));
    one.open(FAR, seat_of(), Vec::new());
    let (first, second) = (one.started("w"), one.started("w"));
    let (runs, waits) = (one.offers[0].clone(), one.offers[1].clone());
    assert_eq!((runs.run, waits.run), (first, second));
    one.own(Own::Give(ShardSet::all()));
    // The session is known here, and holds what this owner does not know of.
    two.open(FAR, seat_of(), Vec::new());
    two.say(FAR, SessionChange::Unheard(named("far")));
    two.own(Own::Take(ShardSet::all(), Vec::new()));
    assert_eq!(two.offers.len(), 0, "it may run both");
    two.say(FAR, SessionChange::Holds(vec![holding(&runs)]));
    assert_eq!(two.offers.len(), 1, "the other one never arrived");
    assert_eq!(two.offers[0].run, second);
    let offered = std::mem::take(&mut two.offers);
    two.succeeds(&offered);
    two.succeeds(&[runs]);
    two.go();
    for run in [first, second] {
        assert_eq!(two.status(run), Some(RunStatus::Succeeded));
    }
}

#[test]
fn waiting_brings_work_of_a_low_priority_forward_and_it_says_so() {
    let high = "workflow: high\npriority: 12\nsteps:\n  a: { shell: 'true', queue: far, foreach: { i: '${{ range(50) }}' } }\n";
    let low = "workflow: low\npriority: 10\nsteps:\n  a: { shell: 'true', queue: far }\n";
    let mut world = World::without_worker(&[high, low]);
    world.open(FAR, seat("far", 1), Vec::new());
    let high = world.started("high");
    let low = world.started("low");
    let room = "a worker with room in queue `far`";
    assert_eq!(world.waits_for(low).unwrap(), room);
    world.pass(90_000_000);
    assert_eq!(
        world.waits_for(low).unwrap(),
        format!("{room}; waiting has brought it to priority 11")
    );
    world.pass(90_000_000);
    for _ in 0..2 {
        let last = world.offers.last().unwrap().clone();
        assert_eq!(last.run, high);
        world.succeeds(&[last]);
        world.go();
        if world.offers.iter().any(|task| task.run == low) {
            break;
        }
    }
    let had = world.offers.iter().map(|task| task.run == low);
    let had: Vec<bool> = had.collect();
    assert!(had.contains(&true) && had.len() < 10, "{had:?}");
    assert!(!had[0]);
}

#[test]
fn what_waits_is_said_with_about_how_much_and_rises_with_its_age() {
    let file = "workflow: w\nsteps:\n  a: { shell: 'true', queue: far, foreach: { x: '${{ range(5) }}' } }\n";
    let mut world = World::without_worker(&[file]);
    world.open(FAR, seat("far", 0), Vec::new());
    world.started("w");
    let wants = |world: &World| world.lane.demand.wants(world.now);
    let of = |priority| [(("far".into(), priority), 8)].into_iter().collect();
    assert_eq!(wants(&world), of(50));
    world.seconds(61);
    assert_eq!(wants(&world), of(51));
}

#[test]
fn a_result_that_comes_before_its_worker_was_heard_is_kept_until_then() {
    let items = "
workflow: w
steps:
  a:
    shell: 'true'
    queue: far
    foreach: { i: '${{ range(1) }}' }
";
    let store = World::new(&[items]).store;
    let mut one = World::node(&store, 1, START);
    let mut two = World::node(&store, 2, START);
    one.own(Own::Take(ShardSet::all(), Vec::new()));
    one.open(FAR, seat("far", 3), Vec::new());
    let run = one.started("w");
    let tasks = std::mem::take(&mut one.offers);
    one.own(Own::Give(ShardSet::all()));
    two.open(FAR, seat("far", 3), Vec::new());
    two.say(FAR, SessionChange::Unheard(named("far")));
    two.own(Own::Take(ShardSet::all(), Vec::new()));
    // Once while the run is loaded, and once while it is in memory.
    two.succeeds(&tasks);
    two.go();
    two.succeeds(&tasks);
    two.go();
    assert_eq!(two.taken, [], "nothing of it is durable");
    two.say(FAR, SessionChange::Holds(vec![holding(&tasks[0])]));
    let name = (run, tasks[0].place, tasks[0].offer);
    assert_eq!(two.taken, [name]);
    assert_eq!(two.status(run), Some(RunStatus::Succeeded));
    assert_eq!(two.offers.len(), 0);
}

/// Says how the attempts of tasks were lost: their worker's host died.
fn lost(world: &mut World, tasks: &[Task]) {
    let (now, why) = (world.now, ("its host died", false));
    let names = tasks.iter().map(|task| (task.run, task.place, task.offer));
    let reports = names.map(|name| Report::lost(name, (now, now), why));
    world.lane.on(now, Input::Reports(reports.collect()));
    world.go();
}

#[test]
fn a_loss_of_an_item_that_nobody_heard_of_yet_counts() {
    let items = "
workflow: w
steps:
  a:
    shell: 'true'
    queue: far
    foreach: { i: '${{ range(2) }}' }
";
    let mut world = World::without_worker(&[items]);
    world.open(FAR, seat("far", 4), Vec::new());
    let run = world.started("w");
    let tasks = std::mem::take(&mut world.offers);
    assert_eq!(tasks.len(), 2);
    world.restart(&[(FAR, named("far"))]);
    lost(&mut world, &tasks[1..]);
    world.open(FAR, seat("far", 4), vec![holding(&tasks[0])]);
    assert_eq!(world.offers.len(), 0, "it waits before it is tried again");
    world.seconds(60);
    let attempts: Vec<u32> = world.offers.iter().map(|task| task.attempt).collect();
    assert_eq!(attempts, [2]);
    assert_eq!(world.status(run), Some(RunStatus::Running));
}

#[test]
fn a_loss_ends_what_was_told_to_stop() {
    let mut world = World::without_worker(&[ON_FAR]);
    world.open(FAR, seat("far", 4), Vec::new());
    let run = world.started("w");
    let tasks = std::mem::take(&mut world.offers);
    let request = kapell_engine::Request::Cancel {
        by: "me".to_owned(),
        reason: String::new(),
        now: false,
    };
    world.ask(ClientRequest::Run { run, request });
    world.go();
    assert_eq!(world.status(run), Some(RunStatus::Cancelling));
    world.restart(&[(FAR, named("far"))]);
    lost(&mut world, &tasks);
    assert_eq!(world.status(run), Some(RunStatus::Cancelled));
}
