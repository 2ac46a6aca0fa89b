mod blobs;
mod fence;
mod logs;
mod places;
mod proxy;

use super::*;
use crate::testing::TestSchema;
use crate::{MemoryStore, conformance};

fn new() -> Option<(TestSchema, PostgresStore)> {
    let schema = TestSchema::new()?;
    let store = PostgresStore::open(schema.url()).unwrap();
    Some((schema, store))
}

/// Checks the rules of one kind, each in a schema of its own.
fn rules_hold(kind: usize) {
    for (name, case) in conformance::CASES[kind] {
        let Some((_schema, store)) = new() else {
            return;
        };
        println!("{name}");
        case(&store);
    }
}

#[test]
fn every_kind_of_rules_has_a_test() {
    assert_eq!(conformance::CASES.len(), 8);
}

#[test]
fn rules_of_the_fence_hold() {
    rules_hold(0);
}

#[test]
fn rules_of_entities_hold() {
    rules_hold(1);
}

#[test]
fn rules_of_runs_hold() {
    rules_hold(2);
}

#[test]
fn rules_of_lists_hold() {
    rules_hold(3);
}

#[test]
fn rules_of_versions_hold() {
    rules_hold(4);
}

#[test]
fn rules_of_documents_hold() {
    rules_hold(5);
}

#[test]
fn rules_of_blobs_hold() {
    rules_hold(6);
}

#[test]
fn rules_of_mail_hold() {
    rules_hold(7);
}

#[test]
fn rules_of_clusters_hold() {
    for (name, case) in conformance::CLUSTER_CASES {
        let Some((schema, store)) = new() else {
            return;
        };
        println!("{name}");
        case(&store, &|span| {
            let micros = span.as_micros();
            let sql = format!("UPDATE nodes SET expires_at = expires_at - {micros}");
            schema.run(&sql).unwrap();
        });
    }
}

/// The same random operations on this store and the memory's. With a world of many days, the history of
/// the past lies in partitions, which tidying drops.
fn answers_as_the_memory_store(seed: u64) {
    let Some((schema, store)) = new() else {
        return;
    };
    drop(store);
    schema.run("UPDATE periods SET period = 1").unwrap();
    let open = || PostgresStore::open(schema.url()).unwrap();
    conformance::compare(seed, 300, &MemoryStore::new(), open(), |store| {
        drop(store);
        open()
    });
    let dropped = schema
        .run("SELECT count(*) FROM periods WHERE gone")
        .unwrap();
    let days = if seed % 2 == 1 { "4" } else { "1" };
    assert_eq!(dropped, [days], "of a world of days all were tidied away");
}

#[test]
fn it_answers_as_the_memory_store_does() {
    answers_as_the_memory_store(0);
}

#[test]
fn it_answers_as_the_memory_store_does_over_days() {
    answers_as_the_memory_store(1);
}

#[test]
fn it_answers_as_the_memory_store_does_again() {
    answers_as_the_memory_store(2);
}

#[test]
fn it_answers_as_the_memory_store_does_over_days_again() {
    answers_as_the_memory_store(3);
}

/// Plans read what they need in the order of an index.
#[test]
fn lists_use_their_indexes() {
    let Some((schema, _store)) = new() else {
        return;
    };
    let mut lists: Vec<String> = search::Drive::ALL.iter().map(|drive| drive.sql()).collect();
    lists.extend(
        [
            read::DUE,
            read::MAIL,
            read::NEXT_WAKE,
            read::BY_SUFFIX,
            read::BLOBS_OF,
            read::REFERRED,
            read::DOCUMENTS,
            read::DOCUMENTS_BACKWARD,
        ]
        .map(str::to_owned),
    );
    lists.push(read::expired(read::of_workflows(Some(b""), Some(b""))));
    for sql in lists {
        let values = (1..=9)
            .filter(|place| sql.contains(&format!("${place}")))
            .count();
        let nulls = vec!["NULL"; values].join(", ");
        let plan = schema.run(&format!(
            "SET plan_cache_mode = force_generic_plan; PREPARE list AS {sql};
             EXPLAIN (COSTS OFF) EXECUTE list ({nulls})"
        ));
        let plan = plan.unwrap().join("\n");
        assert!(!plan.contains("Seq Scan"), "{sql}:\n{plan}");
        // What is sorted is sorted for a page, not for the table: the index below it gives the order.
        let table = plan
            .find("Limit")
            .and_then(|limit| plan[limit + 1..].find("Index"));
        assert!(table.is_some() || !sql.contains("LIMIT"), "{sql}:\n{plan}");
    }
}
