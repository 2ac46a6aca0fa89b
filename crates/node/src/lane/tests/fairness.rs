//! Work with fairness keys: shares of its queue.

use std::collections::BTreeMap;

use kapell_engine::run::room::Labels;

use super::*;

/// Items of a key each, of which there are three.
const ITEMS: &str = "workflow: items
steps:
  a: { foreach: { i: '${{ range(30) }}' }, fairness: 'k${{ i % 3 }}', shell: 'true' }
";

/// Items of one key.
const WHOLE: &str = "workflow: whole
steps:
  a: { foreach: { i: '${{ range(30) }}' }, fairness: { key: k1, weight: 2 }, shell: 'true' }
";

const PLAIN: &str = "workflow: plain
steps:
  a: { foreach: { i: '${{ range(30) }}' }, shell: 'true' }
";

impl World {
    fn takes(&mut self, window: usize) {
        let seat = Seat {
            queues: Queues::Others,
            process_window: window,
            light_window: 0,
            total: TaskResources::ALL,
            share: TaskResources::ALL,
            labels: Labels::default(),
            spot: false,
        };
        self.lane
            .on(self.now, Input::Session(NEAR, SessionChange::Seat(seat)));
        self.go();
    }

    /// Attempts are granted one by one until so many are in flight; returns how many of each run and
    /// remainder of the item's number by three.
    fn one_by_one(&mut self, attempts: usize) -> BTreeMap<(RunId, u32), usize> {
        for window in 1..=attempts {
            self.takes(window);
        }
        let mut had = BTreeMap::new();
        for task in &self.offers {
            *had.entry((task.run, task.place.item % 3)).or_default() += 1;
        }
        had
    }
}

#[test]
fn each_key_has_its_turn_whatever_run_it_is_of() {
    let mut world = World::new(&[ITEMS, WHOLE, PLAIN]);
    world.takes(0);
    let [items, whole, plain] = ["items", "whole", "plain"].map(|name| {
        world.pass(1);
        world.started(name)
    });
    let had = world.one_by_one(36);
    let sum = |run| -> usize {
        let of = had.iter().filter(|((of, _), _)| *of == run);
        of.map(|(_, count)| *count).sum()
    };
    // Four shares: three keys, and the run without any. Of one key the older run goes first.
    for key in 0..3 {
        assert!(had[&(items, key)].abs_diff(9) <= 1, "{had:?}");
    }
    assert!(sum(plain).abs_diff(9) <= 1, "{had:?}");
    assert_eq!(sum(whole), 0);
}

#[test]
fn all_of_them_end() {
    let mut world = World::new(&[ITEMS, WHOLE, PLAIN]);
    let runs = ["items", "whole", "plain"].map(|name| world.started(name));
    for _ in 0..100 {
        let tasks = std::mem::take(&mut world.offers);
        world.succeeds(&tasks);
        world.go();
    }
    for run in runs {
        assert_eq!(world.status(run), Some(RunStatus::Succeeded));
    }
    assert_eq!(world.lane.in_flight(), 0);
}

#[test]
fn keys_that_no_worker_can_serve_do_not_hold_up_one_another() {
    let big = "workflow: big
steps:
  a: { foreach: { i: '${{ range(9) }}' }, fairness: 'k${{ i % 3 }}', resources: { cpu: 8 }, shell: 'true' }
  b: { fairness: other, shell: 'true' }
";
    let mut world = World::new(&[big]);
    let small = TaskResources {
        cpu_millis: 1_000,
        memory_bytes: 1 << 30,
        ..TaskResources::default()
    };
    let seat = Seat {
        queues: Queues::Others,
        process_window: 5,
        light_window: 0,
        total: small.clone(),
        share: small,
        labels: Labels::default(),
        spot: false,
    };
    let change = SessionChange::Seat(seat);
    world.lane.on(world.now, Input::Session(NEAR, change));
    world.started("big");
    assert_eq!(world.offers.len(), 1);
}
