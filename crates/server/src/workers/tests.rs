use std::path::Path;

use kapell_api::task::{NoBlobs, Process, SecretText, TaskResources, TextPart, Work};
use kapell_api::worker::{Holding, PROTOCOL, Queues, encode, proto};
use kapell_node::drive::Workers as _;
use kapell_store::MemoryStore;

use super::opening::{From, Opened};
use super::*;

/// A process of a server over a store that outlives it. The node is prepared, and not started.
fn open(store: &Arc<dyn Store>, lease: Duration) -> Arc<Workers> {
    open_with(store, lease, Path::new("/nowhere"), Arc::new(NoBlobs))
}

fn open_with(
    store: &Arc<dyn Store>,
    lease: Duration,
    data_dir: &Path,
    blobs: Arc<dyn Blobs>,
) -> Arc<Workers> {
    let settings = Settings {
        own: OwnQueues::NeverNamed,
        lease,
        secrets: Box::new(|namespace, name| Some(format!("{namespace}'s {name}"))),
        hire: None,
    };
    let node = kapell_node::drive::Node::prepare().node();
    Workers::open(data_dir, (node, None), Arc::clone(store), blobs, settings).unwrap()
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

impl Workers {
    /// A worker of another process says hello.
    fn meet(&self, hello: proto::Hello) -> Result<Opened, Error> {
        self.hello(hello, From::Outside)
    }
}

const LEASE: Duration = Duration::from_secs(30);

fn hello() -> proto::Hello {
    proto::Hello {
        protocol: PROTOCOL,
        name: "a".to_owned(),
        queues: vec!["far".to_owned()],
        slots: 2,
        ..proto::Hello::default()
    }
}

fn again(session: SessionId) -> proto::Hello {
    proto::Hello {
        session: session.0,
        same_process: true,
        ..hello()
    }
}

fn task(session: SessionId, counter: u64) -> Task {
    let secret = SecretText(vec![TextPart::Secret("TOKEN".into())]);
    let process = Process {
        path: "step".into(),
        namespace: "default".into(),
        workflow: "w".into(),
        with: kapell_api::task::Input::default(),
        env: vec![("A".into(), Some(secret))],
        idempotency_key: "key".into(),
        timeout: None,
        grace: Duration::ZERO,
        resources: TaskResources::default(),
        output_file: None,
        artifacts_in: Vec::new(),
        artifacts_out: Vec::new(),
        bundle: None,
    };
    Task {
        offer: Offer { epoch: 1, counter },
        session,
        queue: "far".into(),
        run: RunId(5),
        place: Place::default(),
        attempt: 1,
        alone: false,
        work: Work::Exec {
            argv: vec!["true".to_owned()],
            process: Box::new(process),
        },
    }
}

fn name(task: &Task) -> Name {
    (task.run, task.place, task.offer)
}

fn tasks(opened: &mut Opened) -> Vec<u64> {
    let mut batches = Vec::new();
    while let Ok(message) = opened.end.messages.try_recv() {
        if let ToWorker::Tasks(batch, _) = message {
            batches.push(batch);
        }
    }
    batches
}

#[test]
fn a_hello_that_makes_no_sense_is_refused() {
    let workers = open(&memory(), LEASE);
    let hellos = [
        proto::Hello {
            protocol: 99,
            ..hello()
        },
        proto::Hello {
            name: String::new(),
            ..hello()
        },
        proto::Hello {
            slots: 0,
            ..hello()
        },
        proto::Hello {
            queues: vec![String::new()],
            ..hello()
        },
        proto::Hello {
            queues: vec!["q".to_owned(); 100],
            ..hello()
        },
    ];
    for hello in hellos {
        let refused = workers.meet(hello).unwrap_err();
        assert_eq!(refused.code, ErrorCode::BadRequest, "{refused}");
    }
    assert_eq!(workers.list().len(), 0);
}

#[test]
fn a_worker_that_comes_again_goes_on_with_its_session_and_what_did_not_arrive() {
    let workers = open(&memory(), LEASE);
    let mut first = workers.meet(hello()).unwrap();
    let task = task(first.session, 1);
    workers.offer(vec![task.clone()]);
    assert_eq!(tasks(&mut first), [1]);
    workers.hung_up(first.session, first.link);
    assert!(!workers.list()[0].connected);
    let mut second = workers.meet(again(first.session)).unwrap();
    assert!(second.resumed);
    assert_eq!(second.session, first.session);
    assert_eq!(tasks(&mut second), [1], "it is on its way again");
    // The connection before says nothing for this one any more.
    workers.hung_up(first.session, first.link);
    let view = &workers.list()[0];
    assert!(view.connected);
    assert_eq!((view.count, &*view.attempts[0].step), (1, "step"));
    workers.taken(&[name(&task)]);
    assert_eq!(workers.list()[0].count, 0);
}

#[test]
fn a_hello_that_comes_after_a_later_one_says_nothing() {
    let workers = open(&memory(), LEASE);
    let said = |number: u64, hello: proto::Hello| proto::Hello { number, ..hello };
    let first = workers.meet(said(1, hello())).unwrap();
    let task = task(first.session, 1);
    // Its second hello stays on the way; with the third the worker has the task, and says so.
    let late = said(2, again(first.session));
    workers.offer(vec![task.clone()]);
    let holding = Holding {
        run: task.run,
        place: task.place,
        offer: task.offer,
        attempt: 1,
        light: false,
        needs: TaskResources::default(),
    };
    let newer = proto::Hello {
        received: 1,
        holds: vec![encode::holding(&holding, "step", "w", "far")],
        ..again(first.session)
    };
    let third = workers.meet(said(3, newer)).unwrap();
    assert!(third.resumed);
    let refused = workers.meet(late).unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotAllowedNow);
    let view = &workers.list()[0];
    assert!(view.connected, "the newer connection stays");
    assert_eq!(view.count, 1);
    let heard = workers.heard(first.session, third.link, proto::FromWorker::default());
    assert!(heard.unwrap(), "and is heard");
    // Of a worker that does not count, the last to come is the newest.
    assert!(workers.meet(again(first.session)).unwrap().resumed);
}

#[test]
fn another_process_of_a_worker_gets_another_session() {
    let workers = open(&memory(), LEASE);
    let first = workers.meet(hello()).unwrap();
    workers.offer(vec![task(first.session, 1)]);
    let second = workers
        .meet(proto::Hello {
            same_process: false,
            ..again(first.session)
        })
        .unwrap();
    assert!(!second.resumed);
    assert_ne!(second.session, first.session);
    let views = workers.list();
    assert_eq!((views.len(), views[0].count), (1, 0));
}

#[test]
fn sessions_outlive_the_process_of_the_server() {
    let store = memory();
    let first = open(&store, LEASE).meet(hello()).unwrap();
    let workers = open(&store, LEASE);
    let views = workers.list();
    assert_eq!(views.len(), 1);
    assert!(!views[0].connected);
    let second = workers.meet(again(first.session)).unwrap();
    assert!(second.resumed);
    assert_eq!(workers.list()[0].opened_at, views[0].opened_at);
}

#[test]
fn a_session_that_is_not_heard_of_for_its_lease_is_over() {
    let store = memory();
    let workers = open(&store, Duration::ZERO);
    let first = workers.meet(hello()).unwrap();
    workers.look_at_leases();
    assert_eq!(workers.list().len(), 0);
    assert_eq!(stored::read(&*store).unwrap().len(), 0);
    assert!(!workers.meet(again(first.session)).unwrap().resumed);
}

#[test]
fn a_secret_is_given_to_who_holds_an_attempt_that_names_it() {
    let workers = open(&memory(), LEASE);
    let opened = workers.meet(hello()).unwrap();
    let task = task(opened.session, 1);
    workers.offer(vec![task.clone()]);
    let ask = |session, task: &Task, secret: &str| workers.secret(session, &name(task), secret);
    let given = ask(opened.session, &task, "TOKEN").unwrap();
    assert_eq!(given.as_deref(), Some("default's TOKEN"));
    assert!(ask(opened.session, &task, "OTHER").is_err());
    assert!(ask(SessionId(1), &task, "TOKEN").is_err());
    workers.taken(&[name(&task)]);
    assert!(ask(opened.session, &task, "TOKEN").is_err());
}

#[test]
fn a_worker_that_does_not_read_loses_its_connection() {
    let workers = open(&memory(), LEASE);
    let opened = workers.meet(hello()).unwrap();
    for counter in 0..=limits::SESSION_OUTBOX as u64 {
        workers.offer(vec![task(opened.session, counter)]);
    }
    assert!(!workers.list()[0].connected);
}

#[test]
fn a_worker_is_let_go_by_its_name_session_or_pool() {
    let workers = open(&memory(), LEASE);
    let hello = proto::Hello {
        pool: "p".to_owned(),
        ..hello()
    };
    let mut opened = workers.meet(hello).unwrap();
    let named = |name: &str| Whom::Worker(name.to_owned());
    assert!(workers.drain(&named("b"), LEASE).is_empty());
    let session = opened.session.to_string();
    for whom in [named("a"), named(&session), Whom::Pool("p".to_owned())] {
        assert!(workers.drain(&whom, LEASE)[0].draining);
        let said = opened.end.messages.try_recv();
        assert!(matches!(said, Ok(ToWorker::Drain(LEASE))));
    }
}

/// Threads of the loop that serves in the tests of contents: fewer than contents that stall.
const THREADS: usize = 2;

fn serving() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .max_blocking_threads(THREADS)
        .build()
        .unwrap()
}

/// Workers with files, and the blobs.
fn with_files() -> (tempfile::TempDir, Arc<Workers>, Arc<dyn Blobs>) {
    let folder = tempfile::tempdir().unwrap();
    let files = kapell_store::FileBlobs::open(folder.path()).unwrap();
    let blobs: Arc<dyn Blobs> = Arc::new(kapell_node::BlobFolder(files));
    let workers = open_with(&memory(), LEASE, folder.path(), Arc::clone(&blobs));
    (folder, workers, blobs)
}

/// True if a thread is free for what is to be done at once, as every request needs one.
async fn answers() -> bool {
    let asked = tokio::task::spawn_blocking(|| ());
    tokio::time::timeout(Duration::from_secs(1), asked)
        .await
        .is_ok_and(|done| done.is_ok())
}

fn passing(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("passing")).unwrap().count()
}

#[test]
fn contents_that_nobody_reads_hold_no_thread_and_are_given_up() {
    use futures_util::StreamExt as _;
    let (folder, workers, blobs) = with_files();
    let blob = blobs.put(&vec![7; 4 << 20]).unwrap();
    serving().block_on(async {
        let sessions: Vec<SessionId> = (0..3)
            .map(|_| workers.meet(hello()).unwrap().session)
            .collect();
        let mut unread = Vec::new();
        for session in sessions {
            for _ in 0..limits::SESSION_CONTENTS {
                let place = workers.content_place(session).await.unwrap();
                unread.push(workers.fetch(blob.clone(), place));
            }
            // One more of this session waits for a place, and does not wait for ever.
            let refused = workers.content_place(session).await.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
            assert!(answers().await, "no thread is free");
        }
        // Those whose time is over gave their places back; what reads gets all of it.
        let session = workers.meet(hello()).unwrap().session;
        let place = workers.content_place(session).await.unwrap();
        let mut parts = workers.fetch(blob.clone(), place);
        let mut size = 0;
        while let Some(part) = parts.next().await {
            size += part.unwrap().bytes.len() as u64;
        }
        assert_eq!(size, blob.size);
        tokio::time::sleep(2 * crate::contents::PATIENCE).await;
        assert!(answers().await);
        assert_eq!(passing(folder.path()), 0);
        assert_eq!(workers.contents.available_permits(), limits::CONTENTS);
    });
}

fn part(session: SessionId, bytes: &[u8]) -> proto::NewBlob {
    proto::NewBlob {
        session: session.0,
        bytes: bytes.to_vec(),
        value: false,
    }
}

#[test]
fn contents_that_stop_half_way_hold_no_thread_and_nothing_of_them_is_kept() {
    use futures_util::{FutureExt, stream};
    let (folder, workers, _) = with_files();
    serving().block_on(async {
        let session = workers.meet(hello()).unwrap().session;
        let mut sending = tokio::task::JoinSet::new();
        for _ in 0..limits::SESSION_CONTENTS {
            let workers = Arc::clone(&workers);
            sending.spawn(async move {
                let never = stream::pending();
                workers.keep(part(session, b"half"), never).await
            });
        }
        assert!(answers().await, "no thread is free");
        assert!(sending.join_next().now_or_never().is_none());
        while let Some(given_up) = sending.join_next().await {
            let status = given_up.unwrap().unwrap_err();
            assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "{status}");
        }
        assert_eq!(passing(folder.path()), 0);
    });
}

#[test]
fn an_empty_part_of_a_content_ends_nothing() {
    use futures_util::stream;
    let (_folder, workers, blobs) = with_files();
    serving().block_on(async {
        let session = workers.meet(hello()).unwrap().session;
        let parts = [&b"one"[..], b"", b"two"].map(|bytes| Ok(part(session, bytes)));
        let first = part(session, b"");
        let kept = workers.keep(first, stream::iter(parts)).await.unwrap();
        assert_eq!(blobs.get(&kept, 100).unwrap(), b"onetwo");
        let failed = [
            Ok(part(session, b"half")),
            Err(tonic::Status::cancelled("gone")),
        ];
        let torn = workers
            .keep(part(session, b""), stream::iter(failed))
            .await
            .unwrap_err();
        assert_eq!(torn.code(), tonic::Code::Cancelled);
    });
}

#[test]
fn queues_that_workers_named_are_remembered() {
    let store = memory();
    assert!(open(&store, LEASE).named.lock().is_empty());
    let named = |names: &[&str]| proto::Hello {
        queues: names.iter().map(|name| (*name).to_owned()).collect(),
        ..hello()
    };
    let workers = open(&store, LEASE);
    workers.meet(named(&["far"])).unwrap();
    workers.meet(named(&["far", "gpu"])).unwrap();
    workers.meet(named(&[])).unwrap();
    let all: BTreeSet<Arc<str>> = ["far", "gpu"].map(Arc::from).into();
    assert_eq!(*open(&store, LEASE).named.lock(), all);
}

/// The worker inside a process says hello, with what the one before held.
fn hello_inside(lost: &[&Task]) -> proto::Hello {
    let lost = lost.iter().map(|task| proto::LostAttempt {
        attempt: Some(encode::attempt(task.run, task.place, task.offer)),
        explained: false,
    });
    proto::Hello {
        queues: Vec::new(),
        lost: lost.collect(),
        ..hello()
    }
}

fn open_with_worker(store: &Arc<dyn Store>, lease: Duration) -> Arc<Workers> {
    let settings = Settings {
        own: OwnQueues::NeverNamed,
        lease,
        // The tests speak for it.
        hire: Some(Box::new(|_, _, _| Ok(Box::new(|_| {})))),
        ..Settings::default()
    };
    let node = kapell_node::drive::Node::prepare().node();
    let nowhere = Path::new("/nowhere");
    Workers::open(
        nowhere,
        (node, None),
        Arc::clone(store),
        Arc::new(NoBlobs),
        settings,
    )
    .unwrap()
}

#[test]
fn the_worker_inside_has_no_lease() {
    let workers = open_with_worker(&memory(), Duration::ZERO);
    let opened = workers.hello(hello_inside(&[]), From::Inside).unwrap();
    assert_eq!(opened.lease, None);
    workers.look_at_leases();
    let views = workers.list();
    assert_eq!((views.len(), views[0].inside), (1, true));
    assert_eq!(views[0].queues, [] as [&str; 0]);
}

#[test]
fn the_worker_inside_follows_that_of_the_process_before() {
    let store = memory();
    let first = open_with_worker(&store, LEASE);
    let before = first
        .hello(hello_inside(&[]), From::Inside)
        .unwrap()
        .session;
    let far = first.meet(hello()).unwrap().session;
    let held = task(before, 1);
    first.offer(vec![held.clone()]);
    // A process that does no work leaves it to the next one.
    assert_eq!(open(&store, LEASE).list().len(), 1);
    let second = open_with_worker(&store, LEASE);
    assert_eq!(second.list().len(), 2);
    // Also if the name of that session was lost with it.
    let opened = second.hello(hello_inside(&[&held]), From::Inside).unwrap();
    assert!(!opened.resumed);
    let mut ids: Vec<String> = second.list().into_iter().map(|view| view.session).collect();
    let mut expected = [opened.session.to_string(), far.to_string()];
    ids.sort_unstable();
    expected.sort_unstable();
    assert_eq!(ids, expected, "that of the other process stays");
    assert_eq!(stored::read(&*store).unwrap().len(), 2);
}

#[test]
fn nobody_from_outside_speaks_for_the_worker_inside() {
    let workers = open_with_worker(&memory(), LEASE);
    let inside = workers.hello(hello_inside(&[]), From::Inside).unwrap();
    let session = inside.session;
    let resumes = workers.meet(again(session)).unwrap();
    assert!(!resumes.resumed);
    assert_ne!(resumes.session, session);
    let follows = proto::Hello {
        same_process: false,
        ..again(session)
    };
    workers.meet(follows).unwrap();
    let views = workers.list();
    assert_eq!(views.len(), 3);
    let of = views
        .iter()
        .find(|view| view.session == session.to_string());
    assert!(of.is_some_and(|view| view.inside && view.connected));
}

#[test]
fn the_worker_inside_is_let_in_beside_as_many_as_there_may_be() {
    let store = memory();
    let workers = open_with_worker(&store, LEASE);
    for _ in 0..limits::SESSIONS {
        workers.meet(hello()).unwrap();
    }
    let refused = workers.meet(hello()).unwrap_err();
    assert_eq!(refused.code, ErrorCode::LimitReached);
    workers.hello(hello_inside(&[]), From::Inside).unwrap();
    assert_eq!(stored::read(&*store).unwrap().len(), limits::SESSIONS + 1);
}

#[test]
fn what_a_worker_has_is_taken_of_what_it_can() {
    let workers = open(&memory(), LEASE);
    let hello = proto::Hello {
        pool: "p".to_owned(),
        capacity: Some(encode::resources(&TaskResources {
            cpu_millis: 4_000,
            ..TaskResources::default()
        })),
        ..hello()
    };
    let opened = workers.meet(hello).unwrap();
    for counter in 1..=3 {
        let mut task = task(opened.session, counter);
        if let Work::Exec { process, .. } = &mut task.work {
            process.resources.cpu_millis = 500;
        }
        workers.offer(vec![task]);
    }
    let view = &workers.list()[0];
    assert_eq!(view.pool.as_deref(), Some("p"));
    // What it was given beyond its slots waits at it.
    assert_eq!((view.count, view.slots, view.free_slots), (3, 2, 0));
    assert_eq!(view.free.cpu_millis, 2_500);
    assert!(view.waste.is_none());
}

#[test]
fn the_rows_of_more_sessions_than_one_node_has_are_all_read() {
    let store = memory();
    let about = About {
        hello: 0,
        name: "a".to_owned(),
        version: String::new(),
        labels: BTreeMap::new(),
        queues: Queues::Others,
        capacity: TaskResources::default(),
        slots: 1,
        runtimes: Vec::new(),
        opened_at: Time(1),
        inside: false,
        home: kapell_model::NodeId(7),
        spot: false,
        pool: None,
    };
    let many = 2 * limits::SESSIONS as u64 + 1;
    for id in 1..=many {
        stored::write(&*store, SessionId(id), &about).unwrap();
    }
    let read = stored::read(&*store).unwrap();
    let ids: Vec<u64> = read.iter().map(|(id, _)| id.0).collect();
    assert_eq!(ids, (1..=many).collect::<Vec<_>>());
}
