//! Putting workflows in force, and what is said of them beside their versions.

use crate::place::Place;

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
    assert!(said.contains("steps.load.shell.script"), "{said}");
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
