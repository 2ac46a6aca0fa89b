//! Upkeep on a real node: what a kept run refers to stays, what only dropped runs referred to goes.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use jiff::SignedDuration;
use kapell_api::task::{Place, Task};
use kapell_engine::Message;
use kapell_engine::run_queue::{Entry, Kept, Rule, RunQueue, Settings};
use kapell_expr::Value;
use kapell_model::spec::{Retention, StrategyMode};
use kapell_model::{EntityKey, Offer, RunId, RunStatus, Shard, Time};
use kapell_node::drive::{Node, Workers};
use kapell_node::upkeep::{GRACE, Upkeep};
use kapell_node::{Answer, BlobFolder, ClientRequest, Config, StartRun, clock};
use kapell_store::testing::TestSchema;
use kapell_store::{
    Commit, EntityWrite, FileBlobs, MemoryStore, PostgresBlobs, PostgresStore, RunFilter, RunRow,
    SqliteStore, Store, VersionRow,
};

const FILE: &str = r#"
workflow: w
retention: { runs: 1 }
params: { word: { type: string } }
steps:
  make: { set: { list: "${{ range(20000).map(n, params.word) }}" } }
"#;

struct Nobody;

impl Workers for Nobody {
    fn offer(&self, _: Vec<Task>) {}
    fn stop(&self, _: &[(RunId, Place, Offer)]) {}
}

/// Starts a run and waits for its end.
fn run(node: &Node, ended: &mpsc::Receiver<RunId>, word: &str) -> RunId {
    let start = StartRun {
        namespace: "default".into(),
        workflow: "w".into(),
        version: None,
        params: Value::map([("word", Value::string(word))]),
        text: false,
        by: "test".to_owned(),
        scheduled_at: None,
        priority: None,
        idempotency_key: None,
    };
    match node.ask_and_wait(ClientRequest::Start(Box::new(start))) {
        Ok(Answer::Started(id)) => {
            while ended.recv_timeout(Duration::from_secs(20)).unwrap() != id {}
            id
        }
        other => panic!("{other:?}"),
    }
}

/// The blob that a run's large value is.
fn blob_of(store: &dyn Store, run: RunId) -> Arc<str> {
    let blobs = store.blobs_of(&run.into(), "", 9).unwrap();
    assert_eq!(blobs.len(), 1, "{blobs:?}");
    blobs[0].clone()
}

/// Steps until one has nothing to do for a while; the time after them.
fn keep_up(upkeep: &mut Upkeep, mut now: Time) {
    for _ in 0..400 {
        let pause = upkeep.step(now).unwrap();
        if pause > SignedDuration::from_mins(5) {
            return;
        }
        now = now.plus(pause);
    }
    panic!("upkeep does not come to an end");
}

#[test]
fn blobs_and_logs_go_with_the_last_run_that_has_them() {
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(directory.path()).unwrap());
    let blobs = FileBlobs::open(directory.path()).unwrap();
    let logs = directory.path().join("logs");
    let spec = kapell_model::parse("w.yaml", FILE)
        .spec
        .expect("a workflow");
    store
        .register(&VersionRow {
            namespace: "default".into(),
            workflow: "w".into(),
            version: 0,
            hash: "1".into(),
            spec: serde_json::to_string(&*spec).unwrap().into(),
            source: FILE.into(),
            bundle: None,
            created_at: Time(0),
            author: "".into(),
        })
        .unwrap();
    let prepared = Node::prepare();
    let node = prepared.node();
    let (ends, ended) = mpsc::channel();
    node.watch(Box::new(move |row| {
        if row.status.ended() {
            let _ = ends.send(row.id);
        }
    }));
    let config = Config {
        alone: true,
        seed: 1,
        idle_micros: 1_000_000,
        keeps: kapell_engine::topic::Keeps::default(),
        dispatch: kapell_node::DispatchSettings::default(),
    };
    let files = Arc::new(BlobFolder(blobs.clone()));
    let threads = prepared
        .start(config, Arc::clone(&store), files, Arc::new(Nobody))
        .unwrap();
    let runs = ["shared", "alone", "shared"].map(|word| run(&node, &ended, word));
    threads.stop();
    let [shared, alone, again] = runs.map(|run| blob_of(&*store, run));
    assert_eq!(shared, again);
    for run in runs {
        fs::create_dir_all(logs.join(run.to_string())).unwrap();
        fs::write(logs.join(run.to_string()).join("a.log"), "hello").unwrap();
    }
    let there = |hash: &str| {
        let path = directory.path().join("blobs").join(&hash[..2]);
        path.join(&hash[2..]).exists()
    };

    // Long after the runs: their blobs are old, and are young again once the runs are let go.
    for hash in [&shared, &alone] {
        let path = directory.path().join("blobs").join(&hash[..2]);
        let file = fs::File::options().write(true).open(path.join(&hash[2..]));
        file.unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    let mut upkeep = Upkeep::new(Arc::clone(&store), Arc::new(blobs), logs.clone(), "default");
    let now = clock::now();
    keep_up(&mut upkeep, now);
    for (place, run) in runs.into_iter().enumerate() {
        let kept = place == 2;
        assert_eq!(store.run(run).unwrap().is_some(), kept);
        assert_eq!(logs.join(run.to_string()).exists(), kept);
    }
    assert!(
        there(&shared) && there(&alone),
        "swept within the time of grace"
    );

    keep_up(&mut upkeep, now.plus(GRACE * 2));
    assert!(there(&shared), "a kept run has lost its output");
    assert!(!there(&alone), "garbage was left");
    assert_eq!(blob_of(&*store, runs[2]), shared);
}

/// A store with ended runs of a workflow: they ended in the order of their numbers, an hour apart.
fn ended_runs(retention: &str) -> Arc<dyn Store> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let text = format!("workflow: w\n{retention}\nsteps: {{ a: {{ noop: }} }}\n");
    let spec = kapell_model::parse("w.yaml", &text)
        .spec
        .expect("a workflow");
    store
        .register(&VersionRow {
            namespace: "default".into(),
            workflow: "w".into(),
            version: 0,
            hash: "1".into(),
            spec: serde_json::to_string(&*spec).unwrap().into(),
            source: text.into(),
            bundle: None,
            created_at: Time(0),
            author: "".into(),
        })
        .unwrap();
    let row = |number: i64| {
        let at = Time::ZERO.plus(SignedDuration::from_hours(number));
        RunRow {
            id: RunId::new(at, Shard(0), 1),
            namespace: "default".into(),
            workflow: "w".into(),
            version: 1,
            status: if number == 0 {
                RunStatus::Running
            } else {
                RunStatus::Succeeded
            },
            created_at: at,
            started_at: None,
            ended_at: (number > 0).then_some(at),
            parent: None,
            trigger: "manual".into(),
            counts: [0; 3],
            error: None,
            labels: "{}".to_owned(),
            scheduled_at: None,
            trigger_name: None,
            backfill: None,
        }
    };
    store
        .commit(&Commit {
            shards: store.acquire(&[Shard(0)]).unwrap(),
            runs: (0..=600).map(row).collect(),
            ..Commit::default()
        })
        .unwrap();
    store
}

/// How many runs are left after the upkeep, 600 hours after the first; the last ones must be those.
fn left(store: &Arc<dyn Store>, retention: Retention) -> usize {
    let directory = tempfile::tempdir().unwrap();
    let blobs = FileBlobs::open(directory.path()).unwrap();
    let logs = directory.path().join("logs");
    let upkeep = Upkeep::new(Arc::clone(store), Arc::new(blobs), logs, "default");
    let now = Time::ZERO.plus(SignedDuration::from_hours(600));
    keep_up(&mut upkeep.keeping(retention), now);
    let rows = store.list_runs(&RunFilter::default(), 1_000).unwrap();
    let counts = store.run_counts("default").unwrap();
    let counted: u64 = counts.iter().map(|(_, _, runs)| runs).sum();
    assert_eq!(counted, rows.len() as u64);
    let (running, ended) = rows.split_last().unwrap();
    assert_eq!(
        running.status,
        RunStatus::Running,
        "what has not ended stays"
    );
    for (place, row) in (0..).zip(ended) {
        let end = Time::ZERO.plus(SignedDuration::from_hours(600 - place));
        assert_eq!(row.ended_at, Some(end), "the last ones stay");
    }
    ended.len()
}

/// Settings of the workflow that keep so many runs.
fn override_runs(store: &Arc<dyn Store>, runs: Option<u32>) {
    let key = EntityKey::RunQueue {
        namespace: "default".into(),
        workflow: "w".into(),
        key: "".into(),
    };
    let settings = Settings {
        active: Some(1),
        retention: Some(Kept {
            runs,
            ..Kept::default()
        }),
        ..Settings::default()
    };
    let body = serde_json::to_string(&settings).unwrap();
    store
        .put_documents(&[(key.to_bytes(), Some(body))])
        .unwrap();
}

#[test]
fn runs_are_kept_as_the_settings_say_then_the_file_then_the_server() {
    let all = Retention::default();
    let hundred = Retention {
        age: None,
        runs: Some(100),
    };
    let store = ended_runs("");
    assert_eq!(left(&store, all), 600);
    assert_eq!(left(&store, hundred), 100, "more than one step drops");
    let store = ended_runs("retention: { runs: 450 }");
    assert_eq!(left(&store, hundred), 450);
    override_runs(&store, None);
    assert_eq!(
        left(&store, hundred),
        450,
        "kept for ever, whatever the file says"
    );
    override_runs(&store, Some(7));
    assert_eq!(left(&store, all), 7);
}

#[test]
fn runs_are_dropped_as_fast_as_a_server_starts_them() {
    let store = ended_runs("retention: { runs: 1 }");
    let directory = tempfile::tempdir().unwrap();
    let blobs = FileBlobs::open(directory.path()).unwrap();
    let logs = directory.path().join("logs");
    let mut upkeep = Upkeep::new(Arc::clone(&store), Arc::new(blobs), logs, "default");
    let begun = Time::ZERO.plus(SignedDuration::from_hours(600));
    let mut now = begun;
    while store.list_runs(&RunFilter::default(), 9).unwrap().len() > 2 {
        now = now.plus(upkeep.step(now).unwrap());
    }
    let took = now.since(begun);
    assert!(took <= SignedDuration::from_millis(120), "600 runs: {took}");
}

#[test]
fn runs_are_kept_by_age_and_by_number_at_once() {
    let store = ended_runs("retention: { age: 47h30m, runs: 200 }");
    assert_eq!(left(&store, Retention::default()), 48, "no older");
    let store = ended_runs("retention: { age: 400h, runs: 200 }");
    assert_eq!(left(&store, Retention::default()), 200);
}

#[test]
fn runs_of_a_workflow_that_is_no_longer_in_force_are_dropped_too() {
    let store = ended_runs("retention: { runs: 3 }");
    store
        .commit(&Commit {
            activated: vec![("default".into(), "w".into(), 0)],
            ..Commit::default()
        })
        .unwrap();
    assert_eq!(left(&store, Retention::default()), 3);
}

#[test]
fn a_run_that_others_wait_for_is_kept_until_it_blocks_no_more() {
    let store = ended_runs("retention: { runs: 100 }");
    let run = |number: i64| {
        let at = Time::ZERO.plus(SignedDuration::from_hours(number));
        RunId::new(at, Shard(0), 1)
    };
    let key = EntityKey::RunQueue {
        namespace: "default".into(),
        workflow: "w".into(),
        key: "".into(),
    };
    let mut queue = RunQueue::default();
    let strict = Entry {
        run: run(7),
        rule: Rule {
            mode: StrategyMode::StrictSequential,
            limit: 1,
            ..Rule::default()
        },
        ..Entry::default()
    };
    let failed = Message::RunEnded {
        run: run(7),
        status: RunStatus::Failed,
        by_person: false,
        success: None,
        blocks: None,
    };
    let mut seq = 0;
    let mut write = |chunk: Vec<u8>| {
        seq += 1;
        let write = EntityWrite {
            key: key.clone(),
            seq,
            chunk,
            wake_at: None,
            forget: false,
            snapshot: None,
            pages: Vec::new(),
        };
        let commit = Commit {
            shards: store.acquire(&[key.shard()]).unwrap(),
            entities: vec![write],
            ..Commit::default()
        };
        store.commit(&commit).unwrap();
    };
    for message in [Message::Enqueue(Box::new(strict)), failed] {
        let decided = queue.decide(Some(&message), Time(1));
        write(kapell_engine::chunk::encode(&decided.events));
    }
    let kept = |store: &Arc<dyn Store>| {
        let directory = tempfile::tempdir().unwrap();
        let blobs = FileBlobs::open(directory.path()).unwrap();
        let logs = directory.path().join("logs");
        let mut upkeep = Upkeep::new(Arc::clone(store), Arc::new(blobs), logs, "default");
        keep_up(
            &mut upkeep,
            Time::ZERO.plus(SignedDuration::from_hours(600)),
        );
        let rows = store.list_runs(&RunFilter::default(), 1_000).unwrap();
        let ended = rows.iter().filter(|row| row.status.ended()).count();
        (ended, rows.iter().any(|row| row.id == run(7)))
    };
    assert_eq!(kept(&store), (101, true));
    let freed = queue.dismiss(run(7), Time(2)).unwrap();
    write(kapell_engine::chunk::encode(&freed.events));
    assert_eq!(kept(&store), (100, false));
}

#[test]
fn the_store_tidies_up_by_itself() {
    let Some(schema) = TestSchema::new() else {
        return;
    };
    let store: Arc<dyn Store> = Arc::new(PostgresStore::open(schema.url()).unwrap());
    let directory = tempfile::tempdir().unwrap();
    let blobs = PostgresBlobs::open(schema.url()).unwrap();
    let logs = directory.path().join("logs");
    let mut upkeep = Upkeep::new(store, Arc::new(blobs), logs, "default");
    // A day of history in which nothing is any more.
    schema
        .run("UPDATE periods SET period = 1; SELECT make_period_1(9)")
        .unwrap();
    let days = || {
        let days = schema.run("SELECT period FROM periods WHERE NOT gone ORDER BY 1");
        days.unwrap()
    };
    assert_eq!(days(), ["9"]);
    upkeep.step(clock::now()).unwrap();
    let after = days();
    assert!(
        after.len() == 1 && after != ["9"],
        "tomorrow alone: {after:?}"
    );
}
