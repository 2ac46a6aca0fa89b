//! Order within a queue.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use kapell_model::{RunId, Time};

use super::line::{Blocked, Line, Place, Share};
use super::settings::Settings;
use super::stride::Turns;

fn place(rank: u8, namespace: &str, share: Share, made: i64) -> Place {
    Place {
        rank,
        namespace: namespace.into(),
        share,
        weight: 1,
        made_at: Time(made),
    }
}

/// A queue with runs that always want more.
struct Queue {
    line: Line,
    settings: Settings,
    places: BTreeMap<RunId, Place>,
    blocked: Blocked,
    now: Time,
}

impl Queue {
    fn new(settings: Settings) -> Self {
        Self {
            line: Line::default(),
            settings,
            places: BTreeMap::new(),
            blocked: Blocked::default(),
            now: Time(0),
        }
    }

    fn add(&mut self, id: u128, place: Place) {
        self.line.enter(RunId(id), &place, &self.settings, self.now);
        self.places.insert(RunId(id), place);
    }

    fn grant(&mut self, cost: u64) -> u128 {
        let (id, _) = self
            .line
            .first(&self.settings, &self.blocked)
            .expect("work waits");
        let place = &self.places[&id];
        self.line
            .charge(place, cost, (&self.settings, &self.blocked), self.now);
        id.0
    }

    /// How many of so many single grants each run had.
    fn shares(&mut self, grants: usize) -> BTreeMap<u128, usize> {
        let mut had = BTreeMap::new();
        for _ in 0..grants {
            *had.entry(self.grant(1)).or_default() += 1;
        }
        had
    }
}

fn own(id: u128) -> Share {
    Share::Run(RunId(id))
}

fn key(key: &str) -> Share {
    Share::Key(key.into())
}

#[test]
fn namespaces_share_by_weight_however_many_runs_they_have() {
    let mut queue = Queue::new(Settings {
        weights: BTreeMap::from([(Arc::from("big"), 3)]),
        ..Settings::default()
    });
    for id in 0..100 {
        queue.add(id, place(50, "many", own(id), 0));
    }
    queue.add(1_000, place(50, "big", own(1_000), 5));
    queue.add(1_001, place(50, "one", own(1_001), 9));
    let had = queue.shares(500);
    assert!(had[&1_000].abs_diff(300) <= 1, "{had:?}");
    assert!(had[&1_001].abs_diff(100) <= 1, "{had:?}");
    for id in 0..100 {
        assert!(had[&id].abs_diff(1) <= 1, "{id}: {had:?}");
    }
}

#[test]
fn a_namespace_whose_quota_is_used_up_holds_up_no_other() {
    let mut queue = Queue::new(Settings::default());
    queue.add(1, place(0, "full", own(1), 0));
    queue.add(2, place(50, "full", own(2), 0));
    queue.add(3, place(50, "free", own(3), 0));
    queue.blocked.insert("full".into());
    assert_eq!(queue.shares(10), BTreeMap::from([(3, 10)]));
    assert_eq!(queue.line.highest(&queue.blocked), Some(50));
    queue.blocked.clear();
    assert_eq!(queue.grant(1), 1);
}

#[test]
fn one_key_has_one_share_and_its_oldest_run_goes_first() {
    let mut queue = Queue::new(Settings::default());
    queue.add(1, place(50, "n", key("a"), 7));
    queue.add(2, place(50, "n", key("a"), 3));
    queue.add(3, place(50, "n", key("b"), 9));
    assert_eq!(queue.shares(100), BTreeMap::from([(2, 50), (3, 50)]));
}

#[test]
fn a_key_has_its_weight_whatever_it_is_beside() {
    let mut queue = Queue::new(Settings::default());
    let heavy = Place {
        weight: 3,
        ..place(50, "n", key("a"), 7)
    };
    queue.add(1, heavy);
    queue.add(2, place(50, "n", key("b"), 9));
    queue.add(3, place(50, "n", own(3), 1));
    let had = queue.shares(100);
    assert_eq!(had, BTreeMap::from([(1, 60), (2, 20), (3, 20)]));
}

#[test]
fn a_share_is_of_attempts_not_of_turns() {
    let mut queue = Queue::new(Settings::default());
    queue.add(1, place(50, "a", own(1), 0));
    queue.add(2, place(50, "b", own(2), 0));
    let mut had = [0; 3];
    for _ in 0..5_100 {
        let id = usize::try_from(
            queue
                .line
                .first(&queue.settings, &queue.blocked)
                .unwrap()
                .0
                .0,
        )
        .unwrap();
        let cost = if id == 1 { 50 } else { 1 };
        had[id] += cost;
        queue.grant(cost);
    }
    assert!(had[1].abs_diff(had[2]) <= 50, "{had:?}");
}

#[test]
fn whoever_stays_away_saves_nothing_up_and_whoever_comes_waits_for_no_others() {
    let mut queue = Queue::new(Settings::default());
    queue.add(1, place(50, "a", own(1), 0));
    queue.shares(10_000);
    queue.add(2, place(50, "b", own(2), 0));
    let had = queue.shares(100);
    assert!(had[&1].abs_diff(50) <= 1, "{had:?}");
}

#[test]
fn leaving_and_coming_back_gains_nothing() {
    let mut queue = Queue::new(Settings::default());
    queue.add(1, place(50, "a", own(1), 0));
    queue.add(2, place(50, "b", own(2), 0));
    let mut had = [0_u32; 3];
    for _ in 0..1_000 {
        let id = queue.grant(1);
        had[usize::try_from(id).unwrap()] += 1;
        if id == 1 {
            let place = queue.places[&RunId(1)].clone();
            queue.line.leave(RunId(1), &place);
            queue.add(1, place);
        }
    }
    assert!(had[1].abs_diff(had[2]) <= 1, "{had:?}");
}

#[test]
fn new_runs_without_end_do_not_keep_an_old_one_from_its_turn() {
    let mut queue = Queue::new(Settings::default());
    queue.add(0, place(50, "n", own(0), 0));
    assert_eq!(queue.grant(256), 0);
    let mut served = 0;
    for id in 1..20_000 {
        queue.add(id, place(50, "n", own(id), 1));
        let first = queue.grant(1);
        served += u32::from(first == 0);
        if first != 0 {
            let place = queue.places[&RunId(first)].clone();
            queue.line.leave(RunId(first), &place);
        }
    }
    assert!(served > 0);
}

#[test]
fn priority_goes_first_and_waiting_brings_the_rest_forward() {
    let mut queue = Queue::new(Settings {
        aging_micros: 10,
        ..Settings::default()
    });
    queue.add(1, place(0, "n", own(1), 0));
    queue.add(2, place(5, "n", own(2), 0));
    let mut low = Vec::new();
    for now in 1..=200 {
        queue.now = Time(now);
        if queue.grant(1) == 2 {
            low.push(now);
        }
    }
    assert_eq!(queue.line.risen(5, &queue.settings, Time(200)), 5);
    // Five steps of ten, then a turn in each step.
    assert!((50..=55).contains(&low[0]), "{low:?}");
    let gaps: Vec<i64> = low.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(gaps.iter().all(|gap| (9..=12).contains(gap)), "{low:?}");
}

#[test]
fn nothing_rises_where_aging_is_off() {
    let mut queue = Queue::new(Settings {
        aging_micros: 0,
        ..Settings::default()
    });
    queue.add(1, place(0, "n", own(1), 0));
    queue.add(2, place(100, "n", own(2), 0));
    for now in 1..1_000 {
        queue.now = Time(now * 1_000_000_000);
        assert_eq!(queue.grant(1), 1);
    }
    assert_eq!(queue.line.risen(100, &queue.settings, queue.now), 0);
}

#[test]
fn what_is_remembered_of_those_who_left_is_bounded() {
    let mut turns = Turns::default();
    turns.enter(0, 1, 0);
    for who in 1..100_000_u32 {
        turns.enter(who, 1, 0);
        turns.charge(&who, 1, 1);
        turns.leave(&who);
    }
    assert!(turns.len() < 10, "{}", turns.len());
}

#[test]
fn a_queue_in_which_nothing_waits_is_forgotten() {
    let mut queue = Queue::new(Settings::default());
    let at = place(50, "n", key("k"), 0);
    queue.add(1, at.clone());
    assert!(queue.line.tidy());
    queue.line.leave(RunId(1), &at);
    assert_eq!(queue.line.first(&queue.settings, &queue.blocked), None);
    assert!(!queue.line.tidy());
}

thread_local! {
    static COMPARED: Cell<u64> = const { Cell::new(0) };
}

/// Counts how often two are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counted(u32);

impl PartialOrd for Counted {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Counted {
    fn cmp(&self, other: &Self) -> Ordering {
        COMPARED.set(COMPARED.get() + 1);
        self.0.cmp(&other.0)
    }
}

/// Comparisons for one turn where so many wait.
fn compared(waiting: u32) -> u64 {
    const TURNS: u64 = 1_000;
    let mut turns = Turns::default();
    for who in 0..waiting {
        turns.enter(Counted(who), 1, 0);
    }
    COMPARED.set(0);
    for _ in 0..TURNS {
        let who = turns.first().unwrap().clone();
        turns.charge(&who, 1, 1);
    }
    COMPARED.get() / TURNS
}

#[test]
fn a_turn_costs_hardly_more_where_a_thousand_times_as_many_wait() {
    let (few, many) = (compared(100), compared(100_000));
    assert!(few > 0);
    // The logarithm of the one is two and a half times that of the other.
    assert!(many < few * 4, "{few} against {many}");
}

#[test]
fn what_waits_is_counted_without_what_a_quota_holds_up() {
    let mut queue = Queue::new(Settings::default());
    for (id, rank, namespace) in [(1, 50, "a"), (2, 50, "b"), (3, 90, "a")] {
        let place = place(rank, namespace, own(id), 0);
        queue.add(id, place.clone());
        queue.line.count(&place, (0, 10));
    }
    let waits = |queue: &Queue| queue.line.waits(&queue.blocked).collect::<Vec<_>>();
    assert_eq!(waits(&queue), [(50, 20), (90, 10)]);
    queue.blocked.insert("a".into());
    assert_eq!(waits(&queue), [(50, 10)]);
    queue.line.count(&place(50, "b", own(2), 0), (10, 3));
    assert_eq!(waits(&queue), [(50, 3)]);
}
