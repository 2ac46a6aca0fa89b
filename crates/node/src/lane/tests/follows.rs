//! A second commit waits at the store while the first is under way.

use super::*;

const WAITS: &str = "workflow: t\nsteps:\n  a: { wait: 30s }\n";

/// A world whose commits hang, and where one input makes a second commit.
fn world() -> World {
    let mut world = World::new(&[ONE, WAITS]);
    world.lane.follow_after(1);
    world.commits = Commits::Hang;
    world
}

impl World {
    fn made_by(&self, reply: ReplyId) -> Option<RunId> {
        match self.answer(reply) {
            Some(Ok(Answer::Started(run))) => Some(*run),
            _ => None,
        }
    }

    fn is_unconfirmed(&self, reply: ReplyId) -> bool {
        let answer = self.answer(reply);
        matches!(answer, Some(Err(error)) if error.code == ErrorCode::StoreUnavailable)
    }

    /// The first commit that hangs lands.
    fn lands(&mut self) {
        let commit = self.hung.remove(0);
        self.follows.remove(0);
        let result = perform::commit(&self.store, &NoBlobs, &[], &commit);
        assert!(result.is_ok(), "{result:?}");
        self.lane.on(self.now, Input::Committed(result));
        self.go();
    }

    /// The first commit that hangs fails.
    fn fails(&mut self, error: kapell_store::Error) {
        self.hung.remove(0);
        self.follows.remove(0);
        self.lane.on(self.now, Input::Committed(Err(error)));
        self.go();
    }

    fn starts(&mut self) -> ReplyId {
        let reply = self.start("w");
        self.go();
        reply
    }
}

#[test]
fn two_are_under_way_and_each_is_answered_once_it_is_durable() {
    let mut world = world();
    let replies = [world.starts(), world.starts(), world.starts()];
    assert_eq!(world.follows, [false, true], "a third waits");
    assert!(replies.iter().all(|reply| world.answer(*reply).is_none()));
    world.lands();
    assert!(world.made_by(replies[0]).is_some() && world.made_by(replies[1]).is_none());
    assert_eq!(world.follows, [true, true]);
    world.lands();
    world.lands();
    assert!(replies.iter().all(|reply| world.made_by(*reply).is_some()));
    assert!(world.hung.is_empty() && world.lane.is_quiet());
    world.commits = Commits::Land;
    let alone = world.starts();
    assert!(world.made_by(alone).is_some());
}

#[test]
fn a_smaller_one_does_not_follow() {
    let mut world = world();
    world.lane.follow_after(2);
    world.starts();
    let second = world.starts();
    assert_eq!(world.hung.len(), 1);
    let third = world.starts();
    assert_eq!(world.follows, [false, true]);
    world.lands();
    world.lands();
    assert!(world.made_by(second).is_some() && world.made_by(third).is_some());
}

#[test]
fn what_follows_a_commit_that_failed_is_void_too() {
    let mut world = world();
    let replies = [world.starts(), world.starts(), world.starts()];
    world.commits = Commits::Land;
    let acquisitions = world.acquisitions;
    world.fails(kapell_store::Error::Unavailable("no answer".to_owned()));
    assert!(replies.iter().all(|reply| world.is_unconfirmed(*reply)));
    assert_eq!(world.acquisitions, acquisitions + 1);
    world.fails(perform::follows_failed());
    assert_eq!(
        world.acquisitions,
        acquisitions + 1,
        "nobody waits for this answer"
    );
    let after = world.starts();
    assert!(world.made_by(after).is_some());
    let run = world.made_by(after).unwrap();
    assert_eq!(world.status(run), Some(RunStatus::Running));
    let made: u64 = world
        .store
        .run_counts("default")
        .unwrap()
        .iter()
        .map(|(_, _, runs)| *runs)
        .sum();
    assert_eq!(made, 1);
}

#[test]
fn a_disk_that_is_full_refuses_both() {
    let mut world = world();
    let replies = [world.starts(), world.starts()];
    world.commits = Commits::Full;
    world.fails(no_room());
    for reply in replies {
        let answer = world.answer(reply);
        assert!(matches!(answer, Some(Err(error)) if error.code == ErrorCode::DiskFull));
    }
    world.fails(perform::follows_failed());
    world.hung.clear();
    world.commits = Commits::Land;
    world.seconds(3);
    assert!(!world.lane.store_is_full());
    let after = world.starts();
    assert!(world.made_by(after).is_some());
}

#[test]
fn reports_of_both_are_taken_again() {
    let mut world = World::new(&[ONE]);
    let runs = [world.started("w"), world.started("w")];
    let tasks = std::mem::take(&mut world.offers);
    world.lane.follow_after(1);
    world.commits = Commits::Hang;
    for task in &tasks {
        world.succeeds(std::slice::from_ref(task));
        world.go();
    }
    assert_eq!(world.follows, [false, true]);
    world.commits = Commits::Land;
    world.fails(kapell_store::Error::Unavailable("no answer".to_owned()));
    world.fails(perform::follows_failed());
    for run in runs {
        assert_eq!(world.status(run), Some(RunStatus::Succeeded));
    }
    assert_eq!(world.offers.len(), 0, "nothing is done twice");
    assert_eq!(world.lane.in_flight(), 0);
}

#[test]
fn what_only_reads_is_told_once_all_is_durable_that_it_saw() {
    let mut world = World::new(&[WAITS]);
    let run = world.started("t");
    world.lane.follow_after(1);
    world.commits = Commits::Hang;
    let request = kapell_engine::Request::Pause {
        by: "me".to_owned(),
    };
    world.ask(ClientRequest::Run { run, request });
    world.go();
    let view = world.ask(ClientRequest::View { run });
    world.go();
    assert_eq!(world.hung.len(), 1);
    assert!(world.answer(view).is_none());
    world.lands();
    assert!(matches!(world.answer(view), Some(Ok(_))));
}

#[test]
fn a_shard_is_given_once_all_commits_that_may_write_it_are_over() {
    let mut one = World::node(&stored(&[ONE]), 1, START);
    one.own(Own::Take(ShardSet::all(), Vec::new()));
    one.lane.follow_after(1);
    one.commits = Commits::Hang;
    one.starts();
    one.starts();
    let all = ShardSet::all().len();
    let mut some = ShardSet::default();
    some.insert(Shard(7));
    one.lane.on(one.now, Input::Own(Box::new(Own::Give(some))));
    one.go();
    let later = one.starts();
    one.lands();
    assert_eq!(one.held(), all, "one is under way that may write it");
    assert_eq!(one.follows, [true, true]);
    one.lands();
    assert_eq!(one.held(), all - 1, "the third one does not");
    one.lands();
    assert!(one.made_by(later).is_some());
}

#[test]
fn what_is_granted_to_a_session_that_ends_before_the_commit_is_not_sent() {
    let mut world = world();
    world.lane.follow_after(usize::MAX);
    let first = world.starts();
    let second = world.starts();
    assert_eq!(world.hung.len(), 1);
    assert_eq!(world.lane.in_flight(), 2);
    world
        .lane
        .on(world.now, Input::Session(NEAR, SessionChange::Over));
    world.go();
    world.lands();
    assert_eq!(world.offers.len(), 1, "it was in the commit under way");
    world.lands();
    assert_eq!(world.offers.len(), 1);
    for reply in [first, second] {
        assert!(world.made_by(reply).is_some());
    }
    while !world.hung.is_empty() {
        world.lands();
    }
    assert_eq!(world.lane.in_flight(), 0);
}
