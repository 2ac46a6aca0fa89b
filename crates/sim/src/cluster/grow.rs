//! How the work of a cluster grows with it: counts, not times.
//!
//! Every node has as many workers, every worker as many steps. After all are done one more node joins, and later
//! one dies. What nodes said to each other meanwhile is counted by kind.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Cluster, Counts};
use crate::scenario::{Ask, FarWorker, Fault, Knobs, NodeFault, Nodes, Planned, Scenario};
use crate::world::Failure;

const SECOND: i64 = 1_000_000;

/// When runs are started, a node joins, and one dies.
const STARTS: i64 = 60 * SECOND;
const JOINS: i64 = 150 * SECOND;
const DIES: i64 = 210 * SECOND;
const ENDS: i64 = 300 * SECOND;

/// Workflows of each node, runs of each workflow, and steps of each run.
const WORKFLOWS: usize = 4;
const RUNS: usize = 5;

/// Steps of each worker.
pub const STEPS: usize = 20;

/// What was counted in one part of the play.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// What it was.
    pub name: &'static str,
    /// What nodes did.
    pub counts: Counts,
    /// Commits that landed.
    pub commits: u64,
}

/// Plays a cluster of so many nodes and workers.
///
/// # Errors
/// What must not be, if something was.
pub fn grow(nodes: usize, workers: usize) -> Result<Vec<Part>, Failure> {
    let scenario = scenario(nodes, workers);
    let Some(about) = &scenario.cluster else {
        return Ok(Vec::new());
    };
    let mut cluster = Cluster::new(&scenario, about, None);
    cluster.late = Some((nodes, JOINS));
    cluster.marks = vec![STARTS, JOINS, DIES, ENDS];
    cluster.go();
    if let Some(failure) = cluster.failure {
        return Err(failure);
    }
    let names = ["work", "join", "takeover"];
    let pairs = cluster.marked.windows(2).zip(names);
    Ok(pairs
        .map(|(pair, name)| between(name, &pair[0], &pair[1]))
        .collect())
}

fn between(name: &'static str, before: &(Counts, u64), after: &(Counts, u64)) -> Part {
    let (old, new) = (&before.0, &after.0);
    let word = |kind: &&'static str| old.words.get(kind).copied().unwrap_or_default();
    let words = new.words.iter().map(|(kind, (words, names))| {
        let first = word(kind);
        (*kind, (words - first.0, names - first.1))
    });
    let words: BTreeMap<_, _> = words.filter(|(_, (words, _))| *words > 0).collect();
    Part {
        name,
        counts: Counts {
            words,
            shards: new.shards - old.shards,
            takes: new.takes - old.takes,
            offers: new.offers - old.offers,
            last_offer_at: new.last_offer_at,
        },
        commits: after.1 - before.1,
    }
}

fn scenario(nodes: usize, workers: usize) -> Scenario {
    let steps = workers * STEPS / (nodes * WORKFLOWS * RUNS);
    let workflow = |index: usize| {
        json!({
            "workflow": format!("w{index}"),
            "params": { "n": { "type": "int" } },
            "steps": { "s": { "foreach": { "x": format!("${{{{ range({steps}) }}}}") }, "exec": ["work", "fails=0"] } },
        })
    };
    let count = nodes * WORKFLOWS;
    let start = |number: usize| Planned {
        at: STARTS + i64::try_from(number).unwrap_or(0) * 1_000,
        what: Ask::Start {
            workflow: number % count,
            n: 0,
            key: None,
            version: None,
            by: None,
        },
    };
    let dies = Fault::Node {
        node: 0,
        what: NodeFault::Dies {
            down: 3_600 * SECOND,
        },
    };
    let worker = FarWorker {
        queues: Vec::new(),
        slots: 4,
    };
    Scenario {
        note: String::new(),
        seed: 1,
        workflows: (0..count).map(workflow).collect(),
        requests: (0..count * RUNS).map(start).collect(),
        faults: vec![Planned {
            at: DIES,
            what: dies,
        }],
        knobs: Knobs {
            commit: 2_000,
            read: 1_000,
            wire: 1_000,
            lump: 1_000,
            attempt: 2 * SECOND,
            slots: 4,
            process_window: 4,
            light_window: 64,
            idle: 600 * SECOND,
            fails: 0,
            repeats: 0,
            deaf: 0,
            lost: 0,
            big: 0,
            late: 0,
            follow: 0,
        },
        far: vec![worker; workers],
        cluster: Some(Nodes {
            count: nodes + 1,
            lease: 10 * SECOND,
            skew: 0,
        }),
    }
}
