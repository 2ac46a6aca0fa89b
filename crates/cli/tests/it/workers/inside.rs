//! The worker inside a server.

use super::*;

/// A step that the worker inside can do: nothing is asked of the machine.
fn hold() -> String {
    let needs = "    resources: { custom: { license: 2 }, labels: { zone: eu } }\n";
    assert!(HOLD.contains(needs));
    HOLD.replace(needs, "")
}

#[test]
fn the_worker_inside_is_a_worker_like_others() {
    let world = World::new("hold.yaml", &hold());
    world.hold();
    let inside = world.inside();
    let [own] = inside.as_slice() else {
        panic!("{inside:#?}")
    };
    assert_eq!(
        (&own["count"], &own["connected"]),
        (&1.into(), &true.into())
    );
    assert_eq!(own["attempts"][0]["step"], "far", "{own:#}");
    assert!(own["slots"].as_u64() > Some(0), "{own:#}");
    assert!(
        own["capacity"]["memory_bytes"].as_u64() > Some(0),
        "{own:#}"
    );
    let name = own["name"].as_str().unwrap();
    let listed = world.good(&["workers"]).out;
    assert!(listed.contains("inside the server  1 of"), "{listed}");
    // While it runs, and in history.
    assert!(
        world
            .good(&["show", "last"])
            .out
            .contains(&format!("at {name}"))
    );
    world.go();
    world.succeeds();
    assert_eq!(world.record("far")["attempts"][0]["worker"], name);
}

#[test]
fn what_the_worker_inside_ran_is_lost_with_its_server_and_tried_again_at_once() {
    // A lease that nobody waits for.
    let mut world = World::with_lease("hold.yaml", &hold(), "3600");
    world.hold();
    let before = world.inside()[0]["session"].clone();
    let address = world.url.split_once("//").unwrap().1.to_owned();
    world.server.take().unwrap().kill();
    world.serve(&address);
    world.begun(2);
    let inside = world.inside();
    assert_eq!(inside.len(), 1, "{inside:#?}");
    assert_ne!(inside[0]["session"], before);
    world.go();
    world.succeeds();
    let record = world.record("far");
    assert_eq!(record["attempts"][0]["result"], "lost", "{record:#}");
    let why = record["attempts"][0]["error"].to_string();
    assert!(why.contains("its worker died"), "{record:#}");
}

#[test]
fn the_worker_inside_can_be_let_go_and_is_back_with_the_next_start() {
    let mut world = World::new("hold.yaml", &hold());
    world.hold();
    let session = world.inside()[0]["session"].as_str().unwrap().to_owned();
    let worker = world.worker("a");
    let said = world
        .good(&["workers", "--drain", &session, "--grace", "0"])
        .out;
    assert!(said.contains("goes"), "{said}");
    world.begun(2);
    world.go();
    world.succeeds();
    assert_eq!(world.record("far")["attempts"][1]["worker"], "a");
    while !world.inside().is_empty() {}
    assert_eq!(worker.end(), 0);
    let address = world.url.split_once("//").unwrap().1.to_owned();
    assert_eq!(world.server.take().unwrap().end(), 0);
    world.serve(&address);
    assert_eq!(world.inside().len(), 1);
}
