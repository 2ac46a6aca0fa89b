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

/// Prints, keeps a file that is larger than a chunk, and fails; `big` keeps one that is too large.
const WORK: &str = "\
workflow: work
params:
  big: { type: bool, default: false }
steps:
  make:
    shell: |
      echo made; echo careful >&2
      head -c 700000 /dev/zero | tr '\\0' x > kept.txt
      if [ \"$BIG\" = true ]; then head -c 17000000 /dev/zero > kept.txt; fi
    env: { BIG: '${{ string(params.big) }}' }
    artifacts: { out: { kept: kept.txt } }
  fail: { needs: [make], shell: 'wc -c < in.txt; echo broken; exit 3', artifacts: { in: { in.txt: '${{ steps.make.output.kept }}' } } }
";

#[test]
fn what_a_machine_that_is_gone_printed_and_kept_is_read_at_another() {
    let Some(schema) = TestSchema::new() else {
        return;
    };
    let store = schema.text();
    let gone = Place::with("work.yaml", WORK);
    let failed = gone.kapell(&["run", "work.yaml", "--store", &store]);
    assert!(failed.all().contains("broken"), "{}", failed.all());
    assert!(!gone.path(".kapell/blobs").exists());
    drop(gone);
    let here = Place::new();
    here.write(
        "kapell.toml",
        &format!("store = \"{store}\"\nblob_cache = \"1Mi\"\n"),
    );
    let logs = here.good(&["logs", "last"]);
    for line in ["made", "careful", "700000", "broken"] {
        assert!(logs.out.contains(line), "{}", logs.out);
    }
    let follow = here.good(&["logs", "last", "fail", "--follow"]);
    assert!(follow.out.contains("broken") && !follow.out.contains("made"));
    for _ in 0..2 {
        here.good(&["artifact", "last", "make", "kept", "-o", "got.txt"]);
        let got = std::fs::read(here.path("got.txt")).unwrap();
        assert!(got == vec![b'x'; 700_000]);
        std::fs::remove_file(here.path("got.txt")).unwrap();
        // The second time it is read from here.
        schema.run("UPDATE blob_chunks SET content = ''").unwrap();
    }
    let status = here.json(&["store", "status", "--json"]);
    assert!(status["blobs"].as_u64().unwrap() > 0 && status["logs"].as_u64().unwrap() > 0);
    here.write("work.yaml", WORK);
    let large = here.kapell(&["run", "work.yaml", "-p", "big=true"]);
    assert!(
        large.all().contains("17000000 bytes is too large"),
        "{}",
        large.all()
    );
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
    assert!(place.path(".kapell/blobs.moved").is_dir());
    // What was printed before is in files, what is printed now in the database.
    let before_move = place.good(&["logs", "last", "one", "--store", &store]);
    assert!(before_move.out.contains("one"), "{}", before_move.out);
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
