//! How fast the embedded store is, beside the disk alone. Prints one JSON line for each measurement.
//!
//! `cargo run --release -p kapell-store --example raw -- DIRECTORY [append] [runs] [small] [lists]`
#![allow(clippy::disallowed_methods, reason = "it measures time")]
#![allow(clippy::print_stdout, reason = "it prints what it measured")]
#![allow(clippy::unwrap_used, reason = "a failure ends it")]
#![allow(
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates"
)]

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kapell_model::{EntityKey, RunId, RunStatus, Shard, Time};
use kapell_store::{Commit, EntityWrite, Lease, RunFilter, RunRow, SqliteStore, Store};
use serde_json::json;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let root = PathBuf::from(arguments.next().expect("a directory to work in"));
    let wanted: Vec<String> = arguments.collect();
    let wants = |what: &str| wanted.is_empty() || wanted.iter().any(|name| name == what);
    if wants("small") {
        small(&root.join("small"));
    }
    if wants("append") {
        for events in [1, 10, 100, 1000, 4096, 25_000] {
            append(&root.join("append"), events);
        }
    }
    if wants("runs") {
        for runs in [64, 512, 4096] {
            runs_begin_and_end(&root.join("runs"), runs, 200_000);
        }
    }
    if wants("lists") {
        lists(&root.join("lists"), 1_000_000);
    }
}

fn open(directory: &Path) -> (SqliteStore, Vec<Lease>) {
    let _ = std::fs::remove_dir_all(directory);
    let store = SqliteStore::open(directory).unwrap();
    let shards: Vec<Shard> = (0..kapell_model::SHARDS).map(Shard).collect();
    let leases = store.acquire(&shards).unwrap();
    (store, leases)
}

fn millis(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let place = ((times.len() - 1) as f64 * share).round() as usize;
    (times[place].as_secs_f64() * 1e6).round() / 1e3
}

fn report(name: &str, mut times: Vec<Duration>, each: usize, what: &str) {
    let seconds: f64 = times.iter().map(Duration::as_secs_f64).sum();
    let units = times.len() * each;
    println!(
        "{}",
        json!({
            "name": name, "commits": times.len(), what: units,
            "per_second": (units as f64 / seconds).round(),
            "micros_each": (seconds * 1e9 / units as f64).round() / 1e3,
            "p50_ms": millis(&mut times, 0.5), "p99_ms": millis(&mut times, 0.99), "max_ms": millis(&mut times, 1.0),
        })
    );
}

fn timed<T>(times: &mut Vec<Duration>, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    times.push(start.elapsed());
    done
}

/// What a commit cannot be faster than: a write of two pages and a sync, over blocks that are there.
struct RawDisk(File);

impl RawDisk {
    fn open(directory: &Path) -> Self {
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(directory.join("raw"));
        let mut file = file.unwrap();
        file.write_all(&vec![1; 4 << 20]).unwrap();
        file.sync_all().unwrap();
        Self(file)
    }

    fn write(&mut self, place: u64) {
        self.0
            .seek(SeekFrom::Start(place % 256 * 2 * 8192))
            .unwrap();
        self.0.write_all(&[7; 2 * 8192]).unwrap();
        self.0.sync_data().unwrap();
    }
}

fn entity(key: impl Into<EntityKey>, seq: u64, bytes: usize, wake_at: Option<Time>) -> EntityWrite {
    EntityWrite {
        key: key.into(),
        seq,
        chunk: vec![0x5a; bytes],
        wake_at,
        snapshot: None,
        forget: false,
        pages: vec![],
    }
}

/// Small commits, by turns with the disk alone, so that both meet the same load of the machine.
fn small(directory: &Path) {
    let (store, mut leases) = open(directory);
    let mut raw = RawDisk::open(directory);
    let run = RunId::new(Time(1), Shard(7), 1);
    let (mut times, mut raw_times) = (Vec::new(), Vec::new());
    for seq in 1..=15_000 {
        let commit = Commit {
            shards: vec![leases[7]],
            entities: vec![entity(run, seq, 100, Some(Time::ZERO))],
            runs: vec![],
            ..Commit::default()
        };
        timed(&mut times, || store.commit(&commit).unwrap());
        leases[7].seq += 1;
        timed(&mut raw_times, || raw.write(seq));
    }
    // The first 32 MiB make the log grow; after that it is written over.
    let later = times.split_off(5000);
    report("one entity, 100 bytes, log grows", times, 1, "commits_made");
    report(
        "one entity, 100 bytes, log is written over",
        later,
        1,
        "commits_made",
    );
    report("disk alone, 16 KiB written over", raw_times, 1, "writes");
}

fn append(directory: &Path, events: usize) {
    let (store, mut leases) = open(directory);
    let run = RunId::new(Time(1), Shard(7), 1);
    let mut times = Vec::new();
    for seq in 1..=(2_000_000 / events as u64).clamp(400, 4000) {
        let commit = Commit {
            shards: vec![leases[7]],
            entities: vec![entity(run, seq, events * 40, Some(Time::ZERO))],
            runs: vec![],
            ..Commit::default()
        };
        timed(&mut times, || store.commit(&commit).unwrap());
        leases[7].seq += 1;
    }
    report(
        &format!("one entity, {events} events of 40 bytes a commit"),
        times,
        events,
        "events",
    );
}

fn row(id: RunId, status: RunStatus) -> RunRow {
    RunRow {
        id,
        namespace: Arc::from("default"),
        workflow: Arc::from("orders"),
        version: 1,
        status,
        created_at: Time((id.0 >> 80) as i64 * 1000),
        started_at: Some(Time(2)),
        ended_at: status.ended().then_some(Time((id.0 >> 80) as i64 * 1000)),
        parent: None,
        trigger: Arc::from("manual"),
        counts: [1, 0, 1],
        error: None,
        labels: "{}".to_owned(),
        scheduled_at: None,
        trigger_name: None,
        backfill: None,
    }
}

fn commit_of(
    leases: &mut [Lease],
    ids: &[RunId],
    entities: Vec<EntityWrite>,
    runs: Vec<RunRow>,
) -> Commit {
    let mut shards: Vec<usize> = ids.iter().map(|id| usize::from(id.shard().0)).collect();
    shards.sort_unstable();
    shards.dedup();
    let held = shards.iter().map(|shard| leases[*shard]).collect();
    for shard in shards {
        leases[shard].seq += 1;
    }
    Commit {
        shards: held,
        entities,
        runs,
        ..Commit::default()
    }
}

fn new_ids(batch: usize, runs: usize) -> Vec<RunId> {
    let mut ids: Vec<RunId> = (0..runs)
        .map(|number| {
            let place = (batch * runs + number) as u64;
            let hash = place.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let shard = Shard((hash >> 52) as u16);
            RunId::new(
                Time((1_700_000_000_000_000 + place * 25) as i64),
                shard,
                u128::from(hash),
            )
        })
        .collect();
    ids.sort_unstable();
    ids
}

/// Every run is made in one commit and ends in the next one, with a chunk each time.
fn runs_begin_and_end(directory: &Path, at_once: usize, total: usize) {
    let (store, mut leases) = open(directory);
    let (mut begin, mut end, mut both) = (Vec::new(), Vec::new(), Vec::new());
    for batch in 0..total / at_once {
        let ids = new_ids(batch, at_once);
        let entities = ids
            .iter()
            .map(|id| entity(*id, 1, 250, Some(Time::ZERO)))
            .collect();
        let rows = ids.iter().map(|id| row(*id, RunStatus::Running)).collect();
        let commit = commit_of(&mut leases, &ids, entities, rows);
        timed(&mut begin, || store.commit(&commit).unwrap());
        let entities = ids.iter().map(|id| entity(*id, 2, 120, None)).collect();
        let rows = ids
            .iter()
            .map(|id| row(*id, RunStatus::Succeeded))
            .collect();
        let commit = commit_of(&mut leases, &ids, entities, rows);
        timed(&mut end, || store.commit(&commit).unwrap());
        both.push(begin[batch] + end[batch]);
    }
    report(
        &format!("{at_once} runs begin in a commit"),
        begin,
        at_once,
        "runs",
    );
    report(
        &format!("{at_once} runs end in a commit"),
        end,
        at_once,
        "runs",
    );
    report(
        &format!("{at_once} runs begin and end"),
        both,
        at_once,
        "runs",
    );
    let bytes = std::fs::metadata(directory.join("kapell.db"))
        .unwrap()
        .len();
    println!(
        "{}",
        json!({"name": "database", "bytes": bytes, "bytes_a_run": bytes / total as u64})
    );
}

#[expect(clippy::too_many_lines, reason = "a list of measurements")]
fn lists(directory: &Path, total: usize) {
    let (store, mut leases) = open(directory);
    for batch in 0..total / 4000 {
        let ids = new_ids(batch, 4000);
        let rows = (0..).zip(&ids).map(|(place, id): (usize, _)| RunRow {
            workflow: Arc::from(format!("w{}", (place * 31 + batch) % 200)),
            parent: place.is_multiple_of(10).then_some(RunId(1)),
            labels: format!(r#"{{"team":"t{}","env":"prod"}}"#, place % 97),
            trigger: Arc::from(["manual", "schedule"][place % 2]),
            trigger_name: (place % 2 == 1).then(|| Arc::from(["nightly", "hourly"][place / 2 % 2])),
            error: id
                .0
                .is_multiple_of(50)
                .then(|| format!("step: broke by {}", place % 50)),
            ..row(
                *id,
                if id.0.is_multiple_of(50) {
                    RunStatus::Failed
                } else {
                    RunStatus::Succeeded
                },
            )
        });
        let rows = rows.collect();
        let commit = commit_of(&mut leases, &ids, vec![], rows);
        store.commit(&commit).unwrap();
    }
    let middle = new_ids(total / 8000, 4000)[0];
    let (namespace, workflow) = (Some(Arc::from("default")), Some(Arc::from("w7")));
    let failed = vec![RunStatus::Failed];
    let all = RunFilter::default();
    let filters = [
        ("newest of all", all.clone()),
        (
            "of a namespace",
            RunFilter {
                namespace: namespace.clone(),
                ..all.clone()
            },
        ),
        (
            "of a namespace, failed",
            RunFilter {
                namespace: namespace.clone(),
                statuses: failed.clone(),
                ..all.clone()
            },
        ),
        (
            "of a workflow",
            RunFilter {
                namespace: namespace.clone(),
                workflow: workflow.clone(),
                ..all.clone()
            },
        ),
        (
            "of a workflow, failed",
            RunFilter {
                namespace,
                workflow,
                statuses: failed.clone(),
                ..all.clone()
            },
        ),
        (
            "by label",
            RunFilter {
                namespace: Some(Arc::from("default")),
                labels: vec![(Arc::from("team"), Arc::from("t7"))],
                ..all.clone()
            },
        ),
        (
            "by label that all have, of a workflow, failed",
            RunFilter {
                workflow: Some(Arc::from("w7")),
                namespace: Some(Arc::from("default")),
                labels: vec![(Arc::from("env"), Arc::from("prod"))],
                statuses: vec![RunStatus::Failed],
                ..all.clone()
            },
        ),
        (
            "by trigger",
            RunFilter {
                trigger: Some(Arc::from("nightly")),
                ..all.clone()
            },
        ),
        (
            "by text of the error",
            RunFilter {
                error: Some(Arc::from("broke by 1")),
                ..all.clone()
            },
        ),
        (
            "of a parent, failed",
            RunFilter {
                parent: Some(RunId(1)),
                statuses: failed,
                ..all
            },
        ),
    ];
    for (name, filter) in filters {
        for (place, before) in [("first page", None), ("a page in the middle", Some(middle))] {
            let filter = RunFilter {
                before: before.map(Into::into),
                ..filter.clone()
            };
            let mut times = Vec::new();
            for _ in 0..20 {
                assert_eq!(
                    timed(&mut times, || store.list_runs(&filter, 50).unwrap()).len(),
                    50
                );
            }
            report(&format!("list {name}, {place}"), times, 50, "rows");
        }
    }
    let text = middle.to_string();
    let mut times = Vec::new();
    timed(&mut times, || store.find_runs(&text[18..], 5).unwrap());
    timed(&mut times, || store.run_counts("default").unwrap());
    timed(&mut times, || {
        store.expired_runs(None, Time(i64::MAX), 1000).unwrap()
    });
    timed(&mut times, || store.tidy().unwrap());
    let times: Vec<f64> = times
        .iter()
        .map(|time| (time.as_secs_f64() * 1e5).round() / 1e2)
        .collect();
    println!(
        "{}",
        json!({"name": "find, counts, expired, tidy", "ms": times})
    );
}
