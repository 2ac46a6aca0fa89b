//! What is known of attempts after a commit that is not confirmed.

use super::*;

#[test]
fn a_report_of_a_batch_that_did_not_land_is_taken_again() {
    let mut world = World::new(&[ONE]);
    let run = world.started("w");
    let tasks = std::mem::take(&mut world.offers);
    assert_eq!(tasks.len(), 1);
    world.commits = Commits::Vanish;
    world.succeeds(&tasks);
    world.go();
    world.seconds(20);
    assert_eq!(world.status(run), Some(RunStatus::Succeeded));
    assert_eq!(world.offers.len(), 0, "nothing is done twice");
    assert_eq!(world.lane.in_flight(), 0);
}

#[test]
fn a_report_that_waits_for_its_run_outlives_a_reset() {
    let mut world = World::new(&[ONE]);
    let run = world.started("w");
    let tasks = std::mem::take(&mut world.offers);
    // All memory is dropped, and the run is not there yet when the report comes.
    world.commits = Commits::Vanish;
    world.start("w");
    world.go();
    world.seconds(2);
    world.lane.drop_slot(&run.into());
    world.deaf = true;
    world.succeeds(&tasks);
    world.go();
    // Another commit of unknown outcome while it waits.
    world.commits = Commits::Vanish;
    world.start("w");
    world.go();
    world.deaf = false;
    for output in std::mem::take(&mut world.unread) {
        world.read(output);
    }
    world.seconds(20);
    assert_eq!(world.status(run), Some(RunStatus::Succeeded));
    assert_eq!(world.offers.len(), 0, "nothing is done twice");
}

#[test]
fn a_failure_counts_once_though_its_commit_is_not_confirmed() {
    let mut world = World::new(&[
        "workflow: w\nsteps:\n  a: { shell: 'true', retry: { limit: 3, backoff: { initial: 20s } } }\n",
    ]);
    let run = world.started("w");
    let tasks = std::mem::take(&mut world.offers);
    world.commits = Commits::LandUnheard;
    let failed = world.report(&tasks[0], Outcome::Failed(Box::default()));
    world.lane.on(world.now, Input::Reports(vec![failed]));
    world.go();
    world.seconds(60);
    let again = &world.offers;
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].attempt, 2);
    assert_eq!(world.status(run), Some(RunStatus::Running));
    assert_eq!(world.lane.in_flight(), 1);
}

#[test]
fn items_of_a_page_that_is_gone_count_once_though_its_commit_is_not_confirmed() {
    let mut world = World::new(&[
        "workflow: w\nsteps:\n  a: { noop: , foreach: { i: '${{ range(5000) }}' } }\n",
    ]);
    let run = world.started("w");
    let tasks = std::mem::take(&mut world.offers);
    assert_eq!(tasks.len(), 5_000);
    world.commits = Commits::LandUnheard;
    world.succeeds(&tasks[..4_096]);
    world.go();
    world.seconds(20);
    assert_eq!(world.status(run), Some(RunStatus::Running));
    world.succeeds(&tasks[4_096..]);
    world.go();
    world.seconds(20);
    assert_eq!(world.status(run), Some(RunStatus::Succeeded));
    let row = world.store.run(run).unwrap().unwrap();
    assert_eq!(row.counts, [5_001, 0, 5_001]);
    assert_eq!(world.offers.len(), 0, "nothing is done twice");
}
