use std::io;
use std::path::Path;

use kapell_api::task::{Process, SecretText, TaskResources, TextPart, Work};
use kapell_api::worker::{PROTOCOL, proto};
use kapell_expr::BlobRef;
use kapell_node::drive::Workers as _;
use kapell_store::MemoryStore;

use super::opening::Opened;
use super::*;

struct NoBlobs;

impl Blobs for NoBlobs {
    fn put(&self, _: &[u8]) -> io::Result<BlobRef> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn put_file(&self, _: &Path) -> io::Result<BlobRef> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn get(&self, _: &BlobRef, _: u64) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn get_file(&self, _: &BlobRef, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// A process of a server over a store that outlives it. The node is prepared, and not started.
fn open(store: &Arc<dyn Store>, lease: Duration) -> Arc<Workers> {
    let settings = Settings {
        lease,
        secrets: Box::new(|namespace, name| Some(format!("{namespace}'s {name}"))),
    };
    let node = kapell_node::drive::Node::prepare().node();
    let data_dir = Path::new("/nowhere");
    Workers::open(
        data_dir,
        node,
        Arc::clone(store),
        Arc::new(NoBlobs),
        settings,
    )
    .unwrap()
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
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
        let refused = workers.hello(hello).unwrap_err();
        assert_eq!(refused.code, ErrorCode::BadRequest, "{refused}");
    }
    assert_eq!(workers.list().len(), 0);
}

#[test]
fn a_worker_that_comes_again_goes_on_with_its_session_and_what_did_not_arrive() {
    let workers = open(&memory(), LEASE);
    let mut first = workers.hello(hello()).unwrap();
    let task = task(first.session, 1);
    workers.offer(vec![task.clone()]);
    assert_eq!(tasks(&mut first), [1]);
    workers.hung_up(first.session, first.link);
    assert!(!workers.list()[0].connected);
    let mut second = workers.hello(again(first.session)).unwrap();
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
fn another_process_of_a_worker_gets_another_session() {
    let workers = open(&memory(), LEASE);
    let first = workers.hello(hello()).unwrap();
    workers.offer(vec![task(first.session, 1)]);
    let second = workers
        .hello(proto::Hello {
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
    let first = open(&store, LEASE).hello(hello()).unwrap();
    let workers = open(&store, LEASE);
    let views = workers.list();
    assert_eq!(views.len(), 1);
    assert!(!views[0].connected);
    let second = workers.hello(again(first.session)).unwrap();
    assert!(second.resumed);
    assert_eq!(workers.list()[0].opened_at, views[0].opened_at);
}

#[test]
fn a_session_that_is_not_heard_of_for_its_lease_is_over() {
    let store = memory();
    let workers = open(&store, Duration::ZERO);
    let first = workers.hello(hello()).unwrap();
    workers.look_at_leases();
    assert_eq!(workers.list().len(), 0);
    assert_eq!(stored::read(&*store).unwrap().len(), 0);
    assert!(!workers.hello(again(first.session)).unwrap().resumed);
}

#[test]
fn a_secret_is_given_to_who_holds_an_attempt_that_names_it() {
    let workers = open(&memory(), LEASE);
    let opened = workers.hello(hello()).unwrap();
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
    let opened = workers.hello(hello()).unwrap();
    for counter in 0..=limits::SESSION_OUTBOX as u64 {
        workers.offer(vec![task(opened.session, counter)]);
    }
    assert!(!workers.list()[0].connected);
}

#[test]
fn a_worker_is_let_go_by_its_name_or_session() {
    let workers = open(&memory(), LEASE);
    let mut opened = workers.hello(hello()).unwrap();
    let nobody = workers.drain("b", LEASE).unwrap_err();
    assert_eq!(nobody.code, ErrorCode::WorkerNotFound);
    for worker in ["a".to_owned(), opened.session.to_string()] {
        assert!(workers.drain(&worker, LEASE).unwrap()[0].draining);
        let said = opened.end.messages.try_recv();
        assert!(matches!(said, Ok(ToWorker::Drain(LEASE))));
    }
}
