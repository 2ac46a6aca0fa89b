//! Messages between shards that two lanes have: each is taken once, whatever becomes of commits.

use super::*;

const LOCKED: &str = "
workflow: l
steps:
  a: { shell: 'true', locks: [{ name: db }] }
";

const PARENT: &str = "
workflow: p
steps:
  a: { workflow: c }
";

const CHILD: &str = "
workflow: c
steps:
  b: { shell: 'true' }
";

/// The shard of a lock, which another lane has than the workflow's.
fn of_lock() -> ShardSet {
    let key = EntityKey::Lock {
        namespace: "default".into(),
        name: "db".into(),
    };
    [key.shard()].into_iter().collect()
}

fn of_workflow(name: &str) -> ShardSet {
    [Shard::of_workflow("default", name)].into_iter().collect()
}

/// Lets both go on until neither has anything to say to the other.
fn talk(one: &mut World, two: &mut World) {
    for _ in 0..20 {
        for world in [&mut *one, &mut *two] {
            world.lane.on(world.now, Input::Rang);
            world.go();
        }
    }
}

fn waits(world: &World) -> usize {
    let mail = world.store.mail(&ShardSet::all(), 100).unwrap();
    mail.len()
}

#[test]
fn a_lock_of_another_owner_is_asked_for_and_given_back() {
    let mut one = World::new(&[LOCKED]);
    let mut two = one.beside(of_lock());
    let (first, second) = (one.started("l"), one.started("l"));
    assert_eq!(one.offers.len(), 0);
    assert!(waits(&one) > 0, "its owner has not heard of it");
    talk(&mut one, &mut two);
    assert_eq!(one.offers.len(), 1, "the other waits for the lock");
    for _ in 0..2 {
        let tasks = std::mem::take(&mut one.offers);
        one.succeeds(&tasks);
        talk(&mut one, &mut two);
    }
    for run in [first, second] {
        assert_eq!(one.status(run), Some(RunStatus::Succeeded));
    }
    assert_eq!(waits(&one), 0, "all was taken");
}

#[test]
fn a_child_lives_where_its_workflow_does_and_its_parent_hears_of_its_end() {
    let mut one = World::new(&[PARENT, CHILD]);
    let mut two = one.beside(of_workflow("c"));
    let parent = one.started("p");
    talk(&mut one, &mut two);
    assert_eq!(one.offers.len(), 0);
    let tasks = std::mem::take(&mut two.offers);
    assert_eq!(tasks.len(), 1);
    assert_eq!(tasks[0].run.shard(), Shard::of_workflow("default", "c"));
    two.succeeds(&tasks);
    talk(&mut one, &mut two);
    assert_eq!(one.status(parent), Some(RunStatus::Succeeded));
    assert_eq!(one.status(tasks[0].run), Some(RunStatus::Succeeded));
}

#[test]
fn a_request_for_what_another_owner_has_is_refused() {
    let mut one = World::new(&[LOCKED]);
    let mut two = one.beside(of_workflow("l"));
    let refused = one.start("l");
    one.go();
    let answer = one.answer(refused);
    let error = answer.unwrap().as_ref().unwrap_err();
    assert_eq!(error.code, ErrorCode::NotHere);
    two.started("l");
}

#[test]
fn a_message_is_taken_once_whatever_becomes_of_the_commit() {
    for commits in [Commits::Vanish, Commits::LandUnheard] {
        for who_fails in [0, 1] {
            let mut one = World::new(&[LOCKED]);
            let mut two = one.beside(of_lock());
            if who_fails == 0 {
                one.commits = commits;
            } else {
                two.commits = commits;
            }
            one.start("l");
            one.go();
            for _ in 0..5 {
                for world in [&mut one, &mut two] {
                    world.pass(1_000_000);
                }
                talk(&mut one, &mut two);
            }
            // Whether the start whose commit vanished was made, whoever asked does not know.
            let runs = one.store.list_runs(&kapell_store::RunFilter::default(), 9);
            let runs = runs.unwrap();
            assert_eq!(one.offers.len(), runs.len(), "{commits:?} of {who_fails}");
            let tasks = std::mem::take(&mut one.offers);
            one.succeeds(&tasks);
            talk(&mut one, &mut two);
            for run in runs {
                assert_eq!(one.status(run.id), Some(RunStatus::Succeeded));
            }
            // The lock is free again.
            one.started("l");
            talk(&mut one, &mut two);
            assert_eq!(one.offers.len(), 1);
            assert_eq!(waits(&one), 0);
        }
    }
}

#[test]
fn nothing_overtakes_mail_on_its_way_to_a_shard_that_is_taken_over() {
    let topic = EntityKey::Topic {
        namespace: "default".into(),
        name: "s".into(),
    };
    let of_topic: ShardSet = [topic.shard()].into_iter().collect();
    let awaits = "workflow: l\nsteps:\n  a: { await: { signal: s } }\n";
    let store = World::new(&[awaits]).store;
    let mut world = World::node(&store, 1, START);
    world.own(Own::Take(ShardSet::all().without(&of_topic), Vec::new()));
    world.commits = Commits::Hang;
    world.start("l");
    world.go();
    // It listens by mail that is not durable yet when the topic's shard comes here.
    world.own(Own::Take(of_topic, Vec::new()));
    world.commits = Commits::Land;
    let commit = world.hung.pop().unwrap();
    assert_eq!(commit.mail.len(), 1);
    let result = perform::commit(&world.store, &NoBlobs, &[], &commit);
    world.deaf = true;
    world.lane.on(world.now, Input::Committed(result));
    world.go();
    // Before that mail is read the run is over, and says that it listens no more.
    let run = world.lane.runs().next().unwrap().state.meta.id;
    let request = kapell_engine::Request::Cancel {
        by: "me".to_owned(),
        reason: String::new(),
        now: true,
    };
    world.ask(ClientRequest::Run { run, request });
    world.go();
    world.deaf = false;
    for read in std::mem::take(&mut world.unread) {
        world.read(read);
    }
    world.go();
    world.seconds(5);
    assert_eq!(waits(&world), 0);
    assert_eq!(world.status(run), Some(RunStatus::Cancelled));
    let listen = world
        .lane
        .entities()
        .filter_map(|(_, entity)| match entity {
            Entity::Topic(topic) => Some(topic.runs_that_listen()),
            _ => None,
        });
    assert_eq!(listen.sum::<usize>(), 0, "nobody listens any more");
}

/// Pauses both workflows with one request to the lane that has the parent's.
fn pause_both(world: &mut World) -> ReplyId {
    let paused = kapell_engine::run_queue::Change {
        paused: Some(Some("me".to_owned())),
        ..kapell_engine::run_queue::Change::default()
    };
    let ask = |workflow: &str| {
        let key = EntityKey::RunQueue {
            namespace: "default".into(),
            workflow: workflow.into(),
            key: "".into(),
        };
        (key, kapell_engine::Ask::Change(Box::new(paused.clone())))
    };
    let asked = world.ask(ClientRequest::AskTogether(vec![ask("p"), ask("c")]));
    world.go();
    asked
}

#[test]
fn what_is_asked_of_another_owner_has_arrived_once_its_shard_is_settled() {
    let mut one = World::new(&[PARENT, CHILD]);
    let mut two = one.beside(of_workflow("c"));
    let shard = Shard::of_workflow("default", "c");
    let asked = pause_both(&mut one);
    let answer = one.answer(asked);
    assert!(matches!(answer, Some(Ok(Answer::Sent(sent))) if *sent == [shard]));
    two.commits = Commits::Hang;
    let settled = two.ask(ClientRequest::Settle { shard });
    two.go();
    assert!(two.answer(settled).is_none(), "it is not durable yet");
    let commit = two.hung.pop().unwrap();
    let result = perform::commit(&two.store, &NoBlobs, &[], &commit);
    two.lane.on(two.now, Input::Committed(result));
    two.go();
    assert!(matches!(two.answer(settled), Some(Ok(Answer::Done))));
    assert_eq!(waits(&one), 0);
    two.commits = Commits::Land;
    let run = two.started("c");
    two.go();
    assert_eq!(two.status(run), Some(RunStatus::Queued), "it is paused");
}

#[test]
fn a_read_that_began_before_somebody_asks_to_settle_is_not_enough() {
    let mut one = World::new(&[PARENT, CHILD]);
    let mut two = one.beside(of_workflow("c"));
    let shard = Shard::of_workflow("default", "c");
    two.deaf = true;
    two.lane.on(two.now, Input::Rang);
    two.go();
    let read = two.unread.pop().unwrap();
    let found = perform::read(&two.store, &NoBlobs, &mut two.plans, None, read).unwrap();
    pause_both(&mut one);
    let settled = two.ask(ClientRequest::Settle { shard });
    two.deaf = false;
    // What was found before the message was sent comes back after.
    two.lane.on(two.now, found);
    two.go();
    assert!(matches!(two.answer(settled), Some(Ok(Answer::Done))));
    assert_eq!(waits(&one), 0);
}

#[test]
fn who_waits_for_a_shard_to_settle_hears_when_the_commit_is_lost() {
    let mut one = World::new(&[PARENT, CHILD]);
    let mut two = one.beside(of_workflow("c"));
    let shard = Shard::of_workflow("default", "c");
    pause_both(&mut one);
    two.commits = Commits::Vanish;
    let settled = two.ask(ClientRequest::Settle { shard });
    two.go();
    let error = two.answer(settled).unwrap().as_ref().unwrap_err();
    assert!(error.code.retryable());
    two.seconds(2);
    let again = two.ask(ClientRequest::Settle { shard });
    two.go();
    assert!(matches!(two.answer(again), Some(Ok(Answer::Done))));
    assert_eq!(waits(&one), 0, "nothing is lost");
}

#[test]
fn a_shard_of_another_owner_is_settled_there() {
    let mut one = World::new(&[PARENT, CHILD]);
    let _two = one.beside(of_workflow("c"));
    let shard = Shard::of_workflow("default", "c");
    let settled = one.ask(ClientRequest::Settle { shard });
    one.go();
    let error = one.answer(settled).unwrap().as_ref().unwrap_err();
    assert_eq!(error.code, ErrorCode::NotHere);
}
