use kapell_model::SessionId;

use super::*;
use crate::run::grant::Offers;
use crate::run::ready::Pick;
use crate::run::room::{Room, Seat};
use crate::run::testing;

const START: Time = Time(1_000_000);

fn begun(steps: &str) -> Run {
    let text = format!("workflow: w\nparams: {{ n: {{ type: int, default: 2 }} }}\n{steps}");
    testing::begun(&text, 2, START)
}

fn startable(run: &Run) -> u64 {
    let all = run.startable_in("default", START);
    all.iter().map(|of| of.attempts).sum()
}

fn grant(run: &mut Run, count: usize) {
    let mut room = Room {
        seats: vec![Seat::unmeasured(SessionId(1), count, count)],
        ..Room::default()
    };
    let mut offers = Offers::default();
    let (granted, _) = run.grant(("default", Pick::All), 1_000, &mut room, START, &mut offers);
    assert_eq!(granted, count);
}

#[test]
fn attempts_are_told_apart_by_what_they_ask_for() {
    let run = begun(
        "steps:\n  \
         a: { shell: x }\n  \
         b: { shell: x }\n  \
         c: { shell: x, resources: { cpu: 1.5, memory: 1Gi, gpu: 2, spot: true, labels: { zone: eu }, custom: { license: 3 } } }\n  \
         d: { noop: }\n  \
         e: { shell: x, resources: { cpu: '${{ params.n }}' } }\n",
    );
    let all = run.startable_in("default", START);
    let plain = Startable {
        attempts: 2,
        ..Startable::default()
    };
    let large = Startable {
        attempts: 1,
        needs: TaskResources {
            cpu_millis: 1_500,
            memory_bytes: 1 << 30,
            gpus: 2,
            custom: [(Arc::from("license"), 3)].into_iter().collect(),
        },
        labels: [(Arc::from("zone"), Arc::from("eu"))].into(),
        spot: true,
        ..Startable::default()
    };
    let light = Startable {
        attempts: 1,
        light: true,
        ..Startable::default()
    };
    let open = Startable {
        attempts: 1,
        open: true,
        ..Startable::default()
    };
    for expected in [&plain, &large, &light, &open] {
        assert!(all.contains(expected), "{expected:?} in {all:?}");
    }
    assert_eq!(all.len(), 4);
}

#[test]
fn what_a_bound_holds_back_could_not_start() {
    let items = "i: [1, 2, 3, 4, 5, 6, 7, 8]";
    let mut run = begun(&format!(
        "steps:\n  f: {{ foreach: {{ {items} }}, shell: x }}\n"
    ));
    assert_eq!(startable(&run), 8);
    grant(&mut run, 3);
    assert_eq!(startable(&run), 5);

    let mut run = begun(&format!(
        "steps:\n  f: {{ foreach: {{ {items}, concurrency: 3 }}, shell: x }}\n"
    ));
    assert_eq!(startable(&run), 3);
    grant(&mut run, 2);
    assert_eq!(startable(&run), 1);
    assert_eq!(run.waiting_in("default").0, 6);

    let mut run = begun(&format!(
        "max_parallelism: 4\nsteps:\n  f: {{ foreach: {{ {items} }}, shell: x }}\n"
    ));
    assert_eq!(startable(&run), 4);
    grant(&mut run, 3);
    assert_eq!(startable(&run), 1);
}

#[test]
fn outside_of_its_quiet_hours_nothing_could_start() {
    // The epoch is at midnight.
    let run = begun(
        "timezone: UTC\nsteps:\n  a: { shell: x, off_peak: { from: \"22:00\", to: \"06:00\" } }\n",
    );
    assert_eq!(startable(&run), 1);
    let noon = Time(12 * 3_600 * 1_000_000);
    assert_eq!(run.startable_in("default", noon), []);
    assert_eq!(run.waiting_in("default").0, 1);
}

#[test]
fn of_too_many_different_needs_only_the_count_is_kept() {
    let mut all = Vec::new();
    for cpu_millis in 1..=2 * NEEDS as u64 {
        let of = Startable {
            attempts: 2,
            needs: TaskResources {
                cpu_millis,
                ..TaskResources::default()
            },
            ..Startable::default()
        };
        of.add(&mut all);
    }
    assert_eq!(all.len(), NEEDS + 1);
    let last = all.last().unwrap();
    assert!(last.open);
    assert_eq!(last.attempts, 2 * NEEDS as u64);
}
