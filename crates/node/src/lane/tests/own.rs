//! Shards that lanes take, give and lose while they work.

use kapell_store::Cluster as _;

use super::*;

const WAITS: &str = "
workflow: w
steps:
  a: { wait: 10s }
  b: { shell: 'true', needs: a }
";

fn of(workflow: &str) -> ShardSet {
    [Shard::of_workflow("default", workflow)]
        .into_iter()
        .collect()
}

/// A store with a workflow, and two nodes that own nothing.
fn two(file: &str) -> (World, World) {
    let store = World::new(&[file]).store;
    let now = Time(START.0 + 1_000_000);
    (World::node(&store, 1, now), World::node(&store, 2, now))
}

fn take(shards: ShardSet) -> Own {
    Own::Take(shards, Vec::new())
}

fn is_elsewhere(answer: Option<&Result<Answer, Error>>) -> bool {
    matches!(answer, Some(Err(error)) if error.code == ErrorCode::NotHere)
}

#[test]
fn a_lane_among_others_owns_nothing_until_it_is_told() {
    let (mut one, _) = two(ONE);
    assert_eq!(one.acquisitions, 0);
    let reply = one.start("w");
    one.go();
    assert!(is_elsewhere(one.answer(reply)));
    one.own(take(ShardSet::all()));
    assert_eq!(one.held(), ShardSet::all().len());
    one.started("w");
    assert_eq!(one.offers.len(), 1);
}

#[test]
fn what_waits_in_a_shard_goes_on_at_the_next_owner() {
    let (mut one, mut two) = two(WAITS);
    one.own(take(ShardSet::all()));
    let run = one.started("w");
    two.own(take(of("w")));
    assert_eq!(two.held(), 0, "its owner is alive");
    one.own(Own::Give(of("w")));
    assert_eq!(one.held(), ShardSet::all().len() - 1);
    assert_eq!(one.lane.runs().count(), 0, "it leaves memory");
    two.own(take(of("w")));
    assert_eq!(two.held(), 1);
    two.pass(11_000_000);
    one.pass(11_000_000);
    assert_eq!((one.offers.len(), two.offers.len()), (0, 1));
    let tasks = std::mem::take(&mut two.offers);
    two.succeeds(&tasks);
    two.go();
    assert_eq!(two.status(run), Some(RunStatus::Succeeded));
    let reply = one.ask(ClientRequest::View { run });
    one.go();
    assert!(is_elsewhere(one.answer(reply)));
}

#[test]
fn a_shard_is_given_once_the_commit_that_writes_it_is_over() {
    let (mut one, mut two) = two(ONE);
    one.own(take(ShardSet::all()));
    one.commits = Commits::Hang;
    let reply = one.start("w");
    one.go();
    one.lane
        .on(one.now, Input::Own(Box::new(Own::Give(of("w")))));
    one.go();
    two.own(take(of("w")));
    assert_eq!(two.held(), 0, "a commit is under way");
    let commit = one.hung.pop().unwrap();
    perform::commit(&one.store, &NoBlobs, &[], &commit).unwrap();
    one.commits = Commits::Land;
    one.lane.on(one.now, Input::Committed(Ok(())));
    one.go();
    assert!(matches!(one.answer(reply), Some(Ok(Answer::Started(_)))));
    assert_eq!(one.held(), ShardSet::all().len() - 1);
    two.own(take(of("w")));
    assert_eq!(two.held(), 1);
}

#[test]
fn what_waits_for_a_read_is_told_to_ask_elsewhere() {
    let (mut one, _) = two(ONE);
    one.own(take(ShardSet::all()));
    let run = one.started("w");
    one.own(Own::Give(of("w")));
    one.own(take(of("w")));
    one.deaf = true;
    let reply = one.ask(ClientRequest::Run {
        run: RunId::new(one.now, run.shard(), 9),
        request: kapell_engine::Request::Cancel {
            by: "me".to_owned(),
            reason: String::new(),
            now: false,
        },
    });
    one.go();
    assert!(one.answer(reply).is_none());
    one.lane
        .on(one.now, Input::Own(Box::new(Own::Give(of("w")))));
    one.go();
    assert!(is_elsewhere(one.answer(reply)));
    one.deaf = false;
    for read in std::mem::take(&mut one.unread) {
        one.read(read);
    }
    one.go();
    assert_eq!(one.held(), ShardSet::all().len() - 1);
}

#[test]
fn a_lane_that_is_stopped_drops_everything_and_ignores_what_was_under_way() {
    let (mut one, mut two) = two(ONE);
    one.own(take(ShardSet::all()));
    one.commits = Commits::Hang;
    let lost = one.start("w");
    one.go();
    one.own(Own::Stop);
    assert_eq!(one.held(), 0);
    assert!(matches!(one.answer(lost), Some(Err(_))));
    two.store.leave(kapell_model::NodeId(1)).unwrap();
    two.own(take(ShardSet::all()));
    assert_eq!(two.held(), ShardSet::all().len());
    let late = one.hung.pop().unwrap();
    let result = perform::commit(&one.store, &NoBlobs, &[], &late);
    assert!(result.is_err(), "the next owner has taken the shard");
    one.commits = Commits::Land;
    two.own(Own::Give(of("w")));
    one.own(take(of("w")));
    // The answer of the commit before comes while another owner's time has begun.
    one.lane.on(one.now, Input::Committed(result));
    one.go();
    one.started("w");
    assert_eq!(one.held(), 1);
    assert_eq!(one.offers.len(), 1);
}

#[test]
fn what_ended_in_a_commit_that_was_under_way_is_not_held_by_a_lane_that_was_stopped() {
    let (mut one, _) = two(ONE);
    one.own(take(ShardSet::all()));
    one.started("w");
    let tasks = std::mem::take(&mut one.offers);
    one.commits = Commits::Hang;
    one.succeeds(&tasks);
    one.go();
    assert_eq!(one.hung.len(), 1);
    one.own(Own::Stop);
    assert_eq!(one.lane.in_flight(), 0);
}

#[test]
fn a_shard_that_another_took_is_missed_with_the_next_commit() {
    let (mut one, mut two) = two(ONE);
    one.own(take(ShardSet::all()));
    two.store.leave(kapell_model::NodeId(1)).unwrap();
    two.own(take(of("w")));
    assert_eq!(two.held(), 1);
    let reply = one.start("w");
    one.go();
    assert!(matches!(one.answer(reply), Some(Err(_))));
    assert_eq!(one.held(), ShardSet::all().len() - 1);
    two.started("w");
}

#[test]
fn messages_are_looked_for_every_two_seconds() {
    let locked = "workflow: w\nsteps:\n  a: { shell: 'true', locks: [{ name: db }] }\n";
    let (mut one, mut two) = two(locked);
    let lock = EntityKey::Lock {
        namespace: "default".into(),
        name: "db".into(),
    };
    assert!(!of("w").contains(lock.shard()));
    one.own(take(of("w")));
    two.own(take(ShardSet::all().without(&of("w"))));
    one.started("w");
    assert_eq!(one.offers.len(), 0, "the lock is asked for by mail");
    two.pass(2_000_000);
    one.pass(2_000_000);
    assert_eq!(one.offers.len(), 1);
}

#[test]
fn what_fits_nowhere_does_not_ask_for_room_each_time_that_some_is_lent() {
    let big = "workflow: w\nsteps:\n  a: { shell: 'true', resources: { cpu: 8 } }\n";
    let (mut one, _) = two(big);
    one.own(take(ShardSet::all()));
    let total = TaskResources {
        cpu_millis: 1_000,
        ..TaskResources::ALL
    };
    let seat = |window| Seat {
        queues: Queues::Others,
        process_window: window,
        light_window: window,
        total: total.clone(),
        share: total.clone(),
        labels: kapell_engine::run::room::Labels::default(),
        spot: false,
    };
    let lent = |window| Input::Session(NEAR, SessionChange::Seat(seat(window)));
    one.lane.on(one.now, lent(10));
    one.started("w");
    for window in [0, 10] {
        one.lane.on(one.now, lent(window));
        let outputs = one.lane.flush(one.now);
        let asks = outputs
            .iter()
            .any(|output| matches!(output, Output::Wants(_)));
        assert!(!asks, "with room for {window}");
    }
}
