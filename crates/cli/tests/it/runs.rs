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

/// Kapell itself does without huge pages, to stay small; what it starts is as if started by hand.
#[test]
fn a_step_may_use_huge_pages_as_its_user_may() {
    let place = Place::new();
    let file = |name: &str| place.path(name).display().to_string();
    let steps = format!(
        "workflow: pages\nsteps:\n  a: {{ shell: 'cat /proc/self/status > {}; cat /proc/$PPID/status > {}' }}\n  b: {{ needs: [a], shell: 'cat /proc/$PPID/status > {}' }}\n",
        file("own"),
        file("kapell"),
        file("later"),
    );
    std::fs::write(place.path("pages.yaml"), steps).unwrap();
    place.good(&["run", "pages.yaml"]);
    let said = |status: &std::path::Path| {
        let status = std::fs::read_to_string(status).unwrap();
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("THP_enabled:"));
        line.map(|line| line.trim().to_owned())
    };
    let ours = said(std::path::Path::new("/proc/self/status"));
    assert_eq!(said(&place.path("own")), ours);
    if ours.as_deref() == Some("1") {
        assert_eq!(said(&place.path("kapell")).as_deref(), Some("0"));
        assert_eq!(said(&place.path("later")).as_deref(), Some("0"));
    }
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

#[test]
fn parameters_come_from_files_in_yaml_and_json() {
    let text = "\
workflow: w
params:
  regions: { type: list<string> }
  rows: { type: int }
  version: { type: string }
  day: { type: date }
  limits: { type: any }
steps:
  a: { noop: }
";
    let place = Place::with("w.yaml", text);
    place.write(
        "p.yaml",
        "# of a day\nregions: [eu, us]\nrows: 5\nversion: 1.10\nday: 2026-01-31\nlimits: { low: 0.5 }\n",
    );
    place.write(
        "p.json",
        "{\"regions\": [\"eu\", \"us\"], \"rows\": 7, \"version\": \"1.10\", \"day\": \"2026-01-31\", \"limits\": {\"low\": 0.5}}",
    );
    let expected = serde_json::json!({
        "regions": ["eu", "us"],
        "rows": 7,
        "version": "1.10",
        "day": "2026-01-31",
        "limits": { "low": 0.5 },
    });
    for arguments in [
        &["run", "w.yaml", "--json", "--params-file", "p.json"][..],
        &[
            "run",
            "w.yaml",
            "--json",
            "--params-file",
            "p.yaml",
            "-p",
            "rows=7",
        ],
    ] {
        assert_eq!(place.json(arguments)["params"], expected);
    }
    place.write("twice.yaml", "rows: 1\nrows: 2\n");
    let said = place.kapell(&["run", "w.yaml", "--params-file", "twice.yaml"]);
    assert_eq!(said.status, 2);
    assert!(
        said.errors.contains("--> twice.yaml:2:1"),
        "{}",
        said.errors
    );
}

#[test]
fn the_next_page_of_a_list_has_the_same_filters() {
    let place = Place::with("good.yaml", GOOD);
    for _ in 0..3 {
        place.good(&["run", "good.yaml"]);
    }
    let page =
        |arguments: &[&str]| place.good(&[&["list", "-w", "good", "-n", "2"], arguments].concat());
    let first = page(&["-s", "succeeded"]).out;
    let next = first.lines().last().unwrap();
    let more = "more: kapell list --workflow good --status succeeded -n 2 --before <run>.";
    assert!(next.starts_with(more), "{next}");
    let runs = place.json(&["list", "--json"]);
    let second = runs["runs"][1]["run"].as_str().unwrap().to_owned();
    let last = page(&["--before", &second]).out;
    assert_eq!(
        last.lines().count(),
        2,
        "a head and a run, and no more: {last}"
    );
    assert!(place.json(&["list", "-n", "3", "--json"])["next"].is_null());
}

#[test]
fn runs_are_searched_by_label_trigger_error_and_time() {
    let text = "\
workflow: searched
params: { team: { type: string } }
labels: { team: \"${{ params.team }}\", env: test }
steps:
  check: { shell: test \"$TEAM\" = a, env: { TEAM: \"${{ params.team }}\" } }
";
    let place = Place::with("searched.yaml", text);
    for (team, status) in [("a", 0), ("b, c", 1)] {
        let said = place.kapell(&["run", "searched.yaml", "-p", &format!("team={team}")]);
        assert_eq!(said.status, status, "{}", said.all());
    }
    let teams = |arguments: &[&str]| {
        let page = place.json(&[&["list", "--json"], arguments].concat());
        let runs = page["runs"].as_array().unwrap().iter();
        runs.map(|run| run["labels"]["team"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(teams(&["--label", "team=a"]), ["a"]);
    assert_eq!(teams(&["--label", "team=b, c", "-l", "env=test"]), ["b, c"]);
    assert_eq!(teams(&["--label", "team=b"]), [] as [&str; 0]);
    assert_eq!(teams(&["--error", "EXIT code"]), ["b, c"]);
    assert_eq!(teams(&["--error", "nothing like it"]), [] as [&str; 0]);
    assert_eq!(teams(&["--trigger", "manual"]).len(), 2);
    assert_eq!(teams(&["--trigger", "schedule"]).len(), 0);
    assert_eq!(teams(&["--since", "1h", "--until", "0s"]).len(), 2);
    assert_eq!(teams(&["--until", "1h"]).len(), 0);
    assert_eq!(teams(&["--namespace", "elsewhere"]).len(), 0);
    let page = place.good(&[
        "list",
        "-l",
        "env=test",
        "--error",
        "x'y",
        "--namespace",
        "default",
    ]);
    assert_eq!(page.out.trim(), "no runs match");
    let page = place.good(&["list", "-l", "env=test", "--trigger", "manual", "-n", "1"]);
    let more = "more: kapell list --trigger manual --label env=test -n 1 --before <run>.";
    let last = page.out.lines().last().unwrap();
    assert!(last.starts_with(more), "{last}");
    let refused = place.kapell(&["list", "--label", "team"]);
    assert_eq!(refused.status, 2, "{}", refused.all());
}

#[test]
fn a_timeline_tells_waiting_from_failing_without_colours() {
    let text = "\
workflow: w
steps:
  g:
    steps:
      a: { shell: sleep 0.3 }
      b: { needs: [a], shell: \"sleep 0.2; exit 1\" }
";
    let place = Place::with("w.yaml", text);
    place.kapell(&["run", "w.yaml"]);
    let chart = place.good(&["timeline"]).out;
    let row = chart.lines().find(|line| line.contains(" b ")).unwrap();
    assert!(row.contains("····") && row.contains("▚▚▚▚"), "{chart}");
    let rows = place.json(&["timeline", "--json"]);
    assert!(rows[2]["waited_ms"].as_u64().unwrap() >= 250, "{rows}");
    let narrow = place
        .command(&["timeline"])
        .env("COLUMNS", "50")
        .output()
        .unwrap();
    for line in String::from_utf8(narrow.stdout).unwrap().lines().skip(1) {
        assert!(line.chars().count() <= 50, "{line}");
    }
}

#[test]
fn a_skip_is_final() {
    let (place, _) = failed();
    place.good(&["skip", "last", "check"]);
    let refused = place.kapell(&["set-output", "last", "check", "1"]);
    assert_eq!(refused.status, 2, "{}", refused.all());
    assert!(
        refused.errors.contains("has already ended skipped"),
        "{}",
        refused.errors
    );
}
