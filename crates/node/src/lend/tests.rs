use super::*;
use kapell_engine::run::room::Labels;

const HOME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const THIRD: NodeId = NodeId(3);

fn session(number: u64) -> SessionId {
    SessionId(number)
}

fn nodes() -> BTreeSet<NodeId> {
    [HOME, OTHER, THIRD].into_iter().collect()
}

fn seat(queues: Queues, window: usize) -> Seat {
    Seat {
        queues,
        process_window: window,
        light_window: window * 2,
        total: TaskResources::ALL,
        share: TaskResources::ALL,
        labels: Labels::default(),
        spot: false,
    }
}

fn named(queue: &str) -> Queues {
    Queues::Named([Arc::from(queue)].into_iter().collect())
}

fn wants(queue: &str, priority: u8) -> Wants {
    [(Arc::from(queue), priority)].into_iter().collect()
}

fn process() -> Takes {
    Takes::default()
}

/// Windows of the nodes after what was said.
fn windows(lender: &mut Lender, known: &mut BTreeMap<NodeId, usize>) -> [usize; 3] {
    for (node, _, seat) in lender.settle(&nodes()) {
        known.insert(node, seat.process_window);
    }
    [HOME, OTHER, THIRD].map(|node| known[&node])
}

#[test]
fn room_that_nobody_wants_stays_at_home_and_goes_where_it_is_wanted() {
    let (mut lender, mut known) = (Lender::new(HOME), BTreeMap::new());
    lender.set(session(1), seat(Queues::Others, 8));
    assert_eq!(windows(&mut lender, &mut known), [8, 0, 0]);
    assert!(lender.settle(&nodes()).is_empty(), "it was said");
    lender.wants(OTHER, wants("default", 50));
    assert_eq!(windows(&mut lender, &mut known), [0, 8, 0]);
    lender.wants(HOME, wants("default", 50));
    lender.wants(THIRD, wants("default", 50));
    assert_eq!(windows(&mut lender, &mut known), [3, 3, 2]);
    lender.wants(THIRD, wants("default", 51));
    assert_eq!(windows(&mut lender, &mut known), [0, 0, 8]);
    for node in [HOME, OTHER, THIRD] {
        lender.wants(node, Wants::new());
    }
    assert_eq!(windows(&mut lender, &mut known), [8, 0, 0]);
}

#[test]
fn what_is_in_flight_of_others_counts() {
    let (mut lender, mut known) = (Lender::new(HOME), BTreeMap::new());
    lender.set(session(1), seat(Queues::Others, 8));
    for _ in 0..8 {
        lender.takes(session(1), HOME, &process());
    }
    lender.wants(OTHER, wants("default", 90));
    assert_eq!(windows(&mut lender, &mut known), [0, 0, 0]);
    for _ in 0..3 {
        lender.gives_back(session(1), HOME, &process());
    }
    assert_eq!(windows(&mut lender, &mut known), [0, 3, 0]);
    lender.wants(HOME, wants("default", 90));
    assert_eq!(windows(&mut lender, &mut known), [4, 3, 0]);
    for _ in 0..3 {
        lender.takes(session(1), OTHER, &process());
    }
    lender.gives_back(session(1), HOME, &process());
    assert_eq!(windows(&mut lender, &mut known), [4, 4, 0]);
}

#[test]
fn a_worker_is_lent_to_those_who_want_its_queues() {
    let (mut lender, mut known) = (Lender::new(HOME), BTreeMap::new());
    lender.set(session(1), seat(named("gpu"), 4));
    lender.wants(OTHER, wants("default", 100));
    lender.wants(THIRD, wants("gpu", 1));
    assert_eq!(windows(&mut lender, &mut known), [0, 0, 4]);
    lender.remove(session(1));
    lender.set(session(2), seat(Queues::Others, 4));
    assert_eq!(windows(&mut lender, &mut known), [0, 4, 0]);
    lender.wants(OTHER, wants("cpu", 100));
    lender.name([Arc::from("cpu")].into_iter().collect());
    lender.wants(THIRD, wants("any", 1));
    assert_eq!(windows(&mut lender, &mut known), [0, 0, 4]);
}

#[test]
fn resources_in_use_elsewhere_are_not_lent() {
    let mut lender = Lender::new(HOME);
    let gpus = |gpus| TaskResources {
        gpus,
        ..TaskResources::default()
    };
    let of_four = Seat {
        total: gpus(4),
        ..seat(Queues::Others, 8)
    };
    lender.set(session(1), of_four);
    let takes = Takes {
        light: false,
        needs: gpus(3),
    };
    lender.takes(session(1), OTHER, &takes);
    lender.wants(HOME, wants("default", 1));
    let said = lender.settle(&nodes());
    let of = |node| {
        let found = said.iter().find(|(to, ..)| *to == node);
        found.map(|(_, _, seat)| (seat.share.gpus, seat.total.gpus))
    };
    assert_eq!(of(HOME), Some((1, 4)));
    assert_eq!(of(OTHER), Some((4, 4)), "its own use it counts itself");
}

#[test]
fn a_node_that_comes_back_is_told_again() {
    let (mut lender, mut known) = (Lender::new(HOME), BTreeMap::new());
    lender.set(session(1), seat(Queues::Others, 8));
    lender.wants(OTHER, wants("default", 50));
    windows(&mut lender, &mut known);
    lender.forget(OTHER);
    let said = lender.settle(&nodes());
    let told: Vec<_> = said
        .iter()
        .map(|(node, _, seat)| (*node, seat.process_window))
        .collect();
    assert_eq!(told, [(HOME, 8), (OTHER, 0)]);
}
