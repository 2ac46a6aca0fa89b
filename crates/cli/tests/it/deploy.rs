//! Putting workflows in force, and what is said of them beside their versions.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::place::{HOLD, Place};
use crate::server::Server;

fn place() -> Place {
    let place = Place::with(
        "a.yaml",
        "workflow: nightly\nowner: data\nsteps: { load: { shell: \"echo one\" } }\n",
    );
    place.write("b.yaml", "workflow: other\nsteps: { go: { noop: } }\n");
    place
}

/// What a command says that is refused as bad input.
fn refused(place: &Place, arguments: &[&str]) -> crate::place::Said {
    let said = place.kapell(arguments);
    assert_eq!(said.status, 2, "{}", said.all());
    said
}

#[test]
fn a_folder_is_deployed_whole_and_the_same_again_changes_nothing() {
    let place = place();
    let plan = place.json(&["deploy", ".", "--dry-run", "--json"]);
    assert_eq!(plan["applied"], false);
    assert_eq!(plan["changes"][0]["action"], "create");
    assert!(
        place.json(&["workflow", "list", "--json"])["workflows"]
            .as_array()
            .unwrap()
            .is_empty(),
        "a dry run registers nothing"
    );
    place.good(&["deploy", "."]);
    let again = place.json(&["deploy", ".", "--json"]);
    for change in again["changes"].as_array().unwrap() {
        assert_eq!(change["action"], "keep", "{change}");
    }
    place.write(
        "a.yaml",
        "workflow: nightly\nowner: data\nsteps: { load: { shell: \"echo two\" } }\n",
    );
    let said = place.good(&["deploy", "."]).out;
    assert!(said.contains("v1 -> v2"), "{said}");
    assert!(said.contains("steps.load.shell"), "{said}");
    assert_eq!(
        place.json(&["workflow", "show", "nightly", "--json"])["active"],
        2
    );
}

#[test]
fn one_bad_file_and_nothing_is_deployed() {
    let place = place();
    place.write("c.yaml", "workflow: bad\nsteps: { load: { shel: x } }\n");
    let said = refused(&place, &["deploy", "."]);
    assert!(said.errors.contains("c.yaml"), "{}", said.errors);
    let said = refused(&place, &["workflow", "show", "nightly"]);
    assert!(!said.errors.is_empty());
}

#[test]
fn two_files_of_one_name_are_refused() {
    let place = place();
    place.write("c.yaml", "workflow: other\nsteps: { stop: { noop: } }\n");
    let said = refused(&place, &["deploy", "."]);
    assert!(
        said.errors.contains("are both the workflow `other`"),
        "{}",
        said.errors
    );
}

#[test]
fn locks_of_one_name_with_other_bounds_are_refused() {
    let place = Place::with(
        "a.yaml",
        "workflow: a\nsteps: { x: { noop: , locks: [{ name: db, max: 1 }] } }\n",
    );
    place.write(
        "b.yaml",
        "workflow: b\nsteps: { x: { noop: , locks: [{ name: db, max: 2 }] } }\n",
    );
    let said = refused(&place, &["deploy", "."]);
    assert!(said.errors.contains("the lock `db`"), "{}", said.errors);
}

#[test]
fn starts_of_a_paused_workflow_wait_and_say_why() {
    let place = place();
    place.good(&["deploy", "."]);
    place.good(&["workflow", "pause", "nightly"]);
    let started = place.json(&["start", "nightly", "--json"]);
    assert_eq!(started["status"], "queued");
    let why = place.good(&["why"]).out;
    assert!(why.contains("its workflow was paused by"), "{why}");
    let listed = place.good(&["list", "--status", "queued"]).out;
    assert!(listed.contains("its workflow was paused by"), "{listed}");
    let runs = place.json(&["list", "--json"]);
    let waits = runs["runs"][0]["waits_for"].as_str().unwrap();
    assert!(waits.contains("its workflow was paused by"), "{waits}");
    let queue = place.json(&["workflow", "queue", "nightly", "--json"]);
    assert_eq!(queue["waiting"], 1);
    place.good(&["workflow", "resume", "nightly"]);
    place.good(&["resume"]);
    assert_eq!(place.json(&["show", "--json"])["status"], "succeeded");
}

#[test]
fn all_workflows_are_paused_and_go_on_together() {
    let place = place();
    place.good(&["deploy", "."]);
    place.good(&["workflow", "pause", "--all"]);
    assert_eq!(
        place.json(&["start", "other", "--json"])["status"],
        "queued"
    );
    place.good(&["workflow", "resume", "--all"]);
    place.good(&["resume"]);
    assert_eq!(place.json(&["show", "--json"])["status"], "succeeded");
}

#[test]
fn a_version_is_activated_back_and_what_is_deleted_keeps_its_history() {
    let place = place();
    place.good(&["deploy", "."]);
    place.good(&["start", "nightly", "--watch"]);
    place.write(
        "a.yaml",
        "workflow: nightly\nsteps: { load: { shell: \"echo two\" } }\n",
    );
    place.good(&["deploy", "."]);
    place.good(&["workflow", "activate", "nightly", "1"]);
    place.good(&["start", "nightly", "--watch"]);
    assert_eq!(place.json(&["show", "--json"])["version"], 1);
    place.good(&["workflow", "delete", "nightly"]);
    let said = refused(&place, &["start", "nightly"]);
    assert!(said.errors.contains("was deleted"), "{}", said.errors);
    let runs = place.json(&["list", "--workflow", "nightly", "--json"]);
    assert_eq!(runs["runs"].as_array().unwrap().len(), 2);
    // What was deployed before and is not there any more goes with `--prune`.
    std::fs::remove_file(place.path("a.yaml")).unwrap();
    place.good(&["workflow", "activate", "nightly", "1"]);
    let plan = place.json(&["deploy", ".", "--prune", "--json"]);
    let deleted = plan["changes"].as_array().unwrap().iter();
    let deleted: Vec<&serde_json::Value> = deleted
        .filter(|change| change["action"] == "delete")
        .map(|change| &change["workflow"])
        .collect();
    assert_eq!(deleted, ["nightly"]);
}

#[test]
fn a_run_of_a_file_does_not_move_what_is_deployed() {
    let place = place();
    place.good(&["deploy", "."]);
    place.write(
        "a.yaml",
        "workflow: nightly\nsteps: { load: { shell: \"echo trial\" } }\n",
    );
    place.good(&["run", "a.yaml"]);
    assert_eq!(place.json(&["show", "--json"])["version"], 2);
    assert_eq!(
        place.json(&["workflow", "show", "nightly", "--json"])["active"],
        1
    );
}

/// The names and actions of a plan.
fn changes(plan: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let changes = plan["changes"].as_array().unwrap().iter();
    changes
        .map(|change| (text(&change["workflow"]), text(&change["action"])))
        .collect()
}

#[test]
fn nothing_is_pruned_whose_file_cannot_be_read() {
    let place = place();
    place.write(
        "keepme.yaml",
        "workflow: keepme\nsteps: { go: { noop: } }\n",
    );
    place.good(&["deploy", "."]);
    let keepme = place.path("keepme.yaml");
    let big = format!(
        "workflow: keepme\n# {}\n",
        "x".repeat(kapell_model::limits::DEFINITION_BYTES)
    );
    let broken: [(&[u8], &str); 3] = [
        (
            b"workflow: keepme # caf\xe9\nsteps: { go: { noop: } }\n",
            "not UTF-8",
        ),
        (big.as_bytes(), "at most"),
        (b"workflow: keepme\nsteps: { go: { noop:\n", "keepme.yaml"),
    ];
    for (bytes, words) in broken {
        std::fs::write(&keepme, bytes).unwrap();
        let said = refused(&place, &["deploy", ".", "--prune"]);
        assert!(said.errors.contains(words), "{}", said.errors);
    }
    // However its key is written, it is a workflow.
    place.write(
        "keepme.yaml",
        "\"workflow\": keepme\nsteps: { go: { noop: } }\n",
    );
    let plan = place.json(&["deploy", ".", "--prune", "--json"]);
    let kept = ("keepme".to_owned(), "keep".to_owned());
    assert!(changes(&plan).contains(&kept), "{plan}");
    // What is named is passed over, and gone with `--prune`.
    place.write(".kapellignore", "keepme.yaml\n");
    let plan = place.json(&["deploy", ".", "--prune", "--json"]);
    let gone = ("keepme".to_owned(), "delete".to_owned());
    assert!(changes(&plan).contains(&gone), "{plan}");
}

#[test]
fn data_beside_workflows_is_none_of_them() {
    let place = place();
    std::fs::write(place.path("latin.yaml"), b"name: caf\xe9\n").unwrap();
    let long = "x".repeat(kapell_model::limits::DEFINITION_BYTES);
    place.write("list.json", &format!("[\"{long}\"]"));
    place.write("two.yaml", "a: 1\n---\nb: 2\n");
    place.write("broken.yaml", "a: [\n");
    place.good(&["deploy", "."]);
}

#[test]
fn folders_in_a_folder_are_deployed_each_with_its_own_files() {
    let place = place();
    let shell = "steps: { go: { shell: \"cat data.txt\" } }\n";
    place.write("inner/one.yaml", &format!("workflow: one\n{shell}"));
    place.write("inner/data.txt", "of one\n");
    place.write("inner/deeper/two.yaml", &format!("workflow: two\n{shell}"));
    place.write("inner/deeper/data.txt", "of two\n");
    place.write(".git/hooks.yaml", "workflow: hooks\n");
    place.write("node_modules/three.yaml", "workflow: three\n");
    let plan = place.json(&["deploy", ".", "--json"]);
    let names: Vec<String> = changes(&plan).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["nightly", "one", "other", "two"]);
    place.good(&["start", "two", "--watch"]);
    assert!(place.good(&["logs"]).out.contains("of two"));
}

#[test]
fn the_examples_are_deployed_as_they_are() {
    let place = Place::new();
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let plan = place.json(&["deploy", examples, "--json"]);
    let names: Vec<String> = changes(&plan).into_iter().map(|(name, _)| name).collect();
    for file in ["flights", "nightly-report"] {
        assert!(names.iter().any(|name| name == file), "{names:?}");
    }
}

#[test]
fn a_file_that_changes_makes_a_version_of_its_own_workflow_alone() {
    let place = Place::new();
    for name in ["a", "b", "c"] {
        place.write(
            &format!("{name}.yaml"),
            &format!("workflow: {name}\nsteps: {{ go: {{ shell: sh say.sh }} }}\n"),
        );
    }
    place.write("say.sh", "echo one\n");
    place.good(&["deploy", "."]);
    let kept = |plan: &Value| {
        let changes = changes(plan).into_iter();
        changes
            .filter(|(_, action)| action == "keep")
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    place.write(
        "a.yaml",
        "workflow: a\nsteps: { go: { shell: sh say.sh now } }\n",
    );
    let plan = place.json(&["deploy", ".", "--json"]);
    assert_eq!(kept(&plan), ["b", "c"]);
    // What is said to readers alone changes nothing.
    place.write(
        "b.yaml",
        "# B\nworkflow: b\nsteps: { go: { shell: sh say.sh } }\n",
    );
    let plan = place.json(&["deploy", ".", "--json"]);
    assert_eq!(kept(&plan), ["a", "b", "c"]);
    // A file that steps read is of all of them, and named.
    place.write("say.sh", "echo two\n");
    place.write("new.txt", "");
    let said = place.good(&["deploy", ".", "--dry-run"]).out;
    assert!(said.contains("file say.sh: changed"), "{said}");
    let plan = place.json(&["deploy", ".", "--json"]);
    assert_eq!(kept(&plan), [""; 0]);
    let files = json!([
        { "path": "new.txt", "change": "added" },
        { "path": "say.sh", "change": "changed" },
    ]);
    assert_eq!(plan["changes"][1]["files"], files);
    let said = place.good(&["workflow", "diff", "b"]).out;
    assert!(said.contains("file new.txt: new"), "{said}");
    // A step that does read a workflow file says so.
    place.write(".kapellignore", "!a.yaml\n");
    place.write(
        "b.yaml",
        "workflow: b\nsteps: { go: { shell: cat a.yaml } }\n",
    );
    place.good(&["deploy", "."]);
    place.good(&["start", "b", "--watch"]);
}

/// A workflow with three versions, the first of which is active.
fn three_versions() -> Place {
    let place = Place::new();
    for words in ["one", "two", "three"] {
        place.write(
            "w.yaml",
            &format!("workflow: w\nsteps: {{ go: {{ shell: echo {words} }} }}\n"),
        );
        place.good(&["deploy", "w.yaml"]);
    }
    place.good(&["workflow", "activate", "w", "1"]);
    place
}

#[test]
fn versions_are_all_listed_with_who_made_them_whichever_is_active() {
    let place = three_versions();
    let numbers = |place: &Place| {
        let page = place.json(&["workflow", "versions", "w", "--json"]);
        let versions = page["versions"].as_array().unwrap().iter();
        assert_eq!(page["versions"][0]["author"], "ann");
        versions
            .map(|version| version["version"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(&place), [3, 2, 1]);
    let said = place.good(&["workflow", "versions", "w"]).out;
    let active = said.lines().find(|line| line.ends_with("active")).unwrap();
    assert!(active.starts_with("v1") && active.contains("ann"), "{said}");
    for (command, state) in [("deactivate", "inactive"), ("delete", "deleted")] {
        let shown = place.json(&["workflow", command, "w", "--json"]);
        assert!(shown["active"].is_null(), "{shown}");
        assert_eq!(numbers(&place), [3, 2, 1]);
        let said = place.good(&["workflow", "list"]).out;
        assert!(said.contains(state), "{said}");
        let said = refused(&place, &["start", "w"]);
        assert!(
            !said.errors.contains("there is no workflow"),
            "{}",
            said.errors
        );
        place.good(&["workflow", "diff", "w"]);
    }
    place.good(&["workflow", "activate", "w", "2", "--json"]);
    place.good(&["start", "w", "--watch"]);
    assert_eq!(place.json(&["show", "--json"])["version"], 2);
}

#[test]
fn a_diff_is_from_what_is_active_to_the_newest_unless_something_else_is_said() {
    let place = three_versions();
    for (flags, from, to) in [
        (&[][..], 1, 3),
        (&["--to", "2"][..], 1, 2),
        (&["--from", "2"][..], 2, 3),
    ] {
        let arguments = [&["workflow", "diff", "w", "--json"], flags].concat();
        let diff = place.json(&arguments);
        assert_eq!((&diff["from"], &diff["to"]), (&json!(from), &json!(to)));
        assert_eq!(diff["differences"][0]["path"], "steps.go.shell");
    }
    place.good(&["workflow", "activate", "w", "3"]);
    let diff = place.json(&["workflow", "diff", "w", "--json"]);
    assert_eq!((&diff["from"], &diff["to"]), (&json!(2), &json!(3)));
    place.write("once.yaml", "workflow: once\nsteps: { go: { noop: } }\n");
    place.good(&["deploy", "once.yaml"]);
    let said = refused(&place, &["workflow", "diff", "once"]);
    assert!(
        said.errors.contains("no version of `once` before v1"),
        "{}",
        said.errors
    );
}

#[test]
fn settings_change_by_what_is_named_and_are_shown_as_set_here() {
    let place = Place::with(
        "w.yaml",
        "workflow: w\nowner: data\nparams: { k: { type: string } }
strategy: { mode: parallel, limit: 2, key: \"${{ params.k }}\", debounce: { quiet: 5s, max: 1m } }
steps: { go: { noop: } }\n",
    );
    place.good(&["deploy", "w.yaml"]);
    let said = place.good(&["workflow", "show", "w"]).out;
    for words in ["data", "params.k", "of quiet, at most 1m"] {
        assert!(said.contains(words), "{words}\n{said}");
    }
    assert!(!said.contains("set here"), "{said}");
    for (flags, words) in [
        (&[][..], "it is not said what to set"),
        (
            &["--strategy", "sequential", "--limit", "4"][..],
            "`limit` is of `mode: parallel`",
        ),
        (&["--strategy", "first"][..], "invalid value 'first'"),
        (&["--keep", "soon"][..], "--keep"),
        (&["--keep-runs", "few"][..], "--keep-runs"),
        (&["--keep-runs", "0"][..], "`runs` is from 1"),
    ] {
        let arguments = [&["workflow", "set", "w"], flags].concat();
        let said = refused(&place, &arguments);
        assert!(said.errors.contains(words), "{words}\n{}", said.errors);
    }
    place.good(&["workflow", "set", "w", "--keep", "30d", "--keep-runs", "5"]);
    let said = place
        .good(&["workflow", "set", "w", "--keep-runs", "7", "--owner", "ops"])
        .out;
    assert!(
        said.contains("ended runs for 30d, the newest 7  (set here)"),
        "{said}"
    );
    let shown = place.json(&["workflow", "set", "w", "--strategy", "sequential", "--json"]);
    assert_eq!(
        shown["overrides"],
        json!(["owner", "retention", "strategy"])
    );
    let said = place
        .good(&["workflow", "set", "w", "--keep", "default"])
        .out;
    assert!(said.contains("the newest 7  (set here)"), "{said}");
    assert!(!said.contains("30d"), "{said}");
    // What the definition says of the age holds, and goes on to.
    let text = std::fs::read_to_string(place.path("w.yaml")).unwrap();
    place.write(
        "w.yaml",
        &format!("{text}retention: {{ age: 90d, runs: 5 }}\n"),
    );
    let said = place.good(&["deploy", "w.yaml"]).out;
    assert!(said.contains('w'), "{said}");
    let said = place.good(&["workflow", "show", "w"]).out;
    assert!(said.contains("ended runs for 90d, the newest 7"), "{said}");
    for flag in ["--owner", "--strategy", "--keep-runs"] {
        place.good(&["workflow", "set", "w", flag, "default"]);
    }
    let shown = place.json(&["workflow", "show", "w", "--json"]);
    assert!(shown["overrides"].is_null(), "{shown}");
    assert_eq!(shown["owner"], "data");
}

#[test]
fn commands_that_change_something_say_it_as_json_too() {
    let place = Place::with(
        "w.yaml",
        "workflow: w\nstrategy: { mode: strict_sequential }\nsteps: { go: { shell: \"false\" } }\n",
    );
    place.good(&["deploy", "w.yaml"]);
    let held = place.json(&["workflow", "pause", "--all", "--json"]);
    assert_eq!(held["workflows"], 1);
    // What comes later is held too.
    place.write("later.yaml", "workflow: later\nsteps: { go: { noop: } }\n");
    place.good(&["deploy", "later.yaml"]);
    assert_eq!(
        place.json(&["start", "later", "--json"])["status"],
        "queued"
    );
    assert_eq!(
        place.json(&["workflow", "resume", "--all", "--json"])["workflows"],
        2
    );
    place.good(&["resume"]);
    let shown = place.json(&["workflow", "pause", "w", "--json"]);
    assert_eq!(shown["paused"]["by"], "ann");
    place.good(&["workflow", "resume", "w", "--json"]);
    let failed = place.json(&["start", "w", "--json"])["run"].clone();
    let failed = failed.as_str().unwrap();
    place.kapell(&["resume"]);
    place.good(&["start", "w"]);
    let said = place.good(&["workflow", "queue", "w"]).out;
    assert!(said.contains("blocked by  "), "{said}");
    let waits = place.json(&["show", "--json"])["run"].clone();
    let waits = waits.as_str().unwrap();
    assert_eq!(
        place.json(&["priority", waits, "90", "--json"])["status"],
        "queued"
    );
    assert_eq!(place.json(&["dismiss", failed, "--json"])["run"], failed);
    let queue = place.json(&["workflow", "queue", "w", "--json"]);
    assert!(queue["lines"][0]["blocked_by"].is_null(), "{queue}");
    assert_eq!(place.json(&["pause", waits, "--json"])["status"], "paused");
    assert_eq!(
        place.json(&["cancel", waits, "--json"])["status"],
        "cancelled"
    );
}

#[test]
fn a_server_that_is_killed_in_a_deploy_has_all_of_it_or_nothing() {
    let place = Place::new();
    for number in 0..300 {
        place.write(
            &format!("all/{number}.yaml"),
            &format!(
                "workflow: w{number}\ntriggers: [{{ every: 1h }}]\nsteps: {{ go: {{ noop: }} }}\n"
            ),
        );
    }
    let mut server = Server::with(place, &[]);
    let log = server.place.path(".kapell/kapell.db-wal");
    let length = || std::fs::metadata(&log).map_or(0, |log| log.len());
    for early in [true, false] {
        let before = length();
        let flags = ["deploy", "all", "--server", &server.url];
        let mut deploy = server.place.start(&flags);
        // The log grows with the first page that is written.
        while (!early || length() == before) && deploy.child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        server = server.killed();
        deploy.end();
        let list = ["workflow", "list", "-n", "1000", "--json"];
        let found = server
            .place
            .json(&[&list[..], &["--server", &server.url]].concat());
        let count = found["workflows"].as_array().unwrap().len();
        assert!(count == 0 || count == 300, "{count}");
        assert!(early || count == 300, "what was answered is there");
    }
    assert_eq!(server.end(), 0);
}

#[test]
fn who_only_watches_may_be_ended_and_the_run_goes_on() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::with("hold.yaml", HOLD);
        place.good(&["deploy", "hold.yaml"]);
        let server = Server::with(place, &[]);
        let place = &server.place;
        let mark = format!("mark={}", place.path("mark").display());
        // Through the socket of the directory.
        let mut watch = place.start(&["start", "hold", "-p", &mark, "--watch"]);
        watch.until("quick");
        watch.signal(signal);
        watch.until_error("goes on");
        assert_eq!(watch.end().0, 130);
        let runs = place.json(&["list", "--json"]);
        assert_eq!(runs["runs"][0]["status"], "running");
        place.write("mark", "");
        place.until(&["list", "--json"], |page| {
            page["runs"][0]["status"] == "succeeded"
        });
        assert_eq!(server.end(), 0);
    }
}

#[test]
fn two_workers_do_not_share_a_directory() {
    let server = Server::with(Place::new(), &[]);
    let place = &server.place;
    let url = server.url.as_str();
    let said = place.kapell(&["worker", "--server", url, "--data-dir", ".kapell"]);
    assert_ne!(said.status, 0);
    assert!(
        said.errors.contains("another worker works in"),
        "{}",
        said.all()
    );
    // The server's own works on.
    place.write(
        "w.yaml",
        "workflow: w\nsteps: { go: { shell: \"true\" } }\n",
    );
    place.good(&["run", "w.yaml", "--server", url]);
    let mut far = place.start(&["worker", "--server", url, "--data-dir", "far"]);
    far.until("works for");
    let said = place.kapell(&["run", "w.yaml", "--data-dir", "far"]);
    assert!(
        said.errors.contains("another worker works in"),
        "{}",
        said.all()
    );
    assert_eq!(server.end(), 0);
}
