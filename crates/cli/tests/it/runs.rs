//! Runs from their start to their end, and what is said of them.

use insta::assert_snapshot;

use crate::place::Place;

const GOOD: &str = "\
workflow: good
params:
  name: { type: string, default: world }
steps:
  greet:
    shell: |
      echo \"hello $NAME\"
      printf '{\"said\": \"hello %s\"}' \"$NAME\" > \"$KAPELL_OUTPUT\"
    env: { NAME: \"${{ params.name }}\" }
  count:
    needs: [greet]
    foreach: { i: \"${{ range(3) }}\" }
    shell: echo \"item $I\"
    env: { I: \"${{ i }}\" }
  skipped:
    needs: [greet]
    if: ${{ params.name == 'nobody' }}
    noop:
outputs:
  said: ${{ steps.greet.output.said }}
";

const FAILING: &str = "\
workflow: failing
steps:
  before: { noop: }
  check:
    needs: [before]
    shell: |
      echo \"looking for it\"
      test -e \"$MARK\" || { echo \"it is not there\" >&2; exit 3; }
    env: { MARK: \"${{ params.mark }}\" }
  after: { needs: [check], noop: }
params:
  mark: { type: string }
";

fn failed() -> (Place, String) {
    let place = Place::with("failing.yaml", FAILING);
    let mark = format!("mark={}", place.path("mark").display());
    let said = place.kapell(&["run", "failing.yaml", "-p", &mark]);
    assert_eq!(said.status, 1, "{}", said.all());
    (place, said.all())
}

#[test]
fn a_run_that_succeeds_shows_its_steps_and_outputs() {
    let place = Place::with("good.yaml", GOOD);
    assert_snapshot!(place.good(&["run", "good.yaml", "-p", "name=moon"]).all());
}

#[test]
fn a_run_as_json_is_one_object_and_nothing_else() {
    let place = Place::with("good.yaml", GOOD);
    let run = place.json(&["run", "good.yaml", "--json"]);
    assert_eq!(run["status"], "succeeded");
    assert_eq!(run["outputs"]["said"], "hello world");
    assert_eq!(run["steps"].as_array().unwrap().len(), 3);
    assert!(run["created_at"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn a_run_that_fails_says_where_why_and_what_to_do() {
    assert_snapshot!(failed().1);
}

#[test]
fn a_failed_run_is_retried_without_what_succeeded() {
    let (place, _) = failed();
    place.write("mark", "");
    let said = place.good(&["retry"]);
    let record = place.json(&["show", "--json"]);
    assert_eq!(
        record["steps"][0]["attempts"].as_array().unwrap().len(),
        1,
        "{}",
        said.all()
    );
    assert_eq!(record["steps"][1]["attempts"].as_array().unwrap().len(), 2);
    assert_snapshot!(format!("{}\n{}", said.all(), place.good(&["show"]).all()));
}

#[test]
fn what_happened_can_be_looked_at_afterwards() {
    let (place, _) = failed();
    place.write("good.yaml", GOOD);
    place.good(&["run", "good.yaml"]);
    let mut all = String::new();
    for arguments in [
        &["list"][..],
        &["list", "--status", "failed"],
        &["list", "--workflows"],
        &["show"],
        &["show", "last", "greet"],
        &["logs", "last", "greet"],
        &["logs", "last", "count", "--item", "1"],
        &["graph", "good.yaml"],
        &["why"],
    ] {
        all.push_str(&format!(
            "$ kapell {}\n{}\n",
            arguments.join(" "),
            place.good(arguments).all()
        ));
    }
    assert_snapshot!(all);
    // Items run side by side, so their lines come in any order.
    let logs = place.good(&["logs"]).out;
    for line in [
        "greet    │ hello world",
        "count[0] │ item 0",
        "count[1] │ item 1",
        "count[2] │ item 2",
    ] {
        assert!(logs.contains(&line.replace("    ", "  ")), "{logs}");
    }
}

#[test]
fn why_says_what_failed_and_what_was_held_up_by_it() {
    let (place, _) = failed();
    let all = [
        &["why"][..],
        &["why", "last", "after"],
        &["why", "last", "none"],
    ]
    .map(|arguments| {
        format!(
            "$ kapell {}\n{}",
            arguments.join(" "),
            place.kapell(arguments).all()
        )
    });
    assert_snapshot!(all.join("\n"));
}

#[test]
fn a_timeline_has_a_row_for_each_step_and_marks_the_critical_path() {
    let place = Place::with("good.yaml", GOOD);
    place.good(&["run", "good.yaml"]);
    let text = place.good(&["timeline"]).out;
    let row = |name: &str| text.lines().find(|line| line.contains(name)).unwrap();
    assert!(
        row("greet").starts_with('▸') && row("count").starts_with('▸'),
        "{text}"
    );
    assert!(row("skipped").starts_with(' '), "{text}");
    assert!(
        text.lines().all(|line| line.chars().count() <= 110),
        "{text}"
    );
    let rows = place.json(&["timeline", "--json"]);
    assert_eq!(rows.as_array().unwrap().len(), 3);
}

#[test]
fn bad_input_is_told_from_a_failed_run() {
    let place = Place::with(
        "bad.yaml",
        "workflow: bad\nsteps:\n  a: { shel: echo }\n  b: { needs: [c], noop: }\n",
    );
    place.write("good.yaml", GOOD);
    place.write("list.json", "[1]");
    let all = [
        &["run", "bad.yaml"][..],
        &["run", "none.yaml"],
        &["run", "good.yaml", "-p", "nam=x"],
        &["run", "good.yaml", "-p", "name"],
        &["run", "good.yaml", "--params-file", "list.json"],
        &["validate", "good.yaml", "bad.yaml"],
    ]
    .map(|arguments| {
        let said = place.kapell(arguments);
        assert_eq!(said.status, 2, "{}", said.all());
        format!("$ kapell {}\n{}", arguments.join(" "), said.all())
    });
    assert_snapshot!(all.join("\n"));
}

#[test]
fn a_run_is_named_by_its_id_its_end_or_last() {
    let place = Place::with("good.yaml", GOOD);
    let id = place.json(&["run", "good.yaml", "--json"])["run"]
        .as_str()
        .unwrap()
        .to_owned();
    for name in [&*id, &id[16..], &id[22..], "last"] {
        assert_eq!(place.json(&["show", name, "--json"])["run"], *id, "{name}");
    }
    assert_eq!(
        place.kapell(&["show", &id[23..]]).status,
        2,
        "three characters are too few"
    );
    assert_eq!(place.kapell(&["show", "zzzzzzzz"]).status, 2);
}

#[test]
fn a_run_is_seen_as_it_was_at_a_moment() {
    let (place, _) = failed();
    place.write("mark", "");
    let ended = place.json(&["show", "--json"])["ended_at"]
        .as_str()
        .unwrap()
        .to_owned();
    place.good(&["retry"]);
    assert_eq!(place.json(&["show", "--json"])["status"], "succeeded");
    assert_eq!(
        place.json(&["show", "last", "--at", &ended, "--json"])["status"],
        "failed"
    );
    let first = place.json(&["show", "last", "--at", "0s", "--json"]);
    assert_eq!(first["status"], "running");
    assert_eq!(first["steps"][2]["status"], "pending");
}

#[test]
fn a_fork_keeps_what_comes_before_and_changes_parameters() {
    let (place, _) = failed();
    place.write("other", "");
    let other = format!("mark={}", place.path("other").display());
    place.good(&["fork", "--from", "check", "-p", &other]);
    let record = place.json(&["show", "--json"]);
    assert_eq!(record["status"], "succeeded");
    assert_eq!(record["trigger"], "fork");
    assert!(
        record["steps"][0]["attempts"].is_null(),
        "kept, not done again: {record}"
    );
}

#[test]
fn a_step_is_skipped_given_an_output_or_done_again() {
    let (place, _) = failed();
    place.good(&["skip", "last", "check"]);
    assert_eq!(
        place.json(&["show", "--json"])["steps"][1]["status"],
        "skipped"
    );
    let refused = place.kapell(&["set-output", "last", "before", "{}"]);
    assert_eq!(
        refused.status,
        2,
        "it has succeeded already: {}",
        refused.all()
    );
    place.write("mark", "");
    place.good(&["restart", "--from", "check"]);
    assert_eq!(
        place.json(&["show", "--json"])["steps"][1]["status"],
        "succeeded"
    );
}

#[test]
fn workflows_that_a_step_names_are_found_beside_the_file() {
    let place = Place::with(
        "parent.yaml",
        "workflow: parent\nsteps:\n  call: { workflow: child }\n",
    );
    place.write(
        "inner.yml",
        "workflow: child\nsteps:\n  a: { workflow: grandchild }\n",
    );
    place.write(
        "more.json",
        "{\"workflow\": \"grandchild\", \"steps\": {\"a\": {\"noop\": null}}}",
    );
    place.write("unrelated.yaml", "workflow: other\nsteps: 3\n");
    place.good(&["run", "parent.yaml"]);
    assert_eq!(
        place.json(&["list", "--json"])["runs"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

#[test]
fn files_go_with_a_workflow_less_what_is_ignored() {
    let text =
        "workflow: files\nsteps:\n  a: { shell: \"find . -type f | sort > all; cat all\" }\n";
    let place = Place::with("w/files.yaml", text);
    place.write("w/.kapellignore", "*.csv\n!keep.csv\n");
    place.write("w/lost.csv", "");
    place.write("w/keep.csv", "");
    place.write("w/sub/__pycache__/x", "");
    place.write("w/sub/code.py", "");
    place.good(&["run", "w/files.yaml"]);
    let logs = place.good(&["logs"]).out;
    for (file, there) in [
        ("keep.csv", true),
        ("lost.csv", false),
        ("sub/code.py", true),
        ("__pycache__", false),
    ] {
        assert_eq!(logs.contains(file), there, "{file}: {logs}");
    }
}

#[test]
fn the_same_file_is_the_same_version() {
    let place = Place::with("good.yaml", GOOD);
    place.good(&["run", "good.yaml"]);
    place.good(&["run", "good.yaml"]);
    assert_eq!(
        place.json(&["list", "--workflows", "--json"])["workflows"][0]["version"],
        1
    );
    place.write("beside.txt", "new");
    place.good(&["run", "good.yaml"]);
    assert_eq!(
        place.json(&["list", "--workflows", "--json"])["workflows"][0]["version"],
        2,
        "files belong to it"
    );
}

#[test]
fn one_key_makes_one_run() {
    let place = Place::with("good.yaml", GOOD);
    let ids: Vec<_> = (0..2)
        .map(|_| {
            place.json(&["run", "good.yaml", "--idempotency-key", "monday", "--json"])["run"]
                .clone()
        })
        .collect();
    assert_eq!(ids[0], ids[1]);
}
