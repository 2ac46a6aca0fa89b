//! Quotas of namespaces.

use std::collections::BTreeMap;

use kapell_engine::run::room::{Labels, Quota};

use super::*;
use crate::dispatch::Order;

const MANY: &str = "workflow: many
steps:
  a: { foreach: { i: '${{ range(20) }}' }, resources: { cpu: 2 }, shell: 'true' }
";

fn with_quota(order: Order, quota: Quota, files: &[&str]) -> World {
    let mut world = World::new(files);
    let config = Config {
        seed: 7,
        alone: true,
        idle_micros: 60_000_000,
        keeps: kapell_engine::topic::Keeps::default(),
        dispatch: crate::DispatchSettings {
            order,
            quotas: BTreeMap::from([("default".into(), quota)]),
            ..crate::DispatchSettings::default()
        },
    };
    world.lane = with_worker(config, world.now, 100);
    world.go();
    world
}

fn steps(steps: u64) -> Quota {
    Quota {
        steps: Some(steps),
        ..Quota::default()
    }
}

#[test]
fn no_more_is_in_flight_than_the_quota_allows_and_all_of_it_ends() {
    for order in [Order::Fair, Order::RoundRobin, Order::Age] {
        let mut world = with_quota(order, steps(5), &[MANY]);
        let runs = [world.started("many"), world.started("many")];
        let mut most = 0;
        for _ in 0..40 {
            let tasks = std::mem::take(&mut world.offers);
            most = most.max(world.lane.in_flight());
            world.succeeds(&tasks);
            world.go();
        }
        assert_eq!(most, 5, "{order:?}");
        for run in runs {
            assert_eq!(world.status(run), Some(RunStatus::Succeeded), "{order:?}");
        }
    }
}

#[test]
fn cores_of_a_quota_are_counted_and_who_uses_it_is_said() {
    let quota = Quota {
        cpu_millis: Some(9_000),
        ..Quota::default()
    };
    let mut world = with_quota(Order::Fair, quota, &[MANY]);
    let first = world.started("many");
    assert_eq!(world.offers.len(), 4);
    world.pass(1);
    let second = world.started("many");
    assert_eq!(world.offers.len(), 4);
    let why = world.items_wait_for(second);
    assert_eq!(
        why,
        format!("the quota of namespace `default` (9 cores): in flight are 4 of run {first}")
    );
}

#[test]
fn what_starts_nothing_counts_on_no_quota() {
    let noop = "workflow: w\nsteps:\n  a: { noop: }\n  b: { shell: 'true' }\n";
    let mut world = with_quota(Order::Fair, steps(0), &[noop]);
    world.started("w");
    assert_eq!(world.offers.len(), 1);
}

#[test]
fn what_workers_held_before_a_restart_counts() {
    let mut world = with_quota(Order::Fair, steps(2), &[MANY]);
    let run = world.started("many");
    let tasks = std::mem::take(&mut world.offers);
    assert_eq!(tasks.len(), 2);
    world.restart(&[(NEAR, Queues::Others)]);
    let seat = Seat {
        queues: Queues::Others,
        process_window: 100,
        light_window: 0,
        total: TaskResources::ALL,
        share: TaskResources::ALL,
        labels: Labels::default(),
        spot: false,
    };
    let holds = tasks.iter().map(super::sessions::holding).collect();
    world.open(NEAR, seat, holds);
    assert_eq!(world.offers.len(), 0);
    world.succeeds(&tasks[..1]);
    world.go();
    assert_eq!(world.offers.len(), 1);
    assert_eq!(world.status(run), Some(RunStatus::Running));
}

#[test]
fn a_part_of_all_shards_has_a_part_of_the_quota() {
    let quotas = super::super::quotas::Quotas::new(BTreeMap::from([("n".into(), steps(10))]));
    let left = |shards| quotas.allowance("n", shards).unwrap().left.steps;
    let all = usize::from(kapell_model::SHARDS);
    assert_eq!(left(all), Some(10));
    assert_eq!(left(all / 3), Some(4));
    assert_eq!(left(0), Some(0));
    assert_eq!(quotas.allowance("other", all), None);
}
