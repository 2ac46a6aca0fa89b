//! Who may write, and that a commit is whole or not at all.

use kapell_model::{RunStatus, Shard, Time};

use super::{Case, advanced, append, id, row, wrote};
use crate::{Commit, Error, Lease, Store};

pub(super) const CASES: &[Case] = &[
    (
        "acquiring gives greater epochs in the order asked",
        acquiring_gives_greater_epochs,
    ),
    (
        "a stale epoch or seq writes nothing",
        stale_leases_write_nothing,
    ),
    (
        "one stale shard among many writes nothing",
        one_stale_shard_among_many,
    ),
    (
        "a shard nobody acquired cannot be written",
        an_unknown_shard_conflicts,
    ),
    (
        "a commit writes only in the shards it names",
        writes_are_inside_named_shards,
    ),
    ("a commit of bad shape is refused", bad_shapes_are_refused),
    (
        "a refused commit leaves the lease as it was",
        a_refused_commit_changes_nothing,
    ),
    ("every shard can be held", every_shard_can_be_held),
];

fn take(store: &dyn Store, shards: &[u16]) -> Vec<Lease> {
    let shards: Vec<Shard> = shards.iter().copied().map(Shard).collect();
    store.acquire(&shards).expect("shards can be acquired")
}

fn conflict(outcome: crate::Result<()>) -> Shard {
    match outcome {
        Err(Error::Conflict(shard)) => shard,
        other => panic!("expected a conflict, got {other:?}"),
    }
}

fn invalid(outcome: &crate::Result<()>) {
    assert!(
        matches!(outcome, Err(Error::Invalid(_))),
        "expected a refusal, got {outcome:?}"
    );
}

fn acquiring_gives_greater_epochs(store: &dyn Store) {
    let first = take(store, &[9, 4]);
    assert_eq!(
        first.iter().map(|lease| lease.shard.0).collect::<Vec<_>>(),
        [9, 4]
    );
    let second = take(store, &[4]);
    assert!(second[0].epoch > first[1].epoch);
    assert_eq!(second[0].seq, first[1].seq, "acquiring is no commit");
    assert!(take(store, &[]).is_empty());
    assert!(matches!(
        store.acquire(&[Shard(4), Shard(4)]),
        Err(Error::Invalid(_))
    ));
    assert!(matches!(
        store.acquire(&[Shard(4096)]),
        Err(Error::Invalid(_))
    ));
}

fn stale_leases_write_nothing(store: &dyn Store) {
    let run = id(1, 5, 1);
    let held = take(store, &[5])[0];
    let commit = |lease, seq| {
        store.commit(&Commit {
            shards: vec![lease],
            entities: vec![append(run, seq, "x")],
            runs: vec![],
            ..Commit::default()
        })
    };
    commit(held, 1).expect("the holder writes");
    assert_eq!(conflict(commit(held, 2)), Shard(5), "the seq was used");
    assert_eq!(
        conflict(commit(advanced(advanced(held)), 2)),
        Shard(5),
        "a seq from the future"
    );
    commit(advanced(held), 2).expect("the next seq");
    let robbed = advanced(advanced(held));
    let now = take(store, &[5])[0];
    assert_eq!(now.seq, robbed.seq);
    assert_eq!(conflict(commit(robbed, 3)), Shard(5), "another holds it");
    assert_eq!(
        conflict(commit(
            Lease {
                epoch: now.epoch + 1,
                ..now
            },
            3
        )),
        Shard(5)
    );
    commit(now, 3).expect("the new holder goes on");
    let chunks = store.history(&run.into(), 0, 10).expect("history");
    assert_eq!(
        chunks.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(),
        [1, 2, 3]
    );
}

fn one_stale_shard_among_many(store: &dyn Store) {
    let mut shards = take(store, &[1, 2, 3]);
    take(store, &[2]);
    let runs = [id(1, 1, 1), id(1, 2, 2), id(1, 3, 3)];
    let commit = Commit {
        shards: shards.clone(),
        entities: runs.iter().map(|run| append(*run, 1, "x")).collect(),
        runs: runs
            .iter()
            .map(|run| row(*run, "w", RunStatus::Running))
            .collect(),
        ..Commit::default()
    };
    assert_eq!(conflict(store.commit(&commit)), Shard(2));
    for run in runs {
        assert_eq!(store.load(&run.into()).expect("load"), None);
        assert_eq!(store.run(run).expect("run"), None);
    }
    assert_eq!(store.run_counts("default").expect("counts"), []);
    // The others were not advanced.
    shards.remove(1);
    store
        .commit(&Commit {
            shards,
            ..Commit::default()
        })
        .expect("1 and 3 are as they were");
}

fn an_unknown_shard_conflicts(store: &dyn Store) {
    for epoch in [0, 1] {
        let shards = vec![Lease {
            shard: Shard(7),
            epoch,
            seq: 0,
        }];
        assert_eq!(
            conflict(store.commit(&Commit {
                shards,
                ..Commit::default()
            })),
            Shard(7)
        );
    }
}

fn writes_are_inside_named_shards(store: &dyn Store) {
    let shards = take(store, &[1]);
    let outside = id(1, 2, 1);
    invalid(&store.commit(&Commit {
        shards: shards.clone(),
        entities: vec![append(outside, 1, "x")],
        runs: vec![],
        ..Commit::default()
    }));
    invalid(&store.commit(&Commit {
        shards,
        entities: vec![],
        runs: vec![row(outside, "w", RunStatus::Queued)],
        ..Commit::default()
    }));
    assert_eq!(store.load(&outside.into()).expect("load"), None);
}

fn bad_shapes_are_refused(store: &dyn Store) {
    let shards = take(store, &[1, 2]);
    let run = id(1, 1, 1);
    let commit = |entities| Commit {
        shards: shards.clone(),
        entities,
        runs: vec![],
        ..Commit::default()
    };
    let swapped = vec![shards[1], shards[0]];
    invalid(&store.commit(&Commit {
        shards: swapped,
        ..Commit::default()
    }));
    invalid(&store.commit(&Commit {
        shards: vec![shards[0], shards[0]],
        ..Commit::default()
    }));
    invalid(&store.commit(&commit(vec![append(run, 1, "x"), append(run, 2, "y")])));
    invalid(&store.commit(&commit(vec![append(run, 0, "x")])));
    invalid(&store.commit(&commit(vec![append(run, u64::MAX, "x")])));
    let mut forgets = append(run, 1, "x");
    forgets.forget = true;
    invalid(&store.commit(&commit(vec![forgets.clone()])));
    forgets.snapshot = Some(Vec::new());
    forgets.wake_at = Some(Time::ZERO);
    invalid(&store.commit(&commit(vec![forgets])));
    let mut pages = append(run, 1, "x");
    pages.pages = vec![(1, b"a".to_vec()), (1, b"b".to_vec())];
    invalid(&store.commit(&commit(vec![pages])));
    let rows = vec![
        row(run, "w", RunStatus::Queued),
        row(run, "w", RunStatus::Running),
    ];
    invalid(&store.commit(&Commit {
        shards: shards.clone(),
        entities: vec![],
        runs: rows,
        ..Commit::default()
    }));
    assert_eq!(store.load(&run.into()).expect("load"), None);
    store
        .commit(&Commit {
            shards,
            ..Commit::default()
        })
        .expect("nothing was advanced");
}

fn a_refused_commit_changes_nothing(store: &dyn Store) {
    let (run, other) = (id(1, 1, 1), id(1, 1, 2));
    let mut first = append(run, 1, "x");
    first.pages = vec![(4, b"page".to_vec())];
    wrote(store, vec![first], vec![]);
    let shards = take(store, &[1]);
    let mut same_page = append(run, 2, "x");
    same_page.pages = vec![(4, b"other".to_vec())];
    same_page.wake_at = Some(Time(5));
    same_page.snapshot = Some(b"state".to_vec());
    for bad in [append(run, 1, "again"), same_page] {
        invalid(&store.commit(&Commit {
            shards: shards.clone(),
            entities: vec![append(other, 1, "y"), bad],
            runs: vec![row(other, "w", RunStatus::Running)],
            ..Commit::default()
        }));
    }
    assert_eq!(store.load(&other.into()).expect("load"), None);
    assert_eq!(store.run(other).expect("run"), None);
    assert_eq!(
        store.history(&run.into(), 0, 9).expect("history"),
        [(1, b"x".to_vec())]
    );
    assert_eq!(
        store.page(&run.into(), 4).expect("page"),
        Some(b"page".to_vec())
    );
    assert_eq!(store.due(Time(9), None, 9).expect("due"), []);
    store
        .commit(&Commit {
            shards,
            ..Commit::default()
        })
        .expect("the lease is as it was");
}

fn every_shard_can_be_held(store: &dyn Store) {
    let all: Vec<u16> = (0..kapell_model::SHARDS).collect();
    let shards = take(store, &all);
    assert_eq!(shards.len(), all.len());
    store
        .commit(&Commit {
            shards: shards.clone(),
            ..Commit::default()
        })
        .expect("one commit to all");
    let next = shards.into_iter().map(advanced).collect();
    store
        .commit(&Commit {
            shards: next,
            ..Commit::default()
        })
        .expect("and another");
}
