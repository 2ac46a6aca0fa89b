//! Owners that are stopped, cut off and late.

use super::proxy::{Mode, Proxy};
use super::*;
use crate::EntityWrite;

fn run(shard: u16) -> RunId {
    RunId::new(Time(1_000), Shard(shard), u128::from(shard))
}

fn append(shard: u16, seq: u64, chunk: &str) -> EntityWrite {
    EntityWrite {
        key: run(shard).into(),
        seq,
        chunk: chunk.into(),
        wake_at: None,
        snapshot: None,
        forget: false,
        pages: Vec::new(),
    }
}

fn commit(lease: Lease, seq: u64, chunk: &str) -> Commit {
    Commit {
        shards: vec![lease],
        entities: vec![append(lease.shard.0, seq, chunk)],
        ..Commit::default()
    }
}

fn next(lease: Lease) -> Lease {
    Lease {
        seq: lease.seq + 1,
        ..lease
    }
}

fn chunks(store: &PostgresStore, shard: u16) -> Vec<String> {
    let history = store.history(&run(shard).into(), 0, 99).unwrap();
    let chunk = |(_, chunk): (u64, Vec<u8>)| String::from_utf8(chunk).unwrap();
    history.into_iter().map(chunk).collect()
}

#[test]
fn a_writer_that_stopped_in_its_transaction_is_taken_over() {
    let Some((schema, store)) = new() else {
        return;
    };
    let held = store.acquire(&[Shard(4), Shard(5)]).unwrap();
    // A writer as ours never is: it holds what it locked while it says nothing.
    let mut stopped = connector(schema.url()).unwrap().connect().unwrap();
    stopped
        .run("BEGIN; UPDATE shards SET seq = seq + 1 WHERE id = 5; INSERT INTO history VALUES (0, 'x', 1, 'x')")
        .unwrap();
    let taken = store.acquire(&[Shard(5), Shard(4)]).unwrap();
    assert_eq!(taken[0].seq, held[1].seq, "what was not committed is gone");
    assert_eq!(taken[1].epoch, held[0].epoch + 1);
    assert!(stopped.run("COMMIT").is_err(), "it can write no more");
    assert_eq!(schema.run("SELECT 1 FROM history").unwrap(), [""; 0]);
    let late = store.commit(&commit(held[1], 1, "late"));
    assert!(matches!(late, Err(Error::Conflict(Shard(5)))), "{late:?}");
    store.commit(&commit(taken[0], 1, "new")).unwrap();
    assert_eq!(chunks(&store, 5), ["new"]);
}

#[test]
fn a_commit_whose_answer_was_lost_has_landed_and_is_seen_by_who_acquires() {
    let Some((schema, store)) = new() else {
        return;
    };
    let proxy = Proxy::start(schema.url());
    let far = PostgresStore::open(&proxy.url(schema.url())).unwrap();
    let held = far.acquire(&[Shard(7)]).unwrap()[0];
    far.commit(&commit(held, 1, "one")).unwrap();
    proxy.set(Mode::LoseAnswer);
    let lost = far.commit(&commit(next(held), 2, "two"));
    assert!(matches!(lost, Err(Error::Unavailable(_))), "{lost:?}");
    proxy.set(Mode::Pass);
    let again = far.acquire(&[Shard(7)]).unwrap()[0];
    assert_eq!(again.seq, held.seq + 2, "it had landed");
    assert_eq!(chunks(&far, 7), ["one", "two"]);
    let old = far.commit(&commit(next(next(held)), 3, "old"));
    assert!(matches!(old, Err(Error::Conflict(Shard(7)))), "{old:?}");
    far.commit(&commit(again, 3, "three")).unwrap();
    assert_eq!(chunks(&store, 7), ["one", "two", "three"]);
}

#[test]
fn a_commit_that_lands_after_the_takeover_changes_nothing() {
    let Some((schema, store)) = new() else {
        return;
    };
    let proxy = Proxy::start(schema.url());
    let far = PostgresStore::open(&proxy.url(schema.url())).unwrap();
    let held = far.acquire(&[Shard(7), Shard(9)]).unwrap();
    let both = |leases: &[Lease], seq, chunk: &str| Commit {
        shards: leases.to_vec(),
        entities: vec![append(7, seq, chunk), append(9, seq, chunk)],
        ..Commit::default()
    };
    far.commit(&both(&held, 1, "one")).unwrap();
    let held: Vec<Lease> = held.into_iter().map(next).collect();
    proxy.set(Mode::Hold);
    let lost = far.commit(&both(&held, 2, "late"));
    assert!(matches!(lost, Err(Error::Unavailable(_))), "{lost:?}");
    // Of the two shards one alone is taken over.
    let taken = store.acquire(&[Shard(9)]).unwrap()[0];
    assert_eq!(taken.seq, held[1].seq, "it has not landed yet");
    proxy.set(Mode::Pass);
    proxy.wait_for_unheard();
    for shard in [7, 9] {
        assert_eq!(chunks(&store, shard), ["one"]);
    }
    store.commit(&commit(taken, 2, "two")).unwrap();
    store.commit(&commit(held[0], 2, "two")).unwrap();
    for shard in [7, 9] {
        assert_eq!(chunks(&store, shard), ["one", "two"]);
    }
}

#[test]
fn one_stale_shard_among_all_writes_nothing() {
    let Some((schema, store)) = new() else {
        return;
    };
    let other = PostgresStore::open(schema.url()).unwrap();
    let all: Vec<Shard> = (0..kapell_model::SHARDS).map(Shard).collect();
    let mut held = store.acquire(&all).unwrap();
    let taken = other.acquire(&[Shard(3_000)]).unwrap()[0];
    let everywhere = |leases: &[Lease]| Commit {
        shards: leases.to_vec(),
        entities: leases
            .iter()
            .map(|lease| append(lease.shard.0, 1, "x"))
            .collect(),
        ..Commit::default()
    };
    let refused = store.commit(&everywhere(&held));
    assert!(
        matches!(refused, Err(Error::Conflict(Shard(3_000)))),
        "{refused:?}"
    );
    assert_eq!(schema.run("SELECT count(*) FROM history").unwrap(), ["0"]);
    assert_eq!(schema.run("SELECT sum(seq) FROM shards").unwrap(), ["0"]);
    held[3_000] = taken;
    store.commit(&everywhere(&held)).unwrap();
    assert_eq!(
        schema.run("SELECT count(*) FROM history").unwrap(),
        ["4096"]
    );
}

#[test]
fn of_owners_that_rob_each_other_one_writes_at_a_time() {
    let Some((schema, store)) = new() else {
        return;
    };
    let shards: Vec<Shard> = (0..40).map(Shard).collect();
    let told: Vec<(u64, String)> = std::thread::scope(|scope| {
        let owners: Vec<_> = (0..3)
            .map(|owner| {
                let (url, shards) = (schema.url(), &shards);
                scope.spawn(move || {
                    let store = PostgresStore::open(url).unwrap();
                    let mut told = Vec::new();
                    while told.len() < 30 {
                        let mut leases = store.acquire(shards).unwrap();
                        // As an owner does: it reads what is there, and goes on from it.
                        let history = store.history(&run(5).into(), 0, usize::MAX).unwrap();
                        let mut seq = history.last().map_or(1, |(seq, _)| seq + 1);
                        loop {
                            let chunk = format!("{owner} at {seq}");
                            let commit = Commit {
                                shards: leases.clone(),
                                entities: vec![append(5, seq, &chunk)],
                                ..Commit::default()
                            };
                            match store.commit(&commit) {
                                Ok(()) => told.push((seq, chunk)),
                                Err(Error::Conflict(_)) => break,
                                Err(other) => panic!("{other}"),
                            }
                            if told.len() >= 30 {
                                break;
                            }
                            seq += 1;
                            leases = leases.into_iter().map(next).collect();
                        }
                    }
                    told
                })
            })
            .collect();
        let told = owners.into_iter().flat_map(|owner| owner.join().unwrap());
        told.collect()
    });
    let mut told = told;
    told.sort_unstable();
    let history = store.history(&run(5).into(), 0, usize::MAX).unwrap();
    let history: Vec<(u64, String)> = history
        .into_iter()
        .map(|(seq, chunk)| (seq, String::from_utf8(chunk).unwrap()))
        .collect();
    assert_eq!(
        history, told,
        "what was acknowledged, all of it and nothing else"
    );
}

#[test]
fn what_breaks_is_connected_anew() {
    let Some((schema, _)) = new() else {
        return;
    };
    let proxy = Proxy::start(schema.url());
    let store = PostgresStore::open(&proxy.url(schema.url())).unwrap();
    let held = store.acquire(&[Shard(1)]).unwrap()[0];
    store.commit(&commit(held, 1, "one")).unwrap();
    assert_eq!(chunks(&store, 1), ["one"]);
    proxy.cut();
    assert_eq!(chunks(&store, 1), ["one"], "reading asks again");
    let outcome = store.commit(&commit(next(held), 2, "two"));
    assert!(
        matches!(outcome, Ok(()) | Err(Error::Unavailable(_))),
        "{outcome:?}"
    );
    let again = store.acquire(&[Shard(1)]).unwrap()[0];
    let there = chunks(&store, 1).len();
    assert_eq!(there, if outcome.is_ok() { 2 } else { 1 });
    let seq = u64::try_from(there).unwrap() + 1;
    store.commit(&commit(again, seq, "next")).unwrap();
}
