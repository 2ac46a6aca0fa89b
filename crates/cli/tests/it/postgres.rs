//! The store in PostgreSQL, as a person uses it.

use kapell_store::testing::TestSchema;

use crate::place::{HOLD, Place};
use crate::server::Server;

/// Its last step fails until the file at `mark` is there.
const ADD: &str = "\
workflow: add
params:
  mark: { type: string }
steps:
  one: { shell: echo one }
  two: { needs: [one], shell: 'test -e \"$MARK\"', env: { MARK: '${{ params.mark }}' } }
";

/// A place whose configuration names a schema of its own.
fn place(schema: &TestSchema) -> Place {
    let place = Place::with("add.yaml", ADD);
    place.write("hold.yaml", HOLD);
    place.write("kapell.toml", &format!("store = \"{}\"\n", schema.text()));
    place
}

#[test]
fn a_command_does_its_work_in_the_database_that_is_named() {
    let Some(schema) = TestSchema::new() else {
        return;
    };
    let place = Place::with(
        "ok.yaml",
        "workflow: ok\nsteps:\n  one: { shell: echo hi }\n",
    );
    let store = schema.text();
    place.good(&["run", "ok.yaml", "--store", &store]);
    assert_eq!(
        schema.run("SELECT count(*) FROM runs_ended").unwrap(),
        ["1"]
    );
    let shown = place.json(&["show", "last", "--json", "--store", &store]);
    assert_eq!(shown["status"], "succeeded");
    assert!(!place.path(".kapell/kapell.db").exists());
    let logs = place.good(&["logs", "last", "--store", &store]);
    assert!(logs.out.contains("hi"), "{}", logs.out);
    let nothing = place.kapell(&["show", "last"]);
    assert_ne!(nothing.status, 0, "in the data directory there is none");
}

#[test]
fn a_server_that_is_killed_goes_on_from_the_database() {
    let Some(schema) = TestSchema::new() else {
        return;
    };
    let server = Server::with(place(&schema), &[]);
    let mark = server.place.path("mark").display().to_string();
    let parameter = format!("mark={mark}");
    server.place.good(&["deploy", "hold.yaml"]);
    server.place.good(&["start", "hold", "-p", &parameter]);
    let quick = |shown: &serde_json::Value| shown["steps"][0]["status"] == "succeeded";
    server.place.until(&["show", "last", "--json"], quick);
    let server = server.killed();
    std::fs::write(&mark, "").unwrap();
    let ended = |shown: &serde_json::Value| shown["status"] == "succeeded";
    server.place.until(&["show", "last", "--json"], ended);
    let metrics = server.place.json(&["list", "--json"]);
    assert_eq!(metrics["runs"].as_array().map(Vec::len), Some(1));
    // Another that keeps its files elsewhere is told that this one works there.
    let other = place(&schema);
    let refused = other.kapell(&["server", "--listen", "127.0.0.1:0"]);
    assert!(
        refused
            .errors
            .contains("another Kapell works in the schema"),
        "{}",
        refused.all()
    );
    assert_ne!(refused.status, 0);
}

#[test]
fn a_store_is_looked_at_migrated_and_moved() {
    let Some(schema) = TestSchema::new() else {
        return;
    };
    let place = Place::with("add.yaml", ADD);
    let store = schema.text();
    let of = |command: [&'static str; 2]| [&command[..], &["--json", "--store", &store]].concat();
    let status = place.json(&of(["store", "status"]));
    assert_eq!(
        (status["kind"].as_str(), status["applied"].as_u64()),
        (Some("postgresql"), Some(0))
    );
    let migrated = place.json(&of(["store", "migrate"]));
    assert_eq!(migrated["from"], 0);
    let status = place.json(&of(["store", "status"]));
    assert_eq!(status["applied"], status["known"]);
    let mark = format!("mark={}", place.path("mark").display());
    let failed = place.kapell(&["run", "add.yaml", "-p", &mark]);
    assert_ne!(failed.status, 0);
    let before = place.json(&["show", "last", "--json"]);
    let moved = place.good(&["store", "move", "--to", &store]);
    assert!(
        moved
            .out
            .contains("all of it was compared, and is the same"),
        "{}",
        moved.all()
    );
    assert!(place.path(".kapell/kapell.db.moved").is_file());
    let after = place.json(&of(["show", "last"]));
    assert_eq!(
        (&after["run"], &after["steps"]),
        (&before["run"], &before["steps"])
    );
    // It goes on there.
    place.write("mark", "");
    place.good(&["retry", "last", "--store", &store]);
    assert_eq!(place.json(&of(["show", "last"]))["status"], "succeeded");
    let again = place.kapell(&["store", "move", "--to", &store]);
    assert!(
        again.errors.contains("there is no database in"),
        "{}",
        again.all()
    );
}

#[test]
fn what_cannot_be_done_with_a_database_is_said() {
    let Some(schema) = TestSchema::new() else {
        return;
    };
    let place = place(&schema);
    let backup = place.kapell(&["backup", "b.tar"]);
    assert!(backup.errors.contains("pg_dump"), "{}", backup.all());
    let config = place.good(&["config"]);
    assert!(!config.out.contains("postgres@"), "{}", config.out);
    for (url, why) in [
        ("mysql://a@b/c", "no URL of a PostgreSQL database"),
        ("postgres://a@127.0.0.1:1/x", "does not answer"),
        (
            &schema.text().replace("postgres@", "nobody@"),
            "role \"nobody\" does not exist",
        ),
    ] {
        let refused = place.kapell(&["list", "--store", url]);
        assert!(refused.errors.contains(why), "{}", refused.all());
        assert!(refused.errors.contains("KAPELL_STORE"), "{}", refused.all());
    }
}
