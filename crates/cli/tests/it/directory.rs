//! The data directory: shared, taken over, refused.

use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use crate::place::{HOLD, Place};

fn place() -> Place {
    let place = Place::with("hold.yaml", HOLD);
    place.write("one.yaml", "workflow: one\nsteps:\n  a: { noop: }\n");
    place
}

fn mark(place: &Place, name: &str) -> String {
    format!("mark={}", place.path(name).display())
}

#[test]
fn commands_ask_the_process_that_holds_the_directory() {
    let place = place();
    let mut first = place.start(&["run", "hold.yaml", "-p", &mark(&place, "mark")]);
    first.until("quick");
    let run = place.json(&["list", "--json"])["runs"][0]["run"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(place.json(&["show", &run, "--json"])["status"], "running");
    let why = place.good(&["why", &run]).out;
    assert!(why.contains("wait_for_it  has run for"), "{why}");
    place.good(&["run", "one.yaml"]);
    place.good(&["pause", &run]);
    assert_eq!(place.json(&["show", &run, "--json"])["status"], "paused");
    place.good(&["resume", &run, "--detach"]);
    place.good(&["cancel", &run]);
    let (status, errors) = first.end();
    assert_eq!(status, 1, "a cancelled run did not succeed: {errors}");
    assert_eq!(place.json(&["show", &run, "--json"])["status"], "cancelled");
}

#[test]
fn whoever_follows_a_run_takes_over_when_the_holder_ends() {
    let place = place();
    let mut first = place.start(&["run", "hold.yaml", "-p", &mark(&place, "first")]);
    first.until("quick");
    let mut second = place.start(&["run", "hold.yaml", "-p", &mark(&place, "second")]);
    second.until("quick");
    first.signal(Signal::KILL);
    first.end();
    place.write("second", "");
    second.until("succeeded in");
    assert_eq!(second.end().0, 0);
}

#[test]
fn a_directory_that_cannot_be_written_is_refused_with_a_way_out() {
    let place = place();
    let data = place.path("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o555)).unwrap();
    // Whoever may write everywhere is refused by what is no folder.
    let may_all = std::fs::write(data.join("probe"), "").is_ok();
    let name = if may_all { "one.yaml" } else { "data" };
    let said = place.kapell(&["run", "one.yaml", "--data-dir", name]);
    assert_eq!(said.status, 1, "{}", said.all());
    assert!(
        said.errors.contains("error[directory-unusable]"),
        "{}",
        said.errors
    );
    assert!(said.errors.contains("--data-dir"), "{}", said.errors);
}

#[test]
fn a_store_of_a_newer_version_is_left_alone() {
    let place = place();
    place.good(&["run", "one.yaml"]);
    let database = rusqlite::Connection::open(place.path(".kapell/kapell.db")).unwrap();
    database
        .execute("INSERT INTO migrations VALUES (1000, 'of the future')", [])
        .unwrap();
    drop(database);
    let said = place.kapell(&["list"]);
    assert_eq!(said.status, 1, "{}", said.all());
    assert!(
        said.errors.contains("error[store-too-new]"),
        "{}",
        said.errors
    );
}

#[test]
fn looking_makes_no_directory() {
    let place = place();
    for command in ["list", "show", "logs", "why", "timeline", "resume"] {
        let said = place.kapell(&[command]);
        assert_eq!(said.status, 2, "{command}: {}", said.all());
        assert!(
            said.errors.contains("there are no runs in `.kapell`"),
            "{}",
            said.errors
        );
    }
    assert!(!place.path(".kapell").exists());
}

#[test]
fn a_long_path_to_the_directory_is_no_hindrance() {
    let place = place();
    let deep = ["a-rather-long-name-of-a-folder"; 6].join("/");
    std::fs::create_dir_all(place.path(&deep)).unwrap();
    let mut first = place.start(&[
        "run",
        "hold.yaml",
        "-p",
        &mark(&place, "mark"),
        "--data-dir",
        &deep,
    ]);
    first.until("quick");
    place.good(&["run", "one.yaml", "--data-dir", &deep]);
    place.write("mark", "");
    assert_eq!(first.end().0, 0);
}

#[test]
fn what_is_kept_is_its_owners_alone() {
    let place = Place::with(
        "fail.yaml",
        "workflow: fail\nsteps:\n  a: { shell: \"echo said; touch left; exit 1\" }\n",
    );
    assert_eq!(place.kapell(&["run", "fail.yaml"]).status, 1);
    let mode = |name: &str| {
        let path = place.path(name);
        let found = std::fs::metadata(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        found.permissions().mode() & 0o777
    };
    for folder in [".kapell", ".kapell/logs", ".kapell/work", ".kapell/blobs"] {
        assert_eq!(mode(folder), 0o700, "{folder}");
    }
    for file in [".kapell/kapell.db", ".kapell/lock"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    let checks = place.json(&["doctor", "--json"]);
    let found = |checks: &serde_json::Value| {
        let all = checks.as_array().unwrap();
        let found = all.iter().find(|check| check["name"] == "access").unwrap();
        found["verdict"].as_str().unwrap().to_owned()
    };
    assert_eq!(found(&checks), "ok", "{checks}");
    let wide = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(place.path(".kapell"), wide).unwrap();
    let checks = place.json(&["doctor", "--json"]);
    assert_eq!(found(&checks), "warn", "{checks}");
}
