//! A process that commits is killed again and again: what it acknowledged is there, in order and
//! whole.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use kapell_model::{EntityKey, RunId, RunStatus, Shard, Time};
use kapell_store::{Commit, EntityWrite, Order, RunFilter, RunRow, SqliteStore, Store, VersionRow};

const DIRECTORY: &str = "KAPELL_TEST_CRASH_DIRECTORY";
const ROUNDS: u64 = 20;
const ENTITIES: u16 = 4;

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "the child learns from its environment that it is one"
)]
fn acknowledged_commits_survive_a_kill() {
    match std::env::var(DIRECTORY) {
        Ok(directory) => commit_until_killed(Path::new(&directory)),
        Err(_) => kill_again_and_again(),
    }
}

fn kill_again_and_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut there = 0;
    for round in 0..ROUNDS {
        // xorshift: how many acknowledgements to read before the kill.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Every fifth round is long enough for the log to be brought into the database meanwhile.
        let wait_for = 1 + random % 300 + if round % 5 == 4 { 700 } else { 0 };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "acknowledged_commits_survive_a_kill",
                "--exact",
                "--nocapture",
            ])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut acknowledged = there;
        let mut read = 0;
        for line in output.lines() {
            // The test runner of the child says a few words of its own, and a kill can cut a line.
            let Some(seq) = line
                .unwrap()
                .strip_prefix("done ")
                .and_then(|seq| seq.strip_suffix('.')?.parse().ok())
            else {
                continue;
            };
            assert_eq!(seq, acknowledged + 1, "acknowledged out of order");
            acknowledged = seq;
            read += 1;
            if read == wait_for {
                child.kill().unwrap();
            }
        }
        let status = child.wait().unwrap();
        assert!(
            read >= wait_for,
            "round {round}: the child ended by itself: {status}"
        );
        let found = check(directory.path());
        assert!(
            found == acknowledged || found == acknowledged + 1,
            "round {round}: {acknowledged} were acknowledged, {found} are there"
        );
        there = found;
    }
    assert!(there > ROUNDS);
}

fn runs() -> Vec<RunId> {
    (0..ENTITIES)
        .map(|shard| RunId::new(Time(1_000_000), Shard(shard * 1000), 1))
        .collect()
}

fn commit(leases: &[kapell_store::Lease], seq: u64) -> Commit {
    let entity = |(number, run): (u64, RunId)| EntityWrite {
        key: run.into(),
        seq,
        chunk: chunk(number, seq),
        wake_at: Some(Time(i64::try_from(seq).unwrap())),
        snapshot: seq.is_multiple_of(7).then(|| chunk(number + 1, seq)),
        forget: false,
        pages: vec![(u32::try_from(seq).unwrap(), vec![1; 10])],
    };
    Commit {
        shards: leases.to_vec(),
        entities: (0..).zip(runs()).map(entity).collect(),
        runs: runs().into_iter().map(|run| row(run, seq)).collect(),
        documents: vec![(b"\x40last".to_vec(), Some(seq.to_string()))],
        activated: vec![(
            "default".into(),
            "w".into(),
            u32::try_from(seq % 2).unwrap() + 1,
        )],
        ..Commit::default()
    }
}

/// Some are longer than many pages of the database.
fn chunk(number: u64, seq: u64) -> Vec<u8> {
    let length = usize::try_from((seq * 7919 + number * 104_729) % 9_000).unwrap();
    vec![u8::try_from((seq + number) % 251).unwrap(); length + 1]
}

fn row(id: RunId, seq: u64) -> RunRow {
    RunRow {
        id,
        namespace: Arc::from("default"),
        workflow: Arc::from("w"),
        version: 1,
        status: if seq.is_multiple_of(2) {
            RunStatus::Running
        } else {
            RunStatus::Paused
        },
        created_at: Time(0),
        started_at: None,
        ended_at: None,
        parent: None,
        trigger: Arc::from("manual"),
        counts: [seq, 0, 0],
        error: None,
        labels: format!(r#"{{"even":"{}"}}"#, seq.is_multiple_of(2)),
        scheduled_at: None,
        trigger_name: None,
        backfill: None,
    }
}

fn version(hash: &str) -> VersionRow {
    VersionRow {
        namespace: "default".into(),
        workflow: "w".into(),
        version: 0,
        hash: hash.into(),
        spec: "{}".into(),
        source: "".into(),
        bundle: None,
        created_at: Time(0),
        author: "".into(),
    }
}

fn commit_until_killed(directory: &Path) {
    let store = SqliteStore::open(directory).unwrap();
    let shards: Vec<Shard> = runs().into_iter().map(RunId::shard).collect();
    let mut leases = store.acquire(&shards).unwrap();
    for hash in ["one", "two"] {
        store.register(&version(hash)).unwrap();
    }
    let last = last_seq(&store);
    let mut output = std::io::stdout();
    for seq in last + 1.. {
        store.commit(&commit(&leases, seq)).unwrap();
        for lease in &mut leases {
            lease.seq += 1;
        }
        writeln!(output, "done {seq}.").unwrap();
        output.flush().unwrap();
    }
}

fn last_seq(store: &SqliteStore) -> u64 {
    store.run(runs()[0]).unwrap().map_or(0, |row| row.counts[0])
}

/// Checks that every commit up to the last one is there as it was made; returns its number.
fn check(directory: &Path) -> u64 {
    let store = SqliteStore::open(directory).unwrap();
    let last = last_seq(&store);
    for (number, run) in (0..).zip(runs()) {
        let key = EntityKey::from(run);
        let history = store.history(&key, 0, usize::MAX).unwrap();
        let expected = (1..=last).map(|seq| (seq, chunk(number, seq)));
        assert!(
            history.into_iter().eq(expected),
            "a history is not what was committed"
        );
        assert_eq!(store.run(run).unwrap(), (last > 0).then(|| row(run, last)));
        for seq in 1..=last {
            assert!(
                store
                    .page(&key, u32::try_from(seq).unwrap())
                    .unwrap()
                    .is_some()
            );
        }
        let state = store.load(&key).unwrap().and_then(|loaded| loaded.snapshot);
        let snapshot = last / 7 * 7;
        assert_eq!(
            state,
            (snapshot > 0).then(|| (snapshot, chunk(number + 1, snapshot)))
        );
    }
    let documents = store.documents(b"\x40", None, Order::Forward, 9).unwrap();
    let documents: Vec<String> = documents.into_iter().map(|(_, body)| body).collect();
    let workflows = store.list_workflows("default", "", 9).unwrap();
    if last == 0 {
        assert_eq!(documents, [] as [String; 0]);
    } else {
        assert_eq!(documents, [last.to_string()]);
        // Each commit gives the runs another label.
        let even = RunFilter {
            labels: vec![("even".into(), last.is_multiple_of(2).to_string().into())],
            ..RunFilter::default()
        };
        let found = store.list_runs(&even, 99).unwrap();
        assert_eq!(found.len(), usize::from(ENTITIES));
        let active = u32::try_from(last % 2).unwrap() + 1;
        assert_eq!(workflows, [("w".into(), active)]);
    }
    let due = store.due(Time(i64::MAX), None, 100).unwrap();
    assert!(
        due.iter()
            .all(|(at, _)| at.0 == i64::try_from(last).unwrap())
    );
    if last > 0 {
        assert_eq!(due.len(), usize::from(ENTITIES));
        let counts = store.run_counts("default").unwrap();
        assert_eq!(
            counts.iter().map(|(_, _, count)| count).sum::<u64>(),
            u64::from(ENTITIES)
        );
    }
    for lease in store
        .acquire(&runs().into_iter().map(RunId::shard).collect::<Vec<_>>())
        .unwrap()
    {
        assert_eq!(lease.seq, last);
    }
    drop(store);
    let database = rusqlite::Connection::open(directory.join("kapell.db")).unwrap();
    let verdict: String = database
        .query_row("PRAGMA integrity_check", (), |row| row.get(0))
        .unwrap();
    assert_eq!(verdict, "ok");
    last
}
