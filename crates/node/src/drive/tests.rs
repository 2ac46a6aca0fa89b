//! Two nodes over one store, each with half of the shards, and what connects them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use kapell_api::task::{NoBlobs, Task};
use kapell_engine::Ask;
use kapell_engine::run_queue::{Activate, Change};
use kapell_engine::topic::Keeps;
use kapell_expr::Value;
use kapell_model::{EntityKey, Error, ErrorCode, NodeId, Offer, RunId, Shard, ShardSet, Time};
use kapell_store::testing::half::Half;
use kapell_store::{MemoryStore, Store, VersionRow};
use parking_lot::Mutex;

use super::{FromPeer, Node, Owner, Peers, Threads, Unanswered, Workers};
use crate::lane::Config;
use crate::request::{Answer, ClientRequest, StartRun, wire};

struct Nothing;

impl Workers for Nothing {
    fn offer(&self, _: Vec<Task>) {}
    fn stop(&self, _: &[(RunId, kapell_api::task::Place, Offer)]) {}
}

/// What becomes of what one node asks another.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Link {
    /// The request never leaves, this many times.
    Closed(usize),
    /// The request is done and the answer is lost, this many times.
    LosesAnswers(usize),
}

/// The nodes of a cluster, which ask each other by calling.
#[derive(Default)]
struct Cluster {
    nodes: Mutex<BTreeMap<NodeId, Node>>,
    owned: Mutex<BTreeMap<NodeId, ShardSet>>,
    /// Where asks go, if that is not who owns the shard.
    believed: Mutex<BTreeMap<(NodeId, Shard), NodeId>>,
    link: Mutex<Option<Link>>,
    asked: Mutex<Vec<NodeId>>,
    rang: Mutex<BTreeSet<Shard>>,
}

struct Seen {
    me: NodeId,
    cluster: Weak<Cluster>,
}

impl Peers for Seen {
    fn owner(&self, shard: Shard) -> Owner {
        let cluster = self.cluster.upgrade().unwrap();
        // What is believed wrongly is found out the first time.
        let believed = cluster.believed.lock().remove(&(self.me, shard));
        let owned = cluster.owned.lock();
        let owner = owned.iter().find(|(_, shards)| shards.contains(shard));
        match believed.or(owner.map(|(node, _)| *node)) {
            Some(node) if node == self.me => Owner::Here,
            Some(node) => Owner::There(node),
            None => Owner::Nobody,
        }
    }

    fn ask(&self, node: NodeId, request: Vec<u8>, answer: FromPeer) {
        let cluster = self.cluster.upgrade().unwrap();
        cluster.asked.lock().push(node);
        let mut lost = false;
        match &mut *cluster.link.lock() {
            Some(Link::Closed(left)) if *left > 0 => {
                *left -= 1;
                answer(Err(Unanswered::NotSent));
                return;
            }
            Some(Link::LosesAnswers(left)) if *left > 0 => {
                *left -= 1;
                lost = true;
            }
            _ => {}
        }
        let request = wire::request_from_bytes(&request).unwrap();
        let there = cluster.nodes.lock()[&node].clone();
        there.ask_lane(
            request,
            Box::new(move |said| {
                let bytes = wire::answer_to_bytes(&said).unwrap();
                answer(if lost {
                    Err(Unanswered::Unknown)
                } else {
                    Ok(bytes)
                });
            }),
        );
    }

    fn rang(&self, shards: &BTreeSet<Shard>) {
        let cluster = self.cluster.upgrade().unwrap();
        cluster.rang.lock().extend(shards);
    }

    fn versions_changed(&self) {
        let cluster = self.cluster.upgrade().unwrap();
        for node in cluster.nodes.lock().values() {
            node.versions_changed_elsewhere();
        }
    }
}

/// Two nodes: the first owns what lies with these workflows, the second all the rest.
struct World {
    one: Node,
    two: Node,
    store: MemoryStore,
    cluster: Arc<Cluster>,
    threads: Vec<Threads>,
}

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

impl World {
    fn new(of_one: &[&str]) -> Self {
        let store = MemoryStore::new();
        for workflow in ["a", "b"] {
            store.register(&version_row(workflow, 0)).unwrap();
        }
        let cluster = Arc::new(Cluster::default());
        let one: ShardSet = of_one.iter().map(|name| shard(name)).collect();
        let two = ShardSet::all().without(&one);
        let mut threads = Vec::new();
        for (id, shards) in [(ONE, one), (TWO, two)] {
            let prepared = Node::prepare();
            let node = prepared.node();
            let half = Half::new(Arc::new(store.clone()), shards.clone());
            let started = prepared.start(
                config(id),
                Arc::new(half),
                Arc::new(NoBlobs),
                Arc::new(Nothing),
            );
            threads.push(started.unwrap());
            let seen = Seen {
                me: id,
                cluster: Arc::downgrade(&cluster),
            };
            node.join(Arc::new(seen)).unwrap();
            cluster.nodes.lock().insert(id, node);
            cluster.owned.lock().insert(id, shards);
        }
        let node = |id| cluster.nodes.lock()[&id].clone();
        Self {
            one: node(ONE),
            two: node(TWO),
            store,
            cluster,
            threads,
        }
    }

    fn link(&self, link: Link) {
        *self.cluster.link.lock() = Some(link);
    }

    fn runs(&self) -> usize {
        let filter = kapell_store::RunFilter::default();
        self.store.list_runs(&filter, 100).unwrap().len()
    }

    fn asked(&self) -> Vec<NodeId> {
        self.cluster.asked.lock().clone()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for threads in self.threads.drain(..) {
            threads.stop();
        }
    }
}

fn config(id: NodeId) -> Config {
    Config {
        alone: true,
        seed: id.0,
        idle_micros: 60_000_000,
        keeps: Keeps::default(),
        dispatch: crate::DispatchSettings::default(),
    }
}

fn shard(workflow: &str) -> Shard {
    Shard::of_workflow("default", workflow)
}

fn version_row(workflow: &str, version: u32) -> VersionRow {
    let file = format!("workflow: {workflow}\nsteps:\n  s: {{ shell: 'exit {version}' }}\n");
    let spec = kapell_model::parse("w.yaml", &file).spec.unwrap();
    VersionRow {
        namespace: "default".into(),
        workflow: workflow.into(),
        version,
        hash: format!("{:064x}", version + 1).into(),
        spec: serde_json::to_string(&*spec).unwrap().into(),
        source: file.into(),
        bundle: None,
        created_at: Time(1),
        author: "".into(),
    }
}

fn start(workflow: &str, idempotency_key: Option<&str>) -> ClientRequest {
    ClientRequest::Start(Box::new(StartRun {
        namespace: "default".into(),
        workflow: workflow.into(),
        version: None,
        params: Value::Null,
        text: false,
        by: "me".to_owned(),
        scheduled_at: None,
        priority: None,
        idempotency_key: idempotency_key.map(str::to_owned),
    }))
}

fn started(answer: Result<Answer, Error>) -> RunId {
    match answer {
        Ok(Answer::Started(run)) => run,
        other => panic!("{other:?}"),
    }
}

fn queue(workflow: &str) -> EntityKey {
    EntityKey::RunQueue {
        namespace: "default".into(),
        workflow: workflow.into(),
        key: "".into(),
    }
}

fn change(change: Change) -> Ask {
    Ask::Change(Box::new(change))
}

#[test]
fn any_node_starts_and_shows_a_run_of_any_workflow() {
    let world = World::new(&["a"]);
    for node in [&world.one, &world.two] {
        for workflow in ["a", "b"] {
            let run = started(node.ask_and_wait(start(workflow, None)));
            assert_eq!(run.shard(), shard(workflow));
            for node in [&world.one, &world.two] {
                let view = node.ask_and_wait(ClientRequest::View { run });
                assert!(matches!(view, Ok(Answer::View(view)) if view.id == run));
            }
        }
    }
    assert_eq!(world.runs(), 4);
}

#[test]
fn what_a_node_owns_it_does_itself() {
    let world = World::new(&["a"]);
    started(world.one.ask_and_wait(start("a", None)));
    started(world.two.ask_and_wait(start("b", None)));
    assert_eq!(world.asked(), []);
    started(world.one.ask_and_wait(start("b", None)));
    assert_eq!(world.asked(), [TWO]);
}

#[test]
fn a_refusal_of_the_owner_reaches_the_client_as_it_is() {
    let world = World::new(&["a"]);
    let request = ClientRequest::Start(Box::new(StartRun {
        version: Some(9),
        ..match start("b", None) {
            ClientRequest::Start(start) => *start,
            other => panic!("{other:?}"),
        }
    }));
    let error = world.one.ask_and_wait(request).unwrap_err();
    assert_eq!(error.code, ErrorCode::WorkflowNotFound);
    assert!(error.hint.is_some());
    assert_eq!(world.asked(), [TWO]);
}

#[test]
fn a_node_that_is_asked_by_another_asks_no_third() {
    let world = World::new(&["a"]);
    let (send, receive) = std::sync::mpsc::channel();
    world.one.ask_lane(
        start("b", None),
        Box::new(move |answer| send.send(answer).unwrap()),
    );
    let error = receive.recv().unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::NotHere);
    assert_eq!(world.asked(), []);
}

#[test]
fn who_is_asked_for_what_it_does_not_own_any_more_is_not_the_last_that_is_asked() {
    let world = World::new(&["a"]);
    // Each believes once that the other has what it has itself.
    let mut believed = world.cluster.believed.lock();
    believed.insert((ONE, shard("a")), TWO);
    believed.insert((ONE, shard("b")), ONE);
    drop(believed);
    for workflow in ["a", "b"] {
        started(world.one.ask_and_wait(start(workflow, None)));
    }
    assert_eq!(world.asked(), [TWO, TWO]);
    assert_eq!(world.runs(), 2);
}

#[test]
fn what_never_left_is_asked_again_whatever_it_is() {
    let world = World::new(&["a"]);
    world.link(Link::Closed(3));
    started(world.one.ask_and_wait(start("b", None)));
    assert_eq!(world.asked().len(), 4);
    assert_eq!(world.runs(), 1);
}

#[test]
fn a_start_whose_answer_is_lost_is_asked_again_only_under_a_key() {
    let world = World::new(&["a"]);
    world.link(Link::LosesAnswers(2));
    let run = started(world.one.ask_and_wait(start("b", Some("k"))));
    assert_eq!(world.runs(), 1, "the same key makes the same run");
    assert_eq!(started(world.two.ask_and_wait(start("b", Some("k")))), run);

    world.link(Link::LosesAnswers(1));
    let before = world.asked().len();
    let error = world.one.ask_and_wait(start("b", None)).unwrap_err();
    assert_eq!(error.code, ErrorCode::StoreUnavailable);
    assert!(error.message.contains("may or may not"), "{error}");
    assert_eq!(world.asked().len(), before + 1);
}

#[test]
fn a_deploy_reaches_every_owner_before_it_is_answered() {
    for asks_first in [true, false] {
        let world = World::new(&["a"]);
        let node = if asks_first { &world.one } else { &world.two };
        let activate = |workflow| {
            let activate = Activate {
                version: 2,
                triggers: Vec::new(),
                timezone: "UTC".into(),
                rule: None,
            };
            (queue(workflow), Ask::Activate(Box::new(activate)))
        };
        let deploy = ClientRequest::Deploy {
            versions: vec![version_row("a", 2), version_row("b", 2)],
            asks: vec![activate("a"), activate("b")],
        };
        let answer = node.ask_and_wait(deploy);
        assert!(matches!(answer, Ok(Answer::Done)), "{answer:?}");
        for workflow in ["a", "b"] {
            let active = world.store.version("default", workflow, None).unwrap();
            assert_eq!(active.unwrap().version, 2);
        }
        assert_eq!(world.store.mail(&ShardSet::all(), 10).unwrap(), []);
        let other = shard(if asks_first { "b" } else { "a" });
        // The word of it follows the answer.
        let rang = || world.cluster.rang.lock().contains(&other);
        let tries = (0..1_000).take_while(|_| !rang());
        tries.for_each(|_| std::thread::park_timeout(std::time::Duration::from_millis(5)));
        assert!(rang());
    }
}

#[test]
fn what_is_asked_of_several_is_kept_for_an_owner_that_is_away() {
    let world = World::new(&["a"]);
    let paused = Change {
        paused: Some(Some("me".to_owned())),
        ..Change::default()
    };
    let asks = ["a", "b"].map(|name| (queue(name), change(paused.clone())));
    // The other is there again in time.
    world.link(Link::Closed(4));
    let together = ClientRequest::AskTogether(asks.to_vec());
    let answer = world.one.ask_and_wait(together);
    assert!(matches!(answer, Ok(Answer::Done)), "{answer:?}");
    for workflow in ["a", "b"] {
        let ask = ClientRequest::Ask {
            key: queue(workflow),
            ask: Ask::View,
        };
        let view = format!("{:?}", world.one.ask_and_wait(ask));
        assert!(view.contains("paused"), "{view}");
    }
}

#[test]
fn a_node_that_owns_nothing_of_it_leaves_it_to_one_that_does() {
    let world = World::new(&[]);
    let asks = ["a", "b"].map(|name| (queue(name), change(Change::default())));
    let answer = world
        .one
        .ask_and_wait(ClientRequest::AskTogether(asks.to_vec()));
    assert!(matches!(answer, Ok(Answer::Done)), "{answer:?}");
    assert_eq!(world.asked(), [TWO]);
    started(world.one.ask_and_wait(start("a", None)));
}
