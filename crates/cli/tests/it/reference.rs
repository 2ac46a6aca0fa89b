//! What the reference page of the API shows works as it is printed.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::place::Place;
use crate::server::Server;

/// What the examples of the document ask for.
const HELLO: &str = "\
workflow: hello
params:
  name: { type: string, default: world }
triggers:
  - { name: nightly, cron: \"0 2 * * *\" }
  - { name: orders, webhook: { path: orders } }
steps:
  greet:
    shell: echo hello > report.csv
    artifacts: { out: { report: report.csv } }
  ask: { needs: [greet], approval: { message: go on? } }
";

/// Lines that ask for what is not there, or what a run that waits for an answer does not take: names of
/// operations and the status that says so.
const REFUSED: [(&str, &str); 13] = [
    // No run has failed, none blocks anything, and the first step has ended.
    ("retry_run", "409"),
    ("restart_run", "409"),
    ("dismiss_run", "409"),
    ("dismiss_queue", "409"),
    ("skip_run", "409"),
    ("set_output_run", "409"),
    ("continue_run", "409"),
    ("set_param_run", "409"),
    // The first step is no foreach.
    ("list_items", "404"),
    // Names that are made up.
    ("act_on_notice", "409"),
    ("drain_worker", "404"),
    ("drain_pool", "404"),
    ("call_hook", "404"),
];

#[test]
fn every_line_of_the_reference_page_runs_as_it_is_printed() {
    let place = Place::with("hello.yaml", HELLO);
    place.write("report.csv", "a,b\n1,2\n");
    let token = ["token", "create", "anna", "--scope", "admin"];
    let token = place.command(&token).output().unwrap().stdout;
    let token = String::from_utf8(token).unwrap().trim().to_owned();
    let server = Server::with(place, &[]);
    let place = &server.place;
    let url = &server.url;
    place.good(&["deploy", "hello.yaml", "--server", url]);
    let run = |line: &str| {
        // As printed, but for who asks, what is said of the answer, and an end to streams.
        let line = format!(
            "{line} -s -o answer -w '%{{http_code}}' -m 3 -H 'Authorization: Bearer {token}'"
        );
        let said = Command::new("sh")
            .args(["-c", &line])
            .env("KAPELL_SERVER", url)
            .current_dir(place.path(""))
            .output()
            .unwrap();
        String::from_utf8(said.stdout).unwrap()
    };
    run("curl \"$KAPELL_SERVER/api/v1/openapi.json\"");
    let document = std::fs::read_to_string(place.path("answer")).unwrap();
    let document: Value = serde_json::from_str(&document).unwrap();
    let mut lines = BTreeMap::new();
    for (_, item) in document["paths"].as_object().unwrap() {
        for (_, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            let line = operation["x-codeSamples"][0]["source"].as_str();
            lines.insert(name.to_owned(), line.unwrap().replace("-O ", ""));
        }
    }
    assert!(lines.len() > 70, "{}", lines.len());
    let mut wrong = Vec::new();
    // A backfill and a token are there before they are asked for; what ends the workflow comes last.
    let last = [
        "cancel_backfill",
        "add_breakpoint_of_all",
        "set_breakpoints_of_all",
        "remove_breakpoints_of_all",
        "add_breakpoint",
        "set_breakpoints",
        "remove_breakpoints",
        "register_workflow",
        "revoke_token",
        "delete_workflow",
    ];
    let first = ["start_backfill", "create_token", "set_secret"];
    let order = |name: &String| {
        let last = last
            .iter()
            .position(|one| one == name)
            .map(|place| 2 + place);
        last.unwrap_or(usize::from(!first.contains(&name.as_str())))
    };
    let mut names: Vec<&String> = lines.keys().collect();
    names.sort_by_key(|name| order(name));
    for name in names {
        let line = &lines[name];
        if line.contains("/last") {
            // Each finds a run that waits for an answer.
            place.good(&["start", "hello", "--server", url]);
            place.until(&["show", "last", "--json", "--server", url], |run| {
                run["steps"][1]["status"] == "waiting"
            });
        }
        let status = run(line);
        if name == "get_artifact" {
            let shown = place.good(&["show", "last", "greet", "--server", url]).out;
            assert!(shown.contains("greet report -o FILE"), "{shown}");
        }
        let refused = REFUSED.iter().find(|(refused, _)| refused == name);
        let expected = refused.map_or_else(|| "200".to_owned(), |(_, status)| (*status).to_owned());
        if status != expected {
            let answer = std::fs::read_to_string(place.path("answer")).unwrap_or_default();
            wrong.push(format!(
                "{name}: {status}, not {expected}: {line}\n    {answer}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
