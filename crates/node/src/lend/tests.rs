use super::fill::{Claim, fill};
use super::*;

mod play;

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

fn wants(queue: &str, priority: u8, waits: u32) -> Wants {
    [((Arc::from(queue), priority), waits)]
        .into_iter()
        .collect()
}

fn process() -> Takes {
    Takes::default()
}

/// A home, and what the nodes were told by it.
struct Told {
    lender: Lender,
    nodes: BTreeSet<NodeId>,
    known: BTreeMap<(NodeId, SessionId), Seat>,
    now: Instant,
}

impl Told {
    fn new(workers: u64, slots: usize) -> Self {
        let mut told = Self {
            lender: Lender::new(HOME),
            nodes: nodes(),
            known: BTreeMap::new(),
            now: Instant(1),
        };
        for number in 1..=workers {
            let seat = seat(Queues::Others, slots);
            told.lender.set(session(number), seat);
        }
        told.settle();
        told
    }

    /// What was to be said to other nodes.
    fn settle(&mut self) -> usize {
        let words = self.lender.settle(&self.nodes);
        let said = words.iter().filter(|(node, ..)| *node != HOME).count();
        for (node, session, seat) in words {
            self.known.insert((node, session), seat);
        }
        said
    }

    fn pass(&mut self, millis: u64) -> usize {
        self.now = self.now.plus(Duration::from_millis(millis));
        self.lender.pass(self.now);
        self.lender.tick();
        self.settle()
    }

    fn wants(&mut self, node: NodeId, waits: u32) -> usize {
        self.lender.wants(node, wants("default", 50, waits));
        self.settle()
    }

    fn wants_nothing(&mut self, node: NodeId) -> usize {
        self.lender.wants(node, Wants::new());
        self.settle()
    }

    fn takes(&mut self, node: NodeId, at: u64, attempts: usize) {
        for _ in 0..attempts {
            self.lender.takes(session(at), node, &process());
        }
        self.settle();
    }

    fn gives_back(&mut self, node: NodeId, at: u64) -> usize {
        self.lender.gives_back(session(at), node, &process());
        self.settle()
    }

    fn at(&self, node: NodeId, at: u64) -> usize {
        let seat = self.known.get(&(node, session(at)));
        seat.map_or(0, |seat| seat.process_window)
    }

    /// Slots of the nodes, of all workers.
    fn slots(&self) -> [usize; 3] {
        [HOME, OTHER, THIRD].map(|node| {
            let its = self.known.iter().filter(|((of, _), _)| *of == node);
            its.map(|(_, seat)| seat.process_window).sum()
        })
    }
}

#[test]
fn room_that_nobody_wants_stays_where_it_is() {
    let mut told = Told::new(1, 8);
    assert_eq!(told.slots(), [8, 0, 0]);
    told.wants(OTHER, 4);
    assert_eq!(told.slots(), [4, 4, 0]);
    assert_eq!(told.wants_nothing(OTHER), 0);
    assert_eq!(told.pass(10_000), 0, "nobody else wants it");
    assert_eq!(told.slots(), [4, 4, 0]);
}

#[test]
fn equally_urgent_work_shares_evenly_as_far_as_it_waits() {
    let mut told = Told::new(2, 6);
    told.wants(OTHER, 2);
    told.wants(THIRD, 64);
    told.wants(HOME, 64);
    assert_eq!(told.slots(), [0, 2, 10], "what was just lent is on its way");
    told.pass(300);
    assert_eq!(told.slots(), [5, 2, 5]);
}

#[test]
fn what_is_in_flight_is_not_taken_and_comes_free_for_who_has_least() {
    let mut told = Told::new(1, 8);
    told.takes(HOME, 1, 8);
    told.wants(HOME, 64);
    told.wants(OTHER, 64);
    assert_eq!(told.slots(), [8, 0, 0]);
    for other in 1..=4 {
        assert_eq!(told.gives_back(HOME, 1), 1, "a slot that moves is a word");
        told.takes(OTHER, 1, 1);
        assert_eq!(told.slots(), [8 - other, other, 0]);
    }
    assert_eq!(told.gives_back(HOME, 1), 0);
    told.takes(HOME, 1, 1);
    assert_eq!(told.gives_back(OTHER, 1), 0);
    assert_eq!(told.slots(), [4, 4, 0], "each uses its own again");
}

#[test]
fn an_urgent_step_takes_one_slot() {
    let mut told = Told::new(2, 4);
    told.wants(HOME, 64);
    told.wants(OTHER, 64);
    assert_eq!(told.slots(), [4, 4, 0]);
    told.lender.wants(THIRD, wants("default", 90, 1));
    assert!(told.settle() <= 2);
    assert_eq!(told.slots().iter().sum::<usize>(), 8);
    assert_eq!(told.slots()[2], 1);
}

#[test]
fn urgent_work_takes_what_it_needs_and_others_share_the_rest() {
    let mut told = Told::new(2, 8);
    let both = wants("default", 90, 4)
        .into_iter()
        .chain(wants("default", 10, 64));
    told.lender.wants(THIRD, both.collect());
    told.wants(OTHER, 64);
    told.pass(300);
    assert_eq!(
        told.slots(),
        [0, 12, 4],
        "what is less urgent than another's waits"
    );
}

#[test]
fn what_was_in_use_a_moment_ago_is_kept_for_its_node() {
    let mut told = Told::new(1, 2);
    told.wants(OTHER, 1);
    told.wants_nothing(OTHER);
    told.takes(OTHER, 1, 1);
    told.takes(HOME, 1, 1);
    told.gives_back(OTHER, 1);
    told.wants(THIRD, 1);
    assert_eq!(told.slots(), [1, 1, 0], "its next step is on its way");
    told.pass(500);
    assert_eq!(told.slots(), [1, 0, 1]);
}

#[test]
fn more_urgent_work_does_not_wait_for_what_was_in_use() {
    let mut told = Told::new(1, 1);
    told.wants(OTHER, 1);
    told.takes(OTHER, 1, 1);
    told.wants_nothing(OTHER);
    told.lender.wants(THIRD, wants("default", 51, 1));
    told.settle();
    told.gives_back(OTHER, 1);
    assert_eq!(told.slots(), [0, 0, 1]);
}

#[test]
fn a_node_that_stops_and_begins_again_costs_no_words() {
    let mut told = Told::new(5, 4);
    told.wants(OTHER, 8);
    let said: usize = (0..100)
        .map(|_| told.wants_nothing(OTHER) + told.pass(50) + told.wants(OTHER, 8))
        .sum();
    assert_eq!(said, 0);
}

#[test]
fn slots_are_spread_over_workers() {
    let mut told = Told::new(8, 4);
    told.wants(OTHER, 8);
    let at = (1..=8).map(|number| told.at(OTHER, number));
    assert_eq!(at.collect::<Vec<_>>(), [1; 8]);
}

#[test]
fn a_worker_is_lent_to_those_who_want_its_queues() {
    let mut told = Told::new(0, 0);
    told.lender.set(session(1), seat(named("gpu"), 4));
    told.lender.wants(OTHER, wants("default", 100, 64));
    told.lender.wants(THIRD, wants("gpu", 1, 64));
    told.settle();
    assert_eq!(told.slots(), [0, 0, 4]);
    told.lender.remove(session(1));
    told.known.clear();
    told.lender.set(session(2), seat(Queues::Others, 4));
    told.settle();
    assert_eq!(told.slots(), [0, 4, 0]);
    told.lender.wants(OTHER, wants("cpu", 100, 64));
    told.lender.name([Arc::from("cpu")].into_iter().collect());
    told.lender.wants(THIRD, wants("any", 1, 64));
    told.pass(300);
    assert_eq!(told.slots(), [0, 0, 4]);
}

#[test]
fn workers_of_another_kind_are_lent_besides() {
    let mut told = Told::new(2, 4);
    let gpu = TaskResources {
        gpus: 1,
        ..TaskResources::default()
    };
    let gpu = Seat {
        total: gpu,
        ..seat(Queues::Others, 4)
    };
    told.lender.set(session(3), gpu);
    told.wants(OTHER, 1);
    assert_eq!(told.at(OTHER, 3), 1, "it may be what the step asks for");
    assert_eq!(told.slots()[1], 2);
}

#[test]
fn a_node_whose_work_does_not_fit_gets_slots_elsewhere() {
    let mut told = Told::new(16, 1);
    told.wants(OTHER, 1);
    assert_eq!(told.slots()[1], 1);
    let mut had = Vec::new();
    for _ in 0..5 {
        told.pass(600);
        had.push(told.slots()[1]);
    }
    assert_eq!(had, [3, 7, 15, 16, 16], "twice as many each time");
}

#[test]
fn what_did_not_fit_one_node_another_has() {
    let mut told = Told::new(2, 1);
    told.wants(OTHER, 1);
    let first = if told.at(OTHER, 1) == 1 { 1 } else { 2 };
    let second = 3 - first;
    told.takes(HOME, second, 1);
    told.wants(HOME, 64);
    assert_eq!(told.at(OTHER, first), 1, "it may still use it");
    told.pass(600);
    assert_eq!(told.at(HOME, first), 1);
    told.takes(HOME, first, 1);
    told.gives_back(HOME, first);
    assert_eq!(told.at(OTHER, first), 0, "it did not fit there");
    told.takes(HOME, first, 1);
    told.gives_back(HOME, second);
    assert_eq!(told.at(OTHER, second), 1, "the first elsewhere is its own");
}

#[test]
fn resources_in_use_are_said_to_those_who_have_slots() {
    let mut told = Told::new(0, 0);
    let gpus = |gpus| TaskResources {
        gpus,
        ..TaskResources::default()
    };
    let of_four = Seat {
        total: gpus(4),
        ..seat(Queues::Others, 8)
    };
    told.lender.set(session(1), of_four);
    told.wants(OTHER, 4);
    let takes = Takes {
        light: false,
        needs: gpus(3),
    };
    told.lender.takes(session(1), OTHER, &takes);
    told.settle();
    let share = |told: &Told, node| told.known[&(node, session(1))].share.gpus;
    assert_eq!(share(&told, HOME), 1);
    assert_eq!(share(&told, OTHER), 4, "its own use it counts itself");
    assert_eq!(share(&told, THIRD), 4, "it has no slot");
    told.wants(THIRD, 1);
    assert_eq!(share(&told, THIRD), 1);
    told.lender.gives_back(session(1), OTHER, &takes);
    assert_eq!(told.settle(), 1, "to the third alone");
    assert_eq!(share(&told, THIRD), 4);
}

#[test]
fn a_node_that_comes_back_is_told_again() {
    let mut told = Told::new(1, 8);
    told.wants(OTHER, 8);
    told.lender.forget(OTHER);
    assert_eq!(told.settle(), 1);
    assert_eq!(told.slots(), [8, 0, 0]);
}

#[test]
fn a_worker_that_is_away_has_nothing_to_lend() {
    let mut told = Told::new(1, 4);
    told.wants(OTHER, 2);
    told.takes(OTHER, 1, 1);
    told.lender.set(session(1), seat(Queues::Others, 0));
    told.settle();
    assert_eq!(told.slots(), [0, 0, 0]);
    told.lender.set(session(1), seat(Queues::Others, 4));
    told.settle();
    assert_eq!(told.slots().iter().sum::<usize>(), 4);
    told.pass(1_000);
    assert!(told.slots()[1] > 1, "it waits for more: {:?}", told.slots());
}

#[test]
fn room_for_what_starts_nothing_is_there_for_all_and_costs_no_words() {
    let mut told = Told::new(1, 500);
    let lights = |told: &Told| {
        let seats = told.known.values().map(|seat| seat.light_window);
        seats.collect::<Vec<_>>()
    };
    assert_eq!(lights(&told), [250; 3], "a fourth: three are nearly four");
    told.nodes.insert(NodeId(4));
    assert_eq!(told.settle(), 1, "who is new is told, and nobody else");
    let light = Takes {
        light: true,
        ..Takes::default()
    };
    told.lender.takes(session(1), OTHER, &light);
    assert_eq!(told.settle(), 0);
}

#[test]
fn attempts_handed_out_ahead_keep_nobody_from_its_part() {
    let mut told = Told::new(1, 4);
    told.takes(HOME, 1, 40);
    told.wants(HOME, 64);
    told.wants(OTHER, 64);
    assert_eq!(told.slots(), [4, 0, 0], "they may be long");
    for _ in 0..5 {
        told.gives_back(HOME, 1);
        told.takes(HOME, 1, 1);
    }
    assert_eq!(told.slots(), [2, 2, 0], "they are short");
    told.pass(1_000);
    assert_eq!(told.slots()[1], 0, "those that are there now are not");
}

#[test]
fn filling_gives_to_who_has_least() {
    let claim = |has, most, turn| Claim {
        has,
        most,
        turn: (false, turn),
    };
    let mut claims = [
        claim(5, 9, 1),
        claim(0, 2, 2),
        claim(1, 9, 3),
        claim(1, 9, 4),
    ];
    assert_eq!(fill(&mut claims, 8), 0);
    let has = claims.clone().map(|claim| claim.has);
    assert_eq!(has, [5, 2, 4, 4], "as much as each claims, and one level");
    let mut claims = [claim(1, 9, 7), claim(1, 9, 3), claim(0, 9, 9)];
    assert_eq!(fill(&mut claims, 2), 0);
    let has = claims.clone().map(|claim| claim.has);
    assert_eq!(has, [1, 2, 1], "what is uneven goes to who waited longest");
    assert_eq!(fill(&mut claims, 1_000), 1_000 - 8 - 7 - 8);
    assert_eq!(fill(&mut [], 3), 3);
}
