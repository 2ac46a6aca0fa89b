//! Workers that go from one home to another, and homes that have not heard of it.

use super::*;

#[test]
fn a_worker_that_comes_to_another_node_brings_all_it_holds() {
    let mut world = World::new(&nine());
    world.opens(B, Vec::new());
    world.on(A, |relay| relay.wants(wants(50)));
    let (arrived, lost) = (task(1, 1, 1), task(1, 2, 1));
    world.on(A, |relay| relay.offer(vec![arrived.clone()]));
    world.cut.insert((A, B));
    world.on(A, |relay| relay.offer(vec![lost.clone()]));
    // B dies.
    for id in [A, C] {
        world.on(id, |relay| {
            relay.nodes([A, C].into_iter().filter(|other| *other != id).collect());
        });
    }
    assert_eq!(world.window(A), 0, "its home is away");
    world.opens(C, vec![holding(&arrived)]);
    let open = world
        .at(A)
        .sessions
        .iter()
        .rev()
        .find_map(|(_, change)| match change {
            SessionChange::Open { holds, .. } => Some(holds.len()),
            _ => None,
        });
    assert_eq!(open, Some(1));
    let heard: Vec<Name> = world
        .at(A)
        .reports
        .drain(..)
        .map(|report| told(&report))
        .collect();
    assert_eq!(heard, [name(&lost)], "it was lost on the way");
    assert_eq!(world.window(A), 4);
    world.pass(60);
    assert!(world.at(A).over.is_empty(), "it is there");
    world.on(C, |relay| relay.reports(vec![ended(&arrived)]));
    assert_eq!(world.at(A).reports.len(), 1);
}

#[test]
fn a_worker_whose_home_died_is_over_when_it_comes_nowhere() {
    let mut world = World::new(&nine());
    world.opens(B, Vec::new());
    world.on(A, |relay| relay.nodes(BTreeSet::from([C])));
    world.pass(29);
    assert!(world.at(A).over.is_empty());
    world.pass(1);
    assert_eq!(world.at(A).over, [S]);
    let last = world.at(A).sessions.last();
    assert!(matches!(last, Some((S, SessionChange::Over))), "{last:?}");
}

#[test]
fn a_session_whose_home_does_not_know_it_is_over_in_the_end() {
    let mut world = World::new(&nine());
    world.opens(B, Vec::new());
    world.cut.insert((B, A));
    world.on(B, |relay| relay.session(S, SessionChange::Over));
    world.cut.clear();
    world.pass(10);
    assert!(
        world.at(A).over.is_empty(),
        "it may be on its way to another"
    );
    world.pass(30);
    assert_eq!(world.at(A).over, [S]);
}

/// A worker that was at B, with an attempt of A's, is at C with it; B and C do not hear each other.
fn moved_unheard(world: &mut World) -> Task {
    world.comes(B, Vec::new(), 1);
    let task = task(1, 1, 1);
    world.on(A, |relay| relay.offer(vec![task.clone()]));
    assert_eq!(world.at(B).tasks.len(), 1);
    world.cut.extend([(B, C), (C, B)]);
    world.comes(C, vec![holding(&task)], 2);
    task
}

fn lost(task: &Task) -> Report {
    Report::lost(name(task), (Time(0), Time(0)), ("not heard of", false))
}

#[test]
fn a_home_of_before_is_not_believed_when_it_says_itself_again() {
    let mut world = World::new(&nine());
    moved_unheard(&mut world);
    let next = task(1, 2, 1);
    world.on(A, |relay| relay.offer(vec![next.clone()]));
    world.on(B, |relay| relay.opened(A));
    assert!(world.at(A).reports.is_empty(), "both are at its new home");
    world.on(A, |relay| relay.stop(&[name(&next)]));
    assert_eq!(world.at(C).stops, [name(&next)]);
}

#[test]
fn a_home_of_before_hears_from_the_new_one_where_its_worker_is() {
    let mut world = World::new(&nine());
    moved_unheard(&mut world);
    world.cut.clear();
    world.on(B, |relay| relay.opened(C));
    assert_eq!(world.at(B).forgotten, [S]);
    assert!(world.at(C).relay.is_here(S));
}

#[test]
fn what_a_home_of_before_says_is_lost_goes_on_at_the_new_one() {
    let mut world = World::new(&nine());
    let task = moved_unheard(&mut world);
    world.on(B, |relay| relay.reports(vec![lost(&task)]));
    world.on(B, |relay| relay.session(S, SessionChange::Over));
    assert!(world.at(A).reports.is_empty());
    assert_eq!(world.at(B).taken, [name(&task)], "and it says so no more");
    world.on(C, |relay| relay.reports(vec![ended(&task)]));
    assert_eq!(world.at(A).reports.len(), 1);
}

#[test]
fn a_session_that_moved_by_its_row_is_not_over() {
    let mut world = World::new(&nine());
    moved_unheard(&mut world);
    let own = task(2, 1, 1);
    world.on(B, |relay| relay.offer(vec![own.clone()]));
    world.on(B, |relay| relay.moved(S, (C, 0)));
    assert_eq!(world.at(B).forgotten, [S]);
    assert_eq!(world.window(B), 0);
    assert!(world.at(B).reports.is_empty());
    world.cut.clear();
    world.on(C, |relay| relay.opened(B));
    let told: Vec<Name> = world.at(B).reports.iter().map(told).collect();
    assert_eq!(told, [name(&own)], "the new home knows what never arrived");
}

#[test]
fn a_home_of_before_says_nothing_of_what_is_held_once_it_knows_the_row() {
    let mut world = World::new(&nine());
    moved_unheard(&mut world);
    // B takes over shards. It does not hear C, but the store.
    world.on(B, |relay| relay.known(S, (C, 2), Queues::Others));
    assert!(!world.at(B).relay.is_here(S));
    assert_eq!(world.at(B).forgotten, [S]);
    // What was heard of a later hello counts more than a row.
    world.on(A, |relay| relay.known(S, (B, 1), Queues::Others));
    let next = task(1, 2, 1);
    world.on(A, |relay| relay.offer(vec![next.clone()]));
    let at_c = |world: &mut World| world.at(C).tasks.len();
    assert_eq!(at_c(&mut world), 1);
    // A row of a later hello counts more than what was heard.
    world.on(A, |relay| relay.known(S, (B, 3), Queues::Others));
    let last = task(1, 3, 1);
    world.on(A, |relay| relay.offer(vec![last.clone()]));
    assert_eq!(at_c(&mut world), 1);
}
