//! Two nodes over one store, each with half of the shards, and real links over the loopback between them.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use kapell_api::task::{NoBlobs, Place, Task};
use kapell_engine::Ask;
use kapell_engine::run_queue::Change;
use kapell_engine::topic::Keeps;
use kapell_expr::Value;
use kapell_model::{EntityKey, Offer, RunId, ShardSet, Time};
use kapell_node::drive::{Threads, Workers};
use kapell_node::{Answer, ClientRequest, StartRun};
use kapell_store::testing::half::Half;
use kapell_store::{MemoryStore, VersionRow};
use tonic::Code;

use super::*;
use crate::net::{Listener, Served, Trust};

mod cluster;

struct Nothing;

impl Workers for Nothing {
    fn offer(&self, _: Vec<Task>) {}
    fn stop(&self, _: &[(RunId, Place, Offer)]) {}
}

/// One node with all that connects it.
struct One {
    nodes: Arc<Nodes>,
    node: Node,
    threads: Option<Threads>,
    served: Option<Served>,
    row: NodeRow,
}

impl One {
    /// A node of this store that gets what `others` do not.
    fn new(id: u64, store: &MemoryStore, shards: ShardSet) -> Self {
        let prepared = Node::prepare();
        let node = prepared.node();
        let config = kapell_node::Config {
            alone: true,
            seed: id,
            idle_micros: 60_000_000,
            keeps: Keeps::default(),
            dispatch: kapell_node::DispatchSettings::default(),
        };
        let half = Arc::new(Half::new(Arc::new(store.clone()), shards));
        let threads = prepared
            .start(config, half, Arc::new(NoBlobs), Arc::new(Nothing))
            .unwrap();
        let mut one = Self::of(id, store, node);
        one.threads = Some(threads);
        one
    }

    /// What connects a node, whatever it does.
    fn of(id: u64, store: &MemoryStore, node: Node) -> Self {
        let store = Arc::new(store.clone());
        let nodes = Nodes::start(NodeId(id), store, node.clone(), None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let mut one = Self {
            nodes,
            node,
            threads: None,
            served: None,
            row: NodeRow {
                about: NodeAbout {
                    id: NodeId(id),
                    address,
                    version: "1".to_owned(),
                    leaving: false,
                },
                joined_at: Time(1),
                expires_at: Time(2),
            },
        };
        one.serve(listener);
        one
    }

    fn serve(&mut self, listener: TcpListener) {
        listener.set_nonblocking(true).unwrap();
        let listener = Listener::Tcp(listener, None, Trust::Nobody);
        let router = routes(Arc::clone(&self.nodes));
        self.served = Some(Served::start(listener, router, 1).unwrap());
    }

    /// Nobody reaches it any more.
    fn cut_off(&mut self) {
        self.served.take().unwrap().close();
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.nodes.stop();
        if let Some(served) = self.served.take() {
            served.close();
        }
        if let Some(threads) = self.threads.take() {
            threads.stop();
        }
    }
}

/// Both know each other and own what rendezvous hashing gives them.
fn two() -> (One, One, MemoryStore) {
    let store = MemoryStore::new();
    for number in 0..WORKFLOWS {
        store.register(&version_row(&name(number))).unwrap();
    }
    let about = |id| NodeAbout {
        id: NodeId(id),
        address: String::new(),
        version: String::new(),
        leaving: false,
    };
    let owners = members::owners([about(1), about(2)].iter());
    let of = |id| {
        let shards = (0..SHARDS).map(Shard);
        let own = shards.filter(|shard| owners[usize::from(shard.0)] == Some(NodeId(id)));
        own.collect::<ShardSet>()
    };
    let (one, two) = (One::new(1, &store, of(1)), One::new(2, &store, of(2)));
    for node in [&one, &two] {
        node.nodes.heard(vec![one.row.clone(), two.row.clone()]);
    }
    (one, two, store)
}

const WORKFLOWS: usize = 8;

fn name(number: usize) -> String {
    format!("w{number}")
}

/// A workflow that this node owns.
fn owned_by(node: &One) -> String {
    let mut names = (0..WORKFLOWS).map(name);
    let owned =
        |name: &String| node.nodes.owner(Shard::of_workflow("default", name)) == Owner::Here;
    names.find(owned).unwrap()
}

fn version_row(workflow: &str) -> VersionRow {
    let file = format!("workflow: {workflow}\nsteps:\n  s: {{ shell: 'true' }}\n");
    let spec = kapell_model::parse("w.yaml", &file).spec.unwrap();
    VersionRow {
        namespace: "default".into(),
        workflow: workflow.into(),
        version: 0,
        hash: "0".repeat(64).into(),
        spec: serde_json::to_string(&*spec).unwrap().into(),
        source: file.into(),
        bundle: None,
        created_at: Time(1),
        author: "".into(),
    }
}

fn start(workflow: &str, key: Option<&str>, note: &str) -> ClientRequest {
    ClientRequest::Start(Box::new(StartRun {
        namespace: "default".into(),
        workflow: workflow.into(),
        version: None,
        params: Value::map([] as [(&str, Value); 0]),
        text: false,
        by: note.to_owned(),
        scheduled_at: None,
        priority: None,
        idempotency_key: key.map(str::to_owned),
    }))
}

fn asked(node: &Node, request: ClientRequest) -> Receiver<Result<Answer, Error>> {
    let (send, receive) = mpsc::channel();
    node.ask(
        request,
        Box::new(move |answer| {
            // The test may be over.
            let _ = send.send(answer);
        }),
    );
    receive
}

const PATIENCE: Duration = Duration::from_secs(30);

fn started(answer: &Receiver<Result<Answer, Error>>) -> RunId {
    match answer.recv_timeout(PATIENCE).unwrap() {
        Ok(Answer::Started(run)) => run,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_one_node_is_asked_another_does_over_a_link() {
    let (one, two, _store) = two();
    for (here, there) in [(&one, &two), (&two, &one)] {
        let workflow = owned_by(there);
        let run = started(&asked(&here.node, start(&workflow, None, "me")));
        let view = here.node.ask_and_wait(ClientRequest::View { run });
        assert!(matches!(view, Ok(Answer::View(view)) if view.id == run));
    }
}

#[test]
fn many_asks_share_one_link_and_each_gets_its_answer() {
    let (one, two, _store) = two();
    let workflow = owned_by(&two);
    let key = |number: usize| format!("k{number}");
    let answers: Vec<_> = (0..200)
        .map(|number| asked(&one.node, start(&workflow, Some(&key(number)), "me")))
        .collect();
    let runs: BTreeMap<RunId, usize> = answers
        .iter()
        .enumerate()
        .map(|(number, answer)| (started(answer), number))
        .collect();
    assert_eq!(runs.len(), 200);
    for (run, number) in runs {
        let again = started(&asked(
            &two.node,
            start(&workflow, Some(&key(number)), "me"),
        ));
        assert_eq!(again, run);
    }
}

#[test]
fn a_deploy_over_both_is_answered_once_both_have_it() {
    let (one, two, store) = two();
    let paused = Change {
        paused: Some(Some("me".to_owned())),
        ..Change::default()
    };
    let queue = |workflow: &str| EntityKey::RunQueue {
        namespace: "default".into(),
        workflow: workflow.into(),
        key: "".into(),
    };
    let names = [owned_by(&one), owned_by(&two)];
    let asks = names.iter().map(|name| {
        let change = Ask::Change(Box::new(paused.clone()));
        (queue(name), change)
    });
    let answer = one
        .node
        .ask_and_wait(ClientRequest::AskTogether(asks.collect()));
    assert!(matches!(answer, Ok(Answer::Done)), "{answer:?}");
    assert_eq!(store.mail(&ShardSet::all(), 10).unwrap(), []);
    for name in &names {
        let ask = ClientRequest::Ask {
            key: queue(name),
            ask: Ask::View,
        };
        let view = format!("{:?}", two.node.ask_and_wait(ask));
        assert!(view.contains("paused"), "{view}");
    }
}

#[test]
fn a_node_that_cannot_be_reached_is_asked_again_once_it_can() {
    let (one, mut two, _store) = two();
    let workflow = owned_by(&two);
    started(&asked(&one.node, start(&workflow, None, "me")));
    two.cut_off();
    let answer = asked(&one.node, start(&workflow, Some("k"), "me"));
    let quiet = answer.recv_timeout(Duration::from_millis(300));
    assert!(quiet.is_err(), "nobody can have answered: {quiet:?}");
    // It is at another address now.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    two.row.about.address = format!("http://{}", listener.local_addr().unwrap());
    two.serve(listener);
    one.nodes.heard(vec![one.row.clone(), two.row.clone()]);
    started(&answer);
}

#[test]
fn what_was_asked_when_a_link_ends_is_unknown_at_once() {
    let store = MemoryStore::new();
    let one = One::new(1, &store, ShardSet::default());
    // It takes what it is asked, and never answers.
    let prepared = Node::prepare();
    let mut silent = One::of(2, &store, prepared.node());
    one.nodes.heard(vec![one.row.clone(), silent.row.clone()]);
    let link = one.nodes.link(NodeId(2)).unwrap();
    let ask = || {
        let request = start("w", None, "me");
        let request = kapell_node::request::wire::request_to_bytes(&request).unwrap();
        let (send, receive) = mpsc::channel();
        link.ask(request, Box::new(move |answer| send.send(answer).unwrap()));
        receive
    };
    let answer = ask();
    while silent.node.waiting() == 0 {
        std::thread::yield_now();
    }
    assert!(answer.try_recv().is_err());
    silent.cut_off();
    let answer = answer.recv_timeout(PATIENCE).unwrap();
    assert_eq!(answer, Err(Unanswered::Unknown));
    one.nodes.heard(vec![one.row.clone()]);
    let answer = ask().recv_timeout(PATIENCE).unwrap();
    assert_eq!(answer, Err(Unanswered::NotSent), "the node is gone");
}

#[test]
fn only_who_knows_the_key_of_the_store_is_answered() {
    let (one, two, store) = two();
    let stranger = One::new(3, &MemoryStore::new(), ShardSet::default());
    stranger
        .nodes
        .heard(vec![stranger.row.clone(), two.row.clone()]);
    let link = stranger.nodes.link(NodeId(2)).unwrap();
    let (send, receive) = mpsc::channel();
    link.ask(
        Vec::new(),
        Box::new(move |answer| send.send(answer).unwrap()),
    );
    let answer = receive.recv_timeout(PATIENCE).unwrap();
    assert_eq!(answer, Err(Unanswered::NotSent));
    assert!(!two.nodes.secret.fits(b""));
    assert!(!two.nodes.secret.fits(&[b'0'; 64]));
    let key = one.nodes.secret.read().unwrap();
    assert!(two.nodes.secret.fits(key.as_bytes()));
    // Another node wrote another key last: it counts.
    let other = "7".repeat(64);
    store
        .put_documents(&[(vec![91], Some(other.clone()))])
        .unwrap();
    let fresh = Secret::open(Arc::new(store.clone())).unwrap();
    assert!(fresh.fits(other.as_bytes()));
    assert!(!fresh.fits(key.as_bytes()));
}

#[test]
fn a_stranger_is_unauthenticated_whatever_it_says() {
    let (one, _two, _store) = two();
    let address = one.row.about.address.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for key in [None, Some("wrong")] {
        let status = runtime.block_on(async {
            use kapell_api::client::{HttpServer, Target};
            use kapell_api::nodes::proto::nodes_client::NodesClient;
            let server = Target::Http(Box::new(HttpServer::new(&address, None, None).unwrap()));
            let connector = tower::service_fn(move |_| {
                let server = server.clone();
                async move { server.wire().await.map(hyper_util::rt::TokioIo::new) }
            });
            let channel = tonic::transport::Endpoint::from_static("http://kapell")
                .connect_with_connector(connector)
                .await
                .unwrap();
            let mut request = tonic::Request::new(tokio_stream::empty());
            if let Some(key) = key {
                let header = kapell_api::nodes::KEY_HEADER;
                request.metadata_mut().insert(header, key.parse().unwrap());
            }
            NodesClient::new(channel).link(request).await.unwrap_err()
        });
        assert_eq!(status.code(), Code::Unauthenticated);
    }
}

#[test]
fn who_is_there_is_listed_with_what_it_is_to_own() {
    let (one, two, _store) = two();
    let list = one.nodes.list();
    let ids: Vec<NodeId> = list.iter().map(|(row, _)| row.about.id).collect();
    assert_eq!(ids, [NodeId(1), NodeId(2)]);
    let shards: usize = list.iter().map(|(_, shards)| shards).sum();
    assert_eq!(shards, usize::from(SHARDS));
    assert!(list.iter().all(|(_, shards)| *shards > 1_000));
    // Who leaves owns nothing, unless all do.
    let mut leaving = two.row.clone();
    leaving.about.leaving = true;
    one.nodes.heard(vec![one.row.clone(), leaving]);
    let shards: Vec<usize> = one.nodes.list().iter().map(|(_, shards)| *shards).collect();
    assert_eq!(shards, [usize::from(SHARDS), 0]);
    let addresses = one.nodes.addresses();
    assert_eq!(addresses, std::slice::from_ref(&one.row.about.address));
}

/// The run that the feed tells next; whoever hears that something was missed subscribes again.
fn next_change(feed: &crate::feed::Feed, rows: &mut crate::feed::Rows) -> RunId {
    use tokio::sync::broadcast::error::RecvError;
    loop {
        match rows.changes.blocking_recv() {
            Ok(change) => return change.row.id,
            Err(RecvError::Closed) => *rows = feed.rows(None, None).unwrap(),
            Err(RecvError::Lagged(_)) => {}
        }
    }
}

#[test]
fn who_subscribes_at_one_node_hears_of_runs_of_another() {
    let (one, two, _store) = two();
    let feed = Arc::new(crate::feed::Feed::new(1));
    let others = Arc::new(crate::feed::Feed::new(2));
    one.nodes.follow_for(&feed);
    two.nodes.follow_for(&others);
    let mut rows = feed.rows(None, None).unwrap();
    let before = rows.last;
    // Followed from now on: it is told first that something may have been missed.
    while feed.count() == before {
        feed.wait(before, PATIENCE);
    }
    let run = started(&asked(&two.node, start(&owned_by(&two), None, "me")));
    assert_eq!(next_change(&feed, &mut rows), run);
    // What is awaited at one node ends at the other.
    let mut touched = feed.run(run);
    let cancel = ClientRequest::Run {
        run,
        request: kapell_engine::Request::Cancel {
            by: "me".to_owned(),
            reason: String::new(),
            now: true,
        },
    };
    let done = one.node.ask_and_wait(cancel);
    assert!(matches!(done, Ok(Answer::Done)), "{done:?}");
    assert_eq!(next_change(&feed, &mut rows), run);
    // Rows are told before what is touched.
    let tries = (0..1_000).take_while(|_| !touched.has_changed().unwrap());
    tries.for_each(|_| std::thread::park_timeout(Duration::from_millis(5)));
    assert!(touched.has_changed().unwrap());
    touched.mark_unchanged();
    assert!(!others.has_subscribers());
}
