use std::collections::BTreeMap;

use kapell_model::Time;
use kapell_store::{Cluster, Lease, MemoryStore};

use super::*;

const LEASE: Duration = Duration::from_secs(5);

/// Nodes on one steady clock over one store, each with a lane that does at once what it is asked.
struct World {
    store: MemoryStore,
    now: Instant,
    nodes: BTreeMap<NodeId, Node>,
    /// Nodes that cannot reach the store.
    cut: Vec<NodeId>,
    /// The store answers nobody.
    stalled: bool,
}

struct Node {
    members: Members,
    leases: BTreeMap<Shard, Lease>,
    todo: Vec<Output>,
}

impl Node {
    fn holds(&self) -> ShardSet {
        self.leases.keys().copied().collect()
    }
}

impl World {
    fn new(nodes: u64) -> Self {
        let mut world = Self {
            store: MemoryStore::new(),
            now: Instant(1_000_000),
            nodes: BTreeMap::new(),
            cut: Vec::new(),
            stalled: false,
        };
        for node in 1..=nodes {
            world.join(NodeId(node));
        }
        world
    }

    fn join(&mut self, id: NodeId) {
        let config = Config {
            about: NodeAbout {
                id,
                address: format!("http://node-{id}"),
                version: "1".to_owned(),
                leaving: false,
            },
            lease: LEASE,
            beat: Duration::from_secs(1),
        };
        let node = Node {
            members: Members::new(config, self.now),
            leases: BTreeMap::new(),
            todo: Vec::new(),
        };
        self.nodes.insert(id, node);
    }

    /// Lets time pass in steps of a tenth of a second.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.now.0 += 100_000;
            self.store.set_now(Time(i64::try_from(self.now.0).unwrap()));
            let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
            for id in ids {
                self.turn(id);
            }
        }
    }

    fn turn(&mut self, id: NodeId) {
        let reaches = !self.stalled && !self.cut.contains(&id);
        let node = self.nodes.get_mut(&id).unwrap();
        let asked = node.members.on(self.now, Input::Tick);
        node.todo.extend(asked);
        for _ in 0..10 {
            for output in std::mem::take(&mut node.todo) {
                let answer = match output {
                    Output::Beat(about) if reaches => Input::Beaten(self.store.beat(&about, LEASE)),
                    Output::Take(shards, dead) if reaches => {
                        for lease in self.store.take(id, &shards, &dead).unwrap() {
                            node.leases.insert(lease.shard, lease);
                        }
                        Input::Holds(node.holds())
                    }
                    Output::Give(shards) if reaches => {
                        let given: Vec<Lease> =
                            shards.iter().map(|shard| node.leases[&shard]).collect();
                        self.store.give(id, &given).unwrap();
                        for shard in shards.iter() {
                            node.leases.remove(&shard);
                        }
                        Input::Holds(node.holds())
                    }
                    Output::Leave if reaches => {
                        self.store.leave(id).unwrap();
                        continue;
                    }
                    Output::Stop => {
                        node.leases.clear();
                        Input::Holds(ShardSet::default())
                    }
                    output => {
                        // The store answers later, or never.
                        node.todo.push(output);
                        continue;
                    }
                };
                let asked = node.members.on(self.now, answer);
                node.todo.extend(asked);
            }
        }
    }

    /// How many shards each node holds that may act; each shard is held by at most one of them.
    fn shares(&self) -> Vec<usize> {
        let mut seen = ShardSet::default();
        let acting = self.nodes.values().filter(|node| node.members.may_act());
        acting
            .map(|node| {
                for shard in node.leases.keys() {
                    assert!(seen.insert(*shard), "{shard:?} is held twice");
                }
                node.leases.len()
            })
            .collect()
    }

    fn held(&self) -> usize {
        self.shares().iter().sum()
    }
}

const ALL: usize = SHARDS as usize;

#[test]
fn a_node_alone_owns_everything_at_once() {
    let mut world = World::new(1);
    world.pass(1);
    assert_eq!(world.shares(), [ALL]);
}

#[test]
fn shards_are_spread_and_only_those_of_who_comes_and_goes_move() {
    let mut world = World::new(3);
    world.pass(3);
    let before: Vec<ShardSet> = world.nodes.values().map(Node::holds).collect();
    assert_eq!(world.held(), ALL);
    assert!(
        world.shares().iter().all(|share| *share > ALL / 4),
        "{:?}",
        world.shares()
    );
    world.join(NodeId(4));
    world.pass(3);
    assert_eq!(world.held(), ALL);
    let newcomer = world.nodes[&NodeId(4)].holds();
    assert!(newcomer.len() > ALL / 6);
    for (before, node) in before.iter().zip(world.nodes.values()) {
        assert_eq!(node.holds(), before.without(&newcomer));
    }
}

#[test]
fn who_leaves_gives_everything_away_within_a_moment() {
    let mut world = World::new(2);
    world.pass(3);
    let node = world.nodes.get_mut(&NodeId(1)).unwrap();
    let asked = node.members.on(world.now, Input::Leave);
    node.todo.extend(asked);
    world.pass(2);
    assert!(world.nodes[&NodeId(1)].members.has_left());
    assert_eq!(world.nodes[&NodeId(2)].leases.len(), ALL);
    // The last one has nobody to give them to, and lets go all the same.
    let node = world.nodes.get_mut(&NodeId(2)).unwrap();
    let asked = node.members.on(world.now, Input::Leave);
    node.todo.extend(asked);
    world.pass(2);
    assert!(world.nodes[&NodeId(2)].members.has_left());
    assert_eq!(world.held(), 0);
}

#[test]
fn the_shards_of_who_dies_are_taken_within_the_lease_and_a_beat() {
    let mut world = World::new(3);
    world.pass(10);
    world.nodes.remove(&NodeId(2));
    world.pass(4);
    assert!(world.held() < ALL, "its lease is not over");
    world.pass(3);
    assert_eq!(world.held(), ALL);
}

#[test]
fn who_is_cut_off_stops_before_others_take_over() {
    let mut world = World::new(3);
    world.pass(10);
    world.cut.push(NodeId(2));
    for _ in 0..10 {
        world.pass(1);
        // `shares` looks for a shard that two hold.
        world.shares();
    }
    assert!(!world.nodes[&NodeId(2)].members.may_act());
    assert_eq!(world.held(), ALL);
    world.cut.clear();
    world.pass(5);
    assert!(world.nodes[&NodeId(2)].members.may_act());
    assert_eq!(world.held(), ALL);
    assert_eq!(world.shares().len(), 3);
}

#[test]
fn after_a_stall_of_the_store_nobody_is_robbed() {
    let mut world = World::new(3);
    world.pass(10);
    let before: Vec<ShardSet> = world.nodes.values().map(Node::holds).collect();
    let epoch = |world: &World| -> u64 {
        let leases = world.nodes.values().flat_map(|node| node.leases.values());
        leases.map(|lease| lease.epoch).max().unwrap()
    };
    world.stalled = true;
    world.pass(30);
    assert_eq!(world.held(), 0, "nobody acts without the store");
    world.stalled = false;
    world.pass(2);
    let after: Vec<ShardSet> = world.nodes.values().map(Node::holds).collect();
    assert_eq!(after, before, "each has its own again");
    let once = epoch(&world);
    world.pass(20);
    assert_eq!(epoch(&world), once, "and keeps them");
}

#[test]
fn a_node_that_comes_during_a_takeover_leaves_the_living_alone() {
    let mut world = World::new(2);
    world.pass(10);
    world.stalled = true;
    world.pass(30);
    world.stalled = false;
    // It sees leases that have ended, and has not looked for long enough to say that they are dead.
    world.join(NodeId(9));
    world.pass(4);
    assert_eq!(world.held(), ALL);
    assert_eq!(world.shares().len(), 3);
}

#[test]
fn what_a_node_owned_when_its_lease_ended_is_free_for_others_once_it_is_back() {
    let mut world = World::new(1);
    world.pass(15);
    assert!(world.nodes[&NodeId(1)].holds().is_all());
    world.cut.push(NodeId(1));
    world.pass(7);
    assert!(world.nodes[&NodeId(1)].holds().is_empty());
    // Another comes, and cannot take from one whom it may not judge yet.
    world.join(NodeId(2));
    world.pass(1);
    world.cut.clear();
    world.pass(10);
    let held: usize = world.nodes.values().map(|node| node.holds().len()).sum();
    assert_eq!(held, usize::from(SHARDS));
}

#[test]
fn a_lane_that_stops_before_it_is_told_leaves_nothing_that_nobody_can_take() {
    let mut world = World::new(1);
    world.pass(15);
    world.cut.push(NodeId(1));
    world.now.0 += 5_100_000;
    let node = world.nodes.get_mut(&NodeId(1)).unwrap();
    node.leases.clear();
    let asked = node
        .members
        .on(world.now, Input::Holds(ShardSet::default()));
    node.todo.extend(asked);
    world.join(NodeId(2));
    world.pass(1);
    world.cut.clear();
    world.pass(10);
    let held: usize = world.nodes.values().map(|node| node.holds().len()).sum();
    assert_eq!(held, usize::from(SHARDS));
}
