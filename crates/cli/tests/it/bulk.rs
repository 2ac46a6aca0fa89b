//! `kapell bulk`: one thing for many runs.

use serde_json::{Value, json};

use crate::place::Place;
use crate::server::Server;

const FILE: &str = "\
workflow: w
params:
  ok: { type: bool, default: false }
steps:
  a: { if: \"${{ !params.ok }}\", fail: not ok }
";

fn ids(runs: &Value) -> Vec<&str> {
    let runs = runs.as_array().unwrap();
    runs.iter().map(|run| run.as_str().unwrap()).collect()
}

#[test]
fn runs_that_match_are_retried_and_no_others() {
    let place = Place::with("w.yaml", FILE);
    let run = |flags: &[&str]| {
        let all = [&["run", "w.yaml", "--json"][..], flags].concat();
        place.json(&all)["run"].as_str().unwrap().to_owned()
    };
    let failed = [run(&[]), run(&[])];
    let good = run(&["-p", "ok=true"]);
    let nothing = place.kapell(&["bulk", "retry"]);
    assert_eq!(nothing.status, 2, "{}", nothing.all());
    assert!(nothing.errors.contains("--all"), "{}", nothing.all());

    let dry = place.json(&["bulk", "retry", "--workflow", "w", "--dry-run", "--json"]);
    assert_eq!(ids(&dry["runs"]), [&*failed[1], &*failed[0]], "{dry}");
    assert_eq!(dry["refused"], json!([]));
    // A status that is named is taken at its word, and what would be refused is said.
    let all = [
        "bulk",
        "retry",
        "-w",
        "w",
        "-s",
        "failed,succeeded",
        "--dry-run",
        "--json",
    ];
    let dry = place.json(&all);
    assert_eq!(ids(&dry["runs"]).len(), 2, "{dry}");
    assert_eq!(dry["refused"][0]["run"], json!(good), "{dry}");

    let said = place.good(&["bulk", "retry", "--error", "NOT OK"]);
    assert!(said.out.contains("2 runs retried"), "{}", said.all());
    let said = place.good(&["bulk", "pause", "--all", "--workflow", "none"]);
    assert!(said.out.contains("0 runs paused"), "{}", said.all());
}

#[test]
fn a_server_is_asked_which_run_to_resume() {
    let server = Server::with(Place::new(), &[]);
    let refused = server.place.kapell(&["resume", "--server", &server.url]);
    assert_eq!(refused.status, 2, "{}", refused.all());
    assert!(refused.errors.contains("--all"), "{}", refused.all());
    let all = server
        .place
        .good(&["resume", "--all", "--server", &server.url]);
    assert!(all.out.contains("0 runs resumed"), "{}", all.all());
    assert_eq!(server.end(), 0);
}
