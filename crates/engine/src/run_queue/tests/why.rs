//! Why runs wait.

use super::*;

#[test]
fn several_runs_are_told_what_each_of_them_is_told_alone() {
    let mut queue = RunQueue::default();
    let sequential = |limit: u32, quiet: i64| Rule {
        mode: StrategyMode::Sequential,
        limit,
        quiet,
        ..Rule::default()
    };
    for number in 0..12_u128 {
        let entry = Entry {
            run: RunId(number),
            key: ["a", "b", "c"][number as usize % 3].into(),
            rule: if number == 11 {
                sequential(1, 1_000_000)
            } else {
                sequential(1, 0)
            },
            ..Entry::default()
        };
        queue.decide(Some(&Message::Enqueue(Box::new(entry))), Time(1));
    }
    let asked: Vec<RunId> = (0..20).rev().map(RunId).collect();
    let mut found = queue.whys("w", &asked);
    found.sort();
    let alone: Vec<(RunId, String)> = (0..20)
        .map(RunId)
        .filter_map(|run| Some((run, queue.why("w", run)?)))
        .collect();
    assert_eq!(found, alone);
    let waiting: Vec<u128> = found.iter().map(|(run, _)| run.0).collect();
    assert_eq!(
        waiting,
        [3, 4, 5, 6, 7, 8, 9, 10, 11],
        "the first of each key is active"
    );
    assert!(found[8].1.contains("a burst of starts"), "{}", found[8].1);
    assert!(found[6].1.contains("2 waiting before it"), "{}", found[6].1);
}
