//! Nodes that share a store in earnest: they come, take over from one that is dead, answer for each other, and
//! hand over as they go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use kapell_node::drive::Join;
use kapell_store::Cluster as _;

use super::*;

const LEASE: Duration = Duration::from_secs(2);

/// The store's clock goes as long as it is there.
struct Clock {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Clock {
    fn of(store: &MemoryStore) -> Self {
        let (store, stop) = (store.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let watch = kapell_node::clock::Stopwatch::start();
            while !stopped.load(Ordering::Relaxed) {
                let micros = i64::try_from(watch.elapsed().as_micros()).unwrap();
                store.set_now(Time(1_000_000 + micros));
                std::thread::park_timeout(Duration::from_millis(5));
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A node that joins whoever is there.
fn member(id: u64, store: &MemoryStore) -> One {
    let prepared = Node::prepare();
    let mut one = One::of(id, store, prepared.node());
    let hears = Arc::downgrade(&one.nodes);
    let prepared = prepared.among(Join {
        cluster: Arc::new(store.clone()),
        about: one.row.about.clone(),
        lease: LEASE,
        heard: Box::new(move |rows| {
            if let Some(nodes) = hears.upgrade() {
                nodes.heard(rows);
            }
        }),
    });
    let config = kapell_node::Config {
        alone: false,
        seed: id,
        idle_micros: 60_000_000,
        keeps: Keeps::default(),
        dispatch: kapell_node::DispatchSettings::default(),
    };
    let threads = prepared
        .start(
            config,
            Arc::new(store.clone()),
            Arc::new(NoBlobs),
            Arc::new(Nothing),
        )
        .unwrap();
    one.threads = Some(threads);
    one
}

fn registered() -> MemoryStore {
    let store = MemoryStore::new();
    for number in 0..WORKFLOWS {
        store.register(&version_row(&name(number))).unwrap();
    }
    store
}

fn sees(node: &One, run: RunId) {
    let view = node.node.ask_and_wait(ClientRequest::View { run });
    assert!(
        matches!(&view, Ok(Answer::View(view)) if view.id == run),
        "{view:?}"
    );
}

/// Waits until a node knows of so many.
fn knows(node: &One, count: usize) {
    let knows = || node.nodes.list().len() == count;
    let tries = (0..2_000).take_while(|_| !knows());
    tries.for_each(|_| std::thread::park_timeout(Duration::from_millis(10)));
    assert!(knows(), "{:?}", node.nodes.list());
}

#[test]
fn every_node_answers_while_others_come_and_go() {
    let store = registered();
    let _clock = Clock::of(&store);
    let one = member(1, &store);
    let mut runs = vec![started(&asked(&one.node, start(&name(0), None, "me")))];
    let two = member(2, &store);
    let three = member(3, &store);
    let mut all = vec![one, two, three];
    for (number, node) in all.iter().enumerate() {
        knows(node, 3);
        for workflow in 0..WORKFLOWS {
            let key = format!("{number}");
            let request = start(&name(workflow), Some(&key), "me");
            runs.push(started(&asked(&node.node, request)));
        }
    }
    let shards: Vec<usize> = all[0].nodes.list().iter().map(|(_, own)| *own).collect();
    assert!(shards.iter().all(|own| *own > 1_000), "{shards:?}");
    while all.len() > 1 {
        let mut leaves = all.remove(0);
        let left = std::thread::scope(|scope| {
            let leaving = scope.spawn(|| leaves.threads.take().unwrap().stop());
            // Meanwhile clients of the others see nothing of it.
            for run in &runs {
                for node in &all {
                    sees(node, *run);
                }
            }
            leaving.join()
        });
        left.unwrap();
        knows(&all[0], all.len());
    }
    for run in runs {
        sees(&all[0], run);
    }
}

#[test]
fn what_a_dead_node_owned_is_taken_over_once_its_lease_is_over() {
    let store = registered();
    let _clock = Clock::of(&store);
    let dead = NodeAbout {
        id: NodeId(99),
        address: "http://127.0.0.1:1".to_owned(),
        version: "1".to_owned(),
        leaving: false,
    };
    store.beat(&dead, LEASE).unwrap();
    let owned = store.take(dead.id, &ShardSet::all(), &[]).unwrap();
    assert_eq!(owned.len(), usize::from(SHARDS));
    let one = member(1, &store);
    for workflow in 0..WORKFLOWS {
        let run = started(&asked(&one.node, start(&name(workflow), None, "me")));
        sees(&one, run);
    }
}
