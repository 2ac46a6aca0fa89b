//! Who is there, and who owns a shard.

use std::time::Duration;

use kapell_model::{EntityKey, NodeId, Shard, ShardSet};

use super::append;
use crate::{Cluster, Commit, Error, Lease, NodeAbout};

const LEASE: Duration = Duration::from_mins(1);

/// A rule of stores that nodes share, for one on which nobody was; the second ends all leases by so much
/// earlier.
pub type ClusterCase = (&'static str, fn(&dyn Cluster, &dyn Fn(Duration)));

/// Every rule.
pub const CLUSTER_CASES: &[ClusterCase] = &[
    (
        "nodes see each other by their heartbeats",
        nodes_see_each_other,
    ),
    (
        "a shard has one owner, who gives it away",
        a_shard_has_one_owner,
    ),
    ("only the dead are robbed", only_the_dead_are_robbed),
    (
        "who was robbed writes nothing",
        who_was_robbed_writes_nothing,
    ),
    ("who leaves owns nothing", who_leaves_owns_nothing),
];

/// A number whose first bit is set, as of half of all nodes.
const ONE: NodeId = NodeId(u64::MAX - 1);
const TWO: NodeId = NodeId(2);

fn about(id: NodeId) -> NodeAbout {
    NodeAbout {
        id,
        address: format!("http://{id}:1"),
        version: "1.2.3".to_owned(),
        leaving: false,
    }
}

fn set(shards: &[u16]) -> ShardSet {
    shards.iter().copied().map(Shard).collect()
}

fn numbers(leases: &[Lease]) -> Vec<u16> {
    leases.iter().map(|lease| lease.shard.0).collect()
}

fn nodes_see_each_other(store: &dyn Cluster, age: &dyn Fn(Duration)) {
    let alone = store.beat(&about(ONE), LEASE).expect("beaten");
    assert_eq!(alone.nodes.len(), 1);
    let first = &alone.nodes[0];
    assert_eq!(first.about, about(ONE));
    assert!(first.joined_at <= alone.now && alone.now < first.expires_at);
    let leaving = NodeAbout {
        leaving: true,
        ..about(TWO)
    };
    let both = store.beat(&leaving, LEASE).expect("beaten");
    let abouts: Vec<&NodeAbout> = both.nodes.iter().map(|node| &node.about).collect();
    assert_eq!(abouts, [&leaving, &about(ONE)], "by id");
    assert!(both.now >= alone.now);
    age(LEASE * 2);
    let later = store.beat(&leaving, LEASE).expect("beaten");
    assert!(later.nodes[0].expires_at > later.now, "it was renewed");
    assert!(later.nodes[1].expires_at <= later.now, "it was not");
    assert_eq!(later.nodes[0].joined_at, both.nodes[0].joined_at);
}

fn a_shard_has_one_owner(store: &dyn Cluster, _: &dyn Fn(Duration)) {
    store.beat(&about(ONE), LEASE).expect("beaten");
    store.beat(&about(TWO), LEASE).expect("beaten");
    let held = store.take(ONE, &set(&[4, 9, 4095]), &[]).expect("taken");
    assert_eq!(numbers(&held), [4, 9, 4095]);
    let others = store.take(TWO, &set(&[3, 4, 9]), &[]).expect("taken");
    assert_eq!(numbers(&others), [3], "the rest has an owner");
    // Again is not twice: the epoch is another, and it is still its own.
    let again = store.take(ONE, &set(&[4]), &[]).expect("taken");
    assert!(again[0].epoch > held[0].epoch);
    // What is no longer as held is not given away.
    store.give(ONE, &held[..2]).expect("given");
    store.give(TWO, &again).expect("given");
    let left = store.take(TWO, &set(&[4, 9]), &[]).expect("taken");
    assert_eq!(numbers(&left), [9]);
    store.give(ONE, &again).expect("given");
    let left = store.take(TWO, &set(&[4]), &[]).expect("taken");
    assert_eq!(numbers(&left), [4]);
}

fn only_the_dead_are_robbed(store: &dyn Cluster, age: &dyn Fn(Duration)) {
    store.beat(&about(ONE), LEASE).expect("beaten");
    store.take(ONE, &set(&[1, 2]), &[]).expect("taken");
    store.beat(&about(TWO), LEASE).expect("beaten");
    let all = set(&[1, 2]);
    assert_eq!(store.take(TWO, &all, &[ONE]).expect("taken"), [], "alive");
    age(LEASE * 2);
    assert_eq!(store.take(TWO, &all, &[]).expect("taken"), [], "not judged");
    // Nobody took anything, so the lease goes on.
    store.beat(&about(ONE), LEASE).expect("beaten");
    assert_eq!(store.take(TWO, &all, &[ONE]).expect("taken"), []);
    age(LEASE * 2);
    assert_eq!(
        numbers(&store.take(TWO, &all, &[ONE]).expect("taken")),
        [1, 2]
    );
}

fn who_was_robbed_writes_nothing(store: &dyn Cluster, age: &dyn Fn(Duration)) {
    let key = EntityKey::Lock {
        namespace: "default".into(),
        name: "a".into(),
    };
    let shard = set(&[key.shard().0]);
    store.beat(&about(ONE), LEASE).expect("beaten");
    let held = store.take(ONE, &shard, &[]).expect("taken");
    age(LEASE * 2);
    store.beat(&about(TWO), LEASE).expect("beaten");
    let robbed = store.take(TWO, &shard, &[ONE]).expect("taken");
    let write = |shards: Vec<Lease>| {
        store.commit(&Commit {
            shards,
            entities: vec![append(key.clone(), 1, "x")],
            ..Commit::default()
        })
    };
    let late = write(held);
    assert!(matches!(late, Err(Error::Conflict(_))), "{late:?}");
    write(robbed).expect("its owner writes");
}

fn who_leaves_owns_nothing(store: &dyn Cluster, _: &dyn Fn(Duration)) {
    store.beat(&about(ONE), LEASE).expect("beaten");
    store.beat(&about(TWO), LEASE).expect("beaten");
    store.take(ONE, &set(&[7, 8]), &[]).expect("taken");
    store.leave(ONE).expect("left");
    let beat = store.beat(&about(TWO), LEASE).expect("beaten");
    assert_eq!(beat.nodes.len(), 1);
    let taken = store.take(TWO, &set(&[7, 8]), &[]).expect("taken");
    assert_eq!(numbers(&taken), [7, 8]);
}
