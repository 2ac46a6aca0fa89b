//! Three nodes, four workers and a PostgreSQL, each on a network of its own, while nodes and workers are killed,
//! stopped past their lease and cut off, the database crashes and its disk is full. A client notes what was
//! acknowledged to it. Then count.
//!
//! `make chaos MINUTES=n` runs it, and `make test` for three minutes; the other tests do not run beside it
//! (`.config/nextest.toml`). It takes the right to make networks and mounts, and PostgreSQL; where those are
//! missing it says so.

#![allow(
    clippy::disallowed_methods,
    reason = "it lasts as long as it is told to, by its environment"
)]

#[path = "../ledger/mod.rs"]
mod ledger;
mod net;
mod town;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ledger::{Patient, ask_for_everything, random, wait};
use town::{NODES, Town, WORKERS};

/// How long things go wrong, if nobody says.
const MINUTES: u64 = 3;

/// What may go wrong.
#[derive(Clone, Copy, Debug)]
enum Fault {
    KillNode,
    KillWorker,
    /// Longer than its lease.
    StopNode,
    /// As for a rolling upgrade.
    EndNode,
    CrashDatabase,
    CutNode,
    CutWorker,
    /// One node is not heard by another.
    CutBetweenNodes,
    /// The database does not hear a node.
    CutFromDatabase,
    FullDisk,
}

const FAULTS: [Fault; 10] = [
    Fault::KillNode,
    Fault::KillWorker,
    Fault::StopNode,
    Fault::EndNode,
    Fault::CrashDatabase,
    Fault::CutNode,
    Fault::CutWorker,
    Fault::CutBetweenNodes,
    Fault::CutFromDatabase,
    Fault::FullDisk,
];

#[test]
fn a_cluster_loses_nothing_whatever_goes_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    // The database runs as somebody else.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
        .expect("others may enter");
    let mut town = match Town::new(folder.path()) {
        Ok(town) => town,
        Err(why) => {
            say(&format!("skipped: no cluster can be made here: {why}"));
            return;
        }
    };
    let until = Instant::now() + Duration::from_secs(60 * minutes());
    let here = folder.path().display().to_string();
    ledger::write_flows(&folder.path().join("flows"));
    town.deploy();
    let (urls, token) = (town.urls(), town.token.clone());
    let patient = || Patient::new(&urls, Some(&token));
    let stop = AtomicBool::new(false);
    let mut faults = 0;
    let ledger = std::thread::scope(|scope| {
        let client = scope.spawn(|| ask_for_everything(patient(), &here, &stop));
        let mut seed = seed();
        say(&format!("SEED={seed}"));
        while Instant::now() < until && !client.is_finished() {
            let fault = FAULTS[below(&mut seed, FAULTS.len())];
            say(&format!("{fault:?}"));
            happen(fault, &mut town, &mut seed);
            faults += 1;
            wait(500 + random(&mut seed) % 3_000);
        }
        stop.store(true, Ordering::Relaxed);
        client
            .join()
            .unwrap_or_else(|_| panic!("the client gave up\n{}", town.logs()))
    });
    say(&format!("{faults} faults; counting"));
    let counted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        ledger::settle(&mut patient(), &ledger, folder.path());
    }));
    assert!(
        counted.is_ok(),
        "after {faults} faults:\n{}\n{}",
        town.logs(),
        town.database.log()
    );
    say(&ledger.summary());
}

/// Something goes wrong, and is mended.
fn happen(fault: Fault, town: &mut Town, seed: &mut u64) {
    let node = below(seed, NODES);
    let worker = below(seed, WORKERS);
    let while_it_lasts = 2_000 + random(seed) % 6_000;
    match fault {
        Fault::KillNode => {
            town.kill_node(node);
            wait(random(seed) % 8_000);
            town.start_node(node);
        }
        Fault::KillWorker => {
            town.kill_worker(worker);
            wait(random(seed) % 2_000);
            town.start_worker(worker);
        }
        Fault::StopNode => {
            town.tell_node(node, "-STOP");
            wait(7_000 + random(seed) % 3_000);
            town.tell_node(node, "-CONT");
        }
        Fault::EndNode => {
            town.tell_node(node, "-TERM");
            town.node_ends(node);
            town.start_node(node);
        }
        Fault::CrashDatabase => town.database.crash().expect("the database starts again"),
        Fault::CutNode => {
            town.net.cut(node, true);
            wait(while_it_lasts);
            town.net.cut(node, false);
        }
        Fault::CutWorker => {
            town.net.cut(NODES + worker, true);
            wait(while_it_lasts);
            town.net.cut(NODES + worker, false);
        }
        Fault::CutBetweenNodes => {
            let other = town.net.machine((node + 1) % NODES);
            town.net.cut_one_way(node, other, true);
            wait(while_it_lasts);
            town.net.cut_one_way(node, other, false);
        }
        Fault::CutFromDatabase => {
            let database = town.net.database();
            town.net.cut_one_way(node, database, true);
            wait(while_it_lasts);
            town.net.cut_one_way(node, database, false);
        }
        Fault::FullDisk => {
            town.fill(true);
            wait(while_it_lasts);
            town.fill(false);
        }
    }
}

fn below(seed: &mut u64, end: usize) -> usize {
    usize::try_from(random(seed) % end as u64).unwrap_or(0)
}

fn minutes() -> u64 {
    told("MINUTES").unwrap_or(MINUTES)
}

/// Which faults happen, and when: others each time, or those of `SEED`. What the processes make of them is theirs.
fn seed() -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH);
    told("SEED").unwrap_or_else(|| now().map_or(1, |now| now.as_secs()))
}

fn told(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// For who follows it.
#[expect(clippy::print_stderr, reason = "it takes minutes")]
fn say(what: &str) {
    eprintln!("{what}");
}
